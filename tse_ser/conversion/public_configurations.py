"""Configurations of public extractors, of asteroid's and ESPnet's form -> ours."""

from collections.abc import Mapping
from typing import Any

from modeling.configuration_td_speakerbeam import TdSpeakerBeamConfig

REQUIRED = object()
# A public option -> our field, where it is one, and what the public code takes where it is silent.
Options = Mapping[str, tuple[str | None, Any]]
ESPNET_FILTERS: Options = {
    "channel": ("num_filters", REQUIRED),
    "kernel_size": ("kernel_size", REQUIRED),
    "stride": ("stride", REQUIRED),
}
ESPNET_EXTRACTOR: Options = {
    "layer": ("num_blocks", 8),
    "stack": ("num_repeats", 3),
    "bottleneck_dim": ("bottleneck_channels", 128),
    "hidden_dim": ("hidden_channels", 512),
    "skip_dim": ("skip_channels", 128),
    "kernel": ("conv_kernel_size", 3),
    "causal": ("causal", False),
    "norm_type": ("norm_type", "gLN"),
    "pre_nonlinear": ("pre_mask_activation", "prelu"),
    "nonlinear": ("mask_activation", "relu"),
    "i_adapt_layer": ("adaptation_layer", 7),
    "adapt_layer_type": ("adaptation_type", "mul"),
    "adapt_enroll_dim": ("speaker_embedding_dim", 128),
    "use_spk_emb": (None, False),
    "spk_emb_dim": ("external_embedding_dim", 256),
}
# Group norm with one group is the global norm, under torch's names and with an epsilon of its own.
ESPNET_GROUP_NORM = "GN"
ESPNET_NORMS = {"gLN": "gln", "cLN": "cln", "BN": "bn", ESPNET_GROUP_NORM: "gln"}
ESPNET_NORM_EPSILON = 2.0**-23
ESPNET_GROUP_NORM_EPSILON = 1e-8
ASTEROID_MODEL: Options = {
    "n_filters": ("num_filters", REQUIRED),
    "kernel_size": ("kernel_size", REQUIRED),
    "stride": ("stride", REQUIRED),
    "sample_rate": ("sampling_rate", REQUIRED),
    "n_blocks": ("num_blocks", REQUIRED),
    "n_repeats": ("num_repeats", REQUIRED),
    "bn_chan": ("bottleneck_channels", REQUIRED),
    "hid_chan": ("hidden_channels", REQUIRED),
    "skip_chan": ("skip_channels", REQUIRED),
    "conv_kernel_size": ("conv_kernel_size", 3),
    "norm_type": ("norm_type", "gLN"),
    "mask_act": ("mask_activation", REQUIRED),
    "causal": ("causal", False),
    "encoder_activation": ("encoder_activation", None),
    "i_adapt_layer": ("adaptation_layer", REQUIRED),
    "adapt_layer_type": ("adaptation_type", REQUIRED),
    "adapt_enroll_dim": ("speaker_embedding_dim", REQUIRED),
    # Of no effect here: one kind of filters, sizes that follow from `n_filters`, one source.
    "fb_name": (None, "free"),
    "in_chan": (None, None),
    "out_chan": (None, None),
    "n_src": (None, 1),
}
ASTEROID_NORMS = {
    "gLN": "gln",
    "GlobLN": "gln",
    "cLN": "cln",
    "ChanLN": "cln",
    "cgLN": "cgln",
    "CumLN": "cgln",
    "bN": "bn",
    "BatchNorm": "bn",
}


def _options(section: str, given: Mapping[str, Any], known: Options) -> dict[str, Any]:
    """The options of a public configuration, defaults filled in."""
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise ValueError(
            f"`{section}` holds the unknown option `{unknown[0]}`: known are "
            f"{', '.join(f'`{name}`' for name in known)}."
        )
    options = {name: given.get(name, default) for name, (_, default) in known.items()}
    missing = [name for name, value in options.items() if value is REQUIRED]
    if missing:
        raise ValueError(f"`{section}` must hold `{missing[0]}`.")
    return options


def _fields(options: Mapping[str, Any], known: Options) -> dict[str, Any]:
    """The options that are fields of ours, by our names."""
    return {field: options[name] for name, (field, _) in known.items() if field is not None}


def _choice(name: str, value: Any, choices: Mapping[str, str]) -> str:
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {known}, got {value!r}.")
    return choices[value]


def espnet_config(config: Mapping[str, Any], sampling_rate: int = 16000) -> TdSpeakerBeamConfig:
    """
    Our configuration of a TD-SpeakerBeam that ESPnet builds.

    Args:
        config: ESPnet's training configuration; sections about other things are passed over.
        sampling_rate: of the recipe's audio in Hz.

    Returns:
        The configuration of the same model.

    Raises:
        ValueError: an option is unknown, missing, or of a kind that we do not build.
    """
    for name, needed in (("encoder", "conv"), ("decoder", "conv"), ("extractor", "td_speakerbeam")):
        if config.get(name) != needed:
            raise ValueError(f"`{name}` must be {needed!r}, got {config.get(name)!r}.")
    filters = _options("encoder_conf", config.get("encoder_conf", {}), ESPNET_FILTERS)
    decoder = _options("decoder_conf", config.get("decoder_conf", {}), ESPNET_FILTERS)
    if filters != decoder:
        raise ValueError(f"`decoder_conf` must equal `encoder_conf`, {filters}, got {decoder}.")
    extractor = _options("extractor_conf", config.get("extractor_conf", {}), ESPNET_EXTRACTOR)
    share_encoder = config.get("model_conf", {}).get("share_encoder", True)
    if share_encoder == extractor["use_spk_emb"]:
        raise ValueError(
            f"`model_conf.share_encoder` must be {not share_encoder} where "
            f"`extractor_conf.use_spk_emb` is {extractor['use_spk_emb']}: the enrollment is either "
            "audio for the shared encoder or an embedding."
        )
    fields = _fields(filters, ESPNET_FILTERS) | _fields(extractor, ESPNET_EXTRACTOR)
    fields |= {
        "skip_channels": extractor["skip_dim"] or 0,
        "norm_type": _choice("extractor_conf.norm_type", extractor["norm_type"], ESPNET_NORMS),
        "auxiliary_type": "projection" if extractor["use_spk_emb"] else "tcn",
    }
    return TdSpeakerBeamConfig(
        **fields,
        input_norm_type="cln",
        norm_eps=ESPNET_GROUP_NORM_EPSILON if has_group_norm(config) else ESPNET_NORM_EPSILON,
        input_norm_eps=ESPNET_NORM_EPSILON if has_group_norm(config) else None,
        conv_bias=False,
        encoder_activation="relu",
        share_encoder=share_encoder,
        sampling_rate=sampling_rate,
    )


def has_group_norm(config: Mapping[str, Any]) -> bool:
    """Whether the blocks of the extractor in ESPnet's training configuration have torch's group
    norm."""
    return config.get("extractor_conf", {}).get("norm_type") == ESPNET_GROUP_NORM


def asteroid_config(model_args: Mapping[str, Any]) -> TdSpeakerBeamConfig:
    """
    Our configuration of an asteroid-style TD-SpeakerBeam.

    Args:
        model_args: the arguments of its constructor.

    Returns:
        The configuration of the same model.

    Raises:
        ValueError: an option is unknown, missing, or of a kind that we do not build.
    """
    options = _options("model_args", model_args, ASTEROID_MODEL)
    for name in ("in_chan", "out_chan"):
        if options[name] not in (None, options["n_filters"]):
            raise ValueError(
                f"`{name}` must equal `n_filters` ({options['n_filters']}), got {options[name]}."
            )
    _choice("fb_name", options["fb_name"], {"free": "", "FreeFB": ""})
    activation = options["encoder_activation"]
    fields = _fields(options, ASTEROID_MODEL) | {
        "skip_channels": options["skip_chan"] or 0,
        "norm_type": _choice("norm_type", options["norm_type"], ASTEROID_NORMS),
        "encoder_activation": None if activation == "linear" else activation,
        "sampling_rate": int(options["sample_rate"]),
    }
    return TdSpeakerBeamConfig(**fields)
