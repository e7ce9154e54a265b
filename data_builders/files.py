"""Writing files that other processes may read meanwhile."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write a file under; it gets its own once it is complete.

    Other processes see the whole file or none. Who may read it is what the umask says, other than
    for the files of `tempfile`, which are their owner's alone.

    Args:
        path (`Path`): the file; its folder is made.

    Yields:
        `Path`: where to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
