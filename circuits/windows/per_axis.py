"""Numbers of windows over several axes, given once for all axes or once for each."""

from collections.abc import Sequence

from circuits.errors import CircuitError

Padding = int | tuple[int, int]
"""The number of positions of padding: one number for both ends of an axis, or (before, after)."""


def per_axis(number: int | Sequence[int], count: int, plural: str) -> tuple[int, ...]:
    """Return one number for each of `count` axes, given once for all or once for each.

    `plural` is the name of the numbers in a message. Raises CircuitError if there are not as many numbers as axes.

    >>> per_axis(3, 2, "sizes"), per_axis((3, 5), 2, "sizes")
    ((3, 3), (3, 5))
    """
    found = tuple(number) if isinstance(number, Sequence) else (number,) * count
    if len(found) != count:
        raise CircuitError(f"{plural}: {len(found)} numbers for {count} axes; give one for all, or one for each")
    return found


def padding_pairs(padding: int | Sequence[Padding], count: int) -> tuple[tuple[int, int], ...]:
    """Return the padding (before, after) of each of `count` axes.

    Raises CircuitError if there are not as many paddings as axes.

    >>> padding_pairs(1, 2), padding_pairs((1, (0, 2)), 2)
    (((1, 1), (1, 1)), ((1, 1), (0, 2)))
    """
    found = tuple(padding) if isinstance(padding, Sequence) else (padding,) * count
    if len(found) != count:
        raise CircuitError(f"padding: {len(found)} numbers for {count} axes; give one for all, or one for each")
    return tuple([one if isinstance(one, tuple) else (one, one) for one in found])
