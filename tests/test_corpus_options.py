"""Names of corpora with options, as recipes and command lines write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_builders import load_corpus
from data_builders.corpora import known_options, parse_corpus_name
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
        ("librispeech:hours=many", "hours=many: hours: expected a number, got 'many'"),
        (
            "librispeech:measure_speech=perhaps",
            "expected true or false, got 'perhaps'",
        ),
        ("librispeech:part", "librispeech:part: part: expected a whole number, got ''"),
    ],
)
def test_a_wrong_name_is_refused_with_the_fix(name: str, reason: str) -> None:
    with pytest.raises(CorpusError, match=reason):
        load_corpus(name)


def test_unknown_keywords_are_refused() -> None:
    with pytest.raises(CorpusError, match="emodb: unknown option 'hours'"):
        load_corpus("emodb", hours=3.0)
    with pytest.raises(CorpusError, match="librispeech: part: expected a whole number, got 'a'"):
        load_corpus("librispeech", part="a")


def test_the_options_are_the_keywords_of_the_function_and_how_it_splits() -> None:
    assert list(known_options("ravdess")) == ["test_speakers", "validation_speakers"]
    assert list(known_options("folder")) == ["metadata", "name", *known_options("ravdess")]
    # A sign that parts several values is one of a word.
    assert parse_corpus_name("folder:metadata=a+b.csv")[1] == {"metadata": "a+b.csv"}


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
