"""The handler under load: nothing lost, nothing mixed up, and memory that stays where it is."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_endpoint import (
    RATE,
    assert_clean_error,
    assert_emotions,
    audio_file,
    in_base64,
    load_handler_module,
    noise,
    tiny_pipeline,
)

NUM_THREADS = 8
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("endpoint")
    tiny_pipeline().save_pretrained(folder)
    return load_handler_module().EndpointHandler(str(folder))


def requests(count: int, max_seconds: float = 0.5) -> list[Any]:
    """Requests of every kind and of many lengths; every fifth is bad."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(count):
        first, second = rng.uniform(0.15, max_seconds, size=2)
        rate = int(rng.choice([RATE, 8000, 44100]))
        mixture = audio_file(noise(index, first, rate=rate), rate, kind="FLAC")
        pair = {"mixture": in_base64(mixture), "enrollment": audio_file(noise(index + 1, second))}
        made.append(
            (
                {"inputs": pair, "parameters": {"return_extracted": True}},
                {"inputs": mixture, "parameters": {"top_k": 4, "window_seconds": 0.1}},
                {"inputs": [pair, mixture[:100], pair]},
                {"inputs": in_base64(mixture)},
                {"inputs": {**pair, "enrollment": "/etc/passwd"}},
            )[index % 5]
        )
    return made


def in_threads(handler: Any, asked: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(handler, asked))


def check_each(answers: Sequence[Any]) -> None:
    for index, answer in enumerate(answers):
        if index % 5 == 2:
            assert_emotions(answer[0])
            assert_clean_error(answer[1], 415)
            assert answer[2] == answer[0]
        elif index % 5 == 4:
            assert_clean_error(answer, 400)
        else:
            assert_emotions(answer)


def resident_bytes() -> int:
    statistics = Path("/proc/self/statm")
    if not statistics.is_file():
        pytest.skip("this system does not say in /proc how much memory a process takes")
    gc.collect()
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_200_requests_from_8_threads_get_the_answers_that_they_get_one_by_one(handler: Any) -> None:
    asked = requests(200)
    one_by_one = [handler(request) for request in asked]
    check_each(one_by_one)
    assert in_threads(handler, asked) == one_by_one


def growth_a_round(handler: Any, asked: Sequence[Any], num_rounds: int) -> Iterator[int]:
    """Bytes by which each round of requests makes the process grow, after the first."""

    def sizes() -> Iterator[int]:
        for _ in range(num_rounds):
            check_each(in_threads(handler, asked))
            yield resident_bytes()

    for before, after in pairwise(sizes()):
        yield after - before


def test_memory_stays_flat_under_load(handler: Any) -> None:
    # Allocators grow for some rounds; a leak grows in every one, and one waveform of 0.2 s kept for
    # each request is 2.6 MiB.
    growth = growth_a_round(handler, requests(200, 0.3), num_rounds=10)
    assert any(size < MEBIBYTE for size in growth)
