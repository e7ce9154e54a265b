"""Voices: a speaker's embedding made once, kept in a file, and used with the model that made it."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from .configuration_td_speakerbeam import TdSpeakerBeamConfig

EMBEDDING_KEY = "speaker_embedding"
# What happens behind the embedding; every other field of a config may change it.
FIELDS_BEHIND_THE_EMBEDDING = {
    "adaptation_layer",
    "adaptation_type",
    "causal",
    "loss_type",
    "mask_activation",
    "max_snr_db",
    "num_outputs",
    "num_repeats",
}


@torch.no_grad()
def enroll(model: Any, enrollments: Sequence[Tensor | np.ndarray]) -> Tensor:
    """
    One embedding from several recordings of one speaker, each weighted by its number of frames.

    The embedding of the paper's auxiliary network is a mean over frames, so this is the mean over
    the frames of all recordings. That of a built-in speaker encoder has unit length: the mean is
    brought to unit length again.

    Args:
        model: an extractor, or a model that holds one as `extractor`.
        enrollments: waveforms `(num_samples,)` at the model's rate, each at the level that the
            feature extractor gives it (a root mean square of 1).

    Returns:
        `torch.Tensor` of shape `(1, embedding_size)`, to pass as `speaker_embeddings`.

    Raises:
        ValueError: no recording, a wrong rank, one shorter than a filter, or a model without
            speaker encoder.
    """
    extractor = _extractor_of(model)
    if len(enrollments) == 0:
        raise ValueError("`enrollments` is empty: pass at least one recording of the speaker.")
    config = extractor.config
    embeddings, num_frames = [], []
    for index, enrollment in enumerate(enrollments):
        waveform = torch.as_tensor(enrollment)
        if waveform.dim() != 1:
            raise ValueError(
                f"`enrollments[{index}]` must have shape (num_samples,), got "
                f"{tuple(waveform.shape)}: average the channels of stereo audio."
            )
        values = waveform.to(extractor.encoder.weight)[None]
        embeddings.append(extractor.get_speaker_embeddings(values).float())
        num_frames.append((len(waveform) - config.kernel_size) // config.stride + 1)
    weights = torch.tensor(num_frames, device=extractor.device) / sum(num_frames)
    mean = weights[None] @ torch.cat(embeddings)
    if config.auxiliary_type == "projection":
        mean = F.normalize(mean, dim=-1)
    return mean.to(extractor.dtype)


def save_voice(path: str | Path, embedding: Tensor, model: Any, name: str = "") -> None:
    """
    Write an embedding with the hash of the model that made it.

    Args:
        path: a file, by custom with the suffix `.safetensors`.
        embedding: `(embedding_size,)` or `(1, embedding_size)`, from `enroll`.
        model: the model that made it.
        name: of the speaker, for whoever opens the file.

    Raises:
        ValueError: the embedding is of another size than the model's.
    """
    size = _embedding_size(_extractor_of(model).config)
    if embedding.shape not in ((size,), (1, size)):
        raise ValueError(
            f"`embedding` must be one voice of shape (1, {size}), got {tuple(embedding.shape)}."
        )
    tensors = {EMBEDDING_KEY: embedding.detach().reshape(size).float().cpu().contiguous()}
    save_file(tensors, path, metadata={"model_hash": embedding_hash(model), "name": name})


def load_voice(path: str | Path, model: Any) -> Tensor:
    """
    Read an embedding that this model made.

    Args:
        path: written by `save_voice`.
        model: the model to use it with.

    Returns:
        `torch.Tensor` of shape `(1, embedding_size)`, on the model's device, to pass as
        `speaker_embeddings`.

    Raises:
        ValueError: there is no such file, it holds no voice, or another model made it.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist: write a voice with `save_voice` first.")
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            embedding = file.get_tensor(EMBEDDING_KEY)
    except SafetensorError as error:
        raise ValueError(f"{path} holds no voice of `save_voice`: {error}") from error
    if facts.get("model_hash") != embedding_hash(model):
        raise ValueError(
            f"{path} holds a voice{_quoted(facts.get('name'))} that another model made: its "
            "embeddings mean nothing to this one. Enroll the speaker again with this model."
        )
    extractor = _extractor_of(model)
    return embedding[None].to(extractor.device, extractor.dtype)


def embedding_hash(model: Any) -> str:
    """
    SHA-256 of all that determines a model's embeddings: fields of its config and parameters.

    Models that differ behind the embedding alone, as after a training with a frozen auxiliary
    network, share it.

    Raises:
        ValueError: the embedding comes from outside the model.
    """
    extractor = _extractor_of(model)
    if extractor.config.auxiliary_type == "projection" and extractor.config.speaker_encoder is None:
        raise ValueError(
            "This model takes the embeddings of an outside speaker encoder (`speaker_encoder` is "
            "None): keep them together with that encoder's name."
        )
    digest = hashlib.sha256(json.dumps(_embedding_fields(extractor.config)).encode())
    for name, tensor in sorted(_embedding_tensors(extractor)):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        # Rounded, so that a model loaded in bfloat16 knows its voices.
        rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(rounded.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _embedding_fields(config: TdSpeakerBeamConfig) -> dict[str, Any]:
    """Fields that are not at their default, so that a field to come does not void old voices."""
    if config.auxiliary_type == "projection":
        return {"speaker_encoder": config.speaker_encoder}
    defaults = TdSpeakerBeamConfig()
    names = sorted(TdSpeakerBeamConfig.__annotations__.keys() - FIELDS_BEHIND_THE_EMBEDDING)
    values = {name: getattr(config, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def _embedding_tensors(extractor: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the parameters and statistics that an embedding depends on."""
    if extractor.config.auxiliary_type == "projection":
        parts = ["speaker_encoder"]
    else:
        parts = ["auxiliary_network", *(["encoder"] if extractor.config.share_encoder else [])]
    for part in parts:
        for name, tensor in getattr(extractor, part).state_dict(prefix=f"{part}.").items():
            if tensor.is_floating_point():  # not the count of batches that a batch norm has seen
                yield name, tensor


def _embedding_size(config: TdSpeakerBeamConfig) -> int:
    is_projection = config.auxiliary_type == "projection"
    return config.external_embedding_dim if is_projection else config.embedding_size


def _extractor_of(model: Any) -> Any:
    return getattr(model, "extractor", model)


def _quoted(name: str | None) -> str:
    return f" ({name!r})" if name else ""


__all__ = ["embedding_hash", "enroll", "load_voice", "save_voice"]
