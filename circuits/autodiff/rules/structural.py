"""Reverse rules of operations that rearrange elements: einops' verbs, reshaping, transposing, repeating, padding.

The cotangent is rearranged inversely; where an element was copied, the cotangents of its copies are added.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import verbs
from circuits.autodiff.rules.registry import defines, numel_along, positive_dims, product, reverses, unbroadcast
from circuits.naming import read_axes
from circuits.signature import Axis, Group, Rest

# einops' verbs --------------------------------------------------------------------------------------------------------


@reverses(verbs.rearrange)
def rearrange(dy: Tensor, args: Any, kwargs: Any) -> Any:
    """dx is dy rearranged by the pattern with its two sides exchanged."""
    x, pattern = args
    left, right = [side.strip() for side in pattern.split("->")]
    return {"args": [verbs.rearrange(dy, f"{right} -> {left}", **_group_sizes(right, _sizes(x, left, kwargs))), None]}


@reverses(verbs.reduce)
def reduce(dy: Tensor, args: Any, kwargs: Any) -> Any:
    """dx is dy copied along the reduced axes; for a mean, divided by the number of elements of each mean.

    Other reductions than sum and mean are lowered to ATen operations instead.
    """
    x, pattern, reduction = args
    left, right = [side.strip() for side in pattern.split("->")]
    left = left if "..." in right else _with_named_rest(x, left)
    sizes = _sizes(x, left, kwargs)
    reduced = [name for name in sizes if name not in _names(right)]
    found = verbs.repeat(
        dy, f"{right} -> {left}", **(_group_sizes(right, sizes) | {name: sizes[name] for name in reduced})
    )
    size = numel_along(x, list(range(x.ndim))) // numel_along(dy, list(range(dy.ndim)))
    return {"args": [found / size if reduction == "mean" else found, None, None]}


@reverses(verbs.repeat)
def repeat_verb(dy: Tensor, args: Any, kwargs: Any) -> Any:
    """dx is the sum of dy over the copies."""
    x, pattern = args
    left, right = [side.strip() for side in pattern.split("->")]
    sizes = kwargs | _sizes(x, left, kwargs)
    return {"args": [verbs.reduce(dy, f"{right} -> {left}", "sum", **_group_sizes(right, sizes)), None]}


def _names(side: str) -> list[str]:
    """Return the names of the axes in one side of a pattern."""
    return [name for term in read_axes(side) for name in term.names]


def _sizes(x: Tensor, side: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes of the axes that are named in one side of a pattern, for the tensor `x` with those axes."""
    terms, found = list(read_axes(side)), dict(given)
    spare = x.ndim - len([term for term in terms if not isinstance(term, Rest)])
    dim = 0
    for term in terms:
        if isinstance(term, Axis):
            found[term.name] = x.shape[dim]
        elif isinstance(term, Group):
            names = [each.name for each in term.terms if isinstance(each, Axis) and each.name not in found]
            for name in names[:1]:
                found[name] = x.shape[dim] // product(
                    [found.get(str(each), getattr(each, "value", each)) for each in term.terms if str(each) != name]
                )
        dim += spare if isinstance(term, Rest) else 1
    return {name: found[name] for name in dict.fromkeys(_names(side))}


def _with_named_rest(x: Tensor, side: str) -> str:
    """Return one side of a pattern with a name for each axis that `...` stands for."""
    spare = x.ndim - len([term for term in read_axes(side) if not isinstance(term, Rest)])
    free = (f"rest{number}" for number in range(x.ndim + spare) if f"rest{number}" not in _names(side))
    return side.replace("...", " ".join([name for name, _ in zip(free, range(spare), strict=False)]))


def _group_sizes(side: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes that einops needs to split the groups of a side: all but the first axis of each."""
    needed: dict[str, Any] = {}
    for term in read_axes(side):
        if isinstance(term, Group):
            needed |= {each.name: sizes[each.name] for each in term.terms[1:] if isinstance(each, Axis)}
    return needed


# Shapes ---------------------------------------------------------------------------------------------------------------


@reverses(
    "view reshape _unsafe_view flatten unflatten squeeze unsqueeze ravel reshape_as view_copy _reshape_alias view_as"
)
def reshape(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy in the shape of x."""
    return dy.reshape(x.shape)


@reverses("permute")
def permute(dy: Tensor, dims: Sequence[int]) -> Tensor:
    """dx = dy in the original order of axes."""
    order = positive_dims(list(dims), len(dims))
    return dy.permute([order.index(d) for d in range(len(order))]) if order else dy


@reverses("transpose swapdims")
def transpose(dy: Tensor, dim0: int, dim1: int) -> Tensor:
    """dx = dy with the two axes swapped."""
    return dy.transpose(dim0, dim1)


@reverses("swapaxes")
def swapaxes(dy: Tensor, axis0: int, axis1: int) -> Tensor:
    """dx = dy with the two axes swapped."""
    return dy.transpose(axis0, axis1)


@reverses("t numpy_T")
def transposed(dy: Tensor) -> Tensor:
    """dx = dy with the order of all axes reversed."""
    return dy.permute(list(range(dy.ndim))[::-1])


@reverses("mT")
def matrix_transposed(dy: Tensor) -> Tensor:
    """dx = dy with the last two axes swapped."""
    return dy.mT


@reverses("expand")
def expand(dy: Tensor, x: Tensor) -> Tensor | None:
    """dx is the sum of dy over the copies."""
    return unbroadcast(dy, x)


@reverses("repeat tile")
def repeat(dy: Tensor, x: Tensor) -> Tensor:
    """dx is the sum of dy over the copies, which are concatenated along each axis."""
    lead = dy.ndim - x.ndim
    if lead:
        dy = dy.sum(list(range(lead)))
    for d in reversed(range(x.ndim)):
        times = dy.shape[d] // x.shape[d] if not isinstance(x.shape[d], int) or x.shape[d] else 1
        if not isinstance(times, int) or times != 1:
            dy = dy.reshape([*dy.shape[:d], times, x.shape[d], *dy.shape[d + 1 :]]).sum(d)
    return dy


@reverses("flip")
def flip(dy: Tensor, dims: Sequence[int]) -> Tensor:
    """dx = dy, flipped along the same axes."""
    return dy.flip(list(dims))


@reverses("roll")
def roll(dy: Tensor, shifts: Any, dims: Any) -> Tensor:
    """dx = dy, rolled by the shifts with opposite signs."""
    opposite = -shifts if isinstance(shifts, int) else [-each for each in shifts]
    return torch.roll(dy, opposite, dims) if len(dims) else torch.roll(dy, opposite)


@reverses("tril")
def tril(dy: Tensor, diagonal: int) -> Tensor:
    """dx is the lower triangle of dy."""
    return dy.tril(diagonal)


@reverses("triu")
def triu(dy: Tensor, diagonal: int) -> Tensor:
    """dx is the upper triangle of dy."""
    return dy.triu(diagonal)


@reverses("constant_pad_nd")
def constant_pad(dy: Tensor, pad: Sequence[int]) -> Tensor:
    """dx is dy without the padding."""
    return F.pad(dy, [-each for each in pad])


@reverses("pixel_shuffle")
def pixel_shuffle(dy: Tensor, upscale_factor: int) -> Tensor:
    """dx is `pixel_unshuffle` of dy."""
    return F.pixel_unshuffle(dy, upscale_factor)


@reverses("pixel_unshuffle")
def pixel_unshuffle(dy: Tensor, downscale_factor: int) -> Tensor:
    """dx is `pixel_shuffle` of dy."""
    return F.pixel_shuffle(dy, downscale_factor)


@defines("_pad_circular")
def pad_circular(x: Tensor, pad: Any) -> Tensor:
    """Return the tensor with each axis padded periodically by its own elements; negative padding removes elements."""
    for step in range(len(pad) // 2):
        dim, before, after = x.ndim - 1 - step, pad[2 * step], pad[2 * step + 1]
        size = x.shape[dim]
        middle = x.narrow(dim, max(0, -before), size + min(0, before) + min(0, after))
        parts = [x.narrow(dim, size - before, before)] * (before > 0) + [middle]
        x = torch.cat([*parts, *[x.narrow(dim, 0, after)] * (after > 0)], dim)
    return x
