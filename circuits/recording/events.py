"""What is heard of a run: events in order, and the values they speak of. Plain data without tensors.

`Enter` and `Leave` bracket a box; `Call` is a torch call or a verb; `Lift` says that a tensor is seen through a
transform. Wires stand for tensors (`structure`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]


class Event:
    """Something that happened. `Enter` and `Leave` bracket a box; the others stand alone."""

    __slots__ = ()


class Call(Event):
    """A torch call or verb, with wires for tensors."""

    __slots__ = ("args", "autocast", "error", "function", "gradient", "kwargs", "pattern", "result", "where")

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], pattern: str, where: str) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.pattern = pattern
        self.where = where
        self.result: Any = None
        self.error = ""
        self.autocast = _autocast() if _any_autocast() else None
        self.gradient = torch.is_grad_enabled()


class Lift(Event):
    """A tensor is seen through a transform: `number` is `source` without its axis `dim` (None: with all)."""

    __slots__ = ("dim", "level", "number", "source")

    def __init__(self, number: int, source: int, dim: int | None, level: int) -> None:
        self.number, self.source, self.dim, self.level = number, source, dim, level


class Enter(Event):
    """A box opens: a module, a circuit or a transform."""

    __slots__ = (
        "args",
        "circuit",
        "error",
        "function",
        "gradient",
        "kind",
        "kwargs",
        "label",
        "level",
        "module",
        "owner",
        "path",
        "tensors",
        "where",
        "whole",
    )

    def __init__(
        self, kind: str, label: str, path: str, module: Any, args: Any, kwargs: Any, level: int, where: str
    ) -> None:
        self.kind, self.label, self.path, self.module = kind, label, path, module
        self.args, self.kwargs, self.level, self.where = args, kwargs, level, where
        self.circuit: Any = None
        self.owner: Any = None
        self.function: Any = None
        self.tensors: dict[str, Any] = {}
        self.whole = False
        self.error = ""
        self.gradient = torch.is_grad_enabled()


class Leave(Event):
    """The box opened last closes with this result, or by an error.

    `inside` and `dims` say how a transform's result was made.
    """

    __slots__ = ("dims", "failed", "inside", "result")

    def __init__(self, result: Any, inside: Any = None, dims: Any = None, failed: bool = False) -> None:
        self.result, self.inside, self.dims, self.failed = result, inside, dims, failed


def _any_autocast() -> bool:
    return torch._C._is_any_autocast_enabled()


def _autocast() -> tuple[str, torch.dtype] | None:
    for device in ("cpu", "cuda", "mps", "xpu"):
        if torch.is_autocast_enabled(device):
            return device, torch.get_autocast_dtype(device)
    return None


class Record:
    """All that was heard of one run.

    `events` in order; `values` by number: shape, dtype, role, name, and the vmap levels a tensor was seen through;
    `state` and `constants` say where those values come from that the run did not make; `roots` are the modules that
    were called from outside any other, each with the prefix of its paths; `paths` names every module below them.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.values: list[tuple[tuple[Any, ...], torch.dtype, str, str, tuple[int, ...]]] = []
        self.state: dict[int, tuple[nn.Module, str]] = {}
        self.constants: dict[int, Tensor] = {}
        self.roots: list[tuple[str, nn.Module]] = []
        self.paths: dict[int, list[str]] = {}
        self.originals: dict[int, Any] = {}
        self.names: dict[int, str] = {}

    def add(self, tensor: Tensor, role: str, name: str) -> int:
        """A new value."""
        levels = _levels(tensor) if functorch.maybe_current_level() is not None else ()
        self.values.append((_shape(tensor), tensor.dtype, role, name, levels))
        return len(self.values) - 1


def _shape(tensor: Tensor) -> tuple[Any, ...]:
    """The sizes of a tensor; of a nested one, the longest of its parts."""
    if not tensor.is_nested or tensor.layout is not torch.strided:
        return tuple(tensor.shape)
    with torch._C.DisableTorchFunction():
        return (tensor.size(0), *tensor._nested_tensor_size().amax(0).tolist())


def _levels(tensor: Tensor) -> tuple[int, ...]:
    """The vmap levels a tensor is seen through, outermost first."""
    found = []
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            found.append(functorch.maybe_get_level(tensor))
        tensor = functorch.get_unwrapped(tensor)
    return tuple(reversed(found))
