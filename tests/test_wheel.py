"""The wheel: built, installed where the checkout cannot be seen, and used from there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import site
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from subprocesses import run_program
from tiny_models import tiny_tse_ser
from tiny_publishing import RAVDESS, write_training

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
FOLDERS = ("modeling", "data_builders", "tse_ser", "recipes", "studies", "model_cards", "deploy")
CUT_SHORT = (
    "--max_steps 2 --report_to none --use_cpu true --eval_strategy no --save_strategy no "
    "--load_best_model_at_end false"
)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel, and a working folder without the project."""

    programs: Path  # folder of its programs
    folder: Path  # the working folder

    def run(self, line: str) -> str:
        """Runs one of the environment's programs in the working folder; gives what it prints."""
        program, *words = shlex.split(line)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        } | {"CUDA_VISIBLE_DEVICES": ""}
        return run_program([self.programs / program, *words], self.folder, environment, 600)


def pip(line: str, python: str | Path, folder: Path) -> None:
    command, *words = shlex.split(line)
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run([python, "-m", "pip", command, *quiet, *words], cwd=folder, check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as an old `build/` of the checkout would be packed as well."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copy(REPOSITORY / name, source)
    for name in FOLDERS:
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".snakemake", "results")
            shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    pip("wheel --no-build-isolation --wheel-dir dist .", sys.executable, source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in a new environment; torch and the other libraries are those of this one."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    pip(f"install --no-index {wheel}", environment / "bin" / "python", environment)
    # A folder that a .pth file names brings its packages, and not what its own .pth files name:
    # an editable installation of the checkout stays out of sight.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return Installation(environment / "bin", tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def model(installation: Installation) -> Path:
    """A small joint model, as a training leaves it, and two recordings."""
    folder = installation.folder / "model"
    write_training(folder, tiny_tse_ser(), ["--stage", "joint", *RAVDESS])
    for seed, name in enumerate(("mixture", "enrollment")):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(16_000)
        soundfile.write(installation.folder / f"{name}.wav", noise, 16_000)
    return folder


def test_the_checkout_is_out_of_sight(installation: Installation) -> None:
    (installation.folder / "look.py").write_text(
        "import data_builders, importlib.util, json, modeling, tse_ser\n"
        "packages = [one.__path__[0] for one in (data_builders, modeling, tse_ser)]\n"
        "scripts = [name for name in ('train', 'push_to_hub') if importlib.util.find_spec(name)]\n"
        "print(json.dumps([packages, scripts]))"
    )
    packages, scripts = json.loads(installation.run("python look.py"))
    assert all(path.startswith(str(installation.programs.parent)) for path in packages), packages
    assert scripts == []


@pytest.mark.usefixtures("model")
def test_it_predicts(installation: Installation) -> None:
    answer = installation.run(
        "tse-ser predict --model model --mixture mixture.wav --enrollment enrollment.wav --json"
    )
    labels = [one["label"] for one in json.loads(answer)["emotions"]]
    assert sorted(labels) == ["angry", "happy", "neutral", "sad"]


def test_it_trains_with_a_recipe_of_its_own_and_publishes(installation: Installation) -> None:
    installation.run(
        "tse-ser train --config recipes/generated/1_extraction.yaml --output_dir trained "
        f"{CUT_SHORT}"
    )
    facts = json.loads((installation.folder / "trained" / "training_facts.json").read_text())
    assert facts["steps"] == 2
    said = installation.run(
        "tse-ser push --model trained --repo_id lab/extractor --not_evaluated --dry_run"
    )
    assert "Nothing was uploaded" in said


@pytest.mark.usefixtures("model")
def test_it_builds_the_folder_of_a_hub_repository(installation: Installation) -> None:
    installation.run(
        "tse-ser push --model model --repo_id lab/tse-ser-ft --not_evaluated --dry_run "
        "--output_dir built"
    )
    built = installation.folder / "built"
    names = {path.name for path in built.iterdir()}
    assert {"README.md", "handler.py", "pipeline_tse_ser.py"} <= names
    handler = REPOSITORY / "deploy" / "endpoint" / "handler.py"
    assert (built / "handler.py").read_bytes() == handler.read_bytes()


def test_it_runs_a_study_of_two_steps(installation: Installation) -> None:
    if not (REPOSITORY / "studies").is_dir():
        pytest.skip("there is no folder studies/ in this checkout")
    line = "python -c \"from tse_ser.resources import folder; print(folder('studies'))\""
    studies = installation.run(line).strip()
    installation.run(
        f"python -m snakemake -s {studies}/demo/Snakefile --cores 1 "
        f"--configfile {studies}/smoke.yaml --config only=[sb_plus_sc] "
        "-- results/smoke/demo.parquet"
    )
    results = installation.folder / "results" / "smoke"
    steps = {path.parent.parent.name for path in results.glob("steps/*/*/training_facts.json")}
    assert steps == {"extractor", "sb_sc", "sb_plus_sc"}
    assert (results / "demo.parquet").is_file()


def test_it_holds_every_module_and_every_recipe(wheel: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True
    )
    packed = {line.split()[0] for line in listed.stdout.splitlines()[1:]}
    for room in ("modeling", "data_builders", "tse_ser"):
        for path in (REPOSITORY / room).rglob("*.py"):
            assert path.relative_to(REPOSITORY).as_posix() in packed
    for room in ("recipes", "model_cards"):
        for path in (REPOSITORY / room).rglob("*.*"):
            assert f"tse_ser/{path.relative_to(REPOSITORY).as_posix()}" in packed
