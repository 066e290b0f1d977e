"""Backward circuits: the gradient of a diagram is a diagram.

May use `printing`, `recording` and below. In the order of a gradient: `functionalize` and `lowering` (the forward
pass as functional ATen operations, drawn in a `workspace`), `reverse_pass` (each reversed by its rule, `rules`),
`backward` (the joint diagram), `forward_backward` (the two halves), `recompute` and `rewrites` (what is saved, and
simplification). `jacobian` returns linear maps.
"""

from circuits.autodiff.backward import backward
from circuits.autodiff.forward_backward import Halves, forward_backward
from circuits.autodiff.jacobian import jacobian
from circuits.autodiff.rewrites.simplify import simplify

__all__ = [
    "Halves",
    "backward",
    "forward_backward",
    "jacobian",
    "simplify",
]
