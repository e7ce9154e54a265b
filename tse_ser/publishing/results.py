"""The numbers of one model, from the cells that measured it, and the paper's beside them."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from modeling import EXTRACTORS
from tse_ser.paper import BEST_ON_TEST, paper_results, row_key
from tse_ser.publishing.corpora import base_name, find_corpora, listed, titles
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.lineage import DATA_FACTS, plain_values, read_json
from tse_ser.publishing.training_description import snr_words, span

TASK_NAMES = {
    "audio-classification": "Speech emotion recognition",
    "audio-to-audio": "Target speaker extraction",
}
FIGURES = ("ua_percent", "wa_percent", "si_sdri_db")
CELL_KEYS = {"checkpoint", "condition", "num_examples", "ua", "wa", "si_sdri_db"}
# What of a cell goes to the Hub: no folder of this machine, and no row of a single utterance, which
# would name what stands in a licensed corpus. Of corpora the name alone: options may hold paths.
PUBLISHED = (
    *("name", "system", "model", "method", "train_set", "test_set", "condition", "split", "fold"),
    *("seed", "condition_label", "condition_value", "protocol", "optimistic"),
    *DATA_FACTS,
    *("classes", "num_examples", "wa", "ua", "per_class_recall", "confusion"),
    *("si_sdr_mixture_db", "si_sdr_extracted_db", "si_sdri_db", "detection"),
    *("by_interferer_corpus", "by_gender_state", "minutes", "machine", "versions"),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One test of the model."""

    test_set: str  # what the model heard, in words: speech, interferers, gender state, SNR
    dataset_id: str  # the corpus, by its Hub id where it has one
    ua_percent: float | None  # mean of the recalls of the classes
    wa_percent: float | None  # share of utterances that are right
    si_sdri_db: float | None  # improvement of the SI-SDR
    paper: Mapping[str, float]  # what the paper has of these three in the same row
    published: Mapping[str, Any]  # what goes to the Hub as data, `PUBLISHED` of the cell

    @property
    def optimistic(self) -> bool:
        """Whether the epoch was chosen on the test session."""
        return bool(self.published["protocol"] == BEST_ON_TEST)

    def eval_results(self, pipeline_tag: str) -> list[EvalResult]:
        """The numbers of this model, and no others, for the `model-index` of its card: UA,
        WA and SI-SDRi, as far as the test has them."""
        metrics = (
            ("recall", "UA (%), mean recall of the classes", self.ua_percent),
            ("accuracy", "WA (%), accuracy", self.wa_percent),
            ("si_sdr", "SI-SDRi (dB)", self.si_sdri_db),
        )
        return [
            EvalResult(
                task_type=pipeline_tag,
                task_name=TASK_NAMES[pipeline_tag],
                dataset_type=self.dataset_id,
                dataset_name=f"{self.test_set}, fold {self.published['fold']}",
                dataset_config=str(self.published.get("name") or self.published["condition"]),
                dataset_split=self.published["split"],
                metric_type=metric_type,
                metric_name=name + ", best epoch on the test set: optimistic" * self.optimistic,
                metric_value=value,
            )
            for metric_type, name, value in metrics
            if value is not None
        ]


def read_results(source: Path, model_dir: Path, model_type: str) -> tuple[Result, ...]:
    """The tests that were made with a model.

    Args:
        source (`Path`): a cell, a folder with cells anywhere below, or that of a study, whose
            `study.json` says what its tests are called.
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
    extracts_only = model_type in EXTRACTORS
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
            + ": measure it with tse-ser evaluate --output, or say --not_evaluated"
        )
    return tuple(as_result(cell, has_emotions=not extracts_only) for cell in own)


def as_result(cell: Mapping[str, Any], *, has_emotions: bool) -> Result:
    """One cell, as evaluation wrote it, as a test of the model; `has_emotions` says whether UA
    and WA are this model's own."""
    # Protocol best_on_test measures WA with another epoch's weights, which are not published.
    own_wa = "wa_checkpoint" not in cell
    published = {key: cell[key] for key in PUBLISHED if key in cell and (own_wa or key != "wa")}
    for role in ("targets", "interferers"):
        published[role] = [base_name(name) for name in listed(cell.get(role))]
    (corpus,) = find_corpora(listed(cell["targets"])[:1], None)
    si_sdri_db = cell["si_sdri_db"]
    return Result(
        test_set=_test_set(cell),
        dataset_id=corpus.hub_id or corpus.name,
        ua_percent=_percent(cell["ua"]) if has_emotions else None,
        wa_percent=_percent(cell["wa"]) if has_emotions and own_wa else None,
        si_sdri_db=None if si_sdri_db is None else round(si_sdri_db, 2),
        paper=paper_figures(cell),
        published=plain_values(published),
    )


def paper_figures(cell: Mapping[str, Any]) -> dict[str, float]:
    """What the paper reports in the row that a cell belongs to, of `ua_percent`, `wa_percent`
    and `si_sdri_db`."""
    figures: dict[str, float] = {}
    paper = paper_results()
    tables = [paper["tables"][name] for name in cell.get("tables") or () if name in paper["tables"]]
    for table in [*tables, *([paper["extraction"]] if tables else [])]:
        wanted = row_key(cell, table["columns"])
        for row in table["rows"]:
            if row_key(row, table["columns"]) == wanted:
                figures |= {name: row[name] for name in FIGURES if name in row}
    return figures


def _test_set(cell: Mapping[str, Any]) -> str:
    targets = titles(cell["targets"])
    lowpass_hz = cell.get("lowpass_hz")
    low_passed = [f"low-passed at {lowpass_hz:g} Hz"] if lowpass_hz else []
    if cell["condition"] != "noisy":
        return ", ".join([targets, cell["condition"], *low_passed])
    gender, speakers = cell.get("gender_state", "any"), cell.get("num_speakers") or [2]
    enrollment = cell.get("enrollment_emotion", "neutral")
    emotions = cell.get("interferer_emotions") or ()
    pauses = cell.get("target_pause_range_seconds") or (0.0, 0.0)
    noise_db = cell.get("noise_snr_range_db") or (0.0, 0.0)
    # What is not as in the paper's plain mixtures of two speakers.
    more = {
        f"{gender} gender": gender != "any",
        f"{' to '.join(map(str, speakers))} speakers": list(speakers) != [2],
        f"interferers {' or '.join(emotions)}": bool(emotions),
        f"noise at {span(noise_db)}": bool(cell.get("noise_dir")),
        "rooms": cell.get("reverberation", "none") != "none",
        f"pauses of {span(pauses, 's')} around the target": pauses[-1] > 0,
        f"enrollment {enrollment or 'of any emotion'}": enrollment != "neutral",
        f"target absent in {cell.get('absent_share', 0):.0%}": cell.get("absent_share", 0) > 0,
    }
    words = [f"{targets} with {titles(cell['interferers'])} at {snr_words(cell)}"]
    return ", ".join([*words, *(name for name, is_so in more.items() if is_so), *low_passed])


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
