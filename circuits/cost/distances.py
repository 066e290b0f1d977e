"""The condition under which `torch.cdist` computes distances as its cost says: by a matrix product, or one by one."""

from collections.abc import Callable
from typing import Any

import sympy
from torch import Tensor

_ROWS = 25
"""Torch takes the product for more rows than this, in either tensor, if it is left to choose."""


def distance_guards(
    size: Callable[[Any], Any], x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None
) -> list[Any]:
    """Return the condition on free sizes under which the form that torch has taken stays the same.

    Args:
        size: Converts torch's symbolic numbers to formulas in axes.
        x1, x2, p, compute_mode: The arguments of `torch.cdist`.
    """
    if p != 2.0 or compute_mode not in (None, "use_mm_for_euclid_dist_if_necessary"):
        return []
    rows = [size(each.shape[-2]) for each in (x1, x2)]
    found = sympy.Or(*[sympy.Gt(each, _ROWS) for each in rows])
    if found in (sympy.true, sympy.false):
        return []
    is_product = any(each.shape[-2] > _ROWS for each in (x1, x2))
    return [found if is_product else sympy.Not(found)]


__all__ = ["distance_guards"]
