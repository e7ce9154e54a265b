"""Interleaved measurements: each contestant in a process of its own, one run of each in turn."""

import argparse
import dataclasses
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection

import torch

from tse_ser.machine import describe_machine


@dataclasses.dataclass
class Settings:
    """How a contestant runs."""

    task: str
    device: str
    threads: int
    precision: str = "float32"
    compile: bool = False

    def autocast(self) -> AbstractContextManager:
        """What a forward pass runs in."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, dtype=getattr(torch, self.precision))


@dataclasses.dataclass
class Contestant:
    """What is timed, in which row of the table."""

    name: str  # of the row in the table
    # A function of a module, from the settings to what is timed: a call without arguments
    build: Callable[[Settings], Callable[[], object]]
    settings: Settings  # how it runs


@dataclasses.dataclass
class Measurement:
    """Seconds of each run, on the wall and of all cores, and the highest memory of the process."""

    name: str
    wall_seconds: list[float]
    cpu_seconds: list[float]
    peak_gigabytes: float


def training_step(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], settings: Settings
) -> Callable[[], None]:
    """One step of Adam on `loss`."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with settings.autocast():
            value = loss()
        value.backward()
        optimizer.step()

    return step


def serve(connection: Connection, contestant: Contestant, num_warm_ups: int) -> None:
    """Run once for each request until told to stop, in a process of its own."""
    settings = contestant.settings
    torch.set_num_threads(settings.threads)
    on_gpu = settings.device == "cuda"
    run = contestant.build(settings)
    for _ in range(num_warm_ups):
        run()
    connection.send("ready")
    while connection.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        connection.send((time.perf_counter() - wall, time.process_time() - cpu))
    if on_gpu:
        connection.send(torch.cuda.max_memory_allocated() / 1e9)
    else:
        # In kilobytes on Linux.
        connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def interleave(
    contestants: list[Contestant], num_runs: int, num_warm_ups: int
) -> list[Measurement]:
    """Measure contestants side by side, so that whatever else slows the machine slows all."""
    context = multiprocessing.get_context("spawn")
    connections, processes = [], []
    for contestant in contestants:
        connection, other_end = context.Pipe()
        process = context.Process(target=serve, args=(other_end, contestant, num_warm_ups))
        process.start()
        other_end.close()
        connections.append(connection)
        processes.append(process)
        connection.recv()
    results = [Measurement(contestant.name, [], [], 0.0) for contestant in contestants]
    for _ in range(num_runs):
        for connection, result in zip(connections, results, strict=True):
            connection.send(True)
            wall, cpu = connection.recv()
            result.wall_seconds.append(wall)
            result.cpu_seconds.append(cpu)
    for connection, process, result in zip(connections, processes, results, strict=True):
        connection.send(False)
        result.peak_gigabytes = connection.recv()
        process.join()
    return results


def table(title: str, results: list[Measurement]) -> str:
    """Medians with the quartiles, and how many times faster each is than the last of the rows."""
    lines = [
        f"| {title} | wall [s] | quartiles | CPU [s] | memory [GB] | speed | memory ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    reference = results[-1]
    for result in results:
        low, median, high = statistics.quantiles(result.wall_seconds, n=4)
        # The ratio of each round, so that a slow minute counts against nobody.
        pairs = zip(reference.wall_seconds, result.wall_seconds, strict=True)
        speed = statistics.median(theirs / ours for theirs, ours in pairs)
        lines.append(
            f"| {result.name} | {median:.3f} | {low:.3f}-{high:.3f} | "
            f"{statistics.median(result.cpu_seconds):.2f} | {result.peak_gigabytes:.2f} | "
            f"{speed:.2f} | {result.peak_gigabytes / reference.peak_gigabytes:.2f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """The machine in one line."""
    on_gpu = torch.device("cuda") if torch.cuda.is_available() else None
    machine = describe_machine(on_gpu)
    processor = machine["gpu"] or machine["cpu"]
    return f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def parse(parser: argparse.ArgumentParser, tasks: list[str]) -> argparse.Namespace:
    """The options that the benchmarks share."""
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile ours")
    parser.add_argument("--runs", type=int, default=9, help="timed runs of each contestant")
    parser.add_argument("--warm_ups", type=int, default=2)
    parser.add_argument("--json", help="file to write every single run to")
    return parser.parse_args()


def report(
    options: argparse.Namespace,
    ours: Callable[[Settings], Callable[[], object]],
    peer: Callable[[Settings], Callable[[], object]],
    peer_name: str,
    titles: dict[str, str],
) -> None:
    """Measure and print each task: ours as the options say, the peer as it comes."""
    print(machine())
    measured = {}
    for task in options.tasks:
        plain = Settings(task, options.device, options.threads)
        settings = dataclasses.replace(plain, precision=options.precision, compile=options.compile)
        name = f"ours, {options.precision}{', compiled' if options.compile else ''}"
        contestants = [Contestant(name, ours, settings), Contestant(peer_name, peer, plain)]
        results = interleave(contestants, options.runs, options.warm_ups)
        print(f"\n{table(titles[task], results)}", flush=True)
        measured[task] = [dataclasses.asdict(result) for result in results]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(measured, file, indent=1)
