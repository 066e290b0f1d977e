"""How axis names pass through an operation: one rule for each kind of operation, one file a family.

The outputs of an operation without a rule have axes without names, shown by their sizes; that is never an error. Start
with `registry` (what a rule receives, how one is registered), then `pointwise`.
"""

from typing import Any

from torch._ops import OpOverload

from circuits.naming.names import Names
from circuits.naming.rules import (
    attention,
    convolution,
    indexing,
    joining,
    linear,
    moving,
    normalisation,
    pointwise,
    pooling,
    reductions,
    shapes,
)
from circuits.naming.rules.registry import RULES, Note, Operation, torch_functions

FAMILIES = (
    attention,
    pointwise,
    indexing,
    joining,
    linear,
    moving,
    normalisation,
    reductions,
    shapes,
    convolution,
    pooling,
)
"""The files whose rules are registered."""


def _torch_function(function: Any) -> Any:
    """Return the public torch function of an ATen operation; None if there is none."""
    if not isinstance(function, OpOverload):
        return None
    name = function._schema.name.partition("::")[2]
    return next(torch_functions(name.removeprefix("_"), name), None)


def name_outputs(operation: Operation, names: Names) -> Note:
    """Set the axes of every output of an operation; return the note of its rule for the box's label."""
    found = RULES.get(operation.function) or RULES.get(_torch_function(operation.function))
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
