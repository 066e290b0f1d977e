"""Boxes whose output equals their input: views to the same shape, copies, casts, products with 1, double transposes."""

from dataclasses import replace
from typing import Any

import torch

from circuits.autodiff.rewrites.contractions import permutation_of
from circuits.autodiff.rewrites.purity import keywords
from circuits.diagram import Box, Call, Value, operation_name

_VIEWS = frozenset({"alias", "reshape", "view", "flatten", "expand", "broadcast_to"})
"""Operations that return their input if shape and dtype stay the same."""

_COPIES = frozenset({"clone", "contiguous"})
"""Operations that return the same elements, perhaps with other strides."""


def returns_input(box: Box, source: Value, strides_matter: bool) -> bool:
    """Return whether the output of a box has the elements, shape and dtype of its first input.

    Args:
        box: A box with a call and one output.
        source: The first input.
        strides_matter: Whether a box of the diagram depends on strides, which a copy may change.
    """
    call: Any = box.call
    name, rest, output = operation_name(call.function), call.args.parts[1:], box.outputs[0]
    is_same = name in _VIEWS or (name in _COPIES and not strides_matter) or _is_cast(call)
    is_times_one = name in ("mul", "div") and rest in ((1,), (1.0,)) and not keywords(call.kwargs)
    return (source.sizes, source.dtype) == (output.sizes, output.dtype) and (is_same or is_times_one)


def undoes(call: Call, before: Call, rank: int) -> bool:
    """Return whether a transpose undoes the one before it."""
    first, second = permutation_of(before, rank), permutation_of(call, rank)
    return first is not None and second is not None and [first[place] for place in second] == list(range(rank))


def depends_on_strides(box: Box) -> bool:
    """Return whether the result of a box depends on the strides of its inputs, or may, as in a user's own code."""
    function: Any = box.call.function if box.call is not None else None
    name = operation_name(function) if function is not None else ""
    dtype = name == "view" and any(isinstance(part, torch.dtype) for part in box.call.args.parts)  # type: ignore[union-attr]
    owner = getattr(function, "__self__", None)
    own = isinstance(function, str) or (isinstance(owner, type) and issubclass(owner, torch.autograd.Function))
    return own or dtype or name in ("as_strided", "view_as_complex") or getattr(function, "opaque", False)


def view_as_reshape(box: Box) -> Box:
    """Return a `view` as a `reshape`, which works for any strides, and is a view wherever one is possible."""
    call: Any = box.call
    if operation_name(call.function) != "view" or depends_on_strides(box):
        return box
    return replace(box, call=replace(call, function=torch.Tensor.reshape))


def _is_cast(call: Call) -> bool:
    """Return whether a call of `to` has no argument but a dtype and flags: no device, for instance."""
    arguments = (*call.args.parts[1:], *keywords(call.kwargs).values())
    return operation_name(call.function) == "to" and all(isinstance(each, (torch.dtype, bool)) for each in arguments)
