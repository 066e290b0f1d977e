"""Pools back: a maximum to where it was found, a mean to all it was taken of."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.rules.registry import defines, per_axis, product, reverses

# A maximum is kept with its place -------------------------------------------------------------------------------------


@defines("max_pool1d")
def max_pool1d(x: Tensor, *settings: Any) -> Tensor:
    """As a pool of two axes, one of size 1."""
    size, *others = [each if each == [] else [1, *per_axis(each, 1)] for each in settings[:1]] + [
        _each_or_none(each, place) for place, each in enumerate(settings[1:])
    ]
    return torch.ops.aten.max_pool2d_with_indices.default(x.unsqueeze(-2), size, *others)[0].squeeze(-2)


def _each_or_none(setting: Any, place: int) -> Any:
    if isinstance(setting, bool) or setting == []:
        return setting
    return [1 if place != 1 else 0, *per_axis(setting, 1)]


@defines("max_pool2d")
def max_pool2d(x: Tensor, *settings: Any) -> Tensor:
    """With its places."""
    return torch.ops.aten.max_pool2d_with_indices.default(x, *settings)[0]


@defines("max_pool3d")
def max_pool3d(x: Tensor, *settings: Any) -> Tensor:
    """With its places."""
    return torch.ops.aten.max_pool3d_with_indices.default(x, *settings)[0]


@reverses("max_pool2d_with_indices adaptive_max_pool2d")
def found_2d(dy: Any, y: Any, x: Tensor) -> Tensor:
    """To where it was found."""
    return _found(dy[0], y[1], x, 2)


@reverses("max_pool3d_with_indices adaptive_max_pool3d")
def found_3d(dy: Any, y: Any, x: Tensor) -> Tensor:
    """The same in three axes of space."""
    return _found(dy[0], y[1], x, 3)


def _found(dy: Tensor, index: Tensor, x: Tensor, space: int) -> Tensor:
    flat = torch.zeros([*x.shape[:-space], product(x.shape[-space:])], dtype=x.dtype, device=x.device)
    return flat.scatter_add(-1, index.flatten(-space), dy.flatten(-space)).reshape(x.shape)


@reverses("avg_pool1d avg_pool2d avg_pool3d")
def averaged(
    dy: Tensor, y: Tensor, x: Tensor, kernel_size: Any, stride: Any, padding: Any, count_include_pad: bool,
    ceil_mode: bool, divisor_override: Any = None,
) -> Tensor:  # fmt: skip
    """A mean over a window is a convolution of each channel by itself: back by the transposed one."""
    space = len(per_axis(kernel_size, len(kernel_size)))
    window, margin = per_axis(kernel_size, space), per_axis(padding, space)
    steps = window if stride in (None, []) else per_axis(stride, space)
    single = x.shape[: x.ndim - space]
    image = [product(single), 1]
    ones = torch.ones([1, 1, *x.shape[x.ndim - space :]], dtype=x.dtype, device=x.device)
    kernel = torch.ones([1, 1, *window], dtype=x.dtype, device=x.device)
    reach = [
        (out - 1) * s + k - size - 2 * p
        for out, s, k, size, p in zip(
            y.shape[x.ndim - space :], steps, window, x.shape[x.ndim - space :], margin, strict=True
        )
    ]
    shared = dy / _counted(ones, kernel, steps, margin, reach, count_include_pad, divisor_override, ceil_mode)
    none = [0] * space
    wide = torch.convolution(
        shared.reshape([*image, *y.shape[x.ndim - space :]]), kernel, None, steps, none, [1] * space, True, none, 1
    )
    for place, (size, p) in enumerate(zip(x.shape[x.ndim - space :], margin, strict=True)):
        wide = _fitting(wide, 2 + place, p, size)
    return wide.reshape(x.shape)


def _fitting(wide: Tensor, dim: int, before: int, size: Any) -> Tensor:
    """The part of an axis that begins so far in; zeros follow where there is not so much."""
    lacking = before + size - wide.shape[dim]
    pad = [0, 0] * (wide.ndim - 1 - dim) + [0, lacking]
    if not isinstance(lacking, int) or lacking > 0:
        wide = F.pad(wide, pad)
    return wide.narrow(dim, before, size)


def _counted(
    ones: Tensor, kernel: Tensor, steps: list[int], margin: list[int], reach: list[Any], padded: bool, divisor: Any,
    ceil_mode: bool,
) -> Any:  # fmt: skip
    """How many numbers each window has, by the setting."""
    space = len(steps)
    if divisor is not None:
        return divisor
    if not ceil_mode and (padded or not any(margin)):
        return kernel.numel()
    sides = [side for p in reversed(margin) for side in (p, p)]
    field = F.pad(ones, sides, value=1.0 if padded else 0.0)
    more = [side for each in reversed(reach) for side in (0, max(0, each))]
    field = F.pad(field, more)
    none = [0] * space
    found = torch.convolution(field, kernel, None, steps, none, [1] * space, False, none, 1)
    return found.squeeze(0).squeeze(0)


@reverses("_adaptive_avg_pool2d adaptive_avg_pool2d adaptive_avg_pool1d _adaptive_avg_pool3d adaptive_avg_pool3d")
def adapted(dy: Tensor, x: Tensor, output_size: Any) -> Tensor:
    """To all that each mean was taken of."""
    space = len(output_size)
    found = dy
    for place in range(space):
        dim = x.ndim - space + place
        found = _adapted(found, dim, x.shape[dim], dy.shape[dim])
    return found


def _adapted(dy: Tensor, dim: int, size: Any, parts: Any) -> Tensor:
    """Back along one axis: part i is the mean of those from ⌊i·size/parts⌋ to ⌈(i+1)·size/parts⌉."""
    if isinstance(parts, int) and parts == 1:
        return (dy / size).expand([size if d == dim else n for d, n in enumerate(dy.shape)])
    part = torch.arange(parts, device=dy.device).unsqueeze(1)
    place = torch.arange(size, device=dy.device)
    member = (place >= part * size // parts) & (place < ((part + 1) * size + parts - 1) // parts)
    shares = member.to(dy.dtype) / member.sum(1, keepdim=True)
    return (dy.movedim(dim, -1) @ shares).movedim(-1, dim)
