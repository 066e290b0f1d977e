"""How axis names pass through an operation: one rule a kind of operation, one file a family.

An operation without a rule gives its outputs axes without names: a box with sizes, never an error.
"""

from typing import Any

from torch._ops import OpOverload

from circuits.naming.names import Names
from circuits.naming.rules import (
    attention,
    indexing,
    joining,
    linear,
    moving,
    normalisation,
    pointwise,
    reductions,
    shapes,
    windows,
)
from circuits.naming.rules.registry import RULES, Note, Operation, torch_functions

FAMILIES = (attention, pointwise, indexing, joining, linear, moving, normalisation, reductions, shapes, windows)
"""The files whose rules are registered."""


def _public(function: Any) -> Any:
    """The torch function that an ATen operation is called by; None if there is none."""
    if not isinstance(function, OpOverload):
        return None
    name = function._schema.name.partition("::")[2]
    return next(torch_functions(name.removeprefix("_"), name), None)


def name_outputs(operation: Operation, names: Names) -> Note:
    """Give every output of an operation its axes; the note its rule has for the label."""
    found = RULES.get(operation.function) or RULES.get(_public(operation.function))
    note: Note = None
    if found is not None:
        try:
            note = found(operation, names)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
            note = None  # arguments in a shape no rule foresaw: a box with sizes is right, a failed recording is not
    for number in operation.outputs:
        if number not in names.scope.axes:
            names.put(number, names.fresh(names.shapes[number]))
    return note


__all__ = ["FAMILIES", "Note", "Operation", "name_outputs"]
