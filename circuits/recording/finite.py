"""Stop a run at the first operation that makes a NaN or an infinity: `track(model, finite=True)`."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils import _pytree

from circuits.diagram import Value, operation_name
from circuits.errors import CircuitError
from circuits.recording.builder import Builder
from circuits.recording.events import Call, Event
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
        if isinstance(event, Call) and not event.error:
            for tensor in _pytree.tree_leaves(result):
                if _is_checked(tensor):
                    with torch._C.DisableTorchFunction(), torch.no_grad():
                        wrong = is_wrong(tensor)
                        found = bool(wrong.any())
                    if found:
                        raise CircuitError(_message(listener, event, tensor, wrong, binder))

    return check


def _not_finite(tensor: Tensor) -> Tensor:
    return ~torch.isfinite(tensor)


def _is_checked(tensor: Any) -> bool:
    """Return whether a result has numbers that can be read: no fake tensor, and none that torch.func wraps."""
    plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_meta
    is_number = plain and (tensor.is_floating_point() or tensor.is_complex()) and not tensor.is_quantized
    return is_number and not functorch.is_functorch_wrapped_tensor(tensor) and tensor.numel() > 0


def _message(listener: Listener, event: Call, tensor: Tensor, wrong: Tensor, binder: inspect.Signature | None) -> str:
    """Return which box made a number that is not finite, where in its result, and what it read."""
    with torch._C.DisableTorchFunction(), torch.no_grad():
        index, count = wrong.nonzero()[0].tolist(), int(wrong.sum())
        number = tensor[tuple(index)].item()
    builder = Builder(listener.record, binder=binder).feed_all()
    box = builder.freeze(builder.open[-1].boxes[-1])
    value = next((each for each in box.outputs if len(each.sizes) == len(index)), None)
    name = operation_name(event.function)
    around = [each.path or each.label for each in listener.stack]
    where = event.where or user_line()
    return (
        f"{name} in {around[-1]} makes {number} at {_place(value, index)}, "
        f"and {count:,} of {tensor.numel():,} numbers are not finite\n"
        f"  {' > '.join([*around, box.label])}\n  {_ports(box)}" + (f"\n  at {where}" if where else "")
    )


def _place(value: Value | None, index: list[int]) -> str:
    """Return an index, and the numbers of axes with names: `index (0, 3, 5), b=0 h=3`."""
    if not index:
        return "its only number"
    names = value.axes if value is not None else (None,) * len(index)
    named = [f"{name}={number}" for name, number in zip(names, index, strict=True) if name]
    return f"index ({', '.join([f'{number}' for number in index])}){', ' if named else ''}{' '.join(named)}"


def _ports(box: Any) -> str:
    inputs, outputs = [", ".join([f"{each}" or "()" for each in values]) for values in (box.inputs, box.outputs)]
    return f"{inputs} -> {outputs}".strip()


__all__ = ["Finite", "checked"]
