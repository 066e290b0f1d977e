"""Which calls are recorded, and what is recorded of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from circuits.diagram import (
    EFFECTS,
    OPERATORS,
    Struct,
    Wire,
    describe,
    leaves,
    mutates,
    operation_name,
    reading,
    returning_first,
    writing_call,
)
from circuits.recording.events import Call
from circuits.recording.user_frames import is_for_readers, user_frame, user_line

_READING_MEMORY = frozenset({Tensor.apply_, Tensor.map_, Tensor.map2_})
"""Functions that call a Python function with each number of a tensor; without data they end the process."""


def refuse_reading_memory(function: Any) -> None:
    """Raise the exception that stands for a need of data if a function reads the memory of a tensor directly."""
    if function in _READING_MEMORY:
        raise DataDependentOutputException(function)


def is_recorded(
    event: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
    define: Callable[[Tensor], Wire],
    without_data: bool,
) -> bool:
    """Return whether a call is recorded whose result is no tensor, or which may write to its arguments.

    It is recorded if it has an effect (`EFFECTS`) or writes: `x[i] = y` returns None, and is recorded as a call that
    returns x; an operator returns all arguments that it writes to. It is recorded if there are tensors or symbolic
    numbers in its result, or if it read the result from data: then the call becomes a `Reading`. The text of a tensor
    that is printed, logged or raised is for readers, not for the code.

    Args:
        event: The call, which is changed to what a diagram calls.
        args: The positional arguments.
        kwargs: The keyword arguments.
        result: The result.
        define: Returns a new wire for a tensor that the call wrote.
        without_data: Whether the run has no data.
    """
    if result is None and mutates(event.function) and args and isinstance(args[0], Tensor):
        event.function, event.result = returning_first(event.function), describe(args[0], define)
        return True
    if event.function in EFFECTS:
        event.function, event.result = EFFECTS[event.function], None
        return True
    writing = writing_call(event.function, args, kwargs, result) if type(event.function) in OPERATORS else None
    if writing is not None:
        written = [describe(args[name] if isinstance(name, int) else kwargs[name], define) for name in writing.written]
        event.function, event.result = writing, Struct(tuple, (), (event.result, *written))
        return True
    return next(leaves(event.result), None) is not None or _is_reading(event, result, without_data)


def _is_reading(event: Call, result: Any, without_data: bool) -> bool:
    """Return whether a call without tensors in its result read it from data; then the call becomes a `Reading`."""
    if without_data and type(result).__name__ == "PyCapsule":
        raise DataDependentOutputException(event.function)  # DLPack: other code would read memory that is not there.
    if without_data and operation_name(event.function) == "nnz":
        raise DataDependentOutputException(event.function)  # Without data a sparse tensor has no elements.
    given = (*event.args, *event.kwargs.values())
    if makes_text(event) and _is_text_for_readers():
        return False
    if without_data or result is None or not any(isinstance(leaf, Wire) for part in given for leaf in leaves(part)):
        return False
    event.where = event.where or user_line()
    event.function, event.result = reading(event.function, result, event.where), None
    return True


def makes_text(event: Call) -> bool:
    """Return whether a call makes the text of a whole tensor: `str(x)`, `repr(x)`, `f"{x}"`."""
    return event.function is Tensor.__repr__ or (event.function is Tensor.__format__ and event.args[1:] == ("",))


def refusal_of_text(event: Call) -> str:
    """Return why a diagram cannot run if a call makes the text of a tensor without data, which the code uses."""
    if not makes_text(event) or _is_text_for_readers():
        return ""
    return f"{event.where or user_line()} makes a text of a tensor, which holds no data here: record it with track"


def _is_text_for_readers() -> bool:
    """Return whether the user code that is running only prints, logs or raises the text that it makes."""
    frame = user_frame()
    return frame is None or is_for_readers(frame)


def without_modes(run: Callable[[], Any]) -> Any:
    """Return `run()`; its torch calls are not passed to any function mode."""
    with torch._C.DisableTorchFunction():
        return run()


def circuit_tensors(
    circuit: Any, args: tuple[Any, ...], kwargs: dict[str, Any], wire: Callable[[Tensor], Wire]
) -> dict[str, Any]:
    """Return the wires of a circuit's tensor arguments: inputs by position as text ("0"), optional ones by name."""
    named = dict(zip(circuit.parameters, args, strict=False)) | kwargs
    inputs = [named[name] for name in circuit.inputs if name in named] + list(args[len(circuit.parameters) :])
    found = {f"{position}": describe(value, wire) for position, value in enumerate(inputs)}
    return found | {name: describe(named.get(name), wire) for name in circuit.optional}
