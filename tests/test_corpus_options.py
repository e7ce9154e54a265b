"""Names of corpora with options, as recipes and command lines write them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from data_builders import load_corpus
from data_builders.corpora import CORPORA, CORPUS_OPTIONS, parse_corpus_name
from data_builders.load import corpus_folder
from data_builders.schema import CorpusError


def test_a_name_is_taken_apart() -> None:
    assert parse_corpus_name("ravdess") == ("ravdess", {})
    text = "librispeech:subsets=train-clean-100+dev-clean,hours=105+99.5,part=2,measure_speech=true"
    assert parse_corpus_name(text) == (
        "librispeech",
        {
            "subsets": ["train-clean-100", "dev-clean"],
            "hours": [105.0, 99.5],
            "part": 2,
            "measure_speech": True,
        },
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("iemocup:scenario=all", "unknown corpus 'iemocup': use one of asterisk"),
        ("iemocap:scene=all", "iemocap: unknown option 'scene': use scenario"),
        ("ravdess:actors=1", "ravdess: unknown option 'actors': use test_speakers"),
        ("librispeech:hours=many", "'many' is no value of the option hours"),
        ("librispeech:measure_speech=perhaps", "'perhaps' is no value of the option measure"),
        ("librispeech:part", "'' is no value of the option part"),
    ],
)
def test_a_wrong_name_is_refused_with_the_fix(name: str, reason: str) -> None:
    with pytest.raises(CorpusError, match=reason):
        load_corpus(name)


def test_unknown_keywords_are_refused() -> None:
    with pytest.raises(CorpusError, match="emodb: unknown option 'hours'"):
        load_corpus("emodb", hours=3.0)


@pytest.mark.parametrize("name", CORPORA)
def test_the_options_are_the_keywords_of_the_function(name: str) -> None:
    parameters = inspect.signature(CORPORA[name]).parameters.values()
    keywords = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    # How strict a corpus is read is said for all of them.
    assert keywords == [*CORPUS_OPTIONS.get(name, {}), "strict"]


def test_the_folder_of_a_corpus_does_not_depend_on_its_options() -> None:
    name = "librispeech:hours=5"
    assert corpus_folder(name, "data", None) == Path("data", "librispeech")
    assert corpus_folder(name, "data", {"librispeech": "speech"}) == Path("speech")
    assert corpus_folder(name, "data", {"librispeech": "a", name: "b"}) == Path("b")
    # A folder of somebody's own is named like the corpus that it holds.
    assert corpus_folder("folder:name=cremad", "data", None) == Path("data", "cremad")
    assert corpus_folder("folder:name=cremad", "data", {"cremad": "a", "folder": "b"}) == Path("a")
    # A folder that is no corpus: of the metadata of LibriMix.
    assert corpus_folder("librimix", "data", None) == Path("data", "librimix")
