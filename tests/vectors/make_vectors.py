"""
Write the small vectors beside this file, which hold the models to what they computed when verified.

Run `python tests/vectors/make_vectors.py` only after a change of the numbers that was meant, with
`tests/test_td_speakerbeam.py` and `tests/test_shift_cnn.py` passing on the reference vectors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent.parent))

from modeling import (  # noqa: E402
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    TseSerConfig,
    TseSerForEmotionClassification,
)

MODELS: dict[str, tuple[type, type]] = {
    "td_speakerbeam": (TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction),
    "shift_cnn": (ShiftCnnConfig, ShiftCnnForEmotionClassification),
    "tse_ser": (TseSerConfig, TseSerForEmotionClassification),
}
EXTRACTOR: dict[str, Any] = {
    "num_filters": 6,
    "kernel_size": 12,
    "stride": 5,
    "bottleneck_channels": 4,
    "hidden_channels": 5,
    "skip_channels": 4,
    "num_blocks": 2,
    "num_repeats": 1,
    "adaptation_layer": 0,
    "speaker_embedding_dim": 4,
}
CLASSIFIER: dict[str, Any] = {
    "encoder_config": {"model_type": "log_mel", "num_mel_bins": 8, "hidden_size": 8},
    "conv_kernel_size": 3,
    "shift_divisor": 4,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "extractor_gln_mul": ("td_speakerbeam", EXTRACTOR),
    "extractor_cln_causal_muladd": (
        "td_speakerbeam",
        EXTRACTOR
        | {
            "norm_type": "cln",
            "causal": True,
            "adaptation_type": "muladd",
            "speaker_embedding_dim": 8,
        },
    ),
    "extractor_cgln_causal_no_skip": (
        "td_speakerbeam",
        EXTRACTOR | {"norm_type": "cgln", "causal": True, "skip_channels": 0},
    ),
    "extractor_bn_concat": (
        "td_speakerbeam",
        EXTRACTOR | {"norm_type": "bn", "adaptation_type": "concat", "mask_activation": "sigmoid"},
    ),
    "extractor_espnet_form": (
        "td_speakerbeam",
        EXTRACTOR
        | {
            "input_norm_type": "cln",
            "norm_eps": 2.0**-23,
            "conv_bias": False,
            "encoder_activation": "relu",
            "share_encoder": True,
        },
    ),
    "classifier_residual": ("shift_cnn", CLASSIFIER),
    "classifier_inplace_both_ways": (
        "shift_cnn",
        CLASSIFIER | {"shift_placement": "inplace", "bidirectional_shift": True},
    ),
    "combined": ("tse_ser", {"extractor_config": EXTRACTOR, "classifier_config": CLASSIFIER}),
}


def build_model(model_type: str, fields: dict[str, Any]) -> torch.nn.Module:
    """The model of a case with random weights, in evaluation mode."""
    config_class, model_class = MODELS[model_type]
    model: torch.nn.Module = model_class(config_class(**fields)).eval()
    return model


def draw_arguments(model_type: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Forward arguments: a padded batch of two."""
    lengths = torch.tensor([640, 480])
    mask = torch.arange(640) < lengths[:, None]
    arguments: dict[str, Tensor] = {
        "input_values": torch.randn(2, 640, generator=generator),
        "attention_mask": mask,
    }
    if model_type != "shift_cnn":
        arguments["enrollment_values"] = torch.randn(2, 400, generator=generator)
        arguments["target_values"] = torch.randn(2, 640, generator=generator)
    if model_type != "td_speakerbeam":
        arguments["labels"] = torch.tensor([3, 1])
    return arguments


def main() -> None:
    """Compute and write every case."""
    for name, (model_type, fields) in CASES.items():
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        model = build_model(model_type, fields)
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.add_(0.1 * torch.rand(value.shape, generator=generator))
        arguments = draw_arguments(model_type, generator)
        output = model(**arguments)
        output.loss.backward()
        tensors = {f"state.{key}": value for key, value in model.state_dict().items()}
        tensors |= {f"argument.{key}": value for key, value in arguments.items()}
        tensors |= {f"output.{key}": value.detach() for key, value in output.items()}
        tensors |= {
            f"gradient.{key}": parameter.grad
            for key, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        case = json.dumps({"model_type": model_type, "fields": fields})
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        save_file(tensors, FOLDER / f"{name}.safetensors", metadata={"case": case})


if __name__ == "__main__":
    main()
