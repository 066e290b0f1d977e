"""`@circuit`: the shapes of a call are checked against a signature by a few lines of generated Python.

May use `signature`, `errors` and `switch`. In the order of a declaration: `declaration` (signature and parameters
become a `Circuit`), `comparisons` and `wrapper` (the generated code). In the order of a call that fails: `binding`
(sizes of axes), `messages` (the text of a ShapeError). `runtime` is what the generated code calls, `circuit` the
public decorator.
"""

from circuits.checking.circuit import Checked, check, checked, checks, circuit, definitions, find_circuit, fixed_sizes
from circuits.checking.circuit import (
    _remake as _remake,  # files pickled when `circuits.checking` was one module name it here
)
from circuits.checking.declaration import Circuit, Options, Slot, declare, has_rest, parameters_of
from circuits.checking.runtime import leaves

__all__ = [
    "Checked",
    "Circuit",
    "Options",
    "Slot",
    "check",
    "checked",
    "checks",
    "circuit",
    "declare",
    "definitions",
    "find_circuit",
    "fixed_sizes",
    "has_rest",
    "leaves",
    "parameters_of",
]
