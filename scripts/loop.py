"""The training loop: a model, its optimizer, its data, and the record of the epochs so far.

AdamW; the gradient of several batches may be averaged for one step, its norm clipped, and an exponential moving average
of the weights kept, which is then the model that is scored and saved. On several processes (`scripts.processes`) each
computes a part of every batch.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scripts import checkpoint
from scripts.checkpoint import CheckpointError, Record
from scripts.data import split
from scripts.options import Config
from scripts.own_data import DataError
from scripts.processes import OneProcess, Processes
from scripts.recompute import recompute
from scripts.schedule import rate
from scripts.scores import Score
from scripts.tasks import TASKS

OnBatch = Callable[[Tensor, float, int], object]
"""Called after each batch with its loss, the learning rate and the number of its examples."""


def ignore(loss: Tensor, rate: float, count: int) -> None:
    """An OnBatch that does nothing."""


class Run:
    """One training run, on some processes; `resume` continues the one in `folder`."""

    def __init__(self, config: Config, folder: Path, *, resume: bool, processes: Processes | None = None) -> None:
        self.config, self.folder, self.task = config, folder, TASKS[config.task]
        self.processes = OneProcess() if processes is None else processes
        self.device = torch.device(config.device)
        torch.manual_seed(config.seed)
        examples = self.task.examples(config.data, config.image_size)
        self.model = self.task.model(examples).to(self.device)
        self.held = {"model": self.model, "best": copy.deepcopy(self.model)}
        if config.ema:
            self.held["average"] = copy.deepcopy(self.model)
        self.record = Record(asdict(config), examples.digest(), [*examples.names], [])
        if self.processes.agreed(self.record) != self.record:
            raise DataError(f"the data {config.data}, or the options, are not the same on all processes")
        self.examples = examples.to(self.device)
        self.plain = self.processes.unsplit(self.model)
        """The model before it was split; without a split, the model."""
        arguments = self.task.arguments(self.model, *self._take(torch.arange(2 * self.processes.parts)))
        self.plan = self.processes.split(self.task, [*self.held.values()], arguments)
        """What is to be said of the split; None if there is none."""
        self.files = self.processes.files(self.plain)
        self.splits = split(examples.sources, config.seed)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        if config.checkpointing:
            recompute(self.model, self.task.blocks)
        self.loss = torch.compile(self.task.loss) if config.compile else self.task.loss
        self.epochs_before = 0
        """The number of epochs that the run had before it was given another one; 0 otherwise."""
        if resume:
            self._resume()

    def _resume(self) -> None:
        """Continue from the checkpoint, and write what it says to the files for users, with the present options."""
        found = checkpoint.read(self.folder)
        if (found.data, found.names) != (self.record.data, self.record.names):
            raise CheckpointError(
                f"cannot resume: the data {self.config.data} have changed since the run there began; a new version of"
                " the package that they ship in, or other files"
            )
        self.files.restore(self.folder, self.held, self.optimizer)
        plan, self.record = self.record.plan, found
        if found.plan == plan:
            self.files.publish(self.folder, found, self.held)
            return
        self.epochs_before = found.plan["epochs"]
        self._save(replace(found, plan=plan, test=None))

    @property
    def steps(self) -> int:
        """The number of steps of the optimizer in an epoch."""
        return math.ceil(len(self.splits.train) / (self.config.batch_size * self.config.accumulate))

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0 over the whole run."""
        config = self.config
        return config.lr * rate(step, config.epochs * self.steps, config.schedule, config.warmup)

    def epoch(self, on_batch: OnBatch = ignore) -> None:
        """Train for one epoch, score the validation split, save; `on_batch` is called after each batch."""
        started = time.perf_counter()
        self.model.train()
        first = len(self.record.history) * self.steps
        total = torch.zeros((), device=self.device)
        order = self.splits.train[torch.randperm(len(self.splits.train))]
        for number, examples in enumerate(order.split(self.config.batch_size * self.config.accumulate), first):
            total += self._step(number, examples, on_batch)
        total = self.processes.total(total)
        for module in self.held.values():
            self.processes.average_statistics(module)
        loss, score = self.evaluate(self.held.get("average", self.model), self.splits.validation)
        numbers = (total.item() / len(order), loss, score, self.rate(first + self.steps - 1))
        entry = dict(zip(checkpoint.EPOCH, (*numbers, time.perf_counter() - started), strict=True))
        entry = self.processes.agreed(entry)
        history = [*self.record.history, entry]
        best = best_epoch([each["validation"] for each in history], self.task.score)
        if best == len(history):
            self.held["best"].load_state_dict(self.held.get("average", self.model).state_dict())
        self._save(replace(self.record, history=history, best=best))

    def _step(self, number: int, examples: Tensor, on_batch: OnBatch) -> Tensor:
        """One step by the mean loss of some examples, batch by batch; return the sum of their losses."""
        now = self.rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = now
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(examples.split(self.config.batch_size)):
            inputs, targets = self._take(batch)
            own, count = self.processes.share(len(batch))
            with self._autocast():
                inputs = self.task.augment(inputs)[own]
                with self.processes.own_random_numbers(self.config.seed, number, index):
                    loss = self.loss(self.model, inputs, targets[own])
            # The gradient is the mean over the parts, which may differ in size.
            (loss * (count * self.processes.parts / len(examples))).backward()
            total += loss.detach() * count
            on_batch(loss.detach(), now, len(batch))
        if self.config.clip:
            self.processes.clip(self.model, self.config.clip)
        self.optimizer.step()
        if "average" in self.held:
            update_average(self.held["average"], self.model, min(self.config.ema, (1 + number) / (10 + number)))
        return total

    def test(self) -> float:
        """Score the best model on the test split and save; to be called once, after the last epoch."""
        score = self.evaluate(self.held["best"], self.splits.test)[1]
        self._save(replace(self.record, test=score))
        return score

    @torch.no_grad()
    def evaluate(self, model: nn.Module, indices: Tensor) -> tuple[float, float]:
        """The mean loss and the score of a model on one split of the examples."""
        model.eval()
        total, tallies = torch.zeros((), device=self.device), []
        with self._autocast(), self.processes.evaluating(model, self.task.is_called_otherwise) as whole:
            for batch in indices.split(250):
                own, count = self.processes.share(len(batch))
                inputs, targets = self._take(batch[own])
                total += self.task.loss(whole, inputs, targets) * count
                tallies.append(self.task.score.tally(whole, inputs, targets)[:count])
        tally = self.processes.joined(torch.cat(tallies))
        return self.processes.total(total).item() / len(indices), self.task.score.total(tally.double()).item()

    def _take(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.device)
        return self.examples.inputs[batch], self.examples.targets[batch]

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp)

    def _save(self, record: Record) -> None:
        self.files.save(self.folder, record, self.held, self.optimizer, self.device)
        self.record = record


def best_epoch(scores: Sequence[float], score: Score) -> int:
    """The number of the epoch with the best score, from 1; of equal ones the first. NaN is worse than any number.

    >>> from scripts.scores import ACCURACY, BITS
    >>> best_epoch([math.nan, 2.5, 2.0, 2.5], ACCURACY), best_epoch([math.nan, 2.5, 2.0, 2.5], BITS)
    (2, 3)
    """
    sign = -1 if score.falls else 1
    ranked = [-math.inf if math.isnan(value) else sign * value for value in scores]
    return ranked.index(max(ranked)) + 1


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move each parameter and floating buffer of `average` toward that of `model` by the fraction 1 - decay.

    Other buffers, such as counts, are copied. In a run the decay rises, for step t it is at most (1 + t) / (10 + t), so
    that a short run does not keep the weights with which it began.
    """
    pairs = [*zip(average.parameters(), model.parameters(), strict=True)]
    pairs += [*zip(average.buffers(), model.buffers(), strict=True)]
    for mean, new in pairs:
        if mean.is_floating_point():
            mean.lerp_(new, 1 - decay)
        else:
            mean.copy_(new)
