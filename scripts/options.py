"""The options of a training run: the defaults of its task, and what a resumed run may change."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from scripts.checkpoint import CheckpointError, Record
from scripts.schedule import Schedule
from scripts.tasks import TASKS


@dataclass(frozen=True)
class Config:
    """The configuration of a run: everything that its loss curve depends on."""

    task: str
    data: str
    """The name of a data set of the task, or the absolute path of a file or folder."""
    epochs: int
    batch_size: int
    lr: float
    """The peak of the learning rate."""
    weight_decay: float
    schedule: str = Schedule.cosine.value
    warmup: float = 0.1
    """The fraction of the steps with linear warm-up."""
    clip: float = 0.0
    """The largest norm of the gradient of all parameters; 0 for no clipping."""
    accumulate: int = 1
    """The number of batches whose gradients are averaged for one step."""
    ema: float = 0.0
    """The decay of the exponential moving average of the weights; 0 for none."""
    image_size: int = 28
    """The side in pixels of the images that are read from a folder."""
    seed: int = 0
    device: str = "cpu"
    amp: bool = False
    compile: bool = False
    checkpointing: bool = False


def usual(name: str) -> dict[str, Any]:
    """The options that depend on the task, with the values of one task."""
    task = TASKS[name]
    own = {option: getattr(task, option) for option in ("epochs", "batch_size", "lr", "weight_decay")}
    return {"data": next(iter(task.data)), **own}


def of_tasks(option: str) -> str:
    """The default of an option as text; where tasks differ, the most common one, then the tasks with another one.

    >>> of_tasks("weight_decay"), of_tasks("warmup")
    ('0.05; language_model 0.1', '0.1')
    """
    everywhere = {field.name: field.default for field in fields(Config)}[option]
    if everywhere is not MISSING:
        return f"{everywhere}"
    values = {name: usual(name)[option] for name in TASKS}
    ((common, _),) = Counter(values.values()).most_common(1)
    others = [f"{name} {value}" for name, value in values.items() if value != common]
    return "; ".join([f"{common}", *([", ".join(others)] if others else [])])


def resolve_config(asked: Mapping[str, Any], record: Record | None) -> Config:
    """Replace options that are None: by those of the resumed run (`record`), otherwise by the defaults of the task.

    A resumed run may have another number of epochs, but not fewer than it has behind it.

    Raises CheckpointError if another option differs from that of the resumed run, or if those of that run are damaged.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if record is not None:
        _refuse_damaged(record.plan)
    task = given["task"] if record is None else record.plan["task"]
    if "data" in given and given["data"] not in TASKS[task].data:
        given["data"] = f"{Path(given['data']).absolute()}"
    if record is None:
        return Config(**{**usual(task), **given})
    saved, done = record.plan, len(record.history)
    fixed = {name: value for name, value in given.items() if name != "epochs"}
    differing = [f"{name} {saved[name]}, not {value}" for name, value in fixed.items() if saved[name] != value]
    if differing:
        raise CheckpointError(f"cannot resume: the run there has {'; '.join(differing)}")
    if given.get("epochs", done) < done:
        raise CheckpointError(f"cannot resume: the run there has {done} epochs behind it, more than {given['epochs']}")
    return Config(**{**saved, "epochs": given.get("epochs", saved["epochs"])})


def _refuse_damaged(saved: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a saved configuration has not all options, or one of them has no possible value."""
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Config)}
    fits = {*saved} == {*kinds} and all(
        type(saved[name]) is kind or (kind is float and type(saved[name]) is int) for name, kind in kinds.items()
    )
    if not fits or saved["task"] not in TASKS or saved["schedule"] not in [*Schedule]:
        raise CheckpointError("cannot resume: the options of the run there are damaged")
    counts = ("epochs", "batch_size", "accumulate", "image_size")
    if min(saved[name] for name in counts) < 1 or not (0 <= saved["warmup"] <= 1 and 0 <= saved["ema"] < 1):
        raise CheckpointError("cannot resume: the options of the run there are out of range")
