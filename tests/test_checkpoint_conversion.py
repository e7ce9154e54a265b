"""Public checkpoints become ours: every parameter, its configuration, and the command for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_td_speakerbeam import ESPNET_FIELDS, name_of, tensors_below
from tiny_models import (
    encoder_config,
    relative_error,
    save_encoder,
    scatter_parameters,
    tiny_extractor,
)
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2Model

from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    ShiftCnnHead,
    TdSpeakerBeamForSpeechExtraction,
)
from tse_ser.conversion.checkpoint_conversion import (
    convert_asteroid_state_dict,
    convert_shiftser_head_state_dict,
    from_asteroid,
    from_espnet,
    main,
)
from tse_ser.conversion.public_configurations import asteroid_config
from tse_ser.conversion.public_parameter_names import (
    ASTEROID_NAMES,
    ESPNET_NAMES,
    PublicNames,
    name_map,
)

NORM = ("gamma", "beta")
ESPNET_CONFIG: dict[str, Any] = {
    "encoder": "conv",
    "encoder_conf": {"channel": 16, "kernel_size": 16, "stride": 8},
    "decoder": "conv",
    "decoder_conf": {"channel": 16, "kernel_size": 16, "stride": 8},
    "extractor": "td_speakerbeam",
    "extractor_conf": {
        "layer": 2,
        "stack": 2,
        "bottleneck_dim": 8,
        "hidden_dim": 12,
        "skip_dim": 8,
        "i_adapt_layer": 1,
        "adapt_enroll_dim": 8,
    },
    "model_conf": {"num_spk": 2, "share_encoder": True},
    "optim": "adam",
}
MODEL_ARGS: dict[str, Any] = {
    "n_filters": 16,
    "kernel_size": 16,
    "stride": 8,
    "sample_rate": 8000.0,
    "n_blocks": 2,
    "n_repeats": 2,
    "bn_chan": 8,
    "hid_chan": 12,
    "skip_chan": 8,
    "mask_act": "relu",
    "i_adapt_layer": 1,
    "adapt_layer_type": "mul",
    "adapt_enroll_dim": 8,
}
SHIFTSER_NAMES = [
    "specaugment.masked_spec_embed",
    *(f"{module}.{part}" for module in ("norm", "head") for part in ("weight", "bias")),
    *(
        f"conv_block.{block}.sequential.{index}.{part}"
        for block in (0, 1)
        for index in (0, 2, 4, 6)
        for part in ("weight", "bias")
    ),
]


ASTEROID_BLOCK = "TCN.1.shared_block.3"
ESPNET_BLOCK = "network.2.0.1.net.3.net"


@pytest.mark.parametrize(
    ("public", "fields", "expected"),
    [
        (
            ASTEROID_NAMES,
            {"causal": True},
            # A trim without parameters stands after the depthwise convolution.
            (f"masker.{ASTEROID_BLOCK}.0.bias", f"auxiliary.2.{ASTEROID_BLOCK}.bias"),
        ),
        (
            ASTEROID_NAMES,
            {"adaptation_type": "concat", "adaptation_layer": 3, "skip_channels": 0},
            ("masker.adapt_layer.transform.0.weight",),
        ),
        (
            ESPNET_NAMES,
            ESPNET_FIELDS | {"causal": True, "norm_type": "cln"},
            (
                *(f"extractor.tcn.{ESPNET_BLOCK}.{index}.weight" for index in (2, 4)),
                *(f"extractor.auxiliary_net.{ESPNET_BLOCK}.{index}.weight" for index in (1, 3)),
                *(f"extractor.tcn.{ESPNET_BLOCK}.3.{part}" for part in NORM),
            ),
        ),
        (
            ESPNET_NAMES,
            ESPNET_FIELDS | {"skip_channels": 0, "pre_mask_activation": "linear"},
            ("extractor.tcn.network.3.weight",),
        ),
        (
            ESPNET_NAMES,
            ESPNET_FIELDS | {"adaptation_type": "concat", "pre_mask_activation": "tanh"},
            ("extractor.tcn.network.4.weight", "extractor.tcn.adapt_layer.transform.1.bias"),
        ),
    ],
    ids=lambda value: name_of(value) if isinstance(value, dict) else "",
)
def test_forms_that_no_vector_has_bear_their_public_names(
    public: PublicNames, fields: dict[str, Any], expected: tuple[str, ...]
) -> None:
    model = tiny_extractor(**fields)
    names = name_map(public, model.config)
    assert {*expected} <= names.keys()
    assert {ours for ours in names.values() if ours} == model.state_dict().keys()


def test_what_is_dropped_is_what_nothing_reads(vectors_dir: Path) -> None:
    folder = vectors_dir / "td_speakerbeam"
    config = asteroid_config(json.loads((folder / "tdsb_A.json").read_text())["constructor"])
    state = tensors_below(load_file(folder / "tdsb_A.safetensors"), "state.")
    converted = convert_asteroid_state_dict(state, config)
    dropped = {"masker.TCN.5.res_conv", "auxiliary.2.TCN.2.res_conv"}
    kept = {name: value for name, value in state.items() if name.rpartition(".")[0] not in dropped}
    assert len(state) - len(kept) == 4
    assert len(converted) == len(kept)
    assert sorted(value.sum().item() for value in converted.values()) == (
        sorted(value.sum().item() for value in kept.values())
    )


def public_state(model: TdSpeakerBeamForSpeechExtraction, public: Any) -> dict[str, Tensor]:
    """A public checkpoint of a model of ours, with what nothing reads; norms as ESPnet has them."""
    state, names = model.state_dict(), name_map(public, model.config)
    tensors = {name: state[ours] if ours else torch.ones(1) for name, ours in names.items()}
    return {
        name: value.view(1, -1, 1) if public is ESPNET_NAMES and name.endswith(NORM) else value
        for name, value in tensors.items()
    }


@pytest.fixture(scope="module")
def espnet_state() -> dict[str, Tensor]:
    return public_state(tiny_extractor(**ESPNET_FIELDS), ESPNET_NAMES)


@pytest.fixture(scope="module")
def asteroid_state() -> dict[str, Tensor]:
    return public_state(tiny_extractor(), ASTEROID_NAMES)


def test_a_converted_espnet_model_is_the_model(espnet_state: dict[str, Tensor]) -> None:
    expected = tiny_extractor(**ESPNET_FIELDS)
    model = from_espnet(ESPNET_CONFIG, espnet_state)
    assert not model.training
    assert model.config.to_dict() | {"transformers_version": None} == (
        expected.config.to_dict() | {"transformers_version": None}
    )
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("case", ["A", "B", "C", "D"])
def test_a_converted_asteroid_model_gives_the_public_output(vectors_dir: Path, case: str) -> None:
    folder = vectors_dir / "td_speakerbeam"
    tensors = load_file(folder / f"tdsb_{case}.safetensors")
    arguments = json.loads((folder / f"tdsb_{case}.json").read_text())["get_model_args"]
    model = from_asteroid(arguments, tensors_below(tensors, "state."))
    output = model(tensors["mixture"], enrollment_values=tensors["enrollment"])
    assert relative_error(output.extracted_values, tensors["estimate"][:, 0]) < 1e-5


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        (None, {"extractor": "td_speakerbeam2"}, "`extractor` must be 'td_speakerbeam', got"),
        (None, {"encoder": "stft"}, "`encoder` must be 'conv', got 'stft'"),
        (None, {"encoder_conf": {"channel": 16}}, "`encoder_conf` must hold `kernel_size`"),
        ("decoder_conf", {"stride": 4}, "`decoder_conf` must equal `encoder_conf`"),
        ("extractor_conf", {"heads": 4}, "`extractor_conf` holds the unknown option `heads`"),
        ("extractor_conf", {"norm_type": "IN"}, "`extractor_conf.norm_type` must be one of"),
        ("extractor_conf", {"kernel": 4}, "`conv_kernel_size` must be odd"),
        ("extractor_conf", {"nonlinear": "softmax"}, "`mask_activation` must be one of"),
        ("extractor_conf", {"use_spk_emb": True}, "`model_conf.share_encoder` must be False"),
        ("model_conf", {"share_encoder": False}, "`model_conf.share_encoder` must be True"),
    ],
)
def test_an_espnet_option_that_we_do_not_build_is_named(
    section: str | None, options: dict[str, Any], message: str, espnet_state: dict[str, Tensor]
) -> None:
    if section is not None:
        options = {section: ESPNET_CONFIG[section] | options}
    with pytest.raises(ValueError, match=message):
        from_espnet(ESPNET_CONFIG | options, espnet_state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_filter": 16}, "`model_args` holds the unknown option `n_filter`"),
        ({"norm_type": "fgLN"}, "`norm_type` must be one of 'gLN', .* got 'fgLN'"),
        ({"fb_name": "stft"}, "`fb_name` must be one of 'free', 'FreeFB', got 'stft'"),
        ({"out_chan": 8}, r"`out_chan` must equal `n_filters` \(16\), got 8"),
        ({"mask_act": "softmax"}, "`mask_activation` must be one of"),
    ],
)
def test_an_asteroid_option_that_we_do_not_build_is_named(
    options: dict[str, Any], message: str, asteroid_state: dict[str, Tensor]
) -> None:
    with pytest.raises(ValueError, match=message):
        from_asteroid(MODEL_ARGS | options, asteroid_state)
    with pytest.raises(ValueError, match="`model_args` must hold `mask_act`"):
        from_asteroid({k: v for k, v in MODEL_ARGS.items() if k != "mask_act"}, asteroid_state)


@pytest.mark.parametrize("form", ["espnet", "asteroid"])
def test_a_parameter_that_does_not_fit_is_named(
    form: str, espnet_state: dict[str, Tensor], asteroid_state: dict[str, Tensor]
) -> None:
    convert: Any
    convert, options, state, name = {
        "espnet": (from_espnet, ESPNET_CONFIG, espnet_state, "extractor.tcn.network.1.weight"),
        "asteroid": (from_asteroid, MODEL_ARGS, asteroid_state, "masker.bottleneck.1.weight"),
    }[form]
    without = {key: value for key, value in state.items() if key != name}
    with pytest.raises(ValueError, match=f"The checkpoint lacks `{name}`"):
        convert(options, without)
    with pytest.raises(ValueError, match=r"The checkpoint holds `extractor\.lstm\.weight`"):
        convert(options, state | {"extractor.lstm.weight": torch.ones(1)})
    message = rf"`{name}` must have shape \(8, 16, 1\), got \(16, 8, 1\)"
    with pytest.raises(ValueError, match=message):
        convert(options, state | {name: state[name].transpose(0, 1)})


def run(source: str, checkpoint: Path, output_dir: Path, *arguments: str) -> str:
    """Run the command; returns the card."""
    paths = ["--checkpoint", str(checkpoint), "--output_dir", str(output_dir)]
    main(["--source", source, *paths, *arguments])
    return (output_dir / "README.md").read_text()


@pytest.mark.parametrize("form", ["packed pth", "plain pth", "safetensors"])
def test_the_command_takes_every_form_of_an_asteroid_checkpoint(
    form: str, asteroid_state: dict[str, Tensor], tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(MODEL_ARGS))
    checkpoint = tmp_path / "model.pth"
    arguments = ["--config", str(config)]
    if form == "packed pth":
        torch.save({"model_args": MODEL_ARGS, "state_dict": asteroid_state}, checkpoint)
        arguments = ["--license", "cc-by-sa-4.0", "--source_model", "lab/extractor"]
    elif form == "plain pth":
        torch.save(asteroid_state, checkpoint)
    else:
        checkpoint = tmp_path / "model.safetensors"
        save_file(asteroid_state, checkpoint)
    card = run("asteroid", checkpoint, tmp_path / "converted", *arguments)
    model = TdSpeakerBeamForSpeechExtraction.from_pretrained(tmp_path / "converted")
    assert model.config.sampling_rate == 8000
    for name, value in tiny_extractor().state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert "audio at 8000 Hz" in card
    if form == "packed pth":
        assert "license: cc-by-sa-4.0\n" in card
        assert "base_model: lab/extractor\n" in card
    else:
        # Nothing says under which licence it is.
        assert "license: unknown\n" in card
        assert "ask its authors" in card


def test_the_command_puts_a_shiftser_head_on_its_encoder(tmp_path: Path) -> None:
    encoder = save_encoder(
        Wav2Vec2Model(cast(Wav2Vec2Config, encoder_config("wav2vec2"))), tmp_path / "encoder"
    )
    head = ShiftCnnHead(ShiftCnnConfig(encoder_config=encoder_config("wav2vec2")), 16)
    scatter_parameters(head)
    ours = {
        name: next(iter(convert_shiftser_head_state_dict({name: torch.empty(0)})))
        for name in SHIFTSER_NAMES
    }
    public = {name: head.state_dict()[ours[name]] for name in SHIFTSER_NAMES}
    checkpoint, config = tmp_path / "head.safetensors", tmp_path / "config.json"
    save_file(public, checkpoint)
    config.write_text(json.dumps({"sampling_rate": 16000}))
    arguments = ["--config", str(config)]
    with pytest.raises(SystemExit):
        run("shiftser", checkpoint, tmp_path / "converted", *arguments)
    card = run("shiftser", checkpoint, tmp_path / "converted", *arguments, "--encoder", encoder)
    model = ShiftCnnForEmotionClassification.from_pretrained(tmp_path / "converted")
    for name, value in head.state_dict().items():
        assert torch.equal(model.head.state_dict()[name], value), name
    assert "license: mit\n" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "espnet"], "`--source espnet` needs `--config`"),
        (["--source", "asteroid"], "`model_args` must hold `n_filters`"),
        (["--source", "espnet", "--config", "missing.yaml"], "missing.yaml"),
        (["--source", "espnet", "--config", "list.yaml"], "list.yaml must hold a mapping"),
    ],
)
def test_a_wrong_command_says_what_is_missing(
    arguments: list[str],
    message: str,
    espnet_state: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({n: v.contiguous() for n, v in espnet_state.items()}, "model.safetensors")
    Path("list.yaml").write_text("- encoder\n")
    with pytest.raises(SystemExit):
        main([*arguments, "--checkpoint", "model.safetensors", "--output_dir", "converted"])
    assert message in capsys.readouterr().err
    assert not Path("converted").exists()
