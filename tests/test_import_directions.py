"""Who may import whom: the rooms of the project, read from the sources without importing them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = {"data_builders", "modeling", "tse_ser"}

# Modules of the project that each room may import besides its own; a dotted name allows no more
# than that module.
PROJECT_IMPORTS: dict[str, set[str]] = {
    "modeling": set(),
    "data_builders": set(),
    "tse_ser": {"modeling", "data_builders"},
    "train.py": {"tse_ser", "modeling", "data_builders"},
    "push_to_hub.py": {"tse_ser"},
    "deploy": set(),
}
# Modules of tse_ser that stand in no room: every room may import them.
SHARED = {f"tse_ser.{name}" for name in ("machine", "options", "paper", "resources", "saving")}
# Which rooms of tse_ser each room may import besides its own. The command names the programs that
# it hands its words to, and imports none itself.
INNER_IMPORTS: dict[str, set[str]] = {
    "tse_ser/conversion": set(),
    "tse_ser/evaluation": {"tse_ser.publishing.corpora"},
    "tse_ser/training": {"tse_ser.evaluation.metrics"},
    "tse_ser/publishing": {"tse_ser.conversion.checkpoint_card", "tse_ser.training.facts"},
    "tse_ser/cli": set(),
}
# Libraries of the rooms that travel alone (to the Hub, into a data pipeline, into `evaluate`);
# the other rooms may use whatever pyproject.toml installs.
LIBRARIES = {
    "modeling": {
        "torch",
        "transformers",
        "numpy",
        "huggingface_hub",
        "safetensors",
        "soundfile",
    },
    "data_builders": {
        "datasets",
        "numpy",
        "pandas",
        "soundfile",
        "scipy",
        "torch",
        "torchaudio",
        "espeakng_loader",
        "filelock",
        "huggingface_hub",
        "pyarrow",
        "pyloudnorm",
        "yaml",
    },
    "tse_ser/evaluation/metrics": {"evaluate", "datasets", "numpy"},
    "deploy": {"transformers", "torch", "numpy", "gradio", "soundfile", "PIL"},
}


def sources(place: str) -> list[Path]:
    path = REPOSITORY / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted module) of each absolute import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from evaluation import prediction` names a module of the package.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in names)


def relative_imports(path: Path) -> Iterator[tuple[int, int, str]]:
    """Yields (line, level, module) of each relative import."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            yield node.lineno, node.level, node.module or ""


def is_within(module: str, allowed: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("place", PROJECT_IMPORTS)
def test_a_room_imports_only_the_rooms_below_it(place: str) -> None:
    allowed = PROJECT_IMPORTS[place] | {place}
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {module}"
        for path in sources(place)
        for line, module in imported_modules(path)
        if module.split(".")[0] in ROOMS and not is_within(module, allowed)
    ]
    assert not wrong, f"{place} may import {sorted(allowed)} only: {wrong}"


@pytest.mark.parametrize("place", INNER_IMPORTS)
def test_a_room_of_tse_ser_imports_only_the_rooms_below_it(place: str) -> None:
    allowed = SHARED | INNER_IMPORTS[place] | {place.replace("/", ".")}
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {module}"
        for path in sources(place)
        for line, module in imported_modules(path)
        if module.count(".") > 1
        and module.startswith("tse_ser.")
        and not is_within(module, allowed)
    ]
    assert not wrong, f"{place} may import {sorted(allowed)} only: {wrong}"


@pytest.mark.parametrize("place", LIBRARIES)
def test_a_room_that_travels_alone_imports_only_its_libraries(place: str) -> None:
    # A Space is a folder of its own, whose modules lie side by side.
    siblings = {path.stem for path in sources(place)} if place == "deploy" else set()
    allowed = LIBRARIES[place] | ROOMS | set(sys.stdlib_module_names) | siblings
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {module}"
        for path in sources(place)
        for line, module in imported_modules(path)
        if module.split(".")[0] not in allowed
    ]
    assert not wrong, f"{place} may import {sorted(LIBRARIES[place])} only: {wrong}"


def test_modeling_uses_flat_relative_imports_only() -> None:
    # The Hub copies a model's code file by file: it follows `from .x import y` and nothing else.
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sources("modeling")
        for line, level, module in relative_imports(path)
        if level != 1 or "." in module or (not module and path.name != "__init__.py")
    ]
    assert not wrong
    assert not [path for path in sources("modeling") if path.parent.name != "modeling"]


def test_a_metric_module_imports_nothing_of_the_project() -> None:
    # `evaluate.load` copies the one file, and wants one plain import a line.
    for path in sources("tse_ser/evaluation/metrics"):
        assert not list(relative_imports(path)), path
        modules = {module.split(".")[0] for _, module in imported_modules(path)}
        assert not modules & ROOMS, path


def test_the_rooms_that_the_design_names_exist() -> None:
    assert all(sources(room) for room in ROOMS | {"tse_ser/evaluation/metrics", "train.py"})
