"""What must not go wrong unseen in a training: the mutants, folders, disks and interruptions."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import (
    JOINT_TRAINING,
    ToyMixtures,
    TrainingEndedError,
    killed_after,
    tiny_model,
    tiny_trainer,
    write_model_configs,
)
from transformers import set_seed

from data_builders import load_mixtures
from data_builders.option_reader import OptionError
from modeling import TseSerFeatureExtractor
from tse_ser.evaluation.evaluate_checkpoint import evaluate_checkpoint
from tse_ser.evaluation.prediction import order_by_length, predict, run_model
from tse_ser.options import ModelOptions
from tse_ser.training import train as program
from tse_ser.training.build_model import build_model
from tse_ser.training.checkpoints import CheckpointError, check_same_run
from tse_ser.training.collator import TseSerCollator
from tse_ser.training.frame_statistics import fit_new_classifier
from tse_ser.training.trainer import LengthGroupedSampler, TseSerTrainer


@pytest.fixture(scope="module")
def flags(
    generated_corpus: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Two epochs of four steps, a checkpoint every second one."""
    return [
        *JOINT_TRAINING,
        *write_model_configs(tmp_path_factory.mktemp("configs")),
        *("--num_train_epochs", "2", "--per_device_train_batch_size", "4"),
        *("--eval_strategy", "no", "--load_best_model_at_end", "false"),
        *("--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "10"),
    ]


def test_the_extractor_has_a_learning_rate_of_its_own_and_the_same_weight_decay(
    tmp_path: Path,
) -> None:
    model = tiny_model("joint")
    trainer = tiny_trainer(
        model, tmp_path, learning_rate=1e-3, extractor_learning_rate=1e-2, weight_decay=0.5
    )
    optimizer = trainer.create_optimizer()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in model.extractor.parameters()} == {1e-2}
    assert {rates[id(p)] for p in model.classifier.parameters()} == {1e-3}
    assert len(rates) == sum(1 for _ in model.parameters())
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    plain = tiny_trainer(model, tmp_path, weight_decay=0.5).create_optimizer()
    expected = {
        id(p): group["weight_decay"] for group in plain.param_groups for p in group["params"]
    }
    assert decays == expected
    assert {decays[id(p)] for p in model.extractor.parameters()} == {0.0, 0.5}
    # Without a gradient, a decayed weight shrinks by rate times decay, and by nothing else.
    name, weight = next((n, p) for n, p in model.extractor.named_parameters() if decays[id(p)])
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 1e-2 * 0.5), msg=name)


def test_the_joint_stage_fits_its_frame_statistics_on_targets() -> None:
    class HummingMixtures(ToyMixtures):
        def __getitem__(self, index: int) -> dict[str, Any]:
            example = super().__getitem__(index)
            hum = np.sin(0.05 * np.arange(len(example["target"]))).astype(np.float32)
            # What is to be extracted sounds quite unlike the mixture.
            return {**example, "target": hum, "mixture": hum + example["mixture"]}

    examples: Any = HummingMixtures(4)
    fields = {"standardize_frames": True, "head_hidden_size": 8}
    collator = TseSerCollator(TseSerFeatureExtractor(), "joint")
    set_seed(0)
    model = tiny_model("joint", **fields)
    fit_new_classifier(model, ModelOptions(), examples, collator)
    batch = collator([examples[index] for index in range(4)])
    fitted = {}
    for heard in ("target_values", "input_values"):
        set_seed(0)
        classifier = tiny_model("joint", **fields).classifier.eval()
        classifier.fit_frame_statistics(
            [{"input_values": batch[heard], "attention_mask": batch["attention_mask"]}]
        )
        fitted[heard] = classifier.head.frame_mean
    mean = model.classifier.head.frame_mean
    torch.testing.assert_close(mean, fitted["target_values"], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(mean, fitted["input_values"], rtol=1e-2, atol=1e-2)


def test_every_door_refuses_another_rate_than_the_models(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [{**ToyMixtures(2)[index], "sampling_rate": 8000} for index in range(2)]
    with pytest.raises(ValueError, match="Expected 16000 Hz, got 8000"):
        TseSerCollator(TseSerFeatureExtractor(), "joint")(examples)
    with pytest.raises(ValueError, match="Expected 16000 Hz, got 8000"):
        run_model(tiny_model("joint"), examples)
    mixed = [ToyMixtures(1)[0], examples[1]]
    with pytest.raises(ValueError, match="different rates"):
        TseSerCollator(TseSerFeatureExtractor(), "joint")(mixed)
    # A model of 8 kHz on the mixtures of the corpora, which have 16 kHz.
    extractor = tiny_model("extraction")
    extractor.config.sampling_rate = 8000
    with pytest.raises(ValueError, match="Expected 8000 Hz, got 16000"):
        run_model(extractor, [ToyMixtures(1)[0]])
    extractor.save_pretrained(tmp_path / "narrow")
    stage = ["--stage", "extraction", "--model_name_or_path", str(tmp_path / "narrow")]
    assert program.main([*flags, *stage, "--output_dir", str(tmp_path / "out")]) == 2
    assert "made for 8000 Hz, the mixtures have 16000 Hz" in capsys.readouterr().err


def test_mixtures_tell_their_rate(generated_corpus: datasets.Dataset) -> None:
    assert load_mixtures(split="test", max_examples=1)[0]["sampling_rate"] == 16_000


def test_two_trainings_in_one_folder_are_refused(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock(tmp_path / program.LOCK_NAME):
        assert program.main([*flags, "--output_dir", str(tmp_path)]) == 2
    assert "another training writes into it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [program.LOCK_NAME]


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert program.main([*flags, "--output_dir", str(tmp_path / "file" / "below")]) == 2
    message = capsys.readouterr().err
    assert "cannot be made (Not a directory): name another folder" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 320 vs 214"),
    ],
    ids=["system", "torch"],
)
def test_a_full_disk_is_said_in_one_line_and_the_training_goes_on(
    tmp_path: Path,
    flags: list[str],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(self: TseSerTrainer, *args: Any, **keywords: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(TseSerTrainer, "_save_optimizer_and_scheduler", full)
        assert program.main([*flags, "--output_dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the disk is full" in message and "--resume_from_checkpoint auto" in message
    again = [*flags, "--output_dir", str(tmp_path), "--resume_from_checkpoint", "auto"]
    assert program.main(again) == 0
    assert (tmp_path / "model.safetensors").is_file()


def test_other_errors_keep_their_traceback(
    tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: TseSerTrainer, *args: Any, **keywords: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(TseSerTrainer, "compute_loss", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        program.main([*flags, "--output_dir", str(tmp_path)])


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path,
    flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(self: TseSerTrainer, *args: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TseSerTrainer, "compute_loss", interrupt)
    assert program.main([*flags, "--output_dir", str(tmp_path)]) == 130
    assert "interrupted: the same command with --resume_from_checkpoint auto" in (
        capsys.readouterr().err
    )
    # The folder is free again.
    FileLock(tmp_path / program.LOCK_NAME, timeout=0).acquire().lock.release()


def test_resuming_with_another_update_is_refused_and_with_the_same_goes_on(
    tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    flags = [*flags, "--output_dir", str(tmp_path)]
    with pytest.raises(TrainingEndedError):
        killed_after(7, monkeypatch, flags)
    resume = ["--resume_from_checkpoint", "auto"]
    with pytest.raises(CheckpointError, match=r"heard 4 examples an update in 1 .* hear 2 in 1"):
        program.train([*flags, *resume, "--per_device_train_batch_size", "2"])
    with pytest.raises(CheckpointError, match="had 16 training examples, this one has 12"):
        check_same_run(str(tmp_path / "checkpoint-6"), {"num_train_examples": 12}, {})
    for option, value in (("fold", "2"), ("seed", "7"), ("learning_rate", "1e-05")):
        with pytest.raises(CheckpointError, match=f"had {option} .*, this one has {value}: give"):
            program.train([*flags, *resume, f"--{option}", value])
    # As another number of processes with the same update would: other batches, the same mixtures.
    state_file = tmp_path / "checkpoint-6" / "trainer_state.json"
    state = json.loads(state_file.read_text())
    shape = state["stateful_callbacks"]["RunShape"]["attributes"]["shape"]
    assert shape == {"num_processes": 1, "examples_per_update": 4, "num_train_examples": 16}
    shape["num_processes"] = 2
    state_file.write_text(json.dumps(state))
    caplog.set_level(logging.WARNING)
    more = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]
    program.train([*flags, *resume, *more])
    assert "written by 2 process(es), this run has 1: the mixtures are the same" in caplog.text
    steps = json.loads((tmp_path / "checkpoint-8" / "trainer_state.json").read_text())
    assert (steps["global_step"], steps["epoch"]) == (8, 2.0)


def test_new_classes_reach_the_checkpoint_and_the_scores(
    tmp_path: Path, generated_corpus: datasets.Dataset
) -> None:
    config = write_model_configs(tmp_path)[2:]
    command = [
        *JOINT_TRAINING,
        *config,
        *("--stage", "classification", "--condition", "clean", "--emotions", "sad", "happy"),
        *("--max_steps", "2", "--per_device_train_batch_size", "4"),
        *("--output_dir", str(tmp_path / "two")),
    ]
    program.train(command)
    saved = json.loads((tmp_path / "two" / "config.json").read_text())
    assert saved["id2label"] == {"0": "sad", "1": "happy"}
    facts = json.loads((tmp_path / "two" / "training_facts.json").read_text())
    assert facts["data"]["emotions"] == ["sad", "happy"]
    cell = evaluate_checkpoint(model=str(tmp_path / "two"), condition="clean", max_examples=6)
    assert cell["classes"] == ["sad", "happy"]
    assert {*cell["per_class_recall"]} == {"sad", "happy"}
    assert np.shape(cell["confusion"]) == (2, 2)
    assert {record["label"] for record in cell["utterances"]} == {0, 1}
    other = ModelOptions(classifier_name_or_path=str(tmp_path / "two"))
    with pytest.raises(OptionError, match="knows the classes sad, happy, the targets are happy, s"):
        build_model(other, "classification", ("happy", "sad"))


@given(
    lengths=st.lists(st.integers(1, 1000), min_size=1, max_size=400),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_length_groups_hold_every_example_once_in_an_order_of_seed_and_epoch(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    sampler = LengthGroupedSampler(np.array(lengths), batch_size, seed)
    first = list(sampler)
    assert sorted(first) == list(range(len(lengths)))
    assert list(LengthGroupedSampler(np.array(lengths), batch_size, seed)) == first
    sampler.epoch = 1
    assert sorted(sampler) == sorted(first)
    if len({*lengths}) > 20 * batch_size:  # fewer batches may fall into the same order
        assert list(sampler) != first


def test_grouping_by_length_trains_on_the_same_mixtures(
    tmp_path: Path, generated_corpus: datasets.Dataset
) -> None:
    heard: dict[str, list[Any]] = {}
    padding: dict[str, int] = {}
    mixtures: dict[Any, bytes] = {}
    for strategy in ("random", "group_by_length"):
        dataset = load_mixtures(split="train", interferers="generated_pool", max_examples=24)
        trainer = tiny_trainer(
            tiny_model("classification"),
            tmp_path / strategy,
            "classification",
            train_dataset=dataset,
            eval_dataset=dataset,
            train_sampling_strategy=strategy,
            per_device_train_batch_size=4,
            max_steps=12,
        )
        collate = trainer.data_collator
        batches: list[list[Any]] = []

        def spy(
            examples: list[dict[str, Any]], collate: Any = collate, batches: Any = batches
        ) -> Any:
            batches.append([(e["spec"]["epoch"], e["spec"]["index"]) for e in examples])
            for example in examples:
                key = example["spec"]["epoch"], example["spec"]["index"]
                mixture = example["mixture"].tobytes()
                assert mixtures.setdefault(key, mixture) == mixture
            return collate(examples)

        trainer.data_collator = spy
        trainer.train()
        heard[strategy] = [pair for batch in batches for pair in batch]
        lengths = dataset.lengths()
        padding[strategy] = sum(
            max(lengths[index] for _, index in batch) - lengths[index]
            for batch in batches
            for _, index in batch
        )
    assert sorted(heard["random"]) == sorted(heard["group_by_length"])
    assert padding["group_by_length"] < padding["random"] / 2
    # The second epoch groups others together than the first.
    grouped = [index for _, index in heard["group_by_length"]]
    assert grouped[:24] != grouped[24:]


def test_an_evaluation_by_length_gives_the_rows_in_their_order(
    generated_corpus: datasets.Dataset,
) -> None:
    dataset = load_mixtures(split="test", interferers="generated_pool", max_examples=9)
    order = order_by_length(dataset)
    lengths = dataset.lengths()
    assert [len(dataset[index]["mixture"]) for index in range(9)] == lengths.tolist()
    assert lengths[order].tolist() == sorted(lengths) != lengths.tolist()
    model = tiny_model("classification").eval()
    rows = predict(model, dataset, batch_size=4)
    assert [row["utterance_id"] for row in rows] == [
        dataset[index]["utterance_id"] for index in range(9)
    ]
    for index in (0, 5, 8):
        alone = run_model(model, [dataset[index]])["logits"].double().softmax(-1)[0]
        np.testing.assert_allclose(rows[index]["probabilities"], alone, atol=1e-5)
