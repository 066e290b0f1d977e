"""A counterexample made as small as it goes: where a law does not hold, it is looked at with smaller sizes.

The same seed and the same sizes give the same counterexample, so what is told can be asked for again.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec

from circuits.laws.comparison import Broken
from circuits.laws.subject import Subject

P = ParamSpec("P")

LARGEST = 5
"""Up to so many places of an axis are tried, the fewest first: most mistakes show where there are one or two."""


def small(law: Callable[P, None]) -> Callable[P, None]:
    """The same law, whose counterexample has the smallest sizes found, one free axis after another.

    An axis is free unless the circuit or the caller fixes its size. With smaller sizes something else may be wrong, as
    a variance of one number is: what counts is that the same is said, but for its numbers.
    """

    @functools.wraps(law)
    def look(*args: P.args, **kwargs: P.kwargs) -> None:
        broken = _broken(law, args, kwargs)
        if broken is None:
            return
        free = _free(broken.subject)
        for name in free:
            for size in _smaller(free[name], broken.subject.multiple(name, free)):
                sizes = {**(kwargs.get("sizes") or {}), **free, name: size}  # pyright: ignore[reportGeneralTypeIssues]
                again = _quietly(law, args, {**kwargs, "sizes": sizes})
                if again is not None and _words(again) == _words(broken):
                    free[name], broken = size, again
                    break
        raise AssertionError(f"{broken}")

    return look


def _broken(law: Callable[..., None], args: Any, kwargs: Mapping[str, Any]) -> Broken | None:
    """How the law is broken, if it is."""
    try:
        law(*args, **kwargs)
    except Broken as broken:
        return broken
    return None


def _quietly(law: Callable[..., None], args: Any, kwargs: Mapping[str, Any]) -> Broken | None:
    """The same, where the circuit itself may refuse its inputs or fail on them."""
    try:
        return _broken(law, args, kwargs)
    except Exception:
        return None


def _free(subject: Subject) -> dict[str, Any]:
    """The sizes that nobody fixes; those that `...` stands for come last."""
    sizes: dict[str, Any] = {name: size for name, size in subject.sizes.items() if subject.is_free(name)}
    return {**sizes, "...": subject.lead} if subject.lead and subject.is_free("...") else sizes


def _smaller(size: Any, step: int) -> Iterator[Any]:
    """Smaller sizes that may be, the smallest first; of those that `...` stands for, fewer."""
    if isinstance(size, int):
        yield from range(step, min(size, LARGEST * step + 1), step)
    else:
        yield ()
        yield from ((each,) for each in _smaller(size[0], 1))


def _words(broken: Broken) -> list[str]:
    """What is said, without its numbers."""
    return re.findall(r"[A-Za-z_]+", re.sub(r"\[[^]]*\]|-?\d[\w.+-]*", "", broken.what))
