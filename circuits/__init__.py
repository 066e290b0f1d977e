"""Neural circuit diagrams as code: a circuit is a PyTorch function or module with a signature, checked on every call.

All public names are here. README.md, "How the code is laid out", describes the folders and the order to read them in.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, arXiv 2402.05424.
"""

import sys
import threading
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from circuits import moved
from circuits.algebra import LinearMap, as_linear
from circuits.broadcasting import broadcast
from circuits.checking import Circuit, backward_of, check, checks, circuit, definitions, find_circuit, kernel_of
from circuits.errors import CircuitError, CircuitWarning, DtypeError, ShapeError, SignatureError
from circuits.signature import Signature
from circuits.verbs import einsum, rearrange, reduce, repeat
from circuits.windows import Window, fold, transposed, unfold

if TYPE_CHECKING:
    from circuits import laws

    # Functions from their own files: mypy takes a folder's name for the file that is called so.
    from circuits.autodiff import Halves, simplify
    from circuits.autodiff.backward import backward
    from circuits.autodiff.forward_backward import forward_backward
    from circuits.autodiff.jacobian import jacobian
    from circuits.cost import MACHINES, Bound, Cost, Machine, Rate, Recomputation, Transfers, lower_bound
    from circuits.cost.count import count
    from circuits.cost.fit import fit
    from circuits.cost.transfers import transfers
    from circuits.diagram import Box, Diagram, Value
    from circuits.drawing import Drawing
    from circuits.drawing.draw import draw
    from circuits.printing.listing import listing
    from circuits.recording import Seen, Tracker
    from circuits.recording.summary import summary
    from circuits.recording.trace import trace
    from circuits.recording.track import track
    from circuits.sharding import Search, Sharding, plan_sharding, search_shardings
    from circuits.sharding.shard import shard

__version__ = "0.1.0"

__all__ = [
    "MACHINES",
    "Bound",
    "Box",
    "Circuit",
    "CircuitError",
    "CircuitWarning",
    "Cost",
    "Diagram",
    "Drawing",
    "DtypeError",
    "Halves",
    "LinearMap",
    "Machine",
    "Rate",
    "Recomputation",
    "Search",
    "Seen",
    "ShapeError",
    "Sharding",
    "Signature",
    "SignatureError",
    "Tracker",
    "Transfers",
    "Value",
    "Window",
    "as_linear",
    "backward",
    "backward_of",
    "broadcast",
    "check",
    "checks",
    "circuit",
    "count",
    "definitions",
    "draw",
    "einsum",
    "find_circuit",
    "fit",
    "fold",
    "forward_backward",
    "jacobian",
    "kernel_of",
    "laws",
    "listing",
    "lower_bound",
    "plan_sharding",
    "rearrange",
    "reduce",
    "repeat",
    "search_shardings",
    "shard",
    "simplify",
    "summary",
    "trace",
    "track",
    "transfers",
    "transposed",
    "unfold",
]

_AT_FIRST_USE = {
    "cost": [
        "MACHINES",
        "Bound",
        "Cost",
        "Machine",
        "Rate",
        "Recomputation",
        "Transfers",
        "count",
        "fit",
        "lower_bound",
        "transfers",
    ],
    "autodiff": ["Halves", "backward", "forward_backward", "jacobian", "simplify"],
    "diagram": ["Box", "Diagram", "Value"],
    "drawing": ["Drawing", "draw"],
    "laws": [],
    "printing": ["listing"],
    "recording": ["Seen", "Tracker", "summary", "trace", "track"],
    "sharding": ["Search", "Sharding", "plan_sharding", "search_shardings", "shard"],
}
"""The folders that are loaded when one of these names, or the folder, is first read: they load Dynamo and sympy."""

_FOLDERS = {name: folder for folder, names in _AT_FIRST_USE.items() for name in (folder, *names)}
_loading = threading.RLock()  # modules of torch import each other: two threads that begin at different ones could fail

if not TYPE_CHECKING:  # for a type checker, a module with this function would have attributes of any name

    def __getattr__(name: str) -> object:
        if name not in _FOLDERS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        with _loading:
            folder = import_module(f"circuits.{_FOLDERS[name]}")
        globals()[name] = found = folder if name in _AT_FIRST_USE else getattr(folder, name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_FOLDERS})


moved.alias_former_names()

if (Path(__file__).parent / "core").exists():  # the other distribution's: no folder of this one is called so
    warnings.warn(
        "another distribution, `circuits`, is installed into the folder of neural-circuit-diagrams: uninstall one of"
        " the two, then install the other again",
        stacklevel=2,
    )
