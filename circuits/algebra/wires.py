"""Wires of linear maps: numbered axes and their names, and the parsing of the text of a map.

A wire is an axis, drawn as a line. It is identified by its number; its input and its output may have different names.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4.
"""

from collections.abc import Mapping
from typing import NamedTuple

from circuits.errors import SignatureError, point
from circuits.signature import Axes, Axis, Signature

Wires = tuple[int, ...]


class Wire(NamedTuple):
    """The size of a wire, and its name if it is neither an input nor an output."""

    size: int
    name: str


def unused_name(name: str, names: Mapping[int, str]) -> str:
    """Return `name` with the fewest primes that make it different from all of these names."""
    while name in names.values():
        name = f"{name}'"
    return name


def parse_sides(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the input axes and those of the output axes in the text of a map, `"a -> b c"`.

    Raises:
        SignatureError: If the text is not a signature, has several tensors on a side, or an axis that is not a name.
    """
    signature = Signature.parse(text)
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise SignatureError(f"LinearMap: a linear map has one tensor in and one out\n{point(text)}")
    return _names(signature.inputs[0], text), _names(signature.outputs[0], text)


def _names(axes: Axes, text: str) -> tuple[str, ...]:
    """Return the names of axes; raise SignatureError, showing `text`, if one is not a name."""
    odd = next((term for term in axes if not isinstance(term, Axis)), None)
    if odd is not None:
        raise SignatureError(f"LinearMap: the axes of a linear map are names, not '{odd}'\n{point(text)}")
    return tuple([str(term) for term in axes])
