"""Widths of text from a table, so that the places of a picture depend on no font of the machine.

The styles have the widths of Times Italic, Times Bold, Times Roman and Helvetica; the inks ask every other font that a
viewer puts in their place to keep the width given here. A character outside the tables gets the width of the widest
glyph that is plausible for it: one em for symbols, CJK and emoji, nothing for a combining mark. Kerning is left out.

Source: Adobe Core 14 AFM files; Greek and symbols: the wider of Liberation and STIX.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, groupby

from circuits.drawing.marks import Span

SMALL = 0.7
"""The size of sub- and superscripts as a part of the size of the line."""

_RISES = {"": 0.0, "sub": -0.15, "sup": 0.38}
"""How far the baseline of a shifted span is above that of the line, in sizes of the line."""

CHARACTERS = (
    "".join(map(chr, range(32, 127)))  # ASCII
    + "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρςστυφχψωϑϕϖϵ"
    + "¡¢£¤¥¦§¨©ª«¬®¯°±´µ¶·¸º»¼½¾¿ÆÐ×ØÞßæð÷øþıŁłŒœƒˆˇ˘˙˚˛˜˝–—‘’‚“”„†‡•…‰‹›⁄™−"
)
"""The characters of the tables of single styles, in order."""

_TABLES: dict[str, str] = {
    "italic": """
        250 333 420 500 500 833 778 214 333 333 500 675 250 333 250 278 500 500 500 500 500 500 500 500 500 500
        333 333 675 675 675 500 920 611 611 667 722 611 611 722 722 333 444 667 556 833 667 722 611 722 611 500
        556 722 611 833 611 556 556 389 278 389 422 500 333 500 500 444 500 444 278 500 500 278 278 444 278 722
        500 500 500 500 389 389 278 500 444 667 444 444 389 400 275 400 541 611 611 611 611 611 556 722 722 333
        667 611 833 667 651 722 722 611 620 556 556 761 611 703 762 552 506 410 465 444 454 496 491 278 480 458
        526 470 454 500 504 504 454 498 410 478 622 457 621 706 556 627 792 444 389 500 500 500 500 275 500 333
        760 276 500 675 760 333 400 675 333 500 523 250 333 310 500 750 750 750 500 889 722 675 722 611 500 667
        500 675 500 500 278 556 278 944 667 500 333 333 333 333 333 333 333 333 500 889 333 333 333 556 556 556
        500 500 350 889 1000 333 333 167 980 675
    """,
    "bold": """
        250 333 555 500 500 1000 833 278 333 333 500 570 250 333 250 278 500 500 500 500 500 500 500 500 500 500
        333 333 570 570 570 500 930 722 667 722 722 667 611 778 778 389 500 778 667 944 722 778 611 778 722 556
        667 722 722 1000 722 722 667 333 278 333 581 500 333 500 556 444 556 444 333 500 556 278 333 556 278 833
        556 500 556 556 444 389 333 556 500 722 500 500 444 394 220 394 520 722 667 636 722 667 667 778 778 389
        778 717 944 722 677 778 778 611 671 667 722 836 722 808 801 644 556 518 519 444 459 585 522 326 581 547
        610 518 468 500 631 547 464 568 492 576 653 612 763 733 647 653 864 444 333 500 500 500 500 220 500 333
        747 300 500 570 747 333 400 570 333 556 540 250 333 330 500 750 750 750 500 1000 722 570 778 611 556 722
        500 570 500 556 278 667 278 1000 722 500 333 333 333 333 333 333 333 333 500 1000 333 333 333 500 500 500
        500 500 350 1000 1000 333 333 167 1000 570
    """,
    "upright": """
        250 333 408 500 500 833 778 180 333 333 500 564 250 333 250 278 500 500 500 500 500 500 500 500 500 500
        278 278 564 564 564 444 921 722 667 667 722 611 556 722 722 333 389 722 611 889 722 722 556 722 667 556
        611 722 722 944 722 722 611 333 278 333 469 500 333 444 500 444 500 444 333 500 500 278 278 500 278 778
        500 500 500 500 333 389 278 500 500 722 500 500 444 480 200 480 541 722 667 587 722 611 612 722 722 333
        731 725 889 722 643 722 722 557 624 611 722 763 722 746 744 543 509 474 500 439 441 523 496 275 504 497
        536 455 446 505 505 499 441 548 477 524 623 500 694 658 554 623 762 439 333 500 500 500 500 200 500 333
        760 276 500 564 760 333 400 564 333 500 453 250 333 310 500 750 750 750 444 889 722 564 722 556 500 667
        500 564 500 500 278 611 278 889 722 500 333 333 333 333 333 333 333 333 500 1000 333 333 333 444 444 444
        500 500 350 1000 1000 333 333 167 980 564
    """,
    "sans": """
        278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556
        278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667
        611 722 667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556 556 222 222 500 222 833
        556 556 556 556 333 500 278 556 500 722 500 500 500 334 260 334 584 722 667 587 722 667 612 722 778 333
        731 702 889 722 650 778 722 667 624 611 722 798 722 835 748 578 575 500 557 446 441 556 556 275 500 500
        576 500 448 556 690 569 482 617 477 547 648 525 713 781 554 623 762 439 333 556 556 556 556 260 556 333
        737 370 556 584 737 333 400 584 333 556 537 278 333 365 556 834 834 834 611 1000 722 584 778 667 611 889
        556 584 611 556 278 556 222 1000 944 556 333 333 333 333 333 333 333 333 556 1000 222 222 222 333 333 333
        556 556 350 1000 1000 333 333 167 1000 584
    """,
}

_SYMBOLS = {
    **dict.fromkeys("′⋅¹²³", 330),
    **dict.fromkeys("″⟨⟩⌊⌋⌈⌉∘∂", 560),
    **dict.fromkeys("‴∗↑↓", 630),
    **dict.fromkeys("∀∃∅∆∇∈∉∝∧∨∩∪∫∼≈≠≡≤≥⊂⊃⊆⊇⊥⊤•ℓ⋆", 825),
}
"""Symbols narrower than one em, in every style."""

_JOINED = {"Mn", "Me", "Cf"}
"""The categories of characters without a width, which change the character before."""

_BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@dataclass(frozen=True)
class Place:
    """Where one span of a line stands.

    Attributes:
        text: The characters to draw.
        span: The span they come from.
        x: The left end, from the left end of the line.
        rise: How far the baseline is above that of the line.
        size: The size of the font.
        width: The width.
    """

    text: str
    span: Span
    x: float
    rise: float
    size: float
    width: float

    @property
    def bar(self) -> tuple[float, float, float]:
        """The bar over the text: its left and right end and its height above the baseline of the line."""
        low = all(letter in "acegmnopqrsuvwxyzαγεηικμνοπρςστυχω" for letter in self.text)
        slant = 0.06 * self.size if self.span.style == "italic" else 0.0
        return self.x + slant, self.x + self.width + slant / 2, self.rise + self.size * (0.58 if low else 0.8)


def visible(text: str) -> str:
    """Return `text` as it is drawn: blanks for line breaks and tabs, `�` for what is no character to be seen.

    These are control characters, halves of surrogate pairs, code points that XML refuses, and the marks that turn the
    direction of writing, with which a name could rearrange the words around it.

    >>> visible("a\\tb\\x00c")
    'a b�c'

    Args:
        text: Any string.
    """
    return "".join(" " if letter in "\t\n\r" else "�" if _unseen(letter) else letter for letter in text)


def _unseen(letter: str) -> bool:
    """Whether no viewer may be given a character."""
    if unicodedata.category(letter) in {"Cc", "Cs"} or ord(letter) & 0xFFFE == 0xFFFE:
        return True
    return unicodedata.bidirectional(letter) in _BIDIRECTIONAL


@cache
def _table(style: str) -> dict[str, int]:
    """The widths of `CHARACTERS` in one style."""
    return dict(zip(CHARACTERS, map(int, _TABLES[style].split()), strict=True))


@cache
def _letter(letter: str, style: str) -> float:
    """The width of one character in thousandths of the size."""
    known = _table(style).get(letter) or _SYMBOLS.get(letter)
    if known is not None:
        return known
    kind = unicodedata.category(letter)
    if kind in _JOINED:
        return 0
    if unicodedata.east_asian_width(letter) in {"W", "F"}:
        return 1000
    composed = unicodedata.normalize("NFD", letter)
    if composed != letter:
        return sum(_letter(part, style) for part in composed)
    same = unicodedata.normalize("NFKD", letter)  # 𝔼 is an E, ₀ a 0: no wider than the bold letter and a tenth
    if same != letter and not any(unicodedata.normalize("NFKD", part) != part for part in same):
        return max(1.1 * sum(_letter(part, "bold") for part in same), 1.0)
    return {"Ll": 600, "Lu": 800, "Lo": 800, "Nd": 600}.get(kind, 1000)


def line(spans: Sequence[Span], size: float) -> Iterator[Place]:
    """Yield where each span of a line stands.

    A subscript right after a superscript, or the other way round, stands under or over it, not beside it.

    Args:
        spans: The pieces of the line from left to right.
        size: The size of its font.
    """
    right, shifted, before = 0.0, 0.0, ""
    for span in spans:
        text = visible(span.text)
        own = size * SMALL if span.shift else size
        wide = sum(_letter(letter, span.style) for letter in text) * own / 1000
        stacked = {before, span.shift} == {"sub", "sup"}
        x = shifted if stacked else right
        yield Place(text, span, x, _RISES[span.shift] * size, own, wide)
        shifted, right, before = x, max(right, x + wide), "" if stacked else span.shift


def runs(place: Place) -> Iterator[tuple[str, Place]]:
    """Yield the parts of a span that are of one script: "latin", "greek", "other" letters, "symbol" or "root".

    A viewer that lacks one character of a run may draw the whole run in another font; so it only changes the symbols.

    Args:
        place: A span and where it stands.
    """
    x, scripts = place.x, list(map(_script, place.text))
    scripts = list(accumulate(scripts, lambda before, script: script or before))
    for script, letters in groupby(zip(scripts, place.text, strict=True), lambda pair: pair[0]):
        text = "".join(letter for _, letter in letters)
        wide = sum(_letter(letter, place.span.style) for letter in text) * place.size / 1000
        yield script or "latin", replace(place, text=text, x=x, width=wide)
        x += wide


def _script(letter: str) -> str:
    """The script of a character; empty for a mark that combines with the one before."""
    base = unicodedata.normalize("NFD", letter)[0]
    if "α" <= base <= "ω" or "Α" <= base <= "Ω":
        return "greek"
    if unicodedata.category(base) in _JOINED:
        return ""
    if ord(base) < 0x250 or base in _table("upright"):
        return "latin"
    if base in "√∛∜":
        return "root"
    plain = unicodedata.category(base).startswith("L") and unicodedata.normalize("NFKD", base) == base
    return "other" if plain else "symbol"


def width(spans: Sequence[Span], size: float) -> float:
    """Return the width of a line of text.

    >>> width([Span("x"), Span("i", shift="sub")], 10)
    6.386
    >>> width([Span("Linear", "sans")], 10) == width([Span("Linéar", "sans")], 10)
    True

    Args:
        spans: The pieces of the line from left to right.
        size: The size of its font, in the units of the result.
    """
    return round(max((place.x + place.width for place in line(spans, size)), default=0.0), 3)


__all__ = ["SMALL", "Place", "line", "runs", "visible", "width"]
