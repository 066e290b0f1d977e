"""Signatures as data: `"y m, x m -> y m"` is parsed once into frozen data, and printed back.

May use `errors`; no module here imports torch. Start with `signature` (`Signature` and the syntax of its text), then
`terms` (one axis, its arithmetic and its size). `parser` makes terms of text; `solver` computes the size of a
term's unknown name, if it has just one; `hints` guesses what a mistaken text meant.
"""

from circuits.signature.hints import separated
from circuits.signature.parser import normalized
from circuits.signature.signature import Signature, parse_axes, places
from circuits.signature.solver import AnySizeError, solve
from circuits.signature.terms import (
    Axes,
    Axis,
    Derived,
    Group,
    Number,
    Rest,
    Term,
    divide,
    plain_size,
    show_axes,
    unknown,
)

__all__ = [
    "AnySizeError",
    "Axes",
    "Axis",
    "Derived",
    "Group",
    "Number",
    "Rest",
    "Signature",
    "Term",
    "divide",
    "normalized",
    "parse_axes",
    "places",
    "plain_size",
    "separated",
    "show_axes",
    "solve",
    "unknown",
]
