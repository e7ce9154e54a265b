"""
Time-domain SpeakerBeam: extract one speaker, known from an enrollment utterance, out of a mixture.

Equations (2)-(7) of Mi et al., "Two-stage Framework for Robust Speech Emotion Recognition Using
Target Speaker Extraction in Human Speech Noise Conditions"; the network of Delcroix et al. 2020 and
Zmolikova et al. 2019.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from .auxiliary_network import (
    AuxiliaryNetwork,
    EmbeddingProjection,
    FilterBank,
    SimilarityProjection,
    encode_waveform,
)
from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .frame_layers import FrameAnalysis, FrameSynthesis, fourier_filters, fourier_synthesis
from .frame_norms import FrameBatchNorm, FrameLayerNorm
from .input_checks import check_batch_size, check_finite, check_waveform
from .log_mel import LogMelSpectrogram
from .long_recordings import LongRecordingMixin
from .modeling_campplus import CamPlusPlusSpeakerEncoder
from .readable_weights import ReadableWeightsMixin
from .recurrent_network import RecurrentNetwork
from .signal_losses import extraction_losses, si_snr
from .speaker_encoders import (
    FrozenSpeakerEncoder,
    Ge2eSpeakerEncoder,
    LogMelStatisticsEncoder,
)
from .streaming import StreamingMixin
from .temporal_conv_network import ACTIVATIONS, TemporalConvNetwork

SPEAKER_ENCODERS: dict[str, type[nn.Module]] = {
    "campplus": CamPlusPlusSpeakerEncoder,
    "ge2e": Ge2eSpeakerEncoder,
    "log_mel_statistics": LogMelStatisticsEncoder,
}


# With cosines 0.1 apart, the output that is more alike is chosen with a probability of 73 %.
SIMILARITY_SHARPNESS = 10.0


@dataclass
class TdSpeakerBeamOutput(ModelOutput):
    """
    Output of [`TdSpeakerBeamForSpeechExtraction`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): the extraction loss in dB, mean over
            the batch: by default the paper's negative SI-SNR, see [`extraction_losses`].
        extracted_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`): the target
            speaker's waveform.
        speaker_embeddings (`torch.FloatTensor` of shape `(batch_size, embedding_size)`): what the
            auxiliary network made of the enrollment, or what was passed in.
        si_snr (`torch.FloatTensor` of shape `(batch_size,)`, *optional*): SI-SNR of each extracted
            signal in dB.
    """

    loss: Tensor | None = None
    extracted_values: Tensor | None = None
    speaker_embeddings: Tensor | None = None
    si_snr: Tensor | None = None


def _swapped_where(is_swapped: Tensor, first: Tensor, second: Tensor) -> list[Tensor]:
    """Two outputs, `(batch_size, num_samples)` each, exchanged in some rows, `(batch_size,)`."""
    rows = is_swapped[:, None]
    return [torch.where(rows, second, first), torch.where(rows, first, second)]


class TdSpeakerBeamPreTrainedModel(ReadableWeightsMixin, PreTrainedModel):
    """Weight initialisation and loading."""

    config: TdSpeakerBeamConfig
    config_class = TdSpeakerBeamConfig
    base_model_prefix = "td_speakerbeam"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True

    def get_input_embeddings(self) -> Any:
        """None, as audio has no tokens: FSDP asks every model for them."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, FrameLayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, FrameBatchNorm):
            super()._init_weights(module)
        elif isinstance(module, nn.PReLU):
            init.constant_(module.weight, 0.25)
        elif isinstance(module, (FrameAnalysis, FrameSynthesis)):
            self._init_filters(module)
        elif isinstance(module, SimilarityProjection):
            init.copy_(module.weight, torch.eye(module.in_features))
            init.zeros_(module.bias)
        elif isinstance(module, (nn.Conv1d, nn.Linear)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                init.uniform_(module.bias, -bound, bound)
            if isinstance(module, EmbeddingProjection):
                # A block whose channels began near zero would be all but switched off.
                init.copy_(module.bias, module.identity_bias())
        elif isinstance(module, nn.LayerNorm):
            super()._init_weights(module)
        elif isinstance(module, nn.LSTM):
            bound = 1 / math.sqrt(module.hidden_size)
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, (FrozenSpeakerEncoder, LogMelSpectrogram)):
            module.fill_buffers()

    def _init_filters(self, module: FrameAnalysis | FrameSynthesis) -> None:
        kernel_size, stride = self.config.kernel_size, self.config.stride
        if self.config.initial_filters == "random":
            init.xavier_normal_(module.weight)  # as the public recipe
        elif isinstance(module, FrameAnalysis):
            init.copy_(module.weight, fourier_filters(kernel_size)[: len(module.weight), None])
        else:
            filters = fourier_synthesis(kernel_size, stride)[: len(module.weight)]
            init.copy_(module.weight, filters[:, None])


class TdSpeakerBeamForSpeechExtraction(
    LongRecordingMixin, StreamingMixin, TdSpeakerBeamPreTrainedModel
):
    """
    Extract the target speaker's speech from a mixture, eq. (2).

    Encoder E, eq. (5), mask estimator B, eq. (6), decoder D, eq. (7), and auxiliary network h,
    eq. (3).
    """

    def __init__(self, config: TdSpeakerBeamConfig):
        super().__init__(config)
        self.encoder = FilterBank(config, config.encoder_activation)
        self.mask_estimator: TemporalConvNetwork | RecurrentNetwork
        if config.mask_estimator == "lstm":
            self.mask_estimator = RecurrentNetwork(config)
        else:
            self.mask_estimator = TemporalConvNetwork(
                config,
                num_repeats=config.num_repeats,
                out_channels=config.num_filters * config.num_outputs,
                causal=config.causal,
                adaptation_layers=config.adaptation_layers,
            )
        self.mask_activation = ACTIVATIONS[config.mask_activation]()
        self.decoder = FrameSynthesis(config.num_filters, config.kernel_size, config.stride)
        self.has_fixed_filters = config.mask_estimator == "lstm"
        if self.has_fixed_filters:
            # Trained, a pair would not stay the cosine and the sine of one frequency. A buffer that
            # no file holds, as `from_pretrained` makes every parameter one that is trained.
            for filters in (self.encoder, self.decoder):
                weight = filters.weight.detach()
                del filters.weight
                filters.register_buffer("weight", weight, persistent=False)
        self.auxiliary_network: nn.Module
        if config.auxiliary_type == "tcn":
            self.auxiliary_network = AuxiliaryNetwork(config)
        else:
            self.auxiliary_network = EmbeddingProjection(config)
            if config.speaker_encoder is not None:
                self.speaker_encoder = SPEAKER_ENCODERS[config.speaker_encoder]()
        if config.similarity_projection:
            self.similarity_projection = SimilarityProjection(config.external_embedding_dim)
        self.post_init()

    def train_similarity_projection(self) -> None:
        """
        Add a `similarity_projection` where there is none, and let nothing else be trained.

        Raises:
            ValueError: the outputs are not chosen by similarity.
        """
        fields = {**self.config.to_dict(), "similarity_projection": True}
        type(self.config).from_dict(fields)  # the fields have to fit each other
        if not self.config.similarity_projection:
            self.config.similarity_projection = True
            projection = SimilarityProjection(self.config.external_embedding_dim)
            self._init_weights(projection)
            self.similarity_projection = projection.to(self.device, self.dtype)
        self.requires_grad_(False)
        self.similarity_projection.requires_grad_(True)

    def get_speaker_embeddings(
        self, enrollment_values: Tensor | None, enrollment_attention_mask: Tensor | None = None
    ) -> Tensor:
        """
        Compute a speaker's embedding once, to pass it as `speaker_embeddings` for many mixtures.

        Args:
            enrollment_values (`torch.Tensor` of shape `(batch_size, num_samples)`): speech of the
                target speaker alone.
            enrollment_attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`,
                *optional*): 1 for valid samples.

        Returns:
            `torch.Tensor` of shape `(batch_size, embedding_size)`: E_0 of eq. (3), or the speaker
            encoder's embedding `(batch_size, external_embedding_dim)` where the auxiliary network
            is a projection.

        Raises:
            ValueError: the enrollment is missing, shorter than a filter, or the model has no
                speaker encoder.
        """
        if enrollment_values is None:
            raise ValueError(
                "Pass `enrollment_values` (speech of the target speaker alone) or "
                "`speaker_embeddings`."
            )
        check_waveform(
            "enrollment_values",
            enrollment_values,
            enrollment_attention_mask,
            self.config.kernel_size,
        )
        if self.config.auxiliary_type == "tcn":
            has_own_encoder = not self.config.share_encoder
            encoder = self.auxiliary_network.encoder if has_own_encoder else self.encoder
            frames, frame_mask = encode_waveform(
                cast(FilterBank, encoder), enrollment_values, enrollment_attention_mask
            )
            return self.auxiliary_network(frames, frame_mask)
        if self.config.speaker_encoder is None:
            raise ValueError(
                "This model takes the embedding of an outside speaker encoder: pass "
                "`speaker_embeddings` of shape "
                f"(batch_size, {self.config.external_embedding_dim})."
            )
        if enrollment_attention_mask is None:
            enrollment_attention_mask = torch.ones_like(enrollment_values, dtype=torch.long)
        return self.speaker_encoder(
            enrollment_values * enrollment_attention_mask, enrollment_attention_mask.sum(dim=-1)
        )

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        enrollment_values: Tensor | None = None,
        enrollment_attention_mask: Tensor | None = None,
        speaker_embeddings: Tensor | None = None,
        target_values: Tensor | None = None,
        permutation_invariant: bool = False,
        return_dict: bool | None = None,
    ) -> TdSpeakerBeamOutput | tuple:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): mixture waveform.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for
                valid samples.
            enrollment_values (`torch.Tensor` of shape `(batch_size, num_enrollment_samples)`,
                *optional*): speech of the target speaker alone.
            enrollment_attention_mask (`torch.Tensor` of shape `(batch_size,
                num_enrollment_samples)`, *optional*): 1 for valid samples.
            speaker_embeddings (`torch.Tensor`, *optional*): from `get_speaker_embeddings`, a row
                for each mixture or one for all; skips the auxiliary network.
            target_values (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): the
                target speaker's clean waveform; gives the loss.
            permutation_invariant (`bool`): the loss of a first training that separates without
                knowing whom to choose: no enrollment is heard, and of the two outputs (see
                `num_outputs`) the one that is nearer to the target counts as its extraction.
            return_dict (`bool`, *optional*): a tuple instead of an output object where `False`.

        Returns:
            [`TdSpeakerBeamOutput`].

        Raises:
            ValueError: wrong rank, a mixture shorter than a filter, batch sizes that differ, NaN,
                no enrollment, or a permutation-invariant loss where there is nothing to permute.
        """
        check_waveform("input_values", input_values, attention_mask, self.config.kernel_size)
        batch_size = input_values.shape[0]
        if target_values is not None:
            self._check_target(target_values, input_values)
        if permutation_invariant:
            speaker_embeddings = self._nobody(input_values)
        elif speaker_embeddings is None:
            if enrollment_values is not None and enrollment_values.dim() == 2:
                check_batch_size("enrollment_values", enrollment_values, batch_size)
            speaker_embeddings = self.get_speaker_embeddings(
                enrollment_values, enrollment_attention_mask
            )
        else:
            check_finite("speaker_embeddings", speaker_embeddings)
        speaker_embeddings = self._one_embedding_each(speaker_embeddings, batch_size)
        outputs = self._separate(input_values, attention_mask, speaker_embeddings)
        similarities = None
        if self.config.output_choice == "similarity" and not permutation_invariant:
            if self.training and target_values is not None:
                # A wrong choice would teach the network to swap its outputs.
                permutation_invariant = True
                if self.config.similarity_projection:
                    similarities = self._similarities(outputs, attention_mask, speaker_embeddings)
            else:
                outputs = self._most_similar_first(outputs, attention_mask, speaker_embeddings)
        loss = ratios = None
        if target_values is not None:
            outputs, losses = self._losses(
                outputs,
                input_values,
                attention_mask,
                target_values,
                permutation_invariant,
                similarities,
            )
            loss, ratios = losses.mean(), si_snr(outputs[0], target_values, attention_mask)
        output = TdSpeakerBeamOutput(
            loss=loss,
            extracted_values=outputs[0],
            speaker_embeddings=speaker_embeddings,
            si_snr=ratios,
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    def estimate_masks(
        self, frames: Tensor, frame_mask: Tensor | None, speaker_embeddings: Tensor
    ) -> list[Tensor]:
        """
        M_0 of eq. (6), and that of the rest of the mixture where `num_outputs` is 2.

        Args:
            frames: encoded mixtures, `(batch_size, num_filters, num_frames)`.
            frame_mask: `(batch_size, 1, num_frames)`, 1 for valid frames, or `None` where all are.
            speaker_embeddings: from `get_speaker_embeddings`, a row for each mixture or one for
                all.

        Returns:
            `num_outputs` masks of shape `(batch_size, num_filters, num_frames)`.
        """
        embedding = self._adaptation_embedding(
            self._one_embedding_each(speaker_embeddings, frames.shape[0])
        ).to(frames.dtype)
        masks = self.mask_activation(self.mask_estimator(frames, frame_mask, embedding))
        return list(masks.chunk(self.config.num_outputs, dim=1))

    def masked_frames(
        self, input_values: Tensor, attention_mask: Tensor | None, speaker_embeddings: Tensor
    ) -> list[Tensor]:
        """
        The frames of each output, eq. (5) and (6), the target speaker's first: each
        `(batch_size, num_filters, num_frames)`.
        """
        with self._filter_precision(input_values):
            frames, frame_mask = encode_waveform(self.encoder, input_values, attention_mask)  # (5)
        masks = self.estimate_masks(frames, frame_mask, speaker_embeddings)  # eq. (6)
        masked = [frames * mask for mask in masks]
        return masked if frame_mask is None else [one * frame_mask for one in masked]

    def target_frames(self, input_values: Tensor, speaker_embedding: Tensor) -> Tensor:
        """
        The target speaker's frames of one stretch of a recording.

        Args:
            input_values: `(1, num_samples)`.
            speaker_embedding: from `get_speaker_embeddings`, of one speaker.

        Returns:
            `(1, num_filters, num_frames)`.
        """
        masked = self.masked_frames(input_values, None, speaker_embedding)
        if self.config.output_choice == "order":
            return masked[0]
        decoded = [self.decoder(frames)[:, 0] for frames in masked]
        is_second = self._similarities(decoded, None, speaker_embedding).argmax(dim=0)
        return masked[int(is_second)]

    def _similarities(
        self, outputs: list[Tensor], attention_mask: Tensor | None, speaker_embeddings: Tensor
    ) -> Tensor:
        """Cosine of each output's embedding and the enrollment's, `(num_outputs, batch_size)`."""
        with torch.no_grad():
            voices = [self.get_speaker_embeddings(output, attention_mask) for output in outputs]
        return torch.stack([self.compare_voices(voice, speaker_embeddings) for voice in voices])

    def compare_voices(self, first: Tensor, second: Tensor) -> Tensor:
        """
        How alike voices are: the cosine of their embeddings, in the `similarity_projection` where
        there is one.

        Args:
            first, second (`torch.Tensor` of shape `(batch_size, embedding_size)`): from
                `get_speaker_embeddings`; one row of either serves all of the other.

        Returns:
            `torch.Tensor` of shape `(batch_size,)`: from -1 to 1.
        """
        if self.config.similarity_projection:
            first, second = map(self.similarity_projection, (first, second))
        return F.cosine_similarity(first, second, dim=-1)

    def _most_similar_first(
        self, outputs: list[Tensor], attention_mask: Tensor | None, speaker_embeddings: Tensor
    ) -> list[Tensor]:
        first, second = outputs
        similarities = self._similarities(outputs, attention_mask, speaker_embeddings)
        return _swapped_where(similarities[1] > similarities[0], first, second)

    def _separate(
        self, input_values: Tensor, attention_mask: Tensor | None, speaker_embeddings: Tensor
    ) -> list[Tensor]:
        """The waveform of each output, `(batch_size, num_samples)`."""
        masked = self.masked_frames(input_values, attention_mask, speaker_embeddings)
        with self._filter_precision(input_values):
            decoded = [self.decoder(frames)[:, 0] for frames in masked]  # eq. (7)
        # The filters leave out a remainder shorter than a hop: zeros there keep the length.
        return [F.pad(one, (0, input_values.shape[-1] - one.shape[-1])) for one in decoded]

    def _filter_precision(self, input_values: Tensor) -> torch.autocast:
        """
        Autocast as it is around, but not for fixed filters: the logarithm hears the bins that
        bfloat16 would bury under its rounding errors.
        """
        device_type = input_values.device.type
        is_enabled = torch.is_autocast_enabled(device_type) and not self.has_fixed_filters
        return torch.autocast(device_type, enabled=is_enabled)

    def _losses(
        self,
        outputs: list[Tensor],
        input_values: Tensor,
        attention_mask: Tensor | None,
        target_values: Tensor,
        permutation_invariant: bool,
        similarities: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """
        The outputs, that of the target first, and the loss of each example `(batch_size,)`.

        With `similarities` `(2, batch_size)` of the outputs to the enrollment, what a wrong choice
        costs in dB is added, times its probability: nothing but the choice learns from that.
        """
        rest = input_values - target_values

        def losses(estimates: list[Tensor]) -> Tensor:
            return torch.stack(
                [
                    extraction_losses(
                        estimate,
                        source,
                        input_values,
                        attention_mask,
                        self.config.loss_type,
                        self.config.max_snr_db,
                    )
                    for estimate, source in zip(estimates, (target_values, rest), strict=False)
                ]
            ).mean(dim=0)

        in_order = losses(outputs)
        if not permutation_invariant:
            return outputs, in_order
        swapped = losses(outputs[::-1])
        chosen = _swapped_where(swapped < in_order, *outputs)
        least = torch.minimum(in_order, swapped)
        if similarities is None:
            return chosen, least
        # Of an absent target no output is the right one.
        is_present = target_values.any(dim=-1)
        costs = (torch.stack([in_order, swapped]) - least).detach() * is_present
        return chosen, least + ((SIMILARITY_SHARPNESS * similarities).softmax(dim=0) * costs).sum(0)

    def _nobody(self, input_values: Tensor) -> Tensor:
        """The embedding of no speaker, which leaves a projection with its biases."""
        if self.config.num_outputs != 2 or self.config.auxiliary_type != "projection":
            raise ValueError(
                "`permutation_invariant` needs a model with `num_outputs=2` and "
                "`auxiliary_type='projection'`."
            )
        return input_values.new_zeros(1, self.config.external_embedding_dim)

    def _check_target(self, target_values: Tensor, input_values: Tensor) -> None:
        if target_values.shape != input_values.shape:
            raise ValueError(
                f"`target_values` must have the shape of `input_values`, "
                f"{tuple(input_values.shape)}, got {tuple(target_values.shape)}."
            )
        check_finite("target_values", target_values)

    def _one_embedding_each(self, speaker_embeddings: Tensor, batch_size: int) -> Tensor:
        """`(batch_size, size)` from as many rows, or from the one speaker of all mixtures."""
        is_projection = self.config.auxiliary_type == "projection"
        size = self.config.external_embedding_dim if is_projection else self.config.embedding_size
        if speaker_embeddings.shape not in ((batch_size, size), (1, size), (size,)):
            raise ValueError(
                f"`speaker_embeddings` must have shape ({batch_size}, {size}), a row for each "
                f"mixture, or (1, {size}), one speaker for all, got "
                f"{tuple(speaker_embeddings.shape)}."
            )
        return speaker_embeddings.expand(batch_size, size)

    def _adaptation_embedding(self, speaker_embeddings: Tensor) -> Tensor:
        if self.config.auxiliary_type != "projection":
            return speaker_embeddings
        if self.config.output_choice == "similarity":
            speaker_embeddings = torch.zeros_like(speaker_embeddings)
        if self.config.speaker_encoder is not None:
            # Unit length over many dimensions is next to nothing in each: the adapted block would
            # start almost switched off.
            speaker_embeddings = speaker_embeddings * math.sqrt(speaker_embeddings.shape[-1])
        projection = cast(nn.Linear, self.auxiliary_network)
        return projection(speaker_embeddings.to(projection.weight.dtype))


__all__ = [
    "TdSpeakerBeamForSpeechExtraction",
    "TdSpeakerBeamOutput",
    "TdSpeakerBeamPreTrainedModel",
]
