"""The registry of reverse rules, and helpers that many rules need.

A rule belongs to a functional ATen operation, with all its overloads. The names of its parameters say what it reads:
`dy` is the cotangent of the operation's output (a tuple if the operation returns several tensors), `y` is that output,
and the other names are the operation's arguments under their ATen names, except that its first tensor is called `x`. A
rule returns the cotangent of `x`, or a mapping from argument names to their cotangents. Each tensor among `y` and the
arguments whose numbers a rule reads is saved for backward; reading a shape saves nothing. A rule is torch code made of
operations that have rules themselves, so that gradients of any order are diagrams.

An operation that does not return what its rule would need (the mask of a dropout) has a definition instead: a
function made of other operations, by which it is replaced before it is differentiated.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from circuits.errors import CircuitError


class RuleError(CircuitError):
    """A reverse rule, registered or custom, returns something that cannot be the cotangents of the inputs."""


Cotangents = Tensor | None | Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """A reverse rule; `reads` are the names of the parameters of `function`."""

    function: Callable[..., Cotangents]
    reads: tuple[str, ...]


RULES: dict[Any, Rule] = {}
"""The reverse rules, by the name of the ATen operation; those of einops' verbs by the verb's function."""

DEFINITIONS: dict[str, Callable[..., Any]] = {}
"""By the name of an ATen operation, the function that replaces it before it is differentiated."""

Function = Callable[..., Any]


def reverses(*names: Any) -> Callable[[Function], Function]:
    """Decorator: register a reverse rule.

    Args:
        names: ATen operation names, several of them in one string separated by spaces, or callables (einops' verbs).

    Raises:
        ValueError: One of the operations has a rule already.
    """

    def register(function: Function) -> Function:
        rule = Rule(function, tuple(inspect.signature(function).parameters))
        for name in names:
            for each in name.split() if isinstance(name, str) else [name]:
                if RULES.setdefault(each, rule) is not rule:
                    raise ValueError(f"{each} has two reverse rules")
        return function

    return register


def defines(*names: str) -> Callable[[Function], Function]:
    """Decorator: register a definition by which operations are replaced before they are differentiated.

    Args:
        names: ATen operation names, several of them in one string separated by spaces.

    Raises:
        ValueError: One of the operations has a definition already.
    """

    def register(function: Function) -> Function:
        for name in " ".join(names).split():
            if DEFINITIONS.setdefault(name, function) is not function:
                raise ValueError(f"{name} has two definitions")
        return function

    return register


# Helpers of many rules ------------------------------------------------------------------------------------------------


def is_one(size: Any) -> bool:
    """Return whether a size is 1 for all sizes of the free axes."""
    return size == 1 if isinstance(size, int) else statically_known_true(size == 1)


def unbroadcast(cotangent: Tensor, like: Any) -> Tensor | None:
    """Return the cotangent of a tensor that was broadcast: summed over the axes along which the tensor was copied.

    None if `like` is a number, which has no cotangent.
    """
    if not isinstance(like, Tensor):
        return None
    lead = cotangent.ndim - like.ndim
    if lead:
        cotangent = cotangent.sum(list(range(lead)))
    copied = [d for d in range(like.ndim) if is_one(like.shape[d]) and not is_one(cotangent.shape[d])]
    return cotangent.sum(copied, keepdim=True) if copied else cotangent


def positive_dim(dim: int, rank: int) -> int:
    """Return a dimension counted from the front; 0 for a tensor without axes."""
    return dim % rank if rank else 0


def positive_dims(dim: Any, rank: int) -> list[int]:
    """Return one dimension or several, each counted from the front.

    None and an empty list stand for all dimensions. A tensor without axes has none, whatever `dim` is.
    """
    if rank == 0 or dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return list(range(rank))
    return [positive_dim(each, rank) for each in ([dim] if isinstance(dim, int) else dim)]


def restore_dims(reduced: Tensor, like: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Return the result of a reduction over `dim`, with the reduced axes restored as axes of size 1."""
    if not keepdim:
        for each in sorted(positive_dims(dim, like.ndim)):
            reduced = reduced.unsqueeze(each)
    return reduced


def numel_along(like: Tensor, dims: list[int]) -> Any:
    """Return the product of the sizes of these axes."""
    return product([like.shape[each] for each in dims])


def zeros(like: Tensor) -> Tensor:
    """Return zeros of a tensor's shape, dtype and device, without reading its numbers."""
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)


def product(sizes: Iterable[Any]) -> Any:
    """Return the product of sizes, each a number or symbolic."""
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def times(cotangent: Tensor, factor: Any) -> Tensor:
    """Return the cotangent times a factor; the cotangent itself if the factor is the number 1."""
    return cotangent if isinstance(factor, (int, float)) and factor == 1 else cotangent * factor


def per_axis(setting: Any, space: int) -> list[Any]:
    """Return a stride, padding or the like as a list with one number for each of `space` axes."""
    found = [setting] if isinstance(setting, int) else list(setting)
    return found if len(found) == space else found[:1] * space
