"""Draws what a study found: confusion matrices, curves with their intervals, one test mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

from data_builders.schema import SAMPLING_RATE
from tse_ser.evaluation.curves import Point
from tse_ser.evaluation.extraction_example import ExtractionExample
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

INK, MUTED = "#22262b", "#8a9099"
COLORS = {"loss": MUTED, "eval_loss": INK, "eval_ua": "#1f6fb2", "eval_wa": "#e08a1e"}
COLORS |= {"eval_si_sdri": "#2a8a5f"}
LINES = ("#1f6fb2", "#e08a1e", "#2a8a5f", "#b2453c", "#7a5ba6", "#5f6b76")
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


def plot_accuracy_curves(curves: Mapping[str, Sequence[Point]], x_label: str, title: str) -> Figure:
    """UA over a condition, a line a model, with 95 % bootstrap intervals as bands.

    Args:
        curves (mapping of sequences of `Point`): by the name of the model; UA from 0 to 1.
        x_label (`str`): what the condition is, with its unit.
        title (`str`): above the axes.

    Returns:
        `Figure`: not saved yet.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.6))
        for (name, points), color in zip(curves.items(), _cycle(len(curves)), strict=True):
            x = [point.x for point in points]
            axes.plot(x, [100 * point.ua for point in points], "o-", ms=4, color=color, label=name)
            low, high = ([100 * getattr(point, end) for point in points] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel=x_label, ylabel="UA (%)", title=title)
        axes.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
        axes.legend()
    return figure


def _cycle(count: int) -> list[str]:
    return [LINES[index % len(LINES)] for index in range(count)]


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
