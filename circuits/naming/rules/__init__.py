"""Naming rules: the axes of the outputs of an operation, from the axes of its inputs; one file per family.

The outputs of an operation without a rule have axes without names, shown by their sizes; that is never an error. Start
with `registry` (the arguments of a rule, and its registration), then `pointwise`.
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
from circuits.naming.rules.registry import RULES, Note, Operation, canonical_dims, torch_functions

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
"""The modules whose rules are registered."""


def _torch_function(function: Any) -> Any:
    """Return the torch function with the name of an ATen operation; None if there is none."""
    if not isinstance(function, OpOverload):
        return None
    name = function._schema.name.partition("::")[2]
    return next(torch_functions(name.removeprefix("_"), name), None)


def _rule_of(function: Any) -> Any:
    return RULES.get(function) or RULES.get(_torch_function(function))


def naming_rule(function: Any) -> str:
    """Return the name of the rule for an operation, by which other views know its kind; empty if it has none.

    >>> import torch
    >>> naming_rule(torch.add), naming_rule(torch.bmm), naming_rule(torch.Tensor.softmax), naming_rule(torch.fft.fft)
    ('broadcasting', 'matmul', 'softmax', '')
    """
    found = _rule_of(function)
    return found.__name__ if found is not None else ""


def may_have_note(function: Any) -> bool:
    """Return whether the label of an operation may have a note: its rule says so by the type that it returns."""
    found = _rule_of(function)
    return found is not None and found.__annotations__["return"] is not None


def name_outputs(operation: Operation, names: Names) -> Note:
    """Set the axes of every output of an operation; return a note for the label of its box.

    The outputs of an operation without a rule, or whose rule raises, have axes without names; the note is then None.
    """
    found = _rule_of(operation.function)
    note: Note = None
    if found is not None:
        try:
            note = found(operation, names)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
            note = None  # arguments that the rule does not handle; the recording continues with unnamed axes
    for number in operation.outputs:
        if number not in names.scope.axes:
            names.put(number, names.fresh(names.shapes[number]))
    return note


__all__ = [
    "FAMILIES",
    "Note",
    "Operation",
    "canonical_dims",
    "may_have_note",
    "name_outputs",
    "naming_rule",
    "torch_functions",
]
