"""A picture as SVG: one element for a mark, in the order of the marks, with `data-` attributes that say what it is.

The same picture gives the same bytes everywhere, in every theme the same geometry. Colours stand in attributes, not in
a style sheet, so that two pictures on one page never colour each other. Lines have square caps, so that no seam shows
where one wire goes on as another. A text is given the width that layout computed (`textLength`), whatever font the
viewer has.
"""

import re
from xml.sax.saxutils import quoteattr

from circuits.drawing.ink.curves import Line, lines, number
from circuits.drawing.ink.themes import colours
from circuits.drawing.marks import Circle, Data, Mark, Path, Picture, Text
from circuits.drawing.widths import Place, line, runs, visible

SERIF = "'STIX Two Text', 'Times New Roman', Times, 'Liberation Serif', 'Nimbus Roman', 'New Computer Modern', serif"
"""Fonts with the widths of Times, the widths of the table, for a viewer that does not know `textLength`."""

SANS = "'Latin Modern Sans', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
SYMBOLS = "'STIX Two Math', 'Cambria Math', 'STIX', 'New Computer Modern Math', 'DejaVu Sans', serif"
ROOTS = "'STIX Two Math', 'Cambria Math', 'STIX', 'New Computer Modern', 'DejaVu Sans', serif"
"""Fonts for √: in New Computer Modern Math it hangs below the line, as part of a larger sign."""

_DASHES = {"dashed": "6 4", "dotted": "1.2 2.4"}
_STYLES = {
    "italic": ' font-style="italic"',
    "bold": ' font-weight="bold"',
    "upright": "",
    "sans": f' font-family="{SANS}"',
}


def svg(picture: Picture, theme: str = "light", scale: float = 1.0) -> str:
    """Return a picture as the text of an SVG file.

    >>> mark = Path((0, 12), ((48, 12),), data=(("kind", "wire"),))
    >>> print(svg(Picture(48, 24, (mark,), "a wire")).splitlines()[-2])
    <path d="M0 12L48 12" stroke="#1a1a1a" stroke-width="1.2" data-kind="wire"/>

    Args:
        picture: What is drawn, and where.
        theme: "light", "dark" or "print".
        scale: How many pixels wide a unit is shown.
    """
    colour = colours(theme)
    wide, high = number(picture.width), number(picture.height)
    shown = f'width="{number(picture.width * scale)}" height="{number(picture.height * scale)}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" {shown} '
        f'style="max-width: 100%; height: auto" role="img" fill="none" stroke-linecap="square" '
        f'font-family="{SERIF}" xml:space="preserve">'
    )
    ground = f'<rect width="{wide}" height="{high}" fill="{colour["paper"]}"/>'
    title = f"<title>{_escaped(picture.title)}</title>"
    return "\n".join([head, title, ground, *(_mark(mark, colour) for mark in picture.marks), "</svg>\n"])


def _escaped(text: str) -> str:
    """A text as XML, also within an attribute in double quotes."""
    return quoteattr(visible(text), {'"': "&quot;"})[1:-1]


def _data(data: Data) -> str:
    """What a mark stands for as attributes; a name that comes twice has both values, with a space between them."""
    values: dict[str, list[str]] = {}
    for name, value in data:
        values.setdefault(re.sub(r"[^a-z0-9-]", "-", name.lower()), []).append(value)
    return "".join(f' data-{name}="{_escaped(" ".join(value))}"' for name, value in values.items())


def _mark(mark: Mark, colour: dict[str, str]) -> str:
    """The element of a mark."""
    if isinstance(mark, Text):
        return _text(mark, colour)
    ink = f' fill="{colour[mark.fill]}"' if mark.fill else ""
    if mark.stroke:
        ink += f' stroke="{colour[mark.stroke]}" stroke-width="{number(mark.width)}"'
    if isinstance(mark, Path) and mark.dash:
        ink += f' stroke-dasharray="{_DASHES[mark.dash]}" stroke-linecap="butt"'
    if isinstance(mark, Circle):
        place = f'circle cx="{number(mark.x)}" cy="{number(mark.y)}" r="{number(mark.radius)}"'
        return _element(place, ink, mark.data)
    return _element(f'path d="{"".join(_way(part, mark.closed) for part in lines(mark))}"', ink, mark.data)


def _element(place: str, ink: str, data: Data) -> str:
    """An element; a glyph has its title inside, which a browser shows under the pointer."""
    titles = [value for name, value in data if name == "title"] if ("kind", "glyph") in data else []
    if titles:
        return f"<{place}{ink}{_data(data)}><title>{_escaped(titles[0])}</title></{place.split()[0]}>"
    return f"<{place}{ink}{_data(data)}/>"


def _way(part: Line, closed: bool) -> str:
    """A line in the words of the attribute `d`."""
    (x, y), pieces = part
    words = [f"M{number(x)} {number(y)}"]
    for piece in pieces:
        words.append(("C" if len(piece) == 3 else "L") + " ".join(f"{number(u)} {number(v)}" for u, v in piece))
    return "".join(words) + ("Z" if closed else "")


def _text(mark: Text, colour: dict[str, str]) -> str:
    """A line of text: one element, or a group of it and the bars over its spans."""
    places = list(line(mark.spans, mark.size))
    wide = max((place.x + place.width for place in places), default=0.0)
    left = mark.x - {"start": 0.0, "middle": wide / 2, "end": wide}[mark.anchor]
    parts = [run for place in places for run in runs(place) if run[1].width and run[1].text.strip()]
    ink = f' fill="{colour[mark.role]}"'
    data = _data(mark.data)
    bars = [_bar(place, left, mark, colour[mark.role]) for place in places if place.span.over and place.width]
    inside = "" if bars else data
    if len(places) == len(parts) == 1 and not places[0].rise:
        anchor = "" if mark.anchor == "start" else f' text-anchor="{mark.anchor}"'
        where = f' x="{number(mark.x)}" y="{number(mark.y)}"{anchor}'
        text = f"<text{where}{_font(*parts[0])}{ink}{inside}>{_escaped(places[0].text)}</text>"
    else:
        spans = "".join(_span(script, place, left, mark.y) for script, place in parts)
        text = f"<text{ink}{inside}>{spans}</text>"
    return f"<g{data}>{text}{''.join(bars)}</g>" if bars else text


def _font(script: str, place: Place) -> str:
    """The font and the width of a run."""
    size, wide = number(place.size), number(place.width)
    fonts = {"symbol": SYMBOLS, "root": ROOTS}.get(script)
    style = f' font-family="{fonts}"' if fonts else _STYLES[place.span.style]
    return f'{style} font-size="{size}" textLength="{wide}" lengthAdjust="spacingAndGlyphs"'


def _span(script: str, place: Place, left: float, y: float) -> str:
    """One run of several, at its own place."""
    where = f' x="{number(left + place.x)}" y="{number(y - place.rise)}"'
    return f"<tspan{where}{_font(script, place)}>{_escaped(place.text)}</tspan>"


def _bar(place: Place, left: float, mark: Text, colour: str) -> str:
    """The bar over a span."""
    start, end, rise = place.bar
    way = f"M{number(left + start)} {number(mark.y - rise)}H{number(left + end)}"
    return f'<path d="{way}" stroke="{colour}" stroke-width="{number(place.size / 18)}" stroke-linecap="butt"/>'


__all__ = ["svg"]
