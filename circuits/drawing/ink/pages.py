"""A picture as PNG and PDF, by the package `typst` of the optional extra `drawing`.

It draws the SVG with fonts of the machine, and where these have no letter, with fonts of its own: no picture loses its
labels on a machine without fonts. A character that no font has is drawn as □.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from circuits.drawing.ink.svg import SYMBOLS, svg
from circuits.drawing.marks import Mark, Picture, Text
from circuits.drawing.widths import line, runs
from circuits.errors import CircuitError

_PIXELS = 400_000_000
"""The most pixels of a PNG: four bytes each, twice."""

_POINTS = 0.75
"""How many points a unit has in a PDF, as a CSS pixel does."""

_NEARLY = 0.05
"""By how many pixels less than whole ones the picture in a PNG is, against rounding up."""

_NOWHERE = "\U0010fffd"
"""A character that no font has."""


def png(picture: Picture, theme: str, scale: float) -> bytes:
    """Return a picture as a PNG file of `scale` pixels for a unit.

    Args:
        picture: What is drawn, and where.
        theme: "light", "dark" or "print".
        scale: How many pixels a unit has. The size in pixels is rounded to whole numbers.
    """
    wide, high = (max(round(size * scale), 1) for size in (picture.width, picture.height))
    if wide * high > _PIXELS:
        raise CircuitError(
            f"a PNG of {wide} x {high} pixels is too large: pass a smaller scale, or write an SVG or a PDF"
        )
    return _compiled(picture, theme, (wide / scale, high / scale), _NEARLY / scale, format="png", ppi=72 * scale)


def pdf(picture: Picture, theme: str, scale: float) -> bytes:
    """Return a picture as a PDF file of one page.

    Args:
        picture: What is drawn, and where.
        theme: "light", "dark" or "print".
        scale: How many times 3/4 of a point a unit is.
    """
    size = picture.width * _POINTS * scale, picture.height * _POINTS * scale
    return _compiled(picture, theme, size, 0.0, format="pdf", timestamp=0, pdf_tags=False)


def _typst() -> Any:
    """The module `typst`; imported here, since only these files need it."""
    try:
        import typst
    except ImportError:
        raise CircuitError(
            "PNG and PDF files need the package typst: pip install 'neural-circuit-diagrams[drawing]'"
        ) from None
    return typst


def _compiled(picture: Picture, theme: str, size: tuple[float, float], less: float, **options: Any) -> bytes:
    """The picture on a page of a size in points, and smaller by `less` than the page."""
    typst = _typst()
    fonts = typst.Fonts()
    shown = _shown(picture, {letter for letter in _rare(picture) if not _known(typst, fonts, letter)})
    return typst.compile(_page(svg(shown, theme), *size, less), font_paths=fonts, **options)


def _page(text: str, wide: float, high: float, less: float = 0.0) -> bytes:
    """The program that places an SVG on a page. JSON and Typst write quotes and line ends the same way.

    For a PNG, Typst first draws an SVG as pixels, and rounds their number up: the width of the place, and the height
    that the SVG has at this width. Then it takes for each pixel of the place the nearest of them, so that rows are lost
    if there are more. Hence the SVG is a little less high than the place at its width, and the place than whole pixels.

    Args:
        text: The SVG.
        wide, high: The size of the page in points.
        less: How much smaller the place of the SVG is.
    """
    size = f'width="{wide:.6f}" height="{high - less:.6f}" preserveAspectRatio="none"'
    text = re.sub(r'width="[^"]*" height="[^"]*"', size, text, count=1)
    place = f'width: {wide - less:.6f}pt, height: {high - 2 * less:.6f}pt, fit: "stretch"'
    image = f'#image(bytes({json.dumps(text, ensure_ascii=False)}), format: "svg", {place})'
    return f"#set page(width: {wide:.6f}pt, height: {high:.6f}pt, margin: 0pt)\n{image}".encode()


def _rare(picture: Picture) -> Iterator[str]:
    """The characters of the texts that a font may lack."""
    for mark in picture.marks:
        for place in line(mark.spans, mark.size) if isinstance(mark, Text) else ():
            for script, run in runs(place):
                yield from (run.text if script in ("symbol", "root", "other") else "")


def _known(typst: Any, fonts: Any, letter: str) -> bool:
    """Whether a font has a character: then it is not drawn like one that none has."""
    drawn = [
        typst.compile(
            _page(
                f'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text x="2" y="15" font-size="12" '
                f'font-family="{SYMBOLS}">&#{ord(each)};</text></svg>',
                20,
                20,
            ),
            format="png",
            ppi=72,
            font_paths=fonts,
        )
        for each in (letter, _NOWHERE)
    ]
    return drawn[0] != drawn[1]


def _shown(picture: Picture, missing: set[str]) -> Picture:
    """The picture with □ for the characters that no font has."""
    if not missing:
        return picture
    table = dict.fromkeys(map(ord, missing), "□")
    return replace(picture, marks=tuple(_replaced(mark, table) for mark in picture.marks))


def _replaced(mark: Mark, table: dict[int, str]) -> Mark:
    """A mark with other characters."""
    if not isinstance(mark, Text):
        return mark
    return replace(mark, spans=tuple(replace(span, text=span.text.translate(table)) for span in mark.spans))


def checked(scale: float) -> float:
    """Return a scale, or raise CircuitError if it is no finite number above zero.

    Args:
        scale: What was passed.
    """
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale) or scale <= 0:
        raise CircuitError(f"scale is {scale!r}; it is a number above zero, for example 2")
    return float(scale)


__all__ = ["checked", "pdf", "png"]
