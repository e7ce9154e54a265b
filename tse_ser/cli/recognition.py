"""What the commands share: the pipeline of a folder or of the Hub, and files that are written."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from modeling import (
    EXTRACTORS,
    TargetSpeakerEmotionPipeline,
    TseSerFeatureExtractor,
    TseSerForEmotionClassification,
    load_voice,
)
from tse_ser.cli.errors import CommandError

AUDIO_FORMATS = (".wav", ".flac")
WRITTEN_SAMPLES = 2**20


def load_pipeline(name_or_path: str, device: str | None = None) -> TargetSpeakerEmotionPipeline:
    """The pipeline of a saved model, with the code of this package.

    Args:
        name_or_path (`str`): folder of a saved model, or its name on the Hub.
        device (`str`, *optional*): a GPU where there is one by default.

    Returns:
        `TargetSpeakerEmotionPipeline`: of an extractor alone too, which gives no emotions.

    Raises:
        CommandError: there is no such model or device, or the model extracts nobody.
    """
    disable_progress_bar()  # that of loading weights, in milliseconds
    model = _load_model(name_or_path)
    feature_extractor = _load_feature_extractor(name_or_path)
    try:
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise CommandError(
            f"--device {device} cannot be used, take cpu: {_first_line(error)}"
        ) from error
    return TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=feature_extractor, device=model.device
    )


def labels_of(recognize: TargetSpeakerEmotionPipeline) -> list[str]:
    """The emotions in the order of their classes; none of an extractor alone."""
    config = recognize.model.config
    if config.model_type != "tse_ser":
        return []
    return [config.id2label[index] for index in range(len(config.id2label))]


def speaker_of(
    recognize: TargetSpeakerEmotionPipeline,
    enrollment: Sequence[Path] | None,
    voice: Path | None,
    channel: int | str,
) -> dict[str, Any]:
    """Who is meant, as the pipeline takes it beside each mixture: recordings of the speaker alone,
    heard once, or a file that `tse-ser enroll` wrote. Raises `ValueError` where a file cannot be
    used, or another model made the voice."""
    if voice is not None:
        return {"voice": load_voice(voice.expanduser(), recognize.model)}
    return {"enrollment": recognize.voice_of(list(enrollment or []), channel)}


def check_output(output: Path, inputs: Iterable[Path | None], *, overwrite: bool) -> None:
    """Refuses to write over an input, a folder or, without `overwrite`, a file that is there
    already; raises `CommandError`."""
    for path in inputs:
        if path is not None and output.resolve() == path.expanduser().resolve():
            raise CommandError(f"--output {output} is an input, which it would destroy")
    if output.is_dir():
        raise CommandError(f"--output {output} is a folder: name a file")
    if output.exists() and not overwrite:
        raise CommandError(f"--output {output} is there already: pass --overwrite to replace it")


def write_speech(path: Path, speech: np.ndarray, sampling_rate: int) -> None:
    """Writes a waveform `(num_samples,)` within -1..1 as a 16-bit file that is there whole or
    not at all, as the umask says. Raises `CommandError` where the suffix names no format that
    is written, `OSError` where the disk is full or the folder must not be written to."""
    partial = write_partial_speech(path, speech, sampling_rate)
    partial.replace(path)


def write_partial_speech(path: Path, speech: np.ndarray, sampling_rate: int) -> Path:
    """As `write_speech`, to a file beside it that is yet to get its name."""
    check_format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not an audio name: a run that is cut off leaves nothing that passes for a recording.
    partial = path.with_name(f"{path.name}.partial")
    # By Python's own files: libsndfile calls a full disk a "System error".
    with partial.open("wb") as file:
        if path.suffix.lower() == ".flac":
            content = io.BytesIO()
            soundfile.write(content, speech, sampling_rate, format="FLAC", subtype="PCM_16")
            file.write(content.getbuffer())
            return partial
        with wave.open(file, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(sampling_rate)
            for start in range(0, len(speech), WRITTEN_SAMPLES):
                part = speech[start : start + WRITTEN_SAMPLES]
                sound.writeframes((part * 32767).round().astype("<i2").tobytes())
    return partial


def check_format(path: Path) -> None:
    """Refuses a file whose suffix names no format that is written.

    Raises:
        CommandError: it names none.
    """
    if path.suffix.lower() not in AUDIO_FORMATS:
        raise CommandError(f"{path}: name a .wav or .flac file")


def _load_model(name_or_path: str) -> Any:
    _check_folder(name_or_path)
    models: dict[str, Any] = {**EXTRACTORS, "tse_ser": TseSerForEmotionClassification}
    try:
        model_type = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False).model_type
        if model_type not in models:
            raise CommandError(
                f"--model {name_or_path} is a {model_type!r} model, which extracts nobody: name "
                f"one of the types {' or '.join(models)}"
            )
        return models[model_type].from_pretrained(name_or_path).eval()
    except (OSError, SafetensorError) as error:
        is_here = Path(name_or_path).exists()
        place = "it cannot be read" if is_here else "there is no such folder, and no such Hub model"
        raise CommandError(
            f"--model {name_or_path}: {place}: check the name ({_first_line(error)})"
        ) from error


def _load_feature_extractor(name_or_path: str) -> Any:
    try:
        return TseSerFeatureExtractor.from_pretrained(name_or_path)
    except OSError as error:
        raise CommandError(
            f"--model {name_or_path} holds no preprocessor_config.json: save a "
            "TseSerFeatureExtractor there, as trainings do"
        ) from error


def _check_folder(name_or_path: str) -> None:
    folder = Path(name_or_path)
    if folder.exists() and not (folder / "config.json").is_file():
        raise CommandError(
            f"--model {name_or_path} holds no config.json: name the folder that a training wrote"
        )
    # Names on the Hub have one slash at most, and none in front.
    if not folder.exists() and (name_or_path.count("/") > 1 or name_or_path[:1] in "./~"):
        raise CommandError(f"--model {name_or_path}: there is no such folder")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
