"""The contents of a file that `models.save` wrote, or the reason why a file is not one of these.

Nothing is imported, unpickled or executed. A folder of a training run holds other files beside its models: the training
state, a record, a log; for these the message names the model to load. Start with `read_saved`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from circuits import CircuitError

from .atomic import refuse_unless_file
from .configuration import CLASSES
from .errors import pickled_hint
from .sources import refuse_shards

FORMAT = 1

TRAINED = ("best.safetensors", "last.safetensors")
"""The names of the models in the folder of a training run."""


class SavedFile(NamedTuple):
    """The contents of a file: the model's class (`kind`), its constructor arguments, the tied names, the tensors."""

    kind: type[nn.Module]
    arguments: str
    tied: dict[str, str]
    tensors: dict[str, Tensor]


def read_saved(path: Path) -> SavedFile:
    """Return the contents of the file at `path`; raise CircuitError if `save` did not write it."""
    if path.is_dir() and (models := _models_at(path)):
        raise CircuitError(f"{path} is a folder{models}")
    refuse_shards(path)
    refuse_unless_file(path, "")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CircuitError(
            f"{path} is not a complete safetensors file{pickled_hint(path)}: {error}{_models_at(path.parent)}"
        ) from error
    _refuse_of_others(path, metadata)
    kind = _class(path, metadata.get("models.class", ""), metadata.get("models.module", ""))
    tied = _ties(metadata.get("models.tied", ""), tensors)
    if tied is None:
        raise CircuitError(f"{path} does not say which of its tensors are tied")
    return SavedFile(kind, metadata.get("models.arguments", ""), tied, tensors)


def _refuse_of_others(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise CircuitError if a file with this metadata is not a model of a format that this version reads."""
    number = metadata.get("models.format", "")
    if metadata.get("contents") == "training state":
        beside = _models_at(path.parent) or f"; load {' or '.join(TRAINED)} of that run"
        raise CircuitError(f"{path} is the state of a training run, from which it is resumed, and not a model{beside}")
    if not number.isdecimal():
        raise CircuitError(
            f"{path} was not written by models.save, and does not say which model it is of; make the model, then"
            " model.load_state_dict(safetensors.torch.load_file(path))"
        )
    if len(number) > len(f"{FORMAT}") or int(number) > FORMAT:
        raise CircuitError(
            f"{path} has format {number:.20}, of a later version of this library; this version reads {FORMAT}"
        )


def _class(path: Path, name: str, module: str) -> type[nn.Module]:
    """Return the class of a name; raise CircuitError if no imported module has made a class of that name savable."""
    if name in CLASSES:
        return CLASSES[name]
    if not module or module.startswith("circuits.models."):
        raise CircuitError(f"{path} is of a class {name!r:.60}; it may be of {', '.join(sorted(CLASSES))}")
    if module == "__main__":
        where = "the program that saved it, which must define it (models.savable) before it loads the file"
    else:
        where = f"the module {module!r:.80}: import that module first, then load the file; models.load imports nothing"
    raise CircuitError(f"{path} is of a class {name!r:.60} of {where}")


def _models_at(folder: Path) -> str:
    """Return text that names the models in the folder of a training run; "" for any other folder."""
    found = [f"{folder / name}" for name in TRAINED if (folder / name).is_file()]
    return f"; load {' or '.join(found)}, the model of this run" if found else ""


def _ties(text: str, tensors: Mapping[str, Tensor]) -> dict[str, str] | None:
    """Return the further names of tied tensors, each with the first name; None if the text does not fit the tensors."""
    try:
        tied = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tied, dict) or not all(isinstance(first, str) for first in tied.values()):
        return None
    return tied if all(first in tensors and name not in tensors for name, first in tied.items()) else None
