"""Stop a run at the first operation that makes a NaN or an infinity: `track(model, finite=True)`."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils import _pytree

from circuits.diagram import Box, Value, attribute
from circuits.errors import CircuitError
from circuits.recording.builder import Builder
from circuits.recording.events import Call, Event, Leave
from circuits.recording.listener import Listener
from circuits.recording.user_frames import user_line

Finite = bool | Literal["nan"]
"""Whether results have to be finite; "nan": infinite numbers are allowed, as masks of attention have them."""


def checked(
    listener: Listener, finite: Finite, binder: inspect.Signature | None, after: Callable[[Event, Any], None] | None
) -> Callable[[Event, Any], None]:
    """Return what is called with each event of a run: it checks the result of each operation.

    Args:
        listener: The listener of the run.
        finite: What is checked.
        binder: The Python signature of the recorded call.
        after: Called before the check, with the event and the result; None: nothing is.
    """
    is_wrong = torch.isnan if finite == "nan" else _not_finite

    def check(event: Event, result: Any) -> None:
        if after is not None:
            after(event, result)
        is_transform = isinstance(event, Leave) and not event.failed and listener.stack[-1].kind == "transform"
        if is_transform or (isinstance(event, Call) and not event.error):
            for tensor in _pytree.tree_leaves(result):
                if _is_checked(tensor):
                    _check(listener, tensor, is_wrong, binder)

    return check


def _check(
    listener: Listener, tensor: Tensor, is_wrong: Callable[[Tensor], Tensor], binder: inspect.Signature | None
) -> None:
    """Raise CircuitError if a result of the last operation has a number that is wrong."""
    with torch._C.DisableTorchFunction(), torch.no_grad():
        wrong = is_wrong(tensor)
        if not bool(wrong.any()):
            return
        index, count = wrong.nonzero()[0].tolist(), int(wrong.sum())
        number = tensor[tuple(index)].item()
        builder = Builder(listener.record, binder=binder).feed_all()
        box = builder.freeze(builder.open[-1].boxes[-1])
        causes = [value.name for value in box.parameters if _has_wrong(listener, value, is_wrong)]
    around = [each.path or each.label for each in listener.stack]
    around = around[:-1] if box.kind == "transform" else around
    value = next((each for each in box.outputs if len(each.sizes) == len(index)), None)
    where = box.where or user_line()
    lines = [
        f"{box.label} in {around[-1]} makes {number} at {_place(value, index)}, "
        f"and {count:,} of {tensor.numel():,} numbers are not finite",
        f"  {' > '.join([*around, box.label])}",
        f"  {_ports(box)}",
        *[f"  it reads {name}, which is not finite itself" for name in causes],
        *([f"  at {where}"] if where else []),
    ]
    raise CircuitError("\n".join(lines))


def _has_wrong(listener: Listener, value: Value, is_wrong: Callable[[Tensor], Tensor]) -> bool:
    """Return whether a parameter that an operation reads has a number that is wrong."""
    place = listener.record.state.get(value.number)
    tensor = None if place is None else attribute(*place)
    return tensor is not None and _is_checked(tensor) and bool(is_wrong(tensor).any())


def _not_finite(tensor: Tensor) -> Tensor:
    return ~torch.isfinite(tensor)


def _is_checked(tensor: Any) -> bool:
    """Return whether a result has numbers that can be read: no fake tensor, and none that torch.func wraps."""
    plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_meta
    is_number = plain and (tensor.is_floating_point() or tensor.is_complex()) and not tensor.is_quantized
    return is_number and not functorch.is_functorch_wrapped_tensor(tensor) and tensor.numel() > 0


def _place(value: Value | None, index: list[int]) -> str:
    """Return an index, and the numbers of axes with names: `index (0, 3, 5), b=0 h=3`."""
    if not index:
        return "its only number"
    names = value.axes if value is not None else (None,) * len(index)
    named = [f"{name}={number}" for name, number in zip(names, index, strict=True) if name]
    return f"index ({', '.join([f'{number}' for number in index])}){', ' if named else ''}{' '.join(named)}"


def _ports(box: Box) -> str:
    """Return the axes of the inputs and outputs of a box as text."""
    inputs, outputs = [", ".join([f"{each}" or "()" for each in values]) for values in (box.inputs, box.outputs)]
    return f"{inputs} -> {outputs}".strip()


__all__ = ["Finite", "checked"]
