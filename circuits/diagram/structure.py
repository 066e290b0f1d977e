"""Descriptions: nested Python values as data, with numbered wires in place of tensors.

The arguments and results of a call may hold tensors anywhere: in tuples, dicts, dataclasses, slices. `describe` turns
such a value into a description, which has a `Wire` for each tensor and a `Scalar` for each symbolic number; it holds
no tensor itself. `fill` turns a description back into a value, `substitute` into another description; `bind` matches a
value with a description and collects the tensor at each wire.
"""

import enum
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import SymBool, SymFloat, SymInt, Tensor
from torch.nn import Parameter

from circuits.diagram.containers import Parts, is_rebuilt, rebuild, split, splitting_objects
from circuits.errors import CircuitError

Split = Callable[[Any, type], Parts | None]
"""Takes a container of a type apart, and returns None for any other value."""


class Wire(NamedTuple):
    """A tensor in a description, by the number of its value."""

    number: int


class Scalar(NamedTuple):
    """A number that depends on sizes: a symbolic number of torch while recording, a sympy expression afterwards."""

    expression: Any


class Struct(NamedTuple):
    """A container in a description: a tuple, list, dict, named tuple, dataclass, other mapping, slice, or an object.

    `kind` is its type, `keys` are those of a mapping or the names of fields or attributes (empty for a sequence or
    slice), and `parts` the descriptions of its parts.
    """

    kind: type
    keys: tuple[Any, ...]
    parts: tuple[Any, ...]


PLAIN_TYPES = frozenset(
    {int, float, bool, str, bytes, complex, type(None), torch.dtype, torch.device, torch.layout, type(...)}
)
"""Types whose values are their own description."""


def describe_all(values: Iterable[Any], wire: Callable[[Tensor], Wire], split: Split = split) -> tuple[Any, ...]:
    """Return the descriptions of several values; see `describe`.

    Tensors and plain values are described here without a further call, because this runs for every torch call.
    """
    return tuple(
        [
            wire(value)
            if (kind := type(value)) is Tensor or kind is Parameter
            else value
            if kind in PLAIN_TYPES
            else describe(value, wire, split)
            for value in values
        ]
    )


def describe(value: Any, wire: Callable[[Tensor], Wire], split: Split = split) -> Any:
    """Return the description of a value, with `wire(tensor)` for each tensor in it.

    A tuple or slice whose parts are all their own descriptions, and a value that `split` does not take apart, are their
    own descriptions; every other container, and every named tuple and dataclass, becomes a `Struct`.

    Args:
        value: The value.
        wire: Called with each tensor.
        split: Takes containers apart; `containers.splitting_objects` takes apart objects of any class too.
    """
    kind = type(value)
    if kind in PLAIN_TYPES:
        return value
    if kind is Tensor or isinstance(value, Tensor):
        return wire(value)
    if kind is SymInt or kind is SymFloat or kind is SymBool:
        return Scalar(value)
    found = split(value, kind)
    if found is None:
        return value
    keys, parts = found
    described = describe_all(parts, wire, split)
    if (kind is tuple or kind is slice) and all(new is old for new, old in zip(described, parts, strict=True)):
        return value
    return Struct(kind, keys, described)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Return `value` with every tensor in it replaced by `function(tensor)`."""
    found: list[Tensor] = []
    description = describe(value, lambda tensor: _append(found, tensor))
    return fill(description, lambda wire: function(found[wire.number]), lambda scalar: scalar.expression)


def tensors(value: Any) -> list[Tensor]:
    """Return every tensor in a value, in order."""
    return tensors_in((value,))


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Return every tensor in several values, in order."""
    found: list[Tensor] = []
    describe_all(values, lambda tensor: _append(found, tensor))
    return found


def attribute(holder: Any, path: str) -> Any:
    """Return the attribute at a dotted path: `attribute(model, "0.weight")`."""
    for name in path.split("."):
        holder = getattr(holder, name)
    return holder


def _append(found: list[Tensor], tensor: Tensor) -> Wire:
    """Append a tensor to `found` and return a wire with its index there."""
    found.append(tensor)
    return Wire(len(found) - 1)


def fill(description: Any, wire: Callable[[Wire], Any], scalar: Callable[[Scalar], Any]) -> Any:
    """Return the value that a description describes: `wire(each)` for each wire and `scalar(each)` for each scalar."""
    return _replace(description, wire, scalar, rebuild)


def substitute(description: Any, wire: Callable[[Wire], Any], scalar: Callable[[Scalar], Any]) -> Any:
    """Return a description with each wire replaced by `wire(each)` and each scalar by `scalar(each)`."""
    return _replace(description, wire, scalar, Struct)


def _replace(
    description: Any, wire: Callable[[Wire], Any], scalar: Callable[[Scalar], Any], container: Callable[..., Any]
) -> Any:
    """Replace the wires and scalars of a description; `container` makes a container of its type, keys and parts."""
    if isinstance(description, Wire):
        return wire(description)
    if isinstance(description, Scalar):
        return scalar(description)
    if isinstance(description, Struct):
        parts = tuple([_replace(part, wire, scalar, container) for part in description.parts])
        return container(description.kind, description.keys, parts)
    return description


def leaves(description: Any) -> Iterator[Wire | Scalar]:
    """Yield every wire and scalar of a description, in order."""
    if isinstance(description, (Wire, Scalar)):
        yield description
    elif isinstance(description, Struct):
        for part in description.parts:
            yield from leaves(part)


def wires(description: Any) -> tuple[int, ...]:
    """Return the value number of every wire of a description, in order; a wire that occurs twice is there twice."""
    return (description.number,) if type(description) is Wire else wires_in((description,))


def wires_in(descriptions: Iterable[Any]) -> tuple[int, ...]:
    """Return the value number of every wire of several descriptions, in order; without `leaves`, for speed."""
    found: list[int] = []
    for part in descriptions:
        kind = type(part)
        if kind is Wire:
            found.append(part.number)
        elif kind is Struct:
            found += wires_in(part.parts)
    return tuple(found)


def unopened(description: Any, where: str, known: Container[int] = ()) -> Iterator[tuple[str, Any]]:
    """Yield each part of a described value that may hold tensors where `describe` does not look, with its name.

    These are all values but containers, plain values, classes and enum members: such as an iterator, a numpy array, or
    an instance of a class that has more state than its attributes. Objects whose `id` is in `known` are left out.
    """
    if id(description) in known:
        return
    if isinstance(description, Struct) and not is_rebuilt(description.kind):
        yield where, description
    elif isinstance(description, Struct):
        for key, part in zip(description.keys or range(len(description.parts)), description.parts, strict=True):
            yield from unopened(part, _part_name(where, key), known)
    elif isinstance(description, (tuple, list, frozenset, set)) and not isinstance(description, (Wire, Scalar)):
        for part in description:
            yield from unopened(part, where, known)
    elif not isinstance(description, (Wire, Scalar, type, enum.Enum, slice, range, Mapping, *PLAIN_TYPES)):
        yield where, description


def kind_of(description: Any) -> type:
    """Return the type of a described value."""
    return description.kind if isinstance(description, Struct) else type(description)


def bind(description: Any, value: Any, found: dict[Any, Any], where: str = "the call") -> None:
    """Match a value with a description, and put its tensors and numbers into `found`.

    Args:
        description: The description of a value of the same form.
        value: The value to match with it.
        found: Receives the tensor at each wire, by value number, and the number at each scalar, by expression.
        where: The name of the value in messages; if it ends in ": ", it is only a prefix for the names of the parts.

    Raises:
        CircuitError: If a tensor or container is missing or of another form, if there are two different tensors for
            one wire, or if a constant differs from the recorded one.
    """
    if isinstance(description, Wire):
        if not isinstance(value, Tensor):
            raise CircuitError(f"{where}: expected a tensor, got {_value_text(value)}")
        if found.setdefault(description.number, value) is not value:
            raise CircuitError(
                f"{where}: expected the same tensor as for an earlier argument, as in the recorded run, got another "
                "tensor; record it again with two tensors"
            )
    elif isinstance(description, Scalar):
        found[description.expression] = value
    elif isinstance(description, Struct):
        keys, parts = split(value, type(value)) or ((), None)
        if parts is None and type(value) is description.kind:
            keys, parts = splitting_objects()(value, type(value)) or ((), None)
        if parts is None or len(parts) != len(description.parts) or set(keys) != set(description.keys):
            raise CircuitError(f"{where}: expected {_struct_text(description)}, got {_value_text(value)}")
        given = dict(zip(keys or range(len(parts)), parts, strict=True))
        for key, inner in zip(description.keys or range(len(parts)), description.parts, strict=True):
            bind(inner, given[key], found, _part_name(where, key))
    elif description is not value:
        _check_constant(description, value, where)


def _part_name(where: str, key: Any) -> str:
    """Return the name of a part of the value named `where`: `state.h`, `state[0]`."""
    if where.endswith(": "):
        return f"{where}{key}"
    return f"{where}.{key}" if isinstance(key, str) else f"{where}[{key!r}]"


def _check_constant(expected: Any, value: Any, where: str) -> None:
    """Raise CircuitError if a value differs in type or content from the constant that the diagram was recorded with."""
    try:
        same = bool(type(expected) is type(value) and expected == value)
    except (ValueError, RuntimeError, TypeError):
        same = False
    if not same:
        raise CircuitError(
            f"{where}: the diagram was recorded with {_value_text(expected)}, got {_value_text(value)}; "
            "record it again with the new value"
        )


def _struct_text(description: Struct) -> str:
    """Return the type of a container with its keys or its length, for messages."""
    if description.keys:
        return f"{description.kind.__name__} with {', '.join([str(key) for key in description.keys])}"
    return f"{description.kind.__name__} of length {len(description.parts)}"


def _value_text(value: Any) -> str:
    """Return a value as text for messages: a plain value itself, else its type with its sizes, keys or length."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of length {len(value)}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with {', '.join([str(key) for key in value]) or 'nothing'}"
    return repr(value) if type(value) in PLAIN_TYPES else type(value).__name__
