"""Rules that the whole repository keeps: sizes, names, and what must not be imported."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CODE = ["modeling", "data_builders", "tse_ser", "deploy"]
# The start of an absolute path into somebody's home or working folder.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work|workspace)/\w")


def python_files() -> list[Path]:
    inside = [path for place in CODE for path in sorted((REPOSITORY / place).rglob("*.py"))]
    return inside + sorted(REPOSITORY.glob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_nothing_reads_pickles_or_evaluates_text(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert not imported & {"pickle", "dill", "cloudpickle", "joblib", "shelve"}
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec"}
    # torch.load unpickles unless it is told to read tensors only.
    loads = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.load"
        and "weights_only=True" not in ast.unparse(node)
    ]
    assert not loads, f"torch.load without weights_only=True in lines {loads}"


def test_no_name_at_the_root_shadows_a_library() -> None:
    at_the_root = {path.stem for path in REPOSITORY.iterdir() if not path.name.startswith(".")}
    assert not at_the_root & {"evaluate", "datasets", "accelerate", "transformers", "torch"}


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("the folder is no git checkout: its own files cannot be told from others")
    kept = {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".cff", ".ipynb", ""}
    wrong = [
        f"{name}: {found.group()}"
        for name in listed.stdout.splitlines()
        if (REPOSITORY / name).suffix in kept and (REPOSITORY / name).is_file()
        for found in MACHINE_PATH.finditer((REPOSITORY / name).read_text(encoding="utf-8"))
    ]
    assert not wrong
