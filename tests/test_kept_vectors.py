"""The models compute what they computed when they were verified (vectors of our own)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny_models import relative_error

from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    TseSerConfig,
    TseSerForEmotionClassification,
)

VECTORS = sorted((Path(__file__).parent / "vectors").glob("*.safetensors"))
MODELS: dict[str, tuple[Any, Any]] = {
    "td_speakerbeam": (TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction),
    "shift_cnn": (ShiftCnnConfig, ShiftCnnForEmotionClassification),
    "tse_ser": (TseSerConfig, TseSerForEmotionClassification),
}


def test_there_are_vectors_of_every_model() -> None:
    kinds = {path.stem.partition("_")[0] for path in VECTORS}
    assert kinds == {"extractor", "classifier", "combined"}


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_outputs_and_gradients_are_unchanged(path: Path) -> None:
    parts: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        case = json.loads(file.metadata()["case"])
        for name in file.keys():  # noqa: SIM118  (the file is no dict)
            kind, _, key = name.partition(".")
            parts.setdefault(kind, {})[key] = file.get_tensor(name)
    config_class, model_class = MODELS[case["model_type"]]
    model = model_class(config_class(**case["fields"])).eval()
    model.load_state_dict(parts["state"])

    output = model(**parts["argument"])
    output.loss.backward()

    assert output.keys() == parts["output"].keys()
    for name, expected in parts["output"].items():
        assert relative_error(output[name], expected) < 1e-5, name
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == parts["gradient"].keys()
    floor = 1e-3 * max(expected.abs().max().item() for expected in parts["gradient"].values())
    for name, expected in parts["gradient"].items():
        assert relative_error(gradients[name], expected, floor) < 1e-3, name
