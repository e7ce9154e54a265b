"""Uses the joint model of a finished study on one held-out mixture, as a user would.

    python -m tse_ser.evaluation.demo --study recipes/generated/study.yaml --output_dir results/demo

Saves the model with its code and a sample of generated speech to `checkpoint/`, loads it back with
`pipeline` alone, prints the emotion before and after extraction, and writes `mixture.wav`,
`enrollment.wav`, `extracted.wav` and `target.wav`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from transformers import pipeline
from transformers.utils.logging import disable_progress_bar

from data_builders.schema import EMOTIONS, SAMPLING_RATE
from tse_ser.evaluation.evaluate_checkpoint import (
    EvaluationOptions,
    load_condition,
    load_model,
)
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from tse_ser.evaluation.prediction import run_model
from tse_ser.evaluation.study import Cell, Step, StudyError, load_study, plan_study
from tse_ser.saving import save_with_code

# The cells are found by what the tables call them.
JOINT = {"method": "TSE-SER-ft"}
BASELINE = {"model": "SC", "train_set": "Noisy", "test_set": "Noisy"}
PEAK = 0.9


def main(argv: Sequence[str] | None = None) -> None:
    """Saves, loads back and uses the joint model of the study that the command line names.

    Args:
        argv: arguments; those of the process by default.
    """
    parser = argparse.ArgumentParser(description="Use the joint model of a study on one mixture.")
    parser.add_argument("--study", required=True, type=Path, help="YAML file of the study")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder of its results")
    parser.add_argument("--index", type=int, default=0, help="which test mixture")
    arguments = parser.parse_args(argv)
    disable_progress_bar()  # that of loading weights, in milliseconds
    try:
        run_demo(arguments.study, arguments.output_dir.resolve(), arguments.index)
    except StudyError as error:
        sys.exit(f"error: {error}")


def run_demo(study: Path, output_dir: Path, index: int = 0) -> None:
    """Saves, loads back and uses the joint model of a finished study.

    Args:
        study: YAML file of the study.
        output_dir: folder of its results.
        index: which test mixture of the first fold and seed.

    Raises:
        StudyError: if the study has no joint model or no noisy baseline, or is not finished.
    """
    plan = plan_study(load_study(study), output_dir)
    joint, baseline = find_cell(plan, JOINT), find_cell(plan, BASELINE)
    checkpoint = save_with_code(joint.arguments["model"], output_dir / "checkpoint")
    recognize = pipeline(None, model=str(checkpoint), trust_remote_code=True)
    model: Any = recognize.model

    example = load_condition(EvaluationOptions(**joint.arguments))[index]
    unaided = run_model(load_model(baseline.arguments["model"]), [example])
    bypassed = run_model(model.classifier.eval(), [example])
    outputs = run_model(model.eval(), [example])
    waveforms = {
        "mixture": example["mixture"],
        "enrollment": example["enrollment"],
        "extracted": outputs["extracted_values"][0].numpy()[: example["target"].size],
        "target": example["target"],
    }
    write_waveforms(waveforms, output_dir)
    write_sample(output_dir, checkpoint / "sample")
    print(f"One test mixture: {example['utterance_id']} with {example['interferer_id']} over it")
    print(f"  true emotion                              {EMOTIONS[example['label']]}")
    print(f"  before: SC trained on mixtures            {probabilities(unaided)}")
    print(f"  before: SB+SC's classifier on the mixture {probabilities(bypassed)}")
    print(f"  after:  SB+SC on the extracted speech     {probabilities(outputs)}")
    sdr_db = {
        name: scale_invariant_sdr(waveforms[name], example["target"])
        for name in ("mixture", "extracted")
    }
    print(f"  SI-SDR {sdr_db['mixture']:.1f} dB before, {sdr_db['extracted']:.1f} dB after")
    print(f"The waveforms: {', '.join(f'{name}.wav' for name in waveforms)} in {output_dir}")
    print(f"The model: {checkpoint}, loads from anywhere by")
    print(f"  pipeline(model={str(checkpoint)!r}, trust_remote_code=True)")


def find_cell(plan: Sequence[Step | Cell], labels: dict[str, str]) -> Cell:
    """The first cell of a study with the given labels.

    Raises:
        StudyError: if there is none, or it was not run yet.
    """
    for unit in plan:
        if isinstance(unit, Cell) and labels.items() <= unit.labels.items():
            if not unit.path.exists():
                raise StudyError(
                    f"{unit.path} is missing: run `python -m tse_ser.evaluation.experiment`"
                )
            return unit
    raise StudyError(f"the study has no cell with {labels}")


def write_waveforms(waveforms: dict[str, np.ndarray], output_dir: Path) -> None:
    """Writes 32-bit float WAV files that can be compared by ear.

    Args:
        waveforms: arrays of shape `(num_samples,)` at 16 kHz by file name. The extracted one has no
            scale of its own (SI-SNR leaves it free), so it gets the target's level.
        output_dir: folder to write into.
    """
    level = np.std(waveforms["target"]) / max(np.std(waveforms["extracted"]), 1e-8)
    waveforms = {**waveforms, "extracted": waveforms["extracted"] * level}
    gain = PEAK / max(np.abs(waveform).max() for waveform in waveforms.values())
    for name, waveform in waveforms.items():
        path = output_dir / f"{name}.wav"
        soundfile.write(path, gain * waveform, SAMPLING_RATE, subtype="FLOAT")


def write_sample(output_dir: Path, sample_dir: Path) -> None:
    """Puts the written mixture and enrollment beside a model, as 16-bit WAV files.

    Args:
        output_dir: folder that `write_waveforms` wrote into.
        sample_dir: folder to write.
    """
    sample_dir.mkdir(exist_ok=True)
    for name in ("mixture.wav", "enrollment.wav"):
        waveform, rate = soundfile.read(output_dir / name)
        soundfile.write(sample_dir / name, waveform, rate, subtype="PCM_16")


def probabilities(outputs: dict[str, Any]) -> str:
    """The heard emotion and how sure the classifier is of each, most likely first.

    Args:
        outputs: with `logits` of shape `(1, num_labels)`.
    """
    shares = outputs["logits"][0].softmax(-1).tolist()
    ranked = sorted(zip(EMOTIONS, shares, strict=True), key=lambda pair: -pair[1])
    emotion = ranked[0][0]
    return f"{emotion:8}" + " (" + ", ".join(f"{name} {share:.0%}" for name, share in ranked) + ")"


if __name__ == "__main__":
    main()
