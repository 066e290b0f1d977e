"""Name the axes of every recorded value, from the names stated in signatures and einops patterns.

May use `diagram` and `signature`. Start with `axes` (axes as nodes of a union-find: two that turn out to be the same
are merged) and `derivation` (axes derived from other axes), then `names` (the axes of all values of one recording),
`matching` (matches the terms of a signature with axes), `patterns` (einops patterns), and `rules` (one naming rule per
operation).
"""

from circuits.naming.axes import AxisNode, Scope, StatedName
from circuits.naming.matching import Matcher
from circuits.naming.names import Names
from circuits.naming.patterns import name_by_pattern, read_axes
from circuits.naming.rules import (
    Note,
    Operation,
    canonical_dims,
    may_have_note,
    name_outputs,
    naming_rule,
    torch_functions,
)

__all__ = [
    "AxisNode",
    "Matcher",
    "Names",
    "Note",
    "Operation",
    "Scope",
    "StatedName",
    "canonical_dims",
    "may_have_note",
    "name_by_pattern",
    "name_outputs",
    "naming_rule",
    "read_axes",
    "torch_functions",
]
