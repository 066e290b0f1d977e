"""Checkpoints of a training run: if it is killed at any moment, at most the current epoch is lost.

Two files: one of SLOTS holds the tensors of model and optimizer, `checkpoint.json` everything else and the slot's name.
Both are written to a temporary file and renamed. The tensors go first, to the slot that the JSON on disk does not name,
so that what the JSON names always belongs to it; the other slot is deleted last. No pickle is written or read. A
checksum of both files tells any damage that a reader does not notice.
"""

import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FORMAT = 3
RECORD = "checkpoint.json"
LOCK = "lock"
KINDS: dict[str, Any] = {
    "plan": dict, "history": list, "test": float | None, "tensors": str, "optimizer": list, "random": dict,
    "sha256": str,
}  # fmt: skip
"""The type of each entry of the JSON."""
SLOTS = ("a.safetensors", "b.safetensors")


class CheckpointError(ValueError):
    """There is no checkpoint to resume, it belongs to another run, or another run is writing it."""


@dataclass(frozen=True)
class Record:
    """The state of a run after some epochs, without its tensors."""

    plan: dict[str, Any]
    """The configuration of the run, as `scripts.train.Config` has it."""
    history: list[dict[str, float]]
    """The training loss and the validation score of each epoch."""
    test: float | None = None
    """The score on the test split, after the last epoch."""


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
    folder: Path, record: Record, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    """Write the whole state of a run into `folder`, replacing the checkpoint there."""
    folder.mkdir(parents=True, exist_ok=True)
    slot, other = _slots(folder)
    state = optimizer.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | {
        f"optimizer.{index}.{name}": tensor for index, held in state["state"].items() for name, tensor in held.items()
    }
    # Tied parameters share memory, which the format refuses: each name gets its own copy.
    copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    _put(folder / slot, lambda path: save_file(copies, path))
    text = {"format": FORMAT, "tensors": slot, **asdict(record)}
    text |= {"optimizer": state["param_groups"], "random": _random(device)}
    text["sha256"] = _checksum(folder, text)
    _put(folder / RECORD, lambda path: path.write_text(json.dumps(text, indent=1)))
    (folder / other).unlink(missing_ok=True)


def read(folder: Path) -> Record:
    """The record in `folder`; raises CheckpointError if there is none that can be read."""
    text = _text(folder)
    return Record(text["plan"], text["history"], text["test"])


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Load the state of model, optimizer and random number generators from the checkpoint in `folder`."""
    text = _text(folder)
    try:
        tensors = load_file(folder / text["tensors"])
        model.load_state_dict(_under("model.", tensors))
        held: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, slot = name.split(".")
            held.setdefault(int(index), {})[slot] = tensor
        _refuse_other_options(text["optimizer"], optimizer.state_dict()["param_groups"])
        optimizer.load_state_dict({"state": held, "param_groups": text["optimizer"]})
        _refuse_parts_of_state(optimizer)
        for where, state in text["random"].items():
            _generator(where).set_rng_state(torch.tensor([*base64.b64decode(state)], dtype=torch.uint8))
    except Exception as error:  # whatever a reader, torch or this file raises for a checkpoint that was changed
        raise CheckpointError(f"the checkpoint in {folder} does not fit this model: {error!r:.300}") from error
    if _checksum(folder, text) != text["sha256"]:
        raise CheckpointError(f"the checkpoint in {folder} is damaged: its checksum is not that of what was written")


def _checksum(folder: Path, text: dict[str, Any]) -> str:
    """The SHA-256 of a checkpoint: of the file of its tensors, and of its JSON without the checksum itself."""
    with (folder / text["tensors"]).open("rb") as file:
        found = hashlib.file_digest(file, "sha256")
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
        if not isinstance(entry, dict) or [*entry] != ["loss", "validation"] or not _are_floats(entry.values()):
            raise CheckpointError(f"{path} is damaged: an epoch of its history has no loss and validation score")
    return text


def _are_floats(values: Iterable[Any]) -> bool:
    return all(type(value) is float for value in values)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _random(device: torch.device) -> dict[str, str]:
    """The state of every random number generator that a run on `device` uses."""
    return {
        where: base64.b64encode(bytes(_generator(where).get_rng_state().tolist())).decode()
        for where in sorted({"cpu", device.type})
    }


def _generator(where: str) -> Any:
    """The module with the default random number generator of a device type."""
    return torch if where == "cpu" else torch.get_device_module(where)


def _slots(folder: Path) -> tuple[str, str]:
    """The slot to write next, and the slot that the JSON in `folder` names."""
    try:
        named = _text(folder)["tensors"]
    except CheckpointError:
        named = SLOTS[1]
    return SLOTS if named == SLOTS[1] else (SLOTS[1], SLOTS[0])


def _put(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file beside `path`, flush it to disk, and rename it to `path`."""
    beside = path.with_name(f"{path.name}.part")
    write(beside)
    with beside.open("rb") as written:
        os.fsync(written.fileno())
    beside.replace(path)
