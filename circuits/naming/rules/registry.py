"""Where the rules are kept, and what a rule is given: one torch call as it was seen.

A rule reads the axes of an operation's inputs, gives axes to its outputs, and may return a note for its label
(`over x`). It is found by the callable itself, never by a name: names are looked up once, when a rule is registered.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from circuits.diagram import Scalar, Struct, Wire, wires
from circuits.naming.axes import AxisNode, labels
from circuits.naming.names import Names


@dataclass(frozen=True)
class Operation:
    """One torch call as it was seen: wires stand for tensors."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """An argument, by place or by name, as plain Python data where it holds no tensor."""
        found = self.raw(place, name)
        return default if found is None else plain(found)

    def raw(self, place: int, name: str) -> Any:
        """An argument as it was recorded; None if it was not given."""
        return self.kwargs[name] if name in self.kwargs else self.args[place] if place < len(self.args) else None

    def tensor(self, place: int, name: str) -> int | None:
        """The number of a tensor argument; None if there is none."""
        found = self.raw(place, name)
        return found.number if isinstance(found, Wire) else None

    def sequence(self, place: int, name: str) -> Any:
        """An argument that is a sequence, or is written out to the end: `permute(2, 0, 1)`."""
        found = self.get(place, name)
        return [plain(arg) for arg in self.args[place:]] if isinstance(found, int) else found

    @property
    def inputs(self) -> tuple[int, ...]:
        """Every tensor that goes in."""
        named = [value for name, value in self.kwargs.items() if name != "out"]
        return wires(Struct(tuple, (), (*self.args, *named)))

    @property
    def outputs(self) -> tuple[int, ...]:
        """Every tensor that comes out."""
        return wires(self.result)


def plain(value: Any) -> Any:
    """A recorded argument as plain data: sequences as lists, symbolic numbers as expressions."""
    if isinstance(value, Struct) and value.kind in (tuple, list, torch.Size):
        return [plain(part) for part in value.parts]
    if isinstance(value, Wire):
        return value
    if isinstance(value, Scalar):
        return value.expression
    return [plain(part) for part in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Over:
    """The note that says along which axes an operation works; their names may still be learned."""

    axes: tuple[AxisNode, ...]
    dims: tuple[int, ...]

    def __str__(self) -> str:
        words = [label or f"{axis.root.size}" for label, axis in zip(labels(self.axes), self.axes, strict=True)]
        return f"over {' '.join([words[dim] for dim in self.dims])}"


def over(axes: Sequence[AxisNode], dims: Iterable[int]) -> Over | None:
    """That note, if there are such axes; a number has none, though torch takes it for a vector of one."""
    found = tuple(dims) if axes else ()
    return Over(tuple(axes), found) if found else None


Note = str | Over | None
Rule = Callable[[Operation, Names], Note]
RULES: dict[Any, Rule] = {}

_OWNERS = (torch, torch.Tensor, F, torch._VF, torch.special, torch.linalg)


def torch_functions(*names: str, slots: bool = False) -> Iterator[Callable[..., Any]]:
    """Every callable of torch that goes by one of these names, in place or not; with Python's slots, `__add__`, too."""
    forms = ("{}", "{}_", "__{}__", "__r{}__", "__i{}__") if slots else ("{}", "{}_")
    for name in " ".join(names).split():
        for owner in _OWNERS:
            for form in forms:
                found = getattr(owner, form.format(name), None)
                if callable(found) and not isinstance(found, type):
                    yield found


def rule(*names: str, slots: bool = False, also: Iterable[Any] = ()) -> Callable[[Rule], Rule]:
    """Register a rule for these spellings, and for more callables that have no name of their own."""

    def register(function: Rule) -> Rule:
        for found in (*torch_functions(*names, slots=slots), *also):
            if RULES.setdefault(found, function) is not function:
                raise ValueError(f"{found} has two rules")
        return function

    return register


def canonical_dim(dim: Any, rank: int) -> int:
    """The place of an axis, counted from the front."""
    return int(dim) % rank if rank else 0


def canonical_dims(dims: Any, rank: int) -> list[int]:
    """The places of one axis or several; of all, if none is given."""
    if dims is None or dims == []:
        return list(range(rank))
    return [canonical_dim(dim, rank) for dim in (dims if isinstance(dims, list) else [dims])]
