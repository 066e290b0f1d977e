"""Helpers for convolution and pooling: names and windows of spatial axes, options per axis, calls of torch's operators.

As in torch.nn.functional, an argument such as `stride` is one number for all spatial axes, or one for each; the padding
of an axis may also be a pair (before, after).
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from circuits import CircuitError, ShapeError, Window, fold, rearrange

Number = int | Sequence[int]
"""One number for all spatial axes, or one for each."""

Padding = int | Sequence[int | tuple[int, int]]
"""One number for all spatial axes, or for each axis a number or a pair (before, after)."""

Mode = Literal["zeros", "reflect", "replicate", "circular"]
"""The values of padding, as nn.Conv2d's `padding_mode`."""


def space(n: int) -> tuple[str, str, str]:
    """Return the names of n spatial axes, of the axes of their windows, and of the positions within a window.

    >>> space(2)
    ('h w', "h' w'", 'i j')
    """
    axes = ["d", "h", "w"][3 - n :] if n <= 3 else [f"x{number}" for number in range(n)]
    places = ["l", "i", "j"][3 - n :] if n <= 3 else [f"i{number}" for number in range(n)]
    return " ".join(axes), " ".join([f"{axis}'" for axis in axes]), " ".join(places)


def windows_over(
    n: int, size: Number, stride: Number, padding: Padding, dilation: Number, mode: Any
) -> tuple[Window, ...]:
    """Return one Window for each of n spatial axes, with the axis names of `space(n)`."""
    axes, windows, places = space(n)
    return Window.over(
        f"{axes} -> {windows} {places}",
        size,
        stride=stride,
        dilation=dilation,
        padding=padding,
        mode=mode,
    )


def output_sizes(windows: tuple[Window, ...], counts: Sequence[int], output_padding: Number) -> dict[str, int]:
    """Return the size of each spatial axis of a transposed convolution's output, by name.

    Args:
        windows: The window of each spatial axis.
        counts: The size of each spatial axis of the input: the number of its windows in the output.
        output_padding: The number of positions of an output axis beyond the smallest size with these windows; one for
            all axes, or one for each.

    Raises:
        CircuitError: If the output padding of an axis is negative or not less than the stride, or is a sequence with
            another length than the number of axes.
        ShapeError: If an axis would have no positions, because the padding removes all of them.
    """
    extras = [output_padding] * len(windows) if isinstance(output_padding, int) else [*output_padding]
    if len(extras) != len(windows):
        raise CircuitError(
            f"output_padding: expected one number, or a sequence of {len(windows)}, one for each axis;"
            f" got a sequence of {len(extras)}"
        )
    sizes: dict[str, int] = {}
    for window, count, extra in zip(windows, counts, extras):  # noqa: B905  (the lengths were just compared)
        if not 0 <= extra < window.stride:
            valid = f"0 to {window.stride - 1}, less than the stride" if window.stride > 1 else "0 at a stride of 1"
            raise CircuitError(f"the output padding of {window.axis} is {extra}; it may be {valid}")
        size = window.least(count) + extra
        if size < 1:
            raise ShapeError(f"{window.axis} would have size {size}: the padding of {window} removes all positions")
        sizes[window.axis] = size
    return sizes


def within(numbers: Number, bounds: Number) -> bool:
    """Return whether each number is at least 0 and less than its bound, as output padding is less than the stride.

    >>> within((0, 1), 2), within(1, (1, 2))
    (True, False)
    """
    if isinstance(numbers, int):
        return 0 <= numbers < (bounds if isinstance(bounds, int) else min(bounds))
    several = (bounds,) * len(numbers) if isinstance(bounds, int) else bounds
    return len(several) == len(numbers) and all(0 <= number < bound for number, bound in zip(numbers, several))  # noqa: B905


def per_channel(bias: Tensor, n: int) -> Tensor:
    """Return the bias of each channel with n axes of size 1 after it, so that it broadcasts over the spatial axes."""
    return rearrange(bias, f"c -> c{' 1' * n}")


def as_tuples(numbers: Any) -> Any:
    """Return the same numbers with every sequence as a tuple; a configuration read from a file has lists.

    >>> as_tuples([1, [0, 2]])
    (1, (0, 2))

    Raises CircuitError for anything else.
    """
    if isinstance(numbers, Sequence) and not isinstance(numbers, str):
        return tuple([as_tuples(one) for one in numbers])
    if isinstance(numbers, bool) or not hasattr(numbers, "__index__"):
        raise CircuitError(f"expected a whole number, or a sequence of them, one for each axis; got {numbers!r}")
    whole: Any = numbers
    return operator.index(whole)


def is_symmetric(padding: Padding) -> bool:
    """Return whether the padding of every axis is one number, the same before the axis as after it."""
    return isinstance(padding, int) or all(isinstance(one, int) for one in padding)


def pad_argument(n: int, padding: Padding) -> list[int]:
    """Return the padding of the last n axes as F.pad takes it: before and after, the last axis first.

    Raises CircuitError if `padding` is a sequence of another length than n.
    """
    each = [padding] * n if isinstance(padding, int) else [*padding]
    if len(each) != n:
        raise CircuitError(
            f"padding: expected one number, or a sequence of {n}, one for each axis; got a sequence of {len(each)}"
        )
    argument: list[int] = []
    for one in reversed(each):
        argument += [one, one] if isinstance(one, int) else [*one]
    return argument


def transposed_pad(n: int, image: Tensor, padding: Padding, mode: Any) -> Tensor:
    """Apply the transpose of padding: a padded position is dropped, or added to the position that it copies.

    Padding is an unfold with windows of one position, so its transpose is the fold.
    """
    axes, window_axes, places = space(n)
    windows = windows_over(n, 1, 1, padding, 1, mode)
    image = rearrange(image, f"... {axes} -> ... {axes}{' 1' * n}")
    return fold(image, f"... {window_axes} {places} -> ... {axes}", *windows)


def with_one_batch_axis(named: int, operator: Callable[..., Tensor], image: Tensor, *options: Any) -> Tensor:
    """Call an operator of torch that takes `named` axes and at most one batch axis, under any number of batch axes."""
    if image.ndim <= named + 1:
        return operator(image, *options)
    lead = image.shape[:-named]
    return operator(image.flatten(0, -named - 1), *options).unflatten(0, lead)
