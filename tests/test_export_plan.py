"""The command that writes plan files."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_builders.plans.export_plan import main
from data_builders.plans.plan_files import PlanFile


def test_the_command_line_exports_the_split_of_a_recipe(
    corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "stage: extraction\ncondition: noisy\noutput_dir: results\nlearning_rate: 1.0e-3\n"
        "targets: [ravdess]\ninterferers: [emodb]\nsnr_range_db: [-5.0, 5.0]\n"
        "eval_snr_range_db: [3.0, 3.0]\nspeed_factors: [0.9]\nmixing_seed: 4\n"
    )
    output = tmp_path / "plans" / "test.parquet"
    emodb = tmp_path / "somewhere"
    emodb.symlink_to(corpora / "emodb")
    arguments = ["--config", str(recipe), "--split", "test", "--output", str(output), "--fold", "2"]
    arguments += ["--corpus_dir", str(corpora), "--cache_dir", str(corpora / "cache")]
    main([*arguments, "--corpus_dirs", f"emodb={emodb}"])
    assert capsys.readouterr().out == f"{output}: 32 mixtures of the test split\n"
    metadata = PlanFile(output).metadata
    assert metadata["options"]["fold"] == 2
    assert metadata["options"]["mixing_seed"] == 4
    row = PlanFile(output).row(0)
    assert row["speaker_id"] == "ravdess_05"
    assert [one["snr_db"] for one in row["interferers"]] == [3.0]
    assert row["target_speed"] == 1.0
    recipe.write_text("targets: [ravdess]\ntrim_silense: true\n")
    assert main(arguments) == 2
    assert "unknown key 'trim_silense': did you mean 'trim_silence'?" in capsys.readouterr().err
    assert main([*arguments, "--epoch", "2"]) == 2
    assert "unknown argument --epoch: did you mean '--epochs'" in capsys.readouterr().err
