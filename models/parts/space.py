"""Axes of space: their names, the numbers given for them, and torch's operators on them.

What convolutions and pools share. A number is given for all axes at once or one by one, as in torch; the padding of an
axis may also be (before, after).
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from circuits import CircuitError, ShapeError, Window, fold, rearrange

Number = int | Sequence[int]
"""One number for all axes of space, or one for each."""

Padding = int | Sequence[int | tuple[int, int]]
"""The same, where an axis may also have (before, after)."""


def space(n: int) -> tuple[str, str, str]:
    """The names of n axes of space, of their windows and of the places in these.

    >>> space(2)
    ('h w', "h' w'", 'i j')
    """
    axes = ["d", "h", "w"][3 - n :] if n <= 3 else [f"x{place}" for place in range(n)]
    places = ["l", "i", "j"][3 - n :] if n <= 3 else [f"i{place}" for place in range(n)]
    return " ".join(axes), " ".join([f"{axis}'" for axis in axes]), " ".join(places)


def windows_over(
    n: int, size: Number, stride: Number, padding: Padding, dilation: Number, mode: Any
) -> tuple[Window, ...]:
    """The window of each axis of space."""
    axes, windows, places = space(n)
    return Window.over(
        f"{axes} -> {windows} {places}",
        size,
        stride=stride,
        dilation=dilation,
        padding=padding,
        mode=mode,
    )


def longer(windows: tuple[Window, ...], counts: Sequence[int], output_padding: Number) -> dict[str, int]:
    """The sizes of the answer of a transposed convolution; CircuitError where too much is added."""
    more = [output_padding] * len(windows) if isinstance(output_padding, int) else [*output_padding]
    if len(more) != len(windows):
        raise CircuitError(f"output_padding: {len(more)} numbers for {len(windows)} axes; give one, or one for each")
    sizes: dict[str, int] = {}
    for window, count, extra in zip(windows, counts, more):  # noqa: B905  (just compared)
        if not 0 <= extra < window.stride:
            what = f"0 to {window.stride - 1}, less than the stride" if window.stride > 1 else "0 at a stride of 1"
            raise CircuitError(f"the output padding of {window.axis} is {extra}; it may be {what}")
        size = window.least(count) + extra
        if size < 1:
            raise ShapeError(f"{window.axis} would be {size}: that is all the padding of {window} leaves")
        sizes[window.axis] = size
    return sizes


def within(numbers: Number, bounds: Number) -> bool:
    """Whether each number is 0 or more and less than its bound, as an output padding is than its stride.

    >>> within((0, 1), 2), within(1, (1, 2))
    (True, False)
    """
    if isinstance(numbers, int):
        return 0 <= numbers < (bounds if isinstance(bounds, int) else min(bounds))
    several = (bounds,) * len(numbers) if isinstance(bounds, int) else bounds
    return len(several) == len(numbers) and all(0 <= number < bound for number, bound in zip(numbers, several))  # noqa: B905


def spread(bias: Tensor, n: int) -> Tensor:
    """A bias for each channel, with axes of 1 for space."""
    return rearrange(bias, f"c -> c{' 1' * n}")


def settled(numbers: Any) -> Any:
    """The same numbers in tuples, however they came: as lists from a file, say.

    >>> settled([1, [0, 2]])
    (1, (0, 2))
    """
    return numbers if isinstance(numbers, int) else tuple([settled(one) for one in numbers])


def even(padding: Padding) -> bool:
    """Whether as much is padded before each axis as after it, said by one number."""
    return isinstance(padding, int) or all(isinstance(one, int) for one in padding)


def border(n: int, padding: Padding) -> list[int]:
    """The padding of the last n axes, as F.pad takes it: the last axis first."""
    each = [padding] * n if isinstance(padding, int) else [*padding]
    if len(each) != n:
        raise CircuitError(f"padding: {len(each)} numbers for {n} axes; give one for all, or one for each")
    border: list[int] = []
    for one in reversed(each):
        border += [one, one] if isinstance(one, int) else [*one]
    return border


def unpadded(n: int, image: Tensor, padding: Padding, mode: Any) -> Tensor:
    """The transpose of padding, which is a window of one place."""
    axes, windows, places = space(n)
    looking = Window.over(f"{axes} -> {windows} {places}", 1, padding=padding, mode=mode)
    image = rearrange(image, f"... {axes} -> ... {axes}{' 1' * n}")
    return fold(image, f"... {windows} {places} -> ... {axes}", *looking)


def flat(named: int, operator: Callable[..., Tensor], image: Tensor, *options: Any) -> Tensor:
    """One of torch's operators on `named` axes, with none, one or many axes before them."""
    if image.ndim <= named + 1:
        return operator(image, *options)
    lead = image.shape[:-named]
    return operator(image.flatten(0, -named - 1), *options).unflatten(0, lead)
