"""The words of a listing: a tensor's type with its axes, what an operation was given, a name for every value.

Source: the texts of JAX's jaxprs, whose style this follows; torch's FX prints the same with other words.
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
"""Where the list of what goes in is broken into lines."""

_WORDS = {"float": "f", "int": "i", "uint": "u", "complex": "c", "bfloat": "bf"}


def dtype_word(dtype: torch.dtype) -> str:
    """A dtype in few letters.

    >>> [dtype_word(each) for each in (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)]
    ['f32', 'bf16', 'i64', 'u8', 'bool']
    """
    name = str(dtype).removeprefix("torch.")
    kind = name.rstrip(string.digits)
    return f"{_WORDS[kind]}{name.removeprefix(kind)}" if kind in _WORDS else name.replace("float", "f", 1)


def type_text(
    dtype: torch.dtype, axes: Sequence[str | None], sizes: Sequence[Size], mapped: int, told: dict[str, str]
) -> str:
    """`f32[y=20 k]`: an axis by name, with its size where that was not `told` yet; by its size where it has no name.

    >>> told = {}
    >>> type_text(torch.float32, ("y", "k"), (20, 16), 0, told), type_text(torch.float32, ("k", None), (16, 3), 0, told)
    ('f32[y=20 k=16]', 'f32[k 3]')
    """
    words = []
    for place, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        word = text = size_text(size)
        if axis is not None and axis != text:
            word = axis if told.get(axis) == text else f"{axis}={text}"
            told[axis] = text
        words.append(word + "*" * (place < mapped))
    return f"{dtype_word(dtype)}[{' '.join(words)}]"


def argument_text(argument: Any, names: Mapping[int, str], symbols: Mapping[Any, Any]) -> str:
    """An argument of an operation: a value by name, a number that depends on sizes in their names, the rest as it is.

    >>> argument_text(Struct(list, (), (Wire(0), slice(1, None), ..., torch.float64)), {0: "a"}, {})
    '[a, 1:, ..., f64]'
    """
    if isinstance(argument, Wire):
        return names[argument.number]
    if isinstance(argument, Scalar):
        found = argument.expression
        return _number(found.xreplace(symbols)) if isinstance(found, sympy.Basic) else f"{found}"
    if isinstance(argument, Struct):
        if argument.kind is slice:
            return _slice(argument.parts, names, symbols)
        if issubclass(argument.kind, Mapping):
            return _keyed(zip(argument.keys, argument.parts, strict=True), names, symbols)
        return _row(argument.parts, issubclass(argument.kind, list), names, symbols)
    if isinstance(argument, slice):
        return _slice((argument.start, argument.stop, argument.step), names, symbols)
    if isinstance(argument, Mapping):
        return _keyed(argument.items(), names, symbols)
    if isinstance(argument, (tuple, list)):
        return _row(argument, isinstance(argument, list), names, symbols)
    return _plain(argument)


def given_text(args: Iterable[Any], kwargs: Mapping[str, Any], names: Mapping[int, str], symbols: Any) -> str:
    """All that an operation was given, in the order in which the code gave it."""
    words = [argument_text(each, names, symbols) for each in args]
    words += [f"{key}={argument_text(each, names, symbols)}" for key, each in kwargs.items()]
    return "".join([f" {word}" for word in words])


def _number(expression: Any) -> str:
    """A number that depends on sizes: `k**(-0.5)` where torch has a float's power of a float."""
    return size_text(expression.replace(ToFloat, lambda size: size).replace(FloatPow, sympy.Pow))


def _slice(parts: Sequence[Any], names: Mapping[int, str], symbols: Any) -> str:
    words = ["" if part is None else argument_text(part, names, symbols) for part in parts]
    return ":".join(words if words[2] else words[:2])


def _keyed(items: Iterable[tuple[Any, Any]], names: Mapping[int, str], symbols: Any) -> str:
    return "{" + ", ".join([f"{key}: {argument_text(part, names, symbols)}" for key, part in items]) + "}"


def _row(parts: Sequence[Any], listed: bool, names: Mapping[int, str], symbols: Any) -> str:
    words = ", ".join([argument_text(part, names, symbols) for part in parts])
    if listed:
        return f"[{words}]"
    return f"({words},)" if len(parts) == 1 else f"({words})"


def _plain(argument: Any) -> str:
    """A value that holds no tensor, never with an address in memory."""
    if isinstance(argument, torch.dtype):
        return dtype_word(argument)
    if argument is ...:
        return "..."
    if isinstance(argument, (bool, int, float, complex, str, bytes, type(None))):
        return repr(argument)
    if isinstance(argument, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return _number(argument.node.expr)
    if isinstance(argument, (torch.device, torch.layout, torch.memory_format)):
        return str(argument).removeprefix("torch.")
    if isinstance(argument, enum.Enum):
        return argument.name
    return getattr(argument, "__name__", type(argument).__name__)


def letters(taken: Iterable[str]) -> Iterator[str]:
    """`a`, `b`, … `z`, `aa`, …: but for names that are taken, and for the word `in`.

    >>> names = letters({"b"})
    >>> next(names), next(names)
    ('a', 'c')
    """
    skipped = {*taken, "in"}
    every = ("".join(word) for length in count(1) for word in product(string.ascii_lowercase, repeat=length))
    return (word for word in every if word not in skipped)


def another(name: str, taken: Iterable[str]) -> str:
    """A name with as many primes as it takes to be a new one.

    >>> another("x", ["x", "y"])
    "x'"
    """
    taken = set(taken)
    while name in taken:
        name = f"{name}'"
    return name


def opening(indent: str, fixed: Sequence[str], given: Sequence[str]) -> list[str]:
    """`{ weight:f32[3 4] ; x:f32[4] .`: what is there before and what goes in, in as many lines as it takes.

    >>> opening("", [], ["x:f64[]"])
    ['{ x:f64[] .']
    """
    words = [*fixed, *([";"] if fixed else []), *given, "."]
    lines = [f"{indent}{{"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH and len(word) > 1:
            lines.append(f"{indent} ")
        lines[-1] += f" {word}"
    return lines


__all__ = ["another", "argument_text", "dtype_word", "given_text", "letters", "opening", "type_text"]
