"""Nested Python values with wires where tensors were.

A call's arguments may hold tensors anywhere: in tuples, dicts, dataclasses, slices. `describe` turns such a value
into a description that holds a `Wire` for each tensor and a `Scalar` for each symbolic number; `fill` turns the
description back into a value; `bind` says which tensor of a value stands at which wire. A description holds no tensor.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import SymBool, SymFloat, SymInt, Tensor
from torch.nn import Parameter

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


def describe_all(values: Iterable[Any], wire: Callable[[Tensor], Wire]) -> tuple[Any, ...]:
    """Several values described; the ordinary ones without a further call, since this runs for every torch call."""
    return tuple(
        [
            wire(value)
            if (kind := type(value)) is Tensor or kind is Parameter
            else value
            if kind in _ATOMS
            else describe(value, wire)
            for value in values
        ]
    )


def describe(value: Any, wire: Callable[[Tensor], Wire]) -> Any:
    """`value` with a `Wire` for each tensor, given by `wire`; what holds no tensor stays as it is."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is Tensor or isinstance(value, Tensor):
        return wire(value)
    if kind is SymInt or kind is SymFloat or kind is SymBool:
        return Scalar(value)
    split = _split(value, kind)
    if split is None:
        return value
    keys, parts = split
    described = describe_all(parts, wire)
    if all(new is old for new, old in zip(described, parts, strict=True)) and not dataclasses.is_dataclass(value):
        return value if kind is tuple or kind is slice or not parts else Struct(kind, keys, described)
    return Struct(kind, keys, described)


def _split(value: Any, kind: type) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """The keys and parts of a container; None for anything that is not one."""
    if isinstance(value, (tuple, list)):
        return getattr(value, "_fields", ()), tuple(value)
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
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
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


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any], binder: inspect.Signature | None) -> dict[str, Any]:
    """The arguments of a call, or their descriptions, by the names of its parameters, defaults filled in.

    >>> arguments((1, 2, 3), {"c": 4}, inspect.signature(lambda a, *rest, b=5, **others: None))
    {'a': 1, 'rest.0': 2, 'rest.1': 3, 'b': 5, 'c': 4}
    """
    if binder is None:
        return {f"{place}": part for place, part in enumerate(args)} | {**kwargs}
    bound = binder.bind(*args, **kwargs)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = binder.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            named |= {f"{name}.{place}": part for place, part in enumerate(value)}
        else:
            named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return named


def without_defaults(
    parameters: Iterable[inspect.Parameter], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, or their descriptions, but for those that are their parameters' defaults.

    What comes after one that is left out is given by name.

    >>> without_defaults(inspect.signature(lambda a, b=2, c=3, *, d=4: None).parameters.values(), (1, 2, 5), {"d": 4})
    ((1,), {'c': 5})
    """
    named = {each.name: each for each in parameters}
    places = [each for each in named.values() if each.kind is each.POSITIONAL_OR_KEYWORD][: len(args)]
    pairs = list(zip(places, args, strict=False))
    kept = next((place for place, (each, arg) in enumerate(pairs) if _is_same(each.default, arg)), len(args))
    if len(args) > len(pairs):
        kept = len(args)
    later = {each.name: arg for each, arg in pairs[kept:]} | {**kwargs}
    told = {name: arg for name, arg in later.items() if name not in named or not _is_same(named[name].default, arg)}
    return args[:kept], told


def _is_same(default: Any, value: Any) -> bool:
    return type(default) is type(value) and type(value) in _ATOMS and default == value


def convert(value: Any, new: Callable[[Tensor], Any]) -> Any:
    """`value` with every tensor in it replaced."""
    found: list[Tensor] = []
    described = describe(value, lambda tensor: _kept(found, tensor))
    return change(described, lambda wire: new(found[wire.number]), lambda scalar: scalar.expression)


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in a value, in order."""
    found: list[Tensor] = []
    describe(value, lambda tensor: _kept(found, tensor))
    return found


def attribute(holder: Any, path: str) -> Any:
    """What stands at a dotted path: `attribute(model, "0.weight")`."""
    for name in path.split("."):
        holder = getattr(holder, name)
    return holder


def _kept(found: list[Tensor], tensor: Tensor) -> Wire:
    found.append(tensor)
    return Wire(len(found) - 1)


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
            raise CircuitError(f"{where}: a tensor belongs here, {_shown(value)} came")
        if found.setdefault(description.number, value) is not value:
            raise CircuitError(f"{where}: recorded with one tensor here and before, two came; record it again with two")
    elif isinstance(description, Scalar):
        found[description.expression] = value
    elif isinstance(description, Struct):
        keys, parts = _split(value, type(value)) or ((), None)
        if parts is None or len(parts) != len(description.parts) or set(keys) != set(description.keys):
            raise CircuitError(f"{where}: {_outline(description)} belongs here, {_shown(value)} came")
        given = dict(zip(keys or range(len(parts)), parts, strict=True))
        for key, inner in zip(description.keys or range(len(parts)), description.parts, strict=True):
            bind(inner, given[key], found, _part(where, key))
    elif description is not value:
        _same(description, value, where)


def _part(where: str, key: Any) -> str:
    if where.endswith(": "):
        return f"{where}{key}"
    return f"{where}.{key}" if isinstance(key, str) else f"{where}[{key!r}]"


def _same(expected: Any, value: Any, where: str) -> None:
    """A recorded constant must come again: the diagram was recorded with it."""
    try:
        same = bool(type(expected) is type(value) and expected == value)
    except (ValueError, RuntimeError, TypeError):
        same = False
    if not same:
        raise CircuitError(
            f"{where}: the diagram was recorded with {_shown(expected)}, {_shown(value)} came; record it again for that"
        )


def _outline(description: Struct) -> str:
    if description.keys:
        return f"{description.kind.__name__} with {', '.join([str(key) for key in description.keys])}"
    return f"{description.kind.__name__} of {len(description.parts)}"


def _shown(value: Any) -> str:
    """A value in a message: what is small as it is, of anything else what it is."""
    if isinstance(value, Tensor):
        return f"a tensor of {' '.join([str(size) for size in value.shape]) or 'no axes'}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with {', '.join([str(key) for key in value]) or 'nothing'}"
    return repr(value) if type(value) in _ATOMS else type(value).__name__
