"""The corpora, by name, and their options.

A corpus is named in recipes and on command lines as `name` or `name:option=value,option=value`;
several values of one option are joined by "+": `iemocap:scenario=improvised`,
`librispeech:subsets=train-clean-100+train-clean-360,hours=105+100,part=2`.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

import datasets

from data_builders.corpora.asterisk import load_asterisk
from data_builders.corpora.cremad import load_cremad
from data_builders.corpora.denoised import load_denoised
from data_builders.corpora.emodb import load_emodb
from data_builders.corpora.esd import load_esd
from data_builders.corpora.folder import load_folder
from data_builders.corpora.generated import load_generated, load_generated_pool
from data_builders.corpora.iemocap import load_iemocap
from data_builders.corpora.librispeech import load_librispeech
from data_builders.corpora.ravdess import load_ravdess
from data_builders.option_reader import OptionError, convert, takes_several
from data_builders.schema import CorpusError

# name -> function(folder of the corpus, cache folder, strict=..., and a keyword an option)
CORPORA: dict[str, Callable[..., datasets.Dataset]] = {
    "generated": load_generated,
    "generated_pool": load_generated_pool,
    "ravdess": load_ravdess,
    "cremad": load_cremad,
    "emodb": load_emodb,
    "asterisk": load_asterisk,
    "iemocap": load_iemocap,
    "librispeech": load_librispeech,
    "esd": load_esd,
    "folder": load_folder,
    "denoised": load_denoised,
}


# Options that every corpus has besides the keywords of its function: patterns of the speakers who
# are tested on and who choose the checkpoint, in place of the corpus's own folds; all others are
# trained on.
SPLIT_OPTIONS = {"test_speakers": list[str], "validation_speakers": list[str]}


def parse_corpus_name(text: str) -> tuple[str, dict[str, Any]]:
    """Takes a name such as "librispeech:subsets=train-clean-100,hours=10" apart.

    Returns the name of the corpus, and the options for its function. Raises `CorpusError` where the
    corpus or an option is unknown, or a value makes no sense.
    """
    name, _, options_text = text.partition(":")
    if name not in CORPORA:
        raise CorpusError(f"unknown corpus {name!r}: use one of {', '.join(sorted(CORPORA))}")
    options = {}
    for entry in options_text.split(",") if options_text else []:
        option, _, value = (part.strip() for part in entry.partition("="))
        several = takes_several(known_options(name).get(option))
        options[option] = value.split("+") if several else value
    return name, settle_corpus_options(name, options, text)


def refuse_confusable(names: Iterable[str]) -> None:
    """Refuses folders whose speakers could be taken for each other's.

    A speaker bears the name of the corpus and "_" in front: 1_2 of "my" and 2 of "my_1" would be
    one. Corpora of the same name share their speakers by intention. Raises `CorpusError` where the
    name of one corpus begins with that of another and "_", and one of the two is a folder.
    """
    prefixes: dict[str, bool] = {}
    for text in names:
        corpus, options = parse_corpus_name(text)
        prefix = options.get("name", corpus)
        prefixes[prefix] = prefixes.get(prefix, False) or corpus == "folder"
    for one, other in itertools.permutations(prefixes, 2):
        if other.startswith(f"{one}_") and (prefixes[one] or prefixes[other]):
            raise CorpusError(
                f"corpora named {one} and {other}: their speakers could be taken for each other's; "
                f"give the folder another name, such as name={other.replace('_', '-')}"
            )


def settle_corpus_options(name: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Brings the options of a corpus to their types.

    `where` begins messages. Raises `CorpusError` where an option is unknown, or a value does not
    fit.
    """
    known = known_options(name)
    for option in options:
        if option not in known:
            raise CorpusError(f"{name}: unknown option {option!r}: use {', '.join(known)}")
    try:
        return {option: convert(option, value, known[option]) for option, value in options.items()}
    except OptionError as error:
        raise CorpusError(f"{where}: {error}") from error


def known_options(name: str) -> Mapping[str, Any]:
    """The options of a corpus, with their types: the keywords of its function, and how it splits.

    How strict a corpus is read is said for all of them.
    """
    hints = get_type_hints(CORPORA[name])
    parameters = inspect.signature(CORPORA[name]).parameters.values()
    keywords = [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    return {**{one: hints.get(one, Any) for one in keywords if one != "strict"}, **SPLIT_OPTIONS}
