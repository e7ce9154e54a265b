"""What the demonstration finds in a study and what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from evaluation.demo import BASELINE, JOINT, find_cell, probabilities, write_waveforms
from evaluation.study import REPOSITORY, Cell, StudyError, load_study, plan_study


def test_the_generated_study_has_the_cells_that_the_demonstration_shows(tmp_path: Path) -> None:
    plan = plan_study(load_study(REPOSITORY / "recipes/generated/study.yaml"), tmp_path)
    for labels in (JOINT, BASELINE):
        with pytest.raises(StudyError, match=r"is missing: run `python -m evaluation.experiment`"):
            find_cell(plan, labels)
    for unit in plan:
        if isinstance(unit, Cell) and unit.name in ("sb_plus_sc", "sc_noisy_on_noisy"):
            unit.path.parent.mkdir(exist_ok=True)
            unit.path.write_text("{}")
    assert find_cell(plan, JOINT).name == "sb_plus_sc"
    assert find_cell(plan, BASELINE).name == "sc_noisy_on_noisy"
    with pytest.raises(StudyError, match=r"the study has no cell with"):
        find_cell(plan, {"model": "SB"})


def test_waveforms_can_be_compared_by_ear(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal(1600).astype(np.float32)
    given = {"target": target, "extracted": 1e-3 * target, "mixture": 3 * target}
    write_waveforms(given, tmp_path)

    written = {name: soundfile.read(tmp_path / f"{name}.wav")[0] for name in given}
    assert max(np.abs(waveform).max() for waveform in written.values()) == pytest.approx(0.9)
    np.testing.assert_allclose(written["extracted"], written["target"], rtol=1e-5)
    np.testing.assert_allclose(written["mixture"], 3 * written["target"], rtol=1e-5)


def test_the_most_likely_emotion_stands_first() -> None:
    shown = probabilities({"logits": torch.log(torch.tensor([[0.1, 0.2, 0.6, 0.1]]))})
    assert shown.split() == [
        "sad",
        "(sad",
        "60%,",
        "happy",
        "20%,",
        "neutral",
        "10%,",
        "angry",
        "10%)",
    ]
