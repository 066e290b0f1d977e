r"""A picture as TikZ: a whole LaTeX document of one page, with the same places as the SVG.

One unit is 3/4 of a big point, as a CSS pixel is; the page has the size of the picture. Nothing is loaded but what a
plain LaTeX has: `fix-cm`, `geometry`, `graphicx`, `amssymb`, `tikz`. The class is `article`, since `standalone` is not
in every installation. In a paper, copy the `tikzpicture` with the commands before it, or include the PDF.
"""

from circuits.drawing.ink.curves import Line, lines, number
from circuits.drawing.ink.tex import escaped
from circuits.drawing.ink.themes import colours
from circuits.drawing.marks import Circle, Mark, Picture, Text
from circuits.drawing.widths import line, visible

_UNIT = 0.75
_LARGEST = 14_000.0  # big points; neither TeX nor PDF has a page of 14,400
_DASHES = {"dashed": (6, 4), "dotted": (1.2, 2.4)}
_STYLES = {"italic": r"\itshape ", "bold": r"\bfseries\boldmath ", "upright": "", "sans": r"\sffamily "}

_HEAD = r"""\RequirePackage{{fix-cm}}
\documentclass{{article}}
\usepackage[OT1]{{fontenc}}
\usepackage[paperwidth={wide}bp,paperheight={high}bp,margin=0bp,noheadfoot]{{geometry}}
\usepackage{{graphicx,amssymb,tikz}}
\renewcommand\rmdefault{{cmr}} \renewcommand\sfdefault{{cmss}}
\pagestyle{{empty}}
\parindent=0pt \topskip=0pt \maxdepth=0pt \lineskip=0pt
{colours}
% \words{{width}}{{size}}{{text}} draws a text with the width that it has in the picture, whatever the font
\newsavebox\wordsbox
\newcommand\words[3]{{\sbox\wordsbox{{\fontsize{{#2}}{{#2}}\selectfont#3}}%
  \ifdim\wd\wordsbox>0pt \pgfmathsetmacro\wordsfactor{{#1/\wd\wordsbox}}%
  \scalebox{{\wordsfactor}}[1]{{\usebox\wordsbox}}\fi}}
\begin{{document}}
\vbox to 0pt{{\hbox to 0pt{{%
\begin{{tikzpicture}}[x={unit}bp,y=-{unit}bp,line cap=rect,
  every node/.style={{anchor=base west,inner sep=0pt,outer sep=0pt}}]
\path[use as bounding box,fill=ncdpaper] (0,0) rectangle ({units});
"""


def tikz(picture: Picture, theme: str = "light", scale: float = 1.0) -> str:
    r"""Return a picture as a LaTeX document, for `pdflatex` or `lualatex`.

    >>> from circuits.drawing.marks import Path
    >>> mark = Path((0, 12), ((48, 12),))
    >>> print(tikz(Picture(48, 24, (mark,))).splitlines()[-4])
    \path[draw=ncdwire,line width=0.9bp] (0,12) -- (48,12);

    Args:
        picture: What is drawn, and where.
        theme: "light", "dark" or "print".
        scale: How many times 3/4 of a big point a unit is, less if the page would be too large for TeX.
    """
    unit = min(_UNIT * scale, _LARGEST / max(picture.width, picture.height, 1))
    table = colours(theme)
    body = "\n".join(text for text in (_mark(mark, unit) for mark in picture.marks) if text)
    used = [role for role in table if f"=ncd{role}" in body or role == "paper"]
    head = _HEAD.format(
        wide=number(picture.width * unit),
        high=number(picture.height * unit),
        units=f"{number(picture.width)},{number(picture.height)}",
        unit=f"{unit:.6g}",
        colours="\n".join(rf"\definecolor{{ncd{role}}}{{HTML}}{{{table[role][1:].upper()}}}" for role in used),
    )
    title = f"% {visible(picture.title)}\n" if picture.title else ""
    return f"{title}{head}{body}\n\\end{{tikzpicture}}%\n\\hss}}\\vss}}\n\\end{{document}}\n"


def _mark(mark: Mark, unit: float) -> str:
    """The commands of a mark."""
    if isinstance(mark, Text):
        return _text(mark, unit)
    ink = [f"fill=ncd{mark.fill}"] if mark.fill else []
    if mark.stroke:
        ink += [f"draw=ncd{mark.stroke}", f"line width={number(mark.width * unit)}bp"]
    if isinstance(mark, Circle):
        return rf"\path[{','.join(ink)}] {_point(mark.x, mark.y)} circle[radius={number(mark.radius)}];"
    if mark.dash:
        on, off = (number(length * unit) for length in _DASHES[mark.dash])
        ink.append(f"dash pattern=on {on}bp off {off}bp,line cap=butt")
    ways = " ".join(_way(part) + (" -- cycle" if mark.closed else "") for part in lines(mark))
    return rf"\path[{','.join(ink)}] {ways};"


def _point(x: float, y: float) -> str:
    """A place."""
    return f"({number(x)},{number(y)})"


def _way(part: Line) -> str:
    """A line as a path of TikZ."""
    start, pieces = part
    words = [_point(*start)]
    for piece in pieces:
        places = [_point(*place) for place in piece]
        words.append(".. controls {} and {} .. {}".format(*places) if len(places) == 3 else f"-- {places[0]}")
    return " ".join(words)


def _text(mark: Text, unit: float) -> str:
    """A line of text: a node for each span, and the bars over them."""
    places = list(line(mark.spans, mark.size))
    wide = max((place.x + place.width for place in places), default=0.0)
    left = mark.x - {"start": 0.0, "middle": wide / 2, "end": wide}[mark.anchor]
    drawn = []
    for place in (place for place in places if place.width and place.text.strip()):
        words = f"{_STYLES[place.span.style]}{escaped(place.text)}"
        sizes = rf"{{{number(place.width * unit)}bp}}{{{number(place.size * unit)}bp}}"
        where = _point(left + place.x, mark.y - place.rise)
        drawn.append(rf"\path {where} node[text=ncd{mark.role}] {{\words{sizes}{{{words}}}}};")
        if place.span.over:
            start, end, rise = place.bar
            ink = f"draw=ncd{mark.role},line width={number(place.size / 18 * unit)}bp,line cap=butt"
            drawn.append(rf"\path[{ink}] {_point(left + start, mark.y - rise)} -- {_point(left + end, mark.y - rise)};")
    return "\n".join(drawn)


__all__ = ["tikz"]
