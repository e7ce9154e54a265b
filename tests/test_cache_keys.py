"""What is kept between loads is kept under what it was made of, whatever the files are called."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from corpus_layouts import burst
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from data_builders import load_corpus
from data_builders.audio import read_audio, resample
from data_builders.corpora.corpus_table import Description, load_audio_folder
from data_builders.corpora.scan import FoundFile
from data_builders.mixtures.noise import NoiseFolder
from data_builders.schema import CorpusError

# Parts that a careless join makes equal: x/b and x_b, a-0 and a, 1 and my_1.
PARTS = st.sampled_from(["x", "b", "x_b", "b-0", "0", "1", "my", "my_1", "Ä b"])
TREES = st.lists(
    st.lists(PARTS, min_size=1, max_size=3).map("/".join), min_size=1, max_size=5, unique=True
)
# 16 kHz is read as it is, everything else from a copy.
RATES = st.sampled_from([16_000, 22_050])
SAME_TIME_NS = 1_700_000_000 * 10**9


def samples_of(seed: int, rate: int) -> np.ndarray:
    """Equally long whatever the seed, so that files of a rate agree in size."""
    return np.roll(burst(7 * seed, rate), 100 * (seed % 7))


def write_tree(root: Path, seeds: Mapping[str, int], rate: int) -> Path:
    """Recordings by name, of one size and time, and the table that describes them."""
    for name, seed in seeds.items():
        path = root / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples_of(seed, rate), rate, subtype="FLOAT")
        os.utime(path, ns=(SAME_TIME_NS, SAME_TIME_NS))
    rows = [{"path": f"{name}.wav", "speaker_id": name.partition("/")[0]} for name in seeds]
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    os.utime(root / "metadata.csv", ns=(SAME_TIME_NS, SAME_TIME_NS))
    return root


def test_a_corpus_is_described_again_where_the_code_that_describes_it_has_changed(
    tmp_path: Path,
) -> None:
    root = write_tree(tmp_path / "corpus", {"a": 1}, 16_000)
    code = tmp_path / "theatre.py"

    def emotion(word: str) -> str:
        code.write_text(
            f"def describe(path):\n"
            f"    named = dict(name=path.stem, speaker_id='s', gender='', emotion={word!r})\n"
            f"    return Description(**named, session='', text='', language='en', licence='mine')\n"
        )
        names: dict[str, Any] = {"Description": Description}
        exec(compile(code.read_text(), str(code), "exec"), names)
        (row,) = load_audio_folder(
            "theatre",
            root,
            tmp_path / "cache",
            expected="recordings",
            describe=names["describe"],
            check=lambda _: [],
        )
        return str(row["emotion"])

    assert emotion("angry") == "angry"
    assert emotion("sad") == "sad"


def assert_audio(corpus: datasets.Dataset, seeds: Mapping[str, int], rate: int) -> None:
    rows = {row["utterance_id"].removeprefix("own/"): row for row in corpus}
    assert rows.keys() == seeds.keys()
    for name, row in rows.items():
        heard = read_audio(row["path"])
        np.testing.assert_array_equal(heard, resample(samples_of(seeds[name], rate), rate))
        assert len(heard) == round(row["duration_seconds"] * 16_000)


@given(names=TREES, rate=RATES, seeds=st.permutations(range(10)))
@settings(max_examples=10, deadline=None, phases=[Phase.generate])
def test_corpora_that_agree_in_names_sizes_and_times_share_nothing(
    names: list[str], rate: int, seeds: list[int]
) -> None:
    first = dict(zip(names, seeds[:5], strict=False))
    second = dict(zip(names, seeds[5:], strict=False))
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        roots = [
            write_tree(Path(folder, "old", "own"), first, rate),
            write_tree(Path(folder, "new", "own"), second, rate),
        ]
        with pytest.MonkeyPatch.context() as patched:
            # As if all of them had been unpacked within one tick of the clock.
            patched.setattr(FoundFile, "key", property(lambda file: str(file[:3])))
            for root, tree in zip(roots, (first, second), strict=True):
                assert_audio(load_corpus("folder:name=own", root, cache), tree, rate)
            link = Path(folder, "link")
            for root, tree in zip(roots, (first, second), strict=True):
                link.unlink(missing_ok=True)
                link.symlink_to(root)
                assert_audio(load_corpus("folder:name=own", link, cache), tree, rate)
        # Files that are replaced by others of the same size and time.
        write_tree(roots[0], second, rate)
        assert_audio(load_corpus("folder:name=own", roots[0], cache), second, rate)
        noise = {name: NoiseFolder(root, cache) for name, root in zip("ab", roots, strict=True)}
        for path in noise["a"].paths:
            np.testing.assert_array_equal(
                noise["a"].read(path, 0, 4_000), noise["b"].read(path, 0, 4_000)
            )


@given(
    speakers=st.lists(
        st.one_of(PARTS, PARTS.map("my_{}".format), PARTS.map("my_my_{}".format)),
        min_size=1,
        max_size=8,
    ),
)
@settings(max_examples=15, deadline=None)
def test_speakers_and_ids_of_a_table_stay_as_many_as_they_are(speakers: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder, "a.wav"), burst(1), 16_000)
        ids = [f"{'my/' * (n % 3)}{one}{n // 3}" for n, one in enumerate(speakers)]
        if len({*ids}) < len(speakers):
            return
        table = pd.DataFrame({"path": "a.wav", "speaker_id": speakers, "utterance_id": ids})
        table.to_csv(Path(folder, "metadata.csv"), index=False)
        corpus = load_corpus("folder:name=my", Path(folder), Path(folder, "cache"))
        assert len({*corpus["utterance_id"][:]}) == len(speakers)
        own = dict(zip(corpus["speaker_id"][:], speakers, strict=True))
        assert len(own) == len({*speakers})
        assert all(speaker.startswith("my_") for speaker in own)


def test_a_replaced_file_with_an_absolute_path_is_measured_again(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "a.wav"
    elsewhere.parent.mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "metadata.csv").write_text(f"path,speaker_id\n{elsewhere},a\n")
    for seconds in (0.5, 1.5):
        soundfile.write(elsewhere, burst(0, active_seconds=seconds), 16_000)
        row = load_corpus("folder", tmp_path / "own", tmp_path / "cache")[0]
        assert row["duration_seconds"] == 0.5 + seconds
        assert len(read_audio(row["path"])) == round((0.5 + seconds) * 16_000)


def test_a_table_in_parquet_is_read_where_a_link_leads_now(tmp_path: Path) -> None:
    link = tmp_path / "link"
    for speaker in "ab":
        root = tmp_path / speaker
        root.mkdir()
        soundfile.write(root / "1.wav", burst(1), 16_000)
        rows = [{"path": "1.wav", "speaker_id": speaker}]
        datasets.Dataset.from_list(rows).to_parquet(str(root / "metadata.parquet"))
        os.utime(root / "metadata.parquet", ns=(SAME_TIME_NS, SAME_TIME_NS))
        link.unlink(missing_ok=True)
        link.symlink_to(root)
        corpus = load_corpus("folder", link, tmp_path / "cache")
        assert corpus["speaker_id"][:] == [f"folder_{speaker}"]


@pytest.mark.parametrize("corpus", ["generated", "ravdess"])
def test_a_cache_that_cannot_be_written_is_named_with_the_variable_that_moves_it(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file where a home should be")
    monkeypatch.delenv("TSE_SER_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    with pytest.raises(CorpusError, match=r"home.*cannot be kept there.*set TSE_SER_CACHE"):
        load_corpus(corpus, tmp_path)
