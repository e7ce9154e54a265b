"""The page of the Space without a browser: what a press of each button gives, and its files."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import RepoCard
from space_modules import EMOTIONS, RATE, SPACE, recognizer, save_model, save_voice_like, words

from modeling.pipeline_tse_ser import NOT_ENOUGH_SPEECH, NOT_HEARD, UNCERTAIN

pytest.importorskip("gradio", reason="gradio is absent: pip install -e '.[space]'")
app: Any = importlib.import_module("app")

ALL = next(iter(recognizer.CHANNELS))
ALLOWED_COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("space") / "page_model"
    save_model(folder)
    page = app.Page(recognizer.Recognizer(str(folder)))
    page.blocks = page.build()
    return page


def text(update: str | dict[str, Any]) -> str:
    return update if isinstance(update, str) else str(update["value"])


def test_the_button_gives_the_answer_the_sounds_and_the_pictures(page: Any) -> None:
    mixture, sample = page.recognizer.example
    updates = page.recognize(mixture, sample, app.NEW_SAMPLE, {}, ALL)

    assert updates[page.message] == ""
    assert updates[page.answers]["visible"] and not updates[page.waiting]["visible"]
    assert all(emotion.capitalize() in updates[page.verdict] for emotion in EMOTIONS)
    for player, picture in (
        (page.voice_player, page.voice_picture),
        (page.mixture_player, page.mixture_picture),
    ):
        rate, samples = updates[player]
        assert (rate, samples.dtype, len(samples)) == (RATE, np.int16, 2 * RATE)
        assert "data:image/png;base64," in updates[picture]
    assert updates[page.voice_picture] != updates[page.mixture_picture]


def test_what_went_wrong_is_said_and_no_old_result_stays(page: Any) -> None:
    mixture, sample = page.recognizer.example
    for given, message in (
        ((None, None), "There is no recording yet."),
        ((mixture, None), "There is no sample of the person yet."),
        ((None, sample), "There is no recording yet."),
    ):
        updates = page.recognize(*given, app.NEW_SAMPLE, {}, ALL)
        assert message in updates[page.message] and 'role="alert"' in updates[page.message]
        assert not updates[page.answers]["visible"] and updates[page.waiting]["visible"]


def test_a_saved_voice_stands_in_for_its_sample(page: Any) -> None:
    mixture, sample = page.recognizer.example
    saved = page.save_voice("  Ada ", sample, {}, ALL)

    voices = saved[page.voices]
    assert list(voices) == ["Ada"] and saved[page.chosen]["value"] == "Ada"
    assert (
        saved[page.chosen]["choices"] == [app.NEW_SAMPLE, "Ada"] and saved[page.chosen]["visible"]
    )
    with_voice = page.recognize(mixture, None, "Ada", voices, ALL)
    with_sample = page.recognize(mixture, sample, app.NEW_SAMPLE, voices, ALL)
    assert with_voice[page.verdict] == with_sample[page.verdict]
    # The sample still lies in its hidden place: the chosen voice counts.
    other = save_voice_like(Path(sample).parent / "other.wav", seed=2, seconds=4.0)
    assert (
        page.recognize(mixture, str(other), "Ada", voices, ALL)[page.verdict]
        == (with_sample[page.verdict])
    )
    forgotten = page.forget_voice("Ada", voices)
    assert forgotten[page.voices] == {} and not forgotten[page.chosen]["visible"]
    assert forgotten[page.chosen]["value"] == app.NEW_SAMPLE and list(voices) == ["Ada"]
    gone = page.recognize(mixture, None, "Ada", {}, ALL)
    assert "The voice of Ada is no longer saved" in gone[page.message]


def test_a_voice_without_name_or_sample_is_not_saved(page: Any) -> None:
    _, sample = page.recognizer.example
    for given, message in (
        (("", sample), "needs a name"),
        (("Ada", None), "no sample of the person yet"),
        ((app.NEW_SAMPLE, sample), "cannot be a name"),
    ):
        updates = page.save_voice(*given, {}, ALL)
        assert message in updates[page.message] and page.voices not in updates


def test_nothing_that_a_visitor_types_becomes_part_of_the_page(page: Any) -> None:
    _, sample = page.recognizer.example
    updates = page.save_voice("<img src=x onerror=a()>", sample, {}, ALL)
    assert "&lt;img" in updates[page.message] and "<img" not in updates[page.message]


def test_the_choice_of_a_voice_hides_the_sample() -> None:
    sample, forget = app.show_sample("Ada")
    assert not sample["visible"] and forget["visible"]
    sample, forget = app.show_sample(app.NEW_SAMPLE)
    assert sample["visible"] and not forget["visible"]


def test_the_example_fills_both_places(page: Any) -> None:
    updates = page.fill_in_example()
    for place, seconds in ((page.mixture, 2.0), (page.sample, 4.0)):
        rate, samples = updates[place]
        assert (rate, len(samples), samples.dtype) == (RATE, seconds * RATE, np.int16)
    assert updates[page.chosen] == app.NEW_SAMPLE


def recognition(**fields: Any) -> Any:
    given: dict[str, Any] = {
        "answer": "sad",
        "separated": {"sad": 0.7, "happy": 0.3},
        "unseparated": {"sad": 0.2, "happy": 0.8},
        "mixture": np.zeros(4 * RATE, np.float32),
        "voice": np.zeros(4 * RATE, np.float32),
        "sampling_rate": RATE,
        "speech_seconds": 2.46,
    }
    return recognizer.Recognition(**(given | fields))


def test_the_verdict_says_what_there_is_to_say() -> None:
    plain = words.verdict(recognition())
    assert "This voice sounds <strong>sad</strong>" in plain
    assert "the answer would be <strong>happy</strong>" in plain
    assert "speaks for 2.5 seconds" in plain
    assert "certain" not in plain and 'class="warning"' not in plain
    same = words.verdict(recognition(unseparated={"sad": 0.6, "happy": 0.4}))
    assert "the answer would be the same." in same
    assert "far from certain" in words.verdict(recognition(answer="uncertain"))
    absent = words.verdict(recognition(answer="the speaker was not heard"))
    assert "does not seem to be in the recording" in absent and "This voice sounds" not in absent
    little = words.verdict(recognition(answer="not enough speech"))
    assert "too little speech to tell" in little and "This voice sounds" not in little
    warned = words.verdict(recognition(warnings=("<b>Too loud.",)))
    assert '<p class="warning">&lt;b&gt;Too loud.</p>' in warned


def test_the_words_are_those_of_the_pipeline() -> None:
    said = {NOT_ENOUGH_SPEECH, NOT_HEARD, UNCERTAIN}
    assert set(words.ANSWERS) == said and set(words.INSTEAD) < said


def test_nothing_is_kept_beyond_an_hour_or_reported(page: Any) -> None:
    assert page.blocks.delete_cache == (app.CLEANING_INTERVAL_SECONDS, app.KEPT_SECONDS)
    assert sum(page.blocks.delete_cache) <= 3600
    assert page.voices.time_to_live <= 3600
    assert not page.blocks.analytics_enabled
    limits = words.limits(EMOTIONS)
    assert "within an hour" in limits and "no lie detector" in limits
    assert "one of neutral, happy, sad or angry:" in limits


def test_no_button_can_be_called_by_a_program(page: Any) -> None:
    functions = [function for function in page.blocks.fns.values() if function.fn is not None]
    assert len(functions) >= 5
    assert {function.api_visibility for function in functions} == {"private"}


def test_the_model_comes_from_the_command_line_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TSE_SER_MODEL", "lab/from-environment")
    assert app.parse_arguments([]).model == "lab/from-environment"
    assert app.parse_arguments(["--model", "here"]).model == "here"
    monkeypatch.delenv("TSE_SER_MODEL")
    with pytest.raises(SystemExit):
        app.parse_arguments([])
    assert "set TSE_SER_MODEL in the Space's settings" in capsys.readouterr().err


def test_the_readme_is_a_card_that_a_space_can_be_made_of() -> None:
    card = RepoCard.load(SPACE / "README.md", repo_type="space").data.to_dict()

    assert card["sdk"] == "gradio" and card["license"] == "apache-2.0"
    assert (SPACE / card["app_file"]).is_file()
    assert {card["colorFrom"], card["colorTo"]} <= ALLOWED_COLOURS
    assert len(card["short_description"]) <= 60
    # The same release line that the requirements ask for.
    asked = {line.partition(">=")[0]: line.partition(">=")[2] for line in requirements()}
    assert card["sdk_version"].startswith(asked["gradio"] + ".")


def test_the_requirements_name_what_the_space_imports() -> None:
    local = {path.stem for path in SPACE.glob("*.py")}
    imported = {
        name.split(".")[0]
        for path in SPACE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    required = {line.partition(">=")[0].replace("pillow", "PIL") for line in requirements()}
    assert imported - local - set(sys.stdlib_module_names) <= required
    # What the code of the models needs besides.
    assert {"av", "safetensors", "soundfile"} <= required


def requirements() -> list[str]:
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
