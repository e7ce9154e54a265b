"""A tiny saved pipeline behind the endpoint's handler, and the audio files that requests carry."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tiny_models import transparent_tse_ser

from modeling import TargetSpeakerEmotionPipeline, TseSerFeatureExtractor

RATE = 16000
LABELS = ["neutral", "happy", "sad", "angry"]
HANDLER = Path(__file__).resolve().parent.parent / "deploy" / "endpoint" / "handler.py"
# Every message tells the client what to do.
FIX = re.compile(r"\b(send|use|add|must be|pass|put|repair|call|convert|download)\b")


def tiny_pipeline() -> TargetSpeakerEmotionPipeline:
    """The pipeline of a random model of a few thousand parameters, with the paper's emotions."""
    model = transparent_tse_ser()
    model.config.id2label = dict(enumerate(LABELS))
    return TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=TseSerFeatureExtractor(), device="cpu"
    )


def load_handler_module() -> Any:
    """The module of the handler, by its file, as the Inference Endpoints toolkit imports it."""
    spec = importlib.util.spec_from_file_location("handler", HANDLER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["handler"] = module
    spec.loader.exec_module(module)
    return module


def noise(seed: int, seconds: float = 0.5, channels: int = 1, rate: int = RATE) -> np.ndarray:
    """Quiet noise of shape `(num_samples, num_channels)`."""
    samples = np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
    return (0.1 * samples).astype(np.float32)


def audio_file(
    samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None
) -> bytes:
    """The bytes of a file of `samples`."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def in_base64(content: bytes) -> str:
    """What JSON carries."""
    return base64.b64encode(content).decode("ascii")


def flac_claiming(num_samples: int, content: bytes) -> bytes:
    """A FLAC file whose header claims another length: 36 bits of its stream information."""
    claimed = int.from_bytes(content[18:26], "big") >> 36 << 36 | num_samples
    return content[:18] + claimed.to_bytes(8, "big") + content[26:]


def wav_claiming(offset: int, form: str, value: int, content: bytes) -> bytes:
    """A WAV file with a field of its header overwritten."""
    field = struct.pack(form, value)
    return content[:offset] + field + content[offset + len(field) :]


def assert_clean_error(answer: Any, status: int | None = None) -> None:
    """A 4xx status and a short message that names the fix; nothing that JSON cannot carry."""
    assert isinstance(answer, dict) and set(answer) == {"error", "status"}, answer
    assert 400 <= answer["status"] < 500 and answer["status"] == (status or answer["status"])
    assert FIX.search(answer["error"]), answer
    assert len(answer["error"]) < 500
    # Addresses in memory would make equal requests differ.
    assert "0x" not in answer["error"]
    json.dumps(answer, allow_nan=False).encode("utf-8")


def assert_emotions(answer: Any) -> None:
    """A list of all emotions and their probabilities, or a dict with one."""
    emotions = answer["emotions"] if isinstance(answer, dict) else answer
    assert {emotion["label"] for emotion in emotions} == set(LABELS)
    assert abs(sum(emotion["score"] for emotion in emotions) - 1) < 1e-4
    json.dumps(answer, allow_nan=False)
