"""Recipes, cards and handler are found in a checkout and in a wheel, from whatever folder."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tse_ser import resources
from tse_ser.cli.main import build_parser, main
from tse_ser.cli.programs import PROGRAMS

RECIPE = "recipes/generated/2_joint.yaml"


@pytest.fixture()
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder as a wheel has it: with the data inside."""
    package = tmp_path / "site-packages" / "tse_ser"
    (package / RECIPE).parent.mkdir(parents=True)
    (package / RECIPE).write_text("stage: joint\n")
    monkeypatch.setattr(resources, "PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    return package


def test_a_checkout_has_the_folders_beside_the_package() -> None:
    for name in ("recipes", "model_cards", "deploy/endpoint"):
        assert resources.folder(name).samefile(resources.PACKAGE.parent / name)
    with pytest.raises(FileNotFoundError, match="the folder nothing of tse-ser is missing"):
        resources.folder("nothing")


def test_a_recipe_of_the_working_folder_goes_before_that_of_the_package(
    wheel: Path, tmp_path: Path
) -> None:
    assert resources.find(RECIPE) == wheel / RECIPE
    (tmp_path / RECIPE).parent.mkdir(parents=True)
    (tmp_path / RECIPE).write_text("stage: joint\n")
    assert resources.find(RECIPE) == Path(RECIPE)


@pytest.mark.usefixtures("wheel")
def test_only_names_of_the_packages_files_are_changed(wheel: Path) -> None:
    words = ["--config", RECIPE, "recipes/mine.yaml", "--lr", "1e-3", "", "./a//b", "s3://recipes"]
    assert resources.find_in_words(words) == ["--config", str(wheel / RECIPE), *words[2:]]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_the_command_says_what_it_takes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.util.find_spec(PROGRAMS[name][0]) is not None
    assert name in build_parser().format_help()
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert "--" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--stge", "joint"], "stage"),
        (["push", "--model", "x", "--repo_id", "lab/x", "--foo", "1"], "unknown argument --foo"),
        (["push", "--repo_id", "lab/x"], "one of --model and --plan is required"),
    ],
)
def test_a_wrong_line_ends_in_one_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_help_of_the_command_does_not_wait_for_torch() -> None:
    program = (
        "import sys; from tse_ser.cli.main import main\n"
        "try:\n    main(['--help'])\nfinally:\n    assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
