"""Tiny models and batches that the tests of the modeling room share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    HubertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    SEWConfig,
    UniSpeechConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
    WhisperConfig,
)

from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    TseSerForEmotionClassification,
)

EXTRACTOR_FIELDS: dict[str, Any] = {
    "num_filters": 16,
    "kernel_size": 16,
    "stride": 8,
    "bottleneck_channels": 8,
    "hidden_channels": 12,
    "skip_channels": 8,
    "num_blocks": 2,
    "num_repeats": 2,
    "adaptation_layer": 1,
    "speaker_embedding_dim": 8,
}
PROJECTION_FIELDS: dict[str, Any] = {"auxiliary_type": "projection", "speaker_encoder": "ge2e"}
CAMPPLUS_FIELDS: dict[str, Any] = {
    "auxiliary_type": "projection",
    "speaker_encoder": "campplus",
    "external_embedding_dim": 192,
}
WAVEFORM_ENCODER_FIELDS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    # Not 8 channels, in a group neither: processors with AMX get such convolutions of 8 samples and
    # more wrong in bfloat16 (oneDNN in torch 2.14). Those of published encoders are right.
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 4, 2),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
}
STATISTICS_FIELDS: dict[str, Any] = {
    "auxiliary_type": "projection",
    "speaker_encoder": "log_mel_statistics",
    "external_embedding_dim": 80,
}
LSTM_FIELDS: dict[str, Any] = STATISTICS_FIELDS | {
    "mask_estimator": "lstm",
    "initial_filters": "fourier",
    "skip_channels": 0,
    "mask_activation": "sigmoid",
}
WAVEFORM_ENCODERS: dict[str, type[PreTrainedConfig]] = {
    "wav2vec2": Wav2Vec2Config,
    "hubert": HubertConfig,
    "wavlm": WavLMConfig,
    "unispeech": UniSpeechConfig,
    "sew": SEWConfig,
    "conformer": Wav2Vec2ConformerConfig,
}
LAYER_NORM_FIELDS: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}

MASKS = {"input_values": "attention_mask", "enrollment_values": "enrollment_attention_mask"}
OUTPUTS = {"extracted_values", "speaker_embeddings", "si_snr", "logits"}


def encoder_config(name: str) -> PreTrainedConfig | dict[str, Any]:
    """The config of a tiny speech encoder; `_group`, `_layer`: its feature encoder's norm."""
    if name == "log_mel":
        return {"model_type": "log_mel", "num_mel_bins": 16, "hidden_size": 16}
    if name == "whisper":
        return WhisperConfig(
            num_mel_bins=16,
            d_model=16,
            encoder_layers=3,
            encoder_attention_heads=2,
            encoder_ffn_dim=24,
            max_source_positions=50,  # one second
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=24,
            vocab_size=16,
            max_target_positions=8,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
            decoder_start_token_id=0,
        )
    family, _, norm = name.partition("_")
    fields = WAVEFORM_ENCODER_FIELDS | (LAYER_NORM_FIELDS if norm == "layer" else {})
    if family == "sew":
        fields = fields | {"squeeze_factor": 2}
    return WAVEFORM_ENCODERS[family](**fields)


def scatter_parameters(model: nn.Module, seed: int = 0) -> None:
    """
    Move every parameter and statistic off its initial value.

    Norms that start as the identity, and biases that start at zero, would hide mistakes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, statistic in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistic.add_(torch.rand(statistic.shape, generator=generator))


def tiny_extractor(**fields: Any) -> TdSpeakerBeamForSpeechExtraction:
    """An extractor of a few thousand parameters, in evaluation mode."""
    torch.manual_seed(0)
    model = TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig(**(EXTRACTOR_FIELDS | fields)))
    scatter_parameters(model)
    return model.eval()


def tiny_classifier(encoder: str = "log_mel", **fields: Any) -> ShiftCnnForEmotionClassification:
    """A classifier on a tiny speech encoder, in evaluation mode."""
    torch.manual_seed(0)
    model = ShiftCnnForEmotionClassification(
        ShiftCnnConfig(encoder_config=encoder_config(encoder), **fields)
    )
    scatter_parameters(model)
    return model.eval()


def tiny_tse_ser(encoder: str = "log_mel", **fields: Any) -> TseSerForEmotionClassification:
    """Both models together, in evaluation mode; `fields` are those of `TseSerConfig`."""
    model = TseSerForEmotionClassification.from_sub_models_pretrained(
        tiny_extractor(), tiny_classifier(encoder), **fields
    )
    return model.eval()


def transparent_tse_ser(**fields: Any) -> TseSerForEmotionClassification:
    """A combined model whose extractor gives back the mixture; its speaker network is random."""
    extractor = tiny_extractor(
        num_filters=32, initial_filters="fourier", encoder_activation="relu", norm_type="gln"
    )
    fresh = TdSpeakerBeamForSpeechExtraction(extractor.config)
    extractor.encoder, extractor.decoder = fresh.encoder, fresh.decoder
    with torch.no_grad():
        mask = extractor.mask_estimator.output_conv
        mask.weight.zero_()
        cast(Tensor, mask.bias).fill_(1.0)
    model = TseSerForEmotionClassification.from_sub_models_pretrained(
        extractor, tiny_classifier(), **fields
    )
    return model.eval()


def ragged_waveforms(lengths: tuple[int, ...], seed: int) -> list[Tensor]:
    """One waveform `(num_samples,)` a length: noise that swells and fades, unlike its padding."""
    generator = torch.Generator().manual_seed(seed)
    waveforms = []
    for length in lengths:
        envelope = 1 + 0.5 * torch.sin(torch.arange(length) / 300)
        waveforms.append(envelope * torch.randn(length, generator=generator))
    return waveforms


def padded_batch(waveforms: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Values and mask of shape `(batch_size, num_samples)`; the padding is noise, not zeros."""
    longest = max(len(waveform) for waveform in waveforms)
    values = torch.randn(len(waveforms), longest, generator=torch.Generator().manual_seed(9))
    mask = torch.zeros(len(waveforms), longest, dtype=torch.long)
    for row, waveform in enumerate(waveforms):
        values[row, : len(waveform)] = waveform
        mask[row, : len(waveform)] = 1
    return values, mask


def joint_batch(num_rows: int = 2, num_samples: int = 4003) -> dict[str, Tensor]:
    """All forward arguments of the combined model, but masks."""
    generator = torch.Generator().manual_seed(1)
    mixture, enrollment, target = torch.randn(3, num_rows, num_samples, generator=generator)
    return {
        "input_values": mixture,
        "enrollment_values": enrollment,
        "target_values": target,
        "labels": torch.tensor([0, 3, 1])[:num_rows],
    }


def relative_error(actual: Tensor, expected: Tensor, floor: float = 1e-30) -> float:
    """Largest deviation, relative to the largest expected value (or `floor`, if that is more)."""
    scale = max(expected.abs().max().item(), floor)
    return (actual - expected).abs().max().item() / scale


def padding_errors(
    model: PreTrainedModel, waveforms: dict[str, list[Tensor]], labels: Tensor | None = None
) -> dict[str, float]:
    """
    Compare a padded batch with its utterances alone.

    Args:
        model: one that takes the arguments below, in the precision to compare in.
        waveforms: forward argument -> one waveform a row.
        labels: emotion classes, where the model takes them.

    Returns:
        Relative error of each output and of the gradients of waveforms and parameters.
    """
    dtype = next(model.parameters()).dtype
    batch: dict[str, Tensor] = {}
    for name, rows in waveforms.items():
        values, mask = padded_batch(rows)
        batch[name] = values.to(dtype).requires_grad_()
        if name in MASKS:
            batch[MASKS[name]] = mask
    output, gradients = _run(model, batch, labels)
    num_rows = len(waveforms["input_values"])
    errors = {"gradients": 0.0}
    losses, parameter_gradients = [], []
    for row in range(num_rows):
        alone = {
            name: rows[row][None].to(dtype).requires_grad_() for name, rows in waveforms.items()
        }
        row_labels = None if labels is None else labels[row : row + 1]
        row_output, row_gradients = _run(model, alone, row_labels)
        losses.append(row_output["loss"])
        for name in OUTPUTS & row_output.keys():
            expected = row_output[name][0]
            actual = output[name][row, : len(expected)] if expected.dim() else output[name][row]
            errors[name] = max(errors.get(name, 0.0), relative_error(actual, expected))
        for name in alone:
            expected = row_gradients.pop(name)[0] / num_rows
            padded = F.pad(expected, (0, gradients[name].shape[1] - len(expected)))
            error = relative_error(gradients[name][row], padded)
            errors["gradients"] = max(errors["gradients"], error)
        parameter_gradients.append(row_gradients)
    errors["loss"] = relative_error(output["loss"], torch.stack(losses).mean())
    errors["gradients"] = max(errors["gradients"], _gradient_error(gradients, parameter_gradients))
    return errors


def _gradient_error(gradients: dict[str, Tensor], row_gradients: list[dict[str, Tensor]]) -> float:
    """Error of the parameters' gradients against the mean over the utterances alone."""
    means = {
        name: torch.stack([row[name] for row in row_gradients]).mean(dim=0)
        for name in row_gradients[0]
    }
    # Gradients that vanish but for rounding, as a key's bias has them, are no measure.
    floor = 1e-3 * max(mean.abs().max().item() for mean in means.values())
    return max(relative_error(gradients[name], mean, floor) for name, mean in means.items())


def _run(
    model: PreTrainedModel, arguments: dict[str, Tensor], labels: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model.zero_grad()
    output = model(**arguments) if labels is None else model(**arguments, labels=labels)
    output.loss.backward()
    gradients = {
        name: value.grad.clone()
        for name, value in (*arguments.items(), *model.named_parameters())
        if value.grad is not None
    }
    return {name: value.detach() for name, value in output.items()}, gradients


def save_encoder(model: PreTrainedModel, folder: Path) -> str:
    """Save a transformers model, scattered, and return its folder's name."""
    scatter_parameters(model)
    model.save_pretrained(folder)
    return str(folder)


def checkpoint_activations(model: PreTrainedModel, options: dict[str, Any] | None = None) -> None:
    """Gradient checkpointing under the name that this release of transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable(options)
