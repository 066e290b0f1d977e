"""The registry of naming rules, and Operation: the recorded torch call that a rule receives.

A rule reads the axes of an operation's inputs, sets the axes of its outputs, and may return a note for the label of the
box (`over x`). Rules are looked up by the callable; the torch functions that a rule is registered for are given by name
and resolved once, at registration.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from circuits.diagram import Scalar, Struct, Wire, wires, wires_in
from circuits.naming.axes import AxisNode, labels
from circuits.naming.names import Names


@dataclass(frozen=True)
class Operation:
    """One torch call as it was recorded: `args`, `kwargs` and `result` hold a Wire for each tensor."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument, by name or position, as plain Python data (see `plain`); `default` if absent or None."""
        found = self.raw(position, name)
        return default if found is None else plain(found)

    def raw(self, position: int, name: str) -> Any:
        """Return an argument, by name or position, as it was recorded; None if it was not passed."""
        return self.kwargs[name] if name in self.kwargs else self.args[position] if position < len(self.args) else None

    def tensor(self, position: int, name: str) -> int | None:
        """Return the number of a tensor argument; None if the argument is no tensor."""
        found = self.raw(position, name)
        return found.number if isinstance(found, Wire) else None

    def sequence(self, position: int, name: str) -> Any:
        """Return a sequence argument, also if it was passed as several arguments: `permute(2, 0, 1)`."""
        found = self.get(position, name)
        return [plain(arg) for arg in self.args[position:]] if isinstance(found, int) else found

    @property
    def inputs(self) -> tuple[int, ...]:
        """The numbers of the input tensors, without that of `out=`."""
        named = [value for name, value in self.kwargs.items() if name != "out"] if self.kwargs else ()
        return wires_in((*self.args, *named))

    @property
    def outputs(self) -> tuple[int, ...]:
        """The numbers of the output tensors."""
        return wires(self.result)


def plain(value: Any) -> Any:
    """Return a recorded argument as plain data: sequences as lists, symbolic numbers as expressions; Wires stay."""
    if isinstance(value, Struct) and value.kind in (tuple, list, torch.Size):
        return [plain(part) for part in value.parts]
    if isinstance(value, Wire):
        return value
    if isinstance(value, Scalar):
        return value.expression
    return [plain(part) for part in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Over:
    """The note `over x`, naming the axes at `dims`; its text is computed on demand, when all names are known."""

    axes: tuple[AxisNode, ...]
    dims: tuple[int, ...]

    def __str__(self) -> str:
        words = [label or f"{axis.root.size}" for label, axis in zip(labels(self.axes), self.axes, strict=True)]
        return f"over {' '.join([words[dim] for dim in self.dims])}"


def over(axes: Sequence[AxisNode], dims: Iterable[int]) -> Over | None:
    """Return the note for the axes at `dims`; None without any, or for a scalar, of which torch accepts dimension 0."""
    found = tuple(dims) if axes else ()
    return Over(tuple(axes), found) if found else None


Note = str | Over | None
Rule = Callable[[Operation, Names], Note]
RULES: dict[Any, Rule] = {}

_OWNERS = (torch, torch.Tensor, F, torch._VF, torch.special, torch.linalg)


def torch_functions(*names: str, special: bool = False) -> Iterator[Callable[..., Any]]:
    """Yield every torch callable of one of these names, and its in-place variant.

    Args:
        names: The names; each string may hold several, separated by spaces.
        special: Whether to yield special methods too, such as `__add__`, `__radd__` and `__iadd__` for `add`.
    """
    forms = ("{}", "{}_", "__{}__", "__r{}__", "__i{}__") if special else ("{}", "{}_")
    for name in " ".join(names).split():
        for owner in _OWNERS:
            for form in forms:
                found = getattr(owner, form.format(name), None)
                if callable(found) and not isinstance(found, type):
                    yield found


def rule(*names: str, special: bool = False, also: Iterable[Any] = ()) -> Callable[[Rule], Rule]:
    """Return a decorator that registers a rule for the torch functions of these names and the callables in `also`.

    Args:
        names: Names for `torch_functions`.
        special: Whether special methods of these names are included, such as `__add__`.
        also: Other callables.

    Raises:
        ValueError: By the decorator, if a callable already has another rule.
    """

    def register(function: Rule) -> Rule:
        for found in (*torch_functions(*names, special=special), *also):
            if RULES.setdefault(found, function) is not function:
                raise ValueError(f"{found} has two rules")
        return function

    return register


def canonical_dim(dim: Any, rank: int) -> int:
    """Return a dimension as a non-negative index; 0 for a scalar."""
    return int(dim) % rank if rank else 0


def canonical_dims(dims: Any, rank: int) -> list[int]:
    """Return one dimension or a list as non-negative indices; all dimensions for None or an empty list."""
    if dims is None or dims == []:
        return list(range(rank))
    return [canonical_dim(dim, rank) for dim in (dims if isinstance(dims, list) else [dims])]
