"""Which boxes are pure, without side effects and with the same result each time, and which write to tensors."""

from typing import Any

import torch
from torch._ops import OpOverload

from circuits.autodiff.rules.registry import RULES
from circuits.diagram import Box, Struct, mutates, operation_name, wires

CONSTANT_TENSORS = frozenset(["zeros", "ones", "full", "empty", "arange", "scalar_tensor", "new_zeros", "new_ones"])
"""Operations that make a constant tensor."""

_IMPURE = frozenset(
    [
        "native_dropout",
        "bernoulli",
        "rand_like",
        "randn_like",
        "batch_norm",
        "native_batch_norm",
        "instance_norm",
        "copy",
        "fill",
        "zero",
    ]
)
"""Operations with a rule that draw random numbers, keep statistics or write."""

_IN_PLACE_BY_FLAG = frozenset(
    [
        "relu",
        "relu6",
        "elu",
        "selu",
        "celu",
        "leaky_relu",
        "silu",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "threshold",
        "mish",
        "rrelu",
        "dropout",
        "alpha_dropout",
        "feature_dropout",
    ]
)
"""Functions that write in place if the flag `inplace` among their positional arguments is True."""

_PURE_WITHOUT_RULE = frozenset(
    [
        "index",
        "or",
        "and",
        "invert",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "mT",
        "T",
        "truediv",
        "pow",
        "logical_not",
        "argmax",
    ]
)
"""Pure operations without a rule of their own, or recorded under another name than ATen's."""


def written_values(box: Box) -> tuple[int, ...]:
    """Return the numbers of the values that a box writes to: in place, by an `inplace` flag, or by `out=`."""
    call = box.call
    if call is None or box.mutates:
        return box.mutates
    named = keywords(call.kwargs)
    flagged = operation_name(call.function) in _IN_PLACE_BY_FLAG and any(part is True for part in call.args.parts)
    first = wires(call.args)[:1] if flagged or named.get("inplace") is True else ()
    return (*first, *wires(named.get("out")))


def is_pure(box: Box) -> bool:
    """Return whether a box with a call has no effect besides its result, and returns the same each time."""
    call: Any = box.call
    if written_values(box) or isinstance(call.function, str) or box.boxes or not box.outputs:
        return False
    function, name = call.function, operation_name(call.function)
    if name in _IMPURE or mutates(function):
        return False
    if isinstance(function, OpOverload):
        return not function._schema.is_mutable and torch.Tag.nondeterministic_seeded not in function.tags
    return function in RULES or name in RULES or name in CONSTANT_TENSORS or name in _PURE_WITHOUT_RULE


def keywords(kwargs: Any) -> dict[str, Any]:
    """Return the described keyword arguments of a call as a dict."""
    return dict(zip(kwargs.keys, kwargs.parts, strict=True) if isinstance(kwargs, Struct) else kwargs)
