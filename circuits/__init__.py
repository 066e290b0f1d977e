"""Neural circuit diagrams as code: a circuit is ordinary PyTorch whose diagram type is checked on every call.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, arXiv 2402.05424.
"""

from circuits import laws
from circuits.boxes import Box, Value
from circuits.broadcasting import broadcast
from circuits.checking import Circuit, check, checks, circuit, definitions, find_circuit
from circuits.diagram import Diagram
from circuits.errors import CircuitError, ShapeError, SignatureError
from circuits.folding import fold, transposed, unfold
from circuits.jacobian import jacobian
from circuits.linear import LinearMap
from circuits.linearity import as_linear
from circuits.listing import listing
from circuits.reversing import Halves, backward, forward_backward, simplify
from circuits.signature import Signature
from circuits.tracing import trace
from circuits.tracking import Seen, Tracker, track
from circuits.verbs import einsum, rearrange, reduce, repeat
from circuits.windows import Window

__all__ = [
    "Box",
    "Circuit",
    "CircuitError",
    "Diagram",
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
    "broadcast",
    "check",
    "checks",
    "circuit",
    "definitions",
    "einsum",
    "find_circuit",
    "fold",
    "forward_backward",
    "jacobian",
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
