"""Saved weights that everybody may read who may read what lies beside them."""

import os
import shutil
from pathlib import Path
from typing import Any


class ReadableWeightsMixin:
    """
    Saves a model such that its weights have the permissions of its config, those of the umask.

    safetensors writes files that only their owner can read, whatever the umask.
    """

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """See [`PreTrainedModel.save_pretrained`]."""
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        config = Path(save_directory) / "config.json"
        if config.is_file():
            for weights in config.parent.glob("*.safetensors"):
                shutil.copymode(config, weights)


__all__ = ["ReadableWeightsMixin"]
