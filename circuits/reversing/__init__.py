"""Backward circuits: the gradient of a diagram is a diagram. The walk, and one file of rules per family."""

from circuits.reversing import (
    attending,
    bending,
    indexing,
    linear,
    normalising,
    pointwise,
    pooling,
    reducing,
    structural,
    windows,
)
from circuits.reversing.cutting import Halves, forward_backward
from circuits.reversing.joint import backward
from circuits.reversing.simplifying import simplify

FAMILIES = (
    attending,
    bending,
    indexing,
    linear,
    normalising,
    pointwise,
    pooling,
    reducing,
    structural,
    windows,
)
"""The files whose rules are registered."""

__all__ = ["FAMILIES", "Halves", "backward", "forward_backward", "simplify"]
