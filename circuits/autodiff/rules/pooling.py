"""Reverse rules of pooling: the cotangent goes to the maximal element, or in equal shares to the elements of a mean.

Maximum pools are replaced by operations that return the indices of the maxima, which are saved for backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.rules.registry import defines, per_axis, product, reverses

# Maxima with their indices --------------------------------------------------------------------------------------------


@defines("max_pool1d")
def max_pool1d(x: Tensor, *settings: Any) -> Tensor:
    """Return the maximum pool, computed as a pool over two spatial axes, the first of which has size 1."""
    options = [_with_unit_axis(each, place) for place, each in enumerate(settings)]
    return torch.ops.aten.max_pool2d_with_indices.default(x.unsqueeze(-2), *options)[0].squeeze(-2)


def _with_unit_axis(setting: Any, place: int) -> Any:
    """Return argument number `place` of a pool over one axis (2 is the padding) for two axes, the first unaffected."""
    if isinstance(setting, bool) or setting == []:
        return setting
    return [0 if place == 2 else 1, *per_axis(setting, 1)]


@defines("max_pool2d")
def max_pool2d(x: Tensor, *settings: Any) -> Tensor:
    """Return the maximum pool, computed by the operation that returns the indices too."""
    return torch.ops.aten.max_pool2d_with_indices.default(x, *settings)[0]


@defines("max_pool3d")
def max_pool3d(x: Tensor, *settings: Any) -> Tensor:
    """Return the maximum pool, computed by the operation that returns the indices too."""
    return torch.ops.aten.max_pool3d_with_indices.default(x, *settings)[0]


@reverses("max_pool2d_with_indices adaptive_max_pool2d")
def max_pool2d_rule(dy: Any, y: Any, x: Tensor) -> Tensor:
    """dx: each element of dy is added at the index of its maximum."""
    return _scattered(dy[0], y[1], x, 2)


@reverses("max_pool3d_with_indices adaptive_max_pool3d")
def max_pool3d_rule(dy: Any, y: Any, x: Tensor) -> Tensor:
    """dx: each element of dy is added at the index of its maximum, over three spatial axes."""
    return _scattered(dy[0], y[1], x, 3)


def _scattered(dy: Tensor, index: Tensor, x: Tensor, space: int) -> Tensor:
    """Return zeros like `x` with `dy` added at indices into its `space` flattened spatial axes."""
    flat = torch.zeros([*x.shape[:-space], product(x.shape[-space:])], dtype=x.dtype, device=x.device)
    return flat.scatter_add(-1, index.flatten(-space), dy.flatten(-space)).reshape(x.shape)


@reverses("avg_pool1d avg_pool2d avg_pool3d")
def avg_pool(
    dy: Tensor, y: Tensor, x: Tensor, kernel_size: Any, stride: Any, padding: Any, count_include_pad: bool,
    ceil_mode: bool, divisor_override: Any = None,
) -> Tensor:  # fmt: skip
    """dx is the transposed convolution of dy / divisor with a kernel of ones.

    A mean pool is a convolution with equal weights that is applied to each channel separately.
    """
    space, kernel_sizes = len(kernel_size), list(kernel_size)
    margins = per_axis(padding, space)
    strides = kernel_sizes if stride in (None, []) else per_axis(stride, space)
    leading = x.shape[: x.ndim - space]
    channels = [product(leading), 1]
    ones = torch.ones([1, 1, *x.shape[x.ndim - space :]], dtype=x.dtype, device=x.device)
    kernel = torch.ones([1, 1, *kernel_sizes], dtype=x.dtype, device=x.device)
    overhang = [
        (out - 1) * s + k - size - 2 * p
        for out, s, k, size, p in zip(
            y.shape[x.ndim - space :], strides, kernel_sizes, x.shape[x.ndim - space :], margins, strict=True
        )
    ]
    scaled = dy / _divisor(ones, kernel, strides, margins, overhang, count_include_pad, divisor_override, ceil_mode)
    none = [0] * space
    dx = torch.convolution(
        scaled.reshape([*channels, *y.shape[x.ndim - space :]]), kernel, None, strides, none, [1] * space, True, none, 1
    )
    for place, (size, p) in enumerate(zip(x.shape[x.ndim - space :], margins, strict=True)):
        dx = _cropped(dx, 2 + place, p, size)
    return dx.reshape(x.shape)


def _cropped(image: Tensor, dim: int, before: int, size: Any) -> Tensor:
    """Return `size` elements of an axis from index `before` on; if the axis is too short, zeros follow."""
    lacking = before + size - image.shape[dim]
    pad = [0, 0] * (image.ndim - 1 - dim) + [0, lacking]
    if not isinstance(lacking, int) or lacking > 0:
        image = F.pad(image, pad)
    return image.narrow(dim, before, size)


def _divisor(
    ones: Tensor, kernel: Tensor, strides: list[int], margins: list[int], overhang: list[Any], padded: bool,
    divisor: Any, ceil_mode: bool,
) -> Any:  # fmt: skip
    """Return the divisor of the sum of each window: one number, or a tensor if it is not the same for all windows.

    It is `divisor` unless that is None; otherwise the number of elements of the window that are inside the image or, if
    `padded`, inside the padded image.
    """
    space = len(strides)
    if divisor is not None:
        return divisor
    if not ceil_mode and (padded or not any(margins)):
        return kernel.numel()
    sides = [side for p in reversed(margins) for side in (p, p)]
    field = F.pad(ones, sides, value=1.0 if padded else 0.0)
    more = [side for each in reversed(overhang) for side in (0, max(0, each))]
    field = F.pad(field, more)
    none = [0] * space
    found = torch.convolution(field, kernel, None, strides, none, [1] * space, False, none, 1)
    return found.squeeze(0).squeeze(0)


@reverses("_adaptive_avg_pool2d adaptive_avg_pool2d adaptive_avg_pool1d _adaptive_avg_pool3d adaptive_avg_pool3d")
def adaptive_avg_pool(dy: Tensor, x: Tensor, output_size: Any) -> Tensor:
    """dx: each element of dy is divided equally among the elements of its window."""
    space = len(output_size)
    found = dy
    for place in range(space):
        dim = x.ndim - space + place
        found = _adaptive_mean(found, dim, x.shape[dim], dy.shape[dim])
    return found


def _adaptive_mean(dy: Tensor, dim: int, size: Any, parts: Any) -> Tensor:
    """Return the cotangent along one axis: part i is the mean of indexes ⌊i·size/parts⌋ to ⌈(i+1)·size/parts⌉ - 1."""
    if isinstance(parts, int) and parts == 1:
        return (dy / size).expand([size if d == dim else n for d, n in enumerate(dy.shape)])
    part = torch.arange(parts, device=dy.device).unsqueeze(1)
    place = torch.arange(size, device=dy.device)
    member = (place >= part * size // parts) & (place < ((part + 1) * size + parts - 1) // parts)
    shares = member.to(dy.dtype) / member.sum(1, keepdim=True)
    return (dy.movedim(dim, -1) @ shares).movedim(-1, dim)
