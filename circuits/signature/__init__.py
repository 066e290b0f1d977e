"""Signatures as data: `"y m, x m -> y m"` is parsed once into frozen terms, axes and tensors, and printed back.

May use `errors`. Nothing here knows torch; sizes are plain numbers. Start with `terms` (one axis, its arithmetic), then
`signature` (the parser).
"""

from circuits.signature.signature import Signature, parse_axes, places
from circuits.signature.terms import Axes, Axis, Derived, Group, Number, Rest, Term, show_axes, solve, unknown

__all__ = [
    "Axes",
    "Axis",
    "Derived",
    "Group",
    "Number",
    "Rest",
    "Signature",
    "Term",
    "parse_axes",
    "places",
    "show_axes",
    "solve",
    "unknown",
]
