"""The registry of reverse rules, and helpers that many rules need.

A rule is a function for all overloads of a functional ATen operation. The names of its parameters determine its
arguments: `dy` is the cotangent of the operation's output (a tuple if the operation returns several tensors), `y` is
that output, and the other names are those of the operation's arguments in ATen, except that its first tensor is called
`x`. A rule returns the cotangent of `x`, or a mapping from argument names to their cotangents. `y` and the arguments
are saved for backward if the rule reads their numbers, but not if it only reads their shapes. A rule is torch code made
of operations that have rules themselves, so that gradients of any order are diagrams.

An operation whose outputs are not sufficient for a rule (dropout does not return its mask) has a definition instead: a
function made of other operations, which replaces the operation before it is differentiated.
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
    """A reverse rule: its function, and the names of the function's parameters."""

    function: Callable[..., Cotangents]
    reads: tuple[str, ...]


RULES: dict[Any, Rule] = {}
"""The reverse rules by name of the ATen operation; those of einops' verbs by the function."""

DEFINITIONS: dict[str, Callable[..., Any]] = {}
"""The definitions, by name of the ATen operation that each replaces before differentiation."""

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
    """Decorator: register a definition, which replaces operations before they are differentiated.

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
    """Return whether a size is 1; a symbolic size must be 1 for all values of its symbols."""
    return size == 1 if isinstance(size, int) else statically_known_true(size == 1)


def unbroadcast(cotangent: Tensor, like: Any) -> Tensor | None:
    """Return the cotangent of `like`, which was broadcast: the sum over the axes along which it was copied.

    If `like` is a number, which has no cotangent, return None.
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
    """Return a list of one or several dimensions, each counted from the front.

    None and an empty list mean all dimensions. For a tensor without axes the list is empty, whatever `dim` is.
    """
    if rank == 0 or dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return list(range(rank))
    return [positive_dim(each, rank) for each in ([dim] if isinstance(dim, int) else dim)]


def restore_dims(reduced: Tensor, like: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Return the result of a reduction of `like` over `dim`, with the reduced axes restored with size 1."""
    if not keepdim:
        for each in sorted(positive_dims(dim, like.ndim)):
            reduced = reduced.unsqueeze(each)
    return reduced


def numel_along(like: Tensor, dims: list[int]) -> Any:
    """Return the product of the sizes of these axes."""
    return product([like.shape[each] for each in dims])


def zeros(like: Tensor) -> Tensor:
    """Return zeros with a tensor's shape, dtype and device; only its shape is read, so that it is not saved."""
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)


def product(sizes: Iterable[Any]) -> Any:
    """Return the product of sizes, which may be symbolic."""
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def times(cotangent: Tensor, factor: Any) -> Tensor:
    """Return the cotangent times a factor; the cotangent itself if the factor is the number 1."""
    return cotangent if isinstance(factor, (int, float)) and factor == 1 else cotangent * factor


def per_axis(setting: Any, space: int) -> list[Any]:
    """Return an option, such as a stride or a padding, as a list with one number for each of `space` spatial axes."""
    found = [setting] if isinstance(setting, int) else list(setting)
    return found if len(found) == space else found[:1] * space
