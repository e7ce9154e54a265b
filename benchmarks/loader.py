"""How fast mixtures are made: rendering on access, beside bare decoding and stored mixtures.

    python benchmarks/loader.py [--corpus_dir DIR --targets ravdess --interferers ravdess emodb]

Without a corpus folder it runs on the generated corpus (16 kHz FLAC). Prints a Markdown table of
seconds of mixture a second, for one core and for two DataLoader workers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_builders import SAMPLING_RATE, MixtureDataset, load_mixtures

PARTS = ("mixture", "target", "enrollment")
WORKERS = (0, 2)


class Reader(Dataset[Any]):
    """Reads the files of each example in full, and does nothing with them.

    Args:
        files (`Sequence[Sequence[Path]]`): files by example.
    """

    def __init__(self, files: Sequence[Sequence[Path]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            str(number): soundfile.read(path, dtype="float32")[0]
            for number, path in enumerate(self.files[index])
        }


def source_files(mixtures: MixtureDataset, size: int) -> list[list[Path]]:
    """The recordings that each mixture and its enrollment are made of."""
    planner = mixtures.planner
    files = []
    for index in range(size):
        spec = mixtures.plan(index)
        named = [(planner.targets, spec.target_id), (planner.enrollments, spec.enrollment_id)]
        for interferer in spec.interferers:
            assert planner.interferers is not None
            named.append((planner.interferers, interferer.utterance_id))
        files.append([Path(table.paths[table.row_of_id[name]]) for table, name in named])
    return files


def store(mixtures: Dataset[Any], size: int, folder: Path, subtype: str) -> list[list[Path]]:
    """Writes mixture, target and enrollment of each example, as a corpus of mixtures would."""
    suffix = "wav" if subtype == "FLOAT" else "flac"
    folder.mkdir()
    files = []
    for index in range(size):
        example = mixtures[index]
        files.append([folder / f"{index:06d}_{part}.{suffix}" for part in PARTS])
        for part, path in zip(PARTS, files[-1], strict=True):
            soundfile.write(path, example[part], SAMPLING_RATE, subtype=subtype)
    return files


def seconds_to_load(datasets: Sequence[Dataset[Any]], repeats: int) -> list[list[float]]:
    """Time of an epoch of each dataset, by number of workers.

    The fastest of several, of workers that have started; all take turns, as machines have moods.
    """
    loaders = [
        DataLoader(
            dataset,
            batch_size=8,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            collate_fn=list,
        )
        for dataset in datasets
        for num_workers in WORKERS
    ]
    rounds = [
        [timed(partial(deque, loader, maxlen=0)) for loader in loaders] for _ in range(repeats + 1)
    ]
    fastest = [min(times) for times in zip(*rounds[1:], strict=True)]
    return [fastest[first : first + len(WORKERS)] for first in range(0, len(fastest), len(WORKERS))]


def read_all(dataset: Dataset[Any], size: int) -> None:
    """Makes every example once, in this process."""
    for index in range(size):
        dataset[index]


def timed(work: Callable[[], Any]) -> float:
    """Wall time of a call, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def megabytes(files: Sequence[Sequence[Path]]) -> float:
    """Size of files on disk, each counted once."""
    return sum(path.stat().st_size for path in {path for row in files for path in row}) / 1e6


def print_table(rows: Sequence[tuple[str, list[float], float]], duration: float) -> None:
    """Prints what was measured; the second row is the yardstick of the costs."""
    print("| | one core | two workers | cost, bare decoding = 1 | on disk |")
    print("|---|---:|---:|---:|---:|")
    yardstick = rows[0][1][0]
    for name, times, size in rows:
        speeds = " | ".join(f"{duration / value:.0f} s/s" if value else "" for value in times)
        print(f"| {name} | {speeds} | {times[0] / yardstick:.2f} | {size:.1f} MB |")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus_dir", help="folder that holds a folder <name> for each corpus")
    parser.add_argument("--targets", nargs="+", default=["generated"])
    parser.add_argument("--interferers", nargs="+", default=["generated_pool"])
    parser.add_argument("--segment_seconds", type=float, help="crop longer targets")
    parser.add_argument("--num_speakers", type=int, default=2)
    parser.add_argument("--num_mixtures", type=int, default=400)
    parser.add_argument(
        "--repeats", type=int, default=3, help="epochs, of which the fastest counts"
    )
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    arguments = parse_arguments()
    keywords = {
        "targets": arguments.targets,
        "interferers": arguments.interferers,
        "corpus_dir": arguments.corpus_dir,
        "segment_seconds": arguments.segment_seconds,
        "num_speakers": arguments.num_speakers,
        "max_examples": arguments.num_mixtures,
    }
    mixtures = load_mixtures(split="train", **keywords)
    size = len(mixtures)
    duration = sum(mixtures.plan(index).num_samples for index in range(size)) / SAMPLING_RATE
    sources = source_files(mixtures, size)
    read_all(Reader(sources), size)  # from here on, files come from memory
    first_epoch = min(
        timed(partial(read_all, load_mixtures(split="train", **keywords), size))
        for _ in range(arguments.repeats)
    )
    with tempfile.TemporaryDirectory() as folder:
        wav = store(mixtures, size, Path(folder, "wav"), "FLOAT")
        flac = store(mixtures, size, Path(folder, "flac"), "PCM_24")
        datasets: list[tuple[str, Dataset[Any], float]] = [
            ("bare decoding of the sources", Reader(sources), megabytes(sources)),
            ("rendered on access", mixtures, megabytes(sources)),
            ("stored mixtures, 32-bit float WAV", Reader(wav), megabytes(wav)),
            ("stored mixtures, 24-bit FLAC", Reader(flac), megabytes(flac)),
        ]
        times = seconds_to_load([dataset for _, dataset, _ in datasets], arguments.repeats)
    rows = [(name, row, disk) for (name, _, disk), row in zip(datasets, times, strict=True)]
    rows.insert(2, ("the same, first epoch", [first_epoch, 0.0], rows[1][2]))
    print(f"{size} mixtures of {duration / size:.1f} s, {arguments.num_speakers} speakers\n")
    print_table(rows, duration)


if __name__ == "__main__":
    main()
