"""What happens in a call besides the comparisons: the two switches, the detour for recorders, nested results.

Generated checks run with this module's names as their globals, so they see the names below that begin with an
underscore, and torch.compile guards each of them once, however many circuits a graph has.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from circuits import switch
from circuits.checking.binding import NUMBERS, broadcasts
from circuits.checking.declaration import Circuit
from circuits.checking.messages import examine, miscount, refuse


@dataclasses.dataclass
class Modes:
    """What is checked and what runs, in the whole process."""

    checks: bool
    definitions: bool = False


def detour(
    circuit: Circuit, twin: Callable[..., Any], owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A call while something records, or while definitions are to run; `twin` checks around what it is told to run."""
    given = (owner, *args) if circuit.owner else args

    def run(definition: bool) -> Any:
        kernel = None if definition or modes.definitions else circuit.body.kernel
        body = kernel or circuit.definition
        return twin(body, *given, **kwargs) if modes.checks else body(*given, **kwargs)

    recorder = switch.current() if switch.active else None
    return run(False) if recorder is None else recorder.circuit(circuit, owner, args, kwargs, run)


def leaves(result: Any) -> list[Any]:
    """The tensors of a result, in order, out of tuples, lists, dicts and dataclasses.

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


modes = Modes(checks=os.environ.get("CIRCUITS_CHECKS", "1") != "0")

SHARED = {
    "modes": modes,
    "switch": switch,
    "detour": detour,
    "examine": examine,
    "refuse": refuse,
    "miscount": miscount,
    "broadcasts": broadcasts,
    "leaves": leaves,
    "Tensor": Tensor,
    "numbers": NUMBERS,
    "ints": (int, torch.SymInt),
}
"""What every generated check may refer to."""

globals().update({f"_{name}": thing for name, thing in SHARED.items()})
