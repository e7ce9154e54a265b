"""TargetSpeakerEmotionPipeline: every form of input, what an answer says, time, and batches."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch
from memory_meter import PeakTensorBytes
from synthetic_speech import RATE, silence, speech
from tiny_models import transparent_tse_ser
from transformers.utils import logging

from modeling import TargetSpeakerEmotionPipeline, TseSerFeatureExtractor
from modeling.input_checks import AudioError
from modeling.pipeline_tse_ser import ITSELF, NOT_ENOUGH_SPEECH, NOT_HEARD, UNCERTAIN
from modeling.target_recognition import TargetRecognizer

LABELS = ["neutral", "happy", "sad", "angry"]
ENROLLMENT = speech(1, 4.0)


@pytest.fixture(scope="module")
def recognize() -> TargetSpeakerEmotionPipeline:
    return pipeline_of()


def pipeline_of(**fields: Any) -> TargetSpeakerEmotionPipeline:
    """A pipeline whose extractor takes nothing away, so that what comes out is known."""
    model = transparent_tse_ser(**fields)
    model.config.id2label = dict(enumerate(LABELS))
    return TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=TseSerFeatureExtractor(), device="cpu"
    )


def flac(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def scores(result: Any) -> list[float]:
    entries = result["emotions"] if isinstance(result, dict) else result
    return [entry["score"] for entry in sorted(entries, key=lambda entry: str(entry["label"]))]


def asked(mixture: Any, **more: Any) -> dict[str, Any]:
    return {"mixture": mixture, "enrollment": ENROLLMENT, **more}


def codes(result: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in result["warnings"]]


def test_a_short_recording_gives_what_the_model_gives(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    mixture = speech(0, 2.0)
    result = recognize(asked(mixture))

    features = TseSerFeatureExtractor()(mixture, ENROLLMENT)
    with torch.no_grad():
        expected = recognize.model(**features).logits[0].softmax(-1)
    assert [entry["score"] for entry in result] == pytest.approx(
        sorted(expected.tolist(), reverse=True), abs=2e-3
    )
    assert result[0]["label"] == LABELS[int(expected.argmax())]
    assert recognize(asked(mixture), top_k=2) == result[:2]
    # The labels of a widget and nothing beside them, where there is nothing to say.
    sure = pipeline_of(temperature=0.01)
    assert all(set(entry) == {"score", "label"} for entry in sure(asked(mixture)))


def test_every_form_of_audio_gives_the_same(
    recognize: TargetSpeakerEmotionPipeline, tmp_path: Path, monkeypatch: Any
) -> None:
    pcm16 = np.round(speech(0) * 32767).astype(np.int16)
    pcm = pcm16.astype(np.float32) / 32768
    content = flac(pcm)
    path = tmp_path / "a mixture.flac"
    path.write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    forms = [
        *(pcm, torch.from_numpy(pcm), pcm16, pcm16.astype(np.int32) * 2**16),
        *(content, io.BytesIO(content), str(path), path, "~/a mixture.flac", path.as_uri()),
        *((RATE, pcm16), (torch.from_numpy(pcm)[None], RATE), np.stack([pcm, pcm], axis=1)),
        {"array": pcm, "sampling_rate": RATE},
        {"raw": pcm.tolist(), "sampling_rate": RATE},
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
    ]
    results = recognize([asked(form) for form in forms])

    for form, result in zip(forms[1:], results[1:], strict=True):
        np.testing.assert_allclose(scores(result), scores(results[0]), rtol=1e-5, err_msg=str(form))


def test_a_list_an_iterator_and_a_dataset_are_answered_alike(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    mixtures = [speech(index, 1.0 + 0.3 * index) for index in range(3)]
    rows = [
        {
            "mixture": {"bytes": flac(mixture), "path": None},
            "enrollment": {"bytes": flac(ENROLLMENT), "path": None},
            "label": 0,
        }
        for mixture in mixtures
    ]
    expected = recognize(rows)
    assert isinstance(expected, list)
    dataset = datasets.Dataset.from_list(rows)
    for audio in (datasets.Audio(decode=False), None):
        given = dataset
        for name in ("mixture", "enrollment"):
            given = given.cast_column(name, audio) if audio else given
        assert list(recognize(given)) == expected
    assert list(recognize(iter(rows))) == list(recognize(row for row in rows)) == expected
    assert recognize(tuple(rows)) == expected
    assert recognize([]) == []
    column = [{"audio": row["mixture"]} for row in rows]
    assert scores(recognize(column)[0]) == scores(recognize(rows[0]["mixture"]))


def test_batches_and_single_inputs_agree(recognize: TargetSpeakerEmotionPipeline) -> None:
    recognize.enroll("alice", ENROLLMENT)
    inputs: list[Any] = [
        asked(speech(index, 1.0 + index % 3)) if index % 2 else
        {"mixture": speech(index, 1.0 + index % 3), "voice": "alice"}
        for index in range(6)
    ]  # fmt: skip
    inputs.append(speech(8))  # its own enrollment
    options: dict[str, Any] = {"return_extracted": True, "window_seconds": 0.5}
    singly = [recognize(each, **options) for each in inputs]
    for batched in (recognize(inputs, batch_size=4, **options), recognize(inputs, **options)):
        for one, other in zip(singly, batched, strict=True):
            np.testing.assert_allclose(scores(one), scores(other), rtol=1e-4)
            np.testing.assert_allclose(
                one["extracted"]["array"], other["extracted"]["array"], atol=1e-4
            )
            for window, same in zip(one["windows"], other["windows"], strict=True):
                np.testing.assert_allclose(scores(window), scores(same), rtol=1e-3)
    assert "enrollment" not in singly[0] and singly[-1]["enrollment"] == ITSELF


def test_other_processes_prepare_the_same(recognize: TargetSpeakerEmotionPipeline) -> None:
    inputs = [asked(speech(index)) for index in range(3)]
    expected = recognize(inputs, batch_size=2)
    assert recognize(inputs, num_workers=2, batch_size=2) == expected
    # An iterator cannot be shared out: each process would go through all of it.
    assert list(recognize(iter(inputs), num_workers=2, batch_size=2)) == expected


def test_a_bad_item_is_an_entry_that_names_file_role_and_position(
    recognize: TargetSpeakerEmotionPipeline, tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    good = asked(speech(0))
    zeros = np.zeros(RATE, np.float32)
    inputs = [
        good,
        asked(tmp_path / "text.wav"),
        {"mixture": speech(0), "enrollment": zeros},
        asked(str(tmp_path / "none.wav")),
        {"mixture": speech(0), "enrollment": [ENROLLMENT, "absent.flac"]},
        good,
    ]
    for results in (recognize(inputs, batch_size=6), list(recognize(each for each in inputs))):
        for result in (results[0], results[5]):
            np.testing.assert_allclose(scores(result), scores(recognize(good)), rtol=1e-5)
        errors = [result["error"] for result in results[1:5]]
        assert [result["index"] for result in results[1:5]] == [1, 2, 3, 4]
        for error, words in zip(
            errors,
            [
                ("mixture", "input 1", "text.wav", "no audio"),
                ("enrollment", "input 2", "silent"),
                ("mixture", "input 3", "none.wav", "is no file"),
                ("enrollment", "input 4", "absent.flac"),
            ],
            strict=True,
        ):
            assert all(word in error for word in words if word != "no audio"), error
    with pytest.raises(ValueError, match="The enrollment is silent"):
        recognize(inputs[2])


# ---- time


def test_silence_around_and_between_changes_nothing(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    spoken = speech(3, 2.5)
    expected = recognize(asked(spoken), details=True)
    for parts in (
        [silence(4.0), spoken],
        [spoken, silence(4.0)],
        [silence(3.0), spoken[: RATE + 300], silence(5.0), spoken[RATE + 300 :], silence(1.0)],
    ):
        result = recognize(asked(np.concatenate(parts)), details=True)
        np.testing.assert_allclose(scores(result), scores(expected), atol=0.02)
        assert result["speech_seconds"] == pytest.approx(expected["speech_seconds"], abs=0.15)


def test_all_of_a_recording_counts_by_its_speech(recognize: TargetSpeakerEmotionPipeline) -> None:
    longest = recognize.model.classifier.config.max_duration_seconds
    first, second = speech(4, 10.0, pitch_hz=100), speech(5, 20.0, pitch_hz=210)
    alone = [np.array(scores(recognize(asked(part)))) for part in (first, second)]
    both = np.array(scores(recognize(asked(np.concatenate([first, second])))))
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    np.testing.assert_allclose(both, (alone[0] + 2 * alone[1]) / 3, atol=0.01)
    # A second more or less than any limit moves the answer by no more than its share.
    near = [recognize(asked(speech(6, seconds))) for seconds in (29.9, 30.1)]
    np.testing.assert_allclose(scores(near[0]), scores(near[1]), atol=5e-3)
    assert longest < 10


def test_the_course_never_moves_the_overall_answer(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    mixture = np.concatenate([silence(2.5), speech(7, 6.0), silence(6.5), speech(8, 3.0)])
    plain = recognize(asked(mixture))
    for window_seconds in (0.5, 1.0, 4.0):
        result = recognize(asked(mixture), window_seconds=window_seconds)
        assert scores(result) == scores(plain)
        starts = [window["start_seconds"] for window in result["windows"]]
        assert starts == sorted(starts) and starts[:2] == [0.0, 1.0]
        assert result["windows"][-1]["end_seconds"] == 18.0
    windows = {window["start_seconds"]: window for window in result["windows"]}
    assert windows[10.0]["emotions"] == [] and windows[10.0]["speech_seconds"] == 0
    assert len(windows[4.0]["emotions"]) == 4 and windows[4.0]["speech_seconds"] > 2


def test_soft_ends_are_heard_and_what_others_say_alone_is_not(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    question = recognize.preprocess(asked(speech(7, 3.0)))
    assert question.mixture is not None
    (finding,) = recognize.forward([question])
    heard = {}
    for left in (0.15, 0.01):  # 2 % of the power, and next to nothing
        finding.speech = question.mixture.values.copy()
        finding.speech[: RATE // 4] *= left
        finding.speech[-RATE // 4 :] *= left
        recognize.recognizer.find_speech(finding)
        assert np.flatnonzero(finding.active)[0] > 10  # a tenth of a second that may be anybody's
        heard[left] = finding.heard
    assert heard[0.15] == [(0, len(finding.speech))]
    ((start, stop),) = heard[0.01]
    assert RATE / 10 < start < RATE / 4 and RATE / 10 < len(finding.speech) - stop < RATE / 4


def test_extraction_happens_once_and_in_bounded_memory(
    recognize: TargetSpeakerEmotionPipeline, monkeypatch: Any
) -> None:
    extractor = recognize.model.extractor
    heard: list[int] = []
    frames = type(extractor).masked_frames

    def recorded(model: Any, values: Any, *rest: Any) -> Any:
        heard.append(values.numel())
        return frames(model, values, *rest)

    monkeypatch.setattr(type(extractor), "masked_frames", recorded)
    recognize(asked(speech(0, 3.0)), window_seconds=1.0, return_extracted=True)
    assert len(heard) == 1
    with PeakTensorBytes() as a_minute:
        recognize(asked(speech(0, 60.0)))
    with PeakTensorBytes() as four_minutes:
        recognize(asked(speech(0, 240.0)))
    samples = 4 * RATE * 180
    assert four_minutes.peak < a_minute.peak + 3 * samples
    heard.clear()
    recognize([asked(speech(0, seconds)) for seconds in (35.0, *[0.6] * 7)], batch_size=8)
    # The short ones are not padded to the long one.
    assert sum(heard) < 3 * 36 * RATE + 8 * 0.7 * RATE


# ---- what comes back


@pytest.mark.parametrize("level", [0.01, 1.0, 30.0])
def test_the_extracted_voice_is_as_loud_as_in_the_mixture_and_never_clips(
    recognize: TargetSpeakerEmotionPipeline, level: float
) -> None:
    mixture = np.concatenate([silence(2.0), level * speech(0, 2.0), silence(2.0)])
    extracted = recognize(asked(mixture), return_extracted=True)["extracted"]["array"]
    assert len(extracted) == len(mixture) and np.abs(extracted).max() <= 1
    middle = slice(round(2.1 * RATE), round(3.9 * RATE))
    expected = mixture / max(1.0, np.abs(mixture).max() / 0.99)
    error = extracted[middle] - expected[middle]
    assert np.square(error).sum() < 1e-2 * np.square(expected[middle]).sum()
    assert not extracted[:RATE].any()


def test_how_much_was_taken_away_and_how_alike_the_voices_are(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    result = recognize(asked(speech(0, 3.0)), details=True)
    assert result["removed_db"] == pytest.approx(0, abs=0.05)
    assert result["speaker_similarity"] == pytest.approx(result["mixture_similarity"], abs=1e-3)
    same = recognize({"mixture": ENROLLMENT, "enrollment": ENROLLMENT}, details=True)
    assert same["speaker_similarity"] == pytest.approx(1, abs=1e-3)
    assert "enrollment_is_mixture" in codes(same) and "enrollment_is_mixture" not in codes(result)


def test_a_voice_that_was_left_out_by_mistake_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    recognize = pipeline_of()
    target, other = ENROLLMENT, speech(5, 4.0, pitch_hz=230)
    mixture = target + other
    features = recognize.feature_extractor([mixture], targets=[other])
    given = {"mixture": mixture, "enrollment": target}
    assert recognize(given, details=True)["rest_similarity"] is None  # nothing is taken away
    extractor = recognize.model.extractor
    monkeypatch.setattr(
        extractor, "extract_in_parts", lambda *_, **__: iter([features["target_values"]])
    )
    wrong = recognize(given, details=True)
    assert wrong["rest_similarity"] > 0.999 > wrong["speaker_similarity"]
    assert codes(wrong) == ["rest_more_alike"]
    assert recognize(given)[0]["warnings"] == wrong["warnings"]
    right = recognize({"mixture": mixture, "enrollment": other}, details=True)
    assert right["rest_similarity"] < right["speaker_similarity"] and not codes(right)
    assert "warnings" not in recognize(mixture)[0]  # its own enrollment tells nobody apart


def test_answers_in_place_of_an_emotion() -> None:
    plain, sure = pipeline_of(), pipeline_of(temperature=0.01)
    mixture = speech(0, 2.0)
    likeliest = sure(asked(mixture))[0]["label"]
    assert sure(asked(mixture), details=True)["answer"] == likeliest
    assert plain(asked(mixture), details=True)["answer"] == UNCERTAIN  # random weights
    assert plain(asked(mixture))[0]["answer"] == UNCERTAIN
    noise = 1e-5 * np.random.default_rng(0).standard_normal(RATE * 3).astype(np.float32)
    for little in (noise, mixture[: RATE // 5], np.concatenate([noise, mixture[:2000], noise])):
        result = sure(asked(little), details=True)
        assert result["answer"] == NOT_ENOUGH_SPEECH and len(result["emotions"]) == 4
    assert sure({"mixture": mixture, "enrollment": noise}, details=True)["answer"] == (
        NOT_ENOUGH_SPEECH
    )
    for threshold, present, answer in ((1.0, False, NOT_HEARD), (-1.0, True, likeliest)):
        judged = pipeline_of(presence_threshold=threshold, temperature=0.01)
        result = judged(asked(mixture), details=True)
        assert result["target_present"] is present and result["answer"] == answer


def test_the_temperature_bends_probabilities_and_keeps_their_order() -> None:
    plain, flat = pipeline_of(), pipeline_of(temperature=3.0)
    logits = [np.log(scores(each(asked(speech(0))))) for each in (plain, flat)]
    differences = [np.diff(each) for each in logits]
    np.testing.assert_allclose(differences[0], 3 * differences[1], atol=1e-4)


def test_warnings_are_data() -> None:
    recognize = pipeline_of(one_voice_threshold=0.999999)
    loud = np.clip(10 * speech(0, 2.0), -1, 1)
    result = recognize({"mixture": loud, "enrollment": speech(1, 0.8)}, details=True)
    assert codes(result) == ["clipped", "little_enrollment_speech"]
    assert result["warnings"][0]["role"] == "mixture" and result["warnings"][0]["share"] > 0.02
    two = np.concatenate([speech(2, 3, pitch_hz=100), speech(3, 3, pitch_hz=230)])
    result = recognize({"mixture": speech(0), "enrollment": two}, details=True)
    assert codes(result) == ["two_voices"]
    assert recognize({"mixture": speech(0), "enrollment": two})[0]["warnings"]


def test_a_voice_that_was_heard_once_answers_as_its_recordings() -> None:
    recognize = pipeline_of(one_voice_threshold=0.999999, temperature=0.01)
    mixture = speech(0, 2.0)
    two = np.concatenate([speech(2, 3, pitch_hz=100), speech(3, 3, pitch_hz=230)])
    for enrollment, code, answers in (
        (ENROLLMENT, "two_voices", True),
        (two, "two_voices", True),
        (mixture, "enrollment_is_mixture", True),
        (speech(1, 0.7), "little_enrollment_speech", False),
    ):
        expected = recognize({"mixture": mixture, "enrollment": enrollment}, details=True)
        voice = recognize.voice_of(enrollment)
        assert recognize({"mixture": mixture, "enrollment": voice}, details=True) == expected
        assert code in codes(expected)
        assert (expected["answer"] != NOT_ENOUGH_SPEECH) is answers


def test_a_voice_of_another_pipeline_is_told_by_its_fields(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    # Every model of the Hub brings a class of its own.
    voice = recognize.voice_of(ENROLLMENT)
    foreign = SimpleNamespace(**vars(voice))
    expected = recognize(asked(speech(0)))
    for given in ({"enrollment": voice}, {"voice": voice}, {"enrollment": foreign}):
        assert recognize({"mixture": speech(0), **given}) == expected
    with pytest.raises(ValueError, match="a list with an enrolled voice: pass the voice alone"):
        recognize({"mixture": speech(0), "enrollment": [voice]})


def test_an_enrollment_of_no_form_costs_no_other_answer(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    good = asked(speech(0))
    for odd in (float("nan"), 5, object()):
        results = recognize([good, {"mixture": speech(0), "enrollment": odd}, good])
        assert results[0] == results[2] == recognize(good)
        assert "enrollment of input 1: Cannot read audio from" in results[1]["error"]


def test_a_voice_is_kept_with_a_warning_or_not_at_all(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    recognize = pipeline_of()
    recognize(speech(0), voices=tmp_path)
    with pytest.raises(AudioError, match=r"less than 0.5 s of speech.*enroll with 2 s") as caught:
        recognize.enroll("alice", speech(1, 0.7))
    assert caught.value.reason == "too_short" and not recognize.voices
    logger = logging.get_logger("modeling.pipeline_tse_ser")
    logger.addHandler(caplog.handler)
    recognize.enroll("alice", speech(1, 2.0))
    logger.removeHandler(caplog.handler)
    assert "'alice': The enrollment holds 1.1 s of speech" in caplog.text


def test_what_went_wrong_with_one_input_is_raised_as_it_is(
    recognize: TargetSpeakerEmotionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AudioError) as caught:
        recognize(b"no audio")
    assert caught.value.reason == "unreadable"

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(recognize.model.extractor, "forward", broken)
    monkeypatch.setattr(recognize.model.extractor, "extract_in_parts", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        recognize(asked(speech(0)))
    results = recognize([asked(speech(0)), asked(speech(1))])
    assert [result["error"] for result in results] == ["out of memory"] * 2


def test_a_batch_that_failed_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recognize = pipeline_of(one_voice_threshold=0.999999)
    two = np.concatenate([speech(2, 3, pitch_hz=100), speech(3, 3, pitch_hz=230)])
    extract = TargetRecognizer._extract

    def refuses_batches(self: TargetRecognizer, findings: list[Any], *arguments: Any) -> None:
        if len(findings) > 1:
            raise RuntimeError("out of memory")
        extract(self, findings, *arguments)

    monkeypatch.setattr(TargetRecognizer, "_extract", refuses_batches)
    inputs = [{"mixture": speech(index), "enrollment": two} for index in range(2)]
    for result in recognize(inputs, batch_size=2, details=True):
        assert codes(result) == ["two_voices"]


def test_a_row_that_cannot_be_loaded_is_an_entry(recognize: TargetSpeakerEmotionPipeline) -> None:
    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise RuntimeError("Could not push packet to decoder")
            return asked(speech(index))

    results = list(recognize(Rows()))
    assert results[1] == {"error": "Could not push packet to decoder", "index": 1}
    assert len(results[0]) == len(results[2]) == 4


def test_the_channel_can_be_chosen(recognize: TargetSpeakerEmotionPipeline) -> None:
    left, right = speech(0, 2.0), 0.3 * speech(5, 2.0)
    expected = {name: scores(recognize(asked(x))) for name, x in (("l", left), ("r", right))}
    stereo = np.stack([left, right])
    for channel, side in ((0, "l"), (1, "r"), ("louder", "l")):
        np.testing.assert_allclose(
            scores(recognize(asked(stereo), channel=channel)), expected[side], rtol=1e-5
        )
    mean = recognize(asked(stereo), details=True)
    assert codes(mean) == ["channels_differ"]
    assert mean["warnings"][0]["levels_db"][0] == 0 and mean["warnings"][0]["levels_db"][1] < -8
    faint = 1e-4 * np.random.default_rng(0).standard_normal(len(left)).astype(np.float32)
    for turned in (np.stack([left, -left]), np.stack([left, faint - left])):
        result = recognize(asked(turned), details=True)
        assert codes(result) == ["channels_cancel"]
        np.testing.assert_allclose(scores(result), expected["l"], atol=1e-3)
    wrong: list[Any] = [2, -1, "left", 0.5, True]
    for channel in wrong:
        with pytest.raises(ValueError, match="`channel` must be"):
            recognize(asked(stereo), channel=channel)


def test_offset_and_rumble_change_nothing(recognize: TargetSpeakerEmotionPipeline) -> None:
    mixture = speech(0, 2.5)
    expected = scores(recognize(asked(mixture)))
    times = np.arange(len(mixture)) / RATE
    rumble = np.sqrt(2) * mixture.std() * np.sin(2 * np.pi * 5 * times)
    for spoilt in (mixture + 0.1, mixture + 0.5, mixture + rumble):
        result = recognize(asked(spoilt.astype(np.float32)), return_extracted=True)
        np.testing.assert_allclose(scores(result), expected, atol=2e-3)
        inner = slice(RATE // 2, 2 * RATE)
        error = result["extracted"]["array"][inner] - mixture[inner]
        assert np.square(error).sum() < 3e-3 * np.square(mixture[inner]).sum()
    constant = np.full(2 * RATE, 0.1, np.float32)
    for given in (asked(constant), {"mixture": mixture, "enrollment": constant}):
        with pytest.raises(ValueError, match="silent but for a constant offset"):
            recognize(given)


# ---- voices, options, and the saved folder


def test_an_enrolled_voice_is_kept_and_used(
    recognize: TargetSpeakerEmotionPipeline, tmp_path: Path
) -> None:
    def fresh(**options: Any) -> TargetSpeakerEmotionPipeline:
        return TargetSpeakerEmotionPipeline(
            model=recognize.model,
            feature_extractor=recognize.feature_extractor,
            device="cpu",
            **options,
        )

    writer = fresh(voices=tmp_path / "voices")
    writer.enroll("alice", speech(1, 4.0))
    writer.enroll("bob", [speech(2, 3.0), flac(speech(3))])
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == [
        "alice.safetensors",
        "bob.safetensors",
    ]
    reader = fresh(voices=tmp_path / "voices", voice="alice")
    similarity = recognize(asked(speech(0)), details=True)["speaker_similarity"]
    for given in (speech(0), {"mixture": speech(0), "voice": "alice"}):
        assert reader(given, details=True)["speaker_similarity"] == pytest.approx(similarity)
    several = {"mixture": speech(0), "enrollment": [speech(2, 3.0), flac(speech(3))]}
    of_bob = reader(speech(0), voice="bob", details=True)["speaker_similarity"]
    assert of_bob != similarity
    assert reader(several, details=True)["speaker_similarity"] == pytest.approx(of_bob)
    with pytest.raises(ValueError, match=r"Nobody is enrolled as 'carol' \(known: alice, bob\)"):
        reader(speech(0), voice="carol")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://example.com/a.wav", "is a URL: download it first"),
        ("file://elsewhere/a.wav", "is a URL: download it first"),
        ("/no/such/file.wav", "is no file"),
        (b"no audio", "no audio file: pass wav"),
        (io.StringIO("text"), "mode 'rb'"),
        ({"array": np.zeros(16000, np.float32)}, "needs its `sampling_rate`"),
        ({"mixtures": np.zeros(16000, np.float32)}, "The input has \\['mixtures'\\]"),
        (np.zeros(16000, np.float32), "is silent"),
        (asked(np.zeros(16000, np.int64)), "int64 samples, whose full scale is not known"),
        ({"mixture": speech(0)}, "no enrollment: add one, name a `voice`, or pass the audio alone"),
        ({"mixture": speech(0), "voice": ["alice"]}, "Nobody is enrolled as \\['alice'\\]"),
        (3, "Cannot read audio from int"),
        (asked(speech(0), voice="a"), "not both"),
        ({"mixture": speech(0), "enrollment": []}, "an empty list"),
        ({"mixture": speech(0), "enrollment": speech(1, 0.01)}, "enrollment has 160 samples"),
    ],
)
def test_bad_input_is_refused(
    recognize: TargetSpeakerEmotionPipeline, given: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recognize(given)


def test_bad_options_are_refused(recognize: TargetSpeakerEmotionPipeline, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Unknown option 'topk'"):
        recognize(speech(0), topk=3)
    for top_k in (0, 1.5, "2"):
        with pytest.raises(ValueError, match="`top_k` must be at least 1"):
            recognize(speech(0), top_k=top_k)
    for window_seconds in ("2", float("nan"), float("inf"), -1, 7.6, 0.01):
        with pytest.raises(ValueError, match="`window_seconds` must be"):
            recognize(speech(0), window_seconds=window_seconds)
    with pytest.raises(ValueError, match="longer than 1 s"):
        recognize(speech(0), max_seconds=1)
    names: list[Any] = ["../alice", "", "a/b", "a\n", 3]
    for name in names:
        with pytest.raises(ValueError, match="A voice is named by letters"):
            recognize.enroll(name, speech(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`voices` must be a folder or a dict"):
        recognize(speech(0), voices=tmp_path / "file")


def test_a_saved_model_is_a_pipeline_where_this_package_is_not(
    recognize: TargetSpeakerEmotionPipeline, tmp_path: Path
) -> None:
    # As `model.push_to_hub` and `trainer.push_to_hub` write it: no pipeline is at hand.
    recognize.model.save_pretrained(tmp_path / "model")
    recognize.feature_extractor.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "pipeline_tse_ser.py").is_file()
    np.save(tmp_path / "mixture.npy", speech(0))
    np.save(tmp_path / "enrollment.npy", ENROLLMENT)
    program = """
import json, sys
import numpy as np
from transformers import pipeline
given = {name: np.load(name + ".npy") for name in ("mixture", "enrollment")}
by_name = pipeline(model="model", trust_remote_code=True, device="cpu")
by_task = pipeline("audio-classification", model="model", trust_remote_code=True, device="cpu")
assert "modeling" not in sys.modules
by_name.save_pretrained("again")
again = pipeline(model="again", trust_remote_code=True, device="cpu")
print(json.dumps([type(by_name).__name__, by_name(given), by_task(given), again(given)]))
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    name, *results = json.loads(finished.stdout.splitlines()[-1])
    assert name == "TargetSpeakerEmotionPipeline"
    for result in results:
        np.testing.assert_allclose(scores(result), scores(recognize(asked(speech(0)))), rtol=1e-5)


def test_without_remote_code_the_class_is_named(
    recognize: TargetSpeakerEmotionPipeline, tmp_path: Path
) -> None:
    from transformers import pipeline

    recognize.save_pretrained(tmp_path / "model")
    make: Any = pipeline
    local = make(
        model=str(tmp_path / "model"), pipeline_class=TargetSpeakerEmotionPipeline, device="cpu"
    )
    assert type(local) is TargetSpeakerEmotionPipeline
    np.testing.assert_allclose(
        scores(local(asked(speech(0)))), scores(recognize(asked(speech(0)))), rtol=1e-5
    )
