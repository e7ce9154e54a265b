"""TargetSpeakerEmotionPipeline: every form of input, voices, batches, and the saved folder."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import tiny_tse_ser

from modeling import TargetSpeakerEmotionPipeline, TseSerFeatureExtractor
from modeling.pipeline_tse_ser import ITSELF

RATE = 16000
LABELS = ["neutral", "happy", "sad", "angry"]


@pytest.fixture(scope="module")
def recognize() -> TargetSpeakerEmotionPipeline:
    torch.manual_seed(0)
    model = tiny_tse_ser().eval()
    model.config.id2label = dict(enumerate(LABELS))
    return TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=TseSerFeatureExtractor(), device="cpu"
    )


def waveform(seed: int, seconds: float = 1.0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (0.1 * samples).astype(np.float32)


def flac(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def scores(result: list[dict[str, Any]]) -> list[float]:
    return [entry["score"] for entry in sorted(result, key=lambda entry: str(entry["label"]))]


def test_the_emotions_come_with_their_probabilities_the_likeliest_first(
    recognize: TargetSpeakerEmotionPipeline,
) -> None:
    result = recognize({"mixture": waveform(0), "enrollment": waveform(1)})

    features = TseSerFeatureExtractor()(waveform(0), waveform(1))
    with torch.no_grad():
        expected = recognize.model(**features).logits[0].softmax(-1)
    assert {entry["label"] for entry in result} == set(LABELS)
    assert [entry["score"] for entry in result] == sorted(expected.tolist(), reverse=True)
    assert result[0]["label"] == LABELS[int(expected.argmax())]
    assert recognize({"mixture": waveform(0), "enrollment": waveform(1)}, top_k=2) == result[:2]


def test_every_form_of_audio_gives_the_same(
    recognize: TargetSpeakerEmotionPipeline, tmp_path: Path
) -> None:
    pcm = np.round(waveform(0) * 32767).astype(np.int16).astype(np.float32) / 32768
    content = flac(pcm)
    (tmp_path / "mixture.flac").write_bytes(content)
    forms = [
        pcm,
        torch.from_numpy(pcm),
        content,
        str(tmp_path / "mixture.flac"),
        tmp_path / "mixture.flac",
        {"array": pcm, "sampling_rate": RATE},
        {"raw": pcm.tolist(), "sampling_rate": RATE},
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(tmp_path / "mixture.flac")},
        np.stack([pcm, pcm]),
        np.stack([pcm, pcm], axis=1),
    ]
    results = recognize([{"mixture": form, "enrollment": waveform(1)} for form in forms])

    for result in results[1:]:
        np.testing.assert_allclose(scores(result), scores(results[0]), rtol=1e-6)


def test_another_rate_is_resampled(recognize: TargetSpeakerEmotionPipeline) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000).astype(np.float32)
    same = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    inputs = [
        {"mixture": {"array": tone, "sampling_rate": 48000}, "enrollment": waveform(1)},
        {"mixture": flac(tone, 48000), "enrollment": waveform(1)},
        {"mixture": same, "enrollment": waveform(1)},
    ]
    results = recognize(inputs)
    for result in results[:2]:
        np.testing.assert_allclose(scores(result), scores(results[2]), atol=5e-3)


def test_batches_and_single_inputs_agree(recognize: TargetSpeakerEmotionPipeline) -> None:
    inputs = [
        {"mixture": waveform(index, 0.5 + 0.2 * index), "enrollment": waveform(9 - index, seconds)}
        for index, seconds in enumerate((1.0, 0.4, 0.7, 1.1, 0.9))
    ]
    options = {"return_extracted": True, "window_seconds": 0.5}
    singly = recognize(inputs, **options)
    for batched in (recognize(inputs, batch_size=2, **options), one_by_one(recognize, inputs)):
        for one, other, given in zip(singly, batched, inputs, strict=True):
            np.testing.assert_allclose(
                scores(one["emotions"]), scores(other["emotions"]), rtol=1e-4
            )
            assert len(one["extracted"]["array"]) == len(given["mixture"])
            np.testing.assert_allclose(
                one["extracted"]["array"], other["extracted"]["array"], atol=1e-4
            )
            for window, same in zip(one["windows"], other["windows"], strict=True):
                np.testing.assert_allclose(
                    scores(window["emotions"]), scores(same["emotions"]), rtol=1e-3
                )
    assert singly[4]["windows"][0]["start_seconds"] == 0.0
    assert singly[4]["windows"][-1]["end_seconds"] == pytest.approx(1.3)


def one_by_one(
    recognize: TargetSpeakerEmotionPipeline, inputs: list[dict[str, Any]]
) -> Iterator[Any]:
    options = {"return_extracted": True, "window_seconds": 0.5}
    return iter(recognize((each for each in inputs), **options))


def test_audio_alone_enrolls_itself_and_says_so(recognize: TargetSpeakerEmotionPipeline) -> None:
    result = recognize(waveform(0))

    assert all(entry["enrollment"] == ITSELF for entry in result)
    explicit = recognize({"mixture": waveform(0), "enrollment": waveform(0)})
    assert scores(result) == scores(explicit)
    assert "enrollment" not in explicit[0]
    assert recognize(waveform(0), return_extracted=True)["enrollment"] == ITSELF
    mixed = recognize(
        [waveform(0), {"mixture": waveform(0), "enrollment": waveform(1)}], batch_size=2
    )
    assert "enrollment" in mixed[0][0] and "enrollment" not in mixed[1][0]


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
    writer.enroll("alice", waveform(1))
    writer.enroll("bob", [waveform(2), flac(waveform(3, 0.5))])
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == [
        "alice.safetensors",
        "bob.safetensors",
    ]
    reader = fresh(voices=tmp_path / "voices", voice="alice")
    expected = scores(recognize({"mixture": waveform(0), "enrollment": waveform(1)}))
    for given in (waveform(0), {"mixture": waveform(0), "voice": "alice"}):
        np.testing.assert_allclose(scores(reader(given)), expected, rtol=1e-5)
    # An enrollment of the input's own wins over the default voice, and no voice is a wrong one.
    other = {"mixture": waveform(0), "enrollment": waveform(2)}
    assert scores(reader(other)) == scores(recognize(other))
    assert scores(reader(waveform(0), voice="bob")) != scores(reader(waveform(0)))
    with pytest.raises(ValueError, match=r"Nobody is enrolled as 'carol' \(known: alice, bob\)"):
        reader(waveform(0), voice="carol")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://example.com/a.wav", "is a URL: download it first"),
        ("/no/such/file.wav", "is no file"),
        (b"no audio", "no audio file: pass wav"),
        ({"array": np.zeros(16000, np.float32)}, "needs its `sampling_rate`"),
        ({"mixtures": np.zeros(16000, np.float32)}, "The input has \\['mixtures'\\]"),
        (np.zeros(16000, np.float32), "is silent"),
        (
            {"mixture": np.zeros(16000, np.int16), "enrollment": waveform(1)},
            "int16 samples: convert",
        ),
        (
            {"mixture": waveform(0)},
            "no enrollment: add one, name a `voice`, or pass the audio alone",
        ),
        ({"mixture": waveform(0), "voice": ["alice"]}, "Nobody is enrolled as \\['alice'\\]"),
        (3, "Cannot read audio from int"),
        ({"mixture": waveform(0), "enrollment": waveform(1), "voice": "a"}, "not both"),
        ({"mixture": waveform(0), "enrollment": waveform(1, 0.01)}, "enrollment 0 has 160 samples"),
    ],
)
def test_bad_input_is_refused(
    recognize: TargetSpeakerEmotionPipeline, given: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recognize(given)


def test_bad_options_are_refused(recognize: TargetSpeakerEmotionPipeline, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Unknown option 'topk'"):
        recognize(waveform(0), topk=3)
    for top_k in (0, 1.5, "2"):
        with pytest.raises(ValueError, match="`top_k` must be at least 1"):
            recognize(waveform(0), top_k=top_k)
    for window_seconds in ("2", float("nan"), float("inf"), -1):
        with pytest.raises(ValueError, match="`window_seconds` must be"):
            recognize(waveform(0), window_seconds=window_seconds)
    names: list[Any] = ["../alice", "", "a/b", "a\n", 3]
    for name in names:
        with pytest.raises(ValueError, match="A voice is named by letters"):
            recognize.enroll(name, waveform(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`voices` must be a folder or a dict"):
        recognize(waveform(0), voices=tmp_path / "file")


def test_a_saved_pipeline_works_where_this_package_is_not(
    recognize: TargetSpeakerEmotionPipeline, tmp_path: Path
) -> None:
    recognize.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "mixture.npy", waveform(0))
    np.save(tmp_path / "enrollment.npy", waveform(1))
    program = """
import json, sys
import numpy as np
from transformers import pipeline
given = {name: np.load(name + ".npy") for name in ("mixture", "enrollment")}
by_name = pipeline(model="model", trust_remote_code=True, device="cpu")
by_task = pipeline("audio-classification", model="model", trust_remote_code=True, device="cpu")
assert "modeling" not in sys.modules
print(json.dumps([type(by_name).__name__, by_name(given), by_task(given)]))
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
    name, by_name, by_task = json.loads(finished.stdout.splitlines()[-1])
    assert name == "TargetSpeakerEmotionPipeline"
    expected = scores(recognize({"mixture": waveform(0), "enrollment": waveform(1)}))
    for result in (by_name, by_task):
        np.testing.assert_allclose(scores(result), expected, rtol=1e-5)
