"""
Public checkpoints -> ours.

    python -m tse_ser.conversion.checkpoint_conversion --source espnet \\
        --checkpoint valid.loss.ave.pth --config config.yaml --output_dir td-speakerbeam-libri2mix

writes a folder that `from_pretrained` loads, with a card that carries the licence of the source.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from modeling.configuration_td_speakerbeam import TdSpeakerBeamConfig
from modeling.modeling_shift_cnn import ShiftCnnForEmotionClassification
from modeling.modeling_td_speakerbeam import TdSpeakerBeamForSpeechExtraction
from tse_ser.conversion.checkpoint_card import UNKNOWN_LICENSE, write_card
from tse_ser.conversion.public_configurations import (
    asteroid_config,
    espnet_config,
    has_group_norm,
)
from tse_ser.conversion.public_parameter_names import (
    ASTEROID_NAMES,
    ESPNET_GROUP_NORM_NAMES,
    ESPNET_NAMES,
    name_map,
)
from tse_ser.saving import save_with_code

SHIFTSER_RULES: tuple[tuple[str, str], ...] = (
    (r"^specaugment\.masked_spec_embed$", "masked_spec_embed"),
    (r"^conv_block\.(\d+)\.sequential\.0\.", r"blocks.\1.depthwise_conv."),
    (r"^conv_block\.(\d+)\.sequential\.2\.", r"blocks.\1.norm."),
    (r"^conv_block\.(\d+)\.sequential\.4\.", r"blocks.\1.expand_conv."),
    (r"^conv_block\.(\d+)\.sequential\.6\.", r"blocks.\1.project_conv."),
    (r"^head\.", "classifier."),
)

# The public checkpoints in ESPnet's form are under CC-BY-4.0, ShiftSER's code under MIT.
LICENSES = {"espnet": "cc-by-4.0", "asteroid": UNKNOWN_LICENSE, "shiftser": "mit"}
FORMS = {"espnet": "ESPnet", "asteroid": "Asteroid", "shiftser": "ShiftSER"}


def _known_parameters(
    state_dict: Mapping[str, Tensor], names: Mapping[str, str | None]
) -> dict[str, Tensor]:
    """Rename; leave out what nothing reads."""
    unknown = [name for name in state_dict if name not in names]
    if unknown:
        raise ValueError(
            f"The checkpoint holds `{unknown[0]}` ({len(unknown)} such), which a model of this "
            "configuration does not have: check that both belong together."
        )
    return {ours: value for name, value in state_dict.items() if (ours := names[name]) is not None}


def _fitting(name: str, value: Tensor, expected: Tensor) -> Tensor:
    """The value in the expected shape, from which it may differ by axes of size 1."""
    sizes = [[size for size in tensor.shape if size != 1] for tensor in (value, expected)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"`{name}` must have shape {tuple(expected.shape)}, got {tuple(value.shape)}: check "
            "that checkpoint and configuration belong together."
        )
    return value.reshape(expected.shape)


def _load(
    model: nn.Module, state_dict: Mapping[str, Tensor], names: Mapping[str, str | None]
) -> None:
    """Fill a model with public parameters, every one of them and no other."""
    renamed = _known_parameters(state_dict, names)
    missing = [public for public, ours in names.items() if ours and ours not in renamed]
    if missing:
        raise ValueError(
            f"The checkpoint lacks `{missing[0]}` ({len(missing)} such): check that it belongs to "
            "this configuration."
        )
    public = {ours: name for name, ours in names.items()}
    expected = model.state_dict()
    model.load_state_dict(
        {ours: _fitting(public[ours], value, expected[ours]) for ours, value in renamed.items()}
    )


def convert_asteroid_state_dict(
    state_dict: dict[str, Tensor], config: TdSpeakerBeamConfig
) -> dict[str, Tensor]:
    """
    Rename the parameters of an asteroid-style TD-SpeakerBeam.

    The residual branch of each network's last block is dropped where there is a skip branch, as
    nothing reads it.

    Args:
        state_dict: parameters under the public names (`masker.TCN.0...`, `auxiliary.2...`).
        config: sizes of the model that will take them.

    Returns:
        Parameters under the names of [`TdSpeakerBeamForSpeechExtraction`].

    Raises:
        ValueError: a name that a model of this configuration does not have.
    """
    return _known_parameters(state_dict, name_map(ASTEROID_NAMES, config))


def convert_shiftser_head_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """
    Rename the parameters of a public ShiftSER head to those of [`ShiftCnnHead`].

    Args:
        state_dict: parameters under the public names (`conv_block.0.sequential.0...`, `head...`).

    Returns:
        Parameters under our names, `masked_spec_embed` included.
    """
    return dict(zip(_shiftser_names(state_dict), state_dict.values(), strict=True))


def _shiftser_names(public_names: Iterable[str]) -> Iterator[str]:
    for name in public_names:
        for pattern, replacement in SHIFTSER_RULES:
            name = re.sub(pattern, replacement, name)
        yield name


def from_espnet(
    config: dict[str, Any], state_dict: dict[str, Tensor], sampling_rate: int = 16000
) -> TdSpeakerBeamForSpeechExtraction:
    """
    Build the extractor of an ESPnet recipe (`enh_tse_td_speakerbeam`).

    Args:
        config: ESPnet's training configuration (`config.yaml`), other sections included.
        state_dict: parameters under ESPnet's names (`extractor.tcn.network...`).
        sampling_rate: of the recipe's audio in Hz. The `sample_rate` of the configuration is an
            option of ESPnet's augmentation, 8000 in 16 kHz recipes too, and not read.

    Returns:
        The extractor, in evaluation mode.

    Raises:
        ValueError: an option or a parameter is unknown, missing or of another size; the message
            names it.
    """
    model = TdSpeakerBeamForSpeechExtraction(espnet_config(config, sampling_rate))
    names = ESPNET_GROUP_NORM_NAMES if has_group_norm(config) else ESPNET_NAMES
    _load(model, state_dict, name_map(names, model.config))
    return model.eval()


def from_asteroid(
    model_args: dict[str, Any], state_dict: dict[str, Tensor]
) -> TdSpeakerBeamForSpeechExtraction:
    """
    Build an asteroid-style extractor.

    Args:
        model_args: the arguments of its constructor (`n_filters`, `i_adapt_layer`, ...).
        state_dict: parameters under the public names (`masker.TCN.0...`).

    Returns:
        The extractor, in evaluation mode.

    Raises:
        ValueError: an option or a parameter is unknown, missing or of another size; the message
            names it.
    """
    model = TdSpeakerBeamForSpeechExtraction(asteroid_config(model_args))
    _load(model, state_dict, name_map(ASTEROID_NAMES, model.config))
    return model.eval()


def from_shiftser(
    config_fields: dict[str, Any], state_dict: dict[str, Tensor], encoder_name_or_path: str
) -> ShiftCnnForEmotionClassification:
    """
    Put a public ShiftSER head on its speech encoder.

    Args:
        config_fields: fields of [`ShiftCnnConfig`], but `encoder_config`, which is the encoder's.
        state_dict: the head's parameters under the public names (`conv_block.0...`).
        encoder_name_or_path: hub id or folder of the speech encoder that the head was trained on.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        ValueError: a parameter is unknown, missing or of another size; the message names it.
    """
    model = ShiftCnnForEmotionClassification.from_encoder_pretrained(
        encoder_name_or_path, **config_fields
    )
    public = {ours: name for name in state_dict for ours in _shiftser_names([name])}
    _load(
        model.head, state_dict, {public.get(name, name): name for name in model.head.state_dict()}
    )
    return model.eval()


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors, or a dict that holds them; nothing in it is executed."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_config(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    config = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a mapping of options, got {type(config).__name__}.")
    return config


def convert(arguments: argparse.Namespace) -> PreTrainedModel:
    """The model of a checkpoint, by the arguments of the command."""
    checkpoint = _read_checkpoint(arguments.checkpoint)
    state_dict = checkpoint.get("state_dict", checkpoint)
    config = _read_config(arguments.config) if arguments.config else {}
    if arguments.source == "asteroid":
        # Both the checkpoint and the file may hold the arguments beside other things.
        return from_asteroid(
            config.get("model_args", config) or checkpoint.get("model_args", {}), state_dict
        )
    if arguments.config is None:
        raise ValueError(f"`--source {arguments.source}` needs `--config`.")
    if arguments.source == "espnet":
        return from_espnet(config, state_dict, arguments.sampling_rate)
    if arguments.encoder is None:
        raise ValueError(
            "`--source shiftser` needs `--encoder`: the checkpoint holds the head alone, so name "
            "the speech encoder that it was trained on."
        )
    return from_shiftser(config, state_dict, arguments.encoder)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m tse_ser.conversion.checkpoint_conversion",
        description="Turn a public checkpoint into a folder for `from_pretrained`.",
    )
    parser.add_argument("--source", choices=sorted(FORMS), required=True)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="parameters: .pth, .pt or .safetensors"
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="espnet: config.yaml as shipped; asteroid: JSON of the constructor's arguments, where "
        "the checkpoint has none; shiftser: JSON of ShiftCnnConfig fields",
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--license",
        help="licence of the source for the card, as the Hub writes it; by default that of the "
        f"public checkpoints of the form ({', '.join(f'{k}: {v}' for k, v in LICENSES.items())})",
    )
    parser.add_argument("--source_model", help="hub id of the source, for the card")
    parser.add_argument(
        "--sampling_rate",
        type=int,
        default=16000,
        help="espnet: of the recipe's audio in Hz, which its configuration does not tell "
        "(default: %(default)s)",
    )
    parser.add_argument("--encoder", help="shiftser: hub id or folder of the speech encoder")
    return parser, parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a checkpoint as the command line says."""
    parser, arguments = _parse(argv)
    try:
        model = convert(arguments)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    sampling_rate = model.config.sampling_rate
    license_id = arguments.license or LICENSES[arguments.source]
    save_with_code(model, arguments.output_dir)
    write_card(
        model,
        arguments.output_dir,
        FORMS[arguments.source],
        arguments.checkpoint.name,
        license_id,
        arguments.source_model,
    )
    kind = model.config.model_type
    print(f"{arguments.output_dir}: {kind}, {sampling_rate} Hz, licence {license_id}")


if __name__ == "__main__":
    main()
