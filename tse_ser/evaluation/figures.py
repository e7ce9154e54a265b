"""Draws a study: confusion matrices, curves of accuracy and learning, a mixture and its speech.

    python -m tse_ser.evaluation.figures --results results/ravdess --output docs/figures \\
        --corpus_dir DIR
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from tse_ser.evaluation.bootstrap import Cells
from tse_ser.evaluation.cells import load_cells
from tse_ser.evaluation.curves import si_sdri_curves, snr_curves
from tse_ser.evaluation.extraction_example import Places, extract_examples, joint_cell
from tse_ser.evaluation.plots import (
    plot_accuracy_curves,
    plot_confusion,
    plot_example,
    plot_learning_curves,
)


def write_figures(
    results_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str] | None = None,
    *,
    corpus_dir: str | None = None,
    corpus_dirs: list[str] | None = None,
    cache_dir: str | None = None,
    example_index: int = 0,
) -> list[Path]:
    """Draws all figures of a study.

    Args:
        results_dir (path): folder of the study, with `cells/` and `steps/`.
        output_dir (path, optional): default: `figures` in the folder.
        corpus_dir, corpus_dirs, cache_dir: where the corpora of the example lie, see `Places`.
        example_index (`int`): test utterance of the example.

    Returns:
        The PNG files: `confusion_<cell>.png` (folds and seeds summed up), `ua_against_snr.png` and
        `ua_against_si_sdri.png` where cells have what they show, `learning_curves_<step>.png`, and
        `example.png` where a joint model was scored and is there.
    """
    results_dir = Path(results_dir)
    folder = Path(output_dir) if output_dir is not None else results_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    cells = load_cells(results_dir)
    figures = study_figures(results_dir, cells)
    joint = joint_cell(results_dir, cells)
    if joint is not None:
        places = Places(corpus_dir, corpus_dirs, cache_dir)
        (example,) = extract_examples(results_dir, joint, [example_index], places)
        figures["example"] = plot_example(example)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
        plt.close(figure)
    return [folder / f"{name}.png" for name in figures]


def study_figures(
    results_dir: Path, cells: Cells, *, with_confusions: bool = True
) -> dict[str, Figure]:
    """Every figure of a study but the example.

    Args:
        results_dir (`Path`): folder of the study, whose `steps/` hold the learning curves.
        cells (sequence of mappings): its cells.
        with_confusions (`bool`): whether the confusion matrices are drawn.

    Returns:
        `dict[str, Figure]`: by file name without suffix.
    """
    confusions = grouped_confusions(cells) if with_confusions else {}
    figures = {f"confusion_{name}": plot_confusion(**group) for name, group in confusions.items()}
    mark = optimistic_mark(cells)
    for name, curves, x_label, title in (
        ("ua_against_snr", snr_curves(cells), "Input SNR (dB)", "UA against input SNR"),
        (
            "ua_against_si_sdri",
            si_sdri_curves(cells),
            "SI-SDRi of the utterance (dB)",
            "UA against what extraction gained",
        ),
    ):
        if curves:
            figures[name] = plot_accuracy_curves(curves, x_label, title + mark)
    for step, histories in step_histories(results_dir).items():
        figures[f"learning_curves_{step}"] = plot_learning_curves(histories, title=step)
    return figures


def optimistic_mark(cells: Cells) -> str:
    """What titles say where epochs were chosen on the test session."""
    return " (optimistic)" if any(cell.get("optimistic") for cell in cells) else ""


def grouped_confusions(cells: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Confusion matrices by cell name, those of folds and seeds summed up.

    Args:
        cells (iterable of mappings): of one study.

    Returns:
        The arguments of `plot_confusion` by name.
    """
    groups: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell["confusion"] is not None:
            sets = [str(cell[key]) for key in ("train_set", "test_set") if cell.get(key)]
            title = ": ".join([cell["model"], " → ".join(sets)]) if sets else cell["model"]
            empty = np.zeros_like(cell["confusion"])
            title += optimistic_mark([cell])
            group = {"confusion": empty, "classes": cell["classes"], "title": title}
            groups.setdefault(cell["name"], group)["confusion"] += np.asarray(cell["confusion"])
    return groups


def step_histories(results_dir: Path) -> dict[str, list[list[dict[str, float]]]]:
    """What trainings logged.

    Args:
        results_dir (`Path`): folder of the study.

    Returns:
        `log_history` of each training, by step name; a step has one a fold and seed.
    """
    histories: dict[str, list[list[dict[str, float]]]] = {}
    for folder in sorted(results_dir.glob("steps/*/*/")):
        states = [
            *folder.glob("trainer_state.json"),
            *folder.glob("checkpoint-*/trainer_state.json"),
        ]
        logs = [json.loads(path.read_text(encoding="utf-8"))["log_history"] for path in states]
        if logs:
            # Every state holds the history up to it: the longest is the newest.
            histories.setdefault(folder.name, []).append(max(logs, key=len))
    return histories


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures that the command line asks for and prints their names."""
    parser = argparse.ArgumentParser(description="Draw the figures of a study.")
    parser.add_argument("--results", required=True, help="folder of the study")
    parser.add_argument("--output", help="folder of the figures; default: figures in that folder")
    add_places(parser)
    parser.add_argument("--example_index", type=int, default=0, help="test utterance to show")
    arguments = parser.parse_args(argv)
    written = write_figures(
        arguments.results,
        arguments.output,
        corpus_dir=arguments.corpus_dir,
        corpus_dirs=arguments.corpus_dirs,
        cache_dir=arguments.cache_dir,
        example_index=arguments.example_index,
    )
    print("\n".join(str(path) for path in written))


def add_places(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where the corpora lie.

    Args:
        parser (`argparse.ArgumentParser`): of a program that runs models.
    """
    parser.add_argument("--corpus_dir", help="folder that holds a folder <name> for each corpus")
    parser.add_argument(
        "--corpus_dirs", nargs="+", help="folders of single corpora, as iemocap=/data/IEMOCAP"
    )
    parser.add_argument("--cache_dir", help="folder for resampled and generated speech")


if __name__ == "__main__":
    main()
