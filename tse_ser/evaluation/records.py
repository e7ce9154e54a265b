"""What is on disk about steps and cells: made with which settings, and whether they are done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tse_ser.evaluation.study import Cell, Step, StudyError

STEP_RECORD = "step.json"  # in a step's folder: whether it is done, with which settings


def is_done(unit: Step | Cell) -> bool:
    """Whether the result of a step or cell is complete and made with these settings.

    Args:
        unit: step or cell.

    Returns:
        Whether there is nothing left to do.

    Raises:
        StudyError: if a step has a result or checkpoint that was made with other settings. A cell
            with other settings is simply not done: it takes seconds, a training perhaps a night.
    """
    record = read_record(unit)
    same = record.get("fingerprint") == unit.fingerprint
    if isinstance(unit, Cell):
        return same
    if record and not same and (record["done"] or [*unit.output_dir.glob("checkpoint-*")]):
        raise StudyError(
            f"{unit.output_dir} was made with other settings (its config.yaml): delete this folder "
            "to make it again, or give another --output_dir"
        )
    return same and bool(record["done"])


def read_record(unit: Step | Cell) -> dict[str, Any]:
    """What is on disk about a step or cell: its fingerprint and minutes, or nothing."""
    return read_json(unit.path if isinstance(unit, Cell) else unit.output_dir / STEP_RECORD)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty where it is missing or was cut off."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
