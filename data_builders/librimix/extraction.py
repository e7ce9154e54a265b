"""Target speaker extraction on LibriMix: each speaker of each mixture in turn is the target.

Enrollment follows the public Libri2Mix recipes (ESPnet's tse1 among them): another utterance of the
target speaker out of the same LibriSpeech subset, as it was recorded; drawn anew for training, one
fixed utterance for each target of the development and test sets. Published lists of such fixed
utterances can be given as a table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_builders.files import read_csv
from data_builders.librimix.metadata import read_librimix_genders
from data_builders.librimix.mixtures import LibriMixDataset, read_librispeech
from data_builders.mixtures.dataset import EpochDataset
from data_builders.mixtures.mixing import mean_power
from data_builders.mixtures.rendering import gender_state
from data_builders.schema import IGNORED_LABEL, CorpusError, some_of

ENROLLMENT_COLUMNS = ("mixture_ID", "source", "enrollment_path")


@dataclass(frozen=True)
class LibriMixSpec:
    """One example: a target of a mixture, its enrollment, and where both are cropped.

    Crops are shares of the spare length, as lengths are not known before the audio is read.
    """

    mixture_id: str  # of the metadata
    source: int  # number of the target among the sources, from 1
    enrollment_path: str  # recording within LibriSpeech
    segment_seconds: float | None  # longer mixtures are cropped to this
    segment_position: float  # where, from 0 (at the beginning) to 1 (at the end)
    enrollment_seconds: float | None  # longer enrollments are cropped to this
    enrollment_position: float  # where, from 0 to 1
    epoch: int  # that it was drawn for
    index: int  # of the example


class LibriMixExtractionDataset(EpochDataset):
    """Examples as `MixtureDataset` gives them: `TseSerCollator` makes batches of both.

    Index i is source i % n of mixture i // n, where n is the number of sources, or 1 for
    "mix_single", whose only speaker is the first.

    Args:
        mixtures (`LibriMixDataset`): the mixtures.
        train (`bool`): enrollments and crops are new in every epoch, drawn from (seed, epoch,
            index); otherwise fixed, drawn from the seed and the mixture's id, whatever else is in
            the metadata.
        seed (`int`): seed of enrollments and crops.
        segment_seconds (`float`, *optional*): longer mixtures are cropped to this.
        enrollment_seconds (`float`, *optional*): longer enrollments are cropped to this.
        enrollment_csv (`str` or `Path`, *optional*): table of fixed enrollments with the columns
            mixture_ID, source (from 1) and enrollment_path (within LibriSpeech); nothing is drawn.

    Raises:
        CorpusError: a speaker has no other utterance, or the table of enrollments lacks a target.
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        mixtures: LibriMixDataset,
        *,
        train: bool,
        seed: int = 0,
        segment_seconds: float | None = None,
        enrollment_seconds: float | None = None,
        enrollment_csv: str | Path | None = None,
    ) -> None:
        for name, seconds in (
            ("segment_seconds", segment_seconds),
            ("enrollment_seconds", enrollment_seconds),
        ):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name}: expected a positive number or none, got {seconds}")
        super().__init__(train)
        self.mixtures = mixtures
        self.seed = seed
        self.segment_seconds = segment_seconds
        self.enrollment_seconds = enrollment_seconds
        self._genders = read_librimix_genders(mixtures.metadata_csv)
        self.targets_per_mixture = (
            1 if mixtures.mixture_type == "mix_single" else mixtures.num_sources
        )
        self._row_of_id = {row.mixture_id: place for place, row in enumerate(mixtures.rows)}
        self._fixed: dict[tuple[str, str], str] = {}
        self._pool: dict[str, list[str]] = {}
        if enrollment_csv is None:
            self._pool = self._find_enrollments()
        else:
            self._fixed = self._read_enrollments(Path(enrollment_csv))

    def __len__(self) -> int:
        return len(self.mixtures) * self.targets_per_mixture

    def plan(self, index: int) -> LibriMixSpec:
        """Draws enrollment and crops of an example in the current epoch."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {len(self)} examples")
        place, source = divmod(index, self.targets_per_mixture)
        row = self.mixtures.rows[place]
        if self.train:
            rng = np.random.default_rng([self.seed, self.epoch, index])
        else:
            digest = hashlib.sha256(f"{row.mixture_id}/s{source + 1}".encode()).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])
        enrollment = self._fixed.get((row.mixture_id, str(source + 1)))
        if enrollment is None:
            target = row.sources[source].path
            others = [path for path in self._pool[_speaker_folder(target)] if path != target]
            enrollment = others[int(rng.integers(len(others)))]
        return LibriMixSpec(
            mixture_id=row.mixture_id,
            source=source + 1,
            enrollment_path=enrollment,
            segment_seconds=self.segment_seconds,
            segment_position=float(rng.random()),
            enrollment_seconds=self.enrollment_seconds,
            enrollment_position=float(rng.random()),
            epoch=self.epoch,
            index=index,
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.render(self.plan(index))

    def render(self, spec: LibriMixSpec) -> dict[str, Any]:
        """Renders a plan.

        Args:
            spec (`LibriMixSpec`): plan over the mixtures of this dataset.

        Returns:
            `dict[str, Any]`: the fields of `MixtureDataset.render`; float32 waveforms at
            "sampling_rate", that of the mixtures; "label" always -100, levels those of the
            uncropped mixture.

        Raises:
            CorpusError: a file cannot be read.
        """
        rate = self.mixtures.sampling_rate
        place = self._row_of_id[spec.mixture_id]
        rendered = self.mixtures[place]
        sources, noise = rendered["sources"], rendered["noise"]
        crop = _crop(len(rendered["mixture"]), spec.segment_seconds, spec.segment_position, rate)
        enrollment = read_librispeech(self.mixtures.librispeech_dir / spec.enrollment_path, rate)
        paths = [source.path for source in self.mixtures.rows[place].sources]
        target_path = paths.pop(spec.source - 1)
        single = self.mixtures.mixture_type == "mix_single"
        gender, *genders = [self._genders.get(_speaker(path), "") for path in (target_path, *paths)]
        others = [] if single else np.delete(sources, spec.source - 1, axis=0)
        target = sources[spec.source - 1]
        heard_noise = noise if self.mixtures.mixture_type != "mix_clean" else noise[:0]
        return {
            "mixture": rendered["mixture"][crop].copy(),
            "enrollment": enrollment[
                _crop(len(enrollment), spec.enrollment_seconds, spec.enrollment_position, rate)
            ].copy(),
            "target": target[crop].copy(),
            "sampling_rate": rate,
            "label": IGNORED_LABEL,
            "utterance_id": _utterance_id(target_path),
            "speaker_id": f"librispeech_{_speaker(target_path)}",
            "interferer_id": "" if single else "+".join(_utterance_id(path) for path in paths),
            "interferer_corpus": "" if single else "librispeech",
            "gender_state": "" if single else gender_state(gender, genders),
            "snr_db": _ratio_db(target, np.sum(others, axis=0) if len(others) else noise[:0]),
            "noise_snr_db": _ratio_db(target, heard_noise),
            "target_absent": False,
            "spec": asdict(spec),
        }

    def _find_enrollments(self) -> dict[str, list[str]]:
        """Every recording of each speaker's folder, the public rule, as paths in LibriSpeech."""
        root = self.mixtures.librispeech_dir
        folders = {
            _speaker_folder(source.path)
            for row in self.mixtures.rows
            for source in row.sources[: self.targets_per_mixture]
        }
        pool = {
            folder: sorted(
                path.relative_to(root).as_posix()
                for path in (root / folder).rglob("*.flac")
                if not path.name.startswith(".")
            )
            for folder in sorted(folders)
        }
        alone = [folder for folder, paths in pool.items() if len(paths) < 2]
        if alone:
            raise CorpusError(
                f"{root}: {len(alone)} of the target speakers have no other utterance to enroll "
                f"with: {some_of(alone)}; extract the whole subset"
            )
        return pool

    def _read_enrollments(self, path: Path) -> dict[tuple[str, str], str]:
        columns, records = read_csv(path)
        if not {*ENROLLMENT_COLUMNS} <= {*columns}:
            raise CorpusError(
                f"{path}: expected the columns {', '.join(ENROLLMENT_COLUMNS)}, found "
                f"{', '.join(columns)}"
            )
        fixed = {(row["mixture_ID"], row["source"]): row["enrollment_path"] for row in records}
        self._check_enrollments(path, fixed)
        return fixed

    def _check_enrollments(self, path: Path, fixed: Mapping[tuple[str, str], str]) -> None:
        for row in self.mixtures.rows:
            for number, source in enumerate(row.sources[: self.targets_per_mixture], start=1):
                enrollment = fixed.get((row.mixture_id, str(number)))
                if enrollment is None:
                    raise CorpusError(f"{path}: source {number} of {row.mixture_id} is not in it")
                if enrollment == source.path or _speaker(enrollment) != _speaker(source.path):
                    raise CorpusError(
                        f"{path}: {enrollment} for source {number} of {row.mixture_id} is not "
                        f"another utterance of its speaker, {_speaker(source.path)}"
                    )
                if not (self.mixtures.librispeech_dir / enrollment).is_file():
                    raise CorpusError(
                        f"{path}: {enrollment} is not in {self.mixtures.librispeech_dir}; "
                        f"extract the whole subset"
                    )


def _speaker_folder(path: str) -> str:
    """`test-clean/61` of `test-clean/61/70968/61-70968-0000.flac`."""
    return PurePosixPath(path).parent.parent.as_posix()


def _speaker(path: str) -> str:
    return PurePosixPath(path).parent.parent.name


def _utterance_id(path: str) -> str:
    return f"librispeech/{PurePosixPath(path).stem}"


def _crop(length: int, seconds: float | None, position: float, rate: int) -> slice:
    limit = length if seconds is None else min(length, round(seconds * rate))
    start = int(position * (length - limit + 1))
    return slice(start, start + limit)


def _ratio_db(target: np.ndarray, other: np.ndarray) -> float:
    """Power of the target over that of something else, in dB; nan where there is nothing else."""
    power, disturbance = mean_power(target), mean_power(other)
    if disturbance == 0.0 or power == 0.0:
        return float("nan")
    return float(10 * np.log10(power / disturbance))
