"""Where the files lie that are no Python: recipes, studies, model cards, the endpoint's handler.

In a checkout they stand at the top level, beside this package; a wheel brings them inside of it
(`setup.py`). A path below `recipes/` or `studies/` that the working folder does not have is that of
the package, so that `--config recipes/generated/2_joint.yaml` works from any folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# What a user may name by its path in the repository.
NAMED_BY_PATH = ("recipes", "studies")


def folder(name: str) -> Path:
    """A folder of the project, in a wheel or in a checkout.

    Args:
        name (`str`): its path in the repository, such as "model_cards" or "deploy/endpoint".

    Returns:
        `Path`: the folder.

    Raises:
        FileNotFoundError: it came neither with the wheel nor with the checkout.
    """
    for parent in (PACKAGE, PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(
        f"the folder {name} of tse-ser is missing beside {PACKAGE}: install the package again, or "
        "complete the checkout"
    )


def find(name: str | Path) -> Path:
    """The file that a user names, as typed or as a recipe gives it; the package's own of that
    name where there is none."""
    path = Path(name)
    if path.exists() or path.parts[:1] not in [(one,) for one in NAMED_BY_PATH]:
        return path
    own = folder(path.parts[0]).joinpath(*path.parts[1:])
    return own if own.exists() else path


def find_in_words(words: Iterable[str]) -> list[str]:
    """The words of a command line, with `find` applied to those below `recipes/` and `studies/`."""
    starts = tuple(f"{one}/" for one in NAMED_BY_PATH)
    return [str(find(word)) if word.startswith(starts) else word for word in words]
