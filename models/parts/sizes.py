"""The checks that constructors apply to their sizes, each a whole number of at least 1, and to their probabilities."""

from typing import Any

from circuits import CircuitError


def is_whole(number: Any, least: int = 1) -> bool:
    """Return whether a number is whole, as an int or a numpy integer is and a bool is not, and at least `least`."""
    return hasattr(number, "__index__") and not isinstance(number, bool) and number >= least


def refuse_sizes_below_one(name: str, **sizes: int | None) -> None:
    """Raise CircuitError, with the class's `name`, for the first size that is not a whole number from 1; None may be.

    >>> refuse_sizes_below_one("MLP", m=512, k=0)
    Traceback (most recent call last):
        ...
    circuits.errors.CircuitError: MLP: k is 0; it may be 1 or more
    """
    for argument, size in sizes.items():
        if size is not None and not is_whole(size):
            kind = "" if isinstance(size, int) and not isinstance(size, bool) else "a whole number, "
            raise CircuitError(f"{name}: {argument} is {size!r}; it may be {kind}1 or more")


def refuse_no_probability(name: str, **probabilities: float) -> None:
    """Raise CircuitError, with the class's `name`, for the first number that is not from 0 to 1.

    >>> refuse_no_probability("MultiHeadAttention", dropout=1.5)
    Traceback (most recent call last):
        ...
    circuits.errors.CircuitError: MultiHeadAttention: dropout is 1.5; it may be 0 to 1
    """
    for argument, number in probabilities.items():
        if isinstance(number, bool | str) or not 0 <= number <= 1:
            raise CircuitError(f"{name}: {argument} is {number!r}; it may be 0 to 1")


def refuse_no_divisor(name: str, h: int, groups: int) -> None:
    """Raise CircuitError, with the class's `name`, unless h heads can share this number of groups of keys and values.

    >>> refuse_no_divisor("MultiHeadAttention", 6, 4)
    Traceback (most recent call last):
        ...
    circuits.errors.CircuitError: MultiHeadAttention: 6 heads cannot share 4 groups; groups may be 1, 2, 3, 6
    """
    if not is_whole(groups) or h % groups:
        possible = ", ".join(f"{g}" for g in range(1, h + 1) if h % g == 0)
        raise CircuitError(f"{name}: {h} heads cannot share {groups} groups; groups may be {possible}")


def refuse_odd(name: str, **widths: int) -> None:
    """Raise CircuitError, with the class's `name`, for the first width that is odd or below 2."""
    for argument, k in widths.items():
        if not is_whole(k, 2) or k % 2:
            near = f"{k - 1} or {k + 1}" if is_whole(k, 3) else "2"
            raise CircuitError(f"{name}: entries are rotated in pairs; {argument} may be {near}, not {k}")


def refuse_not_above_zero(name: str, **numbers: float) -> None:
    """Raise CircuitError, with the class's `name`, for the first number that is not above 0."""
    for argument, number in numbers.items():
        if not number > 0:
            raise CircuitError(f"{name}: {argument} is {number}; it may be any number above 0")


def refuse_negative_start(start: int) -> None:
    """Raise CircuitError if the first position is below 0."""
    if start < 0:
        raise CircuitError(f"start, the first vector's position, is {start}; it may be 0 or more")
