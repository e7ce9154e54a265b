"""What tests of mixtures share: keywords that use every option, and a digest of an example."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_builders import MixtureDataset, load_mixtures
from data_builders.audio import read_audio

NUM_MIXTURES = 16
EVERYBODY = ("ravdess", "emodb", "asterisk")


def write_noise(folder: Path) -> Path:
    """Two recordings of noise, a short and a long one."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, length in enumerate((6_000, 60_000)):
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.1, 0.1, length), 16_000)
    return folder


def usual_keywords(root: Path, **changes: Any) -> dict[str, Any]:
    """Mixtures of two, at several SNRs, of the corpora below a folder."""
    return {
        "targets": "ravdess",
        "interferers": ["emodb", "asterisk"],
        "corpus_dir": str(root),
        "cache_dir": str(root / "cache"),
        "snr_range_db": (-5.0, 5.0),
        "max_examples": NUM_MIXTURES,
        **changes,
    }


def every_option(root: Path) -> dict[str, Any]:
    """Everything at once; the folder holds noise as well."""
    return usual_keywords(
        root,
        interferers=["ravdess", "emodb", "asterisk"],
        num_speakers=(2, 3),
        snr_distribution="normal",
        noise_dir=str(root / "noise"),
        reverberation="reverberant",
        clean_share=0.2,
        absent_share=0.2,
        speed_factors=(0.9, 1.0, 1.1),
        trim_silence=True,
        segment_seconds=0.5,
        enrollment_seconds=0.4,
    )


def tiny_mixtures(root: Path, **keywords: Any) -> MixtureDataset:
    """Training mixtures of RAVDESS with everybody, of the corpora below a folder."""
    settings: dict[str, Any] = {"targets": "ravdess", "interferers": EVERYBODY, **keywords}
    return load_mixtures(corpus_dir=root, cache_dir=root / "cache", **settings)


def recorded(mixtures: MixtureDataset, utterance_id: str) -> np.ndarray:
    """An utterance of any role, as it was recorded."""
    for table in (mixtures.planner.targets, mixtures.planner.interferers):
        if table is not None and utterance_id in table.row_of_id:
            return read_audio(table.paths[table.row_of_id[utterance_id]])
    raise AssertionError(utterance_id)


def digest(example: dict[str, Any]) -> str:
    """Changes with every sample and every other value of an example."""
    found = hashlib.sha256()
    for name in sorted(example):
        value = example[name]
        found.update(name.encode())
        if isinstance(value, np.ndarray):
            assert value.dtype == np.float32
            found.update(value.tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()
