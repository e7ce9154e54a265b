"""What trainers do to a model: checkpointing, compilation, half precision, parallel processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import (
    checkpoint_activations,
    joint_batch,
    padded_batch,
    ragged_waveforms,
    relative_error,
    tiny_classifier,
    tiny_extractor,
)
from torch import Tensor, nn

from modeling import (
    TseSerForEmotionClassification,
)

FORMS: list[dict[str, Any]] = [
    {"norm_type": "gln"},
    {"norm_type": "cln", "skip_channels": 0},
    {"norm_type": "cgln", "adaptation_type": "concat"},
    {"norm_type": "bn", "adaptation_type": "muladd", "speaker_embedding_dim": 16},
    {"norm_type": "cln", "causal": True, "share_encoder": True, "encoder_activation": "relu"},
]


def name_of(fields: dict[str, Any]) -> str:
    return "-".join(str(value) for value in fields.values())


def padded_arguments() -> dict[str, Tensor]:
    """Forward arguments of an extractor, two rows of different length."""
    values, mask = padded_batch(ragged_waveforms((2003, 1500), seed=1))
    enrollment, enrollment_mask = padded_batch(ragged_waveforms((900, 1203), seed=2))
    return {
        "input_values": values,
        "attention_mask": mask,
        "enrollment_values": enrollment,
        "enrollment_attention_mask": enrollment_mask,
        "target_values": torch.randn(values.shape, generator=torch.Generator().manual_seed(3)),
    }


def gradients(model: nn.Module, arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    model(**arguments).loss.backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def test_a_weighted_layer_sum_refuses_reentrant_checkpoints() -> None:
    alone = tiny_classifier("hubert_layer", use_weighted_layer_sum=True, freeze_encoder=False)
    whole = TseSerForEmotionClassification.from_sub_models_pretrained(tiny_extractor(), alone)
    for model in (alone, whole):
        with pytest.raises(ValueError, match="checkpoint with `use_reentrant=False`"):
            checkpoint_activations(model, {"use_reentrant": True})
        checkpoint_activations(model, {"use_reentrant": False})


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Without the graphs of other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    "fields",
    [FORMS[0], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[1:])],
    ids=name_of,
)
def test_the_extractor_is_one_graph_for_all_lengths(fields: dict[str, Any]) -> None:
    model = tiny_extractor(num_repeats=1, **fields)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for index, length in enumerate((2003, 1600, 3210, 2999)):
        batch = joint_batch()
        del batch["labels"]
        batch = {name: values[:, :length] for name, values in batch.items()}
        batch["enrollment_values"] = batch["enrollment_values"][:, : length // 2]
        with torch.compiler.set_stance("fail_on_recompile" if index else "default"):
            actual = compiled(**batch)
        expected = model(**batch)
        assert relative_error(actual.extracted_values, expected.extracted_values) < 1e-5
        assert relative_error(actual.loss, expected.loss) < 1e-5


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_padded_batches_compile_with_their_backward_pass(dynamic: bool) -> None:
    model = tiny_extractor(num_repeats=1).train()
    arguments = padded_arguments()
    # Without this, the enrollment's network, a second graph of the same kind.
    del arguments["enrollment_values"], arguments["enrollment_attention_mask"]
    arguments["speaker_embeddings"] = torch.randn(2, 16)
    expected = gradients(model, arguments)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    model.zero_grad()
    compiled(**arguments).loss.backward()
    for name, gradient in expected.items():
        parameter = model.get_parameter(name)
        assert parameter.grad is not None, name
        assert relative_error(parameter.grad, gradient) < 1e-4, name


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("dynamic", [False, True])
def test_inductor_gives_the_same_numbers(dynamic: bool) -> None:
    model = tiny_extractor().train()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    for length in (2003, 3210) if dynamic else (2003,):
        batch = joint_batch()
        del batch["labels"]
        batch = {name: values[:, :length] for name, values in batch.items()}
        expected = gradients(model, batch)
        model.zero_grad()
        output = compiled(**batch)
        output.loss.backward()
        assert relative_error(output.loss, model(**batch).loss) < 1e-5
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert relative_error(parameter.grad, expected[name]) < 1e-3, name
