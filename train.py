"""Trains one stage of TSE-SER: the extractor, the classifier, or both jointly.

    accelerate launch train.py --config recipes/generated/1_extraction.yaml --fold 1
    accelerate launch train.py --config ... --resume_from_checkpoint auto

Writes the model, its feature extractor and `training_facts.json` into `--output_dir`; see
`tse_ser.training.train`.
"""

import sys

from tse_ser.training.train import main, train

__all__ = ["main", "train"]

if __name__ == "__main__":
    sys.exit(main())
