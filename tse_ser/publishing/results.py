"""The numbers of one model: the cells that were measured with it, and the paper's beside them."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from tse_ser.publishing.corpora import base_name, find_corpora, listed, titles
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.lineage import plain_values, read_json
from tse_ser.publishing.stages import BEST_ON_TEST, snr_words

PAPER_RESULTS = Path(__file__).resolve().parent.parent / "evaluation" / "paper_results.json"
CELL_KEYS = {"checkpoint", "condition", "num_examples", "ua", "wa", "si_sdri_db"}
# Rows of single utterances name what stands in a licensed corpus.
LEFT_OUT = {"checkpoint", "classifier_checkpoint", "wa_checkpoint", "utterances"}
TASKS = {
    "audio-classification": "Speech emotion recognition",
    "audio-to-audio": "Target speaker extraction",
}


@dataclass(frozen=True)
class Result:
    """One test of the model.

    Attributes:
        cell (`Mapping[str, Any]`): what was measured, as evaluation writes it.
        paper (`Mapping[str, float]`): the paper's `ua_percent`, `wa_percent` and `si_sdri_db` of
            the same row, where it has them.
        has_emotions (`bool`): whether UA and WA are this model's own.
    """

    cell: Mapping[str, Any]
    paper: Mapping[str, float]
    has_emotions: bool

    @property
    def optimistic(self) -> bool:
        """Whether the epoch was chosen on the test session."""
        return bool(self.cell["protocol"] == BEST_ON_TEST)

    @property
    def test_set(self) -> str:
        """What the model heard, in words: speech, interferers, gender state, SNR."""
        cell = self.cell
        targets = titles(cell["targets"])
        if cell["condition"] != "noisy":
            return f"{targets}, {cell['condition']}"
        return f"{targets} with {titles(cell['interferers'])} at {snr_words(cell)}{_more(cell)}"

    @property
    def ua_percent(self) -> float | None:
        """Mean of the recalls of the classes, in per cent."""
        return _percent(self.cell["ua"]) if self.has_emotions else None

    @property
    def wa_percent(self) -> float | None:
        """Share of utterances that are right, in per cent."""
        # Protocol best_on_test measures WA with another epoch's weights.
        is_own = self.has_emotions and "wa_checkpoint" not in self.cell
        return _percent(self.cell["wa"]) if is_own else None

    @property
    def si_sdri_db(self) -> float | None:
        """Improvement of the SI-SDR, in dB."""
        value = self.cell["si_sdri_db"]
        return None if value is None else round(value, 2)


def read_results(source: Path, model_dir: Path, model_type: str) -> tuple[Result, ...]:
    """The cells that were measured with a model.

    Args:
        source (`Path`): a cell, or a folder with cells anywhere below.
        model_dir (`Path`): folder of the model; a cell names the checkpoint that it measured.
        model_type (`str`): of the model's config.

    Returns:
        `tuple[Result, ...]`: sorted by the file's name.

    Raises:
        PublishingError: nothing there was measured with this model.
    """
    folder = source / "tests" if (source / "tests").is_dir() else source
    files = [source] if source.is_file() else sorted(folder.rglob("*.json"))
    cells = [(path, cell) for path in files if _is_cell(cell := _labelled(path))]
    extracts_only = model_type == "td_speakerbeam"
    own = [
        cell
        for path, cell in cells
        if _is_same_model(path, cell["checkpoint"], model_dir)
        # With a classifier behind it, UA and WA are those of both; SI-SDRi is the extractor's own.
        and (extracts_only or cell.get("classifier_checkpoint") is None)
    ]
    if not own:
        found = sorted({str(cell["checkpoint"]) for _, cell in cells})
        raise PublishingError(
            f"--results {source}: none of {len(cells)} cells was measured with {model_dir}"
            + (f" (but with {', '.join(found[:5])})" if found else "")
            + ": measure it with python -m tse_ser.evaluation.evaluate_checkpoint --output, or say "
            "--not_evaluated"
        )
    paper = read_json(PAPER_RESULTS)
    return tuple(Result(cell, paper_figures(cell, paper), not extracts_only) for cell in own)


def published_cells(results: Iterable[Result]) -> list[dict[str, Any]]:
    """The numbers as they go to the Hub: no row of a single utterance, no folder of this machine.

    Args:
        results (`Iterable[Result]`): the tests.

    Returns:
        `list[dict[str, Any]]`: a cell each.
    """
    cells = []
    for result in results:
        left_out = LEFT_OUT | ({"wa"} if "wa_checkpoint" in result.cell else set())
        kept = {key: value for key, value in result.cell.items() if key not in left_out}
        cells.append(plain_values(kept))
    return cells


def paper_figures(cell: Mapping[str, Any], paper: Mapping[str, Any]) -> dict[str, float]:
    """What the paper reports in the row that a cell belongs to.

    Args:
        cell (`Mapping[str, Any]`): with `tables` and the columns that tell its row.
        paper (`Mapping[str, Any]`): `tse_ser/evaluation/paper_results.json`.

    Returns:
        `dict[str, float]`: of `ua_percent`, `wa_percent` and `si_sdri_db` what there is.
    """
    figures: dict[str, float] = {}
    tables = [paper["tables"][name] for name in cell.get("tables") or () if name in paper["tables"]]
    for table in [*tables, *([paper["extraction"]] if tables else [])]:
        for row in table["rows"]:
            if all(_same(cell.get(column), row.get(column)) for column in table["columns"]):
                names = ("ua_percent", "wa_percent", "si_sdri_db")
                figures |= {name: row[name] for name in names if name in row}
    return figures


def _same(ours: Any, papers: Any) -> bool:
    # As in the tables, where the case does not matter.
    return str(ours).lower() == str(papers).lower()


def eval_results(results: Sequence[Result], pipeline_tag: str) -> list[EvalResult]:
    """The numbers of this model, and no others, for the `model-index` of its card.

    Args:
        results (`Sequence[Result]`): the tests.
        pipeline_tag (`str`): the task.

    Returns:
        `list[EvalResult]`: UA, WA and SI-SDRi of each test, as far as it has them.
    """
    return [
        EvalResult(
            task_type=pipeline_tag,
            task_name=TASKS[pipeline_tag],
            dataset_type=_dataset_id(result.cell),
            dataset_name=f"{result.test_set}, fold {result.cell['fold']}",
            dataset_config=str(result.cell.get("name") or result.cell["condition"]),
            dataset_split=result.cell["split"],
            metric_type=metric_type,
            metric_name=name + (", best epoch on the test set: optimistic" * result.optimistic),
            metric_value=value,
        )
        for result in results
        for metric_type, name, value in _metrics(result)
        if value is not None
    ]


def _more(cell: Mapping[str, Any]) -> str:
    """What is not as in the paper's plain mixtures of two speakers."""
    gender, speakers = cell.get("gender_state", "any"), cell.get("num_speakers") or [2]
    said = {
        f"{gender} gender": gender != "any",
        f"{' to '.join(map(str, speakers))} speakers": list(speakers) != [2],
        "noise": bool(cell.get("noise_dir")),
        "rooms": cell.get("reverberation", "none") != "none",
        f"target absent in {cell.get('absent_share', 0):.0%}": cell.get("absent_share", 0) > 0,
    }
    return "".join(f", {words}" for words, is_so in said.items() if is_so)


def _metrics(result: Result) -> tuple[tuple[str, str, float | None], ...]:
    return (
        ("recall", "UA (%), mean recall of the classes", result.ua_percent),
        ("accuracy", "WA (%), accuracy", result.wa_percent),
        ("si_sdr", "SI-SDRi (dB)", result.si_sdri_db),
    )


def _dataset_id(cell: Mapping[str, Any]) -> str:
    name = base_name(listed(cell["targets"])[0])
    corpus = find_corpora([name], {name: name})[0]
    return corpus.hub_id or name


def _labelled(path: Path) -> Any:
    """What a test wrote, with the labels that its study has for it (`studies/`, `study.json`)."""
    content, study = read_json(path), path.parent.parent.parent / "study.json"
    if not isinstance(content, dict) or not study.is_file():
        return content
    labels = read_json(study)["tests"].get(path.parent.name)
    return content if labels is None else {"name": path.parent.name, **content, **labels}


def _is_cell(content: Any) -> bool:
    return isinstance(content, dict) and content.keys() >= CELL_KEYS


def _is_same_model(cell_file: Path, checkpoint: str, model_dir: Path) -> bool:
    """Whether a cell measured the weights of a folder, or those of which these are a copy."""
    # A cell names folders as seen from itself, so that results can be moved.
    measured = (cell_file.parent / checkpoint).resolve()
    if measured == model_dir.resolve():
        return True
    ours, theirs = (folder / "model.safetensors" for folder in (model_dir, measured))
    return ours.is_file() and theirs.is_file() and filecmp.cmp(ours, theirs, shallow=False)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
