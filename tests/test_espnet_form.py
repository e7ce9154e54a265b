"""The ESPnet form of the extractor: equal to the public one, from its configuration and weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import relative_error
from torch import Tensor, nn
from transformers import AutoModel

from modeling import TdSpeakerBeamForSpeechExtraction
from tse_ser.conversion.checkpoint_conversion import from_espnet, main
from tse_ser.conversion.public_parameter_names import (
    ESPNET_GROUP_NORM_NAMES,
    ESPNET_NAMES,
    name_map,
)

CASES = ["recipe_librimix16k", "spk_emb", "x_BN_k5", "x_no_skip_muladd"]
STATES: dict[str, Any] = {
    "float32": (torch.float32, "", 1e-5, 1e-3),
    "float64": (torch.float64, "f64.", 1e-10, 1e-3),  # the public gradients are float32
}


def espnet_case(vectors_dir: Path, name: str) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    """ESPnet's configuration, parameters, and inputs with outputs."""
    folder = vectors_dir / "espnet"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return (
        json.loads((folder / f"{name}.config.json").read_text()),
        load_file(folder / f"{name}.state.safetensors"),
        load_file(folder / f"{name}.io.safetensors"),
    )


def enrollments(io: dict[str, Tensor], is_projection: bool) -> list[tuple[str, dict[str, Tensor]]]:
    """For each speaker of a mixture the suffix of its vectors, and its forward argument."""
    argument = "speaker_embeddings" if is_projection else "enrollment_values"
    suffixes = [suffix for suffix in ("1", "2") if f"enrollment{suffix}" in io]
    return [(suffix, {argument: io[f"enrollment{suffix}"]}) for suffix in suffixes]


def adaptation_embeddings(model: Any, speaker_embeddings: Tensor) -> Tensor:
    """What ESPnet calls the embedding: after the projection, where there is one."""
    if model.config.auxiliary_type == "projection":
        return model.auxiliary_network(speaker_embeddings)
    return speaker_embeddings


@pytest.mark.parametrize("precision", STATES)
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_equal_espnet(vectors_dir: Path, case: str, precision: str) -> None:
    dtype, prefix, tolerance, gradient_tolerance = STATES[precision]
    config, state, io = espnet_case(vectors_dir, case)
    model = from_espnet(config, state).to(dtype)
    losses = []
    for suffix, argument in enrollments(io, config["extractor_conf"]["use_spk_emb"]):
        argument = {name: value.to(dtype) for name, value in argument.items()}
        output = model(io["mixture"].to(dtype), **argument)
        embeddings = adaptation_embeddings(model, output.speaker_embeddings)
        assert relative_error(output.extracted_values, io[f"{prefix}estimate{suffix}"]) < tolerance
        expected = io[f"{prefix}enrollment_embedding{suffix}"]
        assert relative_error(embeddings, expected) < tolerance
        # ESPnet trains on the plain signal-to-noise ratio, averaged over the speakers.
        reference = io[f"reference{suffix}"].to(dtype)
        noise = (output.extracted_values - reference).norm(dim=-1)
        losses.append(20 * (noise / reference.norm(dim=-1)).log10())
    loss = torch.stack(losses).mean()
    assert relative_error(loss.float(), io["loss"]) < 1e-5
    loss.backward()
    gradients = {
        ours: io[f"grad.{name}"] for name, ours in espnet_names(model) if name_in(io, name)
    }
    parameters = dict(model.named_parameters())
    assert gradients.keys() == parameters.keys()
    for name, expected in gradients.items():
        gradient = parameters[name].grad
        assert gradient is not None
        error = relative_error(gradient.float().reshape(expected.shape), expected)
        assert error < gradient_tolerance, name


class GroupNorm(nn.Module):
    """What ESPnet puts into each block for "GN"."""

    def __init__(self, num_channels: int, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, num_channels, eps=1e-8)
        self.norm.load_state_dict(state)

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        assert frame_mask is None
        return self.norm(hidden_states)


@pytest.mark.parametrize("level", [1.0, 1e-4], ids=["loud", "quiet"])
@pytest.mark.parametrize("case", ["recipe_librimix16k", "x_no_skip_muladd"])
def test_group_norm_with_one_group_is_torchs(vectors_dir: Path, case: str, level: float) -> None:
    config, state, io = espnet_case(vectors_dir, case)
    config["extractor_conf"]["norm_type"] = "GN"
    block_norms = {name.rpartition(".")[0] for name in state if ".network.2." in name}
    block_norms = {name for name in block_norms if f"{name}.gamma" in state}
    parts = {"weight": "gamma", "bias": "beta"}
    public = {
        name: value for name, value in state.items() if name.rpartition(".")[0] not in block_norms
    }
    own = {
        name: {part: state[f"{name}.{other}"].flatten() for part, other in parts.items()}
        for name in block_norms
    }
    public |= {f"{name}.{part}": value for name in own for part, value in own[name].items()}
    model = from_espnet(config, public).double()
    reference = copy.deepcopy(model)
    names = name_map(ESPNET_GROUP_NORM_NAMES, model.config)
    for name, norm in own.items():
        ours = str(names[f"{name}.weight"]).rpartition(".")[0]
        reference.set_submodule(ours, GroupNorm(len(norm["weight"]), norm).double())
    # The norm before the bottleneck is not the group norm, and keeps ESPnet's own epsilon.
    frames = torch.randn(1, model.config.num_filters, 50, dtype=torch.float64) * level
    mean, variance = frames.mean(1, keepdim=True), frames.var(1, keepdim=True, unbiased=False)
    input_norm = model.mask_estimator.input_norm
    expected = (frames - mean) / (variance + 2.0**-23).sqrt() * input_norm.weight[:, None]
    assert relative_error(input_norm(frames), expected + input_norm.bias[:, None]) < 1e-6
    with torch.no_grad():
        for _, argument in enrollments(io, config["extractor_conf"]["use_spk_emb"]):
            argument = {key: level * value.double() for key, value in argument.items()}
            mixture = level * io["mixture"].double()
            extracted = model(mixture, **argument).extracted_values
            wanted = reference(mixture, **argument).extracted_values
            assert relative_error(extracted, wanted) < 1e-12


def espnet_names(model: Any) -> list[tuple[str, str]]:
    names = name_map(ESPNET_NAMES, model.config)
    return [(public, ours) for public, ours in names.items() if ours is not None]


def name_in(io: dict[str, Tensor], name: str) -> bool:
    return f"grad.{name}" in io


@pytest.mark.parametrize("case", CASES)
def test_masks_equal_espnet(vectors_dir: Path, case: str) -> None:
    config, state, io = espnet_case(vectors_dir, case)
    model = from_espnet(config, state)
    frames = model.encoder(io["mixture"][:, None])
    for suffix, argument in enrollments(io, config["extractor_conf"]["use_spk_emb"]):
        embeddings = argument.get("speaker_embeddings")
        if embeddings is None:
            embeddings = model.get_speaker_embeddings(**argument)
        mask = model.estimate_masks(frames, None, embeddings)[0]
        assert relative_error(mask, io[f"mask{suffix}"]) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_a_padded_batch_equals_espnet_on_that_row_alone(
    vectors_dir: Path, case: str
) -> None:
    """ESPnet's own batches depend on their padding: its single row is the measure."""
    config, state, io = espnet_case(vectors_dir, case)
    model = from_espnet(config, state)
    is_projection = config["extractor_conf"]["use_spk_emb"]
    mixture = io["mixture"]
    attention_mask = lengths_mask(io["ragged.mixture_lengths"], mixture.shape[-1])
    for suffix, argument in enrollments(io, is_projection):
        if not is_projection:
            lengths = io["ragged.enrollment_lengths"]
            num_samples = argument["enrollment_values"].shape[-1]
            argument["enrollment_attention_mask"] = lengths_mask(lengths, num_samples)
        output = model(mixture, attention_mask, **argument)
        expected = io[f"row2_alone.estimate{suffix}"]
        actual = output.extracted_values[2:, : expected.shape[-1]]
        assert relative_error(actual, expected) < 1e-5
        embeddings = adaptation_embeddings(model, output.speaker_embeddings)
        expected = io[f"row2_alone.enrollment_embedding{suffix}"]
        assert relative_error(embeddings[2:], expected) < 1e-5


def lengths_mask(lengths: Tensor, num_samples: int) -> Tensor:
    return (torch.arange(num_samples) < lengths[:, None]).long()


def test_the_command_gives_espnets_output(vectors_dir: Path, tmp_path: Path) -> None:
    _, _, io = espnet_case(vectors_dir, "recipe_librimix16k")
    folder = vectors_dir / "espnet"
    arguments = ["--source", "espnet", "--output_dir", str(tmp_path)]
    arguments += ["--checkpoint", str(folder / "recipe_librimix16k.pth")]
    main([*arguments, "--config", str(folder / "recipe_librimix16k.config.yaml")])
    model = TdSpeakerBeamForSpeechExtraction.from_pretrained(tmp_path)
    assert model.config.sampling_rate == 16000
    with torch.no_grad():
        for suffix, argument in enrollments(io, is_projection=False):
            output = model(io["mixture"], **argument)
            assert relative_error(output.extracted_values, io[f"estimate{suffix}"]) < 1e-5
    card = (tmp_path / "README.md").read_text()
    assert "license: cc-by-4.0\n" in card
    assert isinstance(AutoModel.from_pretrained(tmp_path), TdSpeakerBeamForSpeechExtraction)
