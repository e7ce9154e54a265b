"""LibriMix is rendered sample for sample as the public scripts write it, from the same metadata."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
from librimix_layout import RATE, read_table, write_librimix, write_table
from mixture_bytes import digest
from torch.utils.data import DataLoader

from data_builders.librimix.extraction import LibriMixExtractionDataset, LibriMixSpec
from data_builders.librimix.mixtures import LibriMixDataset
from data_builders.mixtures.loudness import loudness_lufs
from data_builders.schema import IGNORED_LABEL, CorpusError


@pytest.fixture(scope="module")
def libri2mix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_librimix(tmp_path_factory.mktemp("libri2mix"))


@pytest.fixture(scope="module")
def libri3mix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_librimix(tmp_path_factory.mktemp("libri3mix"), num_sources=3)


def load(metadata: Path, **keywords: Any) -> LibriMixDataset:
    root = metadata.parent
    settings: dict[str, Any] = {
        "librispeech_dir": root / "LibriSpeech",
        "noise_dir": root / "wham_noise",
        **keywords,
    }
    return LibriMixDataset(metadata, **settings)


def sources_of(metadata: Path, index: int) -> list[np.ndarray]:
    row = read_table(metadata)[index]
    return [
        soundfile.read(metadata.parent / "LibriSpeech" / row[f"{name}_path"], dtype="float32")[0]
        * np.float32(row[f"{name}_gain"])
        for name in (key[: -len("_path")] for key in row if key.endswith("_path"))
        if name != "noise"
    ]


# The reference vectors.


def to_pcm16(samples: np.ndarray) -> np.ndarray:
    """Quantises as the public scripts do, by libsndfile: to 32 bits, whose upper 16 are kept."""
    as_32_bit = np.rint(np.asarray(samples, dtype=np.float64) * 2.0**31)
    return np.clip(np.floor(as_32_bit / 2.0**16), -(2**15), 2**15 - 1).astype(np.int16)


@pytest.mark.parametrize(
    ("num_sources", "sampling_rate", "mode"),
    [(2, 16_000, "min"), (2, 16_000, "max"), (2, 8_000, "min"), (3, 16_000, "min")],
)
def test_every_file_of_the_public_scripts_is_reproduced(
    num_sources: int, sampling_rate: int, mode: str, vectors_dir: Path
) -> None:
    root = vectors_dir / "librimix"
    kind = f"Libri{num_sources}Mix/wav{sampling_rate // 1000}k/{mode}/"
    with (root / "pcm_sha256.csv").open() as file:
        expected = {
            row["path"]: row["sha256_of_int16le_samples"]
            for row in csv.DictReader(file)
            if row["path"].startswith(kind)
        }
    assert expected
    found = {}
    for subset, folder in (("test-clean", "test"), ("train-clean-100", "train-100")):
        name = f"Libri{num_sources}Mix/libri{num_sources}mix_{subset}.csv"
        for mixture_type in ("mix_clean", "mix_both"):
            mixtures = load(
                root / "metadata" / name,
                librispeech_dir=root / "LibriSpeech",
                noise_dir=root / "wham_noise",
                sampling_rate=sampling_rate,
                mode=mode,
                mixture_type=mixture_type,
            )
            for example in map(mixtures.__getitem__, range(len(mixtures))):
                waveforms = {mixture_type: example["mixture"], "noise": example["noise"]}
                for number, source in enumerate(example["sources"], start=1):
                    waveforms[f"s{number}"] = source
                for part, samples in waveforms.items():
                    assert samples.dtype == np.float32
                    pcm = to_pcm16(samples).astype("<i2")
                    path = f"{kind}{folder}/{part}/{example['mixture_id']}.wav"
                    found[path] = hashlib.sha256(pcm.tobytes()).hexdigest()
    assert found == expected


def test_loudness_is_that_of_pyloudnorm(vectors_dir: Path) -> None:
    root = vectors_dir / "librimix"
    rows = read_table(root / "loudness.csv")
    column = next(name for name in rows[0] if name.startswith("lufs"))
    for row in rows[::4]:
        samples, _ = soundfile.read(root / row["path"], dtype="float32", always_2d=True)
        assert loudness_lufs(samples[:, 0]) == pytest.approx(float(row[column]), abs=1e-5)
    assert loudness_lufs(np.zeros(100)) == -np.inf


# The rules, on generated audio.


def test_min_cuts_to_the_shortest_source_and_max_pads_to_the_longest(libri3mix: Path) -> None:
    shortest, longest = load(libri3mix), load(libri3mix, mode="max")
    for index in range(3):
        sources = sources_of(libri3mix, index)
        cut, padded = shortest[index], longest[index]
        lengths = [len(source) for source in sources]
        assert cut["sources"].shape == (3, min(lengths))
        assert padded["sources"].shape == (3, max(lengths))
        for source, one, other in zip(sources, cut["sources"], padded["sources"], strict=True):
            np.testing.assert_array_equal(one, source[: min(lengths)])
            np.testing.assert_array_equal(other[: len(source)], source)
            assert not other[len(source) :].any()
        assert cut["mixture"].shape == cut["noise"].shape == (min(lengths),)
        assert padded["mixture"].shape == padded["noise"].shape == (max(lengths),)


def test_a_mixture_is_the_sum_of_its_parts(libri3mix: Path) -> None:
    clean, both, single = (
        load(libri3mix, mixture_type=kind)[1] for kind in ("mix_clean", "mix_both", "mix_single")
    )
    assert clean["noise"].any()
    np.testing.assert_array_equal(clean["mixture"], clean["sources"].sum(axis=0))
    np.testing.assert_array_equal(both["mixture"], clean["mixture"] + clean["noise"])
    np.testing.assert_array_equal(single["mixture"], clean["sources"][0] + clean["noise"])


def test_no_noise_is_needed_without_noise_in_the_mixture(libri2mix: Path) -> None:
    example = load(libri2mix, noise_dir=None)[0]
    np.testing.assert_array_equal(example["mixture"], load(libri2mix)[0]["mixture"])
    assert not example["noise"].any()


def test_resampling_comes_before_cutting(libri2mix: Path) -> None:
    example = load(libri2mix, sampling_rate=8_000)[0]
    sources = [scipy.signal.resample_poly(one, 1, 2) for one in sources_of(libri2mix, 0)]
    length = min(len(source) for source in sources)
    np.testing.assert_array_equal(example["sources"], [source[:length] for source in sources])


def test_a_short_noise_goes_on_with_itself_without_a_step(tmp_path: Path) -> None:
    metadata = write_librimix(tmp_path, noise_seconds=1.1)
    time = np.arange(round(1.1 * RATE)) / RATE
    # Whole periods, so that the cross-fade of the sine with itself stays a sine nearly.
    sine = 0.5 * np.sin(2 * np.pi * 20 * time)
    soundfile.write(tmp_path / "wham_noise/tt/a.wav", np.stack([sine, 0 * sine], 1), RATE, "FLOAT")
    row = read_table(metadata)[0]
    noise = load(metadata, mode="max")[0]["noise"] / float(row["noise_gain"])
    assert len(noise) > len(sine)
    plain = len(sine) - RATE // 2 - 1
    np.testing.assert_allclose(noise[:plain], sine[:plain], atol=1e-6)
    assert np.abs(np.diff(noise)).max() < 1.6 * np.abs(np.diff(sine)).max()
    assert np.abs(noise[plain:]).max() > 0.3


# Extraction: targets and enrollments.


def test_every_source_is_a_target_once(libri3mix: Path) -> None:
    mixtures = load(libri3mix, mixture_type="mix_both")
    examples = LibriMixExtractionDataset(mixtures, train=False)
    assert len(examples) == 3 * len(mixtures)
    for index in (0, 4, 26):
        example, mixture = examples[index], mixtures[index // 3]
        np.testing.assert_array_equal(example["mixture"], mixture["mixture"])
        np.testing.assert_array_equal(example["target"], mixture["sources"][index % 3])
        names = mixture["mixture_id"].split("_")
        assert example["utterance_id"] == f"librispeech/{names.pop(index % 3)}"
        assert example["interferer_id"] == "+".join(f"librispeech/{name}" for name in names)
        assert example["label"] == IGNORED_LABEL
        others = np.delete(mixture["sources"], index % 3, axis=0).sum(axis=0)
        ratio = np.mean(example["target"] ** 2) / np.mean(others**2)
        assert example["snr_db"] == pytest.approx(10 * np.log10(ratio), abs=1e-3)
        assert np.isfinite(example["noise_snr_db"])
    with pytest.raises(IndexError):
        examples[len(examples)]


def test_a_single_speaker_in_noise_is_the_first(libri2mix: Path) -> None:
    mixtures = load(libri2mix, mixture_type="mix_single")
    examples = LibriMixExtractionDataset(mixtures, train=False)
    assert len(examples) == len(mixtures)
    np.testing.assert_array_equal(examples[2]["target"], mixtures[2]["sources"][0])
    assert examples[2]["interferer_id"] == examples[2]["gender_state"] == ""
    assert np.isnan(examples[2]["snr_db"])
    assert np.isfinite(examples[2]["noise_snr_db"])


@pytest.mark.parametrize("train", [True, False])
def test_the_enrollment_is_another_recording_of_the_target_speaker(
    libri2mix: Path, train: bool
) -> None:
    mixtures = load(libri2mix)
    examples = LibriMixExtractionDataset(mixtures, train=train)
    enrolled = set()
    for epoch in range(4):
        examples.set_epoch(epoch)
        for index, example in enumerate(examples[place] for place in range(len(examples))):
            path = Path(example["spec"]["enrollment_path"])
            assert f"librispeech_{path.stem.split('-')[0]}" == example["speaker_id"]
            assert path.stem not in example["utterance_id"] + example["interferer_id"]
            recorded, _ = soundfile.read(mixtures.librispeech_dir / path, dtype="float32")
            np.testing.assert_array_equal(example["enrollment"], recorded)
            enrolled.add((index, path.stem))
    # Anew in every epoch of training, fixed otherwise.
    assert (len(enrolled) > len(examples)) == train


def test_fixed_enrollments_do_not_depend_on_what_else_is_in_the_metadata(
    libri2mix: Path, tmp_path: Path
) -> None:
    everything = LibriMixExtractionDataset(load(libri2mix), train=False)
    part = tmp_path / "part.csv"
    write_table(part, read_table(libri2mix)[::-2])
    root = libri2mix.parent
    some = LibriMixExtractionDataset(LibriMixDataset(part, root / "LibriSpeech"), train=False)

    def enrollments(examples: LibriMixExtractionDataset) -> dict[tuple[str, int], str]:
        specs = [examples.plan(index) for index in range(len(examples))]
        return {(spec.mixture_id, spec.source): spec.enrollment_path for spec in specs}

    assert enrollments(some).items() < enrollments(everything).items()
    reseeded = LibriMixExtractionDataset(load(libri2mix), train=False, seed=1)
    assert enrollments(reseeded) != enrollments(everything)


def test_a_published_list_of_enrollments_is_followed(libri2mix: Path, tmp_path: Path) -> None:
    drawn = LibriMixExtractionDataset(load(libri2mix), train=False, seed=5)
    specs = [drawn.plan(index) for index in range(len(drawn))]
    rows = [
        {
            "mixture_ID": spec.mixture_id,
            "source": str(spec.source),
            "enrollment_path": spec.enrollment_path,
        }
        for spec in specs
    ]
    table = tmp_path / "enrollments.csv"

    def follow() -> LibriMixExtractionDataset:
        write_table(table, rows)
        return LibriMixExtractionDataset(load(libri2mix), train=False, enrollment_csv=table)

    followed = follow()
    found = [followed.plan(index).enrollment_path for index in range(len(followed))]
    assert found == [spec.enrollment_path for spec in specs]
    rows[3]["enrollment_path"] = rows[4]["enrollment_path"]
    with pytest.raises(CorpusError, match="not another utterance of its speaker"):
        follow()
    rows[3]["enrollment_path"] = specs[3].enrollment_path.replace("-000", "-900")
    with pytest.raises(CorpusError, match="extract the whole subset"):
        follow()
    del rows[3]
    with pytest.raises(CorpusError, match=r"source 2 of .* is not in it"):
        follow()
    rows[0].clear()
    table.write_text("mixture,enrollment\n")
    with pytest.raises(CorpusError, match="expected the columns mixture_ID, source"):
        LibriMixExtractionDataset(load(libri2mix), train=False, enrollment_csv=table)


def test_crops_are_parts_of_the_whole(libri2mix: Path) -> None:
    whole = LibriMixExtractionDataset(load(libri2mix), train=True)
    crops = LibriMixExtractionDataset(
        load(libri2mix), train=True, segment_seconds=0.5, enrollment_seconds=0.25
    )
    starts = set()
    for index in range(len(crops)):
        one, other = whole[index], crops[index]
        assert len(other["mixture"]) == len(other["target"]) == RATE // 2
        assert len(other["enrollment"]) == RATE // 4
        start = int(np.flatnonzero(one["mixture"] == other["mixture"][0])[0])
        part = slice(start, start + RATE // 2)
        np.testing.assert_array_equal(other["mixture"], one["mixture"][part])
        np.testing.assert_array_equal(other["target"], one["target"][part])
        assert one["snr_db"] == other["snr_db"]
        starts.add(start)
    assert len(starts) > 10


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_bytes_do_not_depend_on_the_number_of_workers(libri2mix: Path, train: bool) -> None:
    found = []
    for num_workers in (0, 4):
        examples = LibriMixExtractionDataset(
            load(libri2mix, mixture_type="mix_both"), train=train, segment_seconds=0.5
        )
        examples.set_epoch(2)
        loader = DataLoader(examples, batch_size=3, num_workers=num_workers, collate_fn=list)
        found.append([digest(example) for batch in loader for example in batch])
    assert found[0] == found[1]
    assert len(set(found[0])) == 18


def test_a_recorded_plan_can_be_rendered_again(libri2mix: Path) -> None:
    examples = LibriMixExtractionDataset(load(libri2mix), train=True, segment_seconds=0.5)
    examples.set_epoch(4)
    example = examples[7]
    examples.set_epoch(0)
    assert digest(examples.render(LibriMixSpec(**example["spec"]))) == digest(example)
    assert digest(examples[7]) != digest(example)


def test_gender_states_come_from_the_table_beside_the_metadata(
    libri2mix: Path, libri3mix: Path, tmp_path: Path
) -> None:
    def states(metadata: Path) -> set[str]:
        examples = LibriMixExtractionDataset(load(metadata), train=False)
        return {examples[index]["gender_state"] for index in range(len(examples))}

    assert states(libri2mix) == {"same", "different"}
    assert states(libri3mix) == {"mixed", "different"}
    lonely = tmp_path / "lonely.csv"
    lonely.write_bytes(libri2mix.read_bytes())
    root = libri2mix.parent
    mixtures = LibriMixDataset(lonely, root / "LibriSpeech")
    assert LibriMixExtractionDataset(mixtures, train=False)[0]["gender_state"] == ""


# Bad input.


def test_arguments_out_of_their_range_are_explained(libri2mix: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sampling_rate": 44_100}, "sampling_rate: expected 8000 or 16000 Hz, got 44100"),
        ({"mode": "mean"}, "mode: expected one of min, max, got 'mean'"),
        ({"mixture_type": "mix_noisy"}, "mixture_type: expected one of mix_clean, mix_single"),
        ({"mixture_type": "mix_both", "noise_dir": None}, "type 'mix_both' needs the folder"),
        ({"mixture_type": "mix_single", "noise_dir": None}, "type 'mix_single' needs the folder"),
    ]
    for changes, message in wrong:
        with pytest.raises(ValueError, match=message):
            load(libri2mix, **changes)
    for name in ("segment_seconds", "enrollment_seconds"):
        limits: dict[str, Any] = {name: 0.0}
        with pytest.raises(ValueError, match=f"{name}: expected a positive number"):
            LibriMixExtractionDataset(load(libri2mix), train=True, **limits)


def test_a_partial_librispeech_is_named_before_anything_is_rendered(tmp_path: Path) -> None:
    metadata = write_librimix(tmp_path)
    paths = sorted((tmp_path / "LibriSpeech").rglob("*.flac"))
    paths[0].unlink()
    with pytest.raises(CorpusError, match=rf"lacks 1 of the 9 files .*{paths[0].name}.*extract"):
        load(metadata)
    (tmp_path / "wham_noise/tt/a.wav").unlink()
    write_librimix(tmp_path)
    (tmp_path / "wham_noise/tt/a.wav").unlink()
    with pytest.raises(CorpusError, match=r"lacks 1 of the 1 files .*tt/a.wav.*WHAM"):
        load(metadata)
    assert len(load(metadata, noise_dir=None)) == 9


def test_a_speaker_without_another_recording_is_named(tmp_path: Path) -> None:
    metadata = write_librimix(tmp_path)
    kept = read_table(metadata)[:1]
    write_table(metadata, kept)
    for path in (tmp_path / "LibriSpeech/test-clean/61").rglob("*.flac"):
        if path.as_posix().endswith(kept[0]["source_1_path"]) is False:
            path.unlink()
    with pytest.raises(CorpusError, match=r"1 of the target speakers .*test-clean/61"):
        LibriMixExtractionDataset(load(metadata), train=False)


def test_unusable_audio_is_named(tmp_path: Path) -> None:
    metadata = write_librimix(tmp_path)
    first, second = (
        read_table(metadata)[0]["source_1_path"],
        read_table(metadata)[1]["source_1_path"],
    )
    (tmp_path / "LibriSpeech" / first).write_bytes(b"no audio")
    soundfile.write(tmp_path / "LibriSpeech" / second, np.zeros(8_000), 8_000)
    mixtures = load(metadata)
    with pytest.raises(CorpusError, match=f"{first}: cannot be read"):
        mixtures[0]
    with pytest.raises(CorpusError, match=f"{second}: expected a recording of 16000 Hz"):
        mixtures[1]
    short = write_librimix(tmp_path / "short", noise_seconds=0.5)
    with pytest.raises(CorpusError, match=r"a.wav: 0.50 s are too short for noise"):
        load(short, mixture_type="mix_both")[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_2_gain": "loud"}, "row 2: source_2_gain is 'loud', expected a positive number"),
        ({"source_1_gain": "nan"}, "row 2: source_1_gain is 'nan'"),
        ({"noise_gain": "-1"}, "row 2: noise_gain is '-1'"),
        ({"source_1_path": ""}, "row 2: source_1_path is '', expected a path within"),
        ({"noise_path": "../a.wav"}, "row 2: noise_path is '../a.wav'"),
        ({"mixture_ID": ""}, "row 2: mixture_ID '' is empty or repeats"),
    ],
)
def test_a_damaged_row_is_named(change: dict[str, str], message: str, tmp_path: Path) -> None:
    metadata = write_librimix(tmp_path)
    rows = read_table(metadata)
    rows[1].update(change)
    write_table(metadata, rows)
    with pytest.raises(CorpusError, match=message):
        load(metadata)


def test_another_table_is_not_taken_for_metadata(tmp_path: Path) -> None:
    metadata = write_librimix(tmp_path)
    with pytest.raises(CorpusError, match=r"is no LibriMix metadata file.*_info.csv"):
        load(tmp_path / f"{metadata.stem}_info.csv")
    with pytest.raises(CorpusError, match="cannot be read as a table"):
        load(tmp_path / "absent.csv")
    lines = metadata.read_text().splitlines()
    metadata.write_text("\n".join([*lines[:3], lines[3][:40]]))
    with pytest.raises(CorpusError, match="row 3: 2 values for 7 columns"):
        load(metadata)
    metadata.write_text(lines[0])
    with pytest.raises(CorpusError, match="holds no mixtures"):
        load(metadata)
    info = tmp_path / f"{metadata.stem}_info.csv"
    metadata.write_text("\n".join(lines))
    info.write_text(info.read_text().replace(",F", ",X"))
    with pytest.raises(CorpusError, match="sex is 'X', expected F or M"):
        LibriMixExtractionDataset(load(metadata), train=False)
