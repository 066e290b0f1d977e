"""Guards on state: what the code of a run read of objects and variables besides tensors, such as `self.scale`.

The code may do anything with such a value, and a diagram contains only what it did with the recorded one. So a diagram
compares it when it runs, and refuses to continue if it is another one. Tensors are not compared: a diagram reads them
again. Nor is what the run itself changes (`changes`).
"""

import functools
import itertools
import math
import operator
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import CellType
from typing import Any, Self

import torch
from torch import Tensor, nn

from circuits.diagram.base_methods import parts_of, size_of
from circuits.diagram.boxes import Call
from circuits.diagram.changes import NOTHING, contents
from circuits.diagram.structure import PLAIN_TYPES, Struct
from circuits.errors import CircuitError


@dataclass(frozen=True, eq=False)
class Globals:
    """The globals of a Python module, which a copy or a pickle refers to by the name of the module."""

    module: str

    def values(self) -> Any:
        """Return them."""
        return vars(sys.modules[self.module]) if self.module in sys.modules else {}


@dataclass(frozen=True, eq=False)
class Variables:
    """Variables of enclosing functions, which a copy shares; a pickle has none, because nothing else refers to them."""

    cells: tuple[tuple[str, CellType], ...]

    def values(self) -> dict[str, Any]:
        """Return the values of those that are assigned."""
        found = {}
        for name, cell in self.cells:
            try:
                found[name] = cell.cell_contents
            except ValueError:
                continue
        return found

    def __deepcopy__(self, _: Any) -> Self:
        return self

    def __reduce__(self) -> Any:
        return Variables, ((),)


@dataclass(frozen=True, eq=False)
class Held:
    """What an object held that the code read.

    Attributes:
        name: The name of the object in messages; empty for variables.
        holder: A module, another object, a container, `Globals` or `Variables`.
        keys: The keys that were read; None for the items of a list, a tuple, a deque or a set.
        values: The value of each key or item, with the type `Tensor` in place of a tensor.
        where: The line of user code that read each key first, if known, by key.
        is_whole: Whether there was no other key.
        by_identity: Whether equal values do not count as the same, because the diagram runs the recorded ones.
    """

    name: str
    holder: Any
    keys: tuple[Any, ...] | None
    values: tuple[Any, ...]
    where: dict[Any, str]
    is_whole: bool = False
    by_identity: bool = False

    def check(self) -> None:
        """Raise CircuitError if the object holds something else now."""
        now, keys = self._now(), self.keys
        if keys is None:
            found = tuple(parts_of(now))
        elif self.is_whole and size_of(now) != len(keys):
            keys = tuple(dict.fromkeys((*keys, *parts_of(now))))
            found = tuple([_get(now)(key, NOTHING) for key in keys])
        else:
            found = tuple(map(_get(now), keys, itertools.repeat(NOTHING)))
        if len(found) == len(self.values) and all(map(operator.is_, found, self.values)):
            return
        if isinstance(now, set) and found and set(found) == set(self.values):
            return
        for place, (before, value) in enumerate(itertools.zip_longest(self.values, found, fillvalue=NOTHING)):
            if before is not value and (self.by_identity or not _is_same(before, value)):
                self._refuse(place if keys is None else keys[place], before, value)

    def _now(self) -> Any:
        if isinstance(self.holder, Variables):
            # Those that the recorded run had and a pickle has not are as they were.
            return dict(zip(self.keys or (), self.values, strict=True)) | self.holder.values()
        return self.holder.values() if isinstance(self.holder, Globals) else contents(self.holder)

    def _refuse(self, key: Any, before: Any, now: Any) -> None:
        name = f"{key}" if not self.name else f"{self.name}.{key}" if isinstance(key, str) else f"{self.name}[{key!r}]"
        at = f" at {self.where[key]}" if self.keys is not None and self.where.get(key) else ""
        raise CircuitError(
            f"the recorded run read {name}{at} as {_text(before)}, and now it is {_text(now)}; the diagram has only "
            "what the code does with the recorded value. Record it again with the new value"
        )


@dataclass(frozen=True, eq=False)
class StateGuard:
    """What the code of a run read of several objects; calling it compares.

    Attributes:
        held: What each object held.
        hooks: Where there were no hooks, by name: the dicts of the hooks of each module that was called, and torch's.
    """

    held: tuple[Held, ...]
    hooks: dict[str, Any]

    __name__ = "state"

    def __call__(self) -> None:
        """Compare; code that torch compiles is compared once, where it is compiled.

        Raises:
            CircuitError: An object holds another value.
        """
        if torch.compiler.is_compiling():
            return
        for each in self.held:
            each.check()
        if any(self.hooks.values()):
            name = next(name for name, held in self.hooks.items() if held)
            raise CircuitError(
                f"a hook was added to {name} after the recorded run, and the diagram does not call it; record it again"
            )


def state_guard(held: Sequence[Held], hooks: dict[str, Any]) -> tuple[Call, ...]:
    """Return the guard of what objects held as a call; none if there are no objects."""
    guard = StateGuard(tuple(held), hooks)
    return (Call(guard, Struct(tuple, (), ()), Struct(dict, (), ()), None),) if held or hooks else ()


def _get(held: Any) -> Any:
    """Return the `get` of a mapping; a class of dicts may have its own."""
    return functools.partial(dict.get, held) if isinstance(held, dict) else held.get


def _are_same_modules(before: nn.Module, now: nn.Module) -> bool:
    """Return whether two modules compute the same with the same tensors, as far as their attributes tell."""
    if isinstance(before, torch.jit.ScriptModule):
        return False
    for old, new in ((vars(before), vars(now)), *[(vars(before)[part], vars(now)[part]) for part in _PARTS]):
        if old.keys() != new.keys() or not all(
            key in _PARTS or _is_same(Tensor if isinstance(value, Tensor) else value, new[key])
            for key, value in old.items()
        ):
            return False
    return True


_COMPARED = (tuple, list, dict, OrderedDict, set, frozenset, deque, torch.Size, range, slice)
_PARTS = ("_parameters", "_buffers", "_modules")


def _is_same(before: Any, now: Any) -> bool:
    """Return whether two values are the same to the code: the same object, or equal ones of the same type.

    Weak references to tensors are, as tensors are: LSTM has those to its parameters, which a user may replace.
    """
    if before is now or before is Tensor:
        return before is now or isinstance(now, Tensor)
    if type(before) is not type(now):
        return False
    if isinstance(before, nn.Module):
        return _are_same_modules(before, now)
    if isinstance(before, weakref.ref):
        return before() is now() or (isinstance(before(), Tensor) and isinstance(now(), Tensor))
    if isinstance(before, float) and math.isnan(before):
        return math.isnan(now)
    if type(before) not in (*PLAIN_TYPES, *_COMPARED):
        return False
    try:
        if isinstance(before, list | tuple):
            tensors_apart = [Tensor if isinstance(each, Tensor) else each for each in before]
            return len(before) == len(now) and all(map(_is_same, tensors_apart, now))
        return bool(before == now)
    except (RuntimeError, ValueError, TypeError):
        return False


def _text(value: Any) -> str:
    """Return a value as a short text."""
    if value is Tensor or isinstance(value, Tensor):
        return "a tensor"
    if value is NOTHING:
        return "nothing"
    plain = (*PLAIN_TYPES, tuple, list, dict, set)
    text = repr(value) if type(value) in plain else getattr(value, "__qualname__", f"a {type(value).__name__}")
    return text if len(text) <= 60 else f"{text[:57]}..."


__all__ = ["Globals", "Held", "StateGuard", "Variables", "state_guard"]
