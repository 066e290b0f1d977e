"""The record of one run: its events in order, and the values to which they refer.

`Enter` and `Leave` open and close a box, `Call` is a torch call or an einops verb, and `Lift` relates a tensor outside
a `torch.func` transform to the same tensor inside. Events contain no tensors, but a `Wire` (of `circuits.diagram`) in
place of each.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]

from circuits.diagram import Call as DiagramCall
from circuits.diagram import Change, Place, Setting
from circuits.recording.attribute_reads import AttributeReads
from circuits.recording.scopes import Scopes
from circuits.recording.snapshot import Snapshot

_any_autocast = torch._C._is_any_autocast_enabled
_is_grad_enabled = torch.is_grad_enabled
_is_autocast_enabled = torch.is_autocast_enabled
_get_autocast_dtype = torch.get_autocast_dtype
"""The functions themselves, because `interception` patches these names."""


RecordedValue = tuple[tuple[Any, ...], torch.dtype, str, str, tuple[int, ...], torch.device | None, bool, int]
"""What a record has of one value; see `Record.values`."""


class Event:
    """The base class of all events of a run."""

    __slots__ = ()


class Call(Event):
    """A torch call, an einops verb or an `autograd.Function`, with wires in place of tensors.

    Attributes:
        function: The callable.
        args: The positional arguments, with wires.
        kwargs: The keyword arguments, with wires.
        pattern: The pattern of a verb, or the class name of an `autograd.Function`; else empty.
        where: The line of user code that made the call, `model.py:12`, if lines are recorded.
        result: The result, with wires.
        error: The exception that the call raised, as one line; empty if none.
        autocast: The device type and dtype of autocast, None if it was off.
        gradient: Whether gradients were enabled.
        settings: The settings that the code has changed since the run began, with their values.
    """

    __slots__ = (
        "args",
        "autocast",
        "error",
        "function",
        "gradient",
        "kwargs",
        "pattern",
        "result",
        "settings",
        "where",
    )

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], pattern: str, where: str) -> None:
        self.function: Any = function
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        self.pattern: str = pattern
        self.where: str = where
        self.result: Any = None
        self.error: str = ""
        self.autocast: tuple[str, torch.dtype] | None = _autocast() if _any_autocast() else None
        self.gradient: bool = _is_grad_enabled()
        self.settings: tuple[Setting, ...] = ()


class Lift(Event):
    """A tensor inside a `torch.func` transform wraps a tensor outside it.

    Attributes:
        number: The number of the value inside.
        source: The number of the value outside.
        dim: The axis of the outer value that vmap hides inside; None if all axes are visible.
        level: The level of the transform.
    """

    __slots__ = ("dim", "level", "number", "source")

    def __init__(self, number: int, source: int, dim: int | None, level: int) -> None:
        self.number: int = number
        self.source: int = source
        self.dim: int | None = dim
        self.level: int = level


class Enter(Event):
    """A box opens.

    Attributes:
        kind: "module", "circuit", "transform" or "function".
        label: The name of the class, circuit or function.
        path: The dotted path of the module; empty for the outermost box and for boxes without a module.
        module: The module that is called, or that has the circuit as its method; else None.
        args: The positional arguments with wires in place of tensors, as a `Struct`.
        kwargs: The keyword arguments, likewise.
        level: The level of the innermost torch.func transform around the call, 0 outside any.
        where: The line of user code that made the call, if lines are recorded.
        circuit: The declaration of the circuit that is called; None if the box is not a circuit.
        owner: The object that the circuit is a method of; None for a function.
        function: The function that is called, for a box of kind "function"; the name of the method that is called, for
            a module that runs as a whole by another method than `__call__`.
        tensors: The wires of the circuit's tensor arguments: inputs by position as text ("0"), optional ones by name.
        whole: Whether a diagram runs the box as one call, because a transform ran inside it.
        error: The exception that was raised in this box and not in one of its contents, as one line; empty if none.
        autocast: The device type and dtype of autocast, None if it was off.
        gradient: Whether gradients were enabled.
        settings: The settings that the code has changed since the run began, with their values.
    """

    __slots__ = (
        "args",
        "autocast",
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
        "settings",
        "tensors",
        "where",
        "whole",
    )

    def __init__(self, kind: str, label: str, path: str, module: Any, where: str) -> None:
        self.kind: str = kind
        self.label: str = label
        self.path: str = path
        self.module: Any = module
        self.where: str = where
        self.level: int = functorch.maybe_current_level() or 0
        self.args: Any = ()
        self.kwargs: Any = {}
        self.circuit: Any = None
        self.owner: Any = None
        self.function: Any = None
        self.tensors: dict[str, Any] = {}
        self.whole: bool = False
        self.error: str = ""
        self.autocast: tuple[str, torch.dtype] | None = _autocast() if _any_autocast() else None
        self.gradient: bool = _is_grad_enabled()
        self.settings: tuple[Setting, ...] = ()


class Leave(Event):
    """The innermost open box closes.

    Attributes:
        result: The result of the box, with wires; None if it failed.
        inside: For a transform, the result of the transformed function, with wires.
        dims: For `vmap`, the `out_dims`.
        failed: Whether an exception left the box.
    """

    __slots__ = ("dims", "failed", "inside", "result")

    def __init__(self, result: Any, inside: Any = None, dims: Any = None, failed: bool = False) -> None:
        self.result: Any = result
        self.inside: Any = inside
        self.dims: Any = dims
        self.failed: bool = failed


def _autocast() -> tuple[str, torch.dtype] | None:
    """Return the device type and dtype for which autocast is enabled, or None."""
    for device in ("cpu", "cuda", "mps", "xpu"):
        if _is_autocast_enabled(device):
            return device, _get_autocast_dtype(device)
    return None


def has_gradient(event: Call | Enter, at_start: bool) -> bool:
    """Return whether gradients flow through a call: not if the code disabled them.

    Args:
        event: The call.
        at_start: Whether gradients were enabled where the run began.
    """
    changed = dict(event.settings)
    if "gradients" in changed or "inference" in changed:
        return changed.get("gradients", not changed.get("inference"))
    return event.gradient or not at_start


class Record:
    """Everything that is recorded of one run.

    Args:
        is_kept: Returns whether a diagram may be made of the run. If not, the snapshot and the scopes remain empty, and
            it is not recorded which attributes, properties and settings the code read.

    Attributes:
        events: The events in order.
        values: The shape, dtype, role, name, vmap levels (outermost first) and device of each value, whether it
            requires gradients, and the identifier of its memory (0: unknown), by number.
        state: The module and the dotted name of each value that is a parameter or buffer, by number.
        constants: The tensor of each value that is not an argument, a parameter, a buffer or the result of a recorded
            call, by number.
        roots: The called modules that are not part of an earlier root, each with the prefix of its paths.
        paths: The dotted paths of each root and of the modules in it, by `id`.
        originals: The user's module or tensor for each copy that runs in place of it, by `id` of the copy.
        names: The name in the run of each parameter and buffer, by `id`.
        unrecorded: The numbers of the values that code made during the run that is not recorded.
        shared: Which objects the run shares with the user because they cannot be copied, as a note; else empty.
        snapshot: What the objects that the run may change held before it.
        changes: What the run changed in them, once it has ended.
        held: The object, and the key in it, at which the run found a tensor that is no parameter or buffer, by the
            number of its value.
        refusal: Why the diagram of the run would not compute what the run computed; empty if it would.
        property_guards: The properties of tensors and modes that the code read, as calls of a `PropertyGuard`.
        attribute_reads: The attributes of modules that the code read.
        scopes: The globals and variables of enclosing functions that the code names.
    """

    def __init__(self, is_kept: Callable[[], bool] = lambda: True) -> None:
        self.is_kept: Callable[[], bool] = is_kept
        self.events: list[Event] = []
        self.values: list[RecordedValue] = []
        self.state: dict[int, tuple[nn.Module, str]] = {}
        self.constants: dict[int, Tensor] = {}
        self.unrecorded: set[int] = set()
        self.shared = ""
        self.snapshot: Snapshot = Snapshot()
        self.changes: tuple[Change, ...] = ()
        self.held: dict[int, tuple[Place, Any]] = {}
        self.roots: list[tuple[str, nn.Module]] = []
        self.paths: dict[int, list[str]] = {}
        self.originals: dict[int, Any] = {}
        self.names: dict[int, str] = {}
        self.refusal = ""
        self.property_guards: dict[Any, DiagramCall] = {}
        self.attribute_reads: AttributeReads = AttributeReads()
        self.scopes: Scopes = Scopes()

    def add_code(self, code: Any, name: str) -> None:
        """Add a module or function that is called to the snapshot, and the variables that its code names."""
        if not self.is_kept():
            return
        self.snapshot.add(code, name)
        owner = getattr(code, "__self__", code)
        if isinstance(owner, nn.Module):
            self.scopes.add_module(owner)
        if owner is not code or not isinstance(owner, nn.Module):
            self.scopes.add_function(code)
        for variable, value in self.scopes.new_containers():
            self.snapshot.add(value, variable)

    def left_changed(self) -> str:
        """Return what the run has changed besides tensors, and a diagram does not change; empty if nothing."""
        return self.scopes.refusal() or self.attribute_reads.refusal()

    def add(self, tensor: Tensor, role: str, name: str, memory: int = 0) -> int:
        """Add a value with the shape, dtype and device of a tensor, and return its number."""
        levels = _vmap_levels(tensor) if functorch.maybe_current_level() is not None else ()
        shape = _shape_of_nested(tensor) if tensor.is_nested else tuple(tensor.shape)
        self.values.append((shape, tensor.dtype, role, name, levels, tensor.device, tensor.requires_grad, memory))
        return len(self.values) - 1


def _shape_of_nested(tensor: Tensor) -> tuple[Any, ...]:
    """Return the largest size of the components of a nested tensor in each axis."""
    if tensor.layout is not torch.strided:
        return tuple(tensor.shape)
    with torch._C.DisableTorchFunction():
        return (tensor.size(0), *tensor._nested_tensor_size().amax(0).tolist())


def _vmap_levels(tensor: Tensor) -> tuple[int, ...]:
    """Return the levels of the vmaps that hide an axis of a tensor, outermost first."""
    found = []
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            found.append(functorch.maybe_get_level(tensor))
        tensor = functorch.get_unwrapped(tensor)
    return tuple(reversed(found))
