"""
The emotion of a known speaker over HTTP: custom handler of a Hugging Face Inference Endpoint.

It lies in the model's repository beside the weights; `docs/endpoint.md` shows requests and answers.
A bad request is answered, not raised, so that one bad item of several loses nothing: the answer to
it is `{"error": what is wrong and how to mend it, "status": as in HTTP}`.
"""

import base64
import logging
import math
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import pipeline

ITEM_KEYS = ("mixture", "enrollment", "voice")
PARAMETERS = ("top_k", "details", "return_extracted", "window_seconds", "channel", "voice")
# Starts of WAV (RIFF, RF64), FLAC, Ogg and MP3 (with a tag): no rarer parser sees a request.
FILE_STARTS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3")
AUDIO = "the bytes of a wav, flac, ogg or mp3 file, in JSON as base64"
BAD_REQUEST, NOT_FOUND, TOO_LARGE, NO_AUDIO, UNUSABLE_AUDIO = 400, 404, 413, 415, 422
SERVER_ERROR = 500
# What the pipeline's errors say for programs; whatever else is wrong with audio is 422.
STATUS_OF_REASON = {"too_long": TOO_LARGE, "unreadable": NO_AUDIO}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one request may ask for; `max_request_bytes` counts base64 as it is sent."""

    max_items: int = 16
    max_request_bytes: int = 64 * 2**20
    max_audio_bytes: int = 16 * 2**20
    max_audio_seconds: float = 600.0


LIMITS = Limits()


class RequestError(ValueError):
    """A request, or an item of one, that cannot be answered; the message names the fix."""

    def __init__(self, message: str, status: int = BAD_REQUEST):
        super().__init__(message)
        self.status = status

    def answer(self) -> dict[str, Any]:
        """What the client gets in place of emotions."""
        return {"error": str(self), "status": self.status}


class EndpointHandler:
    """
    Answers requests of `{"inputs": ..., "parameters": {...}}` with the emotions of target speakers.

    `inputs` is one item or a list of items. An item is the audio itself, which is then its own
    enrollment, or a dict of `mixture` and `enrollment`, or of `mixture` and `voice` (a name); audio
    is `bytes` or base64. Nothing of a request is ever taken for a path or a URL. Several threads
    may call at once: the pipeline, which decodes and recognises, takes one item at a time.

    Args:
        path (`str`): folder with the saved pipeline and, where speakers were enrolled beforehand,
            their voices in `voices/`.
        limits (`Limits`): sizes beyond which a request is refused.
    """

    def __init__(self, path: str = "", limits: Limits = LIMITS):
        folder = Path(path)
        voices = folder / "voices"
        options: dict[str, Any] = {"voices": str(voices)} if voices.is_dir() else {}
        load: Any = pipeline
        self._recognize = load(model=str(folder), trust_remote_code=True, **options)
        self._limits = limits
        self._one_item_at_a_time = threading.Lock()

    def __call__(self, data: dict[str, Any]) -> list[Any] | dict[str, Any]:
        """
        Answer one request.

        Args:
            data (`dict`): `inputs` and, optionally, `parameters`: `top_k` (int), `details` and
                `return_extracted` (bool), `window_seconds` (float), `channel` (a number, "mean" or
                "louder"), `voice` (name of an enrolled speaker, for items that name nobody).

        Returns:
            What the pipeline gives for the item, a list of `{"label", "score"}` or a dict with
            `emotions` and all else that is known; `extracted` is `{"audio": base64 of a 32-bit
            float WAV, "sampling_rate"}`. For a list of items the list of their answers, in their
            order. In place of an answer that cannot be given: `{"error": str, "status": int}`.
        """
        try:
            inputs = check_inputs(data, self._limits)
            parameters = check_parameters(data.get("parameters"))
            voice = parameters.pop("voice", None)
            self._check_ranges(parameters)
        except RequestError as error:
            return error.answer()
        if isinstance(inputs, list):
            return [
                self._answer(f"inputs[{index}]", item, voice, parameters)
                for index, item in enumerate(inputs)
            ]
        return self._answer("inputs", inputs, voice, parameters)

    def _answer(self, name: str, item: Any, voice: Any, parameters: dict[str, Any]) -> Any:
        try:
            given = self._given(name, item, voice)
            with self._one_item_at_a_time:
                result = self._recognize(
                    given, max_seconds=self._limits.max_audio_seconds, **parameters
                )
        except RequestError as error:
            return error.answer()
        except ValueError as error:
            # The pipeline's word on audio that it cannot use has a reason; on all else it has none.
            reason = getattr(error, "reason", None)
            status = STATUS_OF_REASON.get(reason, UNUSABLE_AUDIO) if reason else BAD_REQUEST
            return RequestError(f"{name}: {error}", status).answer()
        except (RuntimeError, MemoryError):
            # The other items of the request still get their answers.
            logger.exception("%s could not be answered", name)
            return RequestError(
                f"{name}: the model failed, for want of memory perhaps: send a shorter stretch, or "
                "look into the endpoint's log.",
                SERVER_ERROR,
            ).answer()
        if isinstance(result, dict) and "extracted" in result:
            result["extracted"] = _as_json(**result["extracted"])
        return result

    def _check_ranges(self, parameters: dict[str, Any]) -> None:
        """Raises `RequestError` where the model cannot do what all items ask for."""
        try:
            self._recognize.check_options(**parameters)
        except ValueError as error:
            raise RequestError(str(error)) from error

    def _given(self, name: str, item: Any, voice: Any) -> bytes | dict[str, Any]:
        """The pipeline's input for an item: bytes of files and a name of a voice, but no path."""
        if not isinstance(item, dict):
            mixture = self._audio(name, item)
            return mixture if voice is None else {"mixture": mixture, "voice": self._known(voice)}
        for key in item:
            if key not in ITEM_KEYS:
                raise RequestError(
                    f"{name} has the key {_short(key)}: use mixture, enrollment, voice."
                )
        if item.get("mixture") is None:
            raise RequestError(f"{name} has no mixture: add one, {AUDIO}.")
        if item.get("enrollment") is None:
            if item.get("voice") is not None:
                voice = item["voice"]
            if voice is None:
                raise RequestError(
                    f"{name} has no enrollment: add one, the target speaker alone, or send the "
                    "audio in place of the object to make it its own enrollment."
                )
            known = self._known(voice)
            return {"mixture": self._audio(f"{name}.mixture", item["mixture"]), "voice": known}
        if item.get("voice") is not None:
            raise RequestError(f"{name} has enrollment and voice: send one of them.")
        return {key: self._audio(f"{name}.{key}", item[key]) for key in ("mixture", "enrollment")}

    def _known(self, voice: Any) -> str:
        if not isinstance(voice, str):
            raise RequestError(f"voice is of type {type(voice).__name__}: send a speaker's name.")
        if voice not in self._recognize.voices:
            # Who is enrolled is nobody's business but theirs: no list of names here.
            raise RequestError(
                f"Nobody is enrolled as {_short(voice)}: send an enrollment instead, or put the "
                "voice's file into voices/ of the model's folder.",
                NOT_FOUND,
            )
        return voice

    def _audio(self, name: str, audio: Any) -> bytes:
        return audio_bytes(name, audio, self._limits)


def check_inputs(data: Any, limits: Limits) -> Any:
    """
    The `inputs` of a request, one item or a list, before any of it is decoded.

    Raises:
        RequestError: there are none, or too many, or too many bytes.
    """
    if not isinstance(data, dict) or data.get("inputs") is None:
        raise RequestError(
            'The request has no "inputs": send {"inputs": {"mixture": ..., "enrollment": ...}}, or '
            "audio with its Content-Type."
        )
    inputs = data["inputs"]
    items = inputs if isinstance(inputs, list) else [inputs]
    if not items:
        raise RequestError('"inputs" is an empty list: send at least one item.')
    if len(items) > limits.max_items:
        raise RequestError(
            f"{len(items)} inputs: send at most {limits.max_items} a request.", TOO_LARGE
        )
    parts = [
        part for item in items for part in (item.values() if isinstance(item, dict) else [item])
    ]
    size = sum(len(part) for part in parts if isinstance(part, (str, bytes, bytearray)))
    if size > limits.max_request_bytes:
        raise RequestError(
            f"The audio of the request takes {size} bytes: send at most "
            f"{limits.max_request_bytes}, in several requests or as flac.",
            TOO_LARGE,
        )
    return inputs


def check_parameters(parameters: Any) -> dict[str, Any]:
    """
    Options of the pipeline; null stands for the default.

    Raises:
        RequestError: one is unknown, of a wrong type or out of range.
    """
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(
            f'"parameters" is of type {type(parameters).__name__}: send an object, such as '
            '{"top_k": 2}.'
        )
    for key in parameters:
        if key not in PARAMETERS:
            raise RequestError(f"Unknown parameter {_short(key)}: use {', '.join(PARAMETERS)}.")
    given = {key: value for key, value in parameters.items() if value is not None}
    top_k = given.get("top_k", 1)
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise RequestError("top_k must be a whole number of 1 or more.")
    for key in ("details", "return_extracted"):
        if not isinstance(given.get(key, False), bool):
            raise RequestError(f"{key} must be true or false.")
    if "channel" in given:
        given["channel"] = _channel(given["channel"])
    if "window_seconds" in given:
        given["window_seconds"] = _seconds(given["window_seconds"])
    return given


def _channel(value: Any) -> int | str:
    """A number of a channel, as text too, or what the pipeline knows by a word."""
    text = str(value)
    is_number = text.isascii() and text.isdecimal() and len(text) < 4
    if isinstance(value, bool) or not (is_number or text in ("mean", "louder")):
        raise RequestError('channel must be a whole number of 0 or more, "mean" or "louder".')
    return int(text) if is_number else text


def _seconds(value: Any) -> float:
    """A positive number; as text too, which is how a query string's 2.5 arrives."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise RequestError("window_seconds must be a positive number of seconds.")
    return seconds


def audio_bytes(name: str, audio: Any, limits: Limits) -> bytes:
    """
    The audio file that an item carries, as bytes or in base64.

    Raises:
        RequestError: another type, no base64 (a path or URL among others), empty, too large, or
            the start of no audio file.
    """
    if not isinstance(audio, (str, bytes, bytearray)):
        raise RequestError(f"{name} is of type {type(audio).__name__}: send {AUDIO}.")
    # Four characters of base64 are three bytes: what is too large is not decoded first.
    at_least = len(audio) * 3 // 4 - 2 if isinstance(audio, str) else len(audio)
    if at_least > limits.max_audio_bytes:
        raise RequestError(
            f"{name} has over {limits.max_audio_bytes} bytes: send a shorter stretch, or flac.",
            TOO_LARGE,
        )
    if isinstance(audio, str):
        try:
            audio = base64.b64decode(audio, validate=True)
        except ValueError:
            raise RequestError(
                f"{name} is no base64 (A-Z, a-z, 0-9, +, /, = without line breaks): send {AUDIO}. "
                "Paths and URLs are never opened."
            ) from None
    if not audio:
        raise RequestError(f"{name} is empty: send {AUDIO}.")
    content = bytes(audio)
    is_mp3_frame = len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0
    if not (content.startswith(FILE_STARTS) or is_mp3_frame):
        raise RequestError(
            f"{name} has {len(content)} bytes that are no audio file: send {AUDIO}. Paths and URLs "
            "are never opened.",
            NO_AUDIO,
        )
    return content


def _as_json(array: np.ndarray, sampling_rate: int) -> dict[str, Any]:
    """
    A waveform as base64 of a WAV file.

    32-bit float, as it is. The header is written here because libsndfile puts the time of writing
    into it, and equal requests get equal answers.
    """
    data = array.astype("<f4").tobytes()
    # "fmt " of 18 bytes: format 3 (IEEE float), 1 channel; "fact": frames, as formats but PCM need.
    header = struct.pack(
        "<4sI4s4sIHHIIHHH4sII4sI",
        *(b"RIFF", 50 + len(data), b"WAVE"),
        *(b"fmt ", 18, 3, 1, sampling_rate, 4 * sampling_rate, 4, 32, 0),
        *(b"fact", 4, len(array), b"data", len(data)),
    )
    audio = base64.b64encode(header + data).decode("ascii")
    return {"audio": audio, "sampling_rate": sampling_rate}


def _short(value: Any) -> str:
    """What a request said, for a message: a request may say megabytes."""
    return f"{value!r:.40}"
