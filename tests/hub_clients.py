"""Processes that talk to a `HubServer` as a user's machine does: elsewhere, with an empty cache."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

from hub_routes import TOKEN
from hub_server import HubServer
from packaging.requirements import Requirement
from subprocesses import run_program

ROOMS = ("modeling", "data_builders", "tse_ser")
# `python -I -S` reads no `.pth` file, which is how an editable installation offers this repository
# to every process, and leaves the working folder and PYTHONPATH out.
ISOLATED = """
import importlib.util, sys
sys.path.append({site!r})
found = [room for room in {rooms!r} if importlib.util.find_spec(room)]
assert not found, f"this repository is on the path: {{found}}"
"""


def link_packages(folder: Path, *names: str) -> Path:
    """Makes a folder of packages, as if they alone had been installed, from what is installed here.

    Args:
        folder: folder to make; it gets links to the packages and to all that these require.
        names: distributions, as pip wants them.

    Returns:
        The folder, for `run_isolated`.
    """
    folder.mkdir()
    pending = [Requirement(name) for name in names]
    seen: set[str] = set()
    while pending:
        wanted = pending.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        distribution = importlib.metadata.distribution(wanted.name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not link.is_symlink():
                link.symlink_to(Path(str(distribution.locate_file(top))).resolve())
        for line in distribution.requires or ():
            required = Requirement(line)
            extras = wanted.extras or {""}
            if required.marker is None or any(
                required.marker.evaluate({"extra": extra}) for extra in extras
            ):
                pending.append(required)
    return folder


def hub_environment(server: HubServer, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    """Environment of a process whose Hub is the server and whose caches are below a folder."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and name != "PYTHONPATH"
    }
    environment |= {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        # `datasets` counts downloads at another address than HF_ENDPOINT.
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return environment if token is None else environment | {"HF_TOKEN": token}


def run_isolated(
    program: str, site: Path, folder: Path, environment: dict[str, str], *arguments: str
) -> Any:
    """Runs a program that can import the packages of a folder, and nothing of this repository.

    Args:
        program: Python source; the last line that it prints is JSON.
        site: see `link_packages`.
        folder: working folder, outside of the repository.
        environment: see `hub_environment`.
        arguments: `sys.argv[1:]`.

    Returns:
        What the program printed.
    """
    prelude = ISOLATED.format(site=str(site), rooms=ROOMS)
    return _run(["-I", "-S", "-c", prelude + program, *arguments], folder, environment)


def run_installed(program: str, folder: Path, environment: dict[str, str], *arguments: str) -> Any:
    """Runs a program on a machine where this project is installed; see `run_isolated`."""
    tests = Path(__file__).resolve().parent
    paths = os.pathsep.join([str(tests.parent), str(tests)])
    return _run(["-c", program, *arguments], folder, {**environment, "PYTHONPATH": paths})


def _run(arguments: list[str], folder: Path, environment: dict[str, str]) -> Any:
    printed = run_program([sys.executable, *arguments], folder, environment)
    return json.loads(printed.splitlines()[-1])
