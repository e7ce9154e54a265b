"""The columns of a table of plans, derived from `MixtureSpec`, so that the two cannot part ways."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import datasets

from data_builders.mixtures.spec import MixtureSpec

_DTYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


def _record_features(record: type) -> dict[str, Any]:
    """Columns for the plain values of a dataclass of strings, numbers, tuples and dataclasses."""
    hints = get_type_hints(record)
    return {field.name: _feature(hints[field.name]) for field in dataclasses.fields(record)}


def _feature(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # of a type and None: every column may hold nulls
        return _feature(next(one for one in arguments if one is not types.NoneType))
    if origin is tuple:
        return datasets.List(_feature(arguments[0]))
    if origin is Literal:
        return _feature(type(arguments[0]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record_features(hint)
    return datasets.Value(_DTYPES[hint])


SPEC_FEATURES = datasets.Features(_record_features(MixtureSpec))

# The columns of a plan file: the specs, what they are to give, and what they are made of.
PLAN_FILE_FEATURES = datasets.Features(
    {
        "split": datasets.Value("string"),
        **SPEC_FEATURES,
        "label": datasets.Value("int64"),
        "emotion": datasets.Value("string"),
        "speaker_id": datasets.Value("string"),
        # Names of the corpora whose folders are needed, with their options.
        "corpora": datasets.List(datasets.Value("string")),
        # The recordings of the mixture and of its enrollment, to tell another copy of a corpus.
        "utterances": datasets.List(
            {
                "utterance_id": datasets.Value("string"),
                "corpus": datasets.Value("string"),
                # Relative to the folder of its corpus, "" where that is converted or generated. It
                # is for the reader: files are found by their ids, however a copy is laid out.
                "path": datasets.Value("string"),
                # At 16 kHz; the speech lasts from its start to before its end.
                "num_samples": datasets.Value("int64"),
                "speech_start": datasets.Value("int64"),
                "speech_end": datasets.Value("int64"),
                "fingerprint": datasets.Value("string"),
            }
        ),
        # Of the noise recording; null without noise.
        "noise_fingerprint": datasets.Value("string"),
    }
)
