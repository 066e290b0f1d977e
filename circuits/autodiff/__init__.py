"""Backward circuits: the gradient of a diagram is a diagram.

May use `printing`, `recording` and below. `backward` and `forward_backward` are the public functions to start with. In
the order of a gradient:

- `joint` records a circuit and makes its joint graph, the forward pass and the reverse pass, in a `workspace`;
- `functionalize` makes the forward pass and the `tape`, where `lower_call` and `lowering` turn calls into functional
  ATen operations;
- `reverse_pass` reverses each of them by its rule (`rules`), by a custom backward (`custom_rules`), or by torch
  (`opaque`);
- `backward` makes one diagram of the joint graph, `forward_backward` two, for which `recompute` chooses what is saved;
- `rewrites` simplify a diagram. `jacobian` returns the derivative as linear maps.
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
