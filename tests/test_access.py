"""Every way to the mixtures gives the same bytes, each example once, in any number of processes."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DataLoaderConfiguration
from corpus_layouts import write_corpora
from datasets.distributed import split_dataset_by_node
from mixture_bytes import NUM_MIXTURES, digest, every_option, write_noise
from torch.utils.data import DataLoader

from data_builders import (
    NO_DATA_FILES,
    load_mixtures,
    load_mixtures_from_plan,
    render_plan_rows,
)
from data_builders.plans.export_plan import write_plan
from data_builders.target_speaker_mixture import NUM_SHARDS, shard_bounds

WAYS = (
    "load_mixtures",
    "load_dataset",
    "load_dataset_streaming",
    "plan",
    "plan_rows",
    "plan_rows_streaming",
)
STREAMING = tuple(way for way in WAYS if way.endswith("streaming"))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_corpora(tmp_path_factory.mktemp("corpora"))
    write_noise(root / "noise")
    write_plan(root / "plan.parquet", split="test", **every_option(root))
    return root


def load(way: str, root: Path) -> Any:
    """The test mixtures, in one of the ways to them."""
    folders: dict[str, Any] = {
        "corpus_dir": root,
        "noise_dir": root / "noise",
        "cache_dir": root / "cache",
    }
    streaming = way in STREAMING
    if way == "load_mixtures":
        return load_mixtures(split="test", **every_option(root))
    if way == "plan":
        return load_mixtures_from_plan(root / "plan.parquet", **folders)
    if way.startswith("load_dataset"):
        return datasets.load_dataset(
            "target_speaker_mixture",
            data_files=NO_DATA_FILES,
            split="test",
            streaming=streaming,
            **every_option(root),
        )
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(root / "plan.parquet"),
        split="train",
        streaming=streaming,
        cache_dir=str(root / "cache"),
    )
    return render_plan_rows(rows, **folders)


@pytest.fixture(scope="module")
def expected(corpora: Path) -> dict[int, str]:
    """Digest of each example by its index."""
    mixtures = load("load_mixtures", corpora)
    return {index: digest(mixtures[index]) for index in range(NUM_MIXTURES)}


def in_workers(examples: Any, num_workers: int, **settings: Any) -> DataLoader[Any]:
    return DataLoader(examples, batch_size=4, num_workers=num_workers, collate_fn=list, **settings)


def unbatched(loader: DataLoader[Any]) -> Iterator[dict[str, Any]]:
    for batch in loader:
        yield from batch


def digests(examples: Any) -> dict[int, str]:
    found = [(example["spec"]["index"], digest(example)) for example in examples]
    assert len(dict(found)) == len(found), "an example came twice"
    return dict(found)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_the_bytes_are_the_same_in_every_way_and_number_of_workers(
    way: str, corpora: Path, expected: dict[int, str]
) -> None:
    examples = load(way, corpora)
    for num_workers in (0, 1, 4):
        assert digests(unbatched(in_workers(examples, num_workers))) == expected


@pytest.mark.parametrize("way", ["plan", "load_dataset_streaming"])
def test_persistent_workers_give_each_example_once_in_each_epoch(
    way: str, corpora: Path, expected: dict[int, str]
) -> None:
    loader = in_workers(load(way, corpora), 2, persistent_workers=True)
    for _ in range(2):
        assert digests(unbatched(loader)) == expected


@pytest.mark.parametrize("way", ["load_dataset", "plan_rows", *STREAMING])
@pytest.mark.parametrize("num_nodes", [2, 5])
def test_nodes_share_the_examples_and_none_is_lost_or_doubled(
    way: str, num_nodes: int, corpora: Path, expected: dict[int, str]
) -> None:
    examples = load(way, corpora)
    parts = [digests(split_dataset_by_node(examples, node, num_nodes)) for node in range(num_nodes)]
    assert sum(len(part) for part in parts) == NUM_MIXTURES
    assert {index: value for part in parts for index, value in part.items()} == expected
    assert max(len(part) for part in parts) - min(len(part) for part in parts) <= 1


@pytest.mark.parametrize("way", ["load_dataset", *STREAMING])
def test_workers_share_what_their_node_has(
    way: str, corpora: Path, expected: dict[int, str]
) -> None:
    parts = []
    for node in range(2):
        part = split_dataset_by_node(load(way, corpora), node, 2)
        parts.append(digests(unbatched(in_workers(part, 2))))
    assert len(parts[0]) == len(parts[1]) == NUM_MIXTURES // 2
    assert parts[0] | parts[1] == expected


@pytest.mark.parametrize("size", [1, 16, 250, 360, 479, 10_000])
def test_any_number_of_nodes_gets_equal_shares_of_a_stream(size: int) -> None:
    """Were the shards not a multiple of the nodes, each node would render the examples of all."""
    bounds = np.asarray(shard_bounds(size))
    assert (bounds[0], bounds[-1]) == (0, size)
    sizes = np.diff(bounds)
    assert sizes.max() - sizes.min() <= 1
    for num_nodes in (2, 3, 4, 5, 6, 8, 16):
        assert NUM_SHARDS % num_nodes == 0
        for shares in (sizes.reshape(num_nodes, -1).sum(1), sizes.reshape(-1, num_nodes).sum(0)):
            assert shares.max() - shares.min() <= 4


def indices(examples: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([example["spec"]["index"] for example in examples])


def in_a_process(rank: int, port: int, loaded: dict[str, Any], results: Any) -> None:
    """Collects the indices that this process gets of each dataset."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    AcceleratorState._reset_state()
    PartialState._reset_state()
    each_once = DataLoaderConfiguration(even_batches=False, dispatch_batches=False)
    accelerator = Accelerator(cpu=True, dataloader_config=each_once)
    found: dict[str, Any] = {"num_processes": accelerator.num_processes}
    for way, examples in loaded.items():
        loader = accelerator.prepare(DataLoader(examples, batch_size=3, collate_fn=indices))
        found[way] = torch.cat([batch.cpu() for batch in loader]).tolist()
    # As it is without any setting, the Trainer's: batches are made even, and metrics know it.
    loader = Accelerator(cpu=True).prepare(
        DataLoader(loaded["load_mixtures"], batch_size=3, collate_fn=indices)
    )
    gathered = [accelerator.gather_for_metrics(batch) for batch in loader]
    found["gathered"] = torch.cat(gathered).tolist()
    results.put((rank, found))
    torch.distributed.destroy_process_group()


def run_two(work: Callable[..., None], *arguments: Any) -> list[dict[str, Any]]:
    """Runs a function in two processes; returns what each put into the queue, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")  # the libraries are imported already
    results = context.Queue()
    processes = [
        context.Process(target=work, args=(rank, port, *arguments, results)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    return [found[rank] for rank in range(2)]


def test_two_processes_of_accelerate_get_each_example_once(corpora: Path) -> None:
    everything = list(range(NUM_MIXTURES))
    found = run_two(in_a_process, {way: load(way, corpora) for way in WAYS})
    assert [process["num_processes"] for process in found] == [2, 2]
    for way in WAYS:
        assert sorted(found[0][way] + found[1][way]) == everything
        assert abs(len(found[0][way]) - len(found[1][way])) <= 3  # a batch
    assert sorted(found[0]["gathered"]) == sorted(found[1]["gathered"]) == everything
