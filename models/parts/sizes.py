"""The check that constructors apply to their sizes: each is at least 1."""

from circuits import CircuitError


def refuse_sizes_below_one(name: str, **sizes: int | None) -> None:
    """Raise CircuitError, with the class's `name`, for the first size below 1; None is allowed.

    >>> refuse_sizes_below_one("MLP", m=512, k=0)
    Traceback (most recent call last):
        ...
    circuits.errors.CircuitError: MLP: k is 0; it may be 1 or more
    """
    for argument, size in sizes.items():
        if size is not None and size < 1:
            raise CircuitError(f"{name}: {argument} is {size}; it may be 1 or more")
