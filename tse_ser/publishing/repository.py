"""The folder of a model's repository: weights, code, card, endpoint handler, sample, facts."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tse_ser.conversion.checkpoint_card import CONVERSION_FACTS_NAME
from tse_ser.publishing.cards import CARD_NAME, render_card
from tse_ser.publishing.checks import check_repository, list_files
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.facts import CardFacts, PublishingOptions, collect_facts
from tse_ser.publishing.lineage import EARLIER_KEY, FACTS_NAME, Lineage, published_facts
from tse_ser.publishing.results import published_cells
from tse_ser.publishing.stages import is_conversion
from tse_ser.saving import load_saved, save_with_code

ENDPOINT_DIR = Path(__file__).resolve().parents[2] / "deploy" / "endpoint"
ENDPOINT_FILES = ("handler.py", "requirements.txt")
RESULTS_NAME = "results.json"


def build_repository(
    model_dir: str | Path,
    output_dir: str | Path,
    repo_id: str,
    options: PublishingOptions | None = None,
    endpoint_dir: Path = ENDPOINT_DIR,
) -> Path:
    """Builds the folder that goes to the Hub.

    Args:
        model_dir (`str` or `Path`): folder that a training wrote.
        output_dir (`str` or `Path`): folder to build; missing or empty.
        repo_id (`str`): where it goes, for the card.
        options (`PublishingOptions`, *optional*): what the user says of the model.
        endpoint_dir (`Path`): folder of the handler of inference endpoints.

    Returns:
        `Path`: the folder, complete and checked.

    Raises:
        PublishingError: a fact or file is missing, or something must not be published. There is no
            folder then.
    """
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
            facts.samples.write(folder, facts.sampling_rate)
        if facts.model_type == "tse_ser":
            _copy_endpoint(endpoint_dir, folder)
        check_repository(folder, "model")

    return build_folder(Path(output_dir), fill)


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


def build_folder(output_dir: Path, fill: Callable[[Path], None]) -> Path:
    """Builds a folder that is there whole or not at all.

    Args:
        output_dir (`Path`): folder to build; missing or empty.
        fill (`Callable[[Path], None]`): writes its files into a given folder.

    Returns:
        `Path`: the folder.

    Raises:
        PublishingError: there is something in the folder already.
    """
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise PublishingError(
            f"--output_dir {output_dir} is there and not empty: name another folder, or delete it"
        )
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=output_dir.parent) as partial:
        folder = Path(partial) / "repository"
        folder.mkdir()
        fill(folder)
        if output_dir.exists():
            output_dir.rmdir()
        shutil.move(folder, output_dir)
    return output_dir


def describe_tree(folder: Path) -> str:
    """The files of a repository and their sizes, for reading.

    Args:
        folder (`Path`): folder of a repository.

    Returns:
        `str`: a line a file, and the sum.
    """
    sizes = {name: (folder / name).stat().st_size for name in list_files(folder)}
    lines = [f"{_size(size):>10}  {name}" for name, size in sizes.items()]
    return "\n".join([*lines, f"{_size(sum(sizes.values())):>10}  in {len(sizes)} files"])


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def _write_facts(folder: Path, facts: CardFacts, lineage: Lineage) -> None:
    *earlier, own = (published_facts(stage) for stage in lineage.stages)
    name = CONVERSION_FACTS_NAME if is_conversion(own) else FACTS_NAME
    # With what came before, so that a copy of the repository can be trained on and published.
    _write_json(folder / name, {**own, EARLIER_KEY: earlier} if earlier else own)
    if facts.results:
        _write_json(folder / RESULTS_NAME, published_cells(facts.results))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _copy_endpoint(endpoint_dir: Path, folder: Path) -> None:
    for name in ENDPOINT_FILES:
        if not (endpoint_dir / name).is_file():
            raise PublishingError(
                f"{endpoint_dir / name} is missing: run push_to_hub.py in a complete checkout"
            )
        shutil.copyfile(endpoint_dir / name, folder / name)
