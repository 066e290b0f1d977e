"""Backward circuits: the gradient of a diagram is a diagram. The walk, and one file of rules per family."""

from circuits.reversing import attending, linear, normalising, pointwise, pooling, reducing, structural, windows
from circuits.reversing.joint import Halves, backward, forward_backward

FAMILIES = (attending, linear, normalising, pointwise, pooling, reducing, structural, windows)
"""The files whose rules are registered."""

__all__ = ["FAMILIES", "Halves", "backward", "forward_backward"]
