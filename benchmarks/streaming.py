"""How much faster than speech a stream runs, and how long a chunk takes.

    python -m benchmarks.streaming [--threads 2] [--seconds 6] [--norm_types cln bn cgln]

Recipe size, causal, random weights. Prints a Markdown table: the real-time factor is computing time
over the signal's time (below 1: faster than speech), the delay is the filter's latency plus the
chunk that is waited for plus the time that the slowest twentieth of the chunks takes at least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch

from modeling import TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction

CHUNK_MILLISECONDS = (4, 8, 16, 32, 64, 128, 512)


def chunk_seconds(
    model: TdSpeakerBeamForSpeechExtraction, num_samples: int, seconds: float
) -> np.ndarray:
    """Computing time of each chunk of a signal."""
    embedding = torch.randn(1, model.config.embedding_size)
    stream = model.open_stream(speaker_embeddings=embedding)
    signal = torch.randn(1, round(seconds * model.config.sampling_rate))
    times = []
    for chunk in signal.split(num_samples, dim=-1):
        start = time.perf_counter()
        stream(chunk)
        times.append(time.perf_counter() - start)
    return np.array(times)


def measure(norm_type: str, seconds: float) -> list[str]:
    """Rows of the table for one norm."""
    torch.manual_seed(0)
    config = TdSpeakerBeamConfig(causal=True, norm_type=norm_type)
    model = TdSpeakerBeamForSpeechExtraction(config).eval()
    stream = model.open_stream(speaker_embeddings=torch.randn(1, config.embedding_size))
    rows = []
    for milliseconds in CHUNK_MILLISECONDS:
        num_samples = milliseconds * config.sampling_rate // 1000
        chunk_seconds(model, num_samples, seconds=10 * milliseconds / 1000)
        times = chunk_seconds(model, num_samples, seconds)
        slow = 1000 * np.quantile(times, 0.95)
        delay = 1000 * stream.latency_seconds + milliseconds + slow
        rows.append(
            f"| {norm_type} | {milliseconds} | {1000 * np.median(times):.1f} | {slow:.1f} | "
            f"{times.sum() / seconds:.2f} | {delay:.0f} |"
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="of signal for each row")
    parser.add_argument("--norm_types", nargs="+", default=["cln", "bn", "cgln"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print("| Norm | Chunk, ms | Median, ms | 95 %, ms | Real-time factor | Delay, ms |")
    print("|---|---|---|---|---|---|")
    for norm_type in options.norm_types:
        print("\n".join(measure(norm_type, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
