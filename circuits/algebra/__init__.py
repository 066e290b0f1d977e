"""Tensors with a signature as linear maps: composed, transposed, joined, contracted and applied by axis name.

May use `checking`, `verbs`, `signature` and `errors`. Start with `linear_map` (the public class), then `network` (its
data: tensors on numbered wires, evaluated by one einsum), `operations` (compose, transpose, contract, ...), `wires`
(numbered axes and their names), and `as_linear` (which converts a linear circuit to a LinearMap).
"""

from circuits.algebra.as_linear import as_linear, linear_sums
from circuits.algebra.linear_map import LinearMap

__all__ = [
    "LinearMap",
    "as_linear",
    "linear_sums",
]
