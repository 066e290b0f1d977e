"""Which calls are recorded, and what is recorded of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from circuits.diagram import Wire, describe, leaves, reading
from circuits.recording.events import Call
from circuits.recording.user_frames import user_line

_READING_MEMORY = frozenset({Tensor.apply_, Tensor.map_, Tensor.map2_})
"""Functions that call a Python function with each number of a tensor; without data they end the process."""


def refuse_reading_memory(function: Any) -> None:
    """Raise the exception that stands for a need of data if a function reads the memory of a tensor directly."""
    if function in _READING_MEMORY:
        raise DataDependentOutputException(function)


def is_recorded(event: Call, result: Any, without_data: bool) -> bool:
    """Return whether a call is recorded whose result is no tensor.

    It is if there are tensors or symbolic numbers in its result, or if it read the result from data: then the call
    becomes a `Reading`. The text of a tensor without a format (`f"{x}"`) is for readers, not for the code.
    """
    if next(leaves(event.result), None) is not None:
        return True
    if without_data and type(result).__name__ == "PyCapsule":
        raise DataDependentOutputException(event.function)  # DLPack: other code would read memory that is not there.
    given = (*event.args, *event.kwargs.values())
    if event.function is Tensor.__format__ and given[1:] == ("",):
        return False
    if without_data or result is None or not any(isinstance(leaf, Wire) for part in given for leaf in leaves(part)):
        return False
    event.where = event.where or user_line()
    event.function, event.result = reading(event.function, result, event.where), None
    return True


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
