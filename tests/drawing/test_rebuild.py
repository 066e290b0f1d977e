"""The connections rebuilt from an SVG are those that were drawn, and others when a wire is bent."""

import re
from dataclasses import replace

import pytest

from circuits.drawing.ink.svg import svg
from circuits.drawing.marks import Path
from tests.drawing.pictures import good
from tests.drawing.planting import Plant, changed, ending, moved
from tests.drawing.rebuild import Rebuilt, rebuild
from tests.drawing.shapes import kind

JOINTS = """
        -> 0.0
        -> 0.1
        -> 1.0
    row: -> 3.0
    row: -> 3.1
    cup 1: 3.0, 3.1 ->
    wire 0.0: 0.0 -> 2.0
    glyph 0.0: 0.1, 1.0 -> 2.1
        2.0 -> 3.0
        2.1 -> 3.1
    memory: -> 4.0
    memory: -> 4.1
    wire dot memory c: 3.0 -> 3.0
    wire dot memory c: 3.1 -> 3.1
    text 2: 4.1 ->
    row: 3.0 ->
    row: 3.1 ->
        4.0 ->
"""
"""What the good picture says: the marks at each joint, its box, and the wires that end and begin there."""


def said(rebuilt: Rebuilt) -> list[str]:
    """Return the joints of a drawing as text."""
    found = []
    for joint in rebuilt.joints:
        ins, outs = [", ".join([f"{value}.{axis}" for value, axis in side]) for side in (joint.ins, joint.outs)]
        what = " ".join((*joint.kinds, *joint.boxes))
        found.append(" ".join(f"{what}: {ins} -> {outs}".removeprefix(": ").split()))
    return found


WANTED = [" ".join(line.split()) for line in JOINTS.strip().splitlines()]


def test_the_connections_of_a_drawing_are_rebuilt() -> None:
    rebuilt = rebuild(svg(good()))
    assert said(rebuilt) == WANTED
    assert rebuilt.titles == {"0.0": "f"}
    assert rebuilt.names[1, "0"] == ("k",)
    assert rebuilt.steps == (("0.0", (0, 1), (2,)), ("0.1", (2,), (3,)))
    assert rebuilt.fences == {"0": "Attend"}
    assert rebuilt.boxes == {"0.0", "0.1", "1", "2", "c"}


def test_both_lines_of_a_pair_are_one_wire() -> None:
    picture = good()
    drawn = ("wire", "cup", "row")
    marks = [
        replace(mark, double=True) if isinstance(mark, Path) and kind(mark) in drawn else mark for mark in picture.marks
    ]
    text = svg(replace(picture, marks=tuple(marks)))
    assert len(re.findall(r'd="M[^"]*M', text)) == len([mark for mark in picture.marks if kind(mark) in drawn])
    assert said(rebuild(text)) == WANTED


@pytest.mark.parametrize(
    ("plants", "changes"),
    [
        (  # y ends on the glyph and k passes it
            [changed("wire", 0, ending((150, 84))), changed("wire", 1, ending((150, 60)))],
            {"wire 0.0: 0.1 -> 2.0", "glyph 0.0: 0.0, 1.0 -> 2.1"},
        ),
        (  # two wires of one glyph in another order
            [changed("wire", 1, ending((150, 120))), changed("wire", 2, ending((150, 84)))],
            {"glyph 0.0: 1.0, 0.1 -> 2.1"},
        ),
        ([changed("wire", 5, moved(0, 24))], {"2.0 ->", "2.1 -> 3.0, 3.1", "wire dot memory c: -> 3.0"}),
        ([changed("wire", 2, ending((150, 60)))], {"wire 0.0: 0.0, 1.0 -> 2.0", "glyph 0.0: 0.1 -> 2.1"}),
        ([changed("cup", 0, moved(0, 24))], {"3.0 ->", "cup 1: 3.1 ->"}),
        ([changed("dot", 0, moved(9, 9))], {"wire memory c: 3.0 -> 3.0"}),
        ([changed("text", 1, moved(60, 0))], {"4.1 ->"}),
        ([changed("row", 3, moved(0, 24))], {"-> 3.1"}),
    ],
)
def test_a_wire_bent_to_another_place_is_another_connection(plants: list[Plant], changes: set[str]) -> None:
    picture = good()
    for plant in plants:
        picture = plant(picture)
    found = said(rebuild(svg(picture)))
    assert changes <= set(found) - set(WANTED)
    assert sorted(found) != sorted(WANTED)
