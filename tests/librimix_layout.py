"""A tiny LibriMix: LibriSpeech and WHAM trees of noise bursts, and metadata that mix them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

RATE = 16_000
SPEAKERS = {"61": "M", "121": "F", "237": "F"}
SUBSET = "test-clean"


def write_librimix(root: Path, num_sources: int = 2, noise_seconds: float = 3.0) -> Path:
    """Three utterances of each of three speakers; every utterance is once the first source.

    Returns the metadata file; LibriSpeech/ and wham_noise/ lie beside it.
    """
    rng = np.random.default_rng(num_sources)
    paths: dict[str, list[str]] = {}
    for speaker in SPEAKERS:
        for number in range(3):
            path = f"{SUBSET}/{speaker}/70/{speaker}-70-{number:04d}.flac"
            _write(
                root / "LibriSpeech" / path, rng.uniform(-0.2, 0.2, rng.integers(16_000, 30_000))
            )
            paths.setdefault(speaker, []).append(path)
    noise = rng.uniform(-0.1, 0.1, (round(noise_seconds * RATE), 2))
    _write(root / "wham_noise" / "tt" / "a.wav", noise)
    rows, speakers = [], []
    names = list(SPEAKERS)
    for place, first in enumerate(names):
        others = [names[(place + step) % 3] for step in range(1, num_sources)]
        for number in range(3):
            sources = [paths[name][number] for name in (first, *others)]
            rows.append(_row(sources, rng))
            speakers.append((first, *others))
    metadata = root / f"libri{num_sources}mix_{SUBSET}.csv"
    write_table(metadata, rows)
    write_table(
        root / f"{metadata.stem}_info.csv",
        [
            {"mixture_ID": row["mixture_ID"]}
            | {
                f"speaker_{number}_{key}": value
                for number, name in enumerate(of_row, start=1)
                for key, value in (("ID", name), ("sex", SPEAKERS[name]))
            }
            for row, of_row in zip(rows, speakers, strict=True)
        ],
    )
    return metadata


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """A CSV file with the keys of the rows as its columns."""
    pd.DataFrame(rows).to_csv(path, index=False)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, every value as text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")


def _row(sources: list[str], rng: np.random.Generator) -> dict[str, str]:
    row = {"mixture_ID": "_".join(Path(path).stem for path in sources)}
    for number, path in enumerate(sources, start=1):
        row[f"source_{number}_path"] = path
        row[f"source_{number}_gain"] = str(rng.uniform(0.2, 2.0))
    return {**row, "noise_path": "tt/a.wav", "noise_gain": str(rng.uniform(0.5, 1.5))}


def _write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)
