"""The user's three lines in a new virtual environment, installed from the package index."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hub_clients import hub_environment, run_installed
from hub_server import HubServer
from subprocesses import run_program
from tiny_models import tiny_tse_ser
from tiny_publishing import RAVDESS, write_training

from modeling import TargetSpeakerEmotionPipeline, TseSerFeatureExtractor

# The newest torchaudio is built for torch 2.14, and transformers does not start beside one that
# does not fit torch. The models themselves need no torchaudio: without it, any torch will do.
PACKAGES = ("transformers", "torch<2.15", "torchaudio", "soundfile")
PUSH = """
import json, sys
from tse_ser.publishing.command import main
main(["--model", sys.argv[1], "--repo_id", "lab/tse-ser-ft", "--not_evaluated"])
print(json.dumps(None))
"""
THREE_LINES = """
from transformers import pipeline
recognize = pipeline(model="lab/tse-ser-ft", trust_remote_code=True, device="cpu")
emotions = recognize({"mixture": "mixture.wav", "enrollment": "enrollment.wav"})
"""
REPORT = """
import importlib.metadata, json
names = [one.metadata["Name"] for one in importlib.metadata.distributions()]
print(json.dumps({"emotions": emotions, "names": names}))
"""


@pytest.mark.slow
def test_a_pushed_model_runs_in_a_new_environment(tmp_path: Path) -> None:
    """Installs about 5 GB into a temporary folder, for some minutes."""
    model = tiny_tse_ser("whisper")
    write_training(tmp_path / "model", model, ["--stage", "joint", *RAVDESS])
    audio = {name: tmp_path / f"{name}.wav" for name in ("mixture", "enrollment")}
    for seed, path in enumerate(audio.values()):
        # At another rate than the model's, and in stereo.
        noise = 0.1 * np.random.default_rng(seed).standard_normal((88_200, 2))
        soundfile.write(path, noise, 44_100)
    # Of its own, so that nothing of the 5 GB is kept.
    with HubServer() as server, tempfile.TemporaryDirectory() as folder:
        environment = hub_environment(server, tmp_path / "pusher")
        run_installed(PUSH, tmp_path, environment, str(tmp_path / "model"))
        environment = hub_environment(server, tmp_path / "user")
        environment.pop("VIRTUAL_ENV", None)
        run_program([sys.executable, "-m", "venv", folder], tmp_path, environment)
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        try:
            run_program([*pip, "download", "--no-deps", PACKAGES[-1]], Path(folder), environment)
        except AssertionError as error:
            pytest.skip(f"no package index can be reached: {error}")
        install = [*pip, "install", "--no-compile", *PACKAGES]
        run_program(install, tmp_path, environment, timeout_seconds=1800)
        printed = run_program([python, "-c", THREE_LINES + REPORT], tmp_path, environment)
    answer = json.loads(printed.splitlines()[-1])
    assert not {"tse-ser", "datasets", "scipy"} & {*answer["names"]}
    local = TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=TseSerFeatureExtractor(), device="cpu"
    )
    expected = local({name: str(path) for name, path in audio.items()})
    assert [entry["label"] for entry in answer["emotions"]] == [
        entry["label"] for entry in expected
    ]
    for entry, same in zip(answer["emotions"], expected, strict=True):
        assert entry["score"] == pytest.approx(same["score"], rel=1e-4)
