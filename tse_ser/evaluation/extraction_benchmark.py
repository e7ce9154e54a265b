"""Scores extractors on voices that none of them was trained on: one command, one table, one plot.

    python -m tse_ser.evaluation.extraction_benchmark --corpus_dir DIR \\
        --output_dir docs/extraction --extractors pretrained/td-speakerbeam-read

An extractor is a folder or Hub id of one of our models (a checkpoint of ESPnet's or asteroid's
form after `tse_ser.conversion.checkpoint_conversion`), or anybody's function `package.module:name`:
it takes a mixture and an enrollment, float32 arrays of shape `(num_samples,)` at 16 kHz, and gives
the extracted speech at the mixture's length. `recipes/voices/benchmark.yaml` has the held-out sets.
Writes `extraction.parquet`, a row a mixture, and `extraction.md` and `extraction.png` drawn of it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from tqdm.auto import tqdm

from data_builders import load_mixtures
from data_builders.schema import SAMPLING_RATE, CorpusError
from modeling import TdSpeakerBeamForSpeechExtraction, TseSerFeatureExtractor, speaker_similarity
from tse_ser.evaluation.bootstrap import Interval, speaker_interval
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr

# An extractor: (mixture, enrollment) to the extracted speech, and, where it embeds speech, to how
# much that sounds like the enrollment.
Extract = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float | None]]

# What is done with the voices of a set, as keywords of `load_mixtures`.
CONDITIONS: dict[str, dict[str, Any]] = {
    "0 dB": {"snr_range_db": (0.0, 0.0)},
    "+10 dB": {"snr_range_db": (10.0, 10.0)},
    "clean": {"clean_share": 1.0},
    "absent": {"absent_share": 1.0},
}
# Flagging an absent target may cost so many of those that are there.
FALSE_ALARM_RATE = 0.05
RESULTS_NAME = "extraction"
SEED = 0

LEGEND = f"""\
Means over mixtures of one target and one interferer, both held out of every training. *SI-SDRi*:
gain of the target over the mixture, at 0 dB with the 95 % bootstrap interval over speakers. *Wrong
voice*: share of the mixtures at 0 dB whose SI-SDRi is negative. *Clean*: nobody interferes; SI-SDR
of what comes out. *Absent*: the enrolled speaker is not there; level of what comes out against the
mixture, and the share that is flagged at the similarity which flags {FALSE_ALARM_RATE:.0%} of those
who are there. *Real-time factor*: seconds of work a second of audio, on the CPU of the run."""


def main(argv: Sequence[str] | None = None) -> None:
    """Scores the extractors of a command line.

    Args:
        argv (`Sequence[str]`, *optional*): arguments; those of the process if not given.
    """
    arguments = _parse(argv)
    sets = yaml.safe_load(arguments.sets.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = []
    loaded = [load_extractor(name) for name in arguments.extractors]
    names = [display_name for _, display_name in loaded]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two extractors would both be called {twice[0]} in the table: rename the folder of one"
        )
    for extract, display_name in loaded:
        for set_name, keywords in sets.items():
            rows += score(extract, set_name, keywords, arguments.corpus_dir, display_name)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    path = arguments.output_dir / RESULTS_NAME
    results = pd.DataFrame(rows)
    results.to_parquet(path.with_suffix(".parquet"), index=False)
    table = _to_table(results)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    plot(results, path.with_suffix(".png"))
    print(table)


def load_extractor(name: str) -> tuple[Extract, str]:
    """An extractor by its name on the command line.

    Args:
        name (`str`): a folder, a Hub id, or "package.module:function".

    Returns:
        `tuple[Extract, str]`: the extractor, and what tables call it.

    Raises:
        ValueError: there is no such module or function.
    """
    module_name, colon, function_name = name.partition(":")
    if not colon or Path(name).exists():
        return _load_model(name), Path(name).name
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name}: there is no such function ({error}): name it package.module:function, "
            "importable from here"
        ) from error
    return lambda mixture, enrollment: (function(mixture, enrollment), None), function_name


def _load_model(name: str) -> Extract:
    model = TdSpeakerBeamForSpeechExtraction.from_pretrained(name).eval()
    # Whole mixtures, so that what comes out can be compared sample by sample.
    feature_extractor = TseSerFeatureExtractor.from_pretrained(name, keep_speech_only=False)
    config = model.config
    embeds = config.auxiliary_type != "projection" or config.speaker_encoder is not None

    @torch.inference_mode()
    def extract(mixture: np.ndarray, enrollment: np.ndarray) -> tuple[np.ndarray, float | None]:
        features = feature_extractor([mixture], [enrollment], sampling_rate=SAMPLING_RATE)
        output = model(**features)
        similarity = None
        if embeds:
            similarity = speaker_similarity(
                model, output.extracted_values, output.speaker_embeddings
            ).item()
        # Back from the unit level at which the model hears the mixture.
        scale = np.sqrt(np.mean(np.square(mixture, dtype=np.float64)))
        return output.extracted_values[0].numpy() * np.float32(scale), similarity

    return extract


def score(
    extract: Extract,
    set_name: str,
    keywords: dict[str, Any],
    corpus_dir: str | Path | None,
    extractor_name: str,
) -> Iterator[dict[str, Any]]:
    """Scores an extractor on one set, in every condition.

    Args:
        extract (`Extract`): the extractor.
        set_name (`str`): what tables call the set.
        keywords (`dict`): of `load_mixtures`.
        corpus_dir (`str` or `Path`, *optional*): root with one folder a corpus.
        extractor_name (`str`): what tables call the extractor.

    Yields:
        `dict`: a row a mixture: ids, `gender_state`, `si_sdr_db` of the output and `si_sdri_db`
        over the mixture (missing where the target is absent), `level_db` of the output over the
        mixture, `speaker_similarity`, `seconds` of audio and of `processing_seconds`.

    Raises:
        ValueError: the extractor returned another length, or what is no number.
    """
    for condition, changes in CONDITIONS.items():
        options = {"emotions": None, "mixing_seed": SEED, **keywords, **changes}
        mixtures = load_mixtures(split="test", corpus_dir=corpus_dir, **options)
        for index in tqdm(range(len(mixtures)), desc=f"{extractor_name}, {set_name}, {condition}"):
            example = mixtures[index]
            mixture, target = example["mixture"], example["target"]
            started = time.perf_counter()
            extracted, similarity = extract(mixture, example["enrollment"])
            seconds = time.perf_counter() - started
            if extracted.shape != mixture.shape or not np.isfinite(extracted).all():
                raise ValueError(
                    f"{extractor_name} returned shape {extracted.shape} for a mixture of shape "
                    f"{mixture.shape}, or numbers that are not finite"
                )
            row = {
                "extractor": extractor_name,
                "set": set_name,
                "condition": condition,
                **{name: example[name] for name in ("utterance_id", "speaker_id", "gender_state")},
                "level_db": _level_db(extracted) - _level_db(mixture),
                "speaker_similarity": similarity,
                "seconds": mixture.size / SAMPLING_RATE,
                "processing_seconds": seconds,
            }
            if condition != "absent":
                row["si_sdr_db"] = scale_invariant_sdr(extracted, target)
            if condition not in ("absent", "clean"):
                row["si_sdri_db"] = row["si_sdr_db"] - scale_invariant_sdr(mixture, target)
            yield row


def _level_db(waveform: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-12))


def _mean_interval(rows: pd.DataFrame, column: str) -> Interval | None:
    """Mean of a column with its interval over speakers, who are drawn anew; rows without it are
    left out."""
    values = rows[["speaker_id", column]].dropna().rename(columns={column: "value"})
    return speaker_interval(values.assign(label=""), np.random.default_rng(SEED), by_class=False)


def share_flagged(rows: pd.DataFrame) -> float | None:
    """Share of the absent targets that lie below the similarity which flags 5 % of the targets
    in mixtures at 0 dB, of one extractor and set; `None` where the extractor embeds no speech."""
    known = rows.dropna(subset="speaker_similarity")
    present = known.loc[known["condition"] == "0 dB", "speaker_similarity"]
    absent = known.loc[known["condition"] == "absent", "speaker_similarity"]
    if present.empty or absent.empty:
        return None
    return float((absent < present.quantile(FALSE_ALARM_RATE)).mean())


def _to_table(results: pd.DataFrame) -> str:
    """The results in Markdown, a row for each extractor and set."""
    lines = []
    for (extractor, set_name), rows in results.groupby(["extractor", "set"], sort=False):
        at_0_db = rows[rows["condition"] == "0 dB"]
        genders = at_0_db.groupby("gender_state")["si_sdri_db"].mean()
        flagged = share_flagged(rows)
        means = rows.groupby("condition")[["si_sdr_db", "si_sdri_db", "level_db"]].mean()
        lines.append(
            {
                "Extractor": extractor,
                "Voices": set_name,
                "Mixtures": len(at_0_db),
                "Speakers": at_0_db["speaker_id"].nunique(),
                "SI-SDRi at 0 dB (dB)": _with_interval(_mean_interval(at_0_db, "si_sdri_db")),
                "same gender": _number(genders.get("same")),
                "different": _number(genders.get("different")),
                "wrong voice (%)": _number(100 * (at_0_db["si_sdri_db"] < 0).mean()),
                "SI-SDRi at +10 dB": _number(means["si_sdri_db"].get("+10 dB")),
                "clean: SI-SDR (dB)": _number(means["si_sdr_db"].get("clean")),
                "absent: level (dB)": _number(means["level_db"].get("absent")),
                "absent, flagged (%)": _number(None if flagged is None else 100 * flagged),
                "real-time factor": _number(
                    rows["processing_seconds"].sum() / rows["seconds"].sum(), digits=2
                ),
            }
        )
    table = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)
    return f"{LEGEND}\n\n{table}\n"


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _with_interval(value: Interval | None) -> str:
    if value is None:
        return ""
    return f"{value.estimate:.1f} ({value.low:.1f} to {value.high:.1f})"


def plot(results: pd.DataFrame, path: Path) -> None:
    """Draws SI-SDRi at 0 dB with its intervals, a group of bars a set.

    Args:
        results (`DataFrame`): a row a mixture.
        path (`Path`): PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    at_0_db = results[results["condition"] == "0 dB"]
    groups = at_0_db.groupby(["set", "extractor"], sort=False)
    found = {pair: _mean_interval(rows, "si_sdri_db") for pair, rows in groups}
    low, means, high = (
        pd.Series({key: getattr(one, end, np.nan) for key, one in found.items()}).unstack(
            sort=False
        )
        for end in ("low", "estimate", "high")
    )
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    errors = np.stack([(means - low).T, (high - means).T], axis=1)
    means.plot.bar(ax=axes, yerr=errors, width=0.8, capsize=3, rot=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("SI-SDRi at 0 dB (dB)")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tse_ser.evaluation.extraction_benchmark", description=__doc__
    )
    parser.add_argument(
        "--extractors", nargs="+", required=True, help="Folders, Hub ids, or module:function."
    )
    parser.add_argument("--corpus_dir", help="Folder that holds a folder <name> for each corpus.")
    parser.add_argument(
        "--sets",
        type=Path,
        default=Path("recipes/voices/benchmark.yaml"),
        help="The held-out sets.",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder of the results.")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        main()
    except (CorpusError, OSError, ValueError) as error:
        sys.exit(f"extraction_benchmark: error: {error}")
