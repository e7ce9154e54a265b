"""`transformers.Trainer` for the three stages: loss parts, epochs of mixtures, validation."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import ExportableState
from transformers.utils.generic import ModelOutput

from data_builders.option_reader import OptionError
from data_builders.schema import IGNORED_LABEL
from modeling.signal_losses import si_snr
from tse_ser.evaluation.metrics.ser_accuracy.ser_accuracy import emotion_accuracies
from tse_ser.options import TseSerTrainingArguments

LOSS_PARTS = ("extraction_loss", "classification_loss", "si_snr")
# So many batches are drawn at random and sorted among themselves: batches of one epoch differ from
# those of the next, and yet hold examples of like length.
BATCHES_SORTED_AT_ONCE = 50


class LengthGroupedSampler(Sampler[int]):
    """Draws every example once an epoch, in batches of like length whose order is random.

    Args:
        lengths (`np.ndarray` of shape `(num_examples,)`): length of each example.
        batch_size (`int`): examples of a batch, over all processes.
        seed (`int`): the order depends on it and on the epoch alone.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        size = self.batch_size * BATCHES_SORTED_AT_ONCE
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate(
            [part[np.argsort(self.lengths[part], kind="stable")] for part in parts]
        )
        # What fills no batch is left at the end, where it may be dropped: drawn, not the longest.
        spare = len(order) % self.batch_size
        last = np.sort(rng.choice(len(order), spare, replace=False))
        batches = np.delete(order, last).reshape(-1, self.batch_size)
        yield from batches[rng.permutation(len(batches))].ravel().tolist()
        yield from order[last].tolist()


def lengths_of(dataset: Any) -> np.ndarray:
    """The samples of each example of a dataset, `(num_examples,)`; raises `OptionError` where
    it does not tell them."""
    if not hasattr(dataset, "lengths"):
        raise OptionError(
            "train_sampling_strategy: 'group_by_length' needs mixtures drawn from corpora: set "
            "it to 'random'"
        )
    return np.asarray(dataset.lengths())


class EpochCallback(TrainerCallback):
    """Hands the epoch to the dataset before the first batch of an epoch is drawn.

    accelerate does so too, but not with several processes, nor in an epoch that is resumed.
    """

    def __init__(self) -> None:
        # Of the training set, where batches are of like length.
        self.sampler: LengthGroupedSampler | None = None

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Derives the epoch from the step, as Trainer does, so that it is right after resuming."""
        train_dataloader = kwargs["train_dataloader"]
        updates_per_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
        epoch = state.global_step // updates_per_epoch
        train_dataloader.dataset.set_epoch(epoch)
        if self.sampler is not None:
            self.sampler.epoch = epoch


class TrainingClock(TrainerCallback, ExportableState):
    """Minutes of training; those before a checkpoint are kept in it."""

    def __init__(self) -> None:
        self.minutes_before = 0.0
        self.started = time.monotonic()

    @property
    def minutes(self) -> float:
        """Minutes of training until now, those of the resumed runs included."""
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.started = time.monotonic()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"minutes_before": self.minutes}}


class RunShape(TrainerCallback, ExportableState):
    """Keeps what a checkpoint's step stands for: resuming finds its place in the epoch by it."""

    def __init__(self) -> None:
        self.shape: dict[str, int] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Notes the shape of this run, which resuming may have brought from another."""
        self.shape = run_shape(args, len(kwargs["train_dataloader"].dataset))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"shape": self.shape}}


class RunSettings(TrainerCallback, ExportableState):
    """Keeps the options of a training in its checkpoints, so that no other goes on from them.

    Args:
        settings (`dict`): `tse_ser.training.facts.run_settings`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {"settings": self.settings}, "attributes": {}}


def run_shape(args: TrainingArguments, num_train_examples: int) -> dict[str, int]:
    """What decides how many steps an epoch has.

    Args:
        args (`TrainingArguments`): batch size, accumulation and processes.
        num_train_examples (`int`): length of the training set.

    Returns:
        `dict[str, int]`: "num_processes", "examples_per_update" and "num_train_examples".
    """
    per_process = args.train_batch_size * args.gradient_accumulation_steps
    return {
        "num_processes": args.world_size,
        "examples_per_update": per_process * args.world_size,
        "num_train_examples": num_train_examples,
    }


class LossParts:
    """Sums of a loss's parts since the last log; they stay on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0

    def add(self, outputs: ModelOutput) -> None:
        """Adds the parts that a model returned for one batch, each averaged over the batch."""
        for name in LOSS_PARTS:
            value = outputs.get(name)
            if value is not None:
                part = value.detach().float().mean()
                self._sums[name] = self._sums[name] + part if name in self._sums else part
        self._count += 1

    def drain(self, trainer: Trainer) -> dict[str, float]:
        """Means of the added parts over the batches and over the trainer's processes, all
        of which must call; begins a new interval."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        means = torch.stack([self._sums[name] for name in names]) / self._count
        means = trainer.accelerator.reduce(means, reduction="mean")
        self.__init__()  # type: ignore[misc]
        return dict(zip(names, means.tolist(), strict=True))


class TseSerTrainer(Trainer):
    """Trains one stage; see `transformers.Trainer` for the arguments."""

    args: TseSerTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loss_parts = LossParts()
        kwargs.setdefault("compute_metrics", stage_metrics)
        self._epochs = EpochCallback()
        own = [self._epochs, TrainingClock(), RunShape()]
        kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), *own]
        super().__init__(*args, **kwargs)
        # The models average over the batch. Were they given a count of items, Trainer would leave
        # out its division by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        for callback in self.callback_handler.callbacks:
            # One folder, so that the curve of a resumed training goes on where it stopped.
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = f"{self.args.output_dir}/runs"

    @property
    def network(self) -> PreTrainedModel:
        """The model without what several processes wrap it in."""
        return cast(PreTrainedModel, self.model)

    @property
    def num_train_examples(self) -> int:
        """Length of the training set."""
        return len(self.train_dataset) if isinstance(self.train_dataset, Sized) else 0

    @property
    def num_eval_examples(self) -> int:
        """Length of the validation set, 0 without one."""
        return len(self.eval_dataset) if isinstance(self.eval_dataset, Sized) else 0

    @property
    def training_minutes(self) -> float:
        """Minutes of training, those of the resumed runs included."""
        clocks = [c for c in self.callback_handler.callbacks if isinstance(c, TrainingClock)]
        return clocks[0].minutes

    @property
    def run_shape(self) -> dict[str, int]:
        """See `run_shape`."""
        return run_shape(self.args, self.num_train_examples)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains; refuses a training set that holds no full batch."""
        batch_size = self.args.train_batch_size * self.args.world_size
        if self.args.dataloader_drop_last and self.num_train_examples < batch_size:
            raise OptionError(
                f"{self.num_train_examples} training examples do not fill one batch of "
                f"{batch_size} over all processes: lower per_device_train_batch_size or add speech"
            )
        return super().train(*args, **kwargs)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        drop_last = self.args.dataloader_drop_last
        # Trainer has one flag for all loaders, but only training drops the short last batch.
        self.args.dataloader_drop_last = drop_last and kwargs.get("is_training", False)
        try:
            loader: Any = super()._get_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last
        # A loader draws its workers' seed when they start, which a resumed training does at other
        # times: from a generator of its own, or the model's dropout would go another way.
        loader.base_dataloader.generator = torch.Generator()
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(dataset)
        # What the processes hear at once is of like length, as they wait for each other.
        batch_size = self.args.train_batch_size * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self._epochs.sampler = LengthGroupedSampler(lengths_of(dataset), batch_size, seed)
        return self._epochs.sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_eval_sampler(eval_dataset)
        return np.argsort(lengths_of(eval_dataset), kind="stable").tolist()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Adds a learning rate of its own for the extractor of a joint model."""
        if self.optimizer is not None:
            return self.optimizer
        optimizer = super().create_optimizer(model)
        rate = self.args.extractor_learning_rate
        if rate is not None:
            parameters = (self.network if model is None else model).named_parameters()
            extractor = {id(p) for name, p in parameters if name.startswith("extractor.")}
            for group in list(optimizer.param_groups):
                moved = [p for p in group["params"] if id(p) in extractor]
                group["params"] = [p for p in group["params"] if id(p) not in extractor]
                if moved:
                    optimizer.add_param_group({**group, "params": moved, "lr": rate})
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with own_class(self.network):
            super()._save(output_dir, state_dict)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The model's loss; its parts are kept for the next log."""
        loss, outputs = super().compute_loss(
            model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if model.training:
            self._loss_parts.add(outputs)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs, with the loss parts beside the training loss."""
        if "loss" in logs:
            logs = {**logs, **self._loss_parts.drain(self)}
        super().log(logs, start_time)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, Any, torch.Tensor | None]:
        """Validates one batch; keeps scores of each example and no waveform."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        values = inputs["input_values"]
        scores = {}
        if outputs.get("logits") is not None:
            scores["logits"] = outputs["logits"].float()
        if outputs.get("si_snr") is not None:
            scores["si_sdr"] = outputs["si_snr"]
            scores["si_sdr_mixture"] = si_snr(
                values, inputs["target_values"], inputs.get("attention_mask")
            )
        # Trainer scores only where there are labels; extraction has none to give.
        labels = inputs.get("labels")
        if labels is None:
            labels = torch.full((len(values),), IGNORED_LABEL, device=values.device)
        return loss, scores, labels


@contextlib.contextmanager
def own_class(model: nn.Module) -> Iterator[None]:
    """Gives a model that FSDP has sharded its own class for a while. FSDP puts a class of its
    own over the model's; saving copies the code of the model's class, and would copy FSDP's."""
    before = type(model)
    if issubclass(before, FSDPModule):
        model.__class__ = before.__bases__[1]  # FSDPModule, then the model's class
    try:
        yield
    finally:
        model.__class__ = before


def stage_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Validation scores of a stage, from what `TseSerTrainer.prediction_step` keeps.

    Args:
        prediction (`EvalPrediction`): `predictions` is a dict of "logits" of shape `(num_examples,
            num_labels)` and "si_sdr", "si_sdr_mixture" of shape `(num_examples,)` in dB, as far as
            the stage has them; `label_ids` of shape `(num_examples,)`.

    Returns:
        `dict[str, float]`: `wa`, `ua`, `classification_loss`, and `si_sdr`, `si_sdri` in dB.
    """
    scores: dict[str, np.ndarray] = prediction.predictions  # type: ignore[assignment]
    labels = np.asarray(prediction.label_ids)
    metrics: dict[str, float] = {}
    if "si_sdr" in scores:
        # The model's SI-SNR is the zero-mean SI-SDR of Le Roux et al. 2019 in float32.
        metrics["si_sdr"] = float(scores["si_sdr"].astype(np.float64).mean())
        metrics["si_sdri"] = float(np.mean(scores["si_sdr"] - scores["si_sdr_mixture"]))
    labelled = labels != IGNORED_LABEL
    if "logits" in scores and labelled.any():
        logits, labels = scores["logits"][labelled], labels[labelled]
        result = emotion_accuracies(logits.argmax(axis=-1), labels, range(logits.shape[1]))
        metrics |= {name: result[name] for name in ("wa", "ua")}
        loss = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
        metrics["classification_loss"] = loss.item()
    return metrics
