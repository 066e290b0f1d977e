"""The text of a window, `h -> h' i<3: 2*h' + i - 1 < h + 2, reflect`: parse it into names and numbers, and print them.

`window` explains the numbers. The arithmetic is that of signatures: names and numbers with `*`, `/`, `+`, `-`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuits import switch
from circuits.errors import SignatureError, point
from circuits.signature import Axis, Signature, Term, parse_axes

_TEXT = re.compile(
    r"(?P<axes>[^:<]+)(?:<(?P<size>[^:<]+))?:(?P<map>[^:<,]+)(?:<(?P<end>[^:<,]+))?(?:,\s*(?P<mode>\w+)\s*)?"
)
"""The parts of a text, with the spaces around them: no two neighbours can share a character, so matching is linear."""


@dataclass(frozen=True)
class _Parts:
    """The parts of a text, without the spaces around them; a part that the text lacks is None."""

    match: re.Match[str]

    @property
    def string(self) -> str:
        """The whole text."""
        return self.match.string

    def __getitem__(self, part: str) -> str | None:
        return None if self.match[part] is None else self.match[part].strip()

    def span(self, part: str) -> tuple[int, int]:
        """Return (start, stop) of a part in the text."""
        text = self.match[part] or ""
        start = self.match.end(part) - len(text.lstrip())
        return start, start + len(text.strip())


def parse(text: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return the fields of a Window by name.

    Args:
        text: The text of the window.
        numbers: The value of each letter of the text that is not an axis. If the text does not state the size of a
            window, it is given here under the name of the position axis.

    Raises:
        SignatureError: If the text cannot be parsed or its arithmetic is not affine, if a letter has no number, or if a
            number has no letter.

    >>> parse("h -> h' i: s*h' + i - 1", {"s": 2, "i": 3})["stride"]
    2
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise SignatureError(f"expected the text of a window, such as \"h -> h' i<3: 2*h' + i - 1\"\n{point(text)}")
    match = _Parts(found)
    axis_names = names(match["axes"] or "")
    if len(axis_names) != 3:
        raise SignatureError(f'a window has one axis, as in "h -> h\' i"\n{point(text, match.span("axes"))}')
    axis, window, place = axis_names
    size, map, end = (_term(match, part, default) for part, default in (("size", place), ("map", place), ("end", axis)))
    _check_letters(text, (size, (place,)), (map, (window, place)), (end, (axis,)), numbers=numbers)
    if match["size"] is None and place not in numbers:
        raise SignatureError(f"the size of a window is missing: write {place}<3, or give {place}=3\n{point(text)}")
    offset, stride, dilation = _coefficients(match, "map", map, (window, place), numbers)
    after, factor = _coefficients(match, "end", end, (axis,), numbers)
    if factor != 1:
        fault = f"the end must be {axis} plus a number, as in {axis} + 1"
        raise SignatureError(f"{fault}\n{point(text, match.span('end'))}")
    return {
        "axis": axis,
        "window": window,
        "place": place,
        "size": _value(match, "size", size, numbers),
        "stride": stride,
        "dilation": dilation,
        "before": -offset,
        "after": -offset if match["end"] is None else after,
        "mode": match["mode"] or "zeros",
    }


def names(axes: str) -> tuple[str, ...]:
    """Return the names in `h w -> h' w' i j`: axes, as many window axes, as many position axes.

    Raises SignatureError if the text is not of this form, or if a name occurs twice.

    >>> names("h -> h' i")
    ('h', "h'", 'i')
    """
    signature = Signature.parse(axes)
    terms = [term for tensor in (*signature.inputs, *signature.outputs) for term in tensor]
    found = tuple([f"{term}" for term in terms])
    are_distinct_names = all(isinstance(term, Axis) for term in terms) and len({*found}) == len(found)
    are_triples = (
        len(signature.inputs) == len(signature.outputs) == 1 and len(found) == 3 * len(signature.inputs[0]) > 0
    )
    if not are_distinct_names or not are_triples:
        form = "expected axes, then an axis of windows and one of positions for each, all with different names"
        raise SignatureError(f"{form}, as in \"h w -> h' w' i j\"\n{point(axes, (0, len(axes)))}")
    return found


def _term(match: _Parts, part: str, default: str) -> Term:
    """Return the term that one part of the text is parsed into, or that of `default` if the text lacks the part."""
    found = match[part]
    terms = parse_axes(default if found is None else found)
    if len(terms) != 1:
        raise SignatureError(f"expected one expression, not {len(terms)}\n{point(match.string, match.span(part))}")
    return terms[0]


def _check_letters(text: str, *parts: tuple[Term, tuple[str, ...]], numbers: Mapping[str, int]) -> None:
    """Raise SignatureError if a letter is neither an axis of its part nor in `numbers`, or a number has no letter."""
    used = dict.fromkeys(name for term, _ in parts for name in term.names)
    missing = dict.fromkeys(
        name for term, axes in parts for name in term.names if name not in axes and name not in numbers
    )
    unused = [name for name in numbers if name not in used]
    faults = ("no number was given for", missing), ("the text has no letter", unused)
    listed = "; ".join([f"{fault} {' '.join(letters)}" for fault, letters in faults if letters])
    if listed:
        raise SignatureError(f"{listed}\n{point(text)}")


def _coefficients(
    match: _Parts, part: str, term: Term, axes: tuple[str, ...], numbers: Mapping[str, int]
) -> tuple[int, ...]:
    """Return the constant of an affine sum, and the coefficient of each axis; SignatureError if the sum is not affine.

    They are computed from the term with all axes at 0 and with one at 1, and checked at three other positions.
    """
    at = lambda *values: _value(match, part, term, {**numbers, **dict(zip(axes, values, strict=True))})  # noqa: E731
    constant = at(*[0 for _ in axes])
    factors = [at(*[int(other == axis) for other in axes]) - constant for axis in axes]
    for values in ((2, 3), (3, 2), (5, 7)):
        if at(*values[: len(axes)]) != constant + sum(a * b for a, b in zip(factors, values, strict=False)):
            raise SignatureError(_not_affine(match, part))
    return constant, *factors


def _value(match: _Parts, part: str, term: Term, numbers: Mapping[str, int]) -> int:
    """Return the value of a term; SignatureError if a division in it is not exact."""
    try:
        return term.size(numbers)
    except ValueError:
        raise SignatureError(_not_affine(match, part)) from None


def _not_affine(match: _Parts, part: str) -> str:
    """Return the message for a part of the text that is not affine."""
    form = 'expected a sum of axes times integers, as in "2*h\' + i - 1"'
    return f"{form}\n{point(match.string, match.span(part))}"


def scaled(factor: int, name: str) -> str:
    """Return the text of a name times a factor: `2*h'`, or `h'` if the factor is 1."""
    return name if factor == 1 else f"{_shown(factor)}*{name}"


def signed(number: int) -> str:
    """Return the text that adds a number: ` + 2`, ` - 2`, or nothing for 0."""
    if number == 0:
        return ""
    return f" + {_shown(number)}" if number > 0 else f" - {_shown(-number)}"


def _shown(number: int) -> str:
    """Return the text of a number; while a diagram is recorded it may be a symbolic expression, in parentheses."""
    text = switch.show(number)
    return text if text.isalnum() else f"({text})"
