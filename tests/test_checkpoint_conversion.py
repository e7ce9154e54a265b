"""Public parameter names become ours, every one of them, and none is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_td_speakerbeam import config_of, tensors_below
from tiny_models import tiny_extractor
from torch import Tensor

from modeling import ShiftCnnConfig, ShiftCnnHead, TdSpeakerBeamConfig
from modeling.checkpoint_conversion import (
    convert_asteroid_state_dict,
    convert_shiftser_head_state_dict,
)


def asteroid_block(name: str, causal: bool, has_skip: bool) -> list[str]:
    depthwise = "shared_block.3.0" if causal else "shared_block.3"
    names = [f"{name}.shared_block.{index}.weight" for index in (1, 4)]
    names += [
        f"{name}.shared_block.{index}.{part}" for index in (2, 5) for part in ("gamma", "beta")
    ]
    convolutions = ["shared_block.0", depthwise, "res_conv", *(["skip_conv"] if has_skip else [])]
    return names + [f"{name}.{conv}.{part}" for conv in convolutions for part in ("weight", "bias")]


def asteroid_names(config: TdSpeakerBeamConfig) -> list[str]:
    """The public parameter names of a model of this form."""
    names = ["encoder.filterbank._filters", "decoder.filterbank._filters"]
    names.append("auxiliary.1.filterbank._filters")
    has_skip = config.skip_channels > 0
    for network, repeats, causal in (
        ("masker", config.num_repeats, config.causal),
        ("auxiliary.2", 1, False),
    ):
        names += [f"{network}.bottleneck.0.{part}" for part in ("gamma", "beta")]
        names += [f"{network}.bottleneck.1.{part}" for part in ("weight", "bias")]
        for index in range(config.num_blocks * repeats):
            names += asteroid_block(f"{network}.TCN.{index}", causal, has_skip)
        names += [f"{network}.mask_net.{name}" for name in ("0.weight", "1.weight", "1.bias")]
    if config.adaptation_type == "concat":
        names += [
            f"masker.adapt_layer.transform.{branch}.{part}"
            for branch in range(config.num_branches)
            for part in ("weight", "bias")
        ]
    return names


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"causal": True},
        {"skip_channels": 0},
        {"adaptation_type": "concat"},
        {"adaptation_type": "concat", "adaptation_layer": 3},
        {"adaptation_type": "concat", "skip_channels": 0, "causal": True},
    ],
    ids=str,
)
def test_every_asteroid_name_becomes_one_of_ours(fields: dict[str, object]) -> None:
    model = tiny_extractor(**fields)
    public: dict[str, Tensor] = dict.fromkeys(asteroid_names(model.config), torch.zeros(()))
    converted = convert_asteroid_state_dict(public, model.config)
    assert converted.keys() == model.state_dict().keys()


def test_what_is_dropped_is_what_nothing_reads(vectors_dir: Path) -> None:
    folder = vectors_dir / "td_speakerbeam"
    config = config_of(json.loads((folder / "tdsb_A.json").read_text())["constructor"])
    state = tensors_below(load_file(folder / "tdsb_A.safetensors"), "state.")
    converted = convert_asteroid_state_dict(state, config)
    dropped = {"masker.TCN.5.res_conv", "auxiliary.2.TCN.2.res_conv"}
    kept = {name: value for name, value in state.items() if name.rpartition(".")[0] not in dropped}
    assert len(state) - len(kept) == 4
    assert len(converted) == len(kept)
    assert sorted(value.sum().item() for value in converted.values()) == (
        sorted(value.sum().item() for value in kept.values())
    )


def test_every_shiftser_name_becomes_one_of_ours() -> None:
    public = {"specaugment.masked_spec_embed", "norm.weight", "norm.bias"}
    public |= {f"head.{part}" for part in ("weight", "bias")}
    public |= {
        f"conv_block.{block}.sequential.{index}.{part}"
        for block in (0, 1)
        for index in (0, 2, 4, 6)
        for part in ("weight", "bias")
    }
    head = ShiftCnnHead(ShiftCnnConfig(encoder_config={"model_type": "log_mel"}), 16)
    converted = convert_shiftser_head_state_dict(dict.fromkeys(public, torch.zeros(())))
    assert converted.keys() == head.state_dict().keys()
