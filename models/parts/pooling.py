"""Pooling: unfold the image into windows, then take the maximum or the mean of each.

Over one, two or three spatial axes the kernels are torch's own operators; over more axes the definition runs.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3 and Figure 27.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import circuit, rearrange, reduce, unfold

from .space import Number, Padding, is_symmetric, pad_argument, space, windows_over, with_one_batch_axis

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@cache
def max_pool_over(n: int) -> Callable[..., Tensor]:
    """Return the circuit for max pooling over n spatial axes, as nn.MaxPool2d: with two axes, `... h w -> ... h' w'`.

    The circuit is called as `pool(image, size, *, stride=None, padding=0, dilation=1)`. Each of these is one number for
    all axes or one for each; the padding of an axis may also be a pair (before, after), of any size.

    - `size`: the number of positions of a window along an axis.
    - `stride`: the distance from one window to the next; by default `size`.
    - `padding`: the number of positions added at both ends of an axis, with the value -inf.
    - `dilation`: the distance between neighbouring positions of a window.

    Where several positions have the maximum, the gradient goes to the first.

    Args:
        n: The number of spatial axes, at least 1. From 4 on the definition runs, since torch has no operator.

    Returns:
        The circuit. It raises ShapeError if the image is smaller than a window, and CircuitError if size, stride,
        padding or dilation is out of range, or is a sequence with another length than the number of spatial axes.

    >>> max_pool_over(2)(torch.arange(16.0).reshape(4, 4), 2)
    tensor([[ 5.,  7.],
            [13., 15.]])
    """
    axes, window_axes, places = space(n)

    def define(
        image: Tensor, size: Number, *, stride: Number | None = None, padding: Padding = 0, dilation: Number = 1
    ) -> Tensor:
        """Return the maximum of each window of the image, which is padded with -inf."""
        windows = windows_over(n, size, size if stride is None else stride, 0, dilation, "zeros")
        padded = F.pad(image, pad_argument(n, padding), value=-torch.inf)
        unfolded = unfold(padded, f"... {axes} -> ... {window_axes} {places}", *windows)
        return rearrange(unfolded, f"... {window_axes} {places} -> ... {window_axes} ({places})").max(-1).values

    pool = _circuit(define, f"max_pool{n}d", n)
    if n not in _MAX:
        return pool

    @pool.kernel
    def _(
        image: Tensor, size: Number, *, stride: Number | None = None, padding: Padding = 0, dilation: Number = 1
    ) -> Tensor:
        """Call torch's operator; padding that it does not support is applied to the image first."""
        if not _torch_can_pad(size, padding):
            image, padding = F.pad(image, pad_argument(n, padding), value=-torch.inf), 0
        return _pool_by_torch(n, _MAX[n], image, size, stride, padding, dilation, padding, dilation)

    return pool


@cache
def mean_pool_over(n: int) -> Callable[..., Tensor]:
    """Return the circuit for mean pooling over n spatial axes, as nn.AvgPool2d: with two axes, `... h w -> ... h' w'`.

    The circuit is called as `pool(image, size, *, stride=None, padding=0)`, whose arguments are those of
    `max_pool_over`. Padded positions are zeros and count towards the mean, as in F.avg_pool2d by default.

    Args:
        n: The number of spatial axes, at least 1. From 4 on the definition runs, since torch has no operator.

    Returns:
        The circuit. It raises ShapeError and CircuitError as the circuit of `max_pool_over` does.

    >>> mean_pool_over(2)(torch.arange(16.0).reshape(4, 4), 2)
    tensor([[ 2.5000,  4.5000],
            [10.5000, 12.5000]])
    """
    axes, window_axes, places = space(n)

    def define(image: Tensor, size: Number, *, stride: Number | None = None, padding: Padding = 0) -> Tensor:
        """Return the mean of each window of the image, which is padded with zeros."""
        windows = windows_over(n, size, size if stride is None else stride, padding, 1, "zeros")
        unfolded = unfold(image, f"... {axes} -> ... {window_axes} {places}", *windows)
        return reduce(unfolded, f"... {window_axes} {places} -> ... {window_axes}", "mean")

    pool = _circuit(define, f"mean_pool{n}d", n)
    if n not in _MEAN:
        return pool

    @pool.kernel
    def _(image: Tensor, size: Number, *, stride: Number | None = None, padding: Padding = 0) -> Tensor:
        """Call torch's operator; padding that it does not support is applied to the image first."""
        if not _torch_can_pad(size, padding):
            image, padding = F.pad(image, pad_argument(n, padding)), 0
        return _pool_by_torch(n, _MEAN[n], image, size, stride, padding, 1, padding)

    return pool


def _circuit(define: Callable[..., Tensor], name: str, n: int) -> Any:
    """Return the circuit of a definition, named so that pickle finds it in this module; see `__getattr__`."""
    axes, window_axes, _ = space(n)
    define.__name__ = define.__qualname__ = name
    return circuit(f"... {axes} -> ... {window_axes}")(define)


def _torch_can_pad(size: Number, padding: Padding) -> bool:
    """Return whether torch's pooling supports the padding: equal before and after, and at most half a window."""
    if isinstance(size, int) and isinstance(padding, int):
        return 0 <= 2 * padding <= size
    if not is_symmetric(padding):
        return False
    n = len(size) if isinstance(size, Sequence) else len(padding) if isinstance(padding, Sequence) else 1
    sizes, paddings = ([one] * n if isinstance(one, int) else [*one] for one in (size, padding))
    return all(0 <= 2 * pad <= size for pad, size in zip(paddings, sizes, strict=False))  # type: ignore[operator]


def _pool_by_torch(
    n: int,
    operator: Callable[..., Tensor],
    image: Tensor,
    size: Number,
    stride: Number | None,
    padding: Padding,
    dilation: Number,
    *options: Any,
) -> Tensor:
    """Call a pooling operator of torch, which needs an axis before the spatial ones.

    If torch raises because the image is smaller than a window, raise ShapeError with the name of the axis.
    """
    unbatched = image.ndim == n
    try:
        pooled = with_one_batch_axis(n + 1, operator, image[None] if unbatched else image, size, stride, *options)
    except RuntimeError:
        windows = windows_over(n, size, size if stride is None else stride, padding, dilation, "zeros")
        for window, length in zip(windows, image.shape[-n:], strict=True):
            window.count(length)
        raise
    return pooled[0] if unbatched else pooled


max_pool1d: Callable[..., Tensor]
max_pool2d: Callable[..., Tensor]
max_pool3d: Callable[..., Tensor]
mean_pool1d: Callable[..., Tensor]
mean_pool2d: Callable[..., Tensor]
mean_pool3d: Callable[..., Tensor]
max_pool1d, max_pool2d, max_pool3d = (max_pool_over(n) for n in (1, 2, 3))
mean_pool1d, mean_pool2d, mean_pool3d = (mean_pool_over(n) for n in (1, 2, 3))


def __getattr__(name: str) -> Callable[..., Tensor]:
    """Return a circuit over any number of axes by its name, such as `max_pool4d`, so that pickle finds it."""
    found = re.fullmatch(r"(max|mean)_pool([1-9]\d*)d", name)
    if found is None:
        raise AttributeError(f"{__name__} has no {name}")
    return (max_pool_over if found[1] == "max" else mean_pool_over)(int(found[2]))
