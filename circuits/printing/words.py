"""The parts of a line of a listing as text: the type of a tensor with its axes, arguments, names of values.

Source: JAX's jaxprs, whose style this follows; torch.fx prints the same information in another style.
"""

import enum
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, product
from typing import Any

import sympy
import torch
from torch.utils._sympy.functions import FloatPow, ToFloat

from circuits.diagram import Scalar, Size, Struct, Wire, size_text

WIDTH = 110
"""The width at which the list of parameters and inputs is broken into lines."""

_DTYPES = {"float": "f", "int": "i", "uint": "u", "complex": "c", "bfloat": "bf"}


def dtype_text(dtype: torch.dtype) -> str:
    """Return the short name of a dtype.

    >>> [dtype_text(each) for each in (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)]
    ['f32', 'bf16', 'i64', 'u8', 'bool']
    """
    name = str(dtype).removeprefix("torch.")
    kind = name.rstrip(string.digits)
    return f"{_DTYPES[kind]}{name.removeprefix(kind)}" if kind in _DTYPES else name.replace("float", "f", 1)


def type_text(
    dtype: torch.dtype, axes: Sequence[str | None], sizes: Sequence[Size], mapped: int, shown: dict[str, str]
) -> str:
    """Return the type of a tensor as text: its dtype and axes, such as `f32[y=20 k]`.

    An axis is shown by its name, with its size unless `shown` has it already, or by its size if it has no name.
    The sizes of the axes that are shown are added to `shown`; the first `mapped` axes are marked with a star.

    >>> shown = {}
    >>> type_text(torch.float32, ("y", "k"), (20, 16), 0, shown)
    'f32[y=20 k=16]'
    >>> type_text(torch.float32, ("k", None), (16, 3), 0, shown)
    'f32[k 3]'
    """
    words = []
    for place, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        word = text = size_text(size)
        if axis is not None and axis != text:
            word = axis if shown.get(axis) == text else f"{axis}={text}"
            shown[axis] = text
        words.append(word + "*" * (place < mapped))
    return f"{dtype_text(dtype)}[{' '.join(words)}]"


def argument_text(argument: Any, names: Mapping[int, str], symbols: Mapping[Any, Any]) -> str:
    """Return an argument of an operation as text.

    Args:
        argument: The description of the argument.
        names: The name of each value, by number.
        symbols: The expression in axis names that replaces each symbol of a number that depends on sizes.

    >>> argument_text(Struct(list, (), (Wire(0), slice(1, None), ..., torch.float64)), {0: "a"}, {})
    '[a, 1:, ..., f64]'
    """
    if isinstance(argument, Wire):
        return names[argument.number]
    if isinstance(argument, Scalar):
        expression = argument.expression
        return _number_text(expression.xreplace(symbols)) if isinstance(expression, sympy.Basic) else f"{expression}"
    if isinstance(argument, Struct):
        if argument.kind is slice:
            return _slice_text(argument.parts, names, symbols)
        if issubclass(argument.kind, Mapping):
            return _mapping_text(zip(argument.keys, argument.parts, strict=True), names, symbols)
        return _sequence_text(argument.parts, issubclass(argument.kind, list), names, symbols)
    if isinstance(argument, slice):
        return _slice_text((argument.start, argument.stop, argument.step), names, symbols)
    if isinstance(argument, Mapping):
        return _mapping_text(argument.items(), names, symbols)
    if isinstance(argument, (tuple, list)):
        return _sequence_text(argument, isinstance(argument, list), names, symbols)
    return _plain_text(argument)


def arguments_text(args: Iterable[Any], kwargs: Mapping[str, Any], names: Mapping[int, str], symbols: Any) -> str:
    """Return all arguments of an operation as text, each preceded by a space: positional ones, then `key=value`."""
    words = [argument_text(each, names, symbols) for each in args]
    words += [f"{key}={argument_text(each, names, symbols)}" for key, each in kwargs.items()]
    return "".join([f" {word}" for word in words])


def _number_text(expression: Any) -> str:
    """Return a number that depends on sizes as text: `k**(-0.5)` where torch has `FloatPow` of `ToFloat`."""
    return size_text(expression.replace(ToFloat, lambda size: size).replace(FloatPow, sympy.Pow))


def _slice_text(parts: Sequence[Any], names: Mapping[int, str], symbols: Any) -> str:
    words = ["" if part is None else argument_text(part, names, symbols) for part in parts]
    return ":".join(words if words[2] else words[:2])


def _mapping_text(items: Iterable[tuple[Any, Any]], names: Mapping[int, str], symbols: Any) -> str:
    return "{" + ", ".join([f"{key}: {argument_text(part, names, symbols)}" for key, part in items]) + "}"


def _sequence_text(parts: Sequence[Any], is_list: bool, names: Mapping[int, str], symbols: Any) -> str:
    words = ", ".join([argument_text(part, names, symbols) for part in parts])
    if is_list:
        return f"[{words}]"
    return f"({words},)" if len(parts) == 1 else f"({words})"


def _plain_text(argument: Any) -> str:
    """Return a value without tensors as text; an object without a known text is shown by its name or its type."""
    if isinstance(argument, torch.dtype):
        return dtype_text(argument)
    if argument is ...:
        return "..."
    if isinstance(argument, (bool, int, float, complex, str, bytes, type(None))):
        return repr(argument)
    if isinstance(argument, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return _number_text(argument.node.expr)
    if isinstance(argument, (torch.device, torch.layout, torch.memory_format)):
        return str(argument).removeprefix("torch.")
    if isinstance(argument, enum.Enum):
        return argument.name
    return getattr(argument, "__name__", type(argument).__name__)


def letters(taken: Iterable[str]) -> Iterator[str]:
    """Yield the names `a`, `b`, … `z`, `aa`, … without end, except those in `taken` and the word `in`.

    >>> names = letters({"b"})
    >>> next(names), next(names)
    ('a', 'c')
    """
    skipped = {*taken, "in"}
    every = ("".join(word) for length in count(1) for word in product(string.ascii_lowercase, repeat=length))
    return (word for word in every if word not in skipped)


def unique_name(name: str, taken: Iterable[str]) -> str:
    """Return a name that is not in `taken`: this one with as many primes as it needs.

    >>> unique_name("x", ["x", "y"])
    "x'"
    """
    taken = set(taken)
    while name in taken:
        name = f"{name}'"
    return name


def header_lines(indent: str, fixed: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """Return the header of a circuit or box, `{ weight:f32[3 4] ; x:f32[4] .`, broken into lines where it is too long.

    Args:
        indent: The text before the first brace.
        fixed: The parameters and other values that exist before the run, with their types.
        inputs: The inputs, with their types.

    >>> header_lines("", [], ["x:f64[]"])
    ['{ x:f64[] .']
    """
    words = [*fixed, *([";"] if fixed else []), *inputs, "."]
    lines = [f"{indent}{{"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH and len(word) > 1:
            lines.append(f"{indent} ")
        lines[-1] += f" {word}"
    return lines


__all__ = ["argument_text", "arguments_text", "dtype_text", "header_lines", "letters", "type_text", "unique_name"]
