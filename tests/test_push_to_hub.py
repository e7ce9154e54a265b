"""push_to_hub.py up to the upload: what the folder holds, what is shown, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny_models import STATISTICS_FIELDS, tiny_classifier, tiny_extractor, tiny_tse_ser
from tiny_publishing import RAVDESS, REPO_ID, write_cell, write_training
from transformers import AutoConfig

from tse_ser.conversion.checkpoint_card import write_card
from tse_ser.publishing.command import main
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.model_repository import build_model_repository
from tse_ser.publishing.options import PublishingOptions, PushOptions
from tse_ser.publishing.repository import (
    check_repository,
    list_files,
    upload,
)
from tse_ser.saving import load_saved, save_with_code

RATE = 16000
JOINT = ["--stage", "joint", "--condition", "noisy", *RAVDESS]
CLEAN = ["--stage", "classification", "--condition", "clean", *RAVDESS]
NOT_EVALUATED = PublishingOptions(not_evaluated=True)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder: the joint model, the extractor that it started from, one cell."""
    study = tmp_path_factory.mktemp("study")
    extractor = write_training(study / "extractor", None, ["--stage", "extraction", *RAVDESS])
    started = ["--extractor_name_or_path", str(extractor)]
    model: Any = tiny_tse_ser()
    model.config.extractor_config._name_or_path = str(extractor)
    joint = write_training(study / "joint", model, [*JOINT, *started])
    (joint / "checkpoint-96").mkdir()
    for name in ("optimizer.pt", "training_args.bin", "checkpoint-96/model.safetensors"):
        (joint / name).write_bytes(b"of the training, and of no use elsewhere")
    write_cell(study / "cells" / "sb_plus_sc.json", "../joint")
    return joint


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("samples")
    for seed, name in enumerate(("mixture", "enrollment")):
        noise = np.random.default_rng(seed).standard_normal((22050, 2))
        soundfile.write(folder / f"{name}.wav", noise, 22050, subtype="FLOAT")
    return [
        *("--sample_mixture", str(folder / "mixture.wav")),
        *("--sample_enrollment", str(folder / "enrollment.wav")),
        *("--sample_license", "cc0-1.0"),
    ]


@pytest.fixture(scope="module")
def shown(training: Path, samples: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder and printed text of a dry run."""
    folder = tmp_path_factory.mktemp("built") / "repository"
    arguments = ["--model", str(training), "--repo_id", REPO_ID, "--results", str(training.parent)]
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda text: lines.append(text))
        # There is no Hub to be reached: a dry run does without.
        main([*arguments, *samples, "--dry_run", "--output_dir", str(folder)])
    return folder, "\n".join(lines)


def test_a_dry_run_shows_the_files_and_the_card(shown: tuple[Path, str]) -> None:
    folder, text = shown
    for name in list_files(folder):
        assert f"  {name}\n" in text
    assert (folder / "README.md").read_text(encoding="utf-8") in text
    assert f"Nothing was uploaded. It would go to {REPO_ID}, main, private." in text
    assert f"The folder is kept: {folder}" in text


def test_the_folder_holds_what_a_user_needs_and_nothing_of_the_training(
    shown: tuple[Path, str], training: Path
) -> None:
    folder, _ = shown
    names = set(list_files(folder))
    assert names >= {
        *("README.md", "config.json", "preprocessor_config.json", "model.safetensors"),
        *("pipeline_tse_ser.py", "modeling_tse_ser.py", "configuration_tse_ser.py"),
        *("feature_extraction_tse_ser.py", "handler.py", "requirements.txt"),
        *("sample/mixture.wav", "sample/enrollment.wav", "training_facts.json", "results.json"),
    }
    assert not [name for name in names if name.endswith((".pt", ".bin")) or "checkpoint-" in name]
    config = json.loads((folder / "config.json").read_text())
    assert config["custom_pipelines"]["audio-classification"]["impl"].startswith("pipeline_tse_ser")
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModelForAudioClassification"}
    saved, trained = (load_file(path / "model.safetensors") for path in (folder, training))
    assert saved.keys() == trained.keys()
    assert all(torch.equal(saved[name], trained[name]) for name in saved)


def test_nothing_in_the_folder_tells_of_this_machine_or_of_single_utterances(
    shown: tuple[Path, str], training: Path
) -> None:
    folder, _ = shown
    for name in list_files(folder):
        if not name.endswith((".safetensors", ".wav")):
            text = (folder / name).read_text(encoding="utf-8")
            assert str(training.parent) not in text, name
            assert "secret" not in text, name
    (cell,) = json.loads((folder / "results.json").read_text())
    assert cell["ua"] == 0.515625
    facts = json.loads((folder / "training_facts.json").read_text())
    assert [one["training"]["stage"] for one in facts["earlier_stages"]] == ["extraction"]


def test_samples_are_written_plain_at_the_models_rate(shown: tuple[Path, str]) -> None:
    for name in ("mixture", "enrollment"):
        info = soundfile.info(shown[0] / "sample" / f"{name}.wav")
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert info.frames == RATE
        # Louder than full scale before: brought down, not clipped.
        waveform, _ = soundfile.read(shown[0] / "sample" / f"{name}.wav")
        assert 0.99 < np.abs(waveform).max() <= 1
        assert (np.abs(waveform) > 0.99).sum() < 10


def test_a_built_folder_can_be_published_again(shown: tuple[Path, str], tmp_path: Path) -> None:
    again = build_model_repository(shown[0], tmp_path / "again", "lab/copy", NOT_EVALUATED)
    facts = "training_facts.json"
    assert (again / facts).read_text() == (shown[0] / facts).read_text()
    assert "# TSE-SER: copy" in (again / "README.md").read_text(encoding="utf-8")


def test_weights_can_be_rounded_and_the_card_says_so(training: Path, tmp_path: Path) -> None:
    options = PublishingOptions(results=training.parent, dtype="float16")
    folder = build_model_repository(training, tmp_path / "half", REPO_ID, options)
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert "were rounded to float16" in (folder / "README.md").read_text(encoding="utf-8")
    waveforms = 0.1 * np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)
    probabilities = []
    for name in (training, folder):
        model, feature_extractor = load_saved(name)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        features = feature_extractor(waveforms[:1], waveforms[1:])
        with torch.no_grad():
            probabilities.append(model(**features).logits.float().softmax(-1))
    torch.testing.assert_close(*probabilities, atol=0.02, rtol=0)


def test_a_copy_of_the_measured_weights_is_published_with_their_numbers(
    training: Path, tmp_path: Path
) -> None:
    copy = save_with_code(training, tmp_path / "checkpoint")
    options = PublishingOptions(results=training.parent)
    folder = build_model_repository(copy, tmp_path / "built", REPO_ID, options)
    assert json.loads((folder / "results.json").read_text())[0]["ua"] == 0.515625
    model, feature_extractor = load_saved(training)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    save_with_code(model, copy, feature_extractor)
    with pytest.raises(PublishingError, match="none of 1 cells was measured with"):
        build_model_repository(copy, tmp_path / "other", REPO_ID, options)


@pytest.mark.parametrize("model_type", ["td_speakerbeam", "shift_cnn"])
def test_the_two_stages_are_published_alone(model_type: str, tmp_path: Path) -> None:
    is_extractor = model_type == "td_speakerbeam"
    model = tiny_extractor(**STATISTICS_FIELDS) if is_extractor else tiny_classifier()
    arguments = ["--stage", "extraction", *RAVDESS] if is_extractor else CLEAN
    trained = write_training(tmp_path / "trained", model, arguments)
    folder = build_model_repository(trained, tmp_path / "built", f"lab/{model_type}", NOT_EVALUATED)
    card = (folder / "README.md").read_text(encoding="utf-8")
    expected = "audio-to-audio" if is_extractor else "audio-classification"
    assert f"pipeline_tag: {expected}\n" in card
    assert f'"lab/{model_type}", trust_remote_code=True' in card
    # Their classes know no enrollment endpoint.
    assert "handler.py" not in list_files(folder)
    assert AutoConfig.from_pretrained(folder).model_type == model_type


def test_a_converted_checkpoint_is_published_under_the_licence_of_its_source(
    tmp_path: Path,
) -> None:
    model, folder = tiny_extractor(), tmp_path / "converted"
    save_with_code(model, folder)
    write_card(model, folder, "ESPnet", "valid.loss.ave.pth", "cc-by-4.0", "lab/extractor")
    built = build_model_repository(folder, tmp_path / "built", "lab/converted", NOT_EVALUATED)
    card = (built / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-4.0\n" in card
    assert "base_model:\n- lab/extractor\n" in card
    assert "1. **Converted from a public checkpoint, not trained here**" in card
    assert "conversion_facts.json" in list_files(built)
    write_card(model, folder, "ESPnet", "valid.loss.ave.pth", "unknown", None)
    with pytest.raises(PublishingError, match=r"valid\.loss\.ave\.pth has no licence that is"):
        build_model_repository(folder, tmp_path / "unknown", "lab/converted", NOT_EVALUATED)


def test_a_model_is_saved_with_its_code_from_memory_or_from_a_folder(
    training: Path, tmp_path: Path
) -> None:
    model, feature_extractor = load_saved(training)
    feature_extractor.min_duration_seconds = 0.25
    save_with_code(model, tmp_path / "memory", feature_extractor)
    save_with_code(tmp_path / "memory", tmp_path / "copy")
    for name in list_files(tmp_path / "memory"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "memory" / name).read_bytes()
    assert load_saved(tmp_path / "copy")[1].min_duration_seconds == 0.25
    for missing, message in (
        ("preprocessor_config.json", "holds no preprocessor_config"),
        ("model.safetensors", "Pickled weights"),
        ("config.json", "holds no config"),
    ):
        (tmp_path / "copy" / missing).unlink()
        with pytest.raises(ValueError, match=message):
            load_saved(tmp_path / "copy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--results is missing"),
        (["--not_evaluated", "--results", "."], "exclude each other"),
        (["--not_evaluated", "--license", "mit"], "non-commercial use only"),
        (["--not_evaluated", "--sample_mixture", "a.wav"], "go together: give all three"),
        (["--not_evaluated", "--revision", "v2", "--create_pr"], "exclude each other"),
        (["--not_evaluated", "--describe", "folder"], "expected NAME=TEXT"),
        (["--not_evaluated", "--describe", "a=b", "--describe", "folder"], "expected NAME=TEXT"),
        (["--not_evaluated", "--license_note", "Ask us."], "say what --license other is"),
        (
            ["--not_evaluated", "--license", "mit", "--license_name", "x"],
            "say what --license other",
        ),
        (["--not_evaluated", "--base_model", "lab/encoder"], "lab/encoder has no licence that is"),
        (["--not_evaluated", "--output_dir", "."], "is there and not empty"),
        (["--not_evaluated", "--repo_id", "name"], "expected owner/name"),
        (["--not_evaluated", "--repo_id", "a/b/c"], "--repo_id 'a/b/c'"),
        (["--not_evaluated", "--model", "nowhere"], "nowhere holds no config.json"),
    ],
)
def test_a_wrong_command_is_refused_in_a_line(
    arguments: list[str],
    message: str,
    training: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").write_text("")
    with pytest.raises(PublishingError) as stopped:
        main(["--model", str(training), "--repo_id", REPO_ID, *arguments])
    assert message in str(stopped.value)
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_weights_without_the_facts_of_their_training_are_refused(
    training: Path, tmp_path: Path
) -> None:
    model, feature_extractor = load_saved(training)
    bare = save_with_code(model, tmp_path / "bare", feature_extractor)
    with pytest.raises(PublishingError, match=r"bare holds no training_facts\.json"):
        build_model_repository(bare, tmp_path / "built", REPO_ID, NOT_EVALUATED)
    # Neither a folder nor half of one is left.
    assert [path.name for path in tmp_path.iterdir()] == ["bare"]


PICKLE = b"\x80\x04\x95 of anything"
WAV = b"RIFF\x24\x00\x00\x00WAVE"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sample/other.wav", WAV, "is audio"),
        ("audio/001.flac", b"fLaC", "is audio"),
        ("plan.parquet", b"PAR1", "is a table"),
        ("utterances.csv", b"path,speaker_id", "is a table"),
        ("training_args.bin", b"anything", "is a pickle"),
        ("config.json", b"PAR1", "no json file"),
        ("results.json", WAV, "no json file"),
        ("helper.py", PICKLE, "no py file"),
        ("README.md", WAV, "no md file"),
        ("sample/mixture.wav", PICKLE, "no wav file"),
        ("model.safetensors", b"PK\x03\x04 what torch.save writes", "no safetensors file"),
        ("notes.txt", b"call Anna", "does not belong into a model repository"),
        (".env", b"TOKEN=", "does not belong into a model repository"),
        ("README.md", None, "nothing is published without its card"),
    ],
)
def test_a_folder_with_what_must_not_be_shared_is_refused_before_any_request(
    name: str, content: bytes | None, message: str, shown: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    for kept in list_files(shown[0]):
        (folder / kept).parent.mkdir(parents=True, exist_ok=True)
        os.link(shown[0] / kept, folder / kept)
    check_repository(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content)
    # The tests are offline: a request would fail with another error.
    with pytest.raises(PublishingError, match=message):
        upload(folder, PushOptions(repo_id=REPO_ID, model=folder))


def test_a_link_out_of_the_folder_is_refused(shown: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "README.md").symlink_to(shown[0] / "README.md")
    with pytest.raises(PublishingError, match=r"README\.md is a link"):
        check_repository(tmp_path)


def test_a_sample_has_to_be_short_audio(training: Path, tmp_path: Path) -> None:
    long, text = tmp_path / "long.wav", tmp_path / "text.wav"
    soundfile.write(long, np.zeros(31 * RATE), RATE)
    text.write_text("no audio")
    for file, message in ((long, "lasts 31 s"), (text, "--sample_mixture: .*cannot be read")):
        sample: dict[str, Any] = {
            "sample_mixture": file,
            "sample_enrollment": file,
            "sample_license": "cc0-1.0",
        }
        options = PublishingOptions(not_evaluated=True, **sample)
        with pytest.raises(PublishingError, match=message):
            build_model_repository(training, tmp_path / "built", REPO_ID, options)
    assert not (tmp_path / "built").exists()
