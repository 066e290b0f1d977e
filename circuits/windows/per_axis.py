"""Sizes, strides, dilations and padding of windows over several axes, given once for all axes or once for each."""

from collections.abc import Sequence
from typing import TypeVar

from circuits.errors import CircuitError

Number = TypeVar("Number")
"""The type of one number: an int, or a Padding."""

Padding = int | tuple[int, int]
"""The number of positions of padding: one number for both ends of an axis, or (before, after)."""


def per_axis(number: Number | Sequence[Number], count: int, plural: str) -> tuple[Number, ...]:
    """Return one number for each of `count` axes, given once for all or once for each.

    `plural` is the name of the numbers in a message. Raises CircuitError if `number` is a sequence of another length
    than `count`.

    >>> per_axis(3, 2, "sizes"), per_axis((3, 5), 2, "sizes")
    ((3, 3), (3, 5))
    """
    found = tuple(number) if isinstance(number, Sequence) else (number,) * count
    if len(found) != count:
        raise CircuitError(
            f"{plural}: expected one number, or a sequence of {count}, one for each axis;"
            f" got a sequence of {len(found)}"
        )
    return found


def padding_pairs(padding: int | Sequence[Padding], count: int) -> tuple[tuple[int, int], ...]:
    """Return the padding (before, after) of each of `count` axes.

    Raises CircuitError if `padding` is a sequence of another length than `count`.

    >>> padding_pairs(1, 2), padding_pairs((1, (0, 2)), 2)
    (((1, 1), (1, 1)), ((1, 1), (0, 2)))
    """
    return tuple([one if isinstance(one, tuple) else (one, one) for one in per_axis(padding, count, "padding")])
