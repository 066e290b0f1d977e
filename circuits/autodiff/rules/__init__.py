"""Reverse rules: how the cotangents of an ATen operation's outputs become those of its inputs, one file a family.

May use `aliases`, `opaque` and what is below `autodiff`. Start with `registry` (what a rule is and how one is
registered), then `pointwise`. Importing this folder registers every rule.
"""

from circuits.autodiff.rules import (
    activations,
    attention,
    convolution,
    indexing,
    linear,
    normalisation,
    pointwise,
    pooling,
    reductions,
    structural,
)

FAMILIES = (
    activations,
    attention,
    convolution,
    indexing,
    linear,
    normalisation,
    pointwise,
    pooling,
    reductions,
    structural,
)
"""The files whose rules are registered."""

__all__ = ["FAMILIES"]
