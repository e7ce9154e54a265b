"""The corpora of the paper in their layouts, tiny, and what cuts its study down to them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
import yaml
from corpus_layouts import write_esd, write_iemocap, write_librispeech
from tiny_models import encoder_config, save_encoder
from tiny_training import EXTRACTOR_FIELDS
from transformers import AutoModel

# The layout has six readers, not the study's 105 hours of them.
NOISE = ["librispeech:subsets=train-clean-360"]


def write_paper_corpora(root: Path) -> Path:
    """IEMOCAP, ESD, LibriSpeech, and LibriMix's metadata of that LibriSpeech, as --data_root."""
    write_iemocap(root / "iemocap")
    write_esd(root / "esd")
    speech = write_librispeech(root / "librispeech" / "LibriSpeech")
    for subset in ("train-clean-100", "dev-clean"):
        _write_metadata(root / "librimix" / "Libri2Mix" / f"libri2mix_{subset}.csv", speech, subset)
    return root


def _write_metadata(path: Path, speech: Path, subset: str) -> None:
    """Each utterance once as the first source, one of another speaker as the second."""
    audio = sorted(file.relative_to(speech) for file in speech.glob(f"{subset}/*/*/*.flac"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        sources = [f"source_{number}_{part}" for number in (1, 2) for part in ("path", "gain")]
        writer.writerow(["mixture_ID", *sources, "noise_path", "noise_gain"])
        for one in audio:
            two = next(other for other in audio[::-1] if other.parts[1] != one.parts[1])
            name = f"{one.stem}_{two.stem}"
            writer.writerow([name, one.as_posix(), 0.9, two.as_posix(), 1.1, "tr/a.wav", 1.0])


def write_tiny_paper_config(folder: Path) -> Path:
    """What studies/paper needs on top to run on these corpora: small models, one fold, one seed."""
    torch.manual_seed(0)
    encoder = save_encoder(AutoModel.from_config(encoder_config("hubert_group")), folder / "hubert")
    (folder / "extractor.json").write_text(json.dumps(EXTRACTOR_FIELDS))
    noise = {"options": {"interferers": NOISE}}
    drawn = ("sc_clean", "sc_noisy", "denoised", "sb_sc", "sb_plus_sc")
    few = {"max_train_examples": 8, "use_cpu": True}
    config = {
        "folds": [1],
        "seeds": [0],
        "gpus": 0,
        "data": {"interferers": NOISE},
        "steps": dict.fromkeys(drawn, noise),
        "overrides": {
            "train": {
                **few,
                "extractor_config": str(folder / "extractor.json"),
                "encoder_name_or_path": encoder,
                "num_train_epochs": 2,
                "max_eval_examples": 4,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 1,
                "dataloader_num_workers": 0,
                "report_to": "none",
            },
            "denoise": {**few, "num_workers": 0},
            "evaluate": {"max_examples": 8},
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
