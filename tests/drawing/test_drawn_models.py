"""Drawings of the zoo, of other libraries' models and of random programs: without defects, and they say what is so."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from circuits import Diagram, draw
from circuits.drawing.ink.svg import svg
from circuits.drawing.ink.themes import THEMES
from circuits.drawing.marks import Path, Picture
from tests.drawing.claims import lies
from tests.drawing.elements import without_colours
from tests.drawing.expected import differences
from tests.drawing.geometry import defects
from tests.drawing.rebuild import rebuild
from tests.drawing.shapes import kind
from tests.drawing.subjects import FOREIGN, PROGRAMS, QUICK, foreign, program, zoo
from tests.drawing.test_rebuild import said
from tests.models.test_zoo import MODELS

OPTIONS = [{"depth": 1}, {"depth": 2}, {}, {"depth": 2, "wires": "tensors"}, {"literal": True}]
LATER = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FOREIGN]
CROSSED = (13, 23, 82)  # copies that fall beside an index; a sum of all; copies beside a split
STEPPED = (458, 549)  # a dashed line that went along a wire that bends
PROGRAMS_LATER = [
    pytest.param(case, marks=[] if case in CROSSED else pytest.mark.slow) for case in (*PROGRAMS, *STEPPED)
]
MOST = ("visual attention", "convolution", "encoder layer", "attention", "mlp", "unet as drawn")
MODELS_LATER = [pytest.param(name, marks=[] if name in MOST else pytest.mark.slow) for name in MODELS]


def drawings(diagram: Diagram) -> Iterator[tuple[dict[str, object], Picture, str]]:
    """Yield the drawings of a diagram with several options: the options, the marks and the text."""
    for options in OPTIONS:
        drawing = draw(diagram, **options)
        yield options, drawing.picture, drawing.svg


def check(name: str, diagram: Diagram) -> None:
    """Assert that the drawings of a model have no defects, and say what the diagram says."""
    for options, picture, text in drawings(diagram):
        assert not defects(picture), options
        assert not differences(text, diagram), options


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS_LATER)
def test_drawings_of_the_zoo(name: str) -> None:
    check(name, zoo(name))


@pytest.mark.every(3, 2)
@pytest.mark.parametrize("name", LATER)
def test_drawings_of_other_libraries_models(name: str) -> None:
    check(name, foreign(name))


@pytest.mark.every(3, 16)
@pytest.mark.parametrize("case", PROGRAMS_LATER)
def test_drawings_of_random_programs(case: int) -> None:
    diagram = program(case)
    if diagram is None:
        return
    for _, picture, text in drawings(diagram):
        assert not defects(picture)
        assert not differences(text, diagram)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_wires_of_a_drawing_say_the_truth(name: str) -> None:
    assert not lies(draw(foreign(name), depth=9).svg, foreign(name))


def test_themes_of_a_drawing_have_one_geometry() -> None:
    assert len({without_colours(draw(zoo("attention"), theme=theme).svg) for theme in THEMES}) == 1


def bent(picture: Picture) -> Iterator[tuple[Path, Path, Picture]]:
    """Yield a picture with the ends of two neighbouring wires exchanged, for each two that end below each other."""
    wires = [(number, mark) for number, mark in enumerate(picture.marks) if isinstance(mark, Path)]
    ends = sorted([(round(mark.end[0], 1), mark.end[1], number) for number, mark in wires if kind(mark) == "wire"])
    for (x, y, one), (u, v, two) in pairwise(ends):
        if x == u and 1 < v - y < 80:
            marks = list(picture.marks)
            first, second = marks[one], marks[two]
            assert isinstance(first, Path)
            assert isinstance(second, Path)
            marks[one] = replace(first, pieces=(*first.pieces[:-1], (*first.pieces[-1][:-2], *second.end)))
            marks[two] = replace(second, pieces=(*second.pieces[:-1], (*second.pieces[-1][:-2], *first.end)))
            yield first, second, replace(picture, marks=tuple(marks))


@pytest.mark.every(3)
@pytest.mark.parametrize("name", ["attention", "encoder layer", "convolution"])
def test_a_wire_bent_to_another_port_is_found(name: str) -> None:
    """Both of two exchanged wires end elsewhere, unless they end in one cup, which has no first and second wire."""
    picture = draw(zoo(name), depth=9).picture
    true, found = said(rebuild(svg(picture))), []
    changes = list(bent(picture))
    for first, second, changed in changes:
        cups = [mark for mark in picture.marks if isinstance(mark, Path) and kind(mark) == "cup"]
        same = any({cup.start, cup.end} == {first.end, second.end} for cup in cups)
        found.append(same or said(rebuild(svg(changed))) != true)
    assert len(changes) > 7
    assert all(found)
