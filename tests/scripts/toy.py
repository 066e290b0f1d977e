"""A small task for tests of scripts.train, and runs of it that are finished, killed and compared."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from torch import Tensor, nn

from models import savable
from scripts import checkpoint
from scripts.checkpoint import Record
from scripts.data import Examples, shifted
from scripts.loop import Run
from scripts.options import Config
from scripts.report import fit
from scripts.scores import ACCURACY, smoothed_cross_entropy
from scripts.tasks import TASKS, Task


@savable
class Toy(nn.Module):
    """A small classifier with all that a resumed run must restore: dropout, running statistics, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Linear(8, 3)
        self.stack = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), last)
        self.tied = nn.Linear(8, 3)
        self.tied.weight = last.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.stack(images.flatten(1))


def toys() -> Examples:
    source = torch.Generator().manual_seed(5)
    return Examples(
        "toys", torch.rand(50, 4, 4, generator=source), torch.randint(3, (50,), generator=source), 3, torch.arange(50)
    )


TOY = Task(
    data={"toys": toys},
    reads=None,
    model=lambda examples: Toy(),
    augment=lambda images: shifted(images, 1),
    loss=smoothed_cross_entropy,
    score=ACCURACY,
    blocks=(nn.Sequential,),
    epochs=4,
    batch_size=8,
    lr=1e-2,
    weight_decay=0.1,
)
PLAN = Config("toy", "toys", epochs=4, batch_size=8, lr=1e-2, weight_decay=0.1, seed=3)


@contextmanager
def toy_task(task: Task = TOY) -> Iterator[None]:
    """Add a task named toy to TASKS inside the `with`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", task)
        yield


def finish(folder: Path, *, resume: bool = False, plan: Config = PLAN) -> Run:
    run = Run(plan, folder, resume=resume)
    fit(run, Console(quiet=True))
    return run


def without_times(record: Record) -> Record:
    """The record without the seconds that its epochs took."""
    return replace(record, history=[{**entry, "seconds": 0.0} for entry in record.history])


def assert_same_end(run: Run, other: Run) -> None:
    """Two runs are equal to the last bit: loss curve, test score, weights, running statistics, files."""
    assert without_times(run.record) == without_times(other.record)
    assert run.held.keys() == other.held.keys()
    for kind, module in run.held.items():
        theirs = other.held[kind].state_dict()
        for name, ours in module.state_dict().items():
            assert torch.equal(ours, theirs[name]), f"{kind}: {name}"
    for name in (checkpoint.BEST, checkpoint.LAST):
        ours, theirs = (saved(each.folder / name) for each in (run, other))
        assert ours == theirs, name
    assert_log(run)
    assert files(run.folder) == files(other.folder)


def saved(path: Path) -> Any:
    """What a safetensors file holds, in any order."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


def files(folder: Path) -> list[str]:
    """The names of the files in the folder of a run, but for the lock; the training state is in one of two."""
    return sorted(path.name.replace("state-a", "state-b") for path in folder.iterdir() if path.name != checkpoint.LOCK)


def assert_log(run: Run) -> None:
    """The log has one header, and the numbers of each epoch once."""
    with (run.folder / checkpoint.LOG).open() as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("epoch") for row in rows] == [f"{number}" for number in range(1, len(run.record.history) + 1)]
    assert [[float(value) for value in row.values()] for row in rows] == [[*it.values()] for it in run.record.history]


class Killed(BaseException):
    """Simulates a kill: nothing in the program catches it."""


def kill(place: Any, name: str, call: int, run: Callable[[], object]) -> None:
    """Run until `place.name` has been called `call` times; the next call is replaced by a kill."""
    function, calls = getattr(place, name), iter(range(call))

    def killed(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            raise Killed
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(Killed):
            run()


def count_calls(place: Any, name: str, run: Callable[[], object]) -> int:
    """How often a run calls `place.name`."""
    function, calls = getattr(place, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, counted)
        run()
    return len(calls)
