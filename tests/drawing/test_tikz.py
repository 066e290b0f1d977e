"""TikZ: names of every kind as text, the same geometry in every theme; `test_raster` compiles it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.drawing.ink.tex import _ACCENTS, _MATHS, _TEXT, UNKNOWN, escaped
from circuits.drawing.ink.themes import THEMES
from circuits.drawing.ink.tikz import tikz
from circuits.drawing.marks import Circle, Path, Picture, Span, Text
from circuits.drawing.widths import CHARACTERS
from circuits.errors import CircuitError
from tests.drawing.samples import box, data, named, sample, wire

COMMANDS = {
    *re.findall(r"\\(?:[a-zA-Z]+|.)", " ".join([*_TEXT.values(), *_MATHS.values(), UNKNOWN])),
    *(f"\\{accent}" for accent in _ACCENTS.values()),
    *(r"\ensuremath", r"\mathrm", r"\mathbb", r"\textbf", r"\textsuperscript", r"\textsubscript"),
}
"""Every command that a text may become."""


def test_a_small_picture_whole() -> None:
    marks = (
        box(30, 6, 24, 24, fill="box1", kind="glyph", box="f", title="<f>"),
        Text(42, 22.5, (Span("f"), Span("2", "upright", "sup")), anchor="middle", data=data(kind="text", box="f")),
        wire((0, 18), (30, 18), double=True),
        Text(2, 15, (Span("y", over=True),), data=data(kind="label", value=0, axis=0)),
        Circle(60, 18.123, 3, "", "ink", data=data(kind="dot", box="d")),
        Path((0, 30), ((5, 30, 10, 35, 10, 36),), "faint"),
        Path((0, 30), ((10, 36),), "faint", dash="dashed"),
    )
    expected = r"""
% A #1 % \end{document}
\RequirePackage{fix-cm}
\documentclass{article}
\usepackage[OT1]{fontenc}
\usepackage[paperwidth=54bp,paperheight=27bp,margin=0bp,noheadfoot]{geometry}
\usepackage{graphicx,amssymb,tikz}
\renewcommand\rmdefault{cmr} \renewcommand\sfdefault{cmss}
\pagestyle{empty}
\parindent=0pt \topskip=0pt \maxdepth=0pt \lineskip=0pt
\definecolor{ncdpaper}{HTML}{FFFFFF}
\definecolor{ncdwire}{HTML}{1A1A1A}
\definecolor{ncdfaint}{HTML}{4D4D4D}
\definecolor{ncdglyph}{HTML}{1A1A1A}
\definecolor{ncdink}{HTML}{000000}
\definecolor{ncdlabel}{HTML}{000000}
\definecolor{ncdbox1}{HTML}{ABCAEA}
% \words{width}{size}{text} draws a text with the width that it has in the picture, whatever the font
\newsavebox\wordsbox
\newcommand\words[3]{\sbox\wordsbox{\fontsize{#2}{#2}\selectfont#3}%
  \ifdim\wd\wordsbox>0pt \pgfmathsetmacro\wordsfactor{#1/\wd\wordsbox}%
  \scalebox{\wordsfactor}[1]{\usebox\wordsbox}\fi}
\begin{document}
\vbox to 0pt{\hbox to 0pt{%
\begin{tikzpicture}[x=0.75bp,y=-0.75bp,line cap=rect,
  every node/.style={anchor=base west,inner sep=0pt,outer sep=0pt}]
\path[use as bounding box,fill=ncdpaper] (0,0) rectangle (72,36);
\path[fill=ncdbox1,draw=ncdglyph,line width=0.9bp] (30,6) -- (54,6) -- (54,30) -- (30,30) -- cycle;
\path (37.29,22.5) node[text=ncdlabel] {\words{3.13bp}{11.25bp}{\itshape f}};
\path (41.46,16.8) node[text=ncdlabel] {\words{3.94bp}{7.88bp}{2}};
\path[draw=ncdwire,line width=0.9bp] (0,16) -- (30,16) (0,20) -- (30,20);
\path (2,15) node[text=ncdlabel] {\words{5bp}{11.25bp}{\itshape y}};
\path[draw=ncdlabel,line width=0.62bp,line cap=butt] (2.9,6.3) -- (9.11,6.3);
\path[fill=ncdink] (60,18.12) circle[radius=3];
\path[draw=ncdfaint,line width=0.9bp] (0,30) .. controls (5,30) and (10,35) .. (10,36);
\path[draw=ncdfaint,line width=0.9bp,dash pattern=on 4.5bp off 3bp,line cap=butt] (0,30) -- (10,36);
\end{tikzpicture}%
\hss}\vss}
\end{document}
"""
    assert tikz(Picture(72, 36, marks, "A #1 % \\end{document}")) == expected.lstrip()


@given(st.text() | st.text("\\{}$&#^_~%`'\"<>|^^M -\u0301\u0308λ×注½²"))
def test_a_text_becomes_known_commands_alone(text: str) -> None:
    tex = escaped(text)
    assert tex.isascii()
    assert set(re.findall(r"\\(?:[a-zA-Z]+|.)", tex)) <= COMMANDS
    assert not re.search(r"[\x00-\x1f#$%&~^_]", re.sub(r"\\[#$%&~^_]|\^\\circ|\^\\prime|\^\{\\prime", "", tex))
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", tex.replace("\\\\", "")):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_characters_of_the_tables_have_commands() -> None:
    plain = [letter for letter in CHARACTERS if escaped(letter) == UNKNOWN]
    assert "".join(plain) == "¢¤¥¦®ÐÞðþƒˆˇ‚„‰‹›"
    for letter in "′×·−…∂Σ𝔼→★λη√∞≤≥₀²é":
        assert UNKNOWN not in escaped(letter), letter
    assert escaped("ﬁ𝐱ℝ") == r"fi\textbf{x}\ensuremath{\mathbb{R}}"
    assert escaped("\u0301e") == "e", "an accent without a letter"


@given(st.text())
def test_a_name_ends_no_line_of_the_document(name: str) -> None:
    head, body = tikz(named(name)).split("inner sep=0pt,outer sep=0pt}]\n")
    *marks, end, _, last, empty = body.split("\n")
    assert (end, last, empty) == (r"\end{tikzpicture}%", r"\end{document}", "")
    assert all(line.startswith(r"\path") and line.endswith(";") for line in marks)
    assert all(line[:1] in set("\\% ") for line in head.split("\n"))


def test_themes_have_the_same_geometry() -> None:
    bodies = {tikz(sample(), theme).split(r"\begin{document}")[1] for theme in THEMES}
    assert len(bodies) == 1
    assert len({tikz(sample(), theme) for theme in THEMES}) == 3
    with pytest.raises(CircuitError, match="the themes are 'light', 'dark', 'print'"):
        tikz(sample(), "sepia")


def test_every_colour_is_defined() -> None:
    text = tikz(sample())
    assert set(re.findall(r"=(ncd\w+)", text)) == set(re.findall(r"\\definecolor{(ncd\w+)}", text))


def test_the_largest_page_of_tex_is_kept() -> None:
    text = tikz(Picture(100_000, 300, (wire((0, 10), (100_000, 10)),)))
    found = re.search(r"paperwidth=([\d.]+)bp,paperheight=([\d.]+)bp", text)
    assert found
    assert (float(found[1]), float(found[2])) == (14_000, 42)
    assert "[x=0.14bp,y=-0.14bp," in text
