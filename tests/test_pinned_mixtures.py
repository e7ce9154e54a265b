"""Mixtures stay what they were: a published number belongs to these very draws and bytes.

The digests were taken when mixtures had two speakers and no other condition. If one changes, plans
are drawn or rendered in another way: raise the version in `data_builders/__init__.py`, say so in
`CHANGELOG.md`, and pin the new one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import scipy.signal

from data_builders import MixtureDataset, load_mixtures

HARD: dict[str, Any] = {
    "snr_range_db": (-5.0, 5.0),
    "segment_seconds": 1.5,
    "enrollment_seconds": 1.0,
    "speed_factors": (0.9, 1.0, 1.1),
    "trim_silence": True,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "hard": HARD,
    "same": {"gender_state": "same", **HARD},
    "different": {"gender_state": "different"},
    "clean": {"interferers": None},
    "any": {"enrollment_emotion": None, "mixing_seed": 5},
}
# (corpora, settings, split) -> digests of plans and of waveforms.
PINNED = {
    ("generated", "default", "train"): ("8e41e61c311dc8a9", "1822ba1a8b9bca7c"),
    ("layouts", "default", "train"): ("704eeeaaad07c19c", "dbed2702e8e444ee"),
    ("generated", "default", "test"): ("574102219d18f7ac", "40ce9156c5e47d73"),
    ("layouts", "default", "test"): ("490cb6f63d9aa6f1", "67a39ffad70182fd"),
    ("layouts", "hard", "train"): ("4ec97da8b84838b9", "d6b040a5096e871f"),
    ("layouts", "hard", "test"): ("66d11e692d54b974", "fc534242fcd4751d"),
    ("generated", "same", "train"): ("8b031094c8c42325", "bd152aada5209358"),
    ("layouts", "same", "train"): ("5550b6f0fbb184ba", "4bc559e19023927a"),
    ("generated", "same", "test"): ("4efa5feabf740d9b", "d628983b69d54429"),
    ("layouts", "same", "test"): ("a0aa15d67b58bd22", "21ea3ea0b272b718"),
    ("layouts", "different", "train"): ("9f6e1f785d323937", "dcc798702670a605"),
    ("layouts", "different", "test"): ("88f06d3d494cf3b5", "5123996ce1ceecb5"),
    ("layouts", "clean", "train"): ("f35e7c33399e490e", "95a35d7b33eaf250"),
    ("layouts", "clean", "test"): ("6c3e250b4b9afde6", "e65a6ba3a55ca771"),
    ("layouts", "any", "train"): ("6bebf6f1de00e983", "5442ca969c376a8b"),
    ("layouts", "any", "test"): ("4a06603ec82983fe", "4a1361623646a1d6"),
}
# What espeak-ng says differs between its releases: the digests hold for these recordings.
GENERATED_RECORDINGS = "b217e42e02d49eea"
# Sines and filters differ in their last bit between processors and releases of numpy and scipy.
ARITHMETIC = "fdced053f1e7a986"


@pytest.fixture(scope="module", autouse=True)
def same_arithmetic() -> None:
    if arithmetic_digest() != ARITHMETIC:
        pytest.skip("numpy and scipy round otherwise here than where the digests were taken")


def arithmetic_digest() -> str:
    """Digest of what recordings, levels and changed speeds are computed with."""
    times = np.arange(4000) / 16000
    tone = np.sin(2 * np.pi * 220 * times)
    parts = [tone, np.exp(-times), np.log10(1 + times), np.mean(np.square(tone))]
    noise = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    parts += [scipy.signal.resample_poly(noise, *ratio) for ratio in ((10, 9), (10, 11), (1, 3))]
    # Long sums are added up in another order by each release.
    parts += [np.mean(np.square(np.tile(noise, 10)[:length])) for length in (16001, 31999)]
    return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest()[:16]


def plan_as_it_was(spec: dict[str, Any]) -> str:
    """The record in the form that it had for two speakers."""
    one = spec["interferers"][0] if spec["interferers"] else None
    values = {
        "target_id": spec["target_id"],
        "interferer_id": None if one is None else one["utterance_id"],
        "enrollment_id": spec["enrollment_id"],
        "snr_db": None if one is None else one["snr_db"],
        "target_start": spec["target_start"],
        "num_samples": spec["num_samples"],
        "interferer_offset": 0 if one is None else one["offset"],
        "enrollment_start": spec["enrollment_start"],
        "enrollment_num_samples": spec["enrollment_num_samples"],
        "target_speed": spec["target_speed"],
        "interferer_speed": 1.0 if one is None else one["speed"],
        "trim_silence": spec["trim_silence"],
        "epoch": spec["epoch"],
        "index": spec["index"],
    }
    return json.dumps(values, sort_keys=True)


def digests(mixtures: MixtureDataset, split: str, every: int) -> tuple[str, str]:
    """Digests of plans and waveforms in two epochs."""
    plans, waveforms = hashlib.sha256(), hashlib.sha256()
    for epoch in (0, 1) if split == "train" else (0, 3):
        mixtures.set_epoch(epoch)
        for index in range(0, len(mixtures), every):
            example = mixtures[index]
            plans.update(plan_as_it_was(example["spec"]).encode())
            for name in ("mixture", "enrollment", "target"):
                waveforms.update(example[name].tobytes())
    return plans.hexdigest()[:16], waveforms.hexdigest()[:16]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_mixtures_of_tiny_corpora_stay_what_they_were(
    settings: str, split: str, corpora: Path
) -> None:
    mixtures = load_mixtures(
        split=split,
        corpus_dir=corpora,
        cache_dir=corpora / "cache",
        **{
            "targets": "ravdess",
            "interferers": ["ravdess", "emodb", "asterisk"],
            **SETTINGS[settings],
        },
    )
    assert digests(mixtures, split, every=1) == PINNED["layouts", settings, split]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("settings", ["default", "same"])
def test_mixtures_of_the_generated_corpus_stay_what_they_were(
    settings: str, split: str, generated_corpus: datasets.Dataset
) -> None:
    if recordings_digest(generated_corpus) != GENERATED_RECORDINGS:
        pytest.skip("the generated recordings differ from those the digests were taken with")
    mixtures = load_mixtures(
        split=split,
        **{"targets": "generated", "interferers": ["generated_pool"], **SETTINGS[settings]},
    )
    assert digests(mixtures, split, every=7) == PINNED["generated", settings, split]


def recordings_digest(corpus: datasets.Dataset) -> str:
    found = hashlib.sha256(np.asarray(corpus["duration_seconds"][:]).tobytes())
    for path in corpus["path"][::40]:
        found.update(Path(path).read_bytes())
    return found.hexdigest()[:16]
