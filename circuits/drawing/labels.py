"""The texts of a picture: names of axes as italic letters with bars and indices, sizes, and titles of boxes."""

import re
import zlib
from dataclasses import replace

from circuits.drawing.marks import Span

_TOKEN = re.compile(r"([^\W\d_]+)(\d*)('*)(?:\[([^\]]*)\])?|(\d+(?:\.\d+)?)|(\s+)|(.)", re.DOTALL)
POSITIONS = frozenset("xy")
"""The axes that have a bar: positions, over which operations are broadcast (Figures 17 to 28)."""

_REPLACED = {"-": "−", "*": "·", "'": "′"}


def axis_label(name: str, pair: bool = False) -> tuple[Span, ...]:
    """Return the name of an axis as text: letters italic, digits after a letter below it, positions with a bar.

    Args:
        name: The name or the size: `x`, `n1`, `(h k)`, `h/2`, `28`, `c[λ-1]`.
        pair: Whether it is the label of a pair of axes, whose letters are bold.

    >>> "|".join(span.text for span in axis_label("n1/2"))
    'n|1|/2'
    """
    spans: list[Span] = []
    for letters, index, primes, place, number, space, other in _TOKEN.findall(name):
        if letters:
            spans.append(Span(letters, "bold" if pair else "italic", over=letters in POSITIONS))
            spans += [Span(index, "upright", "sub")] if index else []
            spans += [Span("′" * len(primes), "upright")] if primes else []
            spans += [Span(place.replace("-", "−"), "italic", "sub")] if place else []
        else:
            spans.append(Span(f"{number or space or _REPLACED.get(other, other)}", "upright"))
    return _joined(spans)


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    """Return spans with neighbours of one style joined."""
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        if (
            last is not None
            and (last.style, last.shift, last.over) == (span.style, span.shift, span.over)
            and not span.over
        ):
            found[-1] = replace(last, text=last.text + span.text)
        else:
            found.append(span)
    return tuple(found)


def box_title(name: str, label: str) -> str:
    """Return the title of a circuit or module: its class or function as in the code, without the functions around it.

    >>> box_title("blocks.0", "TransformerBlock"), box_title("", "make.<locals>.layer")
    ('TransformerBlock', 'layer')
    """
    return label.rpartition("<locals>.")[2].replace("<lambda>", "λ") or name


def colour(label: str) -> int:
    """Return the place of a box's colour in the cycle: the same for the same class or function in every picture."""
    return zlib.crc32(label.encode()) % 8


__all__ = ["POSITIONS", "axis_label", "box_title", "colour"]
