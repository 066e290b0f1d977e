"""Small counterexamples: a law that does not hold is checked again with smaller sizes.

The same seed and the same sizes give the same counterexample, so that the message is enough to reproduce it.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec

from circuits.errors import CircuitError
from circuits.laws.comparison import BrokenLaw
from circuits.laws.subject import Subject
from circuits.tracebacks import hide_frames

P = ParamSpec("P")

LARGEST_TRIED = 5
"""The largest size that is tried for an axis, from 1 upwards: most mistakes show at sizes 1 and 2."""


def smallest_counterexample(law: Callable[P, None]) -> Callable[P, None]:
    """Decorator of a law: if it does not hold, reduce its sizes and raise AssertionError with the smallest found.

    The sizes of free axes are reduced one after another; an axis is free unless the circuit or the caller fixes its
    size. At a smaller size the circuit may fail in another way (as the variance of a single number does), so that a
    size is accepted only if the message is the same except for its numbers.
    """

    @functools.wraps(law)
    def run_law(*args: P.args, **kwargs: P.kwargs) -> None:
        failure = None
        try:
            broken = _run(law, args, kwargs)
            if broken is not None:
                failure = AssertionError(f"{_smallest(broken, law, args, kwargs)}")
                raise failure
        except (CircuitError, AssertionError) as error:
            if error is failure or isinstance(error, CircuitError):  # not an assertion of the caller's own code
                hide_frames(error)
            raise
        finally:
            del failure  # Otherwise the exception, which has this frame in its traceback, would hold itself.

    return run_law


def without_our_frames(law: Callable[P, None]) -> Callable[P, None]:
    """Decorator of a law: the last line that the traceback of an error shows is the caller's."""

    @functools.wraps(law)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            law(*args, **kwargs)
        except (CircuitError, BrokenLaw) as error:
            hide_frames(error)
            raise

    return call


def _smallest(broken: BrokenLaw, law: Callable[..., None], args: Any, kwargs: Mapping[str, Any]) -> BrokenLaw:
    """Return the counterexample with the smallest sizes that is found."""
    free = _free_sizes(broken.subject)
    for name in free:
        for size in _smaller_sizes(free[name], broken.subject.axis_sizes.multiple(name, free)):
            sizes = {**(kwargs.get("sizes") or {}), **free, name: size}
            again = _run_or_none(law, args, {**kwargs, "sizes": sizes})
            if again is not None and _wording(again) == _wording(broken):
                free[name], broken = size, again
                break
    return broken


def _run(law: Callable[..., None], args: Any, kwargs: Mapping[str, Any]) -> BrokenLaw | None:
    """Check a law; return the BrokenLaw that it raises, or None if it holds."""
    try:
        law(*args, **kwargs)
    except BrokenLaw as broken:
        return broken
    return None


def _run_or_none(law: Callable[..., None], args: Any, kwargs: Mapping[str, Any]) -> BrokenLaw | None:
    """Check a law as `_run` does; return None also if any other error is raised at these sizes."""
    try:
        return _run(law, args, kwargs)
    except Exception:
        return None


def _free_sizes(subject: Subject) -> dict[str, Any]:
    """Return the sizes that neither the caller nor the circuit fixes, by axis; the sizes of `...` come last."""
    sizes: dict[str, Any] = {name: size for name, size in subject.sizes.items() if subject.axis_sizes.is_free(name)}
    return {**sizes, "...": subject.lead} if subject.lead and subject.axis_sizes.is_free("...") else sizes


def _smaller_sizes(size: Any, step: int) -> Iterator[Any]:
    """Yield smaller sizes, smallest first: multiples of `step`; for `...`, no axis, then one axis of each size."""
    if isinstance(size, int):
        yield from range(step, min(size, LARGEST_TRIED * step + 1), step)
    else:
        yield ()
        yield from ((each,) for each in _smaller_sizes(size[0], 1))


def _wording(broken: BrokenLaw) -> list[str]:
    """Return the words of a message without its numbers."""
    return re.findall(r"[A-Za-z_]+", re.sub(r"\[[^]]*\]|-?\d[\w.+-]*", "", broken.finding))
