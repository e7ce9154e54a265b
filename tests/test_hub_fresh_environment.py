"""The user's three lines in a new virtual environment, installed from the package index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from fresh_environment import NoPackageIndexError, run_three_lines
from hub_clients import hub_environment, run_installed
from hub_server import HubServer
from tiny_models import tiny_tse_ser
from tiny_publishing import RAVDESS, write_training

from modeling import TargetSpeakerEmotionPipeline, TseSerFeatureExtractor

PUSH = """
import json, sys
from tse_ser.publishing.command import main
main(["--model", sys.argv[1], "--repo_id", "lab/tse-ser-ft", "--not_evaluated"])
print(json.dumps(None))
"""


@pytest.mark.slow
def test_a_pushed_model_runs_in_a_new_environment(tmp_path: Path) -> None:
    """Installs about 5 GB into a temporary folder, for some minutes."""
    model = tiny_tse_ser("whisper")
    write_training(tmp_path / "model", model, ["--stage", "joint", *RAVDESS])
    audio = [tmp_path / "mixture.wav", tmp_path / "enrollment.wav"]
    for seed, path in enumerate(audio):
        # At another rate than the model's, and in stereo.
        noise = 0.1 * np.random.default_rng(seed).standard_normal((88_200, 2))
        soundfile.write(path, noise, 44_100)
    with HubServer() as server:
        environment = hub_environment(server, tmp_path / "pusher")
        run_installed(PUSH, tmp_path, environment, str(tmp_path / "model"))
        try:
            answer = run_three_lines(
                "lab/tse-ser-ft", audio, environment=hub_environment(server, tmp_path / "user")
            )
        except NoPackageIndexError as error:
            pytest.skip(str(error))
    assert not {"tse-ser", "datasets", "scipy"} & answer["versions"].keys()
    local = TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=TseSerFeatureExtractor(), device="cpu"
    )
    expected = local({"mixture": str(audio[0]), "enrollment": str(audio[1])})
    assert [entry["label"] for entry in answer["emotions"]] == [
        entry["label"] for entry in expected
    ]
    for entry, same in zip(answer["emotions"], expected, strict=True):
        assert entry["score"] == pytest.approx(same["score"], rel=1e-4)
