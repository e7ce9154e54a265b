"""Draws studies: confusion matrices, curves of accuracy and learning, a mixture and its speech.

    python -m tse_ser.evaluation.figures docs/results/ravdess.parquet --output docs/figures

Learning curves and the example are drawn where the study ran: beside its models.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from data_builders.schema import SAMPLING_RATE
from tse_ser.evaluation.bootstrap import interval, utterance_values
from tse_ser.evaluation.examples import Example, add_places, extract_examples, places_of
from tse_ser.evaluation.results import Results, confusion, read_results

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

INK, MUTED = "#22262b", "#8a9099"
COLORS = ("#1f6fb2", "#e08a1e", "#2a8a5f", "#b2453c", "#7a5ba6", "#5f6b76")
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
GRID: dict[str, Any] = {"axis": "y", "color": MUTED, "alpha": 0.25, "linewidth": 0.6}
# What a panel of learning curves shows: title, unit factor, and keys of `log_history` with names.
CURVE_PANELS = (
    ("Loss", 1.0, {"loss": "training", "eval_loss": "validation"}),
    ("Accuracy in validation (%)", 100.0, {"eval_ua": "UA", "eval_wa": "WA"}),
    ("SI-SDRi in validation (dB)", 1.0, {"eval_si_sdri": "SI-SDRi"}),
)
SNR_LABEL = "snr_db"
NUM_BINS = 5
BOOTSTRAP_SEED = 0
WINDOW_SAMPLES, HOP_SAMPLES = 512, 128
SPECTROGRAM_RANGE_DB = 70.0


def study_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Draws every figure of a study but the example, one after the other: close it before the next.

    Args:
        results (`Results`): of the study; learning curves are drawn of the `steps/` beside its
        file.

    Yields:
        `tuple[str, Figure]`: file name without suffix, and what is not saved yet:
        `confusion_<test>` of the tests of the tables, folds and seeds summed up; `ua_against_snr`
        and `ua_against_si_sdri` where there is what they show; `learning_curves_<step>`.
    """
    mark = " (optimistic)" if results.facts["optimistic"] else ""
    for test, own in results.utterances.groupby("test", sort=False):
        first = own.iloc[0]
        if isinstance(first["tables"], str) and own["correct"].notna().any():
            title = f"{first['system']}: {first['train_set']} → {first['test_set']}{mark}"
            classes = results.facts["classes"]
            yield f"confusion_{test}", _plot_confusion(confusion(own, classes), classes, title)
    for name, curves, x_label, title in (
        ("ua_against_snr", snr_curves(results), "Input SNR (dB)", "UA against input SNR"),
        (
            "ua_against_si_sdri",
            si_sdri_curves(results),
            "SI-SDRi of the utterance (dB)",
            "UA against what extraction gained",
        ),
    ):
        if not curves.empty:
            yield name, _plot_accuracy_curves(curves, x_label, title + mark)
    for step, histories in _step_histories(results.path.parent).items():
        yield f"learning_curves_{step}", _plot_learning_curves(histories, title=step)


def snr_curves(results: Results) -> pd.DataFrame:
    """UA against the input SNR, of the tests whose condition is `snr_db`: columns `system`, `x`
    (dB), `ua`, `low` and `high` (0 to 1), in the order of x."""
    utterances = results.utterances
    chosen = utterances[utterances["condition_label"] == SNR_LABEL]
    points = [
        {"system": _legend(own), "x": float(own["condition_value"].iloc[0]), **_ua(own)}
        for _, own in chosen.groupby("test", sort=False)
    ]
    return pd.DataFrame(points).sort_values(["system", "x"]) if points else pd.DataFrame()


def si_sdri_curves(results: Results, num_bins: int = NUM_BINS) -> pd.DataFrame:
    """UA against the SI-SDRi of the single utterance, in bins of as many utterances each.

    Args:
        results (`Results`): of the study.
        num_bins (`int`): bins, at most.

    Returns:
        `DataFrame`: as that of `snr_curves`, of the tables' mixtures with any interferer; x is the
        mean SI-SDRi of a bin, and UA is over the classes that it has.
    """
    utterances = results.utterances
    chosen = utterances[
        utterances["si_sdri_db"].notna()
        & utterances["correct"].notna()
        & utterances["condition_label"].isna()
        & utterances["gender_state"].isna()
    ]
    points = []
    for _, own in chosen.groupby("test", sort=False):
        if len(own) >= num_bins:
            order = own.sort_values(["si_sdri_db", "label"])
            # A bin mixes folds: its stratum is the class alone. Seeds of an utterance are one.
            units = order["fold"].astype(str) + "/" + order["unit"].astype(str)
            order = order.assign(fold=0, unit=units)
            for rows in np.array_split(np.arange(len(order)), num_bins):
                part = order.iloc[rows]
                x = float(part["si_sdri_db"].mean())
                points.append({"system": _legend(own), "x": x, **_ua(part)})
    return pd.DataFrame(points)


def _step_histories(folder: Path) -> dict[str, list[list[dict[str, float]]]]:
    """`log_history` of each training below a study's folder, by step name; a step has one a
    fold and seed."""
    histories: dict[str, list[list[dict[str, float]]]] = {}
    for run in sorted(folder.glob("steps/*/*/")):
        states = [*run.glob("trainer_state.json"), *run.glob("checkpoint-*/trainer_state.json")]
        logs = [json.loads(path.read_text(encoding="utf-8"))["log_history"] for path in states]
        if logs:
            # Every state holds the history up to it: the longest is the newest.
            histories.setdefault(run.parent.name, []).append(max(logs, key=len))
    return histories


def _plot_confusion(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix: counts, coloured by the share of the true class."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.0, 4.0))
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for row, column in np.ndindex(*counts.shape):
            axes.text(
                column,
                row,
                f"{shares[row, column]:.0f} %\n({counts[row, column]})",
                ha="center",
                va="center",
                # No ink of the page's colour: what lies behind it is not the page.
                color="white" if shares[row, column] > 55 else "black",
            )
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="Predicted", ylabel="True", title=title)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="Share of the true class (%)")
        bar.outline.set_visible(False)
    return figure


def _plot_accuracy_curves(curves: pd.DataFrame, x_label: str, title: str) -> Figure:
    """UA over a condition, a line a system, with 95 % bootstrap intervals as bands."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.6))
        for (name, points), color in zip(curves.groupby("system"), cycle(COLORS), strict=False):
            axes.plot(points["x"], 100 * points["ua"], "o-", ms=4, color=color, label=name)
            low, high = 100 * points["low"], 100 * points["high"]
            axes.fill_between(points["x"], low, high, color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel=x_label, ylabel="UA (%)", title=title)
        axes.grid(**GRID)
        axes.legend()
    return figure


def _plot_learning_curves(
    histories: Sequence[Sequence[Mapping[str, float]]], title: str = ""
) -> Figure:
    """Losses and validation scores over epochs, a line a run."""
    logged = {key for history in histories for entry in history for key in entry}
    panels = [panel for panel in CURVE_PANELS if logged & panel[2].keys()] or [CURVE_PANELS[0]]
    with plt.rc_context(STYLE):
        size = (4.4 * len(panels), 3.2)
        figure, all_axes = plt.subplots(1, len(panels), figsize=size, squeeze=False)
        for axes, (panel_title, factor, names) in zip(all_axes[0], panels, strict=True):
            for (key, label), color in zip(names.items(), COLORS, strict=False):
                for history in histories:
                    points = [(log["epoch"], factor * log[key]) for log in history if key in log]
                    marker = "o" if key.startswith("eval") else None
                    axes.plot(*np.array(points).reshape(-1, 2).T, marker=marker, ms=3, color=color)
                axes.plot([], [], color=color, label=label)
            axes.set(xlabel="Epoch", title=panel_title)
            axes.grid(**GRID)
            if len(names) > 1:
                axes.legend()
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _plot_example(example: Example) -> Figure:
    """Spectrograms of mixture, extracted speech and target on one scale, with the emotions."""
    titles = {
        name: f"{name.title()}: SI-SDR {example.si_sdr_db[name]:.1f} dB, "
        f"predicted {next(iter(example.heard[name]))}".replace("-0.0", "0.0")
        for name in ("mixture", "extracted")
    }
    titles["target"] = f"Target: true emotion {example.true_emotion}"
    levels = [spectrogram_db(example.waveforms[name]) for name in titles]
    top = max(level.max() for level in levels)
    seconds = example.waveforms["target"].size / SAMPLING_RATE
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(3, 1, figsize=(7.2, 6.6), sharex=True, sharey=True)
        for axes, level, title in zip(all_axes, levels, titles.values(), strict=True):
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
        figure.suptitle(example.title, x=0.01, ha="left", fontsize=9, color=MUTED)
    return figure


def spectrogram_db(waveform: np.ndarray) -> np.ndarray:
    """Power spectrogram in dB of a waveform `(num_samples,)` at 16 kHz, with a Hann window of
    32 ms and a hop of 8 ms: `(257, num_frames)`, the lowest frequency first."""
    padded = np.pad(waveform.astype(np.float64), WINDOW_SAMPLES // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW_SAMPLES), axis=-1)) ** 2
    return 10 * np.log10(power.T + 1e-12)


def write_figures(
    results: Results, output_dir: str | Path, places: Mapping[str, Any] | None = None
) -> list[Path]:
    """Draws all figures of a study into a folder: the PNG files of `study_figures`, and
    `example.png` where the joint model is there; `places` say where the corpora of the example
    lie."""
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    examples = extract_examples(results, (0,), places)
    drawn = (("example", _plot_example(example)) for example in examples)
    written = []
    for name, figure in chain(study_figures(results), drawn):
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1])
        plt.close(figure)
    return written


def _legend(utterances: pd.DataFrame) -> str:
    """What a system is called: with its train set where it is a classifier alone."""
    first = utterances.iloc[0]
    system = str(first["system"])
    return f"{system} trained on {first['train_set']}" if system == "SC" else system


def _ua(utterances: pd.DataFrame) -> dict[str, float]:
    found = interval(utterance_values(utterances, "correct"), np.random.default_rng(BOOTSTRAP_SEED))
    assert found is not None  # there is an utterance
    return {"ua": found.estimate, "low": found.low, "high": found.high}


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures that the command line asks for and prints their names."""
    parser = argparse.ArgumentParser(description="Draw the figures of a study.")
    parser.add_argument("results", help="Parquet file of the study")
    parser.add_argument("--output", required=True, help="folder of the figures")
    add_places(parser)
    arguments = parser.parse_args(argv)
    results = read_results(arguments.results)
    written = write_figures(results, arguments.output, places_of(arguments))
    print("\n".join(str(path) for path in written))


if __name__ == "__main__":
    main()
