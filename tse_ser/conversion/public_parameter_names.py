"""What the parameters of an extractor are called in checkpoints of asteroid's and ESPnet's form."""

import re
from dataclasses import dataclass, replace

import torch

from modeling.configuration_td_speakerbeam import TdSpeakerBeamConfig
from modeling.modeling_td_speakerbeam import TdSpeakerBeamForSpeechExtraction

MASK_ESTIMATOR = "mask_estimator"
AUXILIARY_NETWORK = "auxiliary_network.network"
NETWORK_PARAMETER = re.compile(
    rf"^({MASK_ESTIMATOR}|{re.escape(AUXILIARY_NETWORK)})\.(?:blocks\.(\d+)\.)?(\w+)\.(.+)$"
)
LAYER_NORM_PARAMETERS = {"weight": "gamma", "bias": "beta"}


@dataclass(frozen=True)
class PublicNames:
    """Public names of the parts of an extractor."""

    parameters: dict[str, str]  # our name of a parameter outside the networks -> the public one
    networks: dict[str, str]  # our name of a network -> the public one
    parts: dict[str, str]  # our name of a module in a network -> the public one
    # Those of `parts` that differ where nothing stands before the last convolution
    linear_parts: dict[str, str]
    # Where the modules of a block are, with `{layer}`, `{stack}` and `{index}` (of the block in
    # its stack) to fill in
    block: str
    block_parts: dict[str, str]  # our name of a module in a block -> the public one
    # Those of `block_parts` that differ where the convolutions are causal
    causal_block_parts: dict[str, str]
    # Our name of a parameter of a layer norm in a block -> the public one
    block_norm_parameters: dict[str, str]


ASTEROID_NAMES = PublicNames(
    parameters={
        "encoder.weight": "encoder.filterbank._filters",
        "encoder.activation.weight": "enc_activation.weight",
        "decoder.weight": "decoder.filterbank._filters",
        "mask_activation.weight": "masker.output_act.weight",
        "auxiliary_network.encoder.weight": "auxiliary.1.filterbank._filters",
    },
    networks={MASK_ESTIMATOR: "masker", AUXILIARY_NETWORK: "auxiliary.2"},
    parts={
        "input_norm": "bottleneck.0",
        "bottleneck": "bottleneck.1",
        "adaptation": "adapt_layer",
        "output_activation": "mask_net.0",
        "output_conv": "mask_net.1",
    },
    linear_parts={},
    block="TCN.{layer}",
    block_parts={
        "input_conv": "shared_block.0",
        "input_activation": "shared_block.1",
        "input_norm": "shared_block.2",
        "depthwise_conv": "shared_block.3",
        "depthwise_activation": "shared_block.4",
        "depthwise_norm": "shared_block.5",
        "residual_conv": "res_conv",
        "skip_conv": "skip_conv",
    },
    # There the convolution is wrapped together with a trim of its look-ahead.
    causal_block_parts={"depthwise_conv": "shared_block.3.0"},
    block_norm_parameters=LAYER_NORM_PARAMETERS,
)
ESPNET_NAMES = PublicNames(
    parameters={
        "encoder.weight": "encoder.conv1d.weight",
        "decoder.weight": "decoder.convtrans1d.weight",
        "auxiliary_network.weight": "extractor.auxiliary_net.weight",
        "auxiliary_network.bias": "extractor.auxiliary_net.bias",
    },
    networks={
        MASK_ESTIMATOR: "extractor.tcn",
        AUXILIARY_NETWORK: "extractor.auxiliary_net",
    },
    parts={
        "input_norm": "network.0",
        "bottleneck": "network.1",
        "adaptation": "adapt_layer",
        "output_activation": "network.3",
        "output_conv": "network.4",
    },
    linear_parts={"output_conv": "network.3"},
    block="network.2.{stack}.{index}",
    block_parts={
        "input_conv": "net.0",
        "input_activation": "net.1",
        "input_norm": "net.2",
        "depthwise_conv": "net.3.net.0",
        "depthwise_activation": "net.3.net.1",
        "depthwise_norm": "net.3.net.2",
        "residual_conv": "net.3.net.3",
        "skip_conv": "net.3.skip_conv",
    },
    # There a trim of the look-ahead stands after the depthwise convolution.
    causal_block_parts={
        "depthwise_activation": "net.3.net.2",
        "depthwise_norm": "net.3.net.3",
        "residual_conv": "net.3.net.4",
    },
    block_norm_parameters=LAYER_NORM_PARAMETERS,
)
# The blocks' norms are torch's own; the norm before them is not.
ESPNET_GROUP_NORM_NAMES = replace(
    ESPNET_NAMES, block_norm_parameters={"weight": "weight", "bias": "bias"}
)


def _public_name(name: str, public: PublicNames, config: TdSpeakerBeamConfig) -> str:
    """The public name of one of our parameters."""
    if name in public.parameters:
        return public.parameters[name]
    found = NETWORK_PARAMETER.match(name)
    if found is None:
        raise ValueError(f"`{name}` has no counterpart in a public checkpoint.")
    network, layer, part, parameter = found.groups()
    if part.endswith("_norm"):
        is_first = layer is None
        norm_type = (config.input_norm_type if is_first else None) or config.norm_type
        if norm_type != "bn":
            names = LAYER_NORM_PARAMETERS if is_first else public.block_norm_parameters
            parameter = names[parameter]
    parameter = parameter.replace("branch_layers.", "transform.")
    path = public.networks[network]
    if layer is None:
        is_linear = config.pre_mask_activation == "linear"
        parts = public.parts | (public.linear_parts if is_linear else {})
        return f"{path}.{parts[part]}.{parameter}"
    parts = public.block_parts
    if config.causal and network == MASK_ESTIMATOR:
        parts = parts | public.causal_block_parts
    stack, index = divmod(int(layer), config.num_blocks)
    block = public.block.format(layer=layer, stack=stack, index=index)
    return f"{path}.{block}.{parts[part]}.{parameter}"


def unread_parameters(config: TdSpeakerBeamConfig) -> list[str]:
    """
    Parameters that public models hold and nothing reads: where skip branches are summed up, the
    residual branch of each network's last block.
    """
    if not config.skip_channels:
        return []
    last_layer = config.num_blocks * config.num_repeats - 1
    modules = [f"{MASK_ESTIMATOR}.blocks.{last_layer}.residual_conv"]
    if config.auxiliary_type == "tcn":
        modules.append(f"{AUXILIARY_NETWORK}.blocks.{config.num_blocks - 1}.residual_conv")
    parameters = ["weight", "bias"] if config.conv_bias else ["weight"]
    unread = [f"{module}.{parameter}" for module in modules for parameter in parameters]
    if config.adaptation_type == "concat" and config.adaptation_layer == last_layer:
        unread += [
            f"{MASK_ESTIMATOR}.adaptation.branch_layers.0.{part}" for part in ("weight", "bias")
        ]
    return unread


def name_map(public: PublicNames, config: TdSpeakerBeamConfig) -> dict[str, str | None]:
    """
    Our name of every parameter and statistic of a public checkpoint.

    Args:
        public: the form of the checkpoint.
        config: sizes and form of the model.

    Returns:
        Public name -> our name, or `None` for what our model leaves out as nothing reads it.
    """
    with torch.device("meta"):
        ours = TdSpeakerBeamForSpeechExtraction(config).state_dict()
    names: dict[str, str | None] = {_public_name(name, public, config): name for name in ours}
    return names | {_public_name(name, public, config): None for name in unread_parameters(config)}
