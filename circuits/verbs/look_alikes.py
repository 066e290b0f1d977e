"""Warn of an axis of an einsum that is probably a misspelt name: it is in one tensor only, beside one that looks alike.

`"b in_dim, in_dimm out -> b out"` is a valid einsum, which sums `in_dim` and `in_dimm` one by one. Names differ on
purpose in a digit, a prime, a first or a last letter, or a part of one or two letters (`q_len`, `k_len`): none of these
is warned of, nor are names of fewer than four letters, nor two names in one tensor.
"""

import warnings

from circuits.errors import CircuitWarning, point
from circuits.signature import Axis, Signature, places
from circuits.tracebacks import users_frame

SHORTEST = 4
"""The fewest letters of a name that can be misspelt."""


def warn_of_look_alikes(signature: Signature) -> None:
    """Warn, at the user's line, of each axis that is summed in one tensor only and looks like an axis of another."""
    tensors = [[term.name for term in axes if isinstance(term, Axis)] for axes in signature.inputs]
    kept = {name for axes in signature.outputs for term in axes for name in term.names}
    warned: set[str] = set()
    named = dict.fromkeys(name for names in tensors for name in names)
    for name in reversed([name for name in named if name not in kept]):
        inside = [names for names in tensors if name in names]
        others = {each for names in tensors if name not in names for each in names} - {*inside[0]} - warned
        alike = [each for each in named if each in others and looks_like(each, name)]
        if len(inside) == 1 and inside[0].count(name) == 1 and alike:
            warned.add(name)
            _warn(signature, name, alike[0], sum(alike[0] in names for names in tensors) == 1 and alike[0] not in kept)


def _warn(signature: Signature, name: str, alike: str, both: bool) -> None:
    """Warn of one axis; `both` says whether the other is summed alone too, so that either may be the misspelt one."""
    names = (name, alike) if both else (name,)
    spans = [span for _, _, term, span in places(signature) if term.names in [(each,) for each in names]]
    text = f"einsum sums over {name}, which only one tensor has: is it {alike}?"
    if both:
        text = f"einsum sums over {alike} and over {name}, each in one tensor only: are they one axis?"
    text = f"{text}\n{point(str(signature), *spans)}"
    frame = users_frame()
    if frame is None:
        warnings.warn(text, CircuitWarning, stacklevel=2)
        return
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    module = f"{frame.f_globals.get('__name__')}"
    warnings.warn_explicit(text, CircuitWarning, frame.f_code.co_filename, frame.f_lineno, module, registry)


def looks_like(one: str, other: str) -> bool:
    """Return whether two names differ by a slip: a letter too many or too few, another one, two swapped, or the case.

    >>> looks_like("in_dim", "in_dimm"), looks_like("channel", "chanenl"), looks_like("hidden", "Hidden")
    (True, True, True)
    >>> looks_like("q_len", "k_len"), looks_like("axis1", "axis2"), looks_like("width", "width'")
    (False, False, False)
    """
    if min(len(one), len(other)) < SHORTEST or one == other:
        return False
    if one.lower() == other.lower():
        return True
    short, long = sorted((one, other), key=len)
    start = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) == len(long):
        swapped = short[start : start + 2] == long[start : start + 2][::-1]
        if swapped and short[start + 2 :] == long[start + 2 :]:
            return short[start : start + 2].isalpha()
        inner = 0 < start < len(short) - 1 and _parts_are_long(one, other)
        return inner and short[start + 1 :] == long[start + 1 :] and (short[start] + long[start]).isalpha()
    extra = long[start]
    if len(long) != len(short) + 1 or short[start:] != long[start + 1 :] or start == 0:
        return False
    if extra == long[start - 1]:
        return extra.isalpha()
    at_an_end = start == len(short) and extra != "s"
    return (extra.isalpha() or extra == "_") and not at_an_end and _parts_are_long(one, other)


def _parts_are_long(one: str, other: str) -> bool:
    """Return whether no part by which two names differ, between underscores, has fewer than three letters."""
    ones, others = one.split("_"), other.split("_")
    return len(ones) != len(others) or all(
        a == b or min(len(a), len(b)) >= 3 for a, b in zip(ones, others, strict=True)
    )
