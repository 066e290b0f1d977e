"""Read `h -> h' i<3: 2*h' + i - 1 < h + 2, reflect` into the names and numbers of a window.

What such a text means is `windows`' business. Its arithmetic is that of signatures: names and numbers, with `*`, `/`,
`+` and `-` between them.
"""

import re
from collections.abc import Mapping
from typing import Any

from circuits.errors import SignatureError, point
from circuits.signature import Axis, Signature, Term, parse_axes

_TEXT = re.compile(
    r"\s*(?P<axes>[^:<]+?)\s*(?:<\s*(?P<size>[^:<]+?)\s*)?:\s*(?P<map>[^:<,]+?)\s*(?:<\s*(?P<end>[^:<,]+?)\s*)?"
    r"(?:,\s*(?P<mode>\w+)\s*)?"
)


def read(text: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    """The fields of a window; a letter that is no axis has a number, and so may the place have, for the window's size.

    >>> read("h -> h' i: s*h' + i - 1", {"s": 2, "i": 3})["stride"]
    2
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise SignatureError(f"a window is text such as \"h -> h' i<3: 2*h' + i - 1\"\n{point(text)}")
    three = names(found["axes"])
    if len(three) != 3:
        raise SignatureError(f'a window is of one axis, as "h -> h\' i"\n{point(text, found.span("axes"))}')
    axis, window, place = three
    size, map, end = (_term(found, part, words) for part, words in (("size", place), ("map", place), ("end", axis)))
    _know(text, (size, (place,)), (map, (window, place)), (end, (axis,)), numbers=numbers)
    if found["size"] is None and place not in numbers:
        raise SignatureError(f"how many places has a window? Write {place}<3, or give {place}=3\n{point(text)}")
    offset, stride, dilation = _numbers(found, "map", map, (window, place), numbers)
    after, once = _numbers(found, "end", end, (axis,), numbers)
    if once != 1:
        raise SignatureError(f"the end is {axis} and a number, as {axis} + 1\n{point(text, found.span('end'))}")
    return {
        "axis": axis,
        "window": window,
        "place": place,
        "size": _value(found, "size", size, numbers),
        "stride": stride,
        "dilation": dilation,
        "before": -offset,
        "after": -offset if found["end"] is None else after,
        "mode": found["mode"] or "zeros",
    }


def names(axes: str) -> tuple[str, ...]:
    """The names in `h w -> h' w' i j`: axes, as many windows, as many places; SignatureError where it is not so.

    >>> names("h -> h' i")
    ('h', "h'", 'i')
    """
    signature = Signature.parse(axes)
    terms = [term for tensor in (*signature.inputs, *signature.outputs) for term in tensor]
    found = tuple([f"{term}" for term in terms])
    plain = all(isinstance(term, Axis) for term in terms) and len({*found}) == len(found)
    whole = len(signature.inputs) == len(signature.outputs) == 1 and len(found) == 3 * len(signature.inputs[0]) > 0
    if not plain or not whole:
        what = "axes become their windows, then the places in these, each with a name of its own: \"h w -> h' w' i j\""
        raise SignatureError(f"{what}\n{point(axes, (0, len(axes)))}")
    return found


def _term(found: re.Match[str], part: str, unsaid: str) -> Term:
    """The arithmetic at one part of the text."""
    terms = parse_axes(found[part] or unsaid)
    if len(terms) != 1:
        raise SignatureError(f"one sum belongs here\n{point(found.string, found.span(part))}")
    return terms[0]


def _know(text: str, *parts: tuple[Term, tuple[str, ...]], numbers: Mapping[str, int]) -> None:
    """Every letter of each part is one of its axes or has a number, and every number has its letter."""
    used = dict.fromkeys(name for term, _ in parts for name in term.names)
    missing = dict.fromkeys(
        name for term, axes in parts for name in term.names if name not in axes and name not in numbers
    )
    unknown = [name for name in numbers if name not in used]
    said = [f"no {what} {' '.join(them)}" for what, them in (("number for", missing), ("letter", unknown)) if them]
    if said:
        raise SignatureError(f"{' and '.join(said)}\n{point(text)}")


def _numbers(
    found: re.Match[str], part: str, term: Term, axes: tuple[str, ...], numbers: Mapping[str, int]
) -> tuple[int, ...]:
    """What a sum comes to where its axes are 0, and the factor of each; SignatureError where it is not affine."""
    at = lambda *values: _value(found, part, term, {**numbers, **dict(zip(axes, values, strict=True))})  # noqa: E731
    zero = at(*[0 for _ in axes])
    factors = [at(*[int(other == axis) for other in axes]) - zero for axis in axes]
    for values in ((2, 3), (3, 2), (5, 7)):
        if at(*values[: len(axes)]) != zero + sum(a * b for a, b in zip(factors, values, strict=False)):
            raise SignatureError(_not_affine(found, part))
    return zero, *factors


def _value(found: re.Match[str], part: str, term: Term, numbers: Mapping[str, int]) -> int:
    try:
        return term.size(numbers)
    except ValueError:
        raise SignatureError(_not_affine(found, part)) from None


def _not_affine(found: re.Match[str], part: str) -> str:
    what = 'axes are added here, times whole numbers, as "2*h\' + i - 1"'
    return f"{what}\n{point(found.string, found.span(part))}"
