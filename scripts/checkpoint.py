"""The folder of a training run: two models that `models.load` reads, and the state from which the run is resumed.

If a run is killed at any moment, at most the current epoch is lost. The state is in two files: one of SLOTS holds all
tensors, also those of the best model, and `checkpoint.json` everything else and the slot's name. All files are written
to a temporary file and renamed. The tensors go first, to the slot that the JSON on disk does not name, so that what the
JSON names always belongs to it. What is for users (the models, the log) comes last and can be made from the state
again, which a resumed run does; then the other slot is deleted. No pickle is written or read. A checksum of the state
tells any damage that a reader does not notice. A run on several processes writes the same, but for the slot, which is
then a folder (`scripts.sharded_checkpoint`); both resume from either.
"""

import base64
import fcntl
import hashlib
import importlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from circuits import models
from models.weights.atomic import replaced

FORMAT = 4
RECORD = "checkpoint.json"
LOCK = "lock"
KINDS: dict[str, Any] = {
    "plan": dict, "data": str, "names": list, "history": list, "best": int, "test": float | None,
    "tensors": str, "optimizer": list, "random": dict, "sha256": str,
}  # fmt: skip
"""The type of each entry of the JSON."""
EPOCH = ("loss", "validation_loss", "validation", "rate", "seconds")
"""The names of the numbers of an epoch."""
SLOTS = ("state-a", "state-b")
SUFFIX = ".safetensors"
"""The suffix of a slot that is one file; a slot that is a folder has none."""
BEST, LAST, NAMES, LOG, CURVE = "best.safetensors", "last.safetensors", "names.json", "log.csv", "curve.png"


class CheckpointError(ValueError):
    """There is no checkpoint to resume, it belongs to another run, or another run is writing it."""


@dataclass(frozen=True)
class Record:
    """The state of a run after some epochs, without its tensors."""

    plan: dict[str, Any]
    """The configuration of the run, as `scripts.options.Config` has it."""
    data: str
    """A digest of the data."""
    names: list[str]
    """The names of the classes, or the characters of the vocabulary, where the data have any."""
    history: list[dict[str, float]]
    """The numbers of each epoch, as EPOCH names them; `validation` is the score on the validation split."""
    best: int = 0
    """The epoch with the best validation score, from 1."""
    test: float | None = None
    """The score of the best model on the test split, after the last epoch."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for one run inside the `with`; the operating system unlocks it too when the process ends.

    The folder is made if it does not exist. The file LOCK in it is empty and stays.

    Raises:
        CheckpointError: Another run, in this process or another one, has locked the folder, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written to: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"another run is writing to {folder}: wait for it, or choose --out") from None
        yield


def save(
    folder: Path, record: Record, held: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    """Write the whole state of a run into `folder`, replacing the checkpoint there, and then what is for users.

    Args:
        folder: The folder; it is made if it does not exist.
        record: The state without tensors.
        held: The modules of the run by name: `model`, `best` and, if there is one, `average`.
        optimizer: The optimizer of `model`.
        device: The device that the run uses, besides the CPU; the state of its random number generator is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    slot = next_slot(folder, SUFFIX)
    # Tied parameters share memory, which the format refuses: each name gets its own copy.
    copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors_of(held, optimizer).items()}
    put(folder / slot, lambda path: save_file(copies, path, {"format": "pt", "contents": "training state"}))
    commit(folder, record, slot, optimizer.state_dict()["param_groups"], random_states(device))
    publish(folder, record, held)


def tensors_of(held: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of the state of a run, by the arguments of `save`, by the names that they have in a checkpoint."""
    tensors = {
        f"{kind}.{name}": tensor for kind, module in held.items() for name, tensor in module.state_dict().items()
    }
    moments = optimizer.state_dict()["state"]
    return tensors | {f"optimizer.{index}.{key}": value for index, of in moments.items() for key, value in of.items()}


def commit(folder: Path, record: Record, slot: str, groups: list[Any], random: Mapping[str, str]) -> None:
    """Write the JSON that makes the tensors in a slot, which are on disk, the checkpoint.

    `groups` are the options of the optimizer, its `param_groups`; `random` is what `random_states` returned.
    """
    text = {"format": FORMAT, "tensors": slot, **asdict(record), "optimizer": groups, "random": random}
    text["sha256"] = _checksum(folder, text)
    if len(record.history) == 1:  # nothing of another run stays beside the state of this one
        for name in (BEST, LAST, NAMES, LOG, CURVE):
            (folder / name).unlink(missing_ok=True)
    put(folder / RECORD, lambda path: path.write_text(json.dumps(text, indent=1)))


def publish(folder: Path, record: Record, held: Mapping[str, nn.Module]) -> None:
    """Write the models, the log and the names of classes, by the arguments of `save`; then delete the former state."""
    for name, module in ((BEST, held["best"]), (LAST, held.get("average", held["model"]))):
        models.save(module, folder / name)
    put(folder / LOG, lambda path: path.write_text(log(record.history)))
    if record.names:
        put(
            folder / NAMES, lambda path: path.write_text(json.dumps(record.names, ensure_ascii=False), encoding="utf-8")
        )
    former = next_slot(folder)
    (folder / f"{former}{SUFFIX}").unlink(missing_ok=True)
    shutil.rmtree(folder / former, ignore_errors=True)


def log(history: Iterable[Mapping[str, float]]) -> str:
    """The numbers of all epochs as comma-separated values.

    >>> print(log([{"loss": 1.5, "validation_loss": 2.5, "validation": 0.5, "rate": 0.01, "seconds": 3.0}]), end="")
    epoch,train_loss,validation_loss,validation_score,learning_rate,seconds
    1,1.5,2.5,0.5,0.01,3.0
    """
    rows = [[f"{number}", *[f"{entry[name]}" for name in EPOCH]] for number, entry in enumerate(history, 1)]
    head = ["epoch", "train_loss", "validation_loss", "validation_score", "learning_rate", "seconds"]
    return "".join([",".join(row) + "\n" for row in (head, *rows)])


def read(folder: Path) -> Record:
    """The record in `folder`; raises CheckpointError if there is none that can be read."""
    text = _text(folder)
    return Record(**{field.name: text[field.name] for field in fields(Record)})


def restore(folder: Path, held: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Load the state of modules, optimizer and random number generators from the checkpoint in `folder`."""
    load(folder, held, optimizer, _tensors)
    verify(folder)


def load(
    folder: Path,
    held: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    tensors_at: Callable[[Path], dict[str, Tensor]],
) -> None:
    """Load what `restore` loads, without its checksum; `tensors_at` returns the tensors of a slot."""
    text = _text(folder)
    try:
        tensors = tensors_at(folder / text["tensors"])
        for kind, module in held.items():
            module.load_state_dict(_under(f"{kind}.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, slot = name.split(".")
            moments.setdefault(int(index), {})[slot] = tensor
        _refuse_other_options(text["optimizer"], optimizer.state_dict()["param_groups"])
        optimizer.load_state_dict({"state": moments, "param_groups": text["optimizer"]})
        _refuse_parts_of_state(optimizer)
        for where, state in text["random"].items():
            _generator(where).set_rng_state(torch.tensor([*base64.b64decode(state)], dtype=torch.uint8))
    except Exception as error:  # whatever a reader, torch or this file raises for a checkpoint that was changed
        raise CheckpointError(f"the checkpoint in {folder} does not fit this model: {error!r:.300}") from error


def _tensors(slot: Path) -> dict[str, Tensor]:
    """The tensors of a slot, which is a file, or a folder that a run on several processes wrote."""
    if slot.is_dir():  # the module that reads it takes longer to import than all others here
        return importlib.import_module("scripts.sharded_tensors").read(slot)
    return load_file(slot)


def verify(folder: Path) -> None:
    """Raise CheckpointError if the state in `folder` is not, to the last bit, what was written."""
    text = _text(folder)
    if _checksum(folder, text) != text["sha256"]:
        raise CheckpointError(f"the checkpoint in {folder} is damaged: its checksum is not that of what was written")


def _checksum(folder: Path, text: dict[str, Any]) -> str:
    """The SHA-256 of a checkpoint: of the files of its tensors, and of its JSON without the checksum itself."""
    slot, found = folder / text["tensors"], hashlib.sha256()
    for path in sorted(slot.iterdir()) if slot.is_dir() else [slot]:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    rest = {name: part for name, part in text.items() if name != "sha256"}
    found.update(json.dumps(json.loads(json.dumps(rest)), sort_keys=True).encode())
    return found.hexdigest()


def _refuse_other_options(saved: list[Any], own: list[Any]) -> None:
    """Raise ValueError if the options of the optimizer, all but the learning rate, are not those of this run."""
    if not all(type(group["lr"]) in (int, float) for group in saved):
        raise ValueError("the learning rate is not a number")
    here, there = ([{**group, "lr": None} for group in groups] for groups in (json.loads(json.dumps(own)), saved))
    if here != there:
        raise ValueError("the optimizer there has other options")


def _refuse_parts_of_state(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if the tensors of the optimizer's state are not the same for all parameters, in their shapes."""
    if len({frozenset(held) for held in optimizer.state.values()}) > 1:
        raise ValueError("tensors of the optimizer are missing")
    for parameter, held in optimizer.state.items():
        if any(tensor.shape not in (torch.Size(), parameter.shape) for tensor in held.values()):
            raise ValueError("a tensor of the optimizer has the shape of another parameter")


def _text(folder: Path) -> dict[str, Any]:
    """The JSON in `folder`; raises CheckpointError if it is missing, damaged or of another format."""
    path = folder / RECORD
    try:
        text = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"nothing to resume: {path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(text, dict) or text.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT}")
    for name, kind in KINDS.items():
        if not isinstance(text.get(name, ...), kind):
            raise CheckpointError(f"{path} is damaged: {name!r} is missing or of another type")
    for entry in text["history"]:
        if not isinstance(entry, dict) or (*entry,) != EPOCH or not _are_floats(entry.values()):
            raise CheckpointError(f"{path} is damaged: an epoch of its history has not the numbers {', '.join(EPOCH)}")
    if not 1 <= text["best"] <= len(text["history"]):
        raise CheckpointError(f"{path} is damaged: the best epoch is not one of its history")
    return text


def _are_floats(values: Iterable[Any]) -> bool:
    return all(type(value) is float for value in values)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def random_states(device: torch.device) -> dict[str, str]:
    """The state of every random number generator that a run on `device` uses."""
    return {
        where: base64.b64encode(bytes(_generator(where).get_rng_state().tolist())).decode()
        for where in sorted({"cpu", device.type})
    }


def _generator(where: str) -> Any:
    """The module with the default random number generator of a device type."""
    return torch if where == "cpu" else torch.get_device_module(where)


def next_slot(folder: Path, suffix: str = "") -> str:
    """The slot to write next, with a suffix: the one that the JSON in `folder` does not name."""
    try:
        named = _text(folder)["tensors"].removesuffix(SUFFIX)
    except CheckpointError:
        named = SLOTS[1]
    return (SLOTS[0] if named == SLOTS[1] else SLOTS[1]) + suffix


def put(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file completely or not at all; `write` is called with a temporary path."""
    with replaced(path) as beside:
        write(beside)
