"""Pictures joined to one: beside each other with signs, and one below the other."""

from circuits.drawing.ink.svg import svg
from circuits.drawing.joined import Sign, below, beside
from circuits.drawing.layout.picture import moved
from circuits.drawing.marks import Circle, Mark, Path, Picture, Span, Text

PATH = Path((1, 2), ((3, 4), (5, 6, 7, 8, 9, 10)), data=(("kind", "wire"), ("value", "0")))
MARKS: tuple[Mark, ...] = (
    PATH,
    Circle(1, 2, 3, data=(("kind", "dot"),)),
    Text(1, 2, (Span("y"),), data=(("kind", "label"),)),
)
SMALL, LARGE = Picture(20, 10, MARKS, "small"), Picture(30, 50, MARKS, "large")


def places(marks: tuple[Mark, ...]) -> list[tuple[float, float]]:
    return [mark.start if isinstance(mark, Path) else (mark.x, mark.y) for mark in marks]


def test_every_kind_of_mark_is_moved() -> None:
    assert places(tuple(moved(mark, 10, 20) for mark in MARKS)) == [(11, 22)] * 3
    path = moved(PATH, 10, 20)
    assert isinstance(path, Path)
    assert path.pieces == ((13, 24), (15, 26, 17, 28, 19, 30))
    assert [moved(moved(mark, 10, 20), -10, -20) for mark in MARKS] == [*MARKS]


def test_pictures_beside_each_other_have_their_middles_at_one_height() -> None:
    sign = Sign("=", "def")
    joined = beside([SMALL, sign, LARGE])
    assert (joined.width, joined.height) == (20 + sign.width + 30, 50)
    first, signs, second = joined.marks[:3], joined.marks[3:5], joined.marks[5:]
    assert places(first) == [(1, 22)] * 3
    assert places(second) == [(21 + sign.width, 2)] * 3
    assert [mark.plain for mark in signs if isinstance(mark, Text)] == ["=", "def"]
    assert all(mark.x == 20 + sign.width / 2 for mark in signs if isinstance(mark, Text))
    assert joined.title == "small = large"


def test_a_picture_below_another_begins_where_that_ends() -> None:
    joined = below([SMALL, LARGE], gap=7)
    assert (joined.width, joined.height) == (30, 67)
    assert places(joined.marks) == [(1, 2)] * 3 + [(1, 19)] * 3
    assert joined.title == "small; large"


def test_each_mark_says_to_which_picture_it_belongs() -> None:
    """Boxes and values of two pictures have the same numbers."""
    rows = below([beside([SMALL, Sign(), LARGE]), SMALL])
    parts = [dict(mark.data).get("part") for mark in rows.marks if ("kind", "wire") in mark.data]
    assert parts == ["0.0", "0.1", "1"]
    assert 'data-part="0.1"' in svg(rows)


def test_nothing_joined_is_an_empty_picture() -> None:
    assert below([]) == Picture(0.0, 0.0, (), "")
    assert beside([]) == Picture(0.0, 0.0, (), "")
