"""Which name each axis of each value has, given the names that signatures and einops patterns state.

May use `diagram` and `signature`. Start with `axes` (axes by identity, a union-find), then `names` (the axes of all
values of one recording), `derivation` (how axes come from axes), and `rules` (one naming rule an operation).
"""

from circuits.naming.axes import AxisNode, Scope, StatedName
from circuits.naming.names import Matcher, Names, labels, name_by_pattern, read_axes
from circuits.naming.rules import Note, Operation, name_outputs

__all__ = [
    "AxisNode",
    "Matcher",
    "Names",
    "Note",
    "Operation",
    "Scope",
    "StatedName",
    "labels",
    "name_by_pattern",
    "name_outputs",
    "read_axes",
]
