"""What is pushed to a Hub over HTTP, and what users get of it who have never seen this repository.

The users have `transformers`, `torch` and `soundfile` with what these require, an empty cache, and
a working folder elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from corpus_layouts import write_corpora
from hub_clients import hub_environment, link_packages, run_installed, run_isolated
from hub_routes import Repository
from hub_server import HubServer
from mixture_bytes import NUM_MIXTURES, usual_keywords
from safetensors.torch import load
from tiny_models import scatter_parameters, tiny_tse_ser
from tiny_publishing import RAVDESS, write_training

from data_builders.plans.export_plan import write_plan
from modeling import TargetSpeakerEmotionPipeline
from tse_ser.saving import load_saved

LABELS = ("neutral", "happy", "sad", "angry")
RATE = 16_000
PACKAGES = ("transformers", "torch", "soundfile")

# Each run is a list of arguments; the answer is a list of exit status and printed text.
PUSH = """
import contextlib, io, json, os, sys
from tse_ser.publishing.command import PublishingError, main

def run(arguments):
    text = io.StringIO()
    status = 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            main(arguments)
        except PublishingError as error:
            status = 1
            print(error)
    return [status, text.getvalue()]

answers = [run(arguments) for arguments in json.loads(sys.argv[1])]
del os.environ["HF_TOKEN"]
answers.append(run(json.loads(sys.argv[1])[0]))
print(json.dumps(answers))
"""

USE = """
import json, sys
import base64
from importlib.util import module_from_spec, spec_from_file_location
import soundfile
import torch
from huggingface_hub import snapshot_download
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

repository = "lab/model"
trusting = {"trust_remote_code": True}
said = {}
three = pipeline(model=repository, **trusting)
given = {"mixture": "mixture.wav", "enrollment": "enrollment.wav"}
said["pipeline"] = three(given)
said["pipeline class"] = type(three).__name__
by_task = pipeline("audio-classification", model=repository, **trusting)
said["by task"] = by_task(given)
said["alone"] = by_task("mixture.wav")

# As Inference Endpoints do it.
folder = snapshot_download(repository)
spec = spec_from_file_location("handler", f"{folder}/handler.py")
handler = module_from_spec(spec)
spec.loader.exec_module(handler)
sample = {name: f"{folder}/sample/{name}.wav" for name in given}
said["pipeline on the sample"] = three(sample)
encoded = {
    name: base64.b64encode(open(path, "rb").read()).decode() for name, path in sample.items()
}
said["endpoint"] = handler.EndpointHandler(folder)({"inputs": encoded})

features = AutoFeatureExtractor.from_pretrained(repository, **trusting)
waveforms = [soundfile.read(path, dtype="float32")[0] for path in given.values()]
inputs = features(*waveforms, sampling_rate=16000)
for name, revision in (("main", "main"), ("branch", "v2"), ("pull request", "refs/pr/1")):
    model = AutoModelForAudioClassification.from_pretrained(
        repository, revision=revision, **trusting
    )
    assert not model.training
    with torch.no_grad():
        said[name] = model(**inputs).logits.tolist()
said["labels"] = list(model.config.id2label.values())
said["modules"] = sorted({type(one).__module__ for one in (three, features, model)})

print(json.dumps(said))
"""

USE_PLAN = """
import json
from datasets import load_dataset
print(json.dumps({name: rows.num_rows for name, rows in load_dataset("lab/mixtures").items()}))
"""

# The ways of `transformers` itself, without the command.
PUSH_BY_HAND = """
import json
from transformers import Trainer, TrainingArguments
from tse_ser.saving import load_saved
model, feature_extractor = load_saved("version1")
model.push_to_hub("lab/by-hand")
feature_extractor.push_to_hub("lab/by-hand")
arguments = TrainingArguments(
    "trained", hub_model_id="lab/by-trainer", report_to="none", use_cpu=True
)
Trainer(model, arguments, processing_class=feature_extractor).push_to_hub()
print(json.dumps(None))
"""
USE_BY_HAND = """
import json
from transformers import pipeline
given = {"mixture": "mixture.wav", "enrollment": "enrollment.wav"}
names = ("lab/by-hand", "lab/by-trainer")
print(json.dumps([pipeline(model=name, trust_remote_code=True)(given) for name in names]))
"""

# What the owner of a repository put there by hand.
OWN_FILES = {"train_my_way.py": b"print(1)", "scripts/serve.py": b"print(2)", "notes.txt": b"mine"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pushing")
    for version in (1, 2):
        model = tiny_tse_ser()
        scatter_parameters(model, version)
        write_training(folder / f"version{version}", model, ["--stage", "joint", *RAVDESS])
    for seed, name in enumerate(("mixture", "enrollment")):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(2 * RATE)
        soundfile.write(folder / f"{name}.wav", noise, RATE)
    # Under terms that one licence keeps.
    keywords = usual_keywords(write_corpora(folder / "corpora"), interferers=["ravdess", "emodb"])
    for split in ("test", "train"):
        write_plan(folder / f"{split}.parquet", split=split, **keywords)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def pushes(server: HubServer, folder: Path) -> dict[str, list[tuple[int, str]]]:
    """Exit status and output of all uploads, by repository, in their order."""
    sample = [
        *("--sample_mixture", str(folder / "mixture.wav")),
        *("--sample_enrollment", str(folder / "enrollment.wav")),
        *("--sample_license", "cc0-1.0"),
    ]
    runs: list[list[str]] = []

    def push(repository: str, version: int, message: str, *more: str) -> None:
        model = ["--model", str(folder / f"version{version}"), "--not_evaluated", *more]
        runs.append(["--repo_id", repository, *model, "--commit_message", message])

    push("lab/model", 1, "one", "--public", *sample)
    push("lab/model", 2, "two", "--public", "--revision", "v2")
    push("lab/model", 2, "two", "--public", "--create_pr")
    push("lab/model", 1, "same", "--public", *sample)
    push("lab/model", 1, "shy")
    push("lab/hidden", 1, "one")
    owned = Repository("lab/owned", "model", private=True)
    owned.commit("main", OWN_FILES | {"results.json": b"[]"}, "by hand")
    server.repositories["model", "lab/owned"] = owned
    push("lab/owned", 1, "one")
    for route, status in (("preupload", 403), ("lfs", 403), ("commit", 500), ("commit", None)):
        repository = f"lab/{route}-{status or 'cut'}"
        server.fail(route, repository, status)
        push(repository, 1, "broken")
        push(repository, 1, "again")
    server.fail("commit", "lab/updated", after=1)
    push("lab/updated", 1, "one")
    push("lab/updated", 2, "broken")
    push("lab/updated", 2, "again")
    plans = ["--plan", str(folder / "train.parquet"), str(folder / "test.parquet")]
    runs.append(["--repo_id", "lab/mixtures", "--public", *plans])
    push("lab/hidden", 1, "seen", "--public")
    environment = hub_environment(server, folder / "pusher")
    answers = run_installed(PUSH, folder, environment, json.dumps(runs))
    found: dict[str, list[tuple[int, str]]] = {}
    for run, (status, text) in zip(runs, answers[:-1], strict=True):
        found.setdefault(run[1], []).append((status, text))
    found["without token"] = [tuple(answers[-1])]
    return found


def messages(repository: Repository) -> list[str]:
    return repository.messages[1:]


def weights_of(repository: Repository, revision: str = "main") -> Any:
    return load(repository.files(revision)["model.safetensors"])


def test_a_push_makes_one_commit_of_everything(
    server: HubServer, pushes: dict[str, list[tuple[int, str]]], folder: Path
) -> None:
    repository = server.model("lab/model")
    assert [status for status, _ in pushes["lab/model"]] == [0, 0, 0, 0, 1]
    assert messages(repository) == ["one", "two", "two"]  # nothing had changed the last time
    assert {"README.md", "model.safetensors", "sample/mixture.wav"} <= repository.files().keys()
    assert server.unknown_requests == []


def test_what_the_owner_put_there_stays_and_what_an_earlier_upload_left_goes(
    server: HubServer, pushes: dict[str, list[tuple[int, str]]]
) -> None:
    files = server.model("lab/owned").files()
    assert pushes["lab/owned"][0][0] == 0
    assert {name: files.get(name) for name in OWN_FILES} == OWN_FILES
    assert "model.safetensors" in files and "results.json" not in files


def test_branches_and_pull_requests_leave_main_alone(
    server: HubServer, pushes: dict[str, list[tuple[int, str]]]
) -> None:
    repository = server.model("lab/model")
    assert set(repository.refs) == {"main", "v2", "refs/pr/1"}
    first, *others = (weights_of(repository, revision) for revision in repository.refs)
    for weights in others:
        assert any((weights[name] != first[name]).any() for name in first)
    assert "/lab/model/discussions/1" in pushes["lab/model"][2][1]


def test_repositories_are_private_unless_they_are_to_be_public(
    server: HubServer, pushes: dict[str, list[tuple[int, str]]]
) -> None:
    assert not server.model("lab/model").private
    assert server.model("lab/hidden").private
    assert "that repository is public" in pushes["lab/model"][4][1]
    assert "that repository is private. Leave out --public" in pushes["lab/hidden"][-1][1]


@pytest.mark.parametrize("failure", ["preupload-403", "lfs-403", "commit-500", "commit-cut"])
def test_a_broken_upload_changes_nothing_and_can_be_repeated(
    failure: str, server: HubServer, pushes: dict[str, list[tuple[int, str]]]
) -> None:
    (broken, complaint), (status, text) = pushes[f"lab/{failure}"]
    assert broken == 1, complaint
    assert status == 0, text
    assert "Traceback" not in complaint
    assert f"lab/{failure}: the Hub did not take the upload, and no file" in complaint
    repository = server.model(f"lab/{failure}")
    assert messages(repository) == ["again"]
    assert repository.files().keys() >= {"README.md", "model.safetensors"}


def test_a_broken_update_leaves_the_version_before(
    server: HubServer, pushes: dict[str, list[tuple[int, str]]]
) -> None:
    assert [status for status, _ in pushes["lab/updated"]] == [0, 1, 0]
    repository = server.model("lab/updated")
    assert messages(repository) == ["one", "again"]
    _, first, second = repository.commits.values()
    assert first.keys() == second.keys()
    assert first["model.safetensors"] != second["model.safetensors"]


def test_who_is_not_logged_in_is_told_so(pushes: dict[str, list[tuple[int, str]]]) -> None:
    ((status, text),) = pushes["without token"]
    assert status == 1
    assert "hf auth login" in text


@pytest.fixture(scope="module")
def said(
    server: HubServer, pushes: dict[str, list[tuple[int, str]]], folder: Path
) -> dict[str, Any]:
    """What a user's process gets, which has three packages and an empty cache."""
    home = folder / "user"
    environment = hub_environment(server, home, token=None)
    site = link_packages(folder / "site", *PACKAGES)
    answer: dict[str, Any] = run_isolated(USE, site, folder, environment)
    assert (home / "hub" / "models--lab--model").is_dir()  # its cache was this folder
    return answer


@pytest.fixture(scope="module")
def versions(folder: Path) -> list[TargetSpeakerEmotionPipeline]:
    """Both versions as they were trained."""
    return [
        TargetSpeakerEmotionPipeline(model=model, feature_extractor=feature_extractor, device="cpu")
        for model, feature_extractor in (
            load_saved(folder / f"version{number}") for number in (1, 2)
        )
    ]


@pytest.fixture(scope="module")
def waveforms(folder: Path) -> list[np.ndarray]:
    """Mixture and enrollment."""
    names = ("mixture", "enrollment")
    return [soundfile.read(folder / f"{name}.wav", dtype="float32")[0] for name in names]


def scores(result: list[dict[str, Any]]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in result}


def expected_logits(local: TargetSpeakerEmotionPipeline, waveforms: list[np.ndarray]) -> np.ndarray:
    inputs = local.feature_extractor(*waveforms, sampling_rate=RATE)
    with torch.no_grad():
        logits: np.ndarray = local.model(**inputs).logits.numpy()
    return logits


def test_what_transformers_itself_pushes_recognizes_as_well(
    server: HubServer,
    said: dict[str, Any],
    folder: Path,
    versions: list[TargetSpeakerEmotionPipeline],
    waveforms: list[np.ndarray],
) -> None:
    run_installed(PUSH_BY_HAND, folder, hub_environment(server, folder / "by_hand"))
    user = hub_environment(server, folder / "friend")
    for result in run_isolated(USE_BY_HAND, folder / "site", folder, user):
        expected = versions[0]({"mixture": waveforms[0], "enrollment": waveforms[1]})
        assert scores(result) == pytest.approx(scores(expected), rel=1e-5)


def test_the_three_lines_give_what_the_local_pipeline_gives(
    said: dict[str, Any],
    versions: list[TargetSpeakerEmotionPipeline],
    waveforms: list[np.ndarray],
) -> None:
    given = {"mixture": waveforms[0], "enrollment": waveforms[1]}
    assert said["pipeline class"] == "TargetSpeakerEmotionPipeline"
    for name in ("pipeline", "by task"):
        assert scores(said[name]) == pytest.approx(scores(versions[0](given)), rel=1e-5)
    assert scores(said["alone"]) == pytest.approx(scores(versions[0](waveforms[0])), rel=1e-5)
    assert {entry["enrollment"] for entry in said["alone"]} == {"the recording itself"}


def test_each_revision_gives_the_logits_of_its_version(
    said: dict[str, Any],
    versions: list[TargetSpeakerEmotionPipeline],
    waveforms: list[np.ndarray],
) -> None:
    first, second = (expected_logits(local, waveforms) for local in versions)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(said["main"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said["branch"], second, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said["pull request"], second, rtol=1e-5, atol=1e-6)
    assert said["labels"] == list(LABELS)


def test_all_classes_came_from_the_hub(said: dict[str, Any]) -> None:
    assert len(said["modules"]) == 3
    assert all(name.startswith("transformers_modules.lab.model.") for name in said["modules"])


def test_the_endpoint_answers_as_the_pipeline_does(said: dict[str, Any]) -> None:
    assert said["endpoint"] == said["pipeline on the sample"]


def test_the_clients_asked_for_nothing_that_the_server_lacks(
    server: HubServer, said: dict[str, Any]
) -> None:
    assert server.unknown_requests == []
    assert any(request.startswith("PUT /lfs/") for request in server.requests)


def test_a_plan_is_pushed_as_a_dataset(
    server: HubServer, pushes: dict[str, list[tuple[int, str]]], folder: Path
) -> None:
    ((status, text),) = pushes["lab/mixtures"]
    assert status == 0, text
    files = server.dataset("lab/mixtures").files()
    for split in ("test", "train"):
        assert files[f"data/{split}.parquet"] == (folder / f"{split}.parquet").read_bytes()
    site = link_packages(folder / "datasets", "datasets")
    environment = hub_environment(server, folder / "reader", token=None)
    rows = run_isolated(USE_PLAN, site, folder, environment)
    assert rows == {"test": NUM_MIXTURES, "train": NUM_MIXTURES}
