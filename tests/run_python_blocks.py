"""Runs the Python blocks of the pages, those of a page one after the other in one namespace.

    python tests/run_python_blocks.py blocks.json results.json

`blocks.json` holds triples of page, name and code; `results.json` gets the traceback of each block
by its name, null for one that ran.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any


def run(code: str, name: str, namespace: dict[str, Any]) -> str | None:
    """Runs a block; its traceback, or None."""
    try:
        exec(compile(code, name, "exec"), namespace)
    except BaseException:
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    blocks, results = Path(sys.argv[1]), Path(sys.argv[2])
    namespaces: dict[str, dict[str, Any]] = {}
    outcome: dict[str, str | None] = {}
    for page, name, code in json.loads(blocks.read_text(encoding="utf-8")):
        outcome[name] = run(code, name, namespaces.setdefault(page, {"__name__": page}))
    results.write_text(json.dumps(outcome), encoding="utf-8")
