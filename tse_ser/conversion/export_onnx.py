"""
Write an extractor, or the whole of TSE-SER, as one ONNX graph for any batch size and length.

    python -m tse_ser.conversion.export_onnx --model DIR --output model.onnx
    python -m tse_ser.conversion.export_onnx --model DIR --output model.onnx \\
        --speaker embedding --masks

The graph takes `input_values` and, as asked for, `enrollment_values` or `speaker_embeddings`, and
the masks of padded batches; it returns `extracted_values`, `speaker_embeddings` (where it has
computed them) and, of the whole, `logits`. Needs the packages `onnx` and `onnxscript`; onnxruntime
runs the result.
"""

import argparse
import copy
import importlib.util
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers import AutoConfig, PreTrainedModel

from modeling.configuration_td_speakerbeam import TdSpeakerBeamConfig
from modeling.frame_layers import SharedSlopePrelu
from modeling.modeling_td_speakerbeam import TdSpeakerBeamForSpeechExtraction
from modeling.modeling_tse_ser import TseSerForEmotionClassification

MODELS: dict[str, type[PreTrainedModel]] = {
    "td_speakerbeam": TdSpeakerBeamForSpeechExtraction,
    "tse_ser": TseSerForEmotionClassification,
}
EXAMPLE_SAMPLES = 2000
NEEDED_PACKAGES = ("onnx", "onnxscript")


def with_constant_slopes(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose PReLUs are leaky ReLUs: ONNX Runtime is many times slower at its own PReLU."""
    copied = copy.deepcopy(model)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SharedSlopePrelu):
                setattr(parent, name, nn.LeakyReLU(child.weight.item()))
    return copied


class OnnxGraph(nn.Module):
    """A model as a function of its inputs in order, and of nothing else."""

    def __init__(self, model: PreTrainedModel, input_names: list[str]):
        super().__init__()
        self.model = model
        self.input_names = input_names
        outputs = ["extracted_values", "speaker_embeddings", "logits"]
        if not isinstance(model, TseSerForEmotionClassification):
            outputs.remove("logits")
        # A graph has no two values of one name.
        self.output_names = [name for name in outputs if name not in input_names]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        output = self.model(**dict(zip(self.input_names, inputs, strict=True)), return_dict=True)
        return tuple(output[name] for name in self.output_names)


def extractor_config(model: Any) -> TdSpeakerBeamConfig:
    """The config of the extractor that a model is or holds."""
    return getattr(model, "extractor", model).config


def _example_inputs(model: PreTrainedModel, speaker: str, masks: bool) -> dict[str, Tensor]:
    """Inputs of the graph in their order, of two padded rows; refuses what a graph cannot hold."""
    config = extractor_config(model)
    is_projection = config.auxiliary_type == "projection"
    generator = torch.Generator().manual_seed(0)
    mixture, enrollment = torch.randn(2, 2, EXAMPLE_SAMPLES, generator=generator)
    mask = torch.ones(2, EXAMPLE_SAMPLES, dtype=torch.long)
    mask[1, EXAMPLE_SAMPLES // 2 :] = 0
    inputs = {"input_values": mixture}
    if masks:
        inputs["attention_mask"] = mask
    if speaker == "embedding":
        size = config.external_embedding_dim if is_projection else config.embedding_size
        return inputs | {"speaker_embeddings": torch.randn(2, size, generator=generator)}
    if is_projection and config.speaker_encoder != "log_mel_statistics":
        raise ValueError(
            f"An ONNX graph cannot hold `speaker_encoder={config.speaker_encoder!r}`, as what "
            "it does depends on the enrollment's length: export with `--speaker embedding` and "
            "compute the embedding once, with `get_speaker_embeddings` or the encoder outside."
        )
    # Of another length than the mixture, so that no graph can take the two for one.
    inputs["enrollment_values"] = enrollment[:, : EXAMPLE_SAMPLES * 3 // 4]
    if masks:
        inputs["enrollment_attention_mask"] = mask[:, : EXAMPLE_SAMPLES * 3 // 4]
    return inputs


def dynamic_axes(name: str) -> dict[int, Any]:
    """The axes of an input that have any size."""
    if name == "speaker_embeddings":
        return {0: Dim("batch_size")}
    samples = "num_enrollment_samples" if name.startswith("enrollment") else "num_samples"
    return {0: Dim("batch_size"), 1: Dim(samples)}


def _check_extractor(model: PreTrainedModel) -> None:
    """Refuse what no graph holds: LSTMs, unrolled frame by frame, and a choice by voice."""
    extractor = getattr(model, "extractor", model)
    for name, needed in (("mask_estimator", "tcn"), ("output_choice", "order")):
        value = getattr(extractor.config, name, needed)
        if value != needed:
            raise ValueError(
                f"An extractor with `{name}={value!r}` cannot be exported: export one with "
                f"{needed!r}."
            )


def export_onnx(
    model: PreTrainedModel, output: str | Path, speaker: str = "enrollment", masks: bool = False
) -> None:
    """
    Write a model as an ONNX graph.

    Args:
        model: an extractor, or the whole with a log-mel classifier.
        output: the file to write. The sampling rate and, of the whole, the labels are kept in it.
        speaker: what tells the graph the target speaker: `enrollment`, a waveform, or `embedding`,
            what `get_speaker_embeddings` returns.
        masks: whether the graph takes the masks of padded batches; without, rows have one length.

    Raises:
        ValueError: `onnx` or `onnxscript` is not installed, or the graph cannot hold the model's
            speaker encoder or mask estimator.
    """
    missing = [name for name in NEEDED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be installed: pip install 'tse-ser[onnx]'.")
    _check_extractor(model)
    inputs = _example_inputs(model, speaker, masks)
    graph = OnnxGraph(with_constant_slopes(model), list(inputs)).eval()
    with torch.no_grad(), warnings.catch_warnings():
        # About names of axes that are the same by design.
        warnings.simplefilter("ignore", UserWarning)
        program = torch.onnx.export(
            graph,
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=(tuple(dynamic_axes(name) for name in inputs),),
            input_names=list(inputs),
            output_names=graph.output_names,
            verbose=False,
        )
    assert program is not None  # of a dynamo export
    facts: dict[str, Any] = {"sampling_rate": extractor_config(model).sampling_rate}
    if isinstance(model, TseSerForEmotionClassification):
        facts["id2label"] = model.config.id2label
    program.model.metadata_props.update({name: json.dumps(fact) for name, fact in facts.items()})
    program.save(output)


def load_model(name_or_path: str) -> PreTrainedModel:
    """
    An extractor or the whole, in evaluation mode and single precision.

    Raises:
        ValueError: the folder holds another model.
    """
    model_type = AutoConfig.from_pretrained(name_or_path).model_type
    if model_type not in MODELS:
        raise ValueError(
            f"{name_or_path} holds a {model_type}: name an extractor (td_speakerbeam) or the whole "
            "(tse_ser)."
        )
    return MODELS[model_type].from_pretrained(name_or_path, dtype=torch.float32).eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", required=True, help="hub id or folder of a trained model")
    parser.add_argument("--output", required=True, type=Path, help="the .onnx file to write")
    parser.add_argument(
        "--speaker",
        choices=("enrollment", "embedding"),
        default="enrollment",
        help="what tells the graph the target speaker",
    )
    parser.add_argument(
        "--masks", action="store_true", help="take the masks of batches padded to one length"
    )
    options = parser.parse_args(arguments)
    try:
        export_onnx(load_model(options.model), options.output, options.speaker, options.masks)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
