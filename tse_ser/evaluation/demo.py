"""Uses the joint model of a finished study on one held-out mixture, as a user would.

    python -m tse_ser.evaluation.demo results/demo/demo.parquet

Says how far the results have the paper's order. Saves the model with its code and a sample of
generated speech to `checkpoint/`, loads it back with `pipeline` alone, prints the emotion before
and after extraction, and writes `mixture.wav`, `enrollment.wav`, `extracted.wav` and `target.wav`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from transformers import pipeline
from transformers.utils.logging import disable_progress_bar

from data_builders.schema import SAMPLING_RATE
from tse_ser.evaluation.bootstrap import interval, paired_differences, utterance_values
from tse_ser.evaluation.evaluate_checkpoint import load_condition, load_model
from tse_ser.evaluation.examples import (
    emotions_of,
    extract_example,
    find_test,
    probabilities,
)
from tse_ser.evaluation.prediction import run_model
from tse_ser.evaluation.results import Results, read_results
from tse_ser.saving import save_with_code

PEAK = 0.9
# What the paper finds, from the worst to the best.
ORDER: dict[str, dict[str, str]] = {
    "SC trained on mixtures": {"system": "SC", "train_set": "Noisy", "test_set": "Noisy"},
    "SB_SC": {"method": "TSE-SER-base", "test_set": "Denoised"},
    "SB+SC": {"method": "TSE-SER-ft", "test_set": "Noisy"},
    "SC on clean speech": {"system": "SC", "train_set": "Clean", "test_set": "Clean"},
}


def main(argv: Sequence[str] | None = None) -> None:
    """Saves, loads back and uses the joint model of the study that the command line names.

    Args:
        argv: arguments; those of the process by default.
    """
    parser = argparse.ArgumentParser(description="Use the joint model of a study on one mixture.")
    parser.add_argument(
        "results", type=Path, help="Parquet file in the folder that the study ran in"
    )
    parser.add_argument("--index", type=int, default=0, help="which test mixture")
    arguments = parser.parse_args(argv)
    disable_progress_bar()  # that of loading weights, in milliseconds
    try:
        run_demo(arguments.results, arguments.index)
    except ValueError as error:
        sys.exit(f"error: {error}")


def run_demo(path: Path, index: int = 0) -> None:
    """Saves, loads back and uses the joint model of a finished study on a test mixture
    (`index`) of the first fold and seed; `path` is the Parquet file in the folder that the
    study ran in, where all is written. Raises `ValueError` where the study has no joint model
    or no noisy baseline, or their models are gone."""
    results, folder = read_results(path), path.parent
    joint = find_test(results, method="TSE-SER-ft")
    baseline = find_test(results, system="SC", train_set="Noisy", test_set="Noisy")
    if joint is None or baseline is None:
        raise ValueError(
            f"{path} has no joint model (TSE-SER-ft) and SC trained on Noisy beside it"
        )
    checkpoint = save_with_code(joint.model, folder / "checkpoint")
    recognize = pipeline(None, model=str(checkpoint), trust_remote_code=True)
    model: Any = recognize.model.eval()

    mixed = load_condition(joint)[index]
    classifier = load_model(baseline.model)
    unaided = probabilities(run_model(classifier, [mixed]), emotions_of(classifier))
    example = extract_example(model, mixed)
    print("\n".join(order_of_systems(results)))
    _write_waveforms(example.waveforms, folder)
    _write_sample(folder, checkpoint / "sample")
    print(f"One test mixture: {example.title} over it")
    print(f"  true emotion                              {example.true_emotion}")
    print(f"  before: SC trained on mixtures            {heard(unaided)}")
    print(f"  before: SB+SC's classifier on the mixture {heard(example.heard['mixture'])}")
    print(f"  after:  SB+SC on the extracted speech     {heard(example.heard['extracted'])}")
    mixture_db, extracted_db = (example.si_sdr_db[name] for name in ("mixture", "extracted"))
    print(f"  SI-SDR {mixture_db:.1f} dB before, {extracted_db:.1f} dB after")
    print(f"The waveforms: {', '.join(f'{name}.wav' for name in example.waveforms)} in {folder}")
    print(f"The model: {checkpoint}, loads from anywhere by")
    print(f"  pipeline(model={str(checkpoint)!r}, trust_remote_code=True)")
    print(f"Tables, curves and sound on one page, to open in a browser: {folder / 'report.html'}")


def order_of_systems(results: Results) -> list[str]:
    """How far a study has the paper's order of systems: a line a system with its UA, and
    whether it is better than the one before it; then which of these steps it does not show."""
    lines = ["The paper's order, from the worst to the best (UA on the test utterances):"]
    before, values_before = "", pd.DataFrame()
    not_shown = []
    for name, labels in ORDER.items():
        rows = _utterances(results, labels)
        if rows.empty:
            continue
        values = utterance_values(rows, "correct")
        ua = interval(values, np.random.default_rng(0))
        assert ua is not None  # which is so of utterances there are
        line = f"  {name:22} {100 * ua.estimate:5.1f} %"
        differences = paired_differences(values, values_before) if before else pd.DataFrame()
        if not differences.empty:
            gain = interval(differences, np.random.default_rng(0))
            assert gain is not None
            ends = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f} points"
            verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "not told apart"
            line += f"   against {before}: {verdict} ({ends}, {len(differences)} utterances)"
            if verdict != "better":
                not_shown.append(f"{name} above {before}")
        lines.append(line)
        before, values_before = name, values
    if not_shown:
        lines += [
            f"Not shown here: {', '.join(not_shown)}. The interval is that of the test utterances; "
            "another seed or",
            "  machine moves trainings as small as these by as much. Studies on recorded speech: "
            "docs/results.md",
        ]
    return lines


def _utterances(results: Results, labels: Mapping[str, str]) -> pd.DataFrame:
    """The test utterances of a system on the tables' mixtures of any gender."""
    runs = results.runs[results.runs["condition_label"].isna()]
    for label, wanted in {**labels, "gender_state": None}.items():
        runs = runs[runs[label].isna() if wanted is None else runs[label] == wanted]
    return results.of(runs)


def _write_waveforms(waveforms: Mapping[str, np.ndarray], folder: Path) -> None:
    """Writes 32-bit float WAV files that can be compared by ear."""
    gain = PEAK / max(np.abs(waveform).max() for waveform in waveforms.values())
    for name, waveform in waveforms.items():
        soundfile.write(folder / f"{name}.wav", gain * waveform, SAMPLING_RATE, subtype="FLOAT")


def _write_sample(folder: Path, sample_dir: Path) -> None:
    """Puts the written mixture and enrollment beside a model, as 16-bit WAV files."""
    sample_dir.mkdir(exist_ok=True)
    for name in ("mixture.wav", "enrollment.wav"):
        waveform, rate = soundfile.read(folder / name)
        soundfile.write(sample_dir / name, waveform, rate, subtype="PCM_16")


def heard(shares: Mapping[str, float]) -> str:
    """The most likely emotion, and how sure the classifier is of each."""
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"{next(iter(shares)):8} ({listed})"


if __name__ == "__main__":
    main()
