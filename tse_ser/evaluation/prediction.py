"""Runs a model over a dataset of mixtures: what it hears, and how well it extracts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from data_builders.schema import common_rate
from modeling import TseSerFeatureExtractor, speaker_similarity
from modeling.stretches import spread_stretches
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr

SI_SDR_FIELDS = ("si_sdr_mixture_db", "si_sdr_extracted_db", "si_sdri_db")
ID_FIELDS = ("utterance_id", "speaker_id", "interferer_id", "interferer_corpus", "gender_state")


def predict(
    model: PreTrainedModel,
    dataset: Dataset[dict[str, Any]],
    *,
    condition: str = "noisy",
    batch_size: int = 8,
    compare_speakers: bool = False,
) -> list[dict[str, Any]]:
    """Runs a model over a dataset of mixtures, a batch in memory at a time.

    Args:
        model (`PreTrainedModel`): extractor, classifier or both.
        dataset (`MixtureDataset`): examples of the contract between data and models.
        condition (`str`): `noisy` has a mixture whose SI-SDR can be measured, the others have not.
        batch_size (`int`): examples in a forward pass.
        compare_speakers (`bool`): whether the extracted speech is compared with the enrollment.

    Returns:
        One row an example: ids, label, prediction, `probabilities` of shape `(num_labels,)`, SI-SDR
        of mixture and extracted speech in dB, `snr_db`, `noise_snr_db`, `target_absent`,
        `speaker_similarity` (-1 to 1); None for what the model or condition does not have.
    """
    order = order_by_length(dataset)
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=batch_size, sampler=order, collate_fn=list
    )
    rows: list[dict[str, Any]] = []
    for examples in tqdm(loader, desc="evaluating", unit="batch"):
        outputs = run_model(model, examples, compare_speakers=compare_speakers)
        for position, example in enumerate(examples):
            own = {name: value[position] for name, value in outputs.items()}
            rows.append(_row(example, own, condition))
    return [rows[place] for place in np.argsort(order)]


def order_by_length(dataset: Dataset[dict[str, Any]]) -> list[int]:
    """The indices of a dataset from the shortest example to the longest, so that little is
    padded; one that does not tell lengths keeps its order."""
    size: int = len(dataset)  # type: ignore[arg-type]
    lengths = dataset.lengths() if hasattr(dataset, "lengths") else np.zeros(size)
    order: list[int] = np.argsort(lengths, kind="stable").tolist()
    return order


@torch.inference_mode()
def run_model(
    model: PreTrainedModel,
    examples: Sequence[Mapping[str, Any]],
    *,
    compare_speakers: bool = False,
) -> dict[str, Any]:
    """One forward pass over examples of the contract between data and models.

    Args:
        model (`PreTrainedModel`): a classifier alone gets no enrollment.
        examples (sequence of mappings): examples with `mixture` and `enrollment`.
        compare_speakers (`bool`): whether `speaker_similarity` is wanted.

    Returns:
        The model's outputs that are there, as float32 tensors on the CPU: `logits` of shape
        `(num_examples, num_labels)`, `extracted_values` of shape `(num_examples, num_samples)`, in
        the places that it has in the mixtures, `speaker_similarity` of shape `(num_examples,)`.

    Raises:
        ValueError: the model is made for another rate, or a waveform cannot be used.
    """
    feature_extractor = TseSerFeatureExtractor(sampling_rate=model.config.sampling_rate)
    features = feature_extractor(
        [example["mixture"] for example in examples],
        enrollments=[example["enrollment"] for example in examples] if extracts(model) else None,
        sampling_rate=common_rate(examples),
        return_tensors="pt",
    ).to(model.device)
    outputs = dict(model(**features))
    if compare_speakers and outputs.get("speaker_similarity") is None:
        outputs["speaker_similarity"] = speaker_similarity(
            cast(Any, getattr(model, "extractor", model)),
            outputs["extracted_values"],
            outputs["speaker_embeddings"],
            features.get("attention_mask"),
        )
    if "extracted_values" in outputs:
        # The front end left out what is no speech.
        placed = []
        for example, values in zip(
            examples, outputs["extracted_values"].float().cpu(), strict=True
        ):
            heard = feature_extractor.prepare(example["mixture"])
            whole = spread_stretches(values.numpy(), heard.stretches, heard.num_samples)
            placed.append(torch.from_numpy(whole[: heard.num_samples]))
        outputs["extracted_values"] = torch.nn.utils.rnn.pad_sequence(placed, batch_first=True)
    names = ("logits", "extracted_values", "speaker_similarity")
    return {name: outputs[name].float().cpu() for name in names if outputs.get(name) is not None}


def extracts(model: PreTrainedModel) -> bool:
    """Whether a model has an extractor, alone or in front of a classifier."""
    return hasattr(model, "get_speaker_embeddings")


def _row(
    example: Mapping[str, Any], outputs: Mapping[str, torch.Tensor], condition: str
) -> dict[str, Any]:
    row = {name: example[name] for name in ID_FIELDS} | {"label": int(example["label"])}
    row |= {name: _known(example.get(name)) for name in ("snr_db", "noise_snr_db")}
    row["target_absent"] = bool(example.get("target_absent", False))
    row |= dict.fromkeys(("prediction", "probabilities", "speaker_similarity"))
    if "logits" in outputs:
        probabilities = outputs["logits"].double().softmax(-1)
        row["probabilities"] = probabilities.tolist()
        row["prediction"] = int(probabilities.argmax())
    if "speaker_similarity" in outputs:
        row["speaker_similarity"] = float(outputs["speaker_similarity"])
    estimate = outputs.get("extracted_values")
    waveform = None if estimate is None else estimate.double().numpy()
    return row | _signal_scores(example, waveform, condition)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _signal_scores(
    example: Mapping[str, Any], estimate: np.ndarray | None, condition: str
) -> dict[str, float | None]:
    scores: dict[str, float | None] = dict.fromkeys(SI_SDR_FIELDS)
    # Of a target that is not there, nothing is right to extract.
    if example.get("target_absent", False):
        return scores
    target = example["target"]
    if condition == "noisy":
        scores["si_sdr_mixture_db"] = scale_invariant_sdr(example["mixture"], target)
    if estimate is not None:
        # The batch was padded; the valid samples are as many as the target has.
        scores["si_sdr_extracted_db"] = scale_invariant_sdr(estimate[: target.size], target)
    extracted_db, mixture_db = scores["si_sdr_extracted_db"], scores["si_sdr_mixture_db"]
    if extracted_db is not None and mixture_db is not None:
        scores["si_sdri_db"] = extracted_db - mixture_db
    return scores
