"""Publishes a checkpoint, or a plan of mixtures, on the Hugging Face Hub.

    python push_to_hub.py --model results/ravdess/joint --repo_id lab/tse-ser-ft \\
        --results results/ravdess --dry_run
    python push_to_hub.py --plan plan.parquet --repo_id lab/ravdess-mixtures

The same as `tse-ser push`.
"""

import sys

from tse_ser.publishing.command import main
from tse_ser.publishing.errors import PublishingError

if __name__ == "__main__":
    try:
        main()
    except PublishingError as error:
        sys.exit(f"push_to_hub.py: error: {error}")
