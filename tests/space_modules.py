"""The modules of deploy/space, importable as they are in a Space, and a tiny model for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tiny_models import transparent_tse_ser

from modeling import TargetSpeakerEmotionPipeline, TseSerFeatureExtractor

SPACE = Path(__file__).resolve().parent.parent / "deploy" / "space"
# A Space runs app.py in its own folder: that is how it finds the modules beside it.
sys.path.insert(0, str(SPACE))

import pictures  # noqa: E402
import recognizer  # noqa: E402
import words  # noqa: E402

EMOTIONS = ["neutral", "happy", "sad", "angry"]
RATE = 16000

__all__ = [
    "EMOTIONS",
    "RATE",
    "SPACE",
    "pictures",
    "recognizer",
    "save_model",
    "save_voice_like",
    "words",
]


def save_model(folder: Path, **fields: Any) -> TargetSpeakerEmotionPipeline:
    """Write a tiny model with its pipeline and an example; `fields` are those of `TseSerConfig`."""
    model = transparent_tse_ser(**fields)
    model.config.id2label = dict(enumerate(EMOTIONS))
    made = TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=TseSerFeatureExtractor(), device="cpu"
    )
    made.save_pretrained(folder)
    (folder / "sample").mkdir()
    save_voice_like(folder / "sample" / "mixture.wav", seed=0, seconds=2.0)
    save_voice_like(folder / "sample" / "enrollment.wav", seed=1, seconds=4.0)
    return made


def save_voice_like(path: Path, seed: int, seconds: float = 1.0, rate: int = RATE) -> Path:
    """Write syllables of a buzz, another pitch for another seed: something to see and hear."""
    time = np.arange(round(seconds * rate)) / rate
    pitch_hz = 110 + 35 * (seed % 4) + 12 * np.sin(2 * np.pi * 1.3 * time + seed)
    phase = 2 * np.pi * torch.cumsum(torch.from_numpy(pitch_hz / rate), 0).numpy()
    buzz = sum(np.sin(partial * phase) / partial for partial in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time + seed) + 0.3, 0, 1)
    soundfile.write(path, (0.15 * buzz * syllables).astype(np.float32), rate)
    return path
