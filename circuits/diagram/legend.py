"""The legend of a table: each letter that names an axis, with its sizes and where it is first bound."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import sympy

from circuits.diagram.boxes import Box, Value
from circuits.diagram.formulas import size_text

_NONE: Mapping[Any, int] = MappingProxyType({})
_MOST_SIZES = 4
"""The largest number of sizes that a letter shows; the letter of an axis may name others in other circuits."""


def legend(box: Box, given: Mapping[Any, int] = _NONE) -> str:
    """Return the letters of a diagram by what binds them: `y=20, m=128 from target; x=22 from source`.

    An axis whose size is not given is free. A letter may have several sizes, because circuits name their own axes.

    Args:
        box: The outermost box.
        given: The sizes of free axes that are given since, by their symbols.
    """
    sizes: dict[str, list[str]] = {}
    places: dict[str, list[str]] = {}
    for where, value in _bound(box):
        for axis, size in zip(value.axes, value.sizes, strict=True):
            if axis is None or not axis.replace("'", "").isidentifier():
                continue
            if axis not in sizes:
                sizes[axis] = []
                places.setdefault(where, []).append(axis)
            if given and isinstance(size, sympy.Basic):
                size = size.xreplace(given)
            text = "free" if f"{size}" == axis else size_text(size)
            if text not in sizes[axis]:
                sizes[axis].append(text)
    return "; ".join([_letters({name: sizes[name] for name in names}) + where for where, names in places.items()])


def input_sizes(box: Box, given: Mapping[Any, int] = _NONE) -> str:
    """Return the sizes of the named axes of the inputs that are known: `y=1, m=128`.

    Args:
        box: The outermost box.
        given: The sizes of free axes that are given since, by their symbols.
    """
    found: dict[str, str] = {}
    for value in box.inputs:
        for axis, size in zip(value.axes, value.sizes, strict=True):
            known = size.xreplace(given) if given and isinstance(size, sympy.Basic) else size
            if axis is not None and axis.replace("'", "").isidentifier() and not getattr(known, "free_symbols", None):
                found.setdefault(axis, f"{known}")
    return ", ".join([f"{axis}={size}" for axis, size in found.items()])


def _letters(sizes: Mapping[str, list[str]]) -> str:
    """Return letters with their sizes: `k=16, m=8|64`; those with a size that is not given come last: `b, h free`."""
    free = [name for name, found in sizes.items() if found == ["free"]]
    sized = [_letter(name, found) for name, found in sizes.items() if name not in free]
    return ", ".join([*sized, *([f"{', '.join(free)} free"] if free else [])])


def _letter(name: str, sizes: list[str]) -> str:
    """Return a letter with its sizes: `k=16`, or `k=16|64`."""
    return f"{name}={'|'.join(sizes if len(sizes) <= _MOST_SIZES else [*sizes[: _MOST_SIZES - 1], '…'])}"


def _bound(box: Box) -> Iterator[tuple[str, Value]]:
    """Yield every value in the order of the run, with the text that says where its axes are bound."""
    for place, value in enumerate(box.inputs):
        yield f" from {value.name or f'input {place}'}", value
    for inner in box.walk():
        name = inner.name or inner.label.rpartition("<locals>.")[2].partition(" ")[0]
        for value in inner.inputs:
            yield (f" from {value.name}" if value.name else f" in {name}"), value
        for value in inner.outputs:
            yield f" in {name}", value


__all__ = ["input_sizes", "legend"]
