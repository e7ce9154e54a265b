"""The combined model: padding, losses, and gradients across the two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import (
    PROJECTION_FIELDS,
    STATISTICS_FIELDS,
    encoder_config,
    joint_batch,
    padded_batch,
    ragged_waveforms,
    relative_error,
    save_encoder,
    tiny_classifier,
    tiny_extractor,
    tiny_tse_ser,
)
from torch import Tensor
from transformers import AutoModel, WhisperForConditionalGeneration

from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TseSerConfig,
    TseSerForEmotionClassification,
)

ENCODERS = ["log_mel", "whisper", "wav2vec2_group", "hubert_group", "wav2vec2_layer"]
LABELS = torch.tensor([0, 3, 1])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_cross_entropy_alone_trains_the_extractor_through_a_frozen_encoder(encoder: str) -> None:
    model = tiny_tse_ser(encoder).train()
    assert not any(module.training for module in model.classifier.encoder.modules())
    assert model.classifier.head.training and model.extractor.training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = joint_batch()
    del batch["target_values"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)

    model(**batch).loss.backward()
    optimizer.step()

    for name, parameter in model.extractor.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    for name, value in model.state_dict().items():
        is_frozen = name.startswith("classifier.encoder.")
        assert torch.equal(value, before[name]) == is_frozen, name


@pytest.mark.parametrize(
    ("encoder", "fields"),
    [
        ("log_mel", {}),
        ("log_mel", {"freeze_encoder": False}),
        ("whisper", {"freeze_encoder": False}),
        ("whisper", {"freeze_encoder": False, "encoder_layer": 2}),
        ("wav2vec2_group", {"freeze_encoder": False}),
        ("wav2vec2_layer", {"freeze_encoder": False, "encoder_layer": 2}),
        ("hubert_group", {"freeze_encoder": False, "freeze_feature_encoder": False}),
        ("wavlm_group", {"freeze_encoder": False}),
    ],
)
def test_joint_training_leaves_no_parameter_dead(encoder: str, fields: dict[str, Any]) -> None:
    classifier = tiny_classifier(encoder, mask_time_prob=0.5, mask_time_length=2, **fields)
    model = TseSerForEmotionClassification.from_sub_models_pretrained(tiny_extractor(), classifier)
    torch.manual_seed(0)
    model.train()
    model(**joint_batch()).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            # The softmax over keys cancels what all of them share.
            assert parameter.grad.any() or "k_proj.bias" in name, name
    if encoder == "whisper":
        whisper: Any = model.classifier.encoder.model
        assert not whisper.embed_positions.weight.requires_grad
    trainable = {name for name, p in model.classifier.encoder.named_parameters() if p.requires_grad}
    assert bool(trainable) == (fields.get("freeze_encoder") is False)
    is_waveform_encoder = encoder not in ("log_mel", "whisper")
    if is_waveform_encoder and fields.get("freeze_feature_encoder", True):
        assert not any("feature_extractor" in name for name in trainable)


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    model = tiny_tse_ser(extraction_loss_weight=0.5, classification_loss_weight=3.0)
    output = model(**joint_batch())
    expected = 0.5 * output.extraction_loss + 3.0 * output.classification_loss
    assert relative_error(output.loss, expected) < 1e-6
    assert relative_error(output.extraction_loss, -output.si_snr.mean()) < 1e-6


def test_a_missing_target_or_label_leaves_the_other_loss() -> None:
    model = tiny_tse_ser(extraction_loss_weight=0.5, classification_loss_weight=3.0)
    batch = joint_batch()
    both = model(**batch)
    labels, target = batch.pop("labels"), batch.pop("target_values")

    output = model(**batch, labels=labels)
    assert torch.equal(output.loss, 3.0 * both.classification_loss)
    assert output.extraction_loss is None and output.si_snr is None
    output = model(**batch, target_values=target)
    assert torch.equal(output.loss, 0.5 * both.extraction_loss)
    assert output.classification_loss is None
    output = model(**batch)
    assert output.loss is None
    assert torch.equal(output.logits, both.logits)


def test_unlabelled_rows_train_the_extraction_alone() -> None:
    model = tiny_tse_ser()
    batch = joint_batch() | {"labels": torch.tensor([-100, -100])}
    output = model(**batch)
    output.loss.backward()
    assert output.classification_loss == 0
    assert not any(p.grad is not None and p.grad.any() for p in model.classifier.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.extractor.parameters())


@pytest.mark.parametrize("target", ["silence", "the extracted signal", "the mixture"])
def test_losses_stay_finite_on_degenerate_targets(target: str) -> None:
    model = tiny_tse_ser()
    batch = joint_batch()
    batch["target_values"] = {
        "silence": torch.zeros_like(batch["input_values"]),
        "the extracted signal": model(**batch).extracted_values.detach(),
        "the mixture": batch["input_values"],
    }[target]
    output = model(**batch)
    output.loss.backward()
    assert output.loss.isfinite()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name != "classifier.head.masked_spec_embed":
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_the_classifier_hears_the_extracted_speech_at_unit_level() -> None:
    model = tiny_tse_ser()
    batch = joint_batch()
    output = model(**batch)
    alone = model.classifier(100 * output.extracted_values)
    assert relative_error(output.logits, alone.logits) < 1e-4


def test_sub_models_can_be_folders(tmp_path: Path) -> None:
    combined = tiny_tse_ser()
    combined.extractor.save_pretrained(tmp_path / "extractor")
    combined.classifier.save_pretrained(tmp_path / "classifier")
    loaded = TseSerForEmotionClassification.from_sub_models_pretrained(
        str(tmp_path / "extractor"), str(tmp_path / "classifier")
    ).eval()
    batch = joint_batch()
    assert torch.equal(loaded(**batch).loss, combined(**batch).loss)
    trainable = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in combined.named_parameters() if p.requires_grad}
    assert not any(name.startswith("classifier.encoder.") for name in trainable)


@pytest.mark.parametrize("name", ["hubert_layer", "whisper"])
def test_a_sub_model_can_be_a_speech_encoder(name: str, tmp_path: Path) -> None:
    config: Any = encoder_config(name)
    model_class = WhisperForConditionalGeneration if name == "whisper" else AutoModel.from_config
    folder = save_encoder(model_class(config), tmp_path)
    model = TseSerForEmotionClassification.from_sub_models_pretrained(tiny_extractor(), folder)
    expected = ShiftCnnForEmotionClassification.from_encoder_pretrained(folder)
    encoder = expected.encoder.state_dict()
    assert all(torch.equal(v, encoder[k]) for k, v in model.classifier.encoder.state_dict().items())
    assert not any(p.requires_grad for p in model.classifier.encoder.parameters())
    assert model.eval()(**joint_batch()).logits.shape == (2, 4)


def similarity_of(model: TseSerForEmotionClassification, batch: dict[str, Tensor]) -> Tensor:
    """The cosine computed step by step; the extracted speech at unit power, as enrollments are."""
    output = model(**batch)
    extracted = output.extracted_values
    level = extracted.square().mean(dim=-1, keepdim=True).sqrt()
    embedding = model.get_speaker_embeddings(extracted / level)
    enrolled = model.get_speaker_embeddings(batch["enrollment_values"])
    product = (embedding * enrolled).sum(dim=-1)
    return product / embedding.norm(dim=-1) / enrolled.norm(dim=-1)


@pytest.mark.parametrize("fields", [{}, PROJECTION_FIELDS, STATISTICS_FIELDS], ids=["", "ge", "st"])
def test_the_speaker_similarity_is_a_cosine_of_embeddings(fields: dict[str, Any]) -> None:
    model = TseSerForEmotionClassification.from_sub_models_pretrained(
        tiny_extractor(**fields), tiny_classifier()
    ).eval()
    batch = joint_batch(num_samples=9001)
    output = model(**batch, output_speaker_similarity=True)
    assert output.speaker_similarity.shape == (2,)
    assert relative_error(output.speaker_similarity, similarity_of(model, batch)) < 1e-4
    assert output.target_present is None
    # Speech of the enrollment itself, at whatever level, is its speaker's.
    itself = model.get_speaker_similarity(
        1e-2 * batch["enrollment_values"],
        model.get_speaker_embeddings(
            batch["enrollment_values"] / batch["enrollment_values"].square().mean(-1, True).sqrt()
        ),
    )
    assert relative_error(itself, torch.ones(2)) < 1e-4


def test_the_speaker_similarity_is_computed_on_request_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_tse_ser()
    calls: list[Tensor] = []
    embed = model.extractor.get_speaker_embeddings

    def counted(*arguments: Any) -> Tensor:
        calls.append(embed(*arguments))
        return calls[-1]

    monkeypatch.setattr(model.extractor, "get_speaker_embeddings", counted)
    output = model(**joint_batch())
    assert "speaker_similarity" not in output and len(calls) == 1
    model(**joint_batch(), output_speaker_similarity=True)
    assert len(calls) == 3


def test_the_speaker_similarity_leaves_padding_and_silence_alone() -> None:
    model = tiny_tse_ser()
    waveforms = ragged_waveforms((4003, 2501), 1)
    values, mask = padded_batch(waveforms)
    embeddings = model.get_speaker_embeddings(torch.randn(2, 3000))
    similarity = model.get_speaker_similarity(values, embeddings, mask)
    for row, waveform in enumerate(waveforms):
        alone = model.get_speaker_similarity(waveform[None], embeddings[row : row + 1])
        assert relative_error(similarity[row], alone[0]) < 1e-5
    assert model.get_speaker_similarity(torch.zeros(2, 4003), embeddings).isfinite().all()
    # One speaker for all mixtures.
    one = model.get_speaker_similarity(values, embeddings[:1], mask)
    assert one.shape == (2,) and torch.equal(one[0], similarity[0])


def test_below_the_threshold_the_model_abstains() -> None:
    batch = joint_batch()
    plain = tiny_tse_ser()
    expected = plain(**batch, output_speaker_similarity=True)
    # A similarity that reaches it, and no more than that, is enough.
    threshold = expected.speaker_similarity.max().item()
    model = tiny_tse_ser(presence_threshold=threshold)
    output = model(**batch)
    assert torch.equal(output.speaker_similarity, expected.speaker_similarity)
    assert torch.equal(output.target_present, expected.speaker_similarity >= threshold)
    assert output.target_present.sum() == 1
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(output.loss, expected.loss)
    # Training has no use for it, and it can be refused.
    assert model(**batch, output_speaker_similarity=False).target_present is None
    assert model.train()(**batch).speaker_similarity is None
    assert model(**batch, output_speaker_similarity=True).target_present is not None


def test_an_extractor_that_embeds_no_speech_has_no_similarity() -> None:
    extractor = tiny_extractor(auxiliary_type="projection", external_embedding_dim=12)
    model = TseSerForEmotionClassification.from_sub_models_pretrained(extractor, tiny_classifier())
    batch = joint_batch() | {"speaker_embeddings": torch.randn(2, 12)}
    with pytest.raises(ValueError, match="speaker similarity needs an extractor that embeds"):
        model(**batch, output_speaker_similarity=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_values": torch.ones(2, 399), "target_values": None}, "at least 400 samples a row"),
        ({"enrollment_values": None}, "Pass `enrollment_values` .* or `speaker_embeddings`"),
    ],
)
def test_bad_input_names_the_argument(arguments: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_tse_ser()(**(joint_batch() | arguments))


def test_a_config_that_does_not_fit_together_names_the_field() -> None:
    with pytest.raises(ValueError, match=r"8000 Hz.*16000 Hz.*one `sampling_rate`"):
        TseSerConfig(extractor_config={"sampling_rate": 8000})
    with pytest.raises(ValueError, match="`extraction_loss_weight` must be at least 0, got -1"):
        TseSerConfig(extraction_loss_weight=-1)
    with pytest.raises(ValueError, match=r"`presence_threshold` must be a cosine, .* got 1\.5"):
        TseSerConfig(presence_threshold=1.5)


def test_the_classifier_gives_the_labels() -> None:
    labels = {"id2label": {0: "calm", 1: "tense", 2: "tired"}}
    config = TseSerConfig(classifier_config={"encoder_config": encoder_config("log_mel")} | labels)
    assert config.num_labels == 3
    assert config.id2label == labels["id2label"]
    again = TseSerConfig.from_dict(config.to_dict())
    assert again.id2label == labels["id2label"]
    assert again.classifier_config.id2label == labels["id2label"]


@pytest.mark.parametrize(
    "fields", [{"num_labels": 2}, {"id2label": {0: "calm", 1: "tense", 2: "tired"}}]
)
def test_the_config_of_a_classifier_is_not_changed_by_a_model_around_it(
    fields: dict[str, Any],
) -> None:
    classifier = ShiftCnnConfig(encoder_config=encoder_config("log_mel"))
    before = classifier.to_dict()
    config = TseSerConfig(classifier_config=classifier, **fields)
    assert classifier.to_dict() == before
    assert config.num_labels != classifier.num_labels


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"num_labels": 2}, {0: "LABEL_0", 1: "LABEL_1"}),
        ({"id2label": {0: "calm", 1: "tense"}}, {0: "calm", 1: "tense"}),
    ],
)
def test_labels_can_be_changed_in_every_way(
    fields: dict[str, Any], expected: dict[int, str]
) -> None:
    encoder = {"encoder_config": encoder_config("log_mel")}
    saved = TseSerConfig(classifier_config=encoder).to_dict()
    for config in (
        TseSerConfig(classifier_config=encoder, **fields),
        TseSerConfig.from_dict(saved, **fields),
    ):
        classifier: Any = config.classifier_config
        assert config.id2label == classifier.id2label == expected
        assert config.label2id == classifier.label2id == {v: k for k, v in expected.items()}
        assert config.num_labels == classifier.num_labels == 2
