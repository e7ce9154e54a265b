"""ONNX graphs give the models' numbers, for batches and lengths unlike those of the export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import (
    LSTM_FIELDS,
    PROJECTION_FIELDS,
    STATISTICS_FIELDS,
    padded_batch,
    ragged_waveforms,
    relative_error,
    tiny_classifier,
    tiny_extractor,
)
from torch import Tensor
from transformers import PreTrainedModel

from modeling import TseSerForEmotionClassification
from tse_ser.conversion.export_onnx import export_onnx, main

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'tse-ser[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'tse-ser[onnx]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: pip install 'tse-ser[onnx]'"
)

# One block with a dilation beyond 1, and one stack: an export takes seconds for each ten blocks.
SMALL_FIELDS: dict[str, Any] = {"num_blocks": 2, "num_repeats": 1}
# (rows, samples, enrollment samples): none as exported, remainders of hop and dilation among them.
SHAPES = [(1, 403, 415), (3, 4003, 1604), (2, 2000, 2999)]


def arguments_of_shape(num_rows: int, num_samples: int, num_enrollment: int) -> dict[str, Tensor]:
    """All that a graph may take; with more rows than one, the last ones are padded."""
    lengths = tuple(num_samples - 199 * row for row in range(num_rows))
    values, mask = padded_batch(ragged_waveforms(lengths, seed=1))
    lengths = tuple(max(num_enrollment - 97 * row, 16) for row in range(num_rows))
    enrollment, enrollment_mask = padded_batch(ragged_waveforms(lengths, seed=2))
    return {
        "input_values": values,
        "attention_mask": mask,
        "enrollment_values": enrollment,
        "enrollment_attention_mask": enrollment_mask,
        "speaker_embeddings": torch.randn(num_rows, 16),
    }


def largest_error(model: PreTrainedModel, path: Path) -> float:
    """Of each output over all shapes, relative to the largest value."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]
    errors = []
    for shape in SHAPES:
        arguments = {name: arguments_of_shape(*shape)[name] for name in names}
        values = session.run(outputs, {name: value.numpy() for name, value in arguments.items()})
        with torch.no_grad():
            expected = model(**arguments)
        for name, value in zip(outputs, values, strict=True):
            assert value.shape == tuple(expected[name].shape)
            errors.append(relative_error(torch.from_numpy(value), expected[name]))
    return max(errors)


def tiny_whole() -> TseSerForEmotionClassification:
    model = TseSerForEmotionClassification.from_sub_models_pretrained(
        tiny_extractor(**SMALL_FIELDS), tiny_classifier()
    )
    return model.eval()


def test_the_command_writes_an_extractor(tmp_path: Path) -> None:
    model, path = tiny_extractor(**SMALL_FIELDS), tmp_path / "model.onnx"
    model.save_pretrained(tmp_path / "model")
    main(["--model", str(tmp_path / "model"), "--output", str(path)])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["input_values", "enrollment_values"]
    assert [node.name for node in session.get_outputs()] == [
        "extracted_values",
        "speaker_embeddings",
    ]
    assert session.get_modelmeta().custom_metadata_map["sampling_rate"] == "16000"
    assert largest_error(model, path) < 1e-4


def test_the_whole_runs_on_padded_batches_with_an_embedding(tmp_path: Path) -> None:
    model, path = tiny_whole(), tmp_path / "model.onnx"
    export_onnx(model, path, speaker="embedding", masks=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = ["input_values", "attention_mask", "speaker_embeddings"]
    assert [node.name for node in session.get_inputs()] == names
    assert [node.name for node in session.get_outputs()] == ["extracted_values", "logits"]
    labels = json.loads(session.get_modelmeta().custom_metadata_map["id2label"])
    assert labels["3"] == "angry"
    assert largest_error(model, path) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("speaker", ["enrollment", "embedding"])
def test_the_whole_takes_any_input(speaker: str, masks: bool, tmp_path: Path) -> None:
    model, path = tiny_whole(), tmp_path / "model.onnx"
    export_onnx(model, path, speaker, masks)
    assert largest_error(model, path) < 1e-4
    # Longer than what the classifier hears.
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arguments = arguments_of_shape(1, 130_003, 3000)
    arguments = {node.name: arguments[node.name] for node in session.get_inputs()}
    values = session.run(["logits"], {name: value.numpy() for name, value in arguments.items()})
    with torch.no_grad():
        expected = model(**arguments).logits
    assert relative_error(torch.from_numpy(values[0]), expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"norm_type": "cln", "adaptation_type": "concat"},
        {"norm_type": "cgln", "causal": True, "num_blocks": 3},
        {"norm_type": "bn", "skip_channels": 0, "mask_activation": "softplus"},
        {"share_encoder": True, "encoder_activation": "relu", "input_norm_type": "cln"},
        STATISTICS_FIELDS,
    ],
)
def test_every_form_can_be_exported(fields: dict[str, Any], masks: bool, tmp_path: Path) -> None:
    model, path = tiny_extractor(**{**SMALL_FIELDS, **fields}), tmp_path / "model.onnx"
    export_onnx(model, path, masks=masks)
    assert largest_error(model, path) < 1e-4


def test_a_speaker_encoder_that_no_graph_can_hold_names_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_extractor(**PROJECTION_FIELDS).save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit):
        main(["--model", str(tmp_path / "model"), "--output", str(tmp_path / "model.onnx")])
    assert "--speaker embedding" in capsys.readouterr().err


def test_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_classifier().save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit):
        main(["--model", str(tmp_path / "model"), "--output", str(tmp_path / "model.onnx")])
    assert "holds a shift_cnn" in capsys.readouterr().err


def test_recurrent_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`mask_estimator='lstm'` cannot be exported"):
        export_onnx(tiny_extractor(**LSTM_FIELDS), tmp_path / "model.onnx")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnx and onnxscript must be installed"):
        export_onnx(tiny_extractor(), tmp_path / "model.onnx")
