"""Views among the values of a diagram, and their rematerialisation after an in-place write to a tensor they share.

A view is described by the path of view operations that leads to it from its base, a tensor that is no view. An in-place
write is replaced by a new base, a copy of the old one with the new contents (`overwritten`); each view of the base that
is read later is recomputed from the copy (`viewed`).
"""

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuits import switch
from circuits.autodiff.tensors import storage_of
from circuits.autodiff.workspace import Workspace
from circuits.diagram import Box, Call, Struct, Value, Wire, operation_name, tensors, wires
from circuits.errors import CircuitError

Path = tuple[Any, ...]
"""Steps from a tensor to a view of it, each `(function, further arguments, keywords, index of the output taken)`."""


def viewed(base: Tensor, path: Path) -> Tensor:
    """Return the view of a tensor that a path leads to.

    >>> viewed(torch.eye(2), ((torch.select, (0, 1), {}, 0),))
    tensor([0., 1.])
    """
    for function, args, kwargs, which in path:
        base = tensors(function(base, *args, **kwargs))[which]
    return base


def overwritten(base: Tensor, new: Tensor, path: Path) -> Tensor:
    """Return a copy of a tensor in which the view that a path leads to holds `new`.

    >>> overwritten(torch.eye(2), torch.ones(2), ((torch.select, (0, 1), {}, 0),))
    tensor([[1., 0.],
            [1., 1.]])
    """

    def run() -> Tensor:
        copy = base.clone()
        viewed(copy, path).copy_(new)
        return copy

    recorder = switch.current() if switch.active else None
    return run() if recorder is None else recorder.verb(overwritten, "", (base, new, path), {}, run)


def strided(tensor: Tensor, strides: tuple[Any, ...]) -> Tensor:
    """Return a copy of a tensor with these strides.

    >>> strided(torch.eye(2), (1, 2)).stride()
    (1, 2)
    """

    def run() -> Tensor:
        return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)

    recorder = switch.current() if switch.active else None
    return run() if recorder is None else recorder.verb(strided, "", (tensor, strides), {}, run)


def depends_on_strides(path: Path) -> bool:
    """Return whether a path may lead to a view only in a base with the strides of the original one."""
    return any(operation_name(step[0]) in _STRIDE_DEPENDENT for step in path)


_STRIDE_DEPENDENT = {
    "as_strided", "contiguous", "flatten", "ravel", "rearrange", "reshape", "reshape_as", "unflatten", "view",
    "view_as",
}  # fmt: skip

_OUT_OF_PLACE = {
    getattr(owner, f"{name}_"): getattr(owner, name)
    for owner in (Tensor, torch)
    for name in ("as_strided", "detach", "squeeze", "swapaxes", "swapdims", "t", "transpose", "unsqueeze")
    if hasattr(owner, f"{name}_")
}
"""In-place view operations and `detach_`, each mapped to the operation that returns a new view."""


def out_of_place(box: Box) -> Box:
    """Return the box of an in-place view operation as one that returns a new view; any other box unchanged."""
    call: Any = box.call
    function = _OUT_OF_PLACE.get(call.function) if isinstance(call.function, Hashable) else None
    if function is None:
        return box
    label = box.label.replace(operation_name(call.function), operation_name(function), 1)
    return replace(box, label=label, call=replace(call, function=function), mutates=())


@dataclass(frozen=True)
class View:
    """A value that is a view of the value `source`; `step` is the last step of its path, as it was recorded."""

    source: int
    step: Any


@dataclass(frozen=True)
class RematerialisedView:
    """A box to run after an in-place write; its result, value `new`, has the current contents of value `old`."""

    box: Box
    old: int
    new: int


class Aliases:
    """The views among the values of a diagram."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.views: dict[int, View] = {}

    def note(self, call: Call, made: Mapping[int, Tensor], given: Mapping[int, Tensor]) -> None:
        """Register as views the results of a call (`made`) that share the storage of an argument (`given`)."""
        for which, (number, fake) in enumerate(made.items()):
            source = next((each for each, other in given.items() if _share_storage(other, fake)), None)
            if source is not None and number not in self.views and number != source:
                function = call.function
                self.views[number] = View(source, (function, call.args.parts, call.kwargs, which))

    def base(self, number: int) -> int:
        """Return the value at the start of the path to a view; the value itself if it is no view."""
        while number in self.views:
            number = self.views[number].source
        return number

    def hidden_writes(self, touched: Iterable[int], written: Container[int], active: set[int]) -> list[int]:
        """Return the values that a differentiated call overwrites unseen by autograd.

        Not among them are views that the call reads of a tensor that it writes to, `y[1:] = y[0]`, where none of the
        tensors in between is detached: what reads them later reads them again from the written tensor.

        Args:
            touched: The arguments whose storage the call overwrites.
            written: Those of them that it returns, overwritten.
            active: The values that gradients flow through.
        """
        tracked = [number for number in touched if active.issuperset(self._numbers_to(number))]
        bases = {self.base(number) for number in tracked if number in written}
        seen = {number for number in tracked if self.base(number) in bases}
        return [number for number in touched if number not in written and number not in seen]

    def _numbers_to(self, number: int) -> Iterator[int]:
        """Yield a value, and if it is a view, the values on its path, the base last."""
        yield number
        while number in self.views:
            number = self.views[number].source
            yield number

    def rematerialise(self, old: int, new: int, later: Mapping[int, int]) -> list[RematerialisedView]:
        """Return the boxes to run after the write of `old`, whose contents are now value `new`.

        `later` maps each value that is read afterwards to its current number.

        Raises:
            CircuitError: A path contains an operation that cannot be repeated on another base.
        """
        base, path = self.base(old), self._path(old)
        wanted = {
            each: number for each, number in later.items() if number not in (old, new) and self.base(number) == base
        }
        if not wanted:
            return []
        found: list[RematerialisedView] = []
        new_base = new
        if old != base:
            new_base = self._new_value(base)
            box = self._box(overwritten, (Wire(base), Wire(new), path), new_base)
            found.append(RematerialisedView(box, base, new_base))
        for each, number in wanted.items():
            if number != base:
                again = self._new_value(number)
                box = self._box(viewed, (Wire(new_base), self._path(number)), again)
                found.append(RematerialisedView(box, each, again))
        if old != base:
            self.views[new] = View(new_base, path)
        return found

    def _path(self, number: int) -> Any:
        """Return the path to a value from its base, as a description."""
        steps: list[Any] = []
        while number in self.views:
            view = self.views[number]
            number = view.source
            steps[:0] = view.step.parts if isinstance(view.step, Struct) else [self._step(view)]
        return Struct(tuple, (), tuple(steps))

    def _step(self, view: View) -> Struct:
        function, (first, *args), kwargs, which = view.step
        if not isinstance(function, Callable) or first != Wire(view.source) or wires(Struct(tuple, (), tuple(args))):
            raise CircuitError(
                f"{operation_name(function)} returns a view that is written in place; "
                "gradients cannot be computed through it"
            )
        return Struct(tuple, (), (function, Struct(tuple, (), tuple(args)), kwargs, which))

    def _new_value(self, number: int) -> int:
        """Return the number of a new value with the sizes, dtype and role of an existing one."""
        record, shapes = self.workspace.listener.record, self.workspace.builder.names.shapes
        self.workspace.builder.read_new_shapes()
        record.values.append(record.values[number])
        shapes[len(record.values) - 1] = shapes[number]
        return len(record.values) - 1

    def _box(self, function: Callable[..., Any], args: tuple[Any, ...], result: int) -> Box:
        call = Call(function, Struct(tuple, (), args), Struct(dict, (), ()), Wire(result))
        inputs = tuple([self._value(each) for each in wires(call.args)])
        return Box("operation", "", operation_name(function), inputs=inputs, outputs=(self._value(result),), call=call)

    def _value(self, number: int) -> Value:
        sizes = self.workspace.builder.names.shapes[number]
        return Value(number, (None,) * len(sizes), sizes, self.workspace.listener.record.values[number][1])


def _share_storage(tensor: Tensor, other: Tensor) -> bool:
    if tensor.layout is not torch.strided or other.layout is not torch.strided:
        return False
    return storage_of(tensor) == storage_of(other)
