"""`@circuit`: generated Python code checks the shapes of every call against a signature.

May use `signature`, `errors` and `switch`. Start with `circuit`, the public decorator. The other modules, in the order
in which they are used:

- At the declaration, `declare` makes a `Circuit` (defined in `declaration`) from a function and a signature, with
  `parameters` and `validation`. `wrapper` writes the source of the check, with `comparisons`, `size_comparisons`,
  `check_writer` and `expressions`. `checked_function` compiles this source; `instances` attaches it to one module
  instance.
- At a call, the generated code uses the functions in `runtime`.
- If a call is refused, `messages` raises the ShapeError, with `binding` (the sizes of axes, and why one does not fit)
  and `rows` (the line of the message for one tensor).

`axes` has helpers for axes and terms, `protocols` the types for type checkers.
"""

from circuits.checking.axes import has_rest
from circuits.checking.checked_function import backward_of, checked, kernel_of
from circuits.checking.circuit import check, checks, circuit, definitions, find_circuit, fixed_sizes
from circuits.checking.declaration import Across, Circuit, Options, Slot
from circuits.checking.declare import declare
from circuits.checking.instances import (
    _remake as _remake,  # files pickled when `circuits.checking` was a single module refer to it here
)
from circuits.checking.parameters import parameters_of
from circuits.checking.protocols import Checked
from circuits.checking.runtime import leaves

__all__ = [
    "Across",
    "Checked",
    "Circuit",
    "Options",
    "Slot",
    "backward_of",
    "check",
    "checked",
    "checks",
    "circuit",
    "declare",
    "definitions",
    "find_circuit",
    "fixed_sizes",
    "has_rest",
    "kernel_of",
    "leaves",
    "parameters_of",
]
