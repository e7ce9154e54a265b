"""Every command and every block of code in the pages works as it stands there.

Python is run, with tiny models and corpora in place of what a reader has; for a command its program
is asked whether it takes the arguments. A block that can be neither run nor asked says so, and why:

    <!-- not run: needs an endpoint, see tests/test_endpoint_http.py -->
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import yaml
from corpus_layouts import burst
from documented_blocks import Block, read_blocks, read_inline_commands, split_commands
from documented_programs import PROGRAMS, CommandProblemError, check_command
from paper_corpora import write_paper_corpora
from subprocesses import run_program
from synthetic_speech import speech
from tiny_models import tiny_tse_ser

from modeling import TseSerFeatureExtractor
from tse_ser.cli.main import main as tse_ser
from tse_ser.saving import save_with_code

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
BLOCKS = [block for page in PAGES for block in read_blocks(page)]
ROOT_FILES = ("train.py", "push_to_hub.py", "Makefile")
SHELL = {"bash", "sh", "shell", "console"}
PROSE = {"text", "csv", "latex", "tex", "html", "markdown", "diff"}  # nothing to run
KNOWN = {"", "python", "yaml", "yml", "json", *SHELL, *PROSE}
# What a reader has -> what the sandbox has.
SUBSTITUTIONS = {
    "lab/tse-ser-ft": "results/demo/checkpoint",
    "/data/IEMOCAP": "corpora/iemocap",
    "/data/LibriSpeech": "corpora/librispeech",
    ",hours=105": "",  # the tiny LibriSpeech has seconds
}
FOLDER_EMOTIONS = ("neutral", "neutral", "happy", "sad", "angry")


def kind_of(block: Block) -> str:
    return "shell" if block.language in {"", *SHELL} else block.language


def of_kind(*kinds: str) -> list[Block]:
    return [block for block in BLOCKS if block.reason is None and kind_of(block) in kinds]


# A block with the name of a file is that file, which others import.
PYTHON = [block for block in of_kind("python") if block.file_name is None]


def write_folder_corpora(sandbox: Path) -> None:
    """The corpora of own_corpus.md: a table with its recordings, and a folder of named files."""
    table = ["path,speaker_id,gender,emotion"]
    for speaker in range(8):  # two in each split
        gender = ("female", "male")[speaker % 2]
        for index, emotion in enumerate(FOLDER_EMOTIONS):
            name = f"speaker{speaker}/{index}.wav"
            path = sandbox / "my_recordings" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, burst(10 * speaker + index), 16000)
            table.append(f"{name},speaker{speaker},{gender},{emotion}")
    (sandbox / "my_recordings" / "metadata.csv").write_text("\n".join(table) + "\n")
    theatre = sandbox / "theatre" / "anna" / "angry_017.wav"
    theatre.parent.mkdir(parents=True)
    soundfile.write(theatre, burst(99), 16000)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the pages assume it, with tiny models and corpora."""
    sandbox = tmp_path_factory.mktemp("reader")
    for name in ("recipes", "studies", "docs", "deploy", "pretrained", *ROOT_FILES):
        (sandbox / name).symlink_to(REPOSITORY / name)
    demo = sandbox / "results" / "demo"
    save_with_code(tiny_tse_ser(), demo / "checkpoint", TseSerFeatureExtractor())
    for seed, name in enumerate(("meeting.wav", "meeting.flac", "alice.wav", "a.wav", "b.wav")):
        soundfile.write(sandbox / name, speech(seed, 2.0), 16000)
    (sandbox / "recordings").mkdir()
    for seed, name in enumerate(("monday.wav", "tuesday.flac")):
        soundfile.write(sandbox / "recordings" / name, burst(50 + seed), 16000)
    write_folder_corpora(sandbox)
    write_paper_corpora(sandbox / "corpora")
    for block in BLOCKS:
        if block.file_name is not None:
            (sandbox / block.file_name).parent.mkdir(exist_ok=True)
            (sandbox / block.file_name).write_text(block.text)
    return sandbox


@pytest.fixture(scope="module")
def python_results(sandbox: Path) -> dict[str, str | None]:
    """Runs all Python blocks in one process, from the sandbox; tracebacks by block."""
    blocks = []
    for block in PYTHON:
        code = block.text
        for written, here in SUBSTITUTIONS.items():
            code = code.replace(written, here)
        blocks.append((block.page, str(block), code))
    (sandbox / "blocks.json").write_text(json.dumps(blocks))
    script = REPOSITORY / "tests" / "run_python_blocks.py"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(sandbox)]),
        "HF_HOME": str(sandbox / "hub"),
        "TSE_SER_CACHE": str(sandbox / "cache"),
    }
    run_program([sys.executable, script, "blocks.json", "outcome.json"], sandbox, environment)
    return dict(json.loads((sandbox / "outcome.json").read_text()))


@pytest.fixture()
def at_the_root(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sandbox)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.setenv("TSE_SER_PRETRAINED", "pretrained")


def test_every_block_says_what_it_is_and_why_it_is_not_run() -> None:
    unknown = [f"{block}: {block.language}" for block in BLOCKS if block.language not in KNOWN]
    assert not unknown, f"use one of {sorted(KNOWN)}"
    assert not [str(block) for block in BLOCKS if block.reason is not None and not block.reason]
    assert of_kind("python") and of_kind("shell")


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Block, python_results: dict[str, str | None]) -> None:
    problem = python_results[str(block)]
    assert problem is None, problem


@pytest.mark.parametrize("block", of_kind("shell"), ids=str)
@pytest.mark.usefixtures("at_the_root")
def test_programs_take_their_arguments(block: Block) -> None:
    commands = split_commands(block.text)
    assert commands
    for command in commands:
        check_command(command)


def commands_of(page: str, program: str) -> list[list[str]]:
    """The commands of a page that begin with a program, in their order."""
    blocks = [block for block in of_kind("shell") if block.page == page]
    commands = [command for block in blocks for command in split_commands(block.text)]
    return [command for command in commands if command[: len(program.split())] == program.split()]


@pytest.mark.usefixtures("at_the_root")
def test_the_commands_for_own_recordings_work_one_after_the_other(
    sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(sandbox / "voices", ignore_errors=True)  # of the page's lines of Python
    commands = commands_of("own_recordings.md", "tse-ser")
    assert {command[1] for command in commands} == {"predict", "enroll", "extract"}
    for command in commands:
        assert tse_ser(command[1:]) == 0, capsys.readouterr().err
    assert (sandbox / "alice_only" / "results.csv").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("at_the_root")
def test_the_commands_for_an_own_corpus_audit_train_and_evaluate(sandbox: Path) -> None:
    audit, train, evaluate = commands_of("own_corpus.md", "tse-ser")
    cut = "--max_steps 2 --report_to none --use_cpu true --eval_strategy no --save_strategy no"
    train += [*cut.split(), "--load_best_model_at_end", "false"]
    places = {"PYTHONPATH": str(REPOSITORY), "TSE_SER_CACHE": str(sandbox / "cache")}
    for command in (audit, train, evaluate):
        program = [sys.executable, "-m", "tse_ser", *command[1:]]
        printed = run_program(program, sandbox, {**os.environ, **places})
    assert '"wa"' in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("at_the_root")
def test_commands_in_the_prose_have_flags_that_exist(page: Path) -> None:
    for command in read_inline_commands(page, PROGRAMS):
        for words in split_commands(command):
            check_command(words, complete=False)


@pytest.mark.parametrize("block", of_kind("yaml", "yml", "json"), ids=str)
def test_data_can_be_parsed(block: Block) -> None:
    parse: Any = json.loads if block.language == "json" else yaml.safe_load
    assert parse(block.text) is not None


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("frobnicate --now", "unknown command"),
        ("tse-ser predict --model M --mixture F --enrolment F", "required|unrecognized"),
        ("tse-ser forget --model M", "invalid choice"),
        ("make dinner", "no target"),
        ("python -m evaluation.nothing", "no module"),
        ("python nothing.py", "no file"),
        ("python deploy/space/app.py --modle M", "modle"),
        ("python -m tse_ser.evaluation.tables results.parquet --outptu o", "required|unrecognized"),
        ("snakemake -s studies/nothing/Snakefile -n", "does not exist"),
        ("snakemake -s studies/demo/Snakefile --cores 2 --config flods=[1]", "flods"),
        ("python -m tse_ser.evaluation.evaluate_checkpoint --model M --conditon noisy", "conditon"),
        ("accelerate launch train.py --config recipes/nothing.yaml", "does not exist"),
        ("accelerate launch train.py --stge joint", "stage"),
        ("accelerate launch --config_file recipes/accelerate/no.yaml train.py", "does not exist"),
        ("pip install -e '.[nonsense]'", "no extra"),
        ("export A=1 && frobnicate", "unknown command"),
        ("A=1 python push_to_hub.py --model M", "repo_id is needed"),
    ],
)
@pytest.mark.usefixtures("at_the_root")
def test_a_command_that_would_not_work_is_found(command: str, problem: str) -> None:
    with pytest.raises(CommandProblemError, match=problem):
        for words in split_commands(command):
            check_command(words)
