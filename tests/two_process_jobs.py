"""What test_distributed.py launches in two processes: several programs, one after the other.

    accelerate launch --config_file ... tests/two_process_jobs.py jobs.json

The file holds pairs of a program's name and its arguments; one launch for all of them, as the
imports take longer than the programs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

# The launcher puts this script's folder on the path, not the repository.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from tse_ser.training import denoise_corpus
from tse_ser.training.train import leave_together

if __name__ == "__main__":
    torch.set_num_threads(1)
    programs = {"train": train.train, "denoise": denoise_corpus.denoise}
    for program, arguments in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        programs[program](arguments)
    leave_together()
