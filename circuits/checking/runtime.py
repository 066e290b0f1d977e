"""The functions and switches that the generated code of a circuit calls and reads.

The globals of the generated code are the namespace of this module, where the names that it uses begin with an
underscore. All circuits share these globals, so torch.compile guards each name once per graph, not once per circuit.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from circuits import switch
from circuits.checking.binding import INTEGERS, NUMBERS, broadcasts
from circuits.checking.declaration import Circuit
from circuits.checking.messages import examine, miscount
from circuits.errors import CircuitError
from circuits.tracebacks import hide_frames
from circuits.tracers import without_jit_trace


@dataclasses.dataclass
class Modes:
    """Whether circuits are checked, and whether definitions run instead of kernels, in the whole process."""

    checks: bool
    definitions: bool = False


def slow_call(
    circuit: Circuit, check_around: Callable[..., Any], owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Return the result of a call that is recorded, or that runs the definition instead of the kernel.

    Args:
        circuit: The declaration.
        check_around: The generated function that calls its first argument with the others, between the same checks.
        owner: The module or object whose method is called, or None.
        args: The positional arguments without the owner.
        kwargs: The keyword arguments.
    """
    given = (owner, *args) if circuit.owner else args

    def run(definition: bool) -> Any:
        kernel = None if definition or modes.definitions else circuit.body.kernel
        body = kernel or circuit.definition
        return check_around(body, *given, **kwargs) if modes.checks else body(*given, **kwargs)

    recorder = switch.current() if switch.active else None
    return run(False) if recorder is None else recorder.circuit(circuit, owner, args, kwargs, run)


def complete_call(
    circuit: Circuit,
    owner: Any,
    values: tuple[Any, ...],
    body: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Return the result of a call that the quick check has refused; the complete check decides.

    Args:
        circuit: The declaration.
        owner: The module or object whose method is called, or None.
        values: The inputs and optional tensors, in the order of `circuit.slots`.
        body: The function to run: the kernel or the definition.
        args: The positional arguments without the owner.
        kwargs: The keyword arguments.
    """
    examine_untraced(circuit, owner, values, None)
    result = body(owner, *args, **kwargs) if circuit.owner else body(*args, **kwargs)
    examine_untraced(circuit, owner, values, leaves(result) if len(circuit.results) > 1 else [result])
    return result


def examine_untraced(circuit: Circuit, owner: Any, values: tuple[Any, ...], results: list[Any] | None) -> None:
    """Raise ShapeError with every mismatch of a call, if there is any; see `examine`."""
    without_jit_trace(examine, circuit, owner, values, results)


def leaves(result: Any) -> list[Any]:
    """Return the leaves of a nested result in order; tuples, lists, mappings and dataclasses are opened.

    >>> leaves((1, {"a": 2, "b": [3]}))
    [1, 2, 3]
    """
    parts: Any
    if isinstance(result, tuple | list):
        parts = result
    elif isinstance(result, Mapping):
        parts = result.values()
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        parts = [getattr(result, each.name) for each in dataclasses.fields(result)]
    else:
        return [result]
    found: list[Any] = []
    for part in parts:
        found.extend(leaves(part))
    return found


CHECKED = os.environ.get("CIRCUITS_CHECKS", "1") != "0"
"""Whether circuits are checked outside all `checks` blocks."""

modes: Modes = Modes(CHECKED)


def _set_modes() -> None:
    """Set the modes that the open blocks of `checks` and `definitions` determine."""
    while modes != (found := Modes(_are_checked(), bool(definitions_switch.blocks))):
        modes.checks, modes.definitions = found.checks, found.definitions


def _are_checked() -> bool:
    for block in checks_switch.blocks[-1:]:
        return block.value
    return CHECKED


checks_switch: switch.Switch = switch.Switch(_set_modes)
definitions_switch: switch.Switch = switch.Switch(_set_modes)

SHARED: dict[str, Any] = {
    "modes": modes,
    "switch": switch,
    "slow_call": slow_call,
    "complete_call": complete_call,
    "examine_untraced": examine_untraced,
    "miscount": miscount,
    "broadcasts": broadcasts,
    "leaves": leaves,
    "CircuitError": CircuitError,
    "hide_frames": hide_frames,
    "Tensor": Tensor,
    "numbers": NUMBERS,
    "ints": INTEGERS,
    "len": len,
    "isinstance": isinstance,
    "getattr": getattr,
}
"""The globals of the generated code, by their names without the prefix."""

globals().update({f"_{name}": thing for name, thing in SHARED.items()})
