"""Neural circuit diagrams as code: a circuit is a PyTorch function or module with a signature, checked on every call.

All public names are here. README.md, "How the code is laid out", describes the folders and the order to read them in.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, arXiv 2402.05424.
"""

import warnings
from pathlib import Path

from circuits import laws, moved
from circuits.algebra import LinearMap, as_linear
from circuits.autodiff import Halves, backward, forward_backward, jacobian, simplify
from circuits.broadcasting import broadcast
from circuits.checking import Circuit, backward_of, check, checks, circuit, definitions, find_circuit, kernel_of
from circuits.diagram import Box, Diagram, Value
from circuits.drawing import Drawing, draw
from circuits.errors import CircuitError, ShapeError, SignatureError
from circuits.printing import listing
from circuits.recording import Seen, Tracker, trace, track
from circuits.signature import Signature
from circuits.verbs import einsum, rearrange, reduce, repeat
from circuits.windows import Window, fold, transposed, unfold

__version__ = "0.1.0"

__all__ = [
    "Box",
    "Circuit",
    "CircuitError",
    "Diagram",
    "Drawing",
    "Halves",
    "LinearMap",
    "Seen",
    "ShapeError",
    "Signature",
    "SignatureError",
    "Tracker",
    "Value",
    "Window",
    "as_linear",
    "backward",
    "backward_of",
    "broadcast",
    "check",
    "checks",
    "circuit",
    "definitions",
    "draw",
    "einsum",
    "find_circuit",
    "fold",
    "forward_backward",
    "jacobian",
    "kernel_of",
    "laws",
    "listing",
    "rearrange",
    "reduce",
    "repeat",
    "simplify",
    "trace",
    "track",
    "transposed",
    "unfold",
]

moved.alias_former_names()

if (Path(__file__).parent / "core").exists():  # the other distribution's: no folder of this one is called so
    warnings.warn(
        "another distribution, `circuits`, is installed into the folder of neural-circuit-diagrams: uninstall one of"
        " the two, then install the other again",
        stacklevel=2,
    )
