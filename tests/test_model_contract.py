"""What every model keeps, whatever its form: one contract over all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import (
    CAMPPLUS_FIELDS,
    LSTM_FIELDS,
    PROJECTION_FIELDS,
    STATISTICS_FIELDS,
    checkpoint_activations,
    joint_batch,
    padding_errors,
    ragged_waveforms,
    relative_error,
    tiny_classifier,
    tiny_extractor,
)
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    PreTrainedModel,
)

from modeling import TseSerForEmotionClassification

NUM_SAMPLES = 4003
FINE_TUNED: dict[str, Any] = {"freeze_encoder": False, "mask_time_prob": 0.5, "mask_time_length": 2}
WEIGHTED = FINE_TUNED | {"use_weighted_layer_sum": True}
INPUTS: dict[str, tuple[str, ...]] = {
    "extractor": ("input_values", "enrollment_values", "target_values"),
    "classifier": ("input_values", "labels"),
    "tse_ser": ("input_values", "enrollment_values", "target_values", "labels"),
}


def combined(encoder: str, extractor_fields: dict[str, Any], **fields: Any) -> PreTrainedModel:
    sub_models = tiny_extractor(**extractor_fields), tiny_classifier(encoder, **FINE_TUNED)
    return TseSerForEmotionClassification.from_sub_models_pretrained(*sub_models, **fields).eval()


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "extractor/gln": tiny_extractor,
    "extractor/cln": lambda: tiny_extractor(norm_type="cln", causal=True),
    "extractor/cgln": lambda: tiny_extractor(
        norm_type="cgln", skip_channels=0, adaptation_type="concat"
    ),
    "extractor/bn": lambda: tiny_extractor(
        norm_type="bn",
        mask_activation="sigmoid",
        adaptation_type="muladd",
        speaker_embedding_dim=16,
    ),
    "extractor/shared": lambda: tiny_extractor(share_encoder=True, encoder_activation="relu"),
    "extractor/ge2e": lambda: tiny_extractor(**PROJECTION_FIELDS),
    "extractor/campplus": lambda: tiny_extractor(**CAMPPLUS_FIELDS),
    "extractor/statistics": lambda: tiny_extractor(**STATISTICS_FIELDS),
    "extractor/lstm": lambda: tiny_extractor(**LSTM_FIELDS, num_outputs=2, loss_type="snr"),
    "classifier/log_mel": tiny_classifier,
    "classifier/whisper": lambda: tiny_classifier("whisper", encoder_layer=2),
    "classifier/hubert_group": lambda: tiny_classifier("hubert_group"),
    "classifier/wav2vec2_layer": lambda: tiny_classifier("wav2vec2_layer", **FINE_TUNED),
    "classifier/wavlm_layer": lambda: tiny_classifier("wavlm_layer", **WEIGHTED),
    "tse_ser/log_mel": lambda: combined("log_mel", {}),
    "tse_ser/whisper": lambda: combined("whisper", PROJECTION_FIELDS),
    "tse_ser/hubert_layer": lambda: combined(
        "hubert_layer", STATISTICS_FIELDS, presence_threshold=0.5
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def kind_of(name: str) -> str:
    return name.partition("/")[0]


def batch_for(name: str) -> dict[str, Tensor]:
    batch = joint_batch(num_samples=NUM_SAMPLES)
    return {key: batch[key] for key in INPUTS[kind_of(name)]}


def in_precision(batch: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}


@cache
def saved_once(name: str, root: Path) -> tuple[PreTrainedModel, Path]:
    """A model and its folder; not to be changed by a test."""
    model = MODELS[name]()
    folder = root / name.replace("/", "_")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("models")
    saved_once.cache_clear()


def saved_config(folder: Path) -> Any:
    """The saved config without `dtype`, which loading writes into nested configs too."""

    def without_dtype(fields: dict[str, Any]) -> dict[str, Any]:
        fields.pop("dtype", None)
        return fields

    return json.loads((folder / "config.json").read_text(), object_hook=without_dtype)


@every_model
def test_it_comes_back_bit_by_bit_through_its_auto_class(
    name: str, root: Path, tmp_path: Path
) -> None:
    model, folder = saved_once(name, root)
    is_extractor = kind_of(name) == "extractor"
    auto_class = AutoModel if is_extractor else AutoModelForAudioClassification
    loaded = auto_class.from_pretrained(folder)

    assert type(loaded) is type(model)
    assert not loaded.training
    loaded.save_pretrained(tmp_path)
    assert saved_config(tmp_path) == saved_config(folder)
    for kind in ("named_parameters", "named_buffers"):
        tensors = dict(getattr(model, kind)())
        loaded_tensors = dict(getattr(loaded, kind)())
        assert tensors.keys() == loaded_tensors.keys()
        for key, value in tensors.items():
            # Mel filters and windows are buffers that no file holds.
            assert torch.equal(value, loaded_tensors[key]), key
            assert value.requires_grad == loaded_tensors[key].requires_grad, key
    output = model(**batch_for(name))
    for key, value in loaded(**batch_for(name)).items():
        # Not to the bit: how a product is rounded depends on where its weights lie in memory.
        torch.testing.assert_close(value, output[key], rtol=1e-6, atol=1e-6)
    assert not model.all_tied_weights_keys


@every_model
def test_outputs_have_their_shapes_and_evaluation_repeats_itself(name: str, root: Path) -> None:
    model, _ = saved_once(name, root)
    batch = batch_for(name)
    output = model(**batch)
    shapes = {
        "loss": (),
        "extraction_loss": (),
        "classification_loss": (),
        "logits": (2, 4),
        "extracted_values": (2, NUM_SAMPLES),
        "si_snr": (2,),
        "speaker_similarity": (2,),
        "target_present": (2,),
    }
    for key, value in output.items():
        if key != "speaker_embeddings":
            assert value.shape == shapes[key], key
        assert value.isfinite().all(), key
    torch.manual_seed(1)
    again = model(**batch)
    assert all(torch.equal(again[key], value) for key, value in output.items())
    as_tuple = model(**batch, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert all(torch.equal(*pair) for pair in zip(as_tuple, output.to_tuple(), strict=True))
    unlabelled = {k: v for k, v in batch.items() if k not in ("labels", "target_values")}
    assert model(**unlabelled).loss is None


@pytest.mark.parametrize("name", [name for name in MODELS if "group" not in name])
def test_a_padded_batch_gives_what_its_rows_give_alone(name: str) -> None:
    lengths = (NUM_SAMPLES, 2501, 3110)
    waveforms = {
        "input_values": ragged_waveforms(lengths, 1),
        "enrollment_values": ragged_waveforms((1900, 2603, 2216), 2),
        "target_values": ragged_waveforms(lengths, 3),
    }
    waveforms = {key: value for key, value in waveforms.items() if key in batch_for(name)}
    labels = torch.tensor([0, 3, 1]) if "labels" in batch_for(name) else None
    model = MODELS[name]()
    errors = padding_errors(model, waveforms, labels)
    # The gradient of an extractor's single PReLU weight sums thousands of products that all but
    # cancel, which double precision alone can tell from zero.
    assert errors.pop("gradients") < (1e-5 if kind_of(name) == "classifier" else 3e-4)
    assert max(errors.values()) < 1e-5, errors
    errors = padding_errors(model.double(), waveforms, labels)
    assert max(errors.values()) < 1e-10, errors


@every_model
def test_no_parameter_is_dead_in_training(name: str) -> None:
    """One without gradient stops DistributedDataParallel."""
    model = MODELS[name]().train()
    loss = model(**batch_for(name)).loss
    assert loss.shape == () and loss.isfinite()
    loss.backward()
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    assert trained
    assert not [key for key, value in trained.items() if value.grad is None]
    assert all(value.grad.isfinite().all() for value in trained.values())


def gradients(model: PreTrainedModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(0)
    model(**batch).loss.backward()
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


@every_model
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    model, batch = MODELS[name](), batch_for(name)
    model.train()
    expected = gradients(model, batch)
    calls: list[nn.Module] = []
    checkpoint_activations(model)
    checkpointed = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    for module in checkpointed:
        checkpoint = module._gradient_checkpointing_func

        def counted(*arguments: Any, inner: Any = checkpoint, of: nn.Module = module) -> Any:
            calls.append(of)
            return inner(*arguments)

        module._gradient_checkpointing_func = counted  # type: ignore[assignment]
    actual = gradients(model, batch)
    assert calls, "nothing was checkpointed"
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert relative_error(actual[key], value, 1e-6) < 1e-5, key


@every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_it_loads_and_runs_in_half_precision(name: str, dtype: torch.dtype, root: Path) -> None:
    model, folder = saved_once(name, root)
    loaded = type(model).from_pretrained(folder, dtype=dtype)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    batch = batch_for(name)
    expected = model(**batch)
    # Waveforms may come in the model's precision or as they are read.
    for given in (in_precision(batch, dtype), batch):
        output = loaded(**given)
        assert output.loss.dtype == torch.float32
        for key, value in output.items():
            assert value.isfinite().all(), key
        for key in ("logits", "extracted_values", "speaker_embeddings"):
            if key in output:
                assert relative_error(output[key].float(), expected[key]) < 0.1, key
    # Loaded in single precision again, filters and windows are what they were.
    for key, value in loaded.named_buffers():
        if key.endswith(("mel_filters", "window")):
            assert torch.equal(value, model.get_buffer(key)), key


@every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_keeps_the_loss_in_single_precision(
    name: str, dtype: torch.dtype, root: Path
) -> None:
    model, _ = saved_once(name, root)
    batch = batch_for(name)
    expected = model(**batch)
    with torch.autocast("cpu", dtype=dtype):
        output = model(**batch)
        loss = output.loss
    model.zero_grad()
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()
    if "si_snr" in output:
        assert output.si_snr.dtype == torch.float32
        # Random weights extract noise: of -60 dB a rounding in half precision makes -58.
        assert ((output.si_snr - expected.si_snr).abs() < 1.0 + 0.1 * expected.si_snr.abs()).all()
    if "logits" in output:
        assert (output.logits - expected.logits).abs().max() < 0.1


@pytest.mark.parametrize("name", ["extractor/gln", "classifier/log_mel", "tse_ser/whisper"])
@pytest.mark.parametrize("device_map", ["cpu", "auto"])
def test_it_loads_onto_a_device_map(name: str, device_map: str, root: Path) -> None:
    model, folder = saved_once(name, root)
    loaded = type(model).from_pretrained(folder, device_map=device_map)
    batch = {key: value.to(loaded.device) for key, value in batch_for(name).items()}
    output = loaded(**batch)
    for key, value in model(**batch_for(name)).items():
        assert relative_error(output[key].cpu(), value) < 1e-3, key


@pytest.mark.parametrize("name", ["classifier/log_mel", "tse_ser/log_mel"])
def test_labels_can_be_resized(name: str, root: Path, tmp_path: Path) -> None:
    model, folder = saved_once(name, root)
    names = {index: f"emotion {index}" for index in range(5)}
    batch = {key: value for key, value in batch_for(name).items() if key != "labels"}
    for fields in ({"num_labels": 5}, {"id2label": names, "label2id": {}}):
        resized = type(model).from_pretrained(folder, ignore_mismatched_sizes=True, **fields)
        assert resized(**batch).logits.shape == (2, 5)
        assert resized.config.num_labels == 5
        if "id2label" in fields:
            assert resized.config.id2label == names
        resized.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        assert torch.equal(again(**batch).logits, resized(**batch).logits)
        # All but the last layer is what it was.
        encoder = {k: v for k, v in resized.state_dict().items() if "head.classifier" not in k}
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in encoder.items())


def check_compiled(model: PreTrainedModel, name: str, dynamic: bool, lengths: list[int]) -> None:
    """Compare with the model itself; `fullgraph` makes a graph break an error."""
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="eager")
    for num_samples in lengths:
        whole = joint_batch(num_samples=num_samples)
        batch = {key: whole[key] for key in INPUTS[kind_of(name)]}
        batch["attention_mask"] = torch.ones(2, num_samples, dtype=torch.long)
        batch["attention_mask"][1, 2500:] = 0
        output = compiled(**batch)
        for key, value in model(**batch).items():
            assert relative_error(output[key], value) < 1e-5, key
    torch._dynamo.reset()


def test_a_classifier_compiles_without_a_graph_break(root: Path) -> None:
    model, _ = saved_once("classifier/log_mel", root)
    check_compiled(model, "classifier/log_mel", dynamic=False, lengths=[NUM_SAMPLES])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tse_ser/log_mel", "classifier/whisper", "classifier/log_mel"])
def test_it_compiles_without_a_graph_break_at_any_length(name: str, root: Path) -> None:
    model, _ = saved_once(name, root)
    check_compiled(model, name, dynamic=True, lengths=[NUM_SAMPLES, 3111])


@every_model
def test_silence_trains_with_finite_gradients(name: str) -> None:
    model = MODELS[name]().train()
    batch = batch_for(name)
    for waveforms in batch.keys() - {"labels"}:
        batch[waveforms] = torch.zeros(2, NUM_SAMPLES)
    loss = model(**batch).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


BAD_INPUTS: list[tuple[str, Tensor, str]] = [
    ("input_values", torch.ones(NUM_SAMPLES), "`input_values` must have shape"),
    ("input_values", torch.ones(2, 2, NUM_SAMPLES), "`input_values` must have shape"),
    ("input_values", torch.ones(2, 1), "`input_values` must hold at least"),
    ("input_values", torch.ones(0, NUM_SAMPLES), "`input_values` must hold at least"),
    ("input_values", torch.full((2, NUM_SAMPLES), torch.nan), "`input_values` must be finite"),
    ("input_values", torch.full((2, NUM_SAMPLES), torch.inf), "`input_values` must be finite"),
    ("attention_mask", torch.ones(2, 7), "The attention mask of `input_values` must have its"),
    ("enrollment_values", torch.ones(3, NUM_SAMPLES), "`enrollment_values` must have one row"),
    ("enrollment_values", torch.ones(2, 0), "`enrollment_values` must hold at least"),
    ("target_values", torch.ones(2, 7), "`target_values` must have the shape"),
    ("labels", torch.tensor([0, 4]), "`labels` must lie between 0 and 3"),
    ("labels", torch.tensor([1]), "`labels` must have one row for each"),
]


@every_model
def test_bad_input_names_the_argument(name: str, root: Path) -> None:
    model, _ = saved_once(name, root)
    takes = (*INPUTS[kind_of(name)], "attention_mask")
    for argument, value, message in BAD_INPUTS:
        batch = batch_for(name)
        if argument == "input_values":
            batch.pop("target_values", None)
        if argument in takes:
            with pytest.raises(ValueError, match=message):
                model(**(batch | {argument: value}))
