"""Configurations of public extractors, of asteroid's and ESPnet's form -> ours."""

from collections.abc import Mapping
from typing import Any

from modeling.configuration_td_speakerbeam import TdSpeakerBeamConfig

REQUIRED = object()
ESPNET_FILTERS = {"channel": REQUIRED, "kernel_size": REQUIRED, "stride": REQUIRED}
# The values are those that ESPnet takes where its configuration is silent.
ESPNET_EXTRACTOR = {
    "layer": 8,
    "stack": 3,
    "bottleneck_dim": 128,
    "hidden_dim": 512,
    "skip_dim": 128,
    "kernel": 3,
    "causal": False,
    "norm_type": "gLN",
    "pre_nonlinear": "prelu",
    "nonlinear": "relu",
    "i_adapt_layer": 7,
    "adapt_layer_type": "mul",
    "adapt_enroll_dim": 128,
    "use_spk_emb": False,
    "spk_emb_dim": 256,
}
# Group norm with one group is the global norm, under torch's names and with an epsilon of its own.
ESPNET_GROUP_NORM = "GN"
ESPNET_NORMS = {"gLN": "gln", "cLN": "cln", "BN": "bn", ESPNET_GROUP_NORM: "gln"}
ESPNET_NORM_EPSILON = 2.0**-23
ESPNET_GROUP_NORM_EPSILON = 1e-8
ASTEROID_MODEL = {
    "n_filters": REQUIRED,
    "kernel_size": REQUIRED,
    "stride": REQUIRED,
    "sample_rate": REQUIRED,
    "n_blocks": REQUIRED,
    "n_repeats": REQUIRED,
    "bn_chan": REQUIRED,
    "hid_chan": REQUIRED,
    "skip_chan": REQUIRED,
    "conv_kernel_size": 3,
    "norm_type": "gLN",
    "mask_act": REQUIRED,
    "causal": False,
    "encoder_activation": None,
    "i_adapt_layer": REQUIRED,
    "adapt_layer_type": REQUIRED,
    "adapt_enroll_dim": REQUIRED,
    # Of no effect here: one kind of filters, sizes that follow from `n_filters`, one source.
    "fb_name": "free",
    "in_chan": None,
    "out_chan": None,
    "n_src": 1,
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


def _options(section: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a public configuration, defaults filled in."""
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise ValueError(
            f"`{section}` holds the unknown option `{unknown[0]}`: known are "
            f"{', '.join(f'`{name}`' for name in known)}."
        )
    options = {**known, **given}
    missing = [name for name, value in options.items() if value is REQUIRED]
    if missing:
        raise ValueError(f"`{section}` must hold `{missing[0]}`.")
    return options


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
    return TdSpeakerBeamConfig(
        num_filters=filters["channel"],
        kernel_size=filters["kernel_size"],
        stride=filters["stride"],
        bottleneck_channels=extractor["bottleneck_dim"],
        hidden_channels=extractor["hidden_dim"],
        skip_channels=extractor["skip_dim"] or 0,
        conv_kernel_size=extractor["kernel"],
        num_blocks=extractor["layer"],
        num_repeats=extractor["stack"],
        norm_type=_choice("extractor_conf.norm_type", extractor["norm_type"], ESPNET_NORMS),
        input_norm_type="cln",
        norm_eps=ESPNET_GROUP_NORM_EPSILON if has_group_norm(config) else ESPNET_NORM_EPSILON,
        input_norm_eps=ESPNET_NORM_EPSILON if has_group_norm(config) else None,
        conv_bias=False,
        encoder_activation="relu",
        share_encoder=share_encoder,
        pre_mask_activation=extractor["pre_nonlinear"],
        mask_activation=extractor["nonlinear"],
        causal=extractor["causal"],
        adaptation_type=extractor["adapt_layer_type"],
        adaptation_layer=extractor["i_adapt_layer"],
        speaker_embedding_dim=extractor["adapt_enroll_dim"],
        auxiliary_type="projection" if extractor["use_spk_emb"] else "tcn",
        external_embedding_dim=extractor["spk_emb_dim"],
        sampling_rate=sampling_rate,
    )


def has_group_norm(config: Mapping[str, Any]) -> bool:
    """
    Whether the blocks of an ESPnet extractor have torch's group norm.

    Args:
        config: ESPnet's training configuration.
    """
    norm: str = config.get("extractor_conf", {}).get("norm_type", ESPNET_EXTRACTOR["norm_type"])
    return norm == ESPNET_GROUP_NORM


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
    return TdSpeakerBeamConfig(
        num_filters=options["n_filters"],
        kernel_size=options["kernel_size"],
        stride=options["stride"],
        bottleneck_channels=options["bn_chan"],
        hidden_channels=options["hid_chan"],
        skip_channels=options["skip_chan"] or 0,
        conv_kernel_size=options["conv_kernel_size"],
        num_blocks=options["n_blocks"],
        num_repeats=options["n_repeats"],
        norm_type=_choice("norm_type", options["norm_type"], ASTEROID_NORMS),
        encoder_activation=None if activation == "linear" else activation,
        mask_activation=options["mask_act"],
        causal=options["causal"],
        adaptation_type=options["adapt_layer_type"],
        adaptation_layer=options["i_adapt_layer"],
        speaker_embedding_dim=options["adapt_enroll_dim"],
        sampling_rate=int(options["sample_rate"]),
    )
