"""Train a model of the zoo on real data: `python -m scripts.train mlp`; scripts.tasks lists the models and their data.

Prints the model's table, trains with AdamW (linear warm-up, then cosine decay to zero), saves a checkpoint after each
epoch, and ends with one line: the score on the test split, which is evaluated once. The same arguments give the same
loss curve on the same machine, also if the run was interrupted and resumed. One process, one device.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from circuits import trace
from scripts import checkpoint
from scripts.checkpoint import CheckpointError, Record
from scripts.data import MissingData, split
from scripts.recompute import recompute
from scripts.tasks import TASKS


@dataclass(frozen=True)
class Config:
    """The configuration of a run: everything that its loss curve depends on."""

    task: str
    data: str
    epochs: int
    batch: int
    lr: float
    seed: int
    device: str
    amp: bool
    compile: bool
    checkpointing: bool


def resolve_config(asked: Mapping[str, Any], saved: Mapping[str, Any] | None) -> Config:
    """Replace options that are None: by those of the resumed run (`saved`), otherwise by the defaults of the task.

    Raises CheckpointError if an option differs from that of the resumed run, or if those of that run are damaged.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if saved is not None:
        differing = [
            f"{name} {saved.get(name)}, not {value}" for name, value in given.items() if saved.get(name) != value
        ]
        if differing:
            raise CheckpointError(f"cannot resume: the run there has {'; '.join(differing)}")
        _refuse_damaged(saved)
        return Config(**saved)
    task = TASKS[given["task"]]
    usual = {"data": next(iter(task.data)), "epochs": task.epochs, "batch": task.batch, "lr": task.lr}
    return Config(**{**usual, "seed": 0, "amp": False, "compile": False, "checkpointing": False, **given})


def _refuse_damaged(saved: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a saved configuration has not all options, or one of them has no possible value."""
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Config)}
    fits = {*saved} == {*kinds} and all(
        type(saved[name]) is kind or (kind is float and type(saved[name]) is int) for name, kind in kinds.items()
    )
    if not fits or saved["task"] not in TASKS or saved["data"] not in TASKS[saved["task"]].data:
        raise CheckpointError("cannot resume: the options of the run there are damaged")
    if saved["epochs"] < 1 or saved["batch"] < 1:
        raise CheckpointError("cannot resume: the run there has no epochs, or no examples in a batch")


def rate(step: int, steps: int) -> float:
    """The learning rate as a fraction of its peak: linear warm-up for a tenth of the steps, then cosine decay to 0.

    >>> [round(rate(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.01]
    """
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


class Run:
    """One training run: a model, its optimizer, its data, and the record of the epochs so far."""

    def __init__(self, config: Config, folder: Path, *, resume: bool) -> None:
        self.config, self.folder, self.task = config, folder, TASKS[config.task]
        self.device = torch.device(config.device)
        torch.manual_seed(config.seed)
        examples = self.task.data[config.data]()
        self.model = self.task.model(examples).to(self.device)
        self.examples = examples.to(self.device)
        self.splits = split(examples.sources, config.seed)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=self.task.weight_decay, fused=True
        )
        if config.checkpointing:
            recompute(self.model, self.task.blocks)
        self.loss = torch.compile(self.task.loss) if config.compile else self.task.loss
        self.record = Record(asdict(config), [])
        if resume:
            self.record = checkpoint.read(folder)
            checkpoint.restore(folder, self.model, self.optimizer, self.device)

    @property
    def batches(self) -> int:
        """The number of batches in an epoch."""
        return math.ceil(len(self.splits.train) / self.config.batch)

    def epoch(self, on_batch: Callable[[], object] = lambda: None) -> None:
        """Train for one epoch, score the validation split, save; `on_batch` is called after each batch."""
        self.model.train()
        step, steps = len(self.record.history) * self.batches, self.config.epochs * self.batches
        total = torch.zeros((), device=self.device)
        order = self.splits.train[torch.randperm(len(self.splits.train))]
        for number, batch in enumerate(order.split(self.config.batch)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.lr * rate(step + number, steps)
            inputs, targets = self._take(batch)
            with self._autocast():
                loss = self.loss(self.model, self.task.augment(inputs), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(batch)
            on_batch()
        entry = {"loss": total.item() / len(order), "validation": self.score(self.splits.validation)}
        self._save(replace(self.record, history=[*self.record.history, entry]))

    def test(self) -> float:
        """Score the test split and save; to be called once, after the last epoch."""
        score = self.score(self.splits.test)
        self._save(replace(self.record, test=score))
        return score

    @torch.no_grad()
    def score(self, indices: Tensor) -> float:
        """The score of the model on one split of the examples."""
        self.model.eval()
        with self._autocast():
            tallies = [self.task.score.tally(self.model, *self._take(batch)) for batch in indices.split(250)]
        return self.task.score.total(torch.cat(tallies).double()).item()

    def _take(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.device)
        return self.examples.inputs[batch], self.examples.targets[batch]

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp)

    def _save(self, record: Record) -> None:
        checkpoint.save(self.folder, record, self.model, self.optimizer, self.device)
        self.record = record


def fit(run: Run, console: Console) -> float:
    """Train until the last epoch, with a progress bar and a line for each epoch; return the score on the test split."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    text = run.task.score.text
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        done = len(run.record.history)
        bar = progress.add_task("training", total=run.config.epochs * run.batches, completed=done * run.batches)
        for number in range(done + 1, run.config.epochs + 1):
            run.epoch(on_batch=lambda: progress.advance(bar))
            loss, validation = run.record.history[-1].values()
            line = f"epoch {number:>3}/{run.config.epochs}  loss {loss:.4f}  validation {text.format(validation)}"
            console.print(line, highlight=False)
    return run.test() if run.record.test is None else run.record.test


def pick_device(name: str) -> str:
    """The type of the device called `name`; `auto` is the accelerator if there is one, otherwise the CPU."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return "cpu" if found is None else found.type
    try:
        return torch.zeros(0, device=name).device.type
    except (RuntimeError, AssertionError) as error:
        raise typer.BadParameter(f"no device {name} here: {str(error).splitlines()[0]}") from None


def _refuse_unknown(name: str, data: str | None, checkpointing: bool) -> None:
    """Raise typer.BadParameter for an unknown task or data set, and for checkpointing of a task without blocks."""
    if name not in TASKS:
        raise typer.BadParameter(f"no task is named {name}; there are {', '.join(TASKS)}")
    if data is not None and data not in TASKS[name].data:
        raise typer.BadParameter(f"{name} has no data named {data}; there are {', '.join(TASKS[name].data)}")
    if checkpointing and not TASKS[name].blocks:
        raise typer.BadParameter(f"{name} has no blocks for activation checkpointing")


def main(
    name: Annotated[str, typer.Argument(help=f"The model to train: {', '.join(TASKS)}.", metavar="NAME")],
    data: Annotated[str | None, typer.Option(help="Data set; each task has its own.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Batch size.")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed (split, initialization, shuffling).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the checkpoint; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    amp: Annotated[bool | None, typer.Option(help="bfloat16 autocast.")] = None,
    compile: Annotated[bool | None, typer.Option(help="Compile the training step.")] = None,
    checkpointing: Annotated[bool | None, typer.Option(help="Activation checkpointing.")] = None,
) -> None:
    """Train a model and print its score on a held-out test set.

    Without --resume training starts from scratch; the folder's checkpoint is replaced after the first epoch. Two runs
    cannot share a folder: the second is refused.
    """
    console = Console()
    _refuse_unknown(name, data, bool(checkpointing))
    folder = Path("runs") / name if out is None else out
    asked = {"task": name, "data": data, "epochs": epochs, "batch": batch, "lr": lr, "seed": seed}
    started = time.perf_counter()
    with ExitStack() as stack:
        try:
            asked |= {"device": pick_device(device), "amp": amp, "compile": compile, "checkpointing": checkpointing}
            config = resolve_config(asked, checkpoint.read(folder).plan if resume else None)
            if config.device != "cpu":
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
                torch.use_deterministic_algorithms(True, warn_only=True)
            stack.enter_context(checkpoint.locked(folder))
            run = Run(config, folder, resume=resume)
        except (MissingData, CheckpointError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        print(trace(run.model))
        score = fit(run, console)
    console.print(
        f"test {run.task.score.name} {run.task.score.text.format(score)} on {len(run.splits.test):,} unseen examples"
        f" of {config.data} ({config.epochs} epochs, seed {config.seed}, {time.perf_counter() - started:.0f} s)",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
