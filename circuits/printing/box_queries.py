"""Properties of boxes that a listing shows: the name, the arguments, the values that are read and computed, the error.

A leaf is a box without boxes inside: an operation, or a module that is run as a whole.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from circuits.diagram import Box, Call, Struct, Value, Wire, operation_name, wires


def is_leaf(box: Box) -> bool:
    """Return whether a box is an operation, or has a call and no boxes inside."""
    return box.kind == "operation" or (box.call is not None and not box.boxes)


def is_one_operation(box: Box) -> bool:
    """Return whether a box is a module or function with one leaf inside it, which is shown in its place."""
    return box.kind in ("module", "function") and len(box.boxes) == 1 and is_leaf(box.boxes[0])


def has_failed(box: Box) -> bool:
    """Return whether the run failed in a box, so that it has no outputs."""
    return not box.outputs and any(inner.error for inner in box.walk())


def failure_text(box: Box) -> str:
    """Return the end of the line of a box: its error, or an empty string if it has none."""
    return f"  failed: {box.error}" if box.error else ""


def values_read(leaf: Box) -> tuple[int, ...]:
    """Return the numbers of the values that a leaf reads, in the order of its arguments."""
    if leaf.call is None:
        return tuple([value.number for value in leaf.inputs])
    return (*wires(leaf.call.args), *wires(leaf.call.kwargs))


def result_numbers(result: Any) -> Iterator[int]:
    """Yield the value numbers in the result of a call, in order, with -1 for each part that is no tensor."""
    if isinstance(result, Struct):
        for part in result.parts:
            yield from result_numbers(part)
    else:
        yield result.number if isinstance(result, Wire) else -1


def mapped_inputs(transform: Box) -> Iterator[Value]:
    """Return the mapped values that the code inside a transform uses but does not compute, in the order of use."""
    found: dict[int, Value] = {}
    leaves = [inner for inner in transform.walk() if is_leaf(inner)]
    made = {value.number for inner in transform.walk() if inner is not transform for value in inner.outputs}
    for value in [*[value for leaf in leaves for value in leaf.inputs], *transform.inside]:
        if value.number not in made and value.mapped:
            found.setdefault(value.number, value)
    return iter(found.values())


def call_arguments(call: Call) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the descriptions of the positional and of the keyword arguments of a call."""
    args, kwargs = call.args, call.kwargs
    if isinstance(kwargs, Struct):
        kwargs = dict(zip(kwargs.keys, kwargs.parts, strict=True))
    return (args.parts if isinstance(args, Struct) else args), kwargs


def operation_text(leaf: Box) -> str:
    """Return the name of an operation, with `_` at its end if it works in place.

    It is the name of the function, or the label of the box for a module, an `autograd.Function`, an opaque operation,
    and a box without a call.
    """
    function = leaf.call.function if leaf.call is not None else None
    owner = getattr(function, "__self__", None)
    is_autograd_function = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    if function is None or isinstance(function, str) or is_autograd_function or getattr(function, "opaque", False):
        name = leaf.label
    else:
        name = operation_name(function).replace(" ", "_")
    return f"{name}_" if leaf.mutates and not name.endswith("_") else name


def box_text(box: Box) -> str:
    """Return the name of a box with boxes inside: the dotted path of a module or its reverse, else the label."""
    if box.kind == "module" or box.path.startswith("∂"):
        return box.path or box.label
    return box.label.rpartition("<locals>.")[2].strip()


__all__ = [
    "box_text",
    "call_arguments",
    "failure_text",
    "has_failed",
    "is_leaf",
    "is_one_operation",
    "mapped_inputs",
    "operation_text",
    "result_numbers",
    "values_read",
]
