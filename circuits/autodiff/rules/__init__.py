"""Reverse rules: from the cotangents of an ATen operation's outputs to those of its inputs, one family a file.

Start with `registry` (what a rule is, how one is registered, helpers that many rules need), then `pointwise`
(operations of two or more tensors) and `elementary` (functions of one tensor). Importing this folder registers every
rule. The rules import `circuits.autodiff.aliases` and `circuits.autodiff.opaque`, and no other module of
`circuits.autodiff`.
"""

from circuits.autodiff.rules import (
    activations,
    attention,
    convolution,
    dropout,
    elementary,
    indexing,
    linear,
    losses,
    normalisation,
    pointwise,
    pooling,
    recurrent,
    reductions,
    softmax,
    structural,
)

FAMILIES = (
    activations,
    attention,
    convolution,
    dropout,
    elementary,
    indexing,
    linear,
    losses,
    normalisation,
    pointwise,
    pooling,
    recurrent,
    reductions,
    softmax,
    structural,
)
"""The files whose rules are registered."""

__all__ = ["FAMILIES"]
