"""The texts of a picture in one line of a terminal, in Unicode or in ASCII, and the ASCII for the lines drawn."""

import re
import unicodedata

from circuits.drawing.ink.canvas import MEETINGS
from circuits.drawing.marks import Span
from circuits.drawing.widths import visible

_RAISED = dict(zip("0123456789+−-=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ", strict=True))
_LOWERED = dict(zip("0123456789+−-=()ij", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ᵢⱼ", strict=True))

_SPELLED = {"×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "′": "'", "→": "->", "←": "<-", "★": "*", "√": "sqrt"}
_SPELLED |= {"∞": "inf", "∂": "d", "≤": "<=", "≥": ">=", "≠": "!=", "…": "...", "∑": "Sum", "⊗": "(x)", "⁄": "/"}

_LINES = {
    **dict.fromkeys("".join(MEETINGS.values()) + "╭╮╰╯", "+"),
    **dict(zip("─═━╌┄│║┃╎┆●○◁▸◂▴▾⟩╲╱╳⎛⎜⎝⎞⎟⎠", "-==..|##::oO<><^v>\\/X/|\\\\|/", strict=True)),
}


def shown(span: Span) -> str:
    """Return a span in one line: raised and lowered letters where there are such, else after ^ or _.

    >>> shown(Span("L", "bold")) + shown(Span("Q", shift="sup")) + shown(Span("+", "upright", "sub"))
    'L^Q₊'

    Args:
        span: A piece of a text.
    """
    text = visible(span.text)
    if span.over:
        text = unicodedata.normalize("NFC", "".join(f"{letter}\u0304" for letter in text))
    small = _RAISED if span.shift == "sup" else _LOWERED
    if span.shift and all(letter in small for letter in text):
        return "".join(small[letter] for letter in text)
    return _shifted(text, span)


def spelled(span: Span) -> str:
    """Return a span in ASCII: `lambda` for λ, `xbar` for x with a bar, `?` for what has no such letters.

    >>> spelled(Span("x", over=True)) + spelled(Span("5−λ", shift="sub"))
    'xbar_(5-lambda)'

    Args:
        span: A piece of a text.
    """
    text = "".join(map(_spelled_letter, visible(span.text))) + ("bar" if span.over else "")
    return _shifted(text, span)


def _shifted(text: str, span: Span) -> str:
    """The text of a span, after ^ or _ if it is raised or lowered."""
    if not span.shift or not text:
        return text
    return ("^" if span.shift == "sup" else "_") + (text if re.fullmatch(r"\w+|\W", text) else f"({text})")


def _spelled_letter(letter: str) -> str:
    if letter.isascii() or letter in _SPELLED:
        return _SPELLED.get(letter, letter)
    if unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return ""
    name = unicodedata.name(letter, "")
    if name.startswith("GREEK") and "LETTER" in name:
        name = name.split("LETTER ")[1].split()[0].replace("LAMDA", "LAMBDA")
        return name.lower() if letter.islower() else name.capitalize()
    known = unicodedata.normalize("NFKD", letter)
    base = "".join([_SPELLED.get(part, part) for part in known if not unicodedata.combining(part)])
    return base if base.isascii() and base else "?"


def drawn(text: str) -> str:
    """Return lines of text with ASCII characters in place of those that draw lines and signs.

    >>> drawn("─╮ ●▸ k")
    '-+ o> k'

    Args:
        text: The text of a picture whose words are in ASCII.
    """
    return "".join(_LINES.get(letter, letter) for letter in text)


__all__ = ["drawn", "shown", "spelled"]
