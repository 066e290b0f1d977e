"""What moves numbers without changing them, back: to where they came from; where one was read twice, both are added."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import verbs
from circuits.autodiff.rules.registry import numel_along, positive_dims, product, reverses, unbroadcast
from circuits.naming import read_axes
from circuits.signature import Axis, Group, Rest

# einops' verbs --------------------------------------------------------------------------------------------------------


@reverses(verbs.rearrange)
def rearrange(dy: Tensor, args: Any, kwargs: Any) -> Any:
    """The pattern read from right to left."""
    x, pattern = args
    left, right = [side.strip() for side in pattern.split("->")]
    return {"args": [verbs.rearrange(dy, f"{right} -> {left}", **_asked(right, _sizes(x, left, kwargs))), None]}


@reverses(verbs.reduce)
def reduce(dy: Tensor, args: Any, kwargs: Any) -> Any:
    """Copied along what went; shared out, where the mean was taken."""
    x, pattern, reduction = args
    left, right = [side.strip() for side in pattern.split("->")]
    left = left if "..." in right else _spelt(x, left)
    sizes = _sizes(x, left, kwargs)
    gone = [name for name in sizes if name not in _names(right)]
    found = verbs.repeat(dy, f"{right} -> {left}", **(_asked(right, sizes) | {name: sizes[name] for name in gone}))
    many = numel_along(x, list(range(x.ndim))) // numel_along(dy, list(range(dy.ndim)))
    return {"args": [found / many if reduction == "mean" else found, None, None]}


@reverses(verbs.repeat)
def repeat_verb(dy: Tensor, args: Any, kwargs: Any) -> Any:
    """Summed over the copies."""
    x, pattern = args
    left, right = [side.strip() for side in pattern.split("->")]
    sizes = kwargs | _sizes(x, left, kwargs)
    return {"args": [verbs.reduce(dy, f"{right} -> {left}", "sum", **_asked(right, sizes)), None]}


def _names(side: str) -> list[str]:
    return [name for term in read_axes(side) for name in term.names]


def _sizes(x: Tensor, side: str, given: dict[str, Any]) -> dict[str, Any]:
    """The size of every axis that stands in a pattern's side."""
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


def _spelt(x: Tensor, side: str) -> str:
    """A pattern's side with a name for each axis that its `...` stands for."""
    spare = x.ndim - len([term for term in read_axes(side) if not isinstance(term, Rest)])
    free = (f"rest{place}" for place in range(x.ndim + spare) if f"rest{place}" not in _names(side))
    return side.replace("...", " ".join([name for name, _ in zip(free, range(spare), strict=False)]))


def _asked(side: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """The sizes that einops needs to take the groups of a side apart: of each but one."""
    asked: dict[str, Any] = {}
    for term in read_axes(side):
        if isinstance(term, Group):
            asked |= {each.name: sizes[each.name] for each in term.terms[1:] if isinstance(each, Axis)}
    return asked


# Shapes ---------------------------------------------------------------------------------------------------------------


@reverses(
    "view reshape _unsafe_view flatten unflatten squeeze unsqueeze ravel reshape_as view_copy _reshape_alias view_as"
)
def reshape(dy: Tensor, x: Tensor) -> Tensor:
    """Under the old shape."""
    return dy.reshape(x.shape)


@reverses("permute")
def permute(dy: Tensor, dims: Sequence[int]) -> Tensor:
    """In the old order."""
    order = positive_dims(list(dims), len(dims))
    return dy.permute([order.index(d) for d in range(len(order))]) if order else dy


@reverses("transpose swapdims")
def transpose(dy: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes back."""
    return dy.transpose(dim0, dim1)


@reverses("swapaxes")
def swapaxes(dy: Tensor, axis0: int, axis1: int) -> Tensor:
    """The same by numpy's name."""
    return dy.transpose(axis0, axis1)


@reverses("t numpy_T")
def transposed(dy: Tensor) -> Tensor:
    """All axes back."""
    return dy.permute(list(range(dy.ndim))[::-1])


@reverses("mT")
def matrix_transposed(dy: Tensor) -> Tensor:
    """The last two back."""
    return dy.mT


@reverses("expand")
def expand(dy: Tensor, x: Tensor) -> Tensor | None:
    """Summed over the copies."""
    return unbroadcast(dy, x)


@reverses("repeat tile")
def repeat(dy: Tensor, x: Tensor) -> Tensor:
    """The same, where the copies stand one after the other."""
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
    """Turned round again."""
    return dy.flip(list(dims))


@reverses("roll")
def roll(dy: Tensor, shifts: Any, dims: Any) -> Tensor:
    """The other way."""
    back = -shifts if isinstance(shifts, int) else [-each for each in shifts]
    return torch.roll(dy, back, dims) if len(dims) else torch.roll(dy, back)


@reverses("tril")
def tril(dy: Tensor, diagonal: int) -> Tensor:
    """The same triangle."""
    return dy.tril(diagonal)


@reverses("triu")
def triu(dy: Tensor, diagonal: int) -> Tensor:
    """The same triangle."""
    return dy.triu(diagonal)


@reverses("constant_pad_nd")
def constant_pad(dy: Tensor, pad: Sequence[int]) -> Tensor:
    """The border cut off."""
    return F.pad(dy, [-each for each in pad])


@reverses("pixel_shuffle")
def pixel_shuffle(dy: Tensor, upscale_factor: int) -> Tensor:
    """Back among the channels."""
    return F.pixel_unshuffle(dy, upscale_factor)


@reverses("pixel_unshuffle")
def pixel_unshuffle(dy: Tensor, downscale_factor: int) -> Tensor:
    """Back into space."""
    return F.pixel_shuffle(dy, downscale_factor)
