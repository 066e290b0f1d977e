"""Pooling: a window, then the largest or the mean of what it sees.

Kernels are torch's own operators, for one, two and three axes of space; over more axes the definition runs.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3 and Figure 27.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import circuit, rearrange, reduce, unfold

from .space import Number, Padding, border, even, flat, space, windows_over

_LARGEST: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@cache
def max_pool_over(n: int) -> Callable[..., Tensor]:
    """The circuit that takes the largest number of each window of `size` over n axes: `... h w -> ... h' w'`.

    Windows begin `stride` apart, by default as far as they are long. Padding is smaller than any number; an axis may
    have (before, after). The gradient goes to the first of equal numbers. Raises ShapeError where a window does not fit
    and CircuitError for numbers that cannot be.

    >>> max_pool_over(2)(torch.arange(16.0).reshape(4, 4), 2)
    tensor([[ 5.,  7.],
            [13., 15.]])
    """
    axes, windows, places = space(n)

    def define(
        image: Tensor, size: Number, *, stride: Number | None = None, padding: Padding = 0, dilation: Number = 1
    ) -> Tensor:
        """Look through windows; the largest of each."""
        looking = windows_over(n, size, size if stride is None else stride, 0, dilation, "zeros")
        padded = F.pad(image, border(n, padding), value=-torch.inf)
        seen = unfold(padded, f"... {axes} -> ... {windows} {places}", *looking)
        return rearrange(seen, f"... {windows} {places} -> ... {windows} ({places})").max(-1).values

    pool = _made(define, f"max_pool{n}d", n)
    if n not in _LARGEST:
        return pool

    @pool.kernel
    def _(
        image: Tensor, size: Number, *, stride: Number | None = None, padding: Padding = 0, dilation: Number = 1
    ) -> Tensor:
        """torch's operator, on an image padded before where it would not pad as far."""
        if not _pads(size, padding):
            image, padding = F.pad(image, border(n, padding), value=-torch.inf), 0
        return _pooled(n, _LARGEST[n], image, size, stride, padding, dilation, padding, dilation)

    return pool


@cache
def mean_pool_over(n: int) -> Callable[..., Tensor]:
    """The circuit that takes the mean of each window of `size` over n axes: `... h w -> ... h' w'`.

    Windows begin `stride` apart, by default as far as they are long. Padding is zeros and counts, as in F.avg_pool2d.
    Raises as max pooling does.

    >>> mean_pool_over(2)(torch.arange(16.0).reshape(4, 4), 2)
    tensor([[ 2.5000,  4.5000],
            [10.5000, 12.5000]])
    """
    axes, windows, places = space(n)

    def define(image: Tensor, size: Number, *, stride: Number | None = None, padding: Padding = 0) -> Tensor:
        """Look through windows; the mean of each."""
        looking = windows_over(n, size, size if stride is None else stride, padding, 1, "zeros")
        seen = unfold(image, f"... {axes} -> ... {windows} {places}", *looking)
        return reduce(seen, f"... {windows} {places} -> ... {windows}", "mean")

    pool = _made(define, f"mean_pool{n}d", n)
    if n not in _MEAN:
        return pool

    @pool.kernel
    def _(image: Tensor, size: Number, *, stride: Number | None = None, padding: Padding = 0) -> Tensor:
        """torch's operator, on an image padded before where it would not pad as far."""
        if not _pads(size, padding):
            image, padding = F.pad(image, border(n, padding)), 0
        return _pooled(n, _MEAN[n], image, size, stride, padding, 1, padding)

    return pool


def _made(define: Callable[..., Tensor], name: str, n: int) -> Any:
    """The circuit of a definition, under its name."""
    axes, windows, _ = space(n)
    define.__name__ = define.__qualname__ = name
    return circuit(f"... {axes} -> ... {windows}")(define)


def _pads(size: Number, padding: Padding) -> bool:
    """Whether torch's pools can pad so: as much before as after, and half a window at most."""
    if isinstance(size, int) and isinstance(padding, int):
        return 0 <= 2 * padding <= size
    if not even(padding):
        return False
    n = len(size) if isinstance(size, Sequence) else len(padding) if isinstance(padding, Sequence) else 1
    windows, borders = ([one] * n if isinstance(one, int) else [*one] for one in (size, padding))
    return all(0 <= 2 * pad <= window for pad, window in zip(borders, windows, strict=False))  # type: ignore[operator]


def _pooled(
    n: int,
    operator: Callable[..., Tensor],
    image: Tensor,
    size: Number,
    stride: Number | None,
    padding: Padding,
    dilation: Number,
    *options: Any,
) -> Tensor:
    """torch's pool, which wants an axis before those of space; where it refuses, the size at fault is named."""
    lone = image.ndim == n
    try:
        pooled = flat(n + 1, operator, image[None] if lone else image, size, stride, *options)
    except RuntimeError:
        windows = windows_over(n, size, size if stride is None else stride, padding, dilation, "zeros")
        for window, length in zip(windows, image.shape[-n:], strict=True):
            window.count(length)
        raise
    return pooled[0] if lone else pooled


max_pool1d, max_pool2d, max_pool3d = (max_pool_over(n) for n in (1, 2, 3))
mean_pool1d, mean_pool2d, mean_pool3d = (mean_pool_over(n) for n in (1, 2, 3))
