"""The judges of a picture: each defect, planted in a good picture, is found, and both marks are named."""

import re
from dataclasses import replace

import pytest

from circuits.drawing.ink.svg import svg
from circuits.drawing.ink.themes import THEMES
from tests.drawing.elements import without_colours
from tests.drawing.geometry import KINDS, defects
from tests.drawing.pictures import good, rectangle, wire, words
from tests.drawing.planting import Plant, added, changed, ending, moved

NOWHERE, ENDLESS = float("nan"), float("inf")

PLANTS: list[tuple[str, Plant, str]] = [
    (
        "overlapping labels",
        changed("label", 4, moved(-38, -33)),
        r"label 'j' value 3 axis 1 at .* overlaps float 'R' box 0.1",
    ),
    ("overlapping labels", changed("title", 0, moved(90, 14)), r"title 'Attend' box 0 .* overlaps float 'R' box 0.1"),
    ("overlapping labels", changed("source", 0, moved(0, 43)), r"source 'Q' value 0 .* overlaps source 'K' value 1"),
    (
        "overlapping labels",
        added(words("×4", "bracket", 30, 118)),
        r"label 'k' value 1 axis 0 .* overlaps bracket '×4'",
    ),
    ("overlapping labels", added(words("no", "error", 360, 136)), r"memory '→ C' value 3 .* overlaps error 'no'"),
    ("labels on lines", changed("label", 0, moved(0, 3)), r"label 'y' .* lies on wire value 0 axis 0 name y"),
    ("labels on lines", changed("label", 1, moved(0, -16)), r"label 'k' .* lies on wire value 0 axis 0 name y"),
    ("labels on lines", changed("label", 2, moved(20, -17)), r"label 'k' value 1 .* lies on comma at"),
    ("labels on lines", changed("float", 0, moved(0, 40)), r"float 'R' .* lies on wire value 2 axis 1 name j at"),
    (
        "labels on lines",
        changed("label", 4, moved(60, 36)),
        r"label 'j' .* lies on wire value 3 axis 1 name j box c at",
    ),
    ("labels on lines", changed("label", 5, moved(80, 14)), r"label 'y' value 3 axis 0 .* lies on cup value 3 box 1"),
    ("labels on lines", changed("label", 5, moved(-12, 0)), r"label 'y' value 3 axis 0 .* lies on row value 3 axis 0"),
    ("labels on lines", changed("label", 3, moved(36, 4)), r"label 'y' value 3 .* lies on dot box c at"),
    ("labels on glyphs", changed("label", 0, moved(125, 42)), r"label 'y' value 0 .* lies on glyph .* title f box 0.0"),
    ("labels on glyphs", changed("label", 1, moved(330, 48)), r"label 'k' value 0 .* lies on memory value 3 at"),
    ("labels on glyphs", changed("text", 1, moved(-140, -190)), r"text 'Σ' box 2 .* lies on glyph .* title f box 0.0"),
    (
        "lines through glyphs",
        changed("wire", 3, moved(0, 40)),
        r"wire value 0 .* runs through glyph .* title f box 0.0",
    ),
    ("texts out of glyphs", changed("text", 0, moved(19, 0)), r"text 'f' box 0.0 .* is larger than glyph .* title f"),
    ("texts out of glyphs", changed("text", 0, moved(0, 24)), r"text 'f' box 0.0 .* is larger than glyph .* title f"),
    ("lines through glyphs", changed("comma", 0, ending((160, 96))), r"comma at .* runs through glyph .* title f"),
    ("lines through glyphs", changed("wire", 2, ending((155, 120))), r"wire value 1 .* runs through glyph .* title f"),
    (
        "lines through glyphs",
        changed("wire", 8, ending((200, 60, 150, 60, 140, 144))),
        r"wire value 3 axis 0 name y box c .* runs through glyph shape box title f box 0.0",
    ),
    (
        "coinciding lines",
        added(wire(9, 0, "b", (60, 84.5), (100, 84.5))),
        r"wire value 0 axis 1 .* runs along wire v.* 9",
    ),
    ("coinciding lines", changed("wire", 1, moved(0, 12)), r"wire value 0 axis 1 name k .* runs along comma at"),
    ("coinciding lines", changed("wire", 4, ending((232, 60))), r"wire value 2 .* runs along wire value 3 axis 0"),
    (
        "coinciding lines",
        added(wire(0, 1, "k", (30, 84), (150, 84))),
        r"wire value 0 axis 1 .* runs along wire value 0",
    ),
    (
        "coinciding lines",
        changed("wire", 8, ending((340, 60, 340, 60.5, 380, 60.5))),
        r"wire value 3 axis 0 name y box c .* runs along wire value 3 axis 0 name y at",
    ),
    (
        "coinciding lines",
        added(wire(8, 0, "b", (30, 250), (90, 250)), wire(9, 0, "b", (30, 250), (60, 250.5), (90, 250))),
        r"wire value 8 .* runs along wire value 9",
    ),
    ("loose ends", changed("wire", 1, ending((146, 84))), r"the end of wire value 0 axis 1 name k .* meets nothing"),
    ("loose ends", changed("wire", 5, moved(2, 0)), r"the start of wire value 3 axis 0 name y .* meets nothing"),
    ("loose ends", changed("wire", 2, moved(0, 12)), r"the end of wire value 1 axis 0 name k .* meets nothing"),
    ("loose ends", changed("cup", 0, moved(0, 2)), r"the start of cup value 3 box 1 .* meets nothing"),
    (
        "loose ends",
        changed("memory", 0, lambda _: None),
        r"the end of wire value 3 axis 1 name j box c .* meets nothing",
    ),
    ("loose ends", changed("text", 1, lambda _: None), r"the end of wire value 4 axis 1 name x .* meets nothing"),
    ("loose ends", changed("row", 0, lambda _: None), r"the end of wire value 3 axis 0 name y at .* meets nothing"),
    ("loose ends", changed("row", 1, moved(6, 0)), r"the end of row value 3 axis 1 .* meets nothing"),
    ("boxes out of order", changed("float", 0, moved(-120, 0)), r"float 'R' box 0.1 .* reads 2 and is not after glyph"),
    (
        "boxes out of order",
        added(rectangle("glyph", 20, 130, 40, 150, "", box="3", title="g", **{"in": "3"})),
        r"glyph title g box 3 .* reads 3 and is not after float 'R'",
    ),
    (
        "boxes out of order",
        added(rectangle("glyph", 60, 262, 70, 268, "", box="3", title="g", out="0")),
        r"glyph shape box title f box 0.0 .* reads 0 and is not after glyph title g box 3",
    ),
    ("out of bounds", lambda picture: replace(picture, marks=()), r"the picture is empty"),
    ("out of bounds", lambda picture: replace(picture, marks=picture.marks[:1]), r"the picture is empty"),
    ("out of bounds", changed("source", 0, moved(-12, 0)), r"source 'Q' .* is outside the picture, which is 420 × 330"),
    (
        "out of bounds",
        changed("label", 7, moved(40, 0)),
        r"label 'z' value 4 .* is outside the picture, which is 420 × 330",
    ),
    ("out of bounds", changed("wire", 0, moved(NOWHERE, 0)), r"wire .* has a place that is no number"),
    ("out of bounds", changed("dot", 0, moved(0, ENDLESS)), r"dot .* has a place that is no number"),
]


def test_a_good_picture_has_no_defect() -> None:
    assert defects(good()) == []


def test_two_lines_from_one_point_to_another_may_be_apart_between_them() -> None:
    one, two = wire(8, 0, "b", (30, 250), (90, 250)), wire(9, 0, "b", (30, 250), (40, 256), (80, 256), (90, 250))
    assert not [each for each in defects(added(one, two)(good())) if each.startswith("coinciding lines")]


@pytest.mark.every(3)
@pytest.mark.parametrize(("title", "plant", "words"), PLANTS)
def test_a_planted_defect_is_found(title: str, plant: Plant, words: str) -> None:
    found = [each for each in defects(plant(good())) if each.startswith(f"{title}: ")]
    assert [each for each in found if re.search(words, each)], found


def test_every_kind_of_defect_is_planted() -> None:
    assert {title for title, _, _ in PLANTS} == set(KINDS)


# Themes ---------------------------------------------------------------------------------------------------------------


def test_themes_change_colours_and_nothing_else() -> None:
    drawn = [svg(good(), theme) for theme in THEMES]
    assert len(set(drawn)) == len(THEMES)
    assert len({without_colours(each) for each in drawn}) == 1


@pytest.mark.parametrize("plant", [changed("wire", 0, moved(0.1, 0)), changed("label", 0, moved(0, 0.1))])
def test_another_geometry_is_no_theme(plant: Plant) -> None:
    assert without_colours(svg(plant(good()))) != without_colours(svg(good(), "dark"))
