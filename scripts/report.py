"""What a run shows: a bar with loss, rate and speed, a line for each epoch, TensorBoard's files, a learning curve."""

import importlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from scripts import checkpoint
from scripts.checkpoint import BEST, CURVE, EPOCH, LAST, Record
from scripts.loop import OnBatch, Run, ignore

# --- While it runs ----------------------------------------------------------------------------------------------------


def fit(run: Run, console: Console) -> float:
    """Train until the last epoch, with a bar and a line for each epoch; return the score on the test split."""
    done, epochs = len(run.record.history), run.config.epochs
    if run.epochs_before:
        rates = f"{run.record.history[-1]['rate']:.2e} before, {run.rate(done * run.steps):.2e} now"
        line = f"{epochs} epochs instead of {run.epochs_before}: the learning rate is on the schedule of the new length"
        _say(console, f"{line} ({rates}), and the test split is scored again")
    with _bar(run, console) as on_batch, _tensorboard(run) as add:
        for number in range(done + 1, epochs + 1):
            run.epoch(on_batch)
            entry = run.record.history[-1]
            _say(console, epoch_line(number, epochs, entry, run.task.score.name, run.task.score.text))
            add(entry, number)
    return run.test() if run.record.test is None else run.record.test


def epoch_line(number: int, epochs: int, entry: Mapping[str, float], score: str, text: str) -> str:
    """The numbers of one epoch as a line.

    >>> entry = {"loss": 1.5, "validation_loss": 1.25, "validation": 0.5, "rate": 0.001, "seconds": 3.21}
    >>> epoch_line(2, 16, entry, "accuracy", "{:.2%}")
    'epoch   2/16  loss 1.5000  validation: loss 1.2500  accuracy 50.00%  rate 1.00e-03  3.2 s'
    """
    losses = f"loss {entry['loss']:.4f}  validation: loss {entry['validation_loss']:.4f}"
    scored = f"{score} {text.format(entry['validation'])}"
    return f"epoch {number:>3}/{epochs}  {losses}  {scored}  rate {entry['rate']:.2e}  {entry['seconds']:.1f} s"


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _bar(run: Run, console: Console) -> Iterator[OnBatch]:
    """A bar over the examples of all epochs, on a terminal; what is yielded advances it by a batch."""
    if not console.is_terminal:
        yield ignore
        return
    numbers = TextColumn("loss {task.fields[loss]}  rate {task.fields[rate]}  {task.fields[speed]} items/s")
    columns = (TextColumn("training"), BarColumn(), TaskProgressColumn(), numbers, TimeRemainingColumn())
    count = len(run.splits.train)
    done, start, shown = len(run.record.history) * count, time.perf_counter(), -math.inf
    first = done
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=run.config.epochs * count, completed=done, loss="-", rate="-", speed="-")

        def on_batch(loss: Tensor, rate: float, examples: int) -> None:
            """Show the batch, at most ten times a second: reading a loss waits for the device."""
            nonlocal done, shown
            done, now = done + examples, time.perf_counter()
            if now - shown >= 0.1:
                shown, speed = now, f"{(done - first) / (now - start):,.0f}"
                progress.update(task, completed=done, loss=f"{loss.item():.4f}", rate=f"{rate:.2e}", speed=speed)

        yield on_batch


@contextmanager
def _tensorboard(run: Run) -> Iterator[Any]:
    """A function that adds the numbers of an epoch to TensorBoard's files; it does nothing without the package."""
    if not run.processes.is_first:
        yield lambda entry, number: None
        return
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        yield lambda entry, number: None
        return
    # From the record, in place of all that an earlier run wrote, which may have been killed before it wrote an epoch.
    writer = module.SummaryWriter(f"{run.folder / 'tensorboard'}", purge_step=1)

    def add(entry: Mapping[str, float], number: int) -> None:
        for name in EPOCH:
            writer.add_scalar(name, entry[name], number)
        writer.flush()

    try:
        for number, entry in enumerate(run.record.history, 1):
            add(entry, number)
        yield add
    finally:
        writer.close()


# --- At the end -------------------------------------------------------------------------------------------------------


def use(run: Run) -> str:
    """Where the models of a finished run are, and the lines of Python that use the best one, in any folder."""
    module = type(run.plain).__module__
    imports = ["from circuits import models"]
    if not module.startswith("circuits.models."):
        imports.append(f"import {module}  # of this clone; defines {type(run.plain).__name__}")
    place = json.dumps((run.folder / BEST).absolute().as_posix(), ensure_ascii=False)
    lines = "\n".join([*imports, f"model = models.load({place}).eval()"])
    best, epochs = run.record.best, len(run.record.history)
    averaged = " (moving averages of the weights)" if run.config.ema else ""
    return f"saved {run.folder / BEST} (epoch {best}) and {run.folder / LAST} (epoch {epochs}){averaged}\n{lines}"


def curve(record: Record, folder: Path, score: str) -> str:
    """Save the learning curve as a picture, and return where; without matplotlib return the curve as text."""
    columns = {name: [entry[name] for entry in record.history] for name in EPOCH}
    losses = {"training": columns["loss"], "validation": columns["validation_loss"]}
    try:
        figure = importlib.import_module("matplotlib.figure").Figure((8, 3.5), layout="constrained")
    except ImportError:
        return text_curve(losses)
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(record.history) + 1)
    for name, values in losses.items():
        left.plot(epochs, values, marker=".", label=name)
    right.plot(epochs, columns["validation"], marker=".", label="validation")
    right.axvline(record.best, color="0.8", zorder=0)
    for part, title in ((left, "loss"), (right, score)):
        part.set(title=title, xlabel="epoch")
        part.legend()
    checkpoint.put(folder / CURVE, lambda path: figure.savefig(path, format="png"))
    return f"learning curve: {folder / CURVE}"


def text_curve(curves: Mapping[str, Sequence[float]], width: int = 60, height: int = 10) -> str:
    """Curves over epochs as text: each has the first letter of its name as its mark, and `*` is where two meet.

    Numbers that are not finite are left out.

    >>> print(text_curve({"training": [4, 2, 1, 0], "validation": [4, 3, 2, 2]}, height=5))
    4 |*
      | v
      | tvv
      |  t
    0 |   t
       epochs 1 to 4; t: training, v: validation, *: both
    """
    finite = [value for values in curves.values() for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    count = max(map(len, curves.values()))
    rows = [[" "] * min(count, width) for _ in range(height)]
    for name, values in curves.items():
        for number, value in enumerate(values):
            if math.isfinite(value):
                row = round((high - value) / ((high - low) or 1) * (height - 1))
                column = number * min(count, width) // count
                rows[row][column] = name[0] if rows[row][column] in (" ", name[0]) else "*"
    labels = [f"{high:.4g}", *[""] * (height - 2), f"{low:.4g}"]
    wide = max(map(len, labels))
    lines = [f"{label:>{wide}} |{''.join(row)}".rstrip() for label, row in zip(labels, rows, strict=True)]
    marks = ", ".join(f"{name[0]}: {name}" for name in curves)
    return "\n".join([*lines, f"{' ' * wide}  epochs 1 to {count}; {marks}, *: both"])
