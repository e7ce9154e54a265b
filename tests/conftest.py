"""Fixtures that the tests share: corpora, pretrained parts and reference vectors, where present.

The environment is set before any library is imported: nothing is fetched from a hub, the corpora
are cached inside the repository, and two workers of one thread each share the cores.
"""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# It outlives the run, so that the generated corpus is spoken once on a machine.
os.environ.setdefault("TSE_SER_CACHE", str(REPOSITORY / ".cache" / "tse_ser"))

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository: commands of the project run there."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real corpora (ravdess/, emodb/, asterisk/)."""
    return _shared_folder("TSE_SER_DATA", "data")


@pytest.fixture(scope="session")
def pretrained_dir() -> Path:
    """Folder of the pretrained parts (whisper-tiny.en-encoder/, two speaker encoders)."""
    return _shared_folder("TSE_SER_PRETRAINED", "pretrained")


@pytest.fixture(scope="session")
def vectors_dir() -> Path:
    """Folder of the reference vectors (td_speakerbeam/, shift_cnn/, si_sdr/)."""
    return _shared_folder("TSE_SER_VECTORS", "vectors")


@pytest.fixture(scope="session")
def generated_corpus() -> datasets.Dataset:
    """The generated corpus: ten emotional speakers in five sessions."""
    from data_builders import load_corpus  # most tests start sooner without it

    return load_corpus("generated")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny copies of ravdess, emodb and asterisk, and of noise."""
    from corpus_layouts import write_corpora
    from mixture_bytes import write_noise

    root = write_corpora(tmp_path_factory.mktemp("corpora"))
    write_noise(root / "noise")
    return root


def _shared_folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: set {variable} to the folder that holds the {name}")
    return folder
