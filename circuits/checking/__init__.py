"""`@circuit`: generated Python checks the shapes of every call against a signature.

May use `signature`, `errors` and `switch`. Start with `circuit`, the public decorator. Then, in the order of:

- a declaration: `declare` (a function and a signature become a `Circuit`, the data in `declaration`), with `parameters`
  and `validation`; `wrapper` (the generated source), with `comparisons`, `size_comparisons`, `check_writer` and
  `expressions`; `checked_function` (the source becomes a function) and `instances` (or the forward of one module).
- a call: `runtime` (the functions that the generated code uses).
- a call that is refused: `messages` (the ShapeError), `binding` (the sizes of axes), `rows` (one tensor).
"""

from circuits.checking.axes import has_rest
from circuits.checking.checked_function import checked
from circuits.checking.circuit import check, checks, circuit, definitions, find_circuit, fixed_sizes
from circuits.checking.declaration import Circuit, Options, Slot
from circuits.checking.declare import declare
from circuits.checking.instances import (
    _remake as _remake,  # files pickled when `circuits.checking` was one module name it here
)
from circuits.checking.parameters import parameters_of
from circuits.checking.protocols import Checked
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
