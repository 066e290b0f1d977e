"""An einsum of three or more tensors, with the order of contraction computed once and cached.

torch.einsum computes the order with opt_einsum on every call, which takes longer than the contraction of small tensors.
The order depends only on the equation, the shapes and the strategy.

Source: D. Smith and J. Gray, opt_einsum, JOSS 2018.
"""

import string
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.signature import Axes, Axis, Rest, Signature

MOST_CACHED_ORDERS = 1024
"""The number of orders at which the cache is emptied before another is added."""

_einsum: Any = torch._VF.einsum  # pyright: ignore[reportAttributeAccessIssue]
"""The function that torch.einsum calls with the order."""

_orders: dict[tuple[Any, ...], tuple[int, ...]] = {}


def equation(signature: Signature) -> str:
    """Return the pattern in the notation of torch.einsum, one letter for each axis.

    The result is empty if an axis is not a name, if there are more than 52 names, or if there are several outputs.

    >>> equation(Signature.parse("... y k, ... x k -> ... y x"))
    '...ab,...cb->...ac'
    """
    letters: dict[str, str] = {}
    tensors = [*signature.inputs, *signature.outputs]
    names = dict.fromkeys(term.name for axes in tensors for term in axes if isinstance(term, Axis))
    are_names = all(isinstance(term, Axis | Rest) for axes in tensors for term in axes)
    if not are_names or len(names) > len(string.ascii_letters) or len(signature.outputs) != 1:
        return ""
    letters = dict(zip(names, string.ascii_letters, strict=False))
    inputs = ",".join([_in_letters(axes, letters) for axes in signature.inputs])
    return f"{inputs}->{_in_letters(signature.outputs[0], letters)}"


def _in_letters(axes: Axes, letters: dict[str, str]) -> str:
    """Return the axes of one tensor in the notation of torch.einsum."""
    return "".join([letters[term.name] if isinstance(term, Axis) else "..." for term in axes])


def contract_in_cached_order(equation: str, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return the einsum, computed in a cached order of contraction, or None if no order is cached for it.

    None is returned if there are fewer than three tensors, if the equation is empty, if a size is symbolic, or if
    opt_einsum is disabled or not installed. The strategy is that of torch.backends.opt_einsum, as in torch.einsum.

    Args:
        equation: The pattern in the notation of torch.einsum; see `equation`.
        tensors: The tensors.
    """
    settings = torch.backends.opt_einsum
    if len(tensors) < 3 or not equation or not settings.enabled or not settings.is_available():
        return None
    shapes = tuple([tuple(tensor.shape) for tensor in tensors])
    for shape in shapes:
        for size in shape:
            if type(size) is not int:
                return None
    key = (equation, settings.strategy, *shapes)
    if key not in _orders:
        if len(_orders) >= MOST_CACHED_ORDERS:
            _orders.clear()
        path, _ = settings.get_opt_einsum().contract_path(equation, *shapes, shapes=True, optimize=settings.strategy)
        _orders[key] = tuple([place for pair in path for place in pair])
    return _einsum(equation, tensors, path=_orders[key])
