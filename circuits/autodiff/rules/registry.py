"""Where the reverse rules are kept, and what a rule is given.

A rule belongs to a functional ATen operation, whatever overload. Its parameters say what it reads: `dy`, the cotangent
of what the operation gives (a tuple, if that is several tensors), `y`, what it gave, and the operation's own arguments
by the names that ATen gives them, its first tensor as `x`. It answers with the cotangent of `x`, or with a mapping from
the names of arguments to their cotangents. What a rule reads of `y` and the arguments is what is saved for it; shapes
cost nothing. Rules are torch code made of operations that have rules.

Where an operation keeps to itself what its rule needs (the mask of a dropout), it is defined anew by operations that
do not.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from circuits.errors import CircuitError


class RuleError(CircuitError):
    """A reverse rule, registered or written by hand, gives what cannot be the cotangents of what it reverses."""


Cotangents = Tensor | None | Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """How cotangents go back through an operation; `reads` are the parameters of `function`."""

    function: Callable[..., Cotangents]
    reads: tuple[str, ...]


RULES: dict[Any, Rule] = {}
"""By the name of an ATen operation, or by the callable for the verbs."""

DEFINITIONS: dict[str, Callable[..., Any]] = {}
"""By the name of an ATen operation, what stands for it in a circuit that is to be reversed."""

Function = Callable[..., Any]


def reverses(*names: Any) -> Callable[[Function], Function]:
    """Register the rule of the operations of these names, several in one string, or of these callables."""

    def register(function: Function) -> Function:
        rule = Rule(function, tuple(inspect.signature(function).parameters))
        for name in names:
            for each in name.split() if isinstance(name, str) else [name]:
                if RULES.setdefault(each, rule) is not rule:
                    raise ValueError(f"{each} has two reverse rules")
        return function

    return register


def defines(*names: str) -> Callable[[Function], Function]:
    """Register what the operations of these names stand for."""

    def register(function: Function) -> Function:
        for name in " ".join(names).split():
            if DEFINITIONS.setdefault(name, function) is not function:
                raise ValueError(f"{name} has two definitions")
        return function

    return register


# What many rules need ------------------------------------------------------------------------------------------------


def is_one(size: Any) -> bool:
    """Whether a size is 1 whatever the free axes are."""
    return size == 1 if isinstance(size, int) else statically_known_true(size == 1)


def fit(cotangent: Tensor, like: Any) -> Tensor | None:
    """The cotangent of a tensor that was stretched over others: summed over the axes it was copied along.

    None for a number, which has no cotangent.
    """
    if not isinstance(like, Tensor):
        return None
    lead = cotangent.ndim - like.ndim
    if lead:
        cotangent = cotangent.sum(list(range(lead)))
    copied = [d for d in range(like.ndim) if is_one(like.shape[d]) and not is_one(cotangent.shape[d])]
    return cotangent.sum(copied, keepdim=True) if copied else cotangent


def place(dim: int, rank: int) -> int:
    """The place of an axis, counted from the front."""
    return dim % rank if rank else 0


def places(dim: Any, rank: int) -> list[int]:
    """The places of one axis or several; of all, if none is given. A number has none, whatever is given."""
    if rank == 0 or dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return list(range(rank))
    return [place(each, rank) for each in ([dim] if isinstance(dim, int) else dim)]


def spread(reduced: Tensor, like: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """What a reduction gave, with the axes that went as axes of size 1."""
    if not keepdim:
        for each in sorted(places(dim, like.ndim)):
            reduced = reduced.unsqueeze(each)
    return reduced


def count(like: Tensor, dims: list[int]) -> Any:
    """How many numbers these axes hold."""
    total: Any = 1
    for each in dims:
        total = total * like.shape[each]
    return total


def zeros(like: Tensor) -> Tensor:
    """Zeros of a tensor's shape, without reading it."""
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)
