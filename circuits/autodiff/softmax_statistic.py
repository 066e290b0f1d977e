"""A softmax computed from its scores and one saved number per row: exp(score - logsumexp(score)).

Source: T. Dao et al., FlashAttention, NeurIPS 2022, appendix B.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from circuits.autodiff.rewrites.row_sums import operation_box
from circuits.diagram import Box, Value, Wire, operation_name

_HALF_PRECISION = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class FromStatistic:
    """`forward` are the boxes that compute the logsumexp of each row, `recomputed` those of the softmax from it."""

    forward: list[Box]
    recomputed: list[Box]


def is_softmax(box: Box) -> bool:
    """Return whether a box is a softmax over one axis whose output has the dtype of its input."""
    call: Any = box.call
    if call is None or operation_name(call.function) not in ("softmax", "_softmax") or call.autocast is not None:
        return False
    return len(box.inputs) == 1 and box.inputs[0].dtype == box.outputs[0].dtype and _dim(box) is not None


def from_statistic(box: Box, score: Value, new_number: Callable[[], int]) -> FromStatistic:
    """Return the boxes that replace a second run of a softmax.

    In half precision the logsumexp is computed and saved in float32.

    Args:
        box: The box of the softmax.
        score: The input of the softmax.
        new_number: Returns a value number that is not used yet.
    """
    call: Any = box.call
    weight, dim = box.outputs[0], _dim(box)
    place = (dim or 0) % len(score.sizes)
    axes, sizes = [(*each[:place], one, *each[place + 1 :]) for each, one in ((score.axes, None), (score.sizes, 1))]
    single = replace(score, number=new_number(), dtype=torch.float32, role="made", name="")
    is_half = score.dtype in _HALF_PRECISION
    exact = single if is_half else score
    args: tuple[Any, ...] = (Wire(score.number), torch.float32)
    to_single = [operation_box("to", torch.Tensor.to, args, [score], single, call)] * is_half
    statistic = replace(exact, number=new_number(), axes=axes, sizes=sizes, role="made", name="")
    label = f"logsumexp over {score.axes[place] or '...'}"
    logsumexp = operation_box(label, torch.logsumexp, (Wire(exact.number), dim, True), [exact], statistic, call)
    less = replace(exact, number=new_number(), role="made", name="")
    last = replace(less, number=new_number()) if is_half else weight
    args = (Wire(last.number), weight.dtype)
    to_half = [operation_box("to", torch.Tensor.to, args, [last], weight, call)] * is_half
    args = (Wire(exact.number), Wire(statistic.number))
    recomputed = [
        *to_single,
        operation_box("sub", torch.sub, args, [exact, statistic], less, call),
        operation_box("exp", torch.exp, (Wire(less.number),), [less], last, call),
        *to_half,
    ]
    return FromStatistic([*to_single, logsumexp], recomputed)


def _dim(box: Box) -> int | None:
    """Return the position of the axis that a softmax is over; None if that is no int, or there are no axes."""
    call: Any = box.call
    named = dict(zip(call.kwargs.keys, call.kwargs.parts, strict=True))
    dim = call.args.parts[1] if len(call.args.parts) > 1 else named.get("dim")
    return dim if type(dim) is int and box.inputs[0].sizes else None
