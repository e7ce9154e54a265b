"""What saving leaves behind: files that may be read as the umask says, and the model as it was."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from corpus_layouts import write_ravdess
from tiny_models import tiny_tse_ser

from data_builders import NoiseFolder, load_corpus
from tse_ser.saving import save_with_code


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_files_of_the_cache_are_readable_as_the_umask_says(umask: int, tmp_path: Path) -> None:
    root = write_ravdess(tmp_path / "ravdess", actors=[1], rate=48_000, suffix=".wav")
    (tmp_path / "noise").mkdir()
    samples = np.random.default_rng(0).standard_normal(8_000)
    soundfile.write(tmp_path / "noise" / "0.wav", 0.1 * samples, 8_000)
    load_corpus("ravdess", root, tmp_path / "cache")
    NoiseFolder(tmp_path / "noise", tmp_path / "cache")
    files = [path.name for path in (tmp_path / "cache").rglob("*")]
    assert {Path(name).suffix for name in files} >= {".wav", ".arrow", ".parquet"}
    assert not [name for name in files if name.endswith(".part")]
    # Locks are of no interest to readers, and made by a library.
    for lock in (tmp_path / "cache").rglob("*.lock"):
        lock.unlink()
    assert modes(tmp_path / "cache") == {0o666 & ~umask}


def test_weights_are_readable_as_the_umask_says(umask: int, tmp_path: Path) -> None:
    model = tiny_tse_ser()
    model.save_pretrained(tmp_path / "plain")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    save_with_code(model, tmp_path / "with_code")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert modes(tmp_path) == {0o666 & ~umask}


def test_saving_with_code_leaves_the_live_model_as_it_is(tmp_path: Path) -> None:
    model: Any = tiny_tse_ser()
    configs = [model.config, model.config.extractor_config, model.config.classifier_config]
    for number, config in enumerate(configs):
        config.name_or_path = f"/data/anna/{number}"
    save_with_code(model, tmp_path / "saved")
    assert [config.name_or_path for config in configs] == [f"/data/anna/{n}" for n in range(3)]
    assert "anna" not in (tmp_path / "saved" / "config.json").read_text(encoding="utf-8")
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        save_with_code(model, tmp_path / "file" / "below")
    assert model.config.name_or_path == "/data/anna/0"
