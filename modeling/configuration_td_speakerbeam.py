"""Configuration of the time-domain SpeakerBeam target speaker extractor."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .input_checks import check_at_least, check_choice

# Embedding size of each speaker encoder that can be built in.
SPEAKER_ENCODER_DIMS = {"campplus": 192, "ge2e": 256, "log_mel_statistics": 80}
SPEAKER_ENCODER_SAMPLING_RATE = 16000
NORM_TYPES = ("gln", "cln", "cgln", "bn")
ACTIVATION_NAMES = (
    "relu",
    "sigmoid",
    "tanh",
    "softplus",
    "linear",
    "leaky_relu",
    "prelu",
    "gelu",
    "swish",
)


@strict
class TdSpeakerBeamConfig(PreTrainedConfig):
    r"""
    Sizes and forms of [`TdSpeakerBeamForSpeechExtraction`]. The defaults are the public recipe's
    sizes with filters for 16 kHz (2 ms window, 1 ms hop).

    Args:
        num_filters (`int`): filters of the encoder and of the decoder.
        kernel_size (`int`): filter length in samples.
        stride (`int`): hop between two frames in samples.
        bottleneck_channels (`int`): channels between the convolution blocks.
        hidden_channels (`int`): channels inside a convolution block.
        skip_channels (`int`): channels of the skip branch; 0 leaves the branch out.
        conv_kernel_size (`int`): odd length of the depthwise convolutions in frames.
        num_blocks (`int`): convolution blocks in a stack, dilated by 1, 2, 4, ...
        num_repeats (`int`): stacks of the mask estimator.
        norm_type (`str`): `gln` (global), `cln` (per frame), `cgln` (cumulative) or `bn` (batch).
        input_norm_type (`str`, *optional*): norm before the bottleneck; `None` takes `norm_type`.
        norm_eps (`float`): what the layer norms add to the variance. Batch norm adds 1e-5.
        input_norm_eps (`float`, *optional*): what the norm before the bottleneck adds; `None` takes
            `norm_eps`.
        conv_bias (`bool`): whether the networks' convolutions have biases.
        mask_estimator (`str`): `tcn`, the paper's convolutions, or `lstm`, recurrent layers over
            log magnitudes with one mask value for the cosine and the sine of a frequency, which
            learns faster from few hours. The filters of the `lstm` are not trained.
            `num_blocks * num_repeats` counts its layers, `hidden_channels` is their size in each
            direction. Needs `initial_filters="fourier"`, `auxiliary_type="projection"`,
            `skip_channels=0` and `causal=False`.
        initial_filters (`str`): what encoder and decoder are before training: `random`, or
            `fourier`, a windowed Fourier transform and its inverse, which learns faster from few
            hours. Needs a `kernel_size` that `2 * stride` divides and, of the `tcn`,
            `encoder_activation="relu"` and `num_filters = 2 * kernel_size`; of the `lstm`, a linear
            encoder and `num_filters = kernel_size`.
        encoder_activation (`str`, *optional*): as `relu`; `None` for a linear encoder.
        share_encoder (`bool`): the enrollment goes through the mixture's encoder and its
            activation, instead of a linear encoder of its own.
        pre_mask_activation (`str`): before the last convolution of the mask estimator and of the
            auxiliary network.
        mask_activation (`str`): what bounds the mask of eq. (6).
        causal (`bool`): no look-ahead in the mask estimator's convolutions. The auxiliary network
            always sees the whole enrollment.
        adaptation_type (`str`): how the embedding acts on a block: `mul`, `muladd` or `concat`.
        adaptation_layer (`int` or `list[int]`): 0-based block whose output is adapted. 7 is the
            last block of the first stack. Several blocks get a part of the embedding each.
        speaker_embedding_dim (`int`): size of the embedding for one branch; `embedding_size` counts
            all branches.
        auxiliary_type (`str`): `tcn`, the paper's network over the enrollment, or `projection`, a
            linear layer on the embedding of a speaker encoder.
        speaker_encoder (`str`, *optional*): what a `projection` model builds in: `campplus`, which
            tells voices apart best, `ge2e`, or `log_mel_statistics`, which needs no weights;
            `None` expects the caller to pass `speaker_embeddings`.
        external_embedding_dim (`int`): size of the speaker encoder's embedding, for `projection`.
        num_outputs (`int`): masks that are estimated: 1, or 2 to estimate what is left of the
            mixture too, which a loss may ask for. Only the first is the target's.
        output_choice (`str`): `order`, the first output is the target's, as the embedding adapts
            the network; or `similarity`: the network separates two voices without an embedding, and
            the output that the speaker encoder finds more like the enrollment is the target's. That
            goes with a training that is `permutation_invariant`, and needs `num_outputs=2` and a
            `speaker_encoder`.
        similarity_projection (`bool`): for `output_choice="similarity"`, compare voices in a linear
            projection of their embeddings, which a training learns: what an emotion does to a voice
            weighs less there than who speaks.
        loss_type (`str`): `si_snr`, the paper's, or `snr`, which also asks for the target's level
            in the mixture.
        max_snr_db (`float`, *optional*): the loss rewards no more than about this, so that examples
            without interference do not outweigh the others; `None` rewards without end.
        sampling_rate (`int`): in Hz.

    Raises:
        ValueError: a field is out of range; the message names it and what would be right.
    """

    model_type = "td_speakerbeam"
    # What `Trainer.predict` would otherwise keep of every example: whole waveforms among it.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["extracted_values", "speaker_embeddings"]

    num_filters: int = 512
    kernel_size: int = 32
    stride: int = 16
    bottleneck_channels: int = 128
    hidden_channels: int = 512
    skip_channels: int = 128
    conv_kernel_size: int = 3
    num_blocks: int = 8
    num_repeats: int = 3
    norm_type: str = "gln"
    input_norm_type: str | None = None
    norm_eps: float = 1e-8
    input_norm_eps: float | None = None
    conv_bias: bool = True
    mask_estimator: str = "tcn"
    initial_filters: str = "random"
    encoder_activation: str | None = None
    share_encoder: bool = False
    pre_mask_activation: str = "prelu"
    mask_activation: str = "relu"
    causal: bool = False
    adaptation_type: str = "mul"
    adaptation_layer: int | list[int] = 7
    speaker_embedding_dim: int = 128
    auxiliary_type: str = "tcn"
    speaker_encoder: str | None = None
    external_embedding_dim: int = 256
    num_outputs: int = 1
    output_choice: str = "order"
    similarity_projection: bool = False
    loss_type: str = "si_snr"
    max_snr_db: float | None = None
    sampling_rate: int = 16000

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_choices()
        self._check_sizes()
        self._check_mask_estimator()
        self._check_initial_filters()
        self._check_adaptation()
        self._check_speaker_encoder()

    def _check_choices(self) -> None:
        check_choice(self, "norm_type", NORM_TYPES)
        check_choice(self, "input_norm_type", (None, *NORM_TYPES))
        check_choice(self, "mask_estimator", ("tcn", "lstm"))
        check_choice(self, "initial_filters", ("random", "fourier"))
        check_choice(self, "encoder_activation", (None, *ACTIVATION_NAMES))
        check_choice(self, "pre_mask_activation", ACTIVATION_NAMES)
        check_choice(self, "mask_activation", ACTIVATION_NAMES)
        check_choice(self, "adaptation_type", ("mul", "muladd", "concat"))
        check_choice(self, "auxiliary_type", ("tcn", "projection"))
        check_choice(self, "speaker_encoder", (None, *SPEAKER_ENCODER_DIMS))
        check_choice(self, "output_choice", ("order", "similarity"))
        check_choice(self, "loss_type", ("si_snr", "snr"))

    def _check_sizes(self) -> None:
        check_at_least(self, 1, "num_filters", "kernel_size", "bottleneck_channels")
        check_at_least(self, 1, "hidden_channels", "num_blocks", "num_repeats", "sampling_rate")
        check_at_least(self, 1, "speaker_embedding_dim", "external_embedding_dim")
        if self.num_outputs not in (1, 2):
            raise ValueError(
                f"`num_outputs` must be 1, or 2 for the rest of the mixture too, got "
                f"{self.num_outputs}."
            )
        if self.max_snr_db is not None and not self.max_snr_db > 0:
            raise ValueError(
                f"`max_snr_db` must be above 0 or None, got {self.max_snr_db}: nothing would be "
                "rewarded."
            )
        for name in ("norm_eps", "input_norm_eps"):
            epsilon = getattr(self, name)
            if epsilon is not None and not epsilon > 0:
                raise ValueError(
                    f"`{name}` must be above 0, got {epsilon}: silence would divide by zero."
                )
        if self.skip_channels < 0:
            raise ValueError(
                f"`skip_channels` must be 0 (no skip branch) or more, got {self.skip_channels}."
            )
        if not 1 <= self.stride <= self.kernel_size:
            raise ValueError(
                f"`stride` must lie between 1 and `kernel_size` ({self.kernel_size}), got "
                f"{self.stride}: a larger one would skip samples."
            )
        if self.conv_kernel_size % 2 == 0 or self.conv_kernel_size < 1:
            raise ValueError(
                "`conv_kernel_size` must be odd so that frames stay aligned, got "
                f"{self.conv_kernel_size}."
            )

    def _check_mask_estimator(self) -> None:
        if self.mask_estimator == "lstm":
            needed = {
                "initial_filters": "fourier",
                "auxiliary_type": "projection",
                "skip_channels": 0,
                "causal": False,
            }
            self._check_needed(needed, "mask_estimator='lstm'")

    def _check_needed(self, needed: dict[str, Any], reason: str) -> None:
        for name, value in needed.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"`{name}` must be {value!r} for `{reason}`, got {getattr(self, name)!r}."
                )

    def _check_initial_filters(self) -> None:
        if self.initial_filters == "random":
            return
        if self.mask_estimator == "tcn":
            needed = {"encoder_activation": "relu", "num_filters": 2 * self.kernel_size}
        else:
            needed = {"encoder_activation": None, "num_filters": self.kernel_size}
        self._check_needed(
            needed, f"initial_filters='fourier'` and `mask_estimator='{self.mask_estimator}'"
        )
        if self.kernel_size % (2 * self.stride):
            raise ValueError(
                "`kernel_size` must be a multiple of twice the `stride` for "
                f"`initial_filters='fourier'`, got {self.kernel_size} and {self.stride}."
            )

    def _check_adaptation(self) -> None:
        num_layers, layers = self.num_blocks * self.num_repeats, self.adaptation_layers
        if not layers or not all(0 <= layer < num_layers for layer in layers):
            raise ValueError(
                f"`adaptation_layer` must lie between 0 and {num_layers - 1} (`num_blocks` x "
                f"`num_repeats` - 1), got {self.adaptation_layer}: outside, the enrollment would "
                "have no effect."
            )
        if layers != sorted({*layers}):
            raise ValueError(
                f"`adaptation_layer` must name each block once, in rising order, got {layers}."
            )
        if self.adaptation_type == "concat" and len(layers) > 1:
            raise ValueError(
                "`adaptation_layer` must be one block for `adaptation_type='concat'`, got "
                f"{layers}: `mul` and `muladd` adapt several."
            )
        if self.adaptation_type != "concat":
            factor = 2 if self.adaptation_type == "muladd" else 1
            if self.speaker_embedding_dim != factor * self.bottleneck_channels:
                raise ValueError(
                    f"`speaker_embedding_dim` must be {factor} x `bottleneck_channels` = "
                    f"{factor * self.bottleneck_channels} for "
                    f"`adaptation_type='{self.adaptation_type}'`, got "
                    f"{self.speaker_embedding_dim}."
                )
        if self.skip_channels not in (0, self.bottleneck_channels):
            raise ValueError(
                "`skip_channels` must be 0 or equal `bottleneck_channels` "
                f"({self.bottleneck_channels}), got {self.skip_channels}: one embedding adapts "
                "both branches."
            )

    def _check_speaker_encoder(self) -> None:
        if self.share_encoder and self.auxiliary_type == "projection":
            raise ValueError(
                "`share_encoder` must be False for `auxiliary_type='projection'`: a projection "
                "hears no enrollment."
            )
        if self.output_choice == "similarity":
            self._check_needed({"num_outputs": 2}, "output_choice='similarity'")
            if self.speaker_encoder is None:
                raise ValueError(
                    "`speaker_encoder` must be named for `output_choice='similarity'`: it chooses."
                )
        if self.similarity_projection:
            self._check_needed({"output_choice": "similarity"}, "similarity_projection=True")
        if self.speaker_encoder is None:
            return
        if self.auxiliary_type == "tcn":
            raise ValueError(
                f"`speaker_encoder='{self.speaker_encoder}'` needs `auxiliary_type='projection'`."
            )
        for name, needed in (
            ("external_embedding_dim", SPEAKER_ENCODER_DIMS[self.speaker_encoder]),
            ("sampling_rate", SPEAKER_ENCODER_SAMPLING_RATE),
        ):
            if getattr(self, name) != needed:
                raise ValueError(
                    f"`{name}` must be {needed} for `speaker_encoder='{self.speaker_encoder}'`, "
                    f"got {getattr(self, name)}."
                )

    @property
    def num_branches(self) -> int:
        """Branches of a block that are adapted: residual and, where there is one, skip."""
        return 2 if self.skip_channels else 1

    @property
    def adaptation_layers(self) -> list[int]:
        """The blocks whose output is adapted, in rising order."""
        layers = self.adaptation_layer
        return [layers] if isinstance(layers, int) else layers

    @property
    def embedding_size(self) -> int:
        """Size of E_0 of eq. (3): one part of `speaker_embedding_dim` a branch of a block."""
        return self.speaker_embedding_dim * self.num_branches * len(self.adaptation_layers)

    @property
    def hop_seconds(self) -> float:
        """Time between two frames in seconds."""
        return self.stride / self.sampling_rate


__all__ = ["TdSpeakerBeamConfig"]
