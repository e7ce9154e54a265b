"""Results of studies that nobody ran, for the tests of tables, figures and report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tse_ser.evaluation.results import Results, collect_results, read_results

CLASSES = ["neutral", "happy", "sad", "angry"]
MACHINE = {"cpu": "Some CPU", "cores": 2, "gpu": None}


def labels(system: str, train_set: str, test_set: str, *tables: str, **more: str) -> dict[str, Any]:
    """What a study says of a test."""
    named = {"system": system, "train_set": train_set, "test_set": test_set}
    return {"tables": list(tables), **named, **more}


def records(correct: Sequence[int], **changes: Any) -> list[dict[str, Any]]:
    """A record an utterance, lists have one for each: classes in turn, four a speaker."""
    each = {
        name
        for name, value in changes.items()
        if isinstance(value, list) and len(value) == len(correct)
    }
    return [
        {"utterance_id": f"u{index}", "speaker_id": f"s{index // 4}", "label": index % 4}
        | {"prediction": index % 4 if right else (index + 1) % 4}
        | {name: value[index] if name in each else value for name, value in changes.items()}
        for index, right in enumerate(correct)
    ]


def evaluation(utterances: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """What `evaluate_checkpoint` would write, as far as results take it."""
    return {
        "checkpoint": "../../steps/model",
        "classifier_checkpoint": None,
        "condition": "noisy",
        "fold": 1,
        "seed": 0,
        "targets": ["ravdess"],
        "interferers": ["emodb", "asterisk"],
        "classes": CLASSES,
        "minutes": 0.5,
        "machine": MACHINE,
        "versions": {"python": "3.11"},
        "optimistic": False,
        "utterances": utterances,
        **changes,
    }


def write_study(
    folder: Path,
    tests: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]],
    protocol: str = "validated",
    minutes: Sequence[float] = (),
) -> Path:
    """A folder as the rules of `studies/` leave it, with its results collected.

    Args:
        folder: to write.
        tests: labels and evaluations by name.
        protocol: of the study.
        minutes: of its trainings.

    Returns:
        Its Parquet file.
    """
    names = []
    for name, (_, evaluations) in tests.items():
        for content in evaluations:
            path = folder / "tests" / name / f"fold-{content['fold']}_seed-{content['seed']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
            names.append(str(path.relative_to(folder)))
    for index, spent in enumerate(minutes):
        facts = folder / "steps" / f"step{index}" / "fold-1_seed-0" / "training_facts.json"
        facts.parent.mkdir(parents=True)
        facts.write_text(json.dumps({"minutes": spent, "machine": MACHINE}))
    study: dict[str, Any] = {"study": "tiny", "protocol": protocol, "results": names}
    study["tests"] = {name: test_labels for name, (test_labels, _) in tests.items()}
    (folder / "study.json").write_text(json.dumps(study))
    collect_results(folder / "study.json", folder / "tiny.parquet")
    return folder / "tiny.parquet"


def study(
    folder: Path, tests: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]], **changes: Any
) -> Results:
    """The results of `write_study`, read."""
    return read_results(write_study(folder, tests, **changes))
