"""Train a model of the zoo on real data: `python -m scripts.train mlp`; scripts.tasks says what there is.

Prints the model's table, trains with AdamW (linear warm-up, then a cosine down to zero), saves a checkpoint after each
epoch, and ends with one line: the score on the test part, which is looked at once. The same arguments give the same
curve on the same machine, whether or not the run was killed and resumed on the way. One process, one device.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
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
from scripts.data import MissingData, parts
from scripts.recompute import recompute
from scripts.tasks import TASKS


@dataclass(frozen=True)
class Plan:
    """Everything that decides the curve of a run."""

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


def settle(asked: Mapping[str, Any], saved: Mapping[str, Any] | None) -> Plan:
    """Fill in what was not asked for (None): from the run that is resumed, else from the task.

    Raises CheckpointError where something asked for differs from the run that is resumed.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if saved is not None:
        differing = [
            f"{name} {saved.get(name)}, not {value}" for name, value in given.items() if saved.get(name) != value
        ]
        if differing:
            raise CheckpointError(f"cannot resume: the run there has {'; '.join(differing)}")
        return Plan(**saved)
    task = TASKS[given["task"]]
    usual = {"data": next(iter(task.data)), "epochs": task.epochs, "batch": task.batch, "lr": task.lr}
    return Plan(**{**usual, "seed": 0, "amp": False, "compile": False, "checkpointing": False, **given})


def rate(step: int, steps: int) -> float:
    """The learning rate over its peak: up in a straight line for a tenth of the steps, then half a cosine down to 0.

    >>> [round(rate(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.01]
    """
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


class Run:
    """One training run: a model, what trains it, and how far it has come."""

    def __init__(self, plan: Plan, folder: Path, *, resume: bool) -> None:
        self.plan, self.folder, self.task = plan, folder, TASKS[plan.task]
        self.device = torch.device(plan.device)
        torch.manual_seed(plan.seed)
        examples = self.task.data[plan.data]()
        self.model = self.task.model(examples).to(self.device)
        self.examples = examples.to(self.device)
        self.parts = parts(examples.sources, plan.seed)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=plan.lr, weight_decay=self.task.decay, fused=True
        )
        if plan.checkpointing:
            recompute(self.model, self.task.blocks)
        self.loss = torch.compile(self.task.loss) if plan.compile else self.task.loss
        self.record = Record(asdict(plan), [])
        if resume:
            self.record = checkpoint.read(folder)
            checkpoint.restore(folder, self.model, self.optimizer, self.device)

    @property
    def batches(self) -> int:
        """How many there are in an epoch."""
        return math.ceil(len(self.parts.train) / self.plan.batch)

    def epoch(self, tick: Callable[[], object] = lambda: None) -> None:
        """Learn from every training example once, score the validation part, save; `tick` is called once a batch."""
        self.model.train()
        step, steps = len(self.record.history) * self.batches, self.plan.epochs * self.batches
        total = torch.zeros((), device=self.device)
        order = self.parts.train[torch.randperm(len(self.parts.train))]
        for number, batch in enumerate(order.split(self.plan.batch)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.lr * rate(step + number, steps)
            inputs, targets = self._take(batch)
            with self._autocast():
                loss = self.loss(self.model, self.task.varied(inputs), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(batch)
            tick()
        entry = {"loss": total.item() / len(order), "validation": self.score(self.parts.validation)}
        self._save(replace(self.record, history=[*self.record.history, entry]))

    def test(self) -> float:
        """Score the test part and save; to be called once, when every epoch is done."""
        score = self.score(self.parts.test)
        self._save(replace(self.record, test=score))
        return score

    @torch.no_grad()
    def score(self, part: Tensor) -> float:
        """How well the model does on a part of the examples."""
        self.model.eval()
        with self._autocast():
            tallies = [self.task.score.tally(self.model, *self._take(batch)) for batch in part.split(250)]
        return self.task.score.total(torch.cat(tallies).double()).item()

    def _take(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.device)
        return self.examples.inputs[batch], self.examples.targets[batch]

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.amp)

    def _save(self, record: Record) -> None:
        checkpoint.save(self.folder, record, self.model, self.optimizer, self.device)
        self.record = record


def fit(run: Run, console: Console) -> float:
    """Take a run to its end with a progress bar and one line an epoch; return the score on the test part."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    text = run.task.score.text
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        done = len(run.record.history)
        bar = progress.add_task("training", total=run.plan.epochs * run.batches, completed=done * run.batches)
        for number in range(done + 1, run.plan.epochs + 1):
            run.epoch(tick=lambda: progress.advance(bar))
            loss, validation = run.record.history[-1].values()
            line = f"epoch {number:>3}/{run.plan.epochs}  loss {loss:.4f}  validation {text.format(validation)}"
            console.print(line, highlight=False)
    return run.test() if run.record.test is None else run.record.test


def pick_device(name: str) -> str:
    """The kind of device that `name` asks for; `auto` is the accelerator if there is one."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return "cpu" if found is None else found.type
    try:
        return torch.zeros(0, device=name).device.type
    except (RuntimeError, AssertionError) as error:
        raise typer.BadParameter(f"no device {name} here: {str(error).splitlines()[0]}") from None


def main(
    name: Annotated[str, typer.Argument(help=f"What to train: {', '.join(TASKS)}.", metavar="NAME")],
    data: Annotated[str | None, typer.Option(help="What to learn from; each task has its own.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times through the training part.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples a step.")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split, the weights and the order.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the checkpoint; runs/NAME unless told.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the checkpoint stands.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    amp: Annotated[bool | None, typer.Option(help="Compute in bfloat16 where autocast thinks it safe.")] = None,
    compile: Annotated[bool | None, typer.Option(help="Compile the training step.")] = None,
    checkpointing: Annotated[bool | None, typer.Option(help="Store less for the gradient, compute more.")] = None,
) -> None:
    """Train a model and say how well it does on examples it never saw.

    Without --resume a run starts anew, and replaces what its folder holds once its first epoch is done.
    """
    console = Console()
    if name not in TASKS:
        raise typer.BadParameter(f"no task is named {name}; there are {', '.join(TASKS)}")
    if data is not None and data not in TASKS[name].data:
        raise typer.BadParameter(f"{name} has no data named {data}; there are {', '.join(TASKS[name].data)}")
    if checkpointing and not TASKS[name].blocks:
        raise typer.BadParameter(f"{name} has no block to compute twice")
    folder = Path("runs") / name if out is None else out
    asked = {"task": name, "data": data, "epochs": epochs, "batch": batch, "lr": lr, "seed": seed}
    started = time.perf_counter()
    try:
        asked |= {"device": pick_device(device), "amp": amp, "compile": compile, "checkpointing": checkpointing}
        plan = settle(asked, checkpoint.read(folder).plan if resume else None)
        if plan.device != "cpu":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants for equal sums every time
            torch.use_deterministic_algorithms(True, warn_only=True)
        run = Run(plan, folder, resume=resume)
    except (MissingData, CheckpointError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    print(trace(run.model))
    score = fit(run, console)
    console.print(
        f"test {run.task.score.name} {run.task.score.text.format(score)} on {len(run.parts.test):,} unseen examples"
        f" of {plan.data} ({plan.epochs} epochs, seed {plan.seed}, {time.perf_counter() - started:.0f} s)",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
