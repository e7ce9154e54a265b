"""The classifier's head, its temporal shift, SpecAugment, input and loss."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import ragged_waveforms, relative_error, scatter_parameters, tiny_classifier
from torch import Tensor
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from modeling import ShiftCnnConfig, ShiftCnnHead
from modeling.modeling_shift_cnn import classification_loss, random_spans, temporal_shift
from tse_ser.conversion.checkpoint_conversion import convert_shiftser_head_state_dict

LOG_MEL = {"model_type": "log_mel", "num_mel_bins": 16, "hidden_size": 16}


def tiny_head(num_channels: int = 16, **fields: Any) -> ShiftCnnHead:
    torch.manual_seed(0)
    head = ShiftCnnHead(ShiftCnnConfig(encoder_config=LOG_MEL, **fields), num_channels)
    scatter_parameters(head)
    return head.eval()


@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance", "gradient_tolerance"),
    [(torch.float32, "", 1e-5, 1e-3), (torch.float64, "f64.", 1e-10, 1e-8)],
    ids=["float32", "float64"],
)
@pytest.mark.parametrize(("case", "placement"), [("uni", "residual"), ("noshift", "none")])
def test_head_equals_the_public_one(
    vectors_dir: Path,
    case: str,
    placement: str,
    dtype: torch.dtype,
    prefix: str,
    tolerance: float,
    gradient_tolerance: float,
) -> None:
    tensors = load_file(vectors_dir / "shift_cnn" / f"shiftcnn_{case}.safetensors")
    head = ShiftCnnHead(ShiftCnnConfig(encoder_config=LOG_MEL, shift_placement=placement), 48)
    head.to(dtype).eval()
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    head.load_state_dict(convert_shiftser_head_state_dict(state))
    frames = tensors["input"].to(dtype).requires_grad_()

    logits = head(frames)
    loss = classification_loss(logits, tensors["labels"], label_smoothing=0.0)
    loss.backward()

    assert relative_error(logits, tensors[f"{prefix}logits"]) < tolerance
    assert relative_error(loss, tensors[f"{prefix}loss_ce"]) < tolerance
    assert frames.grad is not None
    assert relative_error(frames.grad, tensors[f"{prefix}grad_input"]) < gradient_tolerance
    start = f"{prefix}grad."
    gradients = convert_shiftser_head_state_dict(
        {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
    )
    parameters = dict(head.named_parameters())
    # SpecAugment's vector plays no part in evaluation mode.
    assert parameters.keys() - gradients.keys() == {"masked_spec_embed"}
    for name, expected in gradients.items():
        gradient = parameters[name].grad
        assert gradient is not None
        assert relative_error(gradient, expected) < gradient_tolerance, name


def test_temporal_shift_equals_the_public_one(vectors_dir: Path) -> None:
    tensors = load_file(vectors_dir / "shift_cnn" / "temporal_shift.safetensors")
    pattern = re.compile(
        r"(?:out\.(odd\.)?(zero)|ideal\.(odd\.)?(repeat))\.bi([01])\.s(\d+)\.d(\d+)"
    )
    cases = [(pattern.fullmatch(name), value) for name, value in tensors.items()]
    checked = 0
    for match, expected in cases:
        if match is None:
            continue
        is_odd = match[1] or match[3]
        frames = tensors["input_odd" if is_odd else "input"]
        before = frames.clone()
        shifted = temporal_shift(
            frames, int(match[6]), int(match[7]), match[5] == "1", match[2] or match[4]
        )
        assert torch.equal(shifted, expected), match[0]
        assert torch.equal(frames, before), "the input was changed in place"
        checked += 1
    # Two inputs, two paddings, one or two directions, strides 1 and 2, four divisors.
    assert checked == 2 * 2 * 2 * 2 * 4


def test_placement_decides_what_the_second_block_sees() -> None:
    frames = torch.randn(2, 20, 16)
    heads = {name: tiny_head(shift_placement=name) for name in ("residual", "inplace", "none")}
    logits = {name: head(frames) for name, head in heads.items()}
    assert relative_error(logits["residual"], logits["none"]) > 1e-4
    assert relative_error(logits["inplace"], logits["residual"]) > 1e-4
    # One block alone is not shifted.
    one_block = [
        tiny_head(num_blocks=1, shift_placement=name)(frames) for name in ("residual", "none")
    ]
    assert torch.equal(*one_block)


@pytest.mark.parametrize("placement", ["residual", "inplace", "none"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padded_frames_change_nothing(placement: str, bidirectional: bool) -> None:
    head = tiny_head(
        shift_placement=placement, bidirectional_shift=bidirectional, shift_divisor=4
    ).double()
    frames = torch.randn(2, 31, 16, dtype=torch.float64)
    mask = torch.ones(2, 31)
    mask[1, 17:] = 0
    logits = head(frames, mask)
    for row, length in enumerate((31, 17)):
        alone = head(frames[row : row + 1, :length])
        assert relative_error(logits[row], alone[0]) < 1e-9


def test_padding_counts_in_the_mean_on_request() -> None:
    frames, mask = torch.randn(1, 20, 16), torch.ones(1, 20)
    mask[:, 12:] = 0
    as_published = tiny_head(mask_padding=False)
    assert torch.equal(as_published(frames, mask), as_published(frames))
    assert relative_error(tiny_head()(frames, mask), as_published(frames)) > 1e-4


def test_spec_augment_acts_in_training_only() -> None:
    head = tiny_head(mask_time_prob=0.5, mask_time_length=4)
    frames = torch.randn(2, 40, 16)
    assert torch.equal(head(frames), head(frames))
    head.train()
    assert not torch.equal(head(frames), head(frames))
    head.config.apply_spec_augment = False
    assert torch.equal(head(frames), head(frames))


def test_spec_augment_learns_its_vector_and_clears_channels() -> None:
    head = tiny_head(
        mask_time_prob=1.0, mask_time_length=10, mask_feature_prob=0.3, mask_feature_length=2
    ).train()
    torch.manual_seed(0)
    lengths = torch.full((64,), 10)
    lengths[0] = 9
    augmented = head._spec_augment(torch.randn(64, 10, 16), lengths)
    kept = augmented != 0
    # A span as long as the utterance starts with probability one: all frames are the vector.
    expected = head.masked_spec_embed.expand_as(augmented) * kept
    assert torch.equal(augmented[1:], expected[1:])
    # A shorter utterance keeps its frames.
    assert not torch.equal(augmented[0], expected[0])
    assert 0 < kept.float().mean() < 1
    augmented.sum().backward()
    gradient = head.masked_spec_embed.grad
    assert gradient is not None and gradient.all()


def covered_runs(spans: Tensor) -> list[int]:
    """Lengths of the runs of true values in each row."""
    rows = ["".join(map(str, row)) for row in spans.int().tolist()]
    return [len(run) for row in rows for run in re.findall("1+", row)]


def test_random_spans_are_as_many_as_in_transformers() -> None:
    """Starts are distinct, so that spans of one position count them."""
    probability, length = 0.1, 77
    for min_spans in (0, 2, 9):
        ours = random_spans(torch.full((4000,), length), length, probability, 1, min_spans)
        theirs = _compute_mask_indices((4000, length), probability, 1, min_masks=min_spans)
        assert ours.sum(dim=1).unique().tolist() == sorted({7, 8} if min_spans < 8 else {min_spans})
        assert ours.float().mean() == pytest.approx(theirs.mean(), abs=0.012)


def test_random_spans_stay_inside_the_valid_frames() -> None:
    lengths = torch.tensor([60, 31, 12, 4, 0])
    spans = random_spans(lengths.repeat(200), 60, 0.4, 5, min_spans=2)
    covered = spans.reshape(200, 5, 60)
    for row, length in enumerate(lengths.tolist()):
        assert not covered[:, row, length:].any()
        # A row shorter than a span has none.
        assert covered[:, row].any() == (length >= 5)
    assert (covered[:, 2].sum(dim=-1) >= 5).all()
    assert min(covered_runs(spans)) == 5


@pytest.mark.parametrize("encoder", ["log_mel", "whisper"])
def test_the_waveform_is_cut_to_its_longest_duration(encoder: str) -> None:
    model = tiny_classifier(encoder, max_duration_seconds=0.25)
    waveform = torch.randn(1, 6000)
    assert torch.equal(model(waveform).logits, model(waveform[:, :4000]).logits)
    assert not torch.equal(model(waveform).logits, model(waveform[:, :3000]).logits)
    # In a batch the shorter one keeps its own statistics.
    mask = torch.ones(2, 6000, dtype=torch.long)
    mask[1, 2000:] = 0
    batch = waveform.expand(2, -1)
    assert relative_error(model(batch, mask).logits[1], model(waveform[:, :2000]).logits[0]) < 1e-5


def test_level_and_offset_do_not_matter() -> None:
    model = tiny_classifier()
    (waveform,) = ragged_waveforms((4000,), 1)
    logits = model(waveform[None]).logits
    assert relative_error(model(1e-3 * waveform[None] + 0.01).logits, logits) < 1e-3
    plain = tiny_classifier(normalize_input=False)
    assert relative_error(plain(0.1 * waveform[None]).logits, plain(waveform[None]).logits) > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_waveforms_are_levelled_in_single(dtype: torch.dtype) -> None:
    model = tiny_classifier()
    waveform = 3 * ragged_waveforms((120000,), 1)[0][None].to(dtype)
    mask = torch.ones(1, 120000, dtype=torch.long)
    level, _ = model.prepare_waveform(waveform, mask)
    assert level.dtype == torch.float32
    assert level.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_ignored_labels_are_left_out_of_the_mean() -> None:
    logits = torch.randn(4, 4, requires_grad=True)
    labels = torch.tensor([2, -100, 0, -100])
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    loss = classification_loss(logits, labels, label_smoothing=0.0)
    assert relative_error(loss, expected) < 1e-6
    loss.backward()
    assert logits.grad is not None and not logits.grad[[1, 3]].any()


def test_all_labels_ignored_give_zero_loss_and_gradient() -> None:
    model = tiny_classifier()
    loss = model(torch.randn(2, 4000), labels=torch.tensor([-100, -100])).loss
    loss.backward()
    assert loss == 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and not any(gradient.any() for gradient in gradients)


def test_label_smoothing_spreads_the_target() -> None:
    logits, labels = torch.randn(3, 4), torch.tensor([0, 3, 1])
    log_probabilities = logits.log_softmax(dim=-1)
    hard = -log_probabilities[torch.arange(3), labels].mean()
    uniform = -log_probabilities.mean()
    loss = classification_loss(logits, labels, label_smoothing=0.2)
    assert relative_error(loss, 0.8 * hard + 0.2 * uniform) < 1e-6
    model = tiny_classifier(label_smoothing=0.2)
    output = model(torch.randn(3, 4000), labels=labels)
    assert torch.equal(output.loss, classification_loss(output.logits, labels, 0.2))


def test_class_weights_weigh_the_mean() -> None:
    logits, labels = torch.randn(4, 4), torch.tensor([0, 3, -100, 1])
    weights = [2.0, 1.0, 1.0, 0.5]
    losses = [torch.nn.functional.cross_entropy(logits[i], labels[i]) for i in (0, 1, 3)]
    expected = (2 * losses[0] + 0.5 * losses[1] + losses[2]) / 3.5
    loss = classification_loss(logits, labels, 0.0, weights)
    assert relative_error(loss, expected) < 1e-6
    assert classification_loss(logits, torch.full((4,), -100), 0.0, weights) == 0
    model = tiny_classifier(class_weights=weights)
    output = model(torch.randn(4, 4000), labels=labels)
    assert torch.equal(output.loss, classification_loss(output.logits, labels, 0.0, weights))


def test_labels_are_the_four_emotions_or_numbered() -> None:
    assert ShiftCnnConfig(encoder_config=LOG_MEL).id2label == {
        0: "neutral",
        1: "happy",
        2: "sad",
        3: "angry",
    }
    assert tiny_classifier(num_labels=7)(torch.randn(1, 4000)).logits.shape == (1, 7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shift_placement": "both"}, "`shift_placement` must be one of 'residual', .* 'both'"),
        ({"conv_kernel_size": 6}, "`conv_kernel_size` must be odd .* got 6"),
        ({"num_blocks": 0}, "`num_blocks` must be at least 1, got 0"),
        ({"shift_divisor": 1, "bidirectional_shift": True}, "`shift_divisor` must be at least 2"),
        ({"max_duration_seconds": 0}, "`max_duration_seconds` must be positive, got 0"),
        ({"mask_time_prob": 1.5}, "`mask_time_prob` must lie between 0 and 1, got 1.5"),
        ({"mask_time_length": 0}, "`mask_time_length` must be at least 1, got 0"),
        ({"mask_time_min_masks": -1}, "`mask_time_min_masks` must be at least 0, got -1"),
        (
            {"use_weighted_layer_sum": True},
            "`use_weighted_layer_sum` needs .* log_mel is not",
        ),
        ({"classifier_dropout": -0.1}, "`classifier_dropout` must lie between 0 and 1"),
        ({"head_hidden_size": 0}, "`head_hidden_size` must be at least 1, got 0"),
        ({"class_weights": [1, 1]}, r"`class_weights` must be 4 positive numbers.* got \[1, 1\]"),
        ({"class_weights": [1, 1, 0, 1]}, "`class_weights` must be 4 positive numbers"),
        ({"label_smoothing": 2}, "`label_smoothing` must lie between 0 and 1, got 2"),
        ({"sampling_rate": 8000}, "`sampling_rate` must be the encoder's, 16000 Hz, got 8000"),
        ({"encoder_config": {"model_type": "nobody"}}, "Unrecognized model type .* nobody"),
        ({"encoder_config": LOG_MEL | {"num_layers": 0}}, "`num_layers` must be at least 1"),
    ],
)
def test_a_config_out_of_range_names_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftCnnConfig(**({"encoder_config": LOG_MEL} | fields))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_values": torch.ones(2, 399)}, "`input_values` must hold at least 400 samples"),
        ({"attention_mask": torch.zeros(2, 4000)}, "`input_values` must .* mask leaves 0 in one"),
        ({"labels": torch.tensor(0)}, "`labels` must have one row for each of the 2 rows"),
        ({"labels": torch.tensor([-1, 0])}, "`labels` must lie between 0 and 3, .* got -1"),
        ({"labels": torch.ones(2, 1).long()}, r"integers of shape \(2,\), got .*\(2, 1\)"),
        (
            {"labels": torch.ones(2)},
            r"`labels` must be integers of shape \(2,\), got .*float32",
        ),
    ],
)
def test_bad_input_names_the_argument(arguments: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_classifier()(**({"input_values": torch.ones(2, 4000)} | arguments))
