"""Objects in the result of a run that a diagram cannot make again."""

from typing import Any

from circuits.diagram import kind_of, unopened


def unopened_result(result: Any) -> str:
    """Return which object in the result of a run cannot be made again, because it may hold tensors; empty if none.

    A diagram would return the recorded object, with the recorded tensors in it.
    """
    objects = [f"{where} is of type {kind_of(value).__name__}" for where, value in unopened(result, "the result")]
    return ", ".join(objects[:1])


__all__ = ["unopened_result"]
