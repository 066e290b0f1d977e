"""Terminal text: pictures whole, wires followed from end to end, widths kept, nothing cut away."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from circuits.drawing.ink.letters import shown, spelled
from circuits.drawing.ink.terminal import terminal
from circuits.drawing.marks import Circle, Mark, Path, Picture, Span, Text
from circuits.errors import CircuitError
from tests.drawing.samples import TRIANGLE, box, cup, curve, data, named, sample, wire, words

P = 24


def picture(*marks: Mark) -> Picture:
    return Picture(600, 400, marks)


def size(line: str) -> int:
    """The columns of a line, as another library counts them."""
    return cell_len(line)


def attention() -> Picture:
    """The heart of attention: a cup that loses k, a copy, a softmax, and a value that is mixed in."""
    head = Path((130, 60), ((122, 56), (124, 60), (122, 64)), "", "ink", closed=True, data=data(kind="float", box="r"))
    tail = Path((156, 60), ((148, 56), (150, 60), (148, 64)), "", "ink", closed=True, data=data(kind="float", box="r"))
    triangle = ((264, 67), (264, 101))
    return picture(
        box(40, 10, 330, 200, "", "fence0", kind="fence", box="a", title="Attention"),
        words(46, 25, Span("Attention", "sans"), role="title", size=12, box="a"),
        words(6, 80, Span("y", over=True)),
        wire((0, 84), (240, 84)),
        words(6, 104, Span("k")),
        wire((0, 108), (120, 108)),
        Path((0, 120), ((110, 120),), dash="dashed", width=1.6, data=data(kind="comma")),
        words(6, 128, Span("k"), Span("2", shift="sub")),
        wire((0, 132), (120, 132)),
        cup(120, 108, 132),
        head,
        Text(134, 64.5, (Span("R"),), data=data(kind="float", box="r")),
        tail,
        Path((240, 84), triangle, "glyph", "inside", closed=True, data=TRIANGLE),
        wire((264, 84), (400, 84)),
        Circle(300, 84, 4, "", "ink", data=data(kind="dot", box="c")),
        curve(300, 84, 348, 180),
        wire((348, 180), (400, 180)),
    )


@pytest.mark.smoke
def test_a_picture_whole() -> None:
    expected = """\
      ┌ Attention ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┐
      ┆               ▸ R ▸                              ┆
 ȳ    ┆                                                  ┆
────────────────────────────────────────◁──────────●───────────
 k    ┆                                            │     ┆
───────────────────────╮                           │     ┆
╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌  │                           │     ┆
 k₂   ┆                │                           │     ┆
───────────────────────╯                           │     ┆
      ┆                                            │     ┆
      ┆                                            ╰───────────
      └┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┘
"""
    assert terminal(attention(), 100) == expected


def test_the_same_in_ascii_and_narrow() -> None:
    expected = """\
       + Attention ...................+
       :             > R >            :
 ybar  :                              :
-------------------------------<---o----
 k     :                           |  :
-----------------------+           |  :
.....................  |           |  :
 k_2   :               |           |  :
-----------------------+           |  :
       :                           |  :
       :                           +----
       +..............................+
"""
    assert terminal(attention(), 40, "ascii") == expected


# --- Wires ------------------------------------------------------------------------------------------------------------

RIGHT, DOWN, UP = (0, 1), (1, 0), (-1, 0)
TURNS = {
    **{(RIGHT, letter): RIGHT for letter in "─┼╲╱╳"},
    **{(DOWN, letter): DOWN for letter in "│┼"},
    **{(UP, letter): UP for letter in "│┼"},
    (RIGHT, "╮"): DOWN,
    (RIGHT, "╯"): UP,
    (DOWN, "╰"): RIGHT,
    (UP, "╭"): RIGHT,
    **{((1, 1), letter): (1, 1) for letter in "╲╳"},
    **{((-1, 1), letter): (-1, 1) for letter in "╱╳"},
    ((1, 1), "╰"): RIGHT,
    ((-1, 1), "╭"): RIGHT,
}
"""Where a wire that arrives in a direction at a letter goes on; nothing else is allowed."""


def follow(lines: list[str], row: int) -> int:
    """Follow a wire from the left end of a row; return the row in which it ends at the right."""
    width = max(map(len, lines))
    sheet = [line.ljust(width + 1) for line in lines] + [" " * (width + 1)]
    column, step = 0, RIGHT
    while column < width:
        letter = sheet[row][column]
        assert (step, letter) in TURNS, f"{letter!r} at row {row}, column {column} of\n" + "\n".join(lines)
        went, step = step, TURNS[step, letter]
        if went == RIGHT and step != RIGHT and sheet[row + step[0]][column] == " ":
            step = (step[0], 1)
        row, column = row + step[0], column + step[1]
    return row


@given(st.permutations(range(6)), st.integers(0, 2), st.integers(24, 200))
def test_wires_arrive_where_they_go(order: list[int], straight: int, wide: int) -> None:
    """Any permutation in one column: no two wires lie on one another, and each ends at its place."""
    order = [*range(straight), *(straight + place for place in order)]
    marks: list[Mark] = []
    for start, end in enumerate(order):
        y, v = P * start, P * end
        marks.append(wire((0, y), (50, y)))
        marks.append(curve(50, y, 50 + wide, v) if y != v else wire((50, y), (50 + wide, y)))
        marks.append(wire((50 + wide, v), (300, v)))
    lines = terminal(picture(*marks), None).splitlines()
    starts = [row for row, line in enumerate(lines) if line[:1] == "─"]
    assert len(starts) == len(order)
    assert [follow(lines, row) for row in starts] == [starts[end] for end in order]


def test_a_joint_is_no_crossing() -> None:
    marks = [wire((0, 0), (200, 0)), wire((0, 48), (200, 48)), wire((0, 24), (50, 24)), wire((0, 72), (50, 72))]
    dot = Circle(100, 0, 4, "", "ink", data=data(kind="dot"))
    text = terminal(picture(*marks, dot, curve(50, 24, 100, 0), curve(50, 72, 100, 0)), None)
    assert text.splitlines() == [
        "──────────┬●──────────────────",
        "          ││",
        "──────────╯│",
        "           │",
        "───────────┼──────────────────",
        "           │",
        "───────────╯",
    ]


def test_two_wires_that_change_places() -> None:
    text = terminal(picture(wire((0, 0), (20, 0)), curve(20, 0, 60, 24), curve(20, 24, 60, 0, double=True)), None)
    assert text == "─────╮ ╔════\n      ╳\n  ═══╝ ╰────\n"


# --- Words and widths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letters", ["unicode", "ascii"])
@pytest.mark.parametrize("width", [20, 33, 50, 80, None])
def test_no_line_is_too_long_and_no_word_is_lost(letters: Literal["unicode", "ascii"], width: int | None) -> None:
    for drawn in (sample(), attention()):
        text = terminal(drawn, width, letters)
        assert text.endswith("\n")
        assert not any(line != line.rstrip() for line in text.splitlines())
        if width:
            assert max(map(size, text.splitlines())) <= width
        for mark in drawn.marks:
            if isinstance(mark, Text):
                word = "".join(map(shown if letters == "unicode" else spelled, mark.spans))
                assert word in text, word


def test_what_is_too_wide_goes_on_below() -> None:
    boxes = [box(60 * i, 0, 40, 24, kind="glyph", box=f"{i}", shape="box") for i in range(12)]
    names = [words(60 * i + 20, 16, Span(f"box{i}", "sans"), size=9, middle=True) for i in range(12)]
    wires = [wire((60 * i - 20, 12), (60 * i, 12)) for i in range(13)]
    text = terminal(picture(*boxes, *names, *wires), 40)
    expected = """\
  ┌─────┐ ┌─────┐ ┌─────┐ ┌─────┐
──┤box0 ├─┤box1 ├─┤box2 ├─┤box3 ├▸
  └─────┘ └─────┘ └─────┘ └─────┘

  ┌─────┐ ┌─────┐ ┌─────┐ ┌─────┐
▸─┤box4 ├─┤box5 ├─┤box6 ├─┤box7 ├▸
  └─────┘ └─────┘ └─────┘ └─────┘

  ┌─────┐ ┌─────┐ ┌──────┐ ┌──────┐
▸─┤box8 ├─┤box9 ├─┤box10 ├─┤box11 ├──
  └─────┘ └─────┘ └──────┘ └──────┘
"""
    assert text == expected


def test_wide_letters_take_two_columns() -> None:
    frame = box(0, 0, 120, 60, kind="glyph", box="f", shape="box")
    text = terminal(picture(frame, words(60, 34, Span("注意 x\u0304🙂", "sans"), middle=True)), 100)
    lines = text.splitlines()
    assert {size(line) for line in lines} == {size(lines[0])}
    assert "注意 x̄🙂" in text


def test_words_are_spelled_in_ascii() -> None:
    spans = (Span("λ", over=True), Span("Σ×", shift="sup"), Span("−½", shift="sub"), Span("注\u0301\u200d𝔼é"))
    assert "".join(map(spelled, spans)) == "lambdabar^Sigmax_(-1/2)?Ee"
    assert "".join(map(shown, spans)) == "λ̄^(Σ×)_(−½)注\u0301\u200d𝔼é"
    assert shown(Span("-10", shift="sup")) == "⁻¹⁰"
    assert shown(Span("λ", shift="sub")) == "_λ"


@given(st.text(), st.sampled_from(["unicode", "ascii"]))
def test_any_name_is_drawn(name: str, letters: Literal["unicode", "ascii"]) -> None:
    text = terminal(named(name), None, letters)
    assert all(line.isprintable() or letters == "unicode" for line in text.splitlines())
    assert letters == "unicode" or text.isascii()
    assert "\x1b" not in text


def test_refused_arguments() -> None:
    for width in (19, 0, -5, 40.5, "80"):
        with pytest.raises(CircuitError) as caught:
            terminal(sample(), width)  # type: ignore[arg-type]
        assert str(caught.value) == f"width is {width!r}; it is a number of columns, 20 or more, or None"
    with pytest.raises(CircuitError) as caught:
        terminal(sample(), 80, "latin")  # type: ignore[arg-type]
    assert str(caught.value) == "letters is 'latin'; it is 'unicode' or 'ascii'"


def test_an_empty_picture_is_an_empty_text() -> None:
    assert terminal(picture(), 80) == ""


def test_signs_and_brackets() -> None:
    marks: list[Mark] = [
        Path((20, 0), ((10, 0, 10, 60, 20, 60),), "bracket", width=3, data=data(kind="bracket")),
        Path((180, 0), ((190, 0, 190, 60, 180, 60),), "bracket", width=3, data=data(kind="bracket")),
        wire((0, 30), (60, 30)),
        box(60, 10, 4, 40, "", "ink", kind="glyph", box="b", shape="bar"),
        wire((64, 30), (90, 30)),
        Circle(100, 30, 10, "glyph", "inside", data=data(kind="glyph", box="n", shape="circle")),
        Path((110, 30), ((150, 30),), "error", data=data(kind="wire")),
        Path((150, 20), ((170, 20), (178, 30), (170, 40), (150, 40)), "", "index", closed=True,
             data=data(kind="glyph", shape="pentagon")),
        words(160, 35, Span("i"), role="indextext", middle=True),
    ]  # fmt: skip
    expected = """\
  ⎛                       ⎞
  ⎜     ┃                 ⎟
────────┨─────○━━━━━━[i⟩  ⎟
  ⎜     ┃                 ⎟
  ⎝                       ⎠
"""
    assert terminal(picture(*marks), None) == expected


def test_arrows_at_the_ends_of_rows_stay_in_their_rows() -> None:
    leaves = Path((100, 30), ((108, 30, 112, 33, 116, 37),), data=data(kind="row", value=1, axis=0))
    enters = Path((0, 21), ((4, 26, 8, 30, 20, 30),), data=data(kind="row", value=1, axis=0))
    heads = [
        Path((118, 39), ((109, 37), (113, 30)), "", "ink", closed=True, data=data(kind="head")),
        Path((24, 30), ((16, 26), (18, 30), (16, 34)), "", "ink", closed=True, data=data(kind="head")),
    ]
    assert terminal(picture(enters, wire((20, 30), (100, 30)), leaves, *heads), None) == "──▸─────────────▸\n"
