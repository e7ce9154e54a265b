"""The user's three lines in a new virtual environment, with four packages of the package index.

    python tests/fresh_environment.py --model lab/tse-ser-ft

makes the environment in a temporary folder (about 5 GB, two minutes), runs a checkpoint, a folder
or a Hub id, on a mixture and an enrollment (made of noise, if none are given), prints the emotions
as JSON and removes everything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The newest torchaudio is built for torch 2.14, and transformers does not start beside one that
# does not fit torch. The models themselves need no torchaudio: without it, any torch will do.
PACKAGES = ("transformers", "torch<2.15", "torchaudio", "soundfile")
THREE_LINES = """
from transformers import pipeline
recognize = pipeline(model={model!r}, trust_remote_code=True, device="cpu")
emotions = recognize({{"mixture": "mixture.wav", "enrollment": "enrollment.wav"}})
"""
WRITE_NOISE = """
import numpy, soundfile
for seed, name in enumerate(("mixture.wav", "enrollment.wav")):
    noise = 0.1 * numpy.random.default_rng(seed).standard_normal(32_000)
    soundfile.write(name, noise, 16_000, subtype="FLOAT")
"""
REPORT = """
import importlib.metadata, json
versions = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
print(json.dumps({"emotions": emotions, "versions": versions}))
"""


class NoPackageIndexError(RuntimeError):
    """The package index cannot be reached."""


def run_three_lines(
    model: str,
    audio: Sequence[Path] = (),
    packages: Sequence[str] = PACKAGES,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Runs a model in a new environment.

    Args:
        model: folder or Hub id of a checkpoint.
        audio: wav files of the mixture and of the enrollment; none for noise.
        packages: what is installed, as pip wants it.
        environment: variables of the process; those of this one, but for the Hub, by default.

    Returns:
        `emotions`, as the pipeline gives them, and `versions` of all that was installed.

    Raises:
        NoPackageIndexError: the package index cannot be reached.
        RuntimeError: the installation or the three lines failed; the message ends as their output.
    """
    with tempfile.TemporaryDirectory() as folder:
        if environment is None:
            environment = {
                name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"
            } | {"HF_HOME": str(Path(folder) / "cache")}
        hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        variables = {name: value for name, value in environment.items() if name not in hidden}
        python = str(Path(folder) / "venv" / "bin" / "python")

        def run(*command: str) -> str:
            done = subprocess.run(
                command, cwd=folder, env=variables, capture_output=True, text=True
            )
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command[:5])}\n{done.stderr[-3000:]}")
            return done.stdout

        run(sys.executable, "-m", "venv", str(Path(folder) / "venv"))
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        try:
            run(*pip, "download", "--no-deps", "--dest", folder, packages[-1])
        except RuntimeError as error:
            raise NoPackageIndexError(f"no package index can be reached: {error}") from error
        run(*pip, "install", "--no-compile", *packages)
        for path, name in zip(audio, ("mixture.wav", "enrollment.wav"), strict=False):
            (Path(folder) / name).write_bytes(path.read_bytes())
        if not audio:
            run(python, "-c", WRITE_NOISE)
        answer = run(python, "-c", THREE_LINES.format(model=model) + REPORT)
    result: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return result


def main() -> None:
    """Reads the command line and prints what the model said."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, help="folder or Hub id of a checkpoint")
    parser.add_argument("--audio", nargs=2, type=Path, default=(), help="mixture and enrollment")
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="what to install")
    arguments = parser.parse_args()
    model = arguments.model
    if Path(model).is_dir():
        model = str(Path(model).resolve())
    print(json.dumps(run_three_lines(model, arguments.audio, arguments.packages), indent=2))


if __name__ == "__main__":
    main()
