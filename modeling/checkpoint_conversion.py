"""Parameter names of public checkpoints -> ours."""

import re

from torch import Tensor

from .configuration_td_speakerbeam import TdSpeakerBeamConfig

ASTEROID_RULES: tuple[tuple[str, str], ...] = (
    (r"^encoder\.filterbank\._filters$", "encoder.weight"),
    (r"^decoder\.filterbank\._filters$", "decoder.weight"),
    (r"^auxiliary\.1\.filterbank\._filters$", "auxiliary_network.encoder.weight"),
    (r"^masker\.", "mask_estimator."),
    (r"^auxiliary\.2\.", "auxiliary_network.network."),
    (r"\.bottleneck\.0\.", ".input_norm."),
    (r"\.bottleneck\.1\.", ".bottleneck."),
    (r"\.TCN\.(\d+)\.shared_block\.0\.", r".blocks.\1.input_conv."),
    (r"\.TCN\.(\d+)\.shared_block\.1\.", r".blocks.\1.input_activation."),
    (r"\.TCN\.(\d+)\.shared_block\.2\.", r".blocks.\1.input_norm."),
    # The causal form wraps the depthwise convolution together with a trim of its look-ahead.
    (r"\.TCN\.(\d+)\.shared_block\.3\.(?:0\.)?", r".blocks.\1.depthwise_conv."),
    (r"\.TCN\.(\d+)\.shared_block\.4\.", r".blocks.\1.depthwise_activation."),
    (r"\.TCN\.(\d+)\.shared_block\.5\.", r".blocks.\1.depthwise_norm."),
    (r"\.TCN\.(\d+)\.res_conv\.", r".blocks.\1.residual_conv."),
    (r"\.TCN\.(\d+)\.skip_conv\.", r".blocks.\1.skip_conv."),
    (r"\.adapt_layer\.transform\.", ".adaptation.branch_layers."),
    (r"\.mask_net\.0\.", ".output_activation."),
    (r"\.mask_net\.1\.", ".output_conv."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)

SHIFTSER_RULES: tuple[tuple[str, str], ...] = (
    (r"^specaugment\.masked_spec_embed$", "masked_spec_embed"),
    (r"^conv_block\.(\d+)\.sequential\.0\.", r"blocks.\1.depthwise_conv."),
    (r"^conv_block\.(\d+)\.sequential\.2\.", r"blocks.\1.norm."),
    (r"^conv_block\.(\d+)\.sequential\.4\.", r"blocks.\1.expand_conv."),
    (r"^conv_block\.(\d+)\.sequential\.6\.", r"blocks.\1.project_conv."),
    (r"^head\.", "classifier."),
)


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


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
    """
    converted = {_rename(name, ASTEROID_RULES): value for name, value in state_dict.items()}
    if config.skip_channels:
        last_layer = config.num_blocks * config.num_repeats - 1
        unread = [
            f"mask_estimator.blocks.{last_layer}.residual_conv.",
            f"auxiliary_network.network.blocks.{config.num_blocks - 1}.residual_conv.",
        ]
        if config.adaptation_layer == last_layer:
            unread.append("mask_estimator.adaptation.branch_layers.0.")
        for module in unread:
            for parameter in ("weight", "bias"):
                converted.pop(f"{module}{parameter}", None)
    return converted


def convert_shiftser_head_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """
    Rename the parameters of a public ShiftSER head to those of [`ShiftCnnHead`].

    Args:
        state_dict: parameters under the public names (`conv_block.0.sequential.0...`, `head...`).

    Returns:
        Parameters under our names, `masked_spec_embed` included.
    """
    return {_rename(name, SHIFTSER_RULES): value for name, value in state_dict.items()}
