"""The extractor: equal to the reference vectors, indifferent to padding, trainable throughout."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import (
    PROJECTION_FIELDS,
    padding_errors,
    ragged_waveforms,
    relative_error,
    tiny_extractor,
)
from torch import Tensor

from modeling import TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction
from tse_ser.conversion.checkpoint_conversion import convert_asteroid_state_dict
from tse_ser.conversion.public_configurations import asteroid_config

INF, NAN = math.inf, math.nan
MIXTURE_LENGTHS = (1403, 901, 1164)
ENROLLMENT_LENGTHS = (700, 1003, 816)


def tensors_below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance", "gradient_tolerance"),
    [(torch.float32, "", 1e-5, 1e-3), (torch.float64, "f64.", 1e-10, 1e-8)],
    ids=["float32", "float64"],
)
@pytest.mark.parametrize("case", ["A", "B", "C", "D"])
def test_outputs_and_gradients_equal_the_public_model(
    vectors_dir: Path,
    case: str,
    dtype: torch.dtype,
    prefix: str,
    tolerance: float,
    gradient_tolerance: float,
) -> None:
    folder = vectors_dir / "td_speakerbeam"
    config = asteroid_config(json.loads((folder / f"tdsb_{case}.json").read_text())["constructor"])
    tensors = load_file(folder / f"tdsb_{case}.safetensors")
    model: Any = TdSpeakerBeamForSpeechExtraction(config)
    model.to(dtype).eval()
    model.load_state_dict(convert_asteroid_state_dict(tensors_below(tensors, "state."), config))
    mixture = tensors["mixture"].to(dtype).requires_grad_()
    enrollment = tensors["enrollment"].to(dtype).requires_grad_()

    output = model(mixture, enrollment_values=enrollment, target_values=tensors["target"].to(dtype))
    output.loss.backward()

    estimate = tensors[f"{prefix}estimate"][:, 0]
    embedding = tensors[f"{prefix}enrollment_embedding"]
    assert relative_error(output.extracted_values, estimate) < tolerance
    assert relative_error(output.speaker_embeddings, embedding) < tolerance
    assert relative_error(output.loss, tensors[f"{prefix}loss"]) < tolerance
    for values, name in ((mixture, "mixture"), (enrollment, "enrollment")):
        assert values.grad is not None
        expected = tensors[f"{prefix}grad_input.{name}"]
        assert relative_error(values.grad, expected) < gradient_tolerance, name
    gradients = convert_asteroid_state_dict(tensors_below(tensors, f"{prefix}grad."), config)
    parameters = dict(model.named_parameters())
    assert gradients.keys() == parameters.keys()
    for name, expected in gradients.items():
        gradient = parameters[name].grad
        assert gradient is not None
        assert relative_error(gradient, expected) < gradient_tolerance, name


@pytest.fixture(scope="module")
def recipe_size_extractor() -> TdSpeakerBeamForSpeechExtraction:
    torch.manual_seed(0)
    return TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig(kernel_size=16, stride=8))


def test_recipe_size_has_the_public_parameters_but_the_dead_ones(
    vectors_dir: Path, recipe_size_extractor: TdSpeakerBeamForSpeechExtraction
) -> None:
    default = json.loads((vectors_dir / "td_speakerbeam" / "default_init.json").read_text())
    assert asteroid_config({"hid_chan": 512} | default["constructor"]).to_diff_dict() == (
        TdSpeakerBeamConfig(kernel_size=16, stride=8, sampling_rate=8000).to_diff_dict()
    )
    expected = default["init"]["n_params"] - default["init"]["n_dead"]
    assert sum(p.numel() for p in recipe_size_extractor.parameters()) == expected


def test_initial_statistics_are_the_public_ones(
    vectors_dir: Path, recipe_size_extractor: TdSpeakerBeamForSpeechExtraction
) -> None:
    default = json.loads((vectors_dir / "td_speakerbeam" / "default_init.json").read_text())
    stats = default["init"]["stats"]
    # The names are converted as those of a state dict whose values are the indices of the rows.
    names = {name: torch.tensor(index) for index, name in enumerate(stats)}
    converted = convert_asteroid_state_dict(names, recipe_size_extractor.config)
    rows = list(stats.values())
    parameters = dict(recipe_size_extractor.named_parameters())
    assert len(converted) == len(stats)
    for name, index in converted.items():
        shape, mean, std, largest = rows[int(index)]
        parameter = parameters[name].detach()
        assert list(parameter.shape) == shape, name
        count = parameter.numel()
        if std == 0:
            assert parameter.eq(mean).all(), name
            continue
        # Six standard errors of each statistic; a uniform draw ends at its bound.
        assert abs(parameter.mean().item()) < 6 * std / math.sqrt(count), name
        assert parameter.std().item() == pytest.approx(std, rel=6 / math.sqrt(count)), name
        is_filter_bank = name.endswith("coder.weight")
        assert parameter.abs().max().item() == pytest.approx(
            largest, rel=0.25 if is_filter_bank else 0.1
        ), name


def test_every_layer_starts_like_the_first_of_its_kind(
    recipe_size_extractor: TdSpeakerBeamForSpeechExtraction,
) -> None:
    auxiliary_network: Any = recipe_size_extractor.auxiliary_network
    network: Any
    for network in (recipe_size_extractor.mask_estimator, auxiliary_network.network):
        first = dict(network.blocks[0].named_parameters())
        for block in network.blocks[1:]:
            for name, parameter in block.named_parameters():
                bound = first[name].abs().max().item()
                assert parameter.abs().max().item() == pytest.approx(bound, rel=0.1), name


# The switches that tell ESPnet's form from asteroid's.
ESPNET_FIELDS: dict[str, Any] = {
    "input_norm_type": "cln",
    "norm_eps": 2.0**-23,
    "conv_bias": False,
    "encoder_activation": "relu",
    "share_encoder": True,
}
FORMS = [
    {"norm_type": norm_type, "causal": causal, "skip_channels": skip_channels}
    for norm_type in ("gln", "cln", "cgln", "bn")
    for causal in (False, True)
    for skip_channels in (8, 0)
] + [
    {"adaptation_type": "muladd", "speaker_embedding_dim": 16},
    {"adaptation_type": "muladd", "speaker_embedding_dim": 16, "skip_channels": 0},
    {"adaptation_type": "concat", "speaker_embedding_dim": 5},
    {"adaptation_type": "concat", "skip_channels": 0},
    {"adaptation_type": "concat", "adaptation_layer": 3},
    {"adaptation_layer": 3},
    {"encoder_activation": "relu", "mask_activation": "sigmoid"},
    {"mask_activation": "tanh", "kernel_size": 21, "stride": 5, "conv_kernel_size": 5},
    {"mask_activation": "softplus", "kernel_size": 10, "stride": 10},
    {"mask_activation": "linear", "conv_kernel_size": 1},
    {"mask_activation": "gelu", "encoder_activation": "swish", "pre_mask_activation": "tanh"},
    {"mask_activation": "prelu", "encoder_activation": "prelu", "pre_mask_activation": "relu"},
    {"mask_activation": "leaky_relu", "encoder_activation": "sigmoid", "share_encoder": True},
    ESPNET_FIELDS,
    ESPNET_FIELDS | {"norm_type": "bn", "skip_channels": 0, "pre_mask_activation": "linear"},
    ESPNET_FIELDS | {"norm_type": "cln", "causal": True, "adaptation_type": "concat"},
]


def name_of(fields: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in fields.items())


@pytest.mark.parametrize("fields", FORMS, ids=name_of)
def test_padding_changes_nothing(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields)
    waveforms = {
        "input_values": ragged_waveforms(MIXTURE_LENGTHS, 1),
        "enrollment_values": ragged_waveforms(ENROLLMENT_LENGTHS, 2),
        "target_values": ragged_waveforms(MIXTURE_LENGTHS, 3),
    }
    errors = padding_errors(model, waveforms)
    assert errors.keys() >= {"extracted_values", "speaker_embeddings", "si_snr", "loss"}
    # A PReLU's one weight sums thousands of terms of both signs, alone as in a batch.
    assert errors.pop("gradients") < 1e-4
    assert max(errors.values()) < 1e-5, errors
    errors = padding_errors(model.double(), waveforms)
    assert max(errors.values()) < 1e-10, errors


def test_a_given_embedding_replaces_the_enrollment() -> None:
    model = tiny_extractor()
    mixture, enrollment = torch.randn(2, 2, 1203).unbind()
    expected = model(mixture, enrollment_values=enrollment)
    embedding = model.get_speaker_embeddings(enrollment)
    actual = model(mixture, speaker_embeddings=embedding)
    assert torch.equal(actual.extracted_values, expected.extracted_values)
    assert torch.equal(actual.speaker_embeddings, expected.speaker_embeddings)
    other = model(mixture, enrollment_values=enrollment.flip(0))
    assert relative_error(other.extracted_values, expected.extracted_values) > 1e-3


@pytest.mark.parametrize("fields", [{}, PROJECTION_FIELDS], ids=["auxiliary network", "ge2e"])
def test_one_embedding_serves_a_batch_of_one_speaker(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields)
    mixtures, enrollment = torch.randn(3, 1203), torch.randn(1, 20000)
    embedding = model.get_speaker_embeddings(enrollment)
    expected = model(mixtures, speaker_embeddings=embedding.expand(3, -1))
    for one in (embedding, embedding[0]):
        actual = model(mixtures, speaker_embeddings=one)
        assert torch.equal(actual.extracted_values, expected.extracted_values)
        assert actual.speaker_embeddings.shape == (3, embedding.shape[-1])


@pytest.mark.parametrize("num_samples", [16, 17, 23, 24, 25])
def test_the_output_has_the_length_of_the_mixture(num_samples: int) -> None:
    model = tiny_extractor()
    output = model(torch.randn(1, num_samples), enrollment_values=torch.randn(1, 500))
    assert output.extracted_values.shape == (1, num_samples)
    # What is left over after the last hop is silent.
    assert not output.extracted_values[:, 16 + (num_samples - 16) // 8 * 8 :].any()


@pytest.mark.parametrize("norm_type", ["cln", "cgln", "bn"])
def test_a_causal_extractor_does_not_look_ahead(norm_type: str) -> None:
    model = tiny_extractor(norm_type=norm_type, causal=True)
    mixture, embedding = torch.randn(1, 1600), torch.randn(1, 16)
    changed = mixture.clone()
    changed[:, 800:] = torch.randn(800)
    before = model(mixture, speaker_embeddings=embedding).extracted_values
    after = model(changed, speaker_embeddings=embedding).extracted_values
    # The filter that first sees the change starts a filter length before it.
    assert torch.equal(before[:, : 800 - 16], after[:, : 800 - 16])
    assert not torch.allclose(before[:, 800:], after[:, 800:])


@pytest.mark.parametrize(
    "fields", [*FORMS, PROJECTION_FIELDS], ids=[*map(name_of, FORMS), "projection"]
)
def test_every_parameter_gets_a_gradient(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields).train()
    mixture, enrollment, target = torch.randn(3, 2, 1203).unbind()
    model(mixture, enrollment_values=enrollment, target_values=target).loss.backward()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert all(name.startswith("speaker_encoder.") for name in frozen)
    for name, parameter in model.named_parameters():
        if name not in frozen:
            assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_holds_thousands_of_padded_frames(dtype: torch.dtype) -> None:
    """Their number and their energy are beyond what half precision counts."""
    model = tiny_extractor(hidden_channels=64)
    (waveform,) = ragged_waveforms((40003,), 1)
    mask = torch.ones(1, 40003, dtype=torch.long)
    mask[:, 30000:] = 0
    expected = model(waveform[None], mask, waveform[None], mask)
    with torch.autocast("cpu", dtype=dtype):
        output = model(waveform[None], mask, waveform[None], mask)
    tolerance = 10 * torch.finfo(dtype).eps
    assert relative_error(output.speaker_embeddings, expected.speaker_embeddings) < tolerance
    assert relative_error(output.extracted_values, expected.extracted_values) < tolerance


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm_type": "BN"}, "`norm_type` must be one of 'gln', 'cln', 'cgln', 'bn', got 'BN'"),
        ({"mask_activation": "softmax"}, "`mask_activation` must be one of 'relu', .* 'softmax'"),
        ({"input_norm_type": "ln"}, "`input_norm_type` must be one of None, 'gln', .* got 'ln'"),
        ({"norm_eps": 0.0}, "`norm_eps` must be above 0, got 0.0"),
        ({"norm_eps": float("nan")}, "`norm_eps` must be above 0, got nan"),
        ({"encoder_activation": "elu"}, "`encoder_activation` must be one of None, 'relu'"),
        ({"pre_mask_activation": "elu"}, "`pre_mask_activation` must be one of 'relu', .* got 'el"),
        (PROJECTION_FIELDS | {"share_encoder": True}, "`share_encoder` must be False for"),
        ({"adaptation_type": "att"}, "`adaptation_type` must be one of 'mul', .* got 'att'"),
        ({"auxiliary_type": "lstm"}, "`auxiliary_type` must be one of 'tcn', 'projection'"),
        ({"speaker_encoder": "xvector"}, "`speaker_encoder` must be one of None, 'campplus'"),
        ({"speaker_encoder": "ge2e"}, "needs `auxiliary_type='projection'`"),
        (PROJECTION_FIELDS | {"sampling_rate": 8000}, "`sampling_rate` must be 16000 for"),
        (PROJECTION_FIELDS | {"external_embedding_dim": 192}, "`external_embedding_dim` must be 2"),
        ({"conv_kernel_size": 4}, "`conv_kernel_size` must be odd .* got 4"),
        ({"adaptation_layer": 24}, "`adaptation_layer` must lie between 0 and 23 .* got 24"),
        ({"adaptation_layer": -1}, "`adaptation_layer` must lie between 0 and 23 .* got -1"),
        ({"speaker_embedding_dim": 64}, "`speaker_embedding_dim` must be 1 x .* = 128 .* got 64"),
        ({"adaptation_type": "muladd"}, "`speaker_embedding_dim` must be 2 x .* = 256 .* got 128"),
        ({"skip_channels": 64}, "`skip_channels` must be 0 or equal `bottleneck_channels`"),
        ({"skip_channels": -1}, "`skip_channels` must be 0 .* or more, got -1"),
        ({"stride": 64}, "`stride` must lie between 1 and `kernel_size` .*32.* got 64"),
        ({"num_filters": 0}, "`num_filters` must be at least 1, got 0"),
    ],
)
def test_a_config_out_of_range_names_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TdSpeakerBeamConfig(**fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_values": torch.ones(2, 1, 800)}, "`input_values` must have shape .* average the"),
        ({"input_values": torch.ones(2, 15)}, "`input_values` must hold at least 16 samples"),
        ({"enrollment_values": None}, "Pass `enrollment_values` .* or `speaker_embeddings`"),
        ({"enrollment_values": torch.ones(800)}, "`enrollment_values` must have shape"),
        (
            {"enrollment_values": torch.ones(1, 800)},
            "`enrollment_values` must have one row for eac",
        ),
        (
            {"speaker_embeddings": torch.ones(3, 16)},
            r"`speaker_embeddings` must have shape \(2, 16",
        ),
        ({"speaker_embeddings": torch.full((2, 16), NAN)}, "`speaker_embeddings` must be finite"),
        ({"enrollment_values": torch.full((2, 800), -INF)}, "`enrollment_values` must be finite"),
        ({"target_values": torch.full((2, 800), INF)}, "`target_values` must be finite"),
        ({"speaker_embeddings": torch.ones(2, 8)}, r"`speaker_embeddings` must have shape \(2, 16"),
        ({"target_values": torch.ones(1, 800)}, "`target_values` must have the shape of `input_v"),
        ({"attention_mask": torch.zeros(2, 800)}, "`input_values` must .* mask leaves 0 in one"),
        (
            {"enrollment_attention_mask": torch.ones(1, 800)},
            "attention mask of `enrollment_values` must have its shape",
        ),
        (
            {"enrollment_attention_mask": torch.arange(1600).reshape(2, 800) >= 800},
            "`enrollment_values` must hold at least 16 valid samples",
        ),
    ],
)
def test_bad_input_names_the_argument(arguments: dict[str, Tensor | None], message: str) -> None:
    good = {"input_values": torch.ones(2, 800), "enrollment_values": torch.ones(2, 800)}
    with pytest.raises(ValueError, match=message):
        tiny_extractor()(**(good | arguments))


def test_a_projection_without_speaker_encoder_asks_for_embeddings() -> None:
    model = tiny_extractor(auxiliary_type="projection", external_embedding_dim=6)
    with pytest.raises(ValueError, match=r"pass `speaker_embeddings` of shape \(batch_size, 6\)"):
        model(torch.ones(2, 800), enrollment_values=torch.ones(2, 800))
    output = model(torch.randn(2, 800), speaker_embeddings=torch.randn(2, 6))
    assert output.extracted_values.shape == (2, 800)
