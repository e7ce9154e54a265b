"""The results of a study: one Parquet file with a row a test utterance, and facts beside it.

    python -m tse_ser.evaluation.results --study results/demo/study.json --output
    results/demo/demo.parquet

`study.json` says what the tests are called (the rules of `studies/` write it); the tests themselves
are files of `tse_ser.evaluation.evaluate_checkpoint`. Every table and figure is drawn from the two
files that this writes: `UTTERANCE_SCHEMA`, and in a JSON file of the same name what a table must
state.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from data_builders.schema import IGNORED_LABEL
from tse_ser.evaluation.prediction import SI_SDR_FIELDS
from tse_ser.evaluation.scoring import score_detection

# What a study says of a test. `tables` are the paper's, such as "II, III"; a test in a condition
# beyond them has its name and value in `condition_label` and `condition_value`.
LABELS = (
    *("tables", "system", "method", "train_set", "test_set", "gender_state"),
    *("condition_label", "condition_value"),
)
TEXTS = (
    *("study", "test", *LABELS, "condition"),
    *("utterance_id", "source_utterance_id", "speaker_id", "interferer_id", "interferer_corpus"),
    *("interferer_gender", "label", "prediction"),
)
NUMBERS = (*SI_SDR_FIELDS, "snr_db", "noise_snr_db", "speaker_similarity")
UTTERANCE_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in TEXTS),
        *(("fold", pa.int32()), ("seed", pa.int32())),
        ("probabilities", pa.list_(pa.float32())),
        *((name, pa.float64()) for name in NUMBERS),
        ("target_absent", pa.bool_()),
    ]
)
RUN = ["test", "fold", "seed"]


@dataclass(frozen=True)
class Results:
    """A study's results, as they are read."""

    # Columns of `UTTERANCE_SCHEMA`; beside them `correct` (1.0 or 0.0, missing where the emotion
    # or the prediction is) and `unit`, the utterance that was mixed
    utterances: pd.DataFrame
    # `study`, `protocol`, `folds`, `seeds`, `targets`, `interferers`, `classes`, `machines`,
    # `training_minutes`, `scoring_minutes`, `optimistic`; `scores` of single runs that their
    # utterances do not give, such as the `wa` of another epoch
    facts: dict[str, Any]
    path: Path  # the Parquet file

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a test, fold and seed: its labels, `num_examples`, `wa`, `ua` (0 to 1), mean
        SI-SDR in dB, and `auc` and `eer` (0 to 1) of the presence of the target."""
        rows = []
        for key, own in self.utterances.groupby(RUN, sort=False):
            labelled = own[own["correct"].notna()]
            row = dict(zip(RUN, key, strict=True)) | own[list(LABELS)].iloc[0].to_dict()
            row |= {"condition": own["condition"].iloc[0], "num_examples": len(own)}
            row["wa"] = labelled["correct"].mean()
            row["ua"] = labelled.groupby("label")["correct"].mean().mean()
            row |= own[list(SI_SDR_FIELDS)].mean().to_dict()
            compared = own[own["speaker_similarity"].notna()]
            detection = score_detection(
                compared["speaker_similarity"].to_numpy(), ~compared["target_absent"].to_numpy(bool)
            )
            row |= {name: detection[name] for name in ("auc", "eer")}
            rows.append(row | self.facts.get("scores", {}).get("/".join(map(str, key)), {}))
        # A label that no test has is a missing word, not a missing number.
        return pd.DataFrame(rows).astype(
            {**dict.fromkeys(LABELS, "str"), "auc": float, "eer": float}
        )

    def of(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The utterances of some of the runs, in their order."""
        return runs[RUN].merge(self.utterances, on=RUN)


def read_results(path: str | Path) -> Results:
    """Reads the results of a study.

    Args:
        path (`str` or `Path`): the Parquet file; its facts lie beside it, with the suffix .json.

    Returns:
        `Results`: with `correct` and `unit`.

    Raises:
        ValueError: a file is missing or no result of a study.
    """
    path = Path(path)
    try:
        utterances = pa.parquet.read_table(path).cast(UTTERANCE_SCHEMA).to_pandas()
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise ValueError(
            f"{path}: expected the results of a study and {path.with_suffix('.json').name} "
            f"beside it, as `python -m tse_ser.evaluation.results` writes them ({error})"
        ) from None
    utterances = utterances.astype(dict.fromkeys(TEXTS, "str"))
    known = utterances["label"].notna() & utterances["prediction"].notna()
    correct = (utterances["label"] == utterances["prediction"]).astype(float).where(known)
    unit = utterances["source_utterance_id"].fillna(utterances["utterance_id"])
    return Results(utterances.assign(correct=correct, unit=unit), facts, path)


def collect_results(study_file: str | Path, output: str | Path) -> None:
    """Puts the tests of a study into one Parquet file, `output`, and the facts about them into
    a JSON file beside it. `study_file` is JSON with `study`, `protocol`, the labels of each
    test by name in `tests`, and the files in `results`, as tests/NAME/fold-1_seed-0.json from
    its folder on."""
    study_file, output = Path(study_file), Path(output)
    study = json.loads(study_file.read_text(encoding="utf-8"))
    tests = {}
    for name in study["results"]:
        test = json.loads((study_file.parent / name).read_text(encoding="utf-8"))
        tests[Path(name).parent.name, test["fold"], test["seed"]] = test
    trainings = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(study_file.parent.glob("steps/*/*/training_facts.json"))
    ]
    rows = [row for key, test in tests.items() for row in _utterance_rows(study, key[0], test)]
    facts = study_facts(study, tests, trainings)
    _write_results(rows, facts, output)


def _utterance_rows(
    study: Mapping[str, Any], name: str, test: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The rows of one test, in the fields of `UTTERANCE_SCHEMA`; what is unknown is missing."""
    labels = {**study["tests"][name]}
    labels["tables"] = ", ".join(labels.get("tables", ())) or None
    common = {"study": study["study"], "test": name, **dict.fromkeys(LABELS), **labels}
    common |= {key: test[key] for key in ("condition", "fold", "seed")}
    for record in test["utterances"]:
        row = {**record, **common, "interferer_gender": record.get("gender_state")}
        row["target_absent"] = record.get("target_absent", False)
        for key in ("label", "prediction"):
            known = record.get(key, IGNORED_LABEL) != IGNORED_LABEL
            row[key] = test["classes"][record[key]] if known else None
        yield {key: row.get(key) for key in UTTERANCE_SCHEMA.names}


def study_facts(
    study: Mapping[str, Any],
    tests: Mapping[tuple[str, int, int], Mapping[str, Any]],
    trainings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the tables of a study must state, see `Results`."""
    every = list(tests.values())
    stated = {
        name: sorted({item for test in every for item in test[name] or ()})
        for name in ("targets", "interferers")
    }
    facts = {
        "study": study["study"],
        "protocol": study["protocol"],
        "folds": sorted({fold for _, fold, _ in tests}),
        "seeds": sorted({seed for _, _, seed in tests}),
        **stated,
        "classes": every[0]["classes"],
        "machines": sorted({_machine(run["machine"]) for run in [*every, *trainings]}),
        "versions": every[0]["versions"],
        "training_minutes": round(sum(training["minutes"] for training in trainings), 2),
        "scoring_minutes": round(sum(test["minutes"] for test in every), 2),
        "optimistic": any(test["optimistic"] for test in every),
    }
    # Under protocol `best_on_test` WA is of another epoch than the predictions.
    facts["scores"] = {
        "/".join(map(str, key)): {"wa": test["wa"]}
        for key, test in tests.items()
        if "wa_checkpoint" in test
    }
    return facts


def _write_results(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], path: Path) -> None:
    """Writes the two files of a study; each is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=UTTERANCE_SCHEMA)
    partial = path.with_suffix(".partial")
    pa.parquet.write_table(table, partial, compression="zstd")
    partial.replace(path)
    partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    partial.replace(path.with_suffix(".json"))


def confusion(utterances: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """How often each true emotion (row) was heard as which: `(num_classes, num_classes)` counts
    of one system on one test set, all folds and seeds."""
    labelled = utterances[utterances["correct"].notna()]
    counts = pd.crosstab(labelled["label"], labelled["prediction"])
    table: np.ndarray = counts.reindex(index=classes, columns=classes, fill_value=0).to_numpy()
    return table


def _machine(machine: Mapping[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return f"{machine['cpu']}, {machine['cores']} cores{gpu}"


def main(argv: Sequence[str] | None = None) -> None:
    """Collects the results that the command line names."""
    parser = argparse.ArgumentParser(description="Put the tests of a study into one Parquet file.")
    parser.add_argument("--study", required=True, help="JSON file with the labels of the tests")
    parser.add_argument("--output", required=True, help="Parquet file to write")
    arguments = parser.parse_args(argv)
    collect_results(arguments.study, arguments.output)


if __name__ == "__main__":
    main()
