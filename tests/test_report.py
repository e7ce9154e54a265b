"""The one-page report: whole in itself, escaped, silent unless asked, the same every time."""

from __future__ import annotations

import base64
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

pytest.importorskip("matplotlib", reason="the report wants matplotlib: pip install 'tse-ser[demo]'")

from tiny_study import make_study

from tse_ser.evaluation.report import main, write_report

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Checks that elements are closed in their order, and keeps what a reader would get."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def finished(generated_corpus: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of the study, whose cells a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "study"))


def test_the_page_holds_tables_curves_and_what_was_done_and_fetches_nothing(study: Path) -> None:
    path = write_report(study, num_audio=0)
    assert path == study / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    words = " ".join(page.words)
    for part in (
        "Table II.",
        "Table VI.",
        "Extraction quality",
        "Differences",
        "validated",
        "12 minutes of training",
        "95 % interval",
        "68.27",
        "Confusion matrices",
    ):
        assert part in words, part
    assert page.tags.count("svg") == 2  # UA against SI-SDRi, and the learning curves
    # Namespaces are names; addresses that are fetched stand in these attributes.
    fetched = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert not [value for value in fetched if not value.startswith(("data:", "#"))]
    assert not {"script", "link", "iframe"} & {*page.tags}
    assert "url(http" not in text and "@import" not in text
    assert ("name", "viewport") in page.attributes
    assert "prefers-color-scheme: dark" in text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_same_results_give_the_same_page(study: Path, tmp_path: Path) -> None:
    once, twice = (
        write_report(study, tmp_path / f"{name}.html", num_audio=1) for name in ("once", "twice")
    )
    assert once.read_bytes() == twice.read_bytes()


def test_speech_is_embedded_only_where_it_is_asked_for(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Generated speech is CC0, so that three mixtures may always be there.
    main(["--results", str(study)])
    free = Page((study / "report.html").read_text(encoding="utf-8"))
    assert free.tags.count("audio") == 12
    main(["--results", str(study), "--audio", "0"])
    assert "data:audio" not in (study / "report.html").read_text(encoding="utf-8")

    (path,) = (study / "cells").glob("*.json")
    cell = json.loads(path.read_text())
    licensed = cell | {"name": "x", "targets": ["ravdess"], "condition_label": "x"}
    (study / "cells" / "licensed.json").write_text(json.dumps(licensed))
    main(["--results", str(study)])
    silent = (study / "report.html").read_text(encoding="utf-8")
    assert "<audio" not in silent and "data:audio" not in silent
    (study / "cells" / "licensed.json").unlink()

    main(["--results", str(study), "--audio", "2", "--output", str(study / "loud.html")])
    assert capsys.readouterr().out.splitlines()[-1] == str(study / "loud.html")
    page = Page((study / "loud.html").read_text(encoding="utf-8"))
    sources = [value for name, value in page.attributes if name == "src"]
    assert page.tags.count("audio") == len(sources) == 8
    clips = []
    for source in sources:
        content = base64.b64decode(source.removeprefix("data:audio/flac;base64,"))
        waveform, rate = soundfile.read(io.BytesIO(content))
        assert rate == 16000
        assert 0 < np.abs(waveform).max() <= 0.91
        clips.append(waveform)
    mixture, extracted, target, _ = clips[:4]
    assert mixture.size == extracted.size == target.size
    # The generated corpus is CC0: nothing has to be said of it.
    assert "own terms" not in " ".join(page.words)


def test_a_corpus_with_conditions_has_them_repeated_above_its_sound(study: Path) -> None:
    (path,) = (study / "cells").glob("*.json")
    cell = json.loads(path.read_text())
    other = cell | {"name": "other", "targets": ["ravdess"], "interferers": ["iemocap:x=1"]}
    (study / "cells" / "other.json").write_text(json.dumps(other | {"condition_label": "x"}))
    words = " ".join(Page(write_report(study, num_audio=1).read_text(encoding="utf-8")).words)
    assert "CC BY-NC-SA 4.0" in words
    assert "Speech of iemocap: under its makers' own terms" in words
    silent = " ".join(Page(write_report(study).read_text(encoding="utf-8")).words)
    assert "CC BY-NC-SA" not in silent


def test_names_of_a_study_are_text_and_never_markup(
    generated_corpus: datasets.Dataset, tmp_path: Path
) -> None:
    name = "--><script>alert(1)</script>"
    page = Page(write_report(make_study(tmp_path, name), num_audio=0).read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert any(name in words for words in page.words)


def test_optimistic_results_say_so_in_every_heading(study: Path) -> None:
    (path,) = (study / "cells").glob("*.json")
    cell = json.loads(path.read_text())
    path.write_text(json.dumps(cell | {"protocol": "best_on_test", "optimistic": True}))
    text = write_report(study, num_audio=0).read_text(encoding="utf-8")
    headings = [
        part.partition("</")[0] for kind in ("h2", "h3") for part in text.split(f"<{kind}>")[1:]
    ]
    assert len(headings) >= 10
    assert all(heading.endswith("(optimistic)") for heading in headings)
    assert "SB+SC (optimistic)" in text


def test_sound_without_a_model_is_refused_with_the_way_out(study: Path) -> None:
    (path,) = (study / "cells").glob("*.json")
    cell = json.loads(path.read_text())
    path.write_text(json.dumps(cell | {"checkpoint": "../steps/gone"}))
    with pytest.raises(ValueError, match="leave out --audio"):
        write_report(study, num_audio=1)
    assert write_report(study).is_file()
