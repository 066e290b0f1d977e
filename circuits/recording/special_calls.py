"""Torch calls that are not recorded as one call: of sizes, properties and modes, or of functions to trace into."""

from types import FrameType
from typing import Any

from torch import Tensor

from circuits.diagram import ITERATE, MEASURE, PROPERTY, SET_GRADIENTS, TRACE_INTO, TRACED_INTO
from circuits.recording.thread_modes import in_function_mode


def run_otherwise(
    listener: Any, action: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType
) -> Any:
    """Run a torch call of `frame` that is not recorded as one call, by its action."""
    if action == TRACE_INTO:
        return in_function_mode(listener, lambda: TRACED_INTO[func](*args, **kwargs))
    if action == ITERATE:
        return in_function_mode(listener, lambda: iter(args[0].unbind(0)))
    if action == MEASURE and listener.data_sizes.numbers:
        listener.data_sizes.read(args[0], func, kwargs.get("dim", *args[1:]), frame)
    if action == SET_GRADIENTS:
        listener.settings.set_gradients(args[0], frame)
    if func is Tensor.type and (args[1:] or kwargs):  # `x.type(dtype)` converts x.
        return listener.record_call(func, args, kwargs, "", lambda: func(*args, **kwargs))
    result = func(*args, **kwargs)
    if isinstance(result, Tensor):  # `x.grad`
        return listener.record_call(func, args, kwargs, "", lambda: result)
    if action == PROPERTY and listener.current_operation is None:
        listener.property_reads.note(func, args, kwargs, result, frame)
    return result
