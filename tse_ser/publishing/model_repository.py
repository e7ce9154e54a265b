"""The repository of a model: weights, code, card, endpoint handler, sample, facts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from modeling.audio_reading import read_waveform
from tse_ser import resources
from tse_ser.publishing.cards import CardFacts, collect_facts, render_card
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.lineage import EARLIER_KEY, FACTS_NAME, Lineage, published_facts
from tse_ser.publishing.options import PublishingOptions, Samples
from tse_ser.publishing.repository import CARD_NAME, build_folder
from tse_ser.publishing.training_description import is_conversion
from tse_ser.saving import CONVERSION_FACTS_NAME, load_saved, save_with_code

ENDPOINT_FILES = ("handler.py", "requirements.txt")
RESULTS_NAME = "results.json"
MAX_SAMPLE_SECONDS = 30.0


def build_model_repository(
    model_dir: str | Path,
    output_dir: str | Path,
    repo_id: str,
    options: PublishingOptions | None = None,
) -> Path:
    """Builds the folder that goes to the Hub, complete and checked, of a folder that a training
    wrote; `output_dir` is missing or empty, `repo_id` goes into the card. Raises
    `PublishingError` where a fact is missing, or something must not be published: there is no
    folder then."""
    source, options = Path(model_dir), options or PublishingOptions()
    try:
        model, feature_extractor = load_saved(source)
    except ValueError as error:
        raise PublishingError(f"--model: {error}") from error
    if options.dtype is not None:
        model = model.to(getattr(torch, options.dtype))
    facts, lineage = collect_facts(model, source, repo_id, options)
    card = render_card(facts)

    def fill(folder: Path) -> None:
        save_with_code(model, folder, feature_extractor)
        if options.dtype is not None:
            _load_in_float32(folder)
        (folder / CARD_NAME).write_text(card, encoding="utf-8")
        _write_facts(folder, facts, lineage)
        if facts.samples is not None:
            _write_samples(facts.samples, folder / "sample", facts.sampling_rate)
        if facts.model_type == "tse_ser":
            for name in ENDPOINT_FILES:
                shutil.copyfile(resources.folder("deploy/endpoint") / name, folder / name)

    return build_folder(Path(output_dir), "model", fill)


def _load_in_float32(folder: Path) -> None:
    """Rounded weights save space; computing with them is slower on a CPU, and SI-SNR needs more."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    parts = [config]
    for part in parts:
        parts += [value for value in part.values() if isinstance(value, dict)]
        if "dtype" in part:
            part["dtype"] = "float32"
    _write_json(path, config)


def _write_facts(folder: Path, facts: CardFacts, lineage: Lineage) -> None:
    *earlier, own = (published_facts(stage) for stage in lineage.stages)
    name = CONVERSION_FACTS_NAME if is_conversion(own) else FACTS_NAME
    # With what came before, so that a copy of the repository can be trained on and published.
    _write_json(folder / name, {**own, EARLIER_KEY: earlier} if earlier else own)
    if facts.results:
        _write_json(folder / RESULTS_NAME, [dict(result.published) for result in facts.results])


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_samples(samples: Samples, folder: Path, sampling_rate: int) -> None:
    """Both recordings as 16-bit mono WAV, without whatever else the files held."""
    folder.mkdir()
    for name, path in (("mixture", samples.mixture), ("enrollment", samples.enrollment)):
        try:
            waveform = read_waveform(path, sampling_rate)
        except ValueError as error:
            raise PublishingError(f"--sample_{name}: {error}") from error
        seconds = len(waveform) / sampling_rate
        if seconds > MAX_SAMPLE_SECONDS:
            raise PublishingError(
                f"--sample_{name}: {path} lasts {seconds:.0f} s; a sample has at most "
                f"{MAX_SAMPLE_SECONDS:.0f} s, cut it"
            )
        # Integers end at full scale, floats need not.
        waveform = waveform / max(1.0, float(np.abs(waveform).max()))
        soundfile.write(folder / f"{name}.wav", waveform, sampling_rate, subtype="PCM_16")
