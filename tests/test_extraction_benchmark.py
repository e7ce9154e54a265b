"""The extraction benchmark: its numbers for extractors whose numbers are known, table and plot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_publishing import RAVDESS, write_training

from modeling import TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction
from tse_ser.evaluation.extraction_benchmark import load_extractor, main, share_flagged
from tse_ser.publishing.cards import collect_facts, render_card
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.options import PublishingOptions
from tse_ser.saving import save_with_code

STRANGER = """
def whole(mixture, enrollment):
    return mixture

def quiet(mixture, enrollment):
    return 0.1 * mixture

def short(mixture, enrollment):
    return mixture[1:]
"""
TINY: dict[str, Any] = {
    **dict.fromkeys(("bottleneck_channels", "hidden_channels", "skip_channels"), 8),
    "num_filters": 16,
    "speaker_embedding_dim": 8,
    "num_blocks": 1,
    "num_repeats": 1,
    "adaptation_layer": 0,
}
SETS = """
Voices:
  targets: generated
  interferers: generated_pool
  enrollment_emotion: neutral
  max_examples: 3
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "stranger_of_the_tests.py").write_text(STRANGER)
    (tmp_path / "sets.yaml").write_text(SETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger_of_the_tests", raising=False)
    return "stranger_of_the_tests"


def run(tmp_path: Path, *extractors: str) -> pd.DataFrame:
    sets, output = str(tmp_path / "sets.yaml"), str(tmp_path / "out")
    main(["--extractors", *extractors, "--sets", sets, "--output_dir", output])
    return pd.read_parquet(tmp_path / "out" / "extraction.parquet")


def test_a_function_that_changes_nothing_gains_nothing(tmp_path: Path, stranger: str) -> None:
    rows = run(tmp_path, f"{stranger}:whole", f"{stranger}:quiet")
    assert set(rows["condition"]) == {"0 dB", "+10 dB", "clean", "absent"}
    assert len(rows) == 2 * 4 * 3
    at_0_db = rows[rows["condition"] == "0 dB"]
    np.testing.assert_allclose(at_0_db["si_sdri_db"], 0, atol=1e-6)
    np.testing.assert_allclose(at_0_db["si_sdr_db"], 0, atol=3)
    np.testing.assert_allclose(
        rows[rows["condition"] == "+10 dB"]["si_sdr_db"].to_numpy(),
        at_0_db["si_sdr_db"].to_numpy() + 10,
        atol=0.5,
    )
    assert (rows[rows["condition"] == "clean"]["si_sdr_db"] > 60).all()
    absent = rows[rows["condition"] == "absent"]
    assert absent["si_sdr_db"].isna().all()
    np.testing.assert_allclose(absent["level_db"], [0] * 3 + [-20] * 3, atol=1e-4)
    table = (tmp_path / "out" / "extraction.md").read_text()
    assert table.startswith("Means over mixtures") and "*Wrong voice*" in table.replace("\n", " ")
    assert "| whole" in table and "| quiet" in table and "-20.0" in table
    assert (tmp_path / "out" / "extraction.png").stat().st_size > 1000


def test_a_model_is_scored_from_its_folder_with_its_similarity(
    tmp_path: Path, stranger: str
) -> None:
    model = TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig(**TINY))
    save_with_code(model, tmp_path / "model")
    rows = run(tmp_path, str(tmp_path / "model"))
    assert len(rows) == 12 and rows["speaker_similarity"].notna().all()
    assert rows["extractor"].unique().tolist() == ["model"]


def test_an_output_of_another_length_and_a_function_that_is_not_there_are_refused(
    tmp_path: Path, stranger: str
) -> None:
    with pytest.raises(ValueError, match="short returned shape"):
        run(tmp_path, f"{stranger}:short")
    with pytest.raises(ValueError, match="would both be called quiet in the table"):
        run(tmp_path, f"{stranger}:quiet", f"{stranger}:quiet")
    for name in (f"{stranger}:nothing", "no_such_module:f"):
        with pytest.raises(ValueError, match="there is no such function"):
            load_extractor(name)


def test_absent_targets_are_flagged_at_the_false_alarm_rate_of_those_present() -> None:
    present = pd.DataFrame({"condition": "0 dB", "speaker_similarity": np.linspace(0.5, 1, 101)})
    absent = pd.DataFrame({"condition": "absent", "speaker_similarity": [0.1, 0.52, 0.53, 0.9]})
    assert share_flagged(pd.concat([present, absent])) == 0.5
    assert share_flagged(present) is None


def test_the_rows_of_an_extractor_go_into_its_card(tmp_path: Path, stranger: str) -> None:
    folder = tmp_path / "tiny"
    model = TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig(**TINY))
    write_training(folder, model, ["--stage", "extraction", *RAVDESS])
    run(tmp_path, str(folder), f"{stranger}:whole")
    options = PublishingOptions(results=tmp_path / "out" / "extraction.md")
    facts, _ = collect_facts(model, folder, "lab/tiny", options)
    card = render_card(facts)
    assert "| tiny " in card and "| whole " not in card
    assert "was not evaluated" not in card
    with pytest.raises(PublishingError, match="of tiny, whole, not of lab/other"):
        collect_facts(model, folder, "lab/other", options)
