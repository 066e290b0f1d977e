"""Conditions on sizes, which may be symbolic: `x <= y` is then a SymBool of torch."""

import torch
from torch import SymBool


def is_known(condition: bool | SymBool) -> bool:
    """Return whether a condition holds at all sizes that a symbolic size may have; no guard is added.

    >>> is_known(2 <= 3)
    True
    """
    if not torch.compiler.is_compiling() and isinstance(condition, bool):  # while compiling, a SymBool is a bool too
        return condition
    # Loaded at first use, as it brings sympy.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)
