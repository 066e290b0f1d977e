"""Views: which values share their numbers with others, and what becomes of these when one of them is written.

A view is known by the path that leads to it. Where a value is written, the tensor it is a view of becomes another
one, `overwritten` there, and whatever is read later is `viewed` anew in that.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuits import switch
from circuits.autodiff.workspace import Bench
from circuits.diagram import Box, Call, Struct, Value, Wire, operation_name, tensors, wires
from circuits.errors import CircuitError

Path = tuple[Any, ...]
"""Steps from a tensor to a view of it: function, further arguments, keywords, which of the tensors it gives."""


def viewed(base: Tensor, path: Path) -> Tensor:
    """The view of a tensor that a path leads to.

    >>> viewed(torch.eye(2), ((torch.select, (0, 1), {}, 0),))
    tensor([0., 1.])
    """
    for function, args, kwargs, which in path:
        base = tensors(function(base, *args, **kwargs))[which]
    return base


def overwritten(base: Tensor, new: Tensor, path: Path) -> Tensor:
    """A copy of a tensor, in which the view that a path leads to holds `new`.

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


_TURNS = {
    getattr(owner, f"{name}_"): getattr(owner, name)
    for owner in (Tensor, torch)
    for name in ("as_strided", "detach", "squeeze", "swapaxes", "swapdims", "t", "transpose", "unsqueeze")
    if hasattr(owner, f"{name}_")
}
"""What turns a tensor in place, or cuts it off from its past, with what gives the tensor that it becomes."""


def turned(box: Box) -> Box:
    """A call that turns a tensor in place as one that gives a view of it; another as it is."""
    call: Any = box.call
    function = _TURNS.get(call.function) if isinstance(call.function, Hashable) else None
    if function is None:
        return box
    label = box.label.replace(operation_name(call.function), operation_name(function), 1)
    return replace(box, label=label, call=replace(call, function=function), mutates=())


@dataclass(frozen=True)
class View:
    """A value that is a view of another, and the last step of the path to it, as it was recorded."""

    source: int
    step: Any


@dataclass(frozen=True)
class Anew:
    """What to run after a call that wrote: a box, what its result stands for from there on, and that result."""

    box: Box
    old: int
    new: int


class Aliases:
    """The views among a diagram's values."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.views: dict[int, View] = {}

    def note(self, call: Call, made: Mapping[int, Tensor], given: Mapping[int, Tensor]) -> None:
        """Remember which results of a call are views of what went in."""
        for which, (number, fake) in enumerate(made.items()):
            source = next((each for each, other in given.items() if _shares(other, fake)), None)
            if source is not None and number not in self.views and number != source:
                function = call.function
                self.views[number] = View(source, (function, call.args.parts, call.kwargs, which))

    def base(self, number: int) -> int:
        """The value that this one is in the end a view of."""
        while number in self.views:
            number = self.views[number].source
        return number

    def family(self, number: int, numbers: Iterable[int]) -> list[int]:
        """Those of the numbers that share with this one, itself included."""
        base = self.base(number)
        return [each for each in numbers if self.base(each) == base]

    def anew(self, old: int, new: int, later: Mapping[int, int]) -> list[Anew]:
        """What to run after `old` was written and is `new`; `later` are what is read from here on, and where it is."""
        base, steps = self.base(old), self._path(old)
        wanted = {
            each: number for each, number in later.items() if number not in (old, new) and self.base(number) == base
        }
        if not wanted:
            return []
        found: list[Anew] = []
        fresh = new
        if old != base:
            fresh = self._like(base)
            found.append(Anew(self._box(overwritten, (Wire(base), Wire(new), steps), fresh, base), base, fresh))
        for each, number in wanted.items():
            if number != base:
                again = self._like(number)
                found.append(Anew(self._box(viewed, (Wire(fresh), self._path(number)), again, number), each, again))
        self._join(old, new, fresh, base)
        return found

    def _join(self, old: int, new: int, fresh: int, base: int) -> None:
        """What holds the written numbers now is itself a view of what is fresh."""
        if old != base:
            self.views[new] = View(fresh, self._path(old))

    def _path(self, number: int) -> Any:
        """The path to a value from its base."""
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
                f"{operation_name(function)} gives a view that is written to in place: "
                "gradients cannot be followed through it"
            )
        return Struct(tuple, (), (function, Struct(tuple, (), tuple(args)), kwargs, which))

    def _like(self, number: int) -> int:
        """The number of a new value, alike in all but its numbers."""
        record, shapes = self.bench.listener.record, self.bench.builder.names.shapes
        self.bench.builder._learn_shapes()
        record.values.append(record.values[number])
        shapes[len(record.values) - 1] = shapes[number]
        return len(record.values) - 1

    def _box(self, function: Callable[..., Any], args: tuple[Any, ...], result: int, like: int) -> Box:
        call = Call(function, Struct(tuple, (), args), Struct(dict, (), ()), Wire(result))
        inputs = tuple([self._value(each) for each in wires(call.args)])
        return Box("operation", "", operation_name(function), inputs=inputs, outputs=(self._value(result),), call=call)

    def _value(self, number: int) -> Value:
        sizes = self.bench.builder.names.shapes[number]
        return Value(number, (None,) * len(sizes), sizes, self.bench.listener.record.values[number][1])


def _shares(tensor: Tensor, other: Tensor) -> bool:
    if tensor.layout is not torch.strided or other.layout is not torch.strided:
        return False
    return tensor.untyped_storage()._cdata == other.untyped_storage()._cdata
