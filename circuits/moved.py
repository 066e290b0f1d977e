"""The former names of Python modules, for files that were pickled before the modules were moved into folders.

A pickle stores classes and functions by module and name. Each former module name is therefore in `sys.modules`, as a
module whose attributes are those of the module that has the contents now, which is loaded when the first is read. The
library itself does not use the former names.
"""

import sys
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

MODULES = {
    "affine": "windows.affine",
    "boxes": "diagram.boxes",
    "declaring": "checking.declaration",
    "folding": "windows.fold",
    "jacobian": "autodiff.jacobian",
    "linear": "algebra.linear_map",
    "linearity": "algebra.as_linear",
    "listing": "printing.listing",
    "reversing.cutting": "autodiff.forward_backward",
    "reversing.joint": "autodiff.backward",
    "reversing.simplifying": "autodiff.rewrites.simplify",
    "structure": "diagram.structure",
    "terms": "signature.terms",
    "tracing": "recording.trace",
    "tracking": "recording.track",
    "wiring": "algebra.wires",
}
"""The present name of each moved module, by its former name; both relative to `circuits`."""


def alias_former_names() -> None:
    """Add a module of every former name to `sys.modules`; `pickle` finds in it what the present module has."""
    for former, now in MODULES.items():
        module = ModuleType(f"circuits.{former}", f"Former name of `circuits.{now}`.")
        vars(module)["__getattr__"] = partial(_find, now)
        sys.modules[module.__name__] = module


def _find(now: str, name: str) -> Any:
    """Return an attribute of the present module, which is loaded now; AttributeError for `__file__` and the like.

    Many tools ask every module for these.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(import_module(f"circuits.{now}"), name)
