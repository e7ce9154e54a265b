"""A model on the Hub, used over HTTP by processes that have never seen this repository.

They have `transformers`, `torch` and `soundfile` with what these require, an empty cache, and a
working folder elsewhere.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hub_clients import hub_environment, link_packages, run_isolated
from hub_server import HubServer
from tiny_models import scatter_parameters, tiny_tse_ser

from modeling import TargetSpeakerEmotionPipeline, TseSerFeatureExtractor

LABELS = ("neutral", "happy", "sad", "angry")
RATE = 16_000
PACKAGES = ("transformers", "torch", "soundfile")
# With what comes along with them.
ALLOWED = {*PACKAGES, "numpy", "safetensors", "huggingface_hub", *sys.stdlib_module_names}

PUSH = """
import json, os
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()

def commit(repository, folder, **options):
    files = [CommitOperationAdd(name, f"{folder}/{name}") for name in sorted(os.listdir(folder))]
    return api.create_commit(repository, operations=files, commit_message="A version", **options)

first, second = sys.argv[1:]
api.create_repo("lab/tse-ser-ft", private=False)
commit("lab/tse-ser-ft", first)
api.create_branch("lab/tse-ser-ft", branch="v2")
commit("lab/tse-ser-ft", second, revision="v2")
request = commit("lab/tse-ser-ft", second, create_pr=True)
api.create_repo("lab/hidden", private=True)
commit("lab/hidden", first)
own = api.hf_hub_download("lab/hidden", "config.json")
print(json.dumps({"pr_revision": request.pr_revision, "hidden": json.load(open(own))}))
"""

USE = """
import json
import numpy
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

repository = "lab/tse-ser-ft"
trusting = {"trust_remote_code": True}
said = {}
three = pipeline(model=repository, **trusting)
given = {"mixture": "mixture.wav", "enrollment": "enrollment.wav"}
said["pipeline"] = three(given)
said["pipeline class"] = type(three).__name__
by_task = pipeline("audio-classification", model=repository, **trusting)
said["by task"] = by_task(given)
said["alone"] = by_task("mixture.wav")

features = AutoFeatureExtractor.from_pretrained(repository, **trusting)
waveforms = [numpy.load(name + ".npy") for name in ("mixture", "enrollment")]
inputs = features(*waveforms, sampling_rate=16000)
for name, revision in (("main", "main"), ("branch", "v2"), ("pull request", sys.argv[1])):
    model = AutoModelForAudioClassification.from_pretrained(
        repository, revision=revision, **trusting
    )
    assert not model.training
    with torch.no_grad():
        said[name] = model(**inputs).logits.tolist()
said["labels"] = list(model.config.id2label.values())
said["modules"] = sorted({type(one).__module__ for one in (three, features, model)})

for name, call in (
    ("untrusted", lambda: AutoModelForAudioClassification.from_pretrained(repository)),
    ("untrusted pipeline", lambda: pipeline(model=repository)),
    ("no such revision", lambda: pipeline(model=repository, revision="v9", **trusting)),
    ("hidden", lambda: AutoFeatureExtractor.from_pretrained("lab/hidden", **trusting)),
):
    try:
        call()
    except (ValueError, OSError) as error:
        said[name] = str(error)
print()  # after the question whether to trust the code
print(json.dumps(said))
"""


def waveform(seed: int) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(2 * RATE)
    return (0.1 * samples).astype(np.float32)


def version(seed: int) -> TargetSpeakerEmotionPipeline:
    model = tiny_tse_ser()
    scatter_parameters(model, seed)
    model.config.id2label = dict(enumerate(LABELS))
    return TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=TseSerFeatureExtractor(), device="cpu"
    )


@pytest.fixture(scope="module")
def versions() -> list[TargetSpeakerEmotionPipeline]:
    return [version(seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer(lfs=True) as server:
        yield server


@pytest.fixture(scope="module")
def folder(
    server: HubServer,
    versions: list[TargetSpeakerEmotionPipeline],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two versions have been pushed from here; `site` holds the packages."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for number, one in enumerate(versions):
        one.save_pretrained(folder / f"version{number}")
    for seed, name in enumerate(("mixture", "enrollment")):
        np.save(folder / f"{name}.npy", waveform(seed))
        soundfile.write(folder / f"{name}.wav", waveform(seed), RATE, subtype="FLOAT")
    link_packages(folder / "site", *PACKAGES)
    return folder


@pytest.fixture(scope="module")
def pushed(server: HubServer, folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = run_isolated(
        PUSH,
        link_packages(folder / "hub", "huggingface_hub"),
        folder,
        hub_environment(server, folder / "pusher"),
        *(str(folder / f"version{number}") for number in (0, 1)),
    )
    return told


@pytest.fixture(scope="module")
def said(server: HubServer, folder: Path, pushed: dict[str, Any]) -> dict[str, Any]:
    """What a user's process gets."""
    home = folder / "user"
    environment = hub_environment(server, home, token=None)
    answer: dict[str, Any] = run_isolated(
        USE, folder / "site", folder, environment, pushed["pr_revision"]
    )
    assert (home / "hub" / "models--lab--tse-ser-ft").is_dir()  # its cache was this folder
    return answer


def scores(result: list[dict[str, Any]]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in result}


def expected_logits(local: TargetSpeakerEmotionPipeline) -> np.ndarray:
    inputs = local.feature_extractor(waveform(0), waveform(1), sampling_rate=RATE)
    with torch.no_grad():
        logits: np.ndarray = local.model(**inputs).logits.numpy()
    return logits


def test_the_three_lines_give_what_the_local_pipeline_gives(
    said: dict[str, Any], versions: list[TargetSpeakerEmotionPipeline]
) -> None:
    given = {"mixture": waveform(0), "enrollment": waveform(1)}
    assert said["pipeline class"] == "TargetSpeakerEmotionPipeline"
    for name in ("pipeline", "by task"):
        assert scores(said[name]) == pytest.approx(scores(versions[0](given)), rel=1e-5)
    assert scores(said["alone"]) == pytest.approx(scores(versions[0](waveform(0))), rel=1e-5)
    assert {entry["enrollment"] for entry in said["alone"]} == {"the recording itself"}


def test_each_revision_gives_the_logits_of_its_version(
    said: dict[str, Any], versions: list[TargetSpeakerEmotionPipeline]
) -> None:
    first, second = (expected_logits(local) for local in versions)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(said["main"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said["branch"], second, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said["pull request"], second, rtol=1e-5, atol=1e-6)
    assert said["labels"] == list(LABELS)


def test_all_classes_came_from_the_hub(said: dict[str, Any]) -> None:
    assert len(said["modules"]) == 3
    assert all(
        name.startswith("transformers_modules.lab.tse_hyphen_ser_hyphen_ft.")
        for name in said["modules"]
    )


def test_the_libraries_say_what_is_wrong(said: dict[str, Any]) -> None:
    for name in ("untrusted", "untrusted pipeline"):
        assert "contains custom code" in said[name]
        assert "trust_remote_code=True" in said[name]
    assert "v9 is not a valid git identifier" in said["no such revision"]


def test_a_private_repository_is_for_its_owner_only(
    server: HubServer, pushed: dict[str, Any], said: dict[str, Any]
) -> None:
    assert server.model("lab/hidden").private
    assert not server.model("lab/tse-ser-ft").private
    assert pushed["hidden"]["model_type"] == "tse_ser"
    assert "lab/hidden is not a local folder and is not a valid model identifier" in said["hidden"]


def test_the_code_needs_these_packages_only(server: HubServer, pushed: dict[str, Any]) -> None:
    """Those that are imported late, too, and wherever transformers may not look."""
    imported = set()
    for path, content in server.model("lab/tse-ser-ft").files().items():
        for node in ast.walk(ast.parse(content)) if path.endswith(".py") else ():
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add((node.module or "").partition(".")[0])
    assert imported >= {"torch", "transformers", "soundfile"}
    assert imported <= ALLOWED


def test_the_clients_asked_for_nothing_that_the_server_lacks(
    server: HubServer, said: dict[str, Any]
) -> None:
    assert server.unknown_requests == []
    assert any(request.startswith("PUT /lfs/") for request in server.requests)
