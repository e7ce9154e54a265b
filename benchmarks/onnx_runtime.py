"""Extraction in ONNX Runtime beside torch: time and agreement, in interleaved runs.

    python -m benchmarks.onnx_runtime [--model DIR] [--threads 2] [--rounds 10]

Without a model folder, an extractor of recipe size with random weights. Prints a Markdown table.
(Called `onnx.py`, this file would stand in the way of the library.)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from modeling import TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction
from tse_ser.conversion.export_onnx import export_onnx, load_model

# (rows, seconds of mixture, seconds of enrollment)
SHAPES = [(1, 1, 3), (1, 6, 3), (4, 6, 3)]


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the CPU with so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def interleaved_seconds(
    runs: dict[str, Callable[[], np.ndarray]], rounds: int
) -> dict[str, np.ndarray]:
    """Times of each run, one after the other in every round; the first round is thrown away."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: np.array(values[1:]) for name, values in times.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", help="folder of an extractor; recipe size by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.model:
        model = load_model(options.model)
    else:
        model = TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig()).eval()
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, Path(folder) / "model.onnx")
        session = open_session(Path(folder) / "model.onnx", options.threads)
    print("| Rows x mixture + enrollment | torch, s | ONNX Runtime, s | Times faster | Deviation |")
    print("|---|---|---|---|---|")
    for rows, seconds, enrollment_seconds in SHAPES:
        inputs = {
            "input_values": torch.randn(rows, 16000 * seconds),
            "enrollment_values": torch.randn(rows, 16000 * enrollment_seconds),
        }
        arrays = {name: values.numpy() for name, values in inputs.items()}

        def in_torch(inputs: dict[str, torch.Tensor] = inputs) -> np.ndarray:
            with torch.no_grad():
                return model(**inputs).extracted_values.numpy()

        def in_runtime(arrays: dict[str, np.ndarray] = arrays) -> np.ndarray:
            return session.run(["extracted_values"], arrays)[0]

        expected, actual = in_torch(), in_runtime()
        deviation = np.abs(actual - expected).max() / np.abs(expected).max()
        times = interleaved_seconds({"torch": in_torch, "runtime": in_runtime}, options.rounds)
        medians = {name: np.median(values) for name, values in times.items()}
        spreads = {name: np.ptp(values) / 2 for name, values in times.items()}
        print(
            f"| {rows} x {seconds} s + {enrollment_seconds} s "
            f"| {medians['torch']:.2f} ± {spreads['torch']:.2f} "
            f"| {medians['runtime']:.2f} ± {spreads['runtime']:.2f} "
            f"| {medians['torch'] / medians['runtime']:.2f} | {deviation:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
