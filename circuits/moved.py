"""The names that modules had before they moved into folders, for files pickled then.

A pickle names each class and function by the module that defines it. Those of the former modules are found under their
former names too; no file of this library uses these names.
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
"""Former names of modules, and their names today, inside `circuits`."""


def alias_former_names() -> None:
    """Let `pickle` import every former module: its name in `sys.modules` leads to the module of today."""
    for former, now in MODULES.items():
        sys.modules[f"circuits.{former}"] = sys.modules[f"circuits.{now}"]
