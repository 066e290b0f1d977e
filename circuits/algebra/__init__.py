"""Tensors with a signature as linear maps: composed, transposed, joined, contracted and applied by axis name.

May use `checking`, `verbs`, `signature` and `errors`. Start with `wires` (numbered axes, one einsum), then
`linear_map`, then `as_linear` (the LinearMap of a circuit that is linear).
"""

from circuits.algebra.as_linear import as_linear, combined
from circuits.algebra.linear_map import LinearMap

__all__ = [
    "LinearMap",
    "as_linear",
    "combined",
]
