"""Writes the Denoised set (paper, section II-A): the Noisy set as a trained extractor hears it.

    accelerate launch -m tse_ser.training.denoise_corpus --config recipes/generated/denoise.yaml \
        --extractor_name_or_path results/extractor --output_dir results/denoised

The folder holds `audio/<split>/*.wav` (32-bit float, mono, 16 kHz) and `metadata.parquet`;
`load_corpus("denoised", folder)` reads it. Several processes share the work, and a run that was
cut off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm
from transformers import AutoModel, PreTrainedModel

from data_builders import UTTERANCE_FEATURES, MixtureDataset, load_mixtures
from data_builders.audio import read_audio, write_audio
from data_builders.corpora.denoised import METADATA_FILE, SETTINGS_FILE
from data_builders.files import make_folder
from data_builders.load import read_corpora
from data_builders.option_reader import OptionError, option, read_options, settle_options
from data_builders.options import RecipeOptions
from data_builders.schema import SAMPLING_RATE, CorpusError
from modeling import TseSerFeatureExtractor
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from tse_ser.training.build_model import load_pretrained
from tse_ser.training.collator import TseSerCollator
from tse_ser.training.train import run_program

logger = logging.getLogger("denoise_corpus")

GO_ON = "the same command goes on where it stopped"
# Of the target's id in the names of files, which end at 255 bytes.
MAX_READABLE_LENGTH = 100
DENOISED_FEATURES = datasets.Features(
    {
        **UTTERANCE_FEATURES,
        "split": datasets.Value("string"),
        "source_utterance_id": datasets.Value("string"),
        "si_sdr_db": datasets.Value("float64"),
        "si_sdri_db": datasets.Value("float64"),
    }
)
# Where a run reads and how fast it goes leave the result as it is.
IRRELEVANT = (
    "output_dir",
    "config",
    "corpus_dir",
    "corpus_dirs",
    "cache_dir",
    "batch_size",
    "num_workers",
    "seed",
    "use_cpu",
    # It stops, or it changes nothing.
    "strict_corpora",
    # Of train.py alone.
    "fresh_mixtures",
    "librimix_subset",
    "librimix_eval_subset",
    "librimix_metadata_dir",
    "librispeech_dir",
)


@dataclass
class DenoiseArguments:
    """What extracts, and how much is written."""

    extractor_name_or_path: str = field(metadata={"help": "Trained extractor: a folder or hub id."})
    output_dir: str = field(metadata={"help": "Folder of the Denoised set."})
    mixtures_per_utterance: int = option(
        1, "Mixtures of each training target; others have one.", at_least=1
    )
    batch_size: int = option(4, "Mixtures in a forward pass.", at_least=1)
    num_workers: int = option(0, "Processes that render mixtures.", at_least=0)
    use_cpu: bool = option(False, "Leave a GPU alone.")
    seed: int = option(0, "Seed of the extractor's training, on record.", at_least=0)

    def __post_init__(self) -> None:
        settle_options(self)


@dataclass(frozen=True)
class Job:
    """The mixtures of one split in one epoch."""

    split: str
    epoch: int
    dataset: MixtureDataset


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the set, and says in one line what went wrong; returns the exit code, 2 where it
    cannot be, 130 where it was interrupted."""
    return run_program("tse-ser denoise", lambda: denoise(argv), GO_ON)


def denoise(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments and writes the set. Raises `OptionError` where an option cannot be
    used or the folder holds another set, `CorpusError` where a corpus cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    data_args, denoise_args = parse_arguments(sys.argv[1:] if argv is None else argv)
    path = denoise_corpus(data_args, denoise_args)
    if PartialState().is_main_process:
        print(f"The Denoised set is in {path.parent}, described in {path}")


def parse_arguments(argv: Sequence[str]) -> tuple[RecipeOptions, DenoiseArguments]:
    """Reads recipe and command line: the options of the Noisy set, and of the extraction.
    Raises `OptionError` for an unknown key, or a value that does not fit."""
    data_args, denoise_args = read_options((RecipeOptions, DenoiseArguments), argv)
    if not data_args.interferers:
        raise OptionError("the Noisy set needs --interferers, corpora of the interfering speech")
    return data_args, denoise_args


def denoise_corpus(data_args: RecipeOptions, denoise_args: DenoiseArguments) -> Path:
    """Writes what is not there yet; each process its share, the main one the metadata.

    Args:
        data_args (`RecipeOptions`): of the Noisy set.
        denoise_args (`DenoiseArguments`): of the extraction.

    Returns:
        `Path`: the metadata file.

    Raises:
        OptionError: the folder holds a set that was made with other settings.
        CorpusError: the extractor has another sampling rate than the corpora.
    """
    # A process group of CPU processes forms only where the CPU is asked for.
    state = PartialState(cpu=denoise_args.use_cpu or not torch.accelerator.is_available())
    output_dir = Path(denoise_args.output_dir)
    metadata_path = output_dir / METADATA_FILE
    with state.main_process_first():
        claim_folder(output_dir, data_args, denoise_args)
        jobs = plan_jobs(data_args, denoise_args.mixtures_per_utterance)
        sources = _read_sources(data_args)
    if metadata_path.is_file():
        return metadata_path
    model = load_pretrained(AutoModel, denoise_args, "extractor_name_or_path")
    if model.config.sampling_rate != SAMPLING_RATE:
        raise CorpusError(
            f"{denoise_args.extractor_name_or_path} hears {model.config.sampling_rate} Hz, the "
            f"corpora have {SAMPLING_RATE} Hz: denoise them with an extractor of that rate"
        )
    model.to(state.device).eval()
    rows = []
    total = sum(len(share(job, state)) for job in jobs)
    with tqdm(
        total=total, desc="denoising", unit="mixture", disable=not state.is_main_process
    ) as bar:
        for job in jobs:
            for example in _extracted_examples(model, job, output_dir, denoise_args, state):
                rows.append(metadata_row(example, job, sources))
                bar.update()
    gathered = gather_object(rows)
    if state.is_main_process:
        _write_metadata(gathered, metadata_path)
    state.wait_for_everyone()
    return metadata_path


def claim_folder(
    output_dir: Path, data_args: RecipeOptions, denoise_args: DenoiseArguments
) -> None:
    """Records the settings in the folder, or checks that they are those of the earlier run."""
    # As JSON has them: lists in place of tuples.
    settings = json.loads(json.dumps({**asdict(data_args), **asdict(denoise_args)}))
    settings = {key: value for key, value in settings.items() if key not in IRRELEVANT}
    settings["extractor"] = weights_digest(settings.pop("extractor_name_or_path"))
    path = make_folder(output_dir, "--output_dir") / SETTINGS_FILE
    if path.is_file():
        # A set that is older than an option was made as its default says.
        defaults = {
            each.name: each.default
            for each in (*fields(RecipeOptions), *fields(DenoiseArguments))
            if each.name in settings and each.default is not MISSING
        }
        found = json.loads(json.dumps(defaults)) | json.loads(path.read_text(encoding="utf-8"))
        different = [key for key in settings if found.get(key) != settings[key]]
        if different:
            raise OptionError(
                f"{output_dir} holds a set with another {different[0]} "
                f"({found.get(different[0])!r}, not {settings[different[0]]!r}): "
                "delete the folder or give another --output_dir"
            )
        return
    partial = path.with_suffix(f".partial{os.getpid()}")
    partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def weights_digest(name_or_path: str) -> str:
    """What tells extractors apart: a digest of the weights in a folder, else the hub id."""
    weights = Path(name_or_path) / "model.safetensors"
    if not weights.is_file():
        return name_or_path
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


def plan_jobs(data_args: RecipeOptions, mixtures_per_utterance: int) -> list[Job]:
    """The frozen mixtures, a job a split and epoch: epochs 0 to `mixtures_per_utterance` - 1
    for training, epoch 0 for validation and test."""
    validated = data_args.protocol == "validated"
    splits = ["train", "validation", "test"] if validated else ["train", "test"]
    jobs = []
    for split in splits:
        # Whole utterances at their own speed: what trains on the set crops and plays them.
        options = data_args.of_split(
            split,
            condition="noisy",
            segment_seconds=None,
            speed_factors=(1.0,),
            clean_share=0.0,
            absent_share=0.0,
        )
        dataset = load_mixtures(split=split, **options.keywords())
        epochs = mixtures_per_utterance if split == "train" else 1
        jobs += [Job(split, epoch, dataset) for epoch in range(epochs)]
    return jobs


def _read_sources(data_args: RecipeOptions) -> dict[str, dict[str, Any]]:
    """The rows of the target corpora by utterance id."""
    corpora = read_corpora(data_args.targets, data_args, data_args.cache_dir)
    return {row["utterance_id"]: row for corpus in corpora for row in corpus.to_list()}


def share(job: Job, state: PartialState) -> range:
    """The examples of a job that this process extracts."""
    return range(state.process_index, len(job.dataset), state.num_processes)


def audio_name(utterance_id: str, epoch: int) -> str:
    """Name of the file of a mixture: readable, and another one for every target and epoch.

    Ids that differ in "/" and "_", or in upper and lower case, have files of their own on every
    file system; nothing in an id leads out of the folder.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", utterance_id)[:MAX_READABLE_LENGTH].lstrip(".")
    return f"{readable}-{hashlib.sha256(utterance_id.encode()).hexdigest()[:12]}-{epoch}.wav"


@torch.inference_mode()
def _extracted_examples(
    model: PreTrainedModel,
    job: Job,
    output_dir: Path,
    denoise_args: DenoiseArguments,
    state: PartialState,
) -> Iterator[dict[str, Any]]:
    """Extracts this process's share of a job and writes the files that are not there; yields
    each example with "file" (its path within the set) and "extracted" (float32 of shape
    `(num_samples,)`)."""
    job.dataset.set_epoch(job.epoch)
    # Whole mixtures: what is written is cut when a classifier hears it.
    feature_extractor = TseSerFeatureExtractor(
        sampling_rate=model.config.sampling_rate, keep_speech_only=False
    )
    collate = TseSerCollator(feature_extractor, "extraction")
    loader = DataLoader(
        Subset(job.dataset, share(job, state)),
        batch_size=denoise_args.batch_size,
        num_workers=denoise_args.num_workers,
        collate_fn=list,
    )
    for examples in loader:
        for example in examples:
            name = audio_name(example["utterance_id"], job.epoch)
            example["file"] = f"audio/{job.split}/{name}"
        missing = [e for e in examples if not (output_dir / e["file"]).is_file()]
        if missing:
            batch = {key: value.to(model.device) for key, value in collate(missing).items()}
            extracted = model(**batch).extracted_values.float().cpu().numpy()
            for example, waveform in zip(missing, extracted, strict=True):
                waveform = _at_level_of(waveform[: len(example["mixture"])], example["mixture"])
                write_audio(output_dir / example["file"], waveform)
        for example in examples:
            example["extracted"] = read_audio(output_dir / example["file"])
            yield example


def _at_level_of(waveform: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scales a waveform to the root mean square of another, in float32: SI-SNR leaves the level
    open."""
    level = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
    wanted = np.sqrt(np.mean(np.square(reference, dtype=np.float64)))
    return (waveform * (wanted / max(level, 1e-12))).astype(np.float32)


def metadata_row(
    example: dict[str, Any], job: Job, sources: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The row of one extracted mixture that `_extracted_examples` yielded, in
    `DENOISED_FEATURES`; `sources` has the rows of the target corpora by utterance id."""
    extracted_db = scale_invariant_sdr(example["extracted"], example["target"])
    duration_seconds = len(example["extracted"]) / SAMPLING_RATE
    return {
        **sources[example["utterance_id"]],
        "utterance_id": f"denoised/{example['utterance_id']}-{job.epoch}",
        "path": example["file"],
        "duration_seconds": duration_seconds,
        # Measured again when the set is read: it is other audio.
        "speech_start_seconds": 0.0,
        "speech_end_seconds": duration_seconds,
        "split": job.split,
        "source_utterance_id": example["utterance_id"],
        "si_sdr_db": extracted_db,
        "si_sdri_db": extracted_db - scale_invariant_sdr(example["mixture"], example["target"]),
    }


def _write_metadata(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes the rows of all processes in a fixed order; the file appears whole or not at all."""
    rows = sorted(rows, key=lambda row: (row["split"], row["path"]))
    partial = path.with_suffix(".partial")
    datasets.Dataset.from_list(rows, features=DENOISED_FEATURES).to_parquet(str(partial))
    partial.replace(path)
    for split in sorted({row["split"] for row in rows}):
        gains = [row["si_sdri_db"] for row in rows if row["split"] == split]
        logger.info("%s: %d mixtures, SI-SDRi %.2f dB", split, len(gains), np.mean(gains))


if __name__ == "__main__":
    sys.exit(main())
