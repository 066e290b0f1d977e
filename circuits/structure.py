"""Nested Python values with wires where tensors were.

A call's arguments may hold tensors anywhere: in tuples, dicts, dataclasses, slices. `describe` turns such a value
into a description that holds a `Wire` for each tensor and a `Scalar` for each symbolic number; `fill` turns the
description back into a value; `bind` says which tensor of a value stands at which wire. A description holds no tensor.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import SymBool, SymFloat, SymInt, Tensor

from circuits.errors import CircuitError


class Wire(NamedTuple):
    """The place of a tensor: the number of its value."""

    number: int


class Scalar(NamedTuple):
    """The place of a number that depends on sizes: a torch symbol while recording, a sympy expression afterwards."""

    expression: Any


class Struct(NamedTuple):
    """A tuple, list, dict, named tuple, dataclass, mapping or slice that holds wires or scalars."""

    kind: type
    keys: tuple[Any, ...]
    parts: tuple[Any, ...]


_ATOMS = frozenset(
    {int, float, bool, str, bytes, complex, type(None), torch.dtype, torch.device, torch.layout, type(...)}
)


def describe(value: Any, number: Callable[[Tensor], int]) -> Any:
    """`value` with a `Wire` for each tensor, numbered by `number`; what holds no tensor stays as it is."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is Tensor or isinstance(value, Tensor):
        return Wire(number(value))
    if kind is SymInt or kind is SymFloat or kind is SymBool:
        return Scalar(value)
    split = _split(value, kind)
    if split is None:
        return value
    keys, parts = split
    described = tuple([describe(part, number) for part in parts])
    if all(new is old for new, old in zip(described, parts, strict=True)) and not dataclasses.is_dataclass(value):
        return value if kind is tuple or kind is slice or not parts else Struct(kind, keys, described)
    return Struct(kind, keys, described)


def _split(value: Any, kind: type) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """The keys and parts of a container; None for anything that is not one."""
    if isinstance(value, (tuple, list)):
        return (), tuple(value)
    if isinstance(value, Mapping):
        return tuple(value.keys()), tuple(value.values())
    if kind is slice:
        return (), (value.start, value.stop, value.step)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        keys = tuple(field.name for field in dataclasses.fields(value))
        return keys, tuple(getattr(value, key, None) for key in keys)
    return None


def rebuild(kind: type, keys: tuple[Any, ...], parts: tuple[Any, ...]) -> Any:
    """A container of this kind with these parts."""
    if kind is slice:
        return slice(*parts)
    if issubclass(kind, (tuple, list)):
        return kind(*parts) if hasattr(kind, "_fields") or kind.__module__ == "torch.return_types" else kind(parts)
    if issubclass(kind, dict) and not dataclasses.is_dataclass(kind):
        made = kind()
        made.update(zip(keys, parts, strict=True))
        return made
    if dataclasses.is_dataclass(kind):
        made = object.__new__(kind)
        for key, part in zip(keys, parts, strict=True):
            object.__setattr__(made, key, part)
        if isinstance(made, dict):
            dict.update(made, {key: part for key, part in zip(keys, parts, strict=True) if part is not None})
        return made
    return kind(zip(keys, parts, strict=True))


def change(description: Any, wire: Callable[[Wire], Any], scalar: Callable[[Scalar], Any], make: bool = True) -> Any:
    """The description with every wire and scalar replaced; containers are made again, or stay `Struct`s."""
    if isinstance(description, Wire):
        return wire(description)
    if isinstance(description, Scalar):
        return scalar(description)
    if isinstance(description, Struct):
        parts = tuple([change(part, wire, scalar, make) for part in description.parts])
        return (
            rebuild(description.kind, description.keys, parts)
            if make
            else Struct(description.kind, description.keys, parts)
        )
    return description


def leaves(description: Any) -> Iterator[Wire | Scalar]:
    """Every wire and scalar of a description, in order."""
    if isinstance(description, (Wire, Scalar)):
        yield description
    elif isinstance(description, Struct):
        for part in description.parts:
            yield from leaves(part)


def wires(description: Any) -> tuple[int, ...]:
    """The numbers of every wire of a description, in order."""
    return tuple([leaf.number for leaf in leaves(description) if isinstance(leaf, Wire)])


def bind(description: Any, value: Any, found: dict[Any, Any], where: str = "the call") -> None:
    """Put into `found` which part of `value` stands at each wire and scalar; CircuitError if they do not match."""
    if isinstance(description, Wire):
        if not isinstance(value, Tensor):
            raise CircuitError(f"{where}: a tensor belongs here, {type(value).__name__} came")
        found[description.number] = value
    elif isinstance(description, Scalar):
        found[description.expression] = value
    elif isinstance(description, Struct):
        split = _split(value, type(value))
        if split is None or split[0] != description.keys or len(split[1]) != len(description.parts):
            raise CircuitError(f"{where}: expected {_outline(description)}, {type(value).__name__} came")
        for key, part, inner in zip(description.keys or range(len(split[1])), split[1], description.parts, strict=True):
            bind(inner, part, found, f"{where}[{key!r}]")
    elif description is not value:
        _same(description, value, where)


def _same(expected: Any, value: Any, where: str) -> None:
    """A recorded constant must come again: the diagram was recorded with it."""
    try:
        same = bool(type(expected) is type(value) and expected == value)
    except (ValueError, RuntimeError, TypeError):
        same = False
    if not same:
        raise CircuitError(
            f"{where}: the diagram was recorded with {expected!r}, {value!r} came; record it again for that"
        )


def _outline(description: Struct) -> str:
    return f"{description.kind.__name__} of {len(description.parts)}"
