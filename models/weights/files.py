"""Weights on disk: `save` writes a model to a safetensors file, and `load` makes the same model of it.

The file's metadata says of which class the model is, one of those marked `savable`, and what it was made with: see
`models.arguments`. The class is looked up by its name, never imported; nothing in a file is executed. A model is made
on meta, without memory, and then given the file's tensors.
"""

import functools
import inspect
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from circuits import CircuitError

from .configuration import CLASSES, made_with, read, refuse_unwritable, write
from .errors import WeightsError, explain

FORMAT = 1

Kind = TypeVar("Kind", bound=type[nn.Module])


def savable(kind: Kind) -> Kind:
    """Let `save` and `load` know a class of modules, and its `load_state_dict` say by axis name what does not fit.

    An instance remembers, as text, what it was made with; that of a subclass does not, unless it is marked itself.
    `load_state_dict` does as torch's in every way, but that its error is a WeightsError, which is a RuntimeError still.
    Raises CircuitError for a class of the same name as another.
    """
    known = CLASSES.get(kind.__name__, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise CircuitError(f"savable: {known.__module__} has a {kind.__name__} already, and files know classes by name")
    CLASSES[kind.__name__] = kind
    marked: Any = kind
    make, take, parameters = marked.__init__, marked.load_state_dict, inspect.signature(kind)

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        exactly = type(self) is kind
        make(self, *args, **kwargs)
        if exactly:
            self.__dict__["_made_with"] = write(parameters.bind(*args, **kwargs))

    @functools.wraps(take)
    def load_state_dict(
        self: nn.Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        try:
            return take(self, state_dict, strict, assign)
        except WeightsError:
            raise
        except RuntimeError as error:
            retake = functools.partial(take, self, strict=False, assign=assign)
            said = explain(self, state_dict, retake, strict=strict)
            if not said:
                raise
            raise WeightsError(said) from error

    marked.__init__, marked.load_state_dict = __init__, load_state_dict
    return kind


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model's state dict to a safetensors file, with its class and what it was made with.

    Tied parameters are written once, and tied again by `load`. The file appears whole or not at all. Raises
    CircuitError for a model whose class is not `savable`, which was made with what a file cannot hold, or which no
    longer has the weights that its class makes: all that could not be loaded.

    >>> import models, tempfile
    >>> path = f"{tempfile.mkdtemp()}/mlp.safetensors"
    >>> models.save(models.MLP(x=4, y=4, m=8, k=2), path)
    >>> models.load(path)(torch.rand(3, 4, 4)).shape
    torch.Size([3, 2])
    """
    name, text = type(model).__name__, made_with(model)
    if text is None:
        raise CircuitError(
            f"models.save: {name} is no class marked savable, as {', '.join(sorted(CLASSES))} are; of a model that"
            " wraps one, save the one inside"
        )
    refuse_unwritable(name, text)
    tensors, tied = _untied(model)
    _refuse_changed(model, _made(CLASSES[name], text, "models.save: "))
    metadata = {"format": "pt", "models.format": f"{FORMAT}", "models.class": name}
    metadata |= {"models.arguments": text, "models.tied": json.dumps(tied)}
    path = Path(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        mode = _mode_of_a_new_file(beside)
        save_file(tensors, beside, metadata)
        beside.chmod(mode)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    except SafetensorError as error:
        raise CircuitError(f"models.save: {path} cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _mode_of_a_new_file(path: Path) -> int:
    """Who may read a new file, as this process has it; safetensors from 0.8 on lets its owner alone."""
    path.touch()
    return path.stat().st_mode & 0o777


def _untied(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of the state dict once, in memory of its own; and the other names of tied ones, with the first."""
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    used: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor) or value.is_meta:
            what = "has no numbers: it is on meta" if isinstance(value, Tensor) else f"is no tensor but {value!r:.60}"
            raise CircuitError(f"models.save: {name} of this {type(model).__name__} {what}")
        if first.setdefault(id(value), name) != name:
            tied[name] = first[id(value)]
            continue
        tensor = value.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if memory in used else tensor
        used.add(memory)
    return tensors, tied


def _refuse_changed(model: nn.Module, made: nn.Module) -> None:
    """Raise CircuitError where a model holds other weights than one made anew, which could not take them."""
    state = {name: value.to("meta") for name, value in model.state_dict().items()}
    try:
        made.load_state_dict(state)
    except WeightsError as error:
        raise CircuitError(
            f"models.save: this {type(model).__name__} has changed since it was made, and a file would make it as it"
            f" was; save its state_dict with safetensors, or make a class of it. A new {error}"
        ) from None
    lost = [name for name, _ in made.named_buffers() if name not in state]
    if lost:
        raise CircuitError(
            f"models.save: {', '.join(lost)} of this {type(model).__name__} would not be in the file; a buffer is, if"
            " it is registered as persistent"
        )


class _File(NamedTuple):
    """What a file holds."""

    kind: type[nn.Module]
    arguments: str
    tied: dict[str, str]
    tensors: dict[str, Tensor]


def load(
    path: str | os.PathLike[str], *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """The model that `save` wrote, in training mode as any new one; on `device`, its floating tensors as `dtype`.

    What is left out is torch's default device, and the file's own dtypes. Raises CircuitError for a file that is not
    whole, or not written by `save`, or by a later one, and for one of a class that is not `savable` here.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise CircuitError(f"models.load: dtype may be a floating one, as torch.bfloat16, not {dtype}")
    path = Path(path)
    file = _read(path)
    model = _made(file.kind, file.arguments, f"{path}: ")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    device = torch.get_default_device() if device is None else device
    state: dict[str, Tensor] = {}
    for name, tensor in file.tensors.items():
        tensor = tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)
        if name in parameters and not (tensor.is_floating_point() or tensor.is_complex()):
            raise CircuitError(f"{path}: {name} is of {tensor.dtype}, which no parameter can be")
        state[name] = nn.Parameter(tensor, parameters[name].requires_grad) if name in parameters else tensor
    state |= {name: state[first] for name, first in file.tied.items()}
    try:
        model.load_state_dict(state, assign=True)
    except WeightsError as error:
        raise CircuitError(f"{path}: {error}") from None
    return model


def _made(kind: type[nn.Module], arguments: str, where: str) -> nn.Module:
    """A model of a class, on meta; raises CircuitError where the arguments cannot be its."""
    try:
        with torch.device("meta"):
            args, kwargs = read(arguments)
            return kind(*args, **kwargs)
    except Exception as error:  # whatever a class says of arguments that are not its own
        raise CircuitError(f"{where}no {kind.__name__} can be made with {arguments:.200}: {error}") from error


def _read(path: Path) -> _File:
    """What the file at `path` holds; raises CircuitError where it is not one that `save` writes."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CircuitError(f"{path} is no whole safetensors file: {error}") from error
    number = metadata.get("models.format", "")
    if not number.isdecimal():
        raise CircuitError(
            f"{path} was not written by models.save, and does not say of which model it is; make the model, then"
            " model.load_state_dict(safetensors.torch.load_file(path))"
        )
    if int(number) > FORMAT:
        raise CircuitError(f"{path} has format {number}, of a later version of this library; here it may be {FORMAT}")
    name = metadata.get("models.class", "")
    if name not in CLASSES:
        raise CircuitError(f"{path} is of a class {name!r:.60}; it may be {', '.join(sorted(CLASSES))}")
    tied = _ties(metadata.get("models.tied", ""), tensors)
    if tied is None:
        raise CircuitError(f"{path} does not say which of its tensors are tied")
    return _File(CLASSES[name], metadata.get("models.arguments", ""), tied, tensors)


def _ties(text: str, tensors: Mapping[str, Tensor]) -> dict[str, str] | None:
    """The further names of tensors; None unless each is new, and of a tensor that is there."""
    try:
        tied = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tied, dict):
        return None
    return tied if all(first in [*tensors] and name not in tensors for name, first in tied.items()) else None
