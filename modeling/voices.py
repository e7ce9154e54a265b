"""Voices: a speaker's embedding made once, kept in a file, and compared with what is heard."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

EMBEDDING_KEY = "speaker_embedding"
# A voice keeps what its model makes of this noise: it tells models apart in any precision.
PROBE_KEY = "probe_embedding"
PROBE_SEED, PROBE_SECONDS = 20, 2.0
# Rounding to bfloat16 and back moves the probe by less than this part of it, a training by more.
PROBE_TOLERANCE = 0.02
POWER_FLOOR = 1e-8


@dataclass
class EnrolledVoice:
    """
    A speaker who was enrolled once, for many mixtures.

    Args:
        embedding (`torch.Tensor` of shape `(1, embedding_size)`): of the speaker.
        warnings: what was odd about the recordings, each `{"code", "message", "role"}`, and numbers
            of its own.
        lacks_speech: whether they hold too little speech for an answer.
        enrollments: the recordings, prepared, each `(num_samples,)`: by them a mixture is noticed
            that is its own enrollment.
    """

    embedding: Tensor
    warnings: list[dict[str, Any]] = field(default_factory=list)
    lacks_speech: bool = False
    enrollments: list[np.ndarray] = field(default_factory=list)


def is_enrolled_voice(value: Any) -> bool:
    """Whether this is an [`EnrolledVoice`], told by its fields: each model of the Hub brings a
    class of its own."""
    return hasattr(value, "embedding") and hasattr(value, "lacks_speech")


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
        values = waveform.to(extractor.device, extractor.dtype)[None]
        embeddings.append(extractor.get_speaker_embeddings(values).float())
        num_frames.append((len(waveform) - config.kernel_size) // config.stride + 1)
    weights = torch.tensor(num_frames, device=extractor.device) / sum(num_frames)
    mean = weights[None] @ torch.cat(embeddings)
    if config.auxiliary_type == "projection":
        mean = F.normalize(mean, dim=-1)
    return mean.to(extractor.dtype)


def speaker_similarity(
    extractor: Any,
    extracted_values: Tensor,
    speaker_embeddings: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """
    Cosine between the enrollment's embedding and that of the extracted speech, or what the
    extractor itself has for comparing voices.

    It costs one pass of the auxiliary network (or of the speaker encoder that is built in) over the
    extracted speech, which is brought to unit power first: SI-SNR leaves its level free, and the
    feature extractor gives enrollments that power.

    Args:
        extractor: what embeds speech.
        extracted_values (`torch.Tensor` of shape `(batch_size, num_samples)`): its output.
        speaker_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): of the
            enrollments, from `get_speaker_embeddings`; one row serves all mixtures.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for
            valid samples.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`: from -1 to 1, in float32 (float64 in such a model).

    Raises:
        ValueError: the extractor has no network that embeds speech.
    """
    config = extractor.config
    if config.auxiliary_type == "projection" and config.speaker_encoder is None:
        raise ValueError(
            "The speaker similarity needs an extractor that embeds speech, and this one projects "
            "the embedding of an outside encoder (`speaker_encoder=None`): embed "
            "`extracted_values` with that encoder and compare there."
        )
    dtype = torch.promote_types(extracted_values.dtype, torch.float32)
    values = extracted_values.to(dtype)
    if attention_mask is None:
        power = values.square().mean(dim=-1, keepdim=True)
    else:
        values = values * attention_mask
        power = values.square().sum(dim=-1, keepdim=True) / attention_mask.sum(dim=-1, keepdim=True)
    values = (values * torch.rsqrt(power + POWER_FLOOR)).to(extracted_values.dtype)
    embeddings = extractor.get_speaker_embeddings(values, attention_mask)
    compare = getattr(extractor, "compare_voices", F.cosine_similarity)
    alike: Tensor = compare(embeddings.to(dtype), speaker_embeddings.to(dtype))
    return alike


def save_voice(path: str | Path, embedding: Tensor, model: Any, name: str = "") -> None:
    """
    Write an embedding with a mark of the model that made it.

    Args:
        path: a file, by custom with the suffix `.safetensors`.
        embedding: `(embedding_size,)` or `(1, embedding_size)`, from `enroll`.
        model: the model that made it.
        name: of the speaker, for whoever opens the file.

    Raises:
        ValueError: the embedding is of another size than the model's.
    """
    probe = probe_embedding(model)
    size = len(probe)
    if embedding.shape not in ((size,), (1, size)):
        raise ValueError(
            f"`embedding` must be one voice of shape (1, {size}), got {tuple(embedding.shape)}."
        )
    tensors = {
        EMBEDDING_KEY: embedding.detach().reshape(size).float().cpu().contiguous(),
        PROBE_KEY: probe,
    }
    # By a file of its own, which gets the permissions that the umask says.
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(save(tensors, metadata={"name": name}))
    partial.replace(path)


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
            embedding, probe = (file.get_tensor(key) for key in (EMBEDDING_KEY, PROBE_KEY))
    except SafetensorError as error:
        raise ValueError(f"{path} holds no voice of `save_voice`: {error}") from error
    own = probe_embedding(model)
    if own.shape != probe.shape or (own - probe).norm() > PROBE_TOLERANCE * own.norm():
        raise ValueError(
            f"{path} holds a voice{_quoted(facts.get('name'))} that another model made: its "
            "embeddings mean nothing to this one. Enroll the speaker again with this model."
        )
    extractor = _extractor_of(model)
    return embedding[None].to(extractor.device, extractor.dtype)


@torch.no_grad()
def probe_embedding(model: Any) -> Tensor:
    """
    What a model makes of a certain noise: all that determines its embeddings moves it.

    Models that differ behind the embedding alone, as after a training with a frozen auxiliary
    network, or in precision, agree.

    Returns:
        `torch.Tensor` of shape `(embedding_size,)`: float32, on the CPU.

    Raises:
        ValueError: the embedding comes from outside the model.
    """
    extractor = _extractor_of(model)
    if extractor.config.auxiliary_type == "projection" and extractor.config.speaker_encoder is None:
        raise ValueError(
            "This model takes the embeddings of an outside speaker encoder (`speaker_encoder` is "
            "None): keep them together with that encoder's name."
        )
    # In single precision and evaluation mode, whatever the model is in: a copy, and of few parts.
    shell = copy.copy(extractor)
    shell._modules = {
        name: module
        if module is None or name in ("mask_estimator", "decoder")
        else copy.deepcopy(module).float().cpu().eval()
        for name, module in extractor._modules.items()
    }
    generator = torch.Generator().manual_seed(PROBE_SEED)
    num_samples = round(PROBE_SECONDS * extractor.config.sampling_rate)
    noise = torch.randn(1, num_samples, generator=generator)
    return shell.get_speaker_embeddings(noise)[0].contiguous()


def _extractor_of(model: Any) -> Any:
    return getattr(model, "extractor", model)


def _quoted(name: str | None) -> str:
    return f" ({name!r})" if name else ""


__all__ = [
    "EnrolledVoice",
    "enroll",
    "is_enrolled_voice",
    "load_voice",
    "probe_embedding",
    "save_voice",
    "speaker_similarity",
]
