"""Models on disk: `save` writes a model to a safetensors file, `load` returns a model equal to the saved one.

The file's metadata contains the name of the model's class, which is decorated with `savable`, that of the class's
module, and the constructor arguments, as text that `models.weights.configuration` writes. The class is looked up by
name, not imported, and loading never unpickles or executes anything. `load` makes the model on the meta device, without
memory, and then assigns the file's tensors to it.
"""

import functools
import inspect
import json
import os
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from circuits import CircuitError

from .atomic import refuse_unless_file, replaced
from .configuration import CLASSES, Bounded, made_with, read, refuse_unwritable, write
from .errors import ArgumentsError, WeightsError, explain, short_tracebacks
from .saved_file import FORMAT, read_saved

Kind = TypeVar("Kind", bound=type[nn.Module])


MAKERS = ("standard", "from_torch", "from_timm", "from_huggingface")
"""The class methods that make a model of one of the classes."""


def savable(kind: Kind) -> Kind:
    """Class decorator: instances can be saved and loaded, and errors of `load_state_dict` show axis names.

    Each instance stores its constructor arguments as text; an instance of a subclass does not, unless the subclass is
    decorated too. `load_state_dict` is torch's, except that it raises WeightsError, a subclass of RuntimeError, if
    names or shapes do not fit.

    Args:
        kind: A subclass of nn.Module. Files refer to it by its name, which no other savable class may have.

    Returns:
        The class itself, changed in place.

    Raises:
        CircuitError: if another savable class has the same name.
    """
    known = CLASSES.get(kind.__name__, kind)
    # A tool that imports by path, such as pytest for doctests, may call a module of ours `models.mlp`.
    places = [(each.__module__.removeprefix("circuits."), each.__qualname__) for each in (known, kind)]
    if places[0] != places[1]:
        raise CircuitError(
            f"savable: {known.__module__} has a {kind.__name__} already, and a file refers to its class by name"
        )
    CLASSES[kind.__name__] = kind
    marked: Any = kind
    initialize, load_weights, parameters = marked.__init__, marked.load_state_dict, inspect.signature(kind)

    @functools.wraps(initialize)
    @short_tracebacks
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        exactly = type(self) is kind
        given = _arguments(kind, parameters, args, kwargs)
        initialize(self, *given.args, **given.kwargs)
        if exactly:
            self.__dict__["_made_with"] = write(given)

    @short_tracebacks
    @functools.wraps(load_weights, [name for name in functools.WRAPPER_ASSIGNMENTS if name != "__doc__"])
    def load_state_dict(
        self: nn.Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Copy parameters and buffers from a state dict into this module and its submodules.

        Arguments and result are those of nn.Module.load_state_dict.

        Raises:
            WeightsError: if names or shapes do not fit; the message lists them, with the names of the axes.
        """
        try:
            return load_weights(self, state_dict, strict, assign)
        except WeightsError:
            raise
        except RuntimeError as error:
            load_fitting = functools.partial(load_weights, self, strict=False, assign=assign)
            explanation = explain(self, state_dict, load_fitting, strict=strict)
            if not explanation:
                raise
            raise WeightsError(explanation) from error

    marked.__init__, marked.load_state_dict = __init__, load_state_dict
    return _with_short_tracebacks(kind)


def _arguments(
    kind: type, parameters: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments:
    """Return the arguments of a constructor by parameter; raise ArgumentsError if they do not fit.

    Numpy's integers become ints, which a file can hold and torch.compile takes for numbers.
    """
    args, kwargs = tree_map_only(Integral, lambda n: n if isinstance(n, int) else int(n), (args, kwargs))
    try:
        return parameters.bind(*args, **kwargs)
    except TypeError as error:
        bare = [each.replace(annotation=each.empty) for each in parameters.parameters.values()]
        takes = parameters.replace(parameters=bare, return_annotation=parameters.empty)
        raise ArgumentsError(f"{kind.__name__} takes {takes}: {error}") from None


def _with_short_tracebacks(kind: Kind) -> Kind:
    """Return the class, whose class methods that make a model are changed in place; see `short_tracebacks`."""
    for name in MAKERS:
        method = inspect.getattr_static(kind, name, None)
        if isinstance(method, classmethod):
            setattr(kind, name, classmethod(short_tracebacks(method.__func__)))
    return kind


@short_tracebacks
def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model to a safetensors file: its state dict, the name of its class, and its constructor arguments.

    Tied parameters are written once, and tied again by `load`. The file is written completely or not at all. The mode
    (training or evaluation), hooks and `requires_grad` are not saved.

    Args:
        model: An instance of a class decorated with `savable`, as all model classes of `models` are.
        path: The file. If it exists, it is replaced and keeps its permissions; a symbolic link stays, and the file that
            it points to is replaced. What a killed process left of writing this file is removed.

    Raises:
        CircuitError: if `load` could not restore the model: its class is not savable, a constructor argument cannot be
            written, a tensor has no data (it is on meta), a buffer is not persistent, or names or shapes of its weights
            are not those of a new model with the same arguments. Also if safetensors cannot write the file, or if there
            is something else than a file at `path`, such as a folder or a device.
        OSError: if the file cannot be created, as in a folder that does not exist.

    >>> import models, tempfile
    >>> path = f"{tempfile.mkdtemp()}/mlp.safetensors"
    >>> models.save(models.MLP(x=4, y=4, m=8, k=2), path)
    >>> models.load(path)(torch.rand(3, 4, 4)).shape
    torch.Size([3, 2])
    """
    name, text = type(model).__name__, made_with(model)
    if text is None:
        raise CircuitError(
            f"models.save: {name} is not a class marked savable, as {', '.join(sorted(CLASSES))} are; if the model"
            " wraps one of these, save the one inside"
        )
    refuse_unwritable(name, text)
    tensors, tied = _tensors_and_ties(model)
    _refuse_changed(model, _made_on_meta(CLASSES[name], text, "models.save: "))
    metadata = {"format": "pt", "models.format": f"{FORMAT}", "models.class": name}
    metadata |= {"models.module": type(model).__module__}
    metadata |= {"models.arguments": text, "models.tied": json.dumps(tied)}
    path = Path(os.path.realpath(path))
    refuse_unless_file(path, "models.save: ")
    try:
        with replaced(path) as written:
            save_file(tensors, written, metadata)
    except SafetensorError as error:
        raise CircuitError(f"models.save: {path} cannot be written: {error}") from error


def _tensors_and_ties(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each tensor of the state dict once, in memory of its own, and the first name for each further tied one."""
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    used: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor) or value.is_meta:
            what = "has no data: it is on meta" if isinstance(value, Tensor) else f"is not a tensor but {value!r:.60}"
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
    """Raise CircuitError if `made`, a new model with the same arguments, could not load this model's weights."""
    state = {name: value.to("meta") for name, value in model.state_dict().items()}
    try:
        made.load_state_dict(state)
    except WeightsError as error:
        other_head = " (a classifier's `with_classes` replaces its head)" if hasattr(model, "with_classes") else ""
        raise CircuitError(
            f"models.save: this {type(model).__name__} has changed since it was made, and `load` would make it as it"
            f" was; save its state_dict with safetensors, or write a class for it{other_head}. A new {error}"
        ) from None
    lost = [name for name, _ in made.named_buffers() if name not in state]
    if lost:
        raise CircuitError(
            f"models.save: {', '.join(lost)} of this {type(model).__name__} would not be in the file; a buffer is"
            " saved if it is registered as persistent"
        )


@short_tracebacks
def load(
    path: str | os.PathLike[str], *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Any:
    """Return a model equal to the one that `save` wrote, in training mode as every new module.

    Its class is named in the file, and type checkers do not know it.

    Loading never unpickles or executes anything in the file.

    Args:
        path: The file.
        device: Device of the tensors; torch's default device unless given.
        dtype: Dtype of the floating tensors; as in the file unless given.

    Raises:
        CircuitError: if the file is incomplete, was not written by `save`, was written by a later version of it, or
            names a class that no imported module has decorated with `savable` (the message names the module to import;
            `load` imports nothing); if the constructor arguments in it are of a model with many more tensors than the
            file has, or more names are tied than that model has; or if `dtype` is not a floating one.
        FileNotFoundError: if there is no such file.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise CircuitError(f"models.load: dtype may be a floating one, such as torch.bfloat16, not {dtype!r}")
    path = Path(path)
    file = read_saved(path)
    with Bounded(len(file.tensors)):
        model = _made_on_meta(file.kind, file.arguments, f"{path}: ")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    device = torch.get_default_device() if device is None else device
    state: dict[str, Tensor] = {}
    for name, tensor in file.tensors.items():
        tensor = tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)
        if name in parameters and not (tensor.is_floating_point() or tensor.is_complex()):
            raise CircuitError(f"{path}: {name} has dtype {tensor.dtype}, which a parameter cannot have")
        state[name] = nn.Parameter(tensor, parameters[name].requires_grad) if name in parameters else tensor
    if len(file.tied) > len(model.state_dict()):
        raise CircuitError(f"{path}: more names are tied, {len(file.tied)}, than a model with its arguments has")
    state |= {name: state[first] for name, first in file.tied.items()}
    try:
        model.load_state_dict(state, assign=True)
    except WeightsError as error:
        raise CircuitError(f"{path}: {error}") from None
    return model


def _made_on_meta(kind: type[nn.Module], arguments: str, where: str) -> nn.Module:
    """Return a model on meta; raise CircuitError, beginning with `where`, if it cannot be made with the arguments."""
    try:
        with torch.device("meta"):
            args, kwargs = read(arguments)
            return kind(*args, **kwargs)
    except Exception as error:  # any exception that a constructor raises for arguments of another class
        reason = f"{error}".partition("\nException raised from")[0]  # without the frames of torch's C++
        raise CircuitError(f"{where}a {kind.__name__} cannot be made with {arguments:.200}: {reason}") from error
