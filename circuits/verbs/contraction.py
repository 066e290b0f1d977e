"""One einsum over three tensors or more, in an order of contraction that is looked for once and remembered.

torch.einsum asks opt_einsum for the order at every call, which takes longer than small tensors do. What it finds
depends on the sizes alone.

Source: D. Smith and J. Gray, opt_einsum, JOSS 2018.
"""

import string
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.signature import Axes, Axis, Rest, Signature

MANY = 1024
"""So many orders are remembered."""

_einsum: Any = torch._VF.einsum  # pyright: ignore[reportAttributeAccessIssue]
"""What torch.einsum calls, once it has the order."""

_orders: dict[tuple[Any, ...], tuple[int, ...]] = {}


def equation(signature: Signature) -> str:
    """The pattern as torch.einsum spells it, one letter an axis; nothing where letters do not do.

    >>> equation(Signature.parse("... y k, ... x k -> ... y x"))
    '...ab,...cb->...ac'
    """
    letters: dict[str, str] = {}
    tensors = [*signature.inputs, *signature.outputs]
    names = dict.fromkeys(term.name for axes in tensors for term in axes if isinstance(term, Axis))
    plain = all(isinstance(term, Axis | Rest) for axes in tensors for term in axes)
    if not plain or len(names) > len(string.ascii_letters) or len(signature.outputs) != 1:
        return ""
    letters = dict(zip(names, string.ascii_letters, strict=False))
    inputs = ",".join([_spelt(axes, letters) for axes in signature.inputs])
    return f"{inputs}->{_spelt(signature.outputs[0], letters)}"


def _spelt(axes: Axes, letters: dict[str, str]) -> str:
    return "".join([letters[term.name] if isinstance(term, Axis) else "..." for term in axes])


def contracted(spelt: str, tensors: Sequence[Tensor]) -> Tensor | None:
    """torch.einsum with an order that may be remembered; None where there is none to choose or to remember.

    torch.backends.opt_einsum is asked as torch.einsum asks it, by the strategy that is set there.
    """
    settings = torch.backends.opt_einsum
    if len(tensors) < 3 or not spelt or not settings.enabled or not settings.is_available():
        return None
    shapes = tuple([tuple(tensor.shape) for tensor in tensors])
    for shape in shapes:
        for size in shape:
            if type(size) is not int:
                return None
    which = (spelt, settings.strategy, *shapes)
    if which not in _orders:
        if len(_orders) >= MANY:
            _orders.clear()
        found = settings.get_opt_einsum().contract_path(spelt, *shapes, shapes=True, optimize=settings.strategy)
        _orders[which] = tuple([place for pair in found[0] for place in pair])
    return _einsum(spelt, tensors, path=_orders[which])


__all__ = ["contracted", "equation"]
