"""Draws a study: confusion matrices, learning curves, and one test mixture before and after.

python -m evaluation.figures --results results/ravdess --output docs/figures --corpus_dir DIR
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from transformers import PreTrainedModel

from data_builders.schema import EMOTIONS, SAMPLING_RATE
from evaluation.evaluate_checkpoint import (
    EvaluationArguments,
    load_condition,
    load_model,
    run_model,
)
from evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from evaluation.tables import load_cells

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

INK, MUTED = "#22262b", "#8a9099"
COLORS = {"loss": MUTED, "eval_loss": INK, "eval_ua": "#1f6fb2", "eval_wa": "#e08a1e"}
COLORS |= {"eval_si_sdri": "#2a8a5f"}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
}
# What a panel of learning curves shows: title, unit factor, and keys of `log_history` with names.
CURVE_PANELS = (
    ("Loss", 1.0, {"loss": "training", "eval_loss": "validation"}),
    ("Accuracy in validation (%)", 100.0, {"eval_ua": "UA", "eval_wa": "WA"}),
    ("SI-SDRi in validation (dB)", 1.0, {"eval_si_sdri": "SI-SDRi"}),
)
WINDOW_SAMPLES, HOP_SAMPLES = 512, 128
SPECTROGRAM_RANGE_DB = 70.0


@dataclass(frozen=True)
class ExtractionExample:
    """One test mixture, what was extracted from it, and the emotions heard.

    Args:
        mixture, extracted, target (`np.ndarray` of shape `(num_samples,)`): waveforms at 16 kHz;
            the extracted one is scaled to fit the target best.
        true_emotion, mixture_emotion, extracted_emotion (`str`): of the target, and heard by the
            model's classifier in the mixture and in the extracted speech.
        utterance_id, interferer_id (`str`): what was mixed.
    """

    mixture: np.ndarray
    extracted: np.ndarray
    target: np.ndarray
    true_emotion: str
    mixture_emotion: str
    extracted_emotion: str
    utterance_id: str
    interferer_id: str


def write_figures(
    results_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str] | None = None,
    *,
    corpus_dir: str | None = None,
    cache_dir: str | None = None,
    example_index: int = 0,
) -> list[Path]:
    """Draws all figures of a study.

    Args:
        results_dir (path): folder of the study, with `cells/` and `steps/`.
        output_dir (path, optional): default: `figures` in the folder.
        corpus_dir, cache_dir (`str`, optional): where the corpora of the example lie.
        example_index (`int`): test utterance of the example.

    Returns:
        The PNG files: `confusion_<cell>.png` (folds and seeds summed up),
        `learning_curves_<step>.png`, and `example.png` where a joint model was scored.
    """
    results_dir = Path(results_dir)
    folder = Path(output_dir) if output_dir is not None else results_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    cells = load_cells(results_dir)
    written = []
    for name, group in _grouped_confusions(cells).items():
        written.append(folder / f"confusion_{name}.png")
        _save(plot_confusion(**group), written[-1])
    for step, histories in _step_histories(results_dir).items():
        written.append(folder / f"learning_curves_{step}.png")
        _save(plot_learning_curves(histories, title=step), written[-1])
    joint = [cell for cell in cells if cell["wa"] is not None and cell["si_sdri_db"] is not None]
    if joint:
        written.append(folder / "example.png")
        # The jointly trained model before a pair that was trained apart.
        joint.sort(key=lambda cell: cell["classifier_checkpoint"] is not None)
        example = extract_example(results_dir, joint[0], example_index, corpus_dir, cache_dir)
        _save(plot_example(example), written[-1])
    return written


def plot_confusion(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix: counts, coloured by the share of the true class.

    Args:
        confusion (`np.ndarray` of shape `(num_classes, num_classes)`): rows are true classes.
        classes (sequence of `str`): their names.
        title (`str`): above the matrix.

    Returns:
        `Figure`: not saved yet.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.0, 4.0))
        shares = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for row, column in np.ndindex(*confusion.shape):
            axes.text(
                column,
                row,
                f"{shares[row, column]:.0f} %\n({confusion[row, column]})",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 55 else INK,
            )
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="Predicted", ylabel="True", title=title)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="Share of the true class (%)")
        bar.outline.set_visible(False)
    return figure


def plot_learning_curves(
    histories: Sequence[Sequence[Mapping[str, float]]], title: str = ""
) -> Figure:
    """Losses and validation scores over epochs, a line a run.

    Args:
        histories (sequence of sequences of mappings): `log_history` of each run's trainer state.
        title (`str`): above the panels.

    Returns:
        `Figure`: with a panel for each kind of curve that is there; not saved yet.
    """
    logged = {key for history in histories for entry in history for key in entry}
    panels = [panel for panel in CURVE_PANELS if logged & panel[2].keys()] or [CURVE_PANELS[0]]
    with plt.rc_context(STYLE):
        size = (4.4 * len(panels), 3.2)
        figure, all_axes = plt.subplots(1, len(panels), figsize=size, squeeze=False)
        for axes, (panel_title, factor, names) in zip(all_axes[0], panels, strict=True):
            for key, label in names.items():
                for run, history in enumerate(histories):
                    _plot_curve(axes, history, key, factor, label if run == 0 else None)
            axes.set(xlabel="Epoch", title=panel_title)
            axes.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
            if len(names) > 1:
                axes.legend()
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def extract_example(
    results_dir: str | os.PathLike[str],
    cell: Mapping[str, Any],
    index: int = 0,
    corpus_dir: str | None = None,
    cache_dir: str | None = None,
) -> ExtractionExample:
    """Runs the joint model of a cell on one of its test mixtures.

    Args:
        results_dir (path): folder of the study; the cell names checkpoints from its `cells`.
        cell (mapping): result of `evaluate_checkpoint` for a combined model.
        index (`int`): which test utterance.
        corpus_dir, cache_dir (`str`, optional): where the corpora lie on this machine.

    Returns:
        `ExtractionExample`.
    """

    def checkpoint(name: str) -> str:
        folder = Path(results_dir) / "cells" / name
        return str(folder) if folder.is_dir() else name

    names = {field.name for field in fields(EvaluationArguments)}
    settings = EvaluationArguments(
        model=checkpoint(cell["checkpoint"]),
        classifier=cell["classifier_checkpoint"] and checkpoint(cell["classifier_checkpoint"]),
        corpus_dir=corpus_dir,
        cache_dir=cache_dir,
        **{name: cell[name] for name in names & cell.keys() - {"model", "classifier"}},
    )
    example = load_condition(settings)[index]
    model = load_model(settings.model, settings.classifier)
    outputs = run_model(model, [example])
    before = run_model(cast(PreTrainedModel, model.classifier), [example])
    extracted = outputs["extracted_values"][0].double().numpy()[: example["target"].size]
    scale = extracted @ example["target"] / max(extracted @ extracted, np.finfo(float).tiny)
    return ExtractionExample(
        mixture=example["mixture"],
        extracted=(scale * extracted).astype(np.float32),
        target=example["target"],
        true_emotion=EMOTIONS[example["label"]],
        mixture_emotion=EMOTIONS[int(before["logits"].argmax())],
        extracted_emotion=EMOTIONS[int(outputs["logits"].argmax())],
        utterance_id=example["utterance_id"],
        interferer_id=example["interferer_id"],
    )


def plot_example(example: ExtractionExample) -> Figure:
    """Spectrograms of mixture, extracted speech and target on one scale, with the emotions.

    Args:
        example (`ExtractionExample`): waveforms and emotions.

    Returns:
        `Figure`: not saved yet.
    """
    mixture_db = scale_invariant_sdr(example.mixture, example.target)
    extracted_db = scale_invariant_sdr(example.extracted, example.target)
    panels = (
        (example.mixture, f"Mixture: {_decibels(mixture_db)}, predicted {example.mixture_emotion}"),
        (
            example.extracted,
            f"Extracted: {_decibels(extracted_db)}, predicted {example.extracted_emotion}",
        ),
        (example.target, f"Target: true emotion {example.true_emotion}"),
    )
    levels = [spectrogram_db(waveform) for waveform, _ in panels]
    top = max(level.max() for level in levels)
    seconds = example.target.size / SAMPLING_RATE
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(3, 1, figsize=(7.2, 6.6), sharex=True, sharey=True)
        for axes, level, (_, title) in zip(all_axes, levels, panels, strict=True):
            image = axes.imshow(
                level - top,
                origin="lower",
                aspect="auto",
                cmap="magma",
                extent=(0, seconds, 0, SAMPLING_RATE / 2000),
                vmin=-SPECTROGRAM_RANGE_DB,
                vmax=0,
            )
            axes.set(title=title, ylabel="Frequency (kHz)")
        all_axes[-1].set_xlabel("Time (s)")
        bar = figure.colorbar(image, ax=all_axes, aspect=40, label="Level (dB re loudest)")
        bar.outline.set_visible(False)
        names = f"{example.utterance_id} with {example.interferer_id}"
        figure.suptitle(names, x=0.01, ha="left", fontsize=9, color=MUTED)
    return figure


def spectrogram_db(waveform: np.ndarray) -> np.ndarray:
    """Power spectrogram in dB, Hann window of 32 ms, hop of 8 ms.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): at 16 kHz.

    Returns:
        `np.ndarray` of shape `(257, num_frames)`: lowest frequency first.
    """
    padded = np.pad(waveform.astype(np.float64), WINDOW_SAMPLES // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW_SAMPLES), axis=-1)) ** 2
    return 10 * np.log10(power.T + 1e-12)


def _decibels(si_sdr_db: float) -> str:
    return "SI-SDR " + f"{si_sdr_db:.1f} dB".replace("-", "\N{MINUS SIGN}")


def _plot_curve(
    axes: Any, history: Sequence[Mapping[str, float]], key: str, factor: float, label: str | None
) -> None:
    points = [(entry["epoch"], factor * entry[key]) for entry in history if key in entry]
    if points:
        marker = "o" if key.startswith("eval") else None
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, marker=marker, ms=3, color=COLORS[key], label=label)


def _grouped_confusions(cells: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell["confusion"] is not None:
            sets = [str(cell[key]) for key in ("train_set", "test_set") if cell.get(key)]
            title = ": ".join([cell["model"], " → ".join(sets)]) if sets else cell["model"]
            empty = np.zeros_like(cell["confusion"])
            group = {"confusion": empty, "classes": cell["classes"], "title": title}
            groups.setdefault(cell["name"], group)["confusion"] += np.asarray(cell["confusion"])
    return groups


def _step_histories(results_dir: Path) -> dict[str, list[list[dict[str, float]]]]:
    """`log_history` of each training, by step name; a step has one a fold and seed."""
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


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures that the command line asks for and prints their names."""
    parser = argparse.ArgumentParser(description="Draw the figures of a study.")
    parser.add_argument("--results", required=True, help="folder of the study")
    parser.add_argument("--output", help="folder of the figures; default: figures in that folder")
    parser.add_argument("--corpus_dir", help="folder that holds a folder <name> for each corpus")
    parser.add_argument("--cache_dir", help="folder for resampled and generated speech")
    parser.add_argument("--example_index", type=int, default=0, help="test utterance to show")
    arguments = parser.parse_args(argv)
    written = write_figures(
        arguments.results,
        arguments.output,
        corpus_dir=arguments.corpus_dir,
        cache_dir=arguments.cache_dir,
        example_index=arguments.example_index,
    )
    print("\n".join(str(path) for path in written))


if __name__ == "__main__":
    main()
