"""Torch calls that are not recorded as one call: of sizes, properties and modes, or of functions to trace into."""

from types import FrameType
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from circuits.diagram import ITERATE, MEASURE, PROPERTY, SET_GRADIENTS, TRACE_INTO, TRACED_INTO
from circuits.recording.thread_modes import in_function_mode


def _reads_memory(frame: FrameType) -> bool:
    """Return whether the code of a frame may read memory at an address, which ends the process if there is none."""
    names = {*frame.f_code.co_names, *frame.f_code.co_freevars}
    held = [frame.f_globals.get(name, frame.f_locals.get(name)) for name in names]
    modules = [getattr(each, "__module__", None) or getattr(each, "__name__", "") for each in held if each is not None]
    return any(f"{name}".partition(".")[0] in _MEMORY for name in (*names, *modules))


_MEMORY = ("ctypes", "_ctypes", "cffi", "_cffi_backend")
"""The Python modules that read memory at an address."""


def run_otherwise(
    listener: Any, action: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType
) -> Any:
    """Run a torch call of `frame` that is not recorded as one call, by its action."""
    if action == TRACE_INTO:
        return in_function_mode(listener, lambda: TRACED_INTO[func](*args, **kwargs))
    if action == ITERATE:
        return in_function_mode(listener, lambda: iter(args[0].unbind(0)))
    if func is Tensor.data_ptr and listener.definitions and _reads_memory(frame):
        raise DataDependentOutputException(func)
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
