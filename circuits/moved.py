"""The former names of Python modules, for files that were pickled before the modules were moved into folders.

A pickle stores classes and functions by module and name. Each former module name is therefore an alias, in
`sys.modules`, of the module that has the contents now. The library itself does not use the former names.
"""

import sys

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
    """Add every former module name to `sys.modules`, so that `pickle` finds it."""
    for former, now in MODULES.items():
        sys.modules[f"circuits.{former}"] = sys.modules[f"circuits.{now}"]
