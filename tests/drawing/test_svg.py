"""SVG: parsed as XML and compared with the marks, names of every kind as text, themes that change colours alone."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.drawing.ink.curves import lines, number, points
from circuits.drawing.ink.svg import svg
from circuits.drawing.ink.themes import THEMES, colours
from circuits.drawing.marks import ROLES, Circle, Path, Picture, Span, Text
from circuits.drawing.widths import line, visible, width
from circuits.errors import CircuitError
from tests.drawing.samples import box, cup, curve, data, named, sample, wire

SVG = "{http://www.w3.org/2000/svg}"

NAMES = st.text() | st.sampled_from(["<script>alert(1)</script>", "\"'&<>]]>", "\x00\x1b", "注意", "a\nb", "&lt;"])


def parsed(picture: Picture, theme: str = "light") -> ElementTree.Element:
    return ElementTree.fromstring(svg(picture, theme))


def content(element: ElementTree.Element) -> str:
    """The text of an element without the titles in it."""
    return "".join(part.text or "" for part in element.iter() if part.tag != SVG + "title")


def seen(text: str) -> str:
    """The characters that have a width, without blanks."""
    return "".join(letter for letter in text if not letter.isspace() and width([Span(letter)], 1))


def test_a_small_picture_whole() -> None:
    marks = (
        box(30, 6, 24, 24, kind="glyph", box="f", title="<f>"),
        Text(42, 22.5, (Span("f"), Span("2", "upright", "sup")), anchor="middle", data=data(kind="text", box="f")),
        wire((0, 18), (30, 18)),
        Text(2, 15, (Span("y", over=True),), data=data(kind="label", value=0, axis=0)),
        Circle(60, 18.123, 3, "", "ink", data=data(kind="dot", box="d")),
    )
    expected = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 36" width="72" height="36" \
style="max-width: 100%; height: auto" role="img" fill="none" stroke-linecap="square" \
font-family="'STIX Two Text', 'Times New Roman', Times, 'Liberation Serif', \
'Nimbus Roman', 'New Computer Modern', serif" xml:space="preserve">
<title>Small</title>
<rect width="72" height="36" fill="#ffffff"/>
<path d="M30 6L54 6L54 30L30 30Z" stroke="#1a1a1a" stroke-width="1.2" data-kind="glyph" data-box="f" \
data-title="&lt;f&gt;"><title>&lt;f&gt;</title></path>
<text fill="#000000" data-kind="text" data-box="f"><tspan x="37.29" y="22.5" font-style="italic" font-size="15" \
textLength="4.17" lengthAdjust="spacingAndGlyphs">f</tspan><tspan x="41.46" y="16.8" font-size="10.5" \
textLength="5.25" lengthAdjust="spacingAndGlyphs">2</tspan></text>
<path d="M0 18L30 18" stroke="#1a1a1a" stroke-width="1.2" data-kind="wire" data-value="1" data-axis="0" data-name="y"/>
<g data-kind="label" data-value="0" data-axis="0"><text x="2" y="15" font-style="italic" font-size="15" \
textLength="6.66" lengthAdjust="spacingAndGlyphs" fill="#000000">y</text>\
<path d="M2.9 6.3H9.11" stroke="#000000" stroke-width="0.83" stroke-linecap="butt"/></g>
<circle cx="60" cy="18.12" r="3" fill="#000000" data-kind="dot" data-box="d"/>
</svg>
"""
    assert svg(Picture(72, 36, marks, "Small")) == expected


def test_every_mark_is_one_element_with_its_data() -> None:
    picture = sample()
    root = parsed(picture)
    assert root.attrib["viewBox"] == "0 0 540 380"
    assert (root.attrib["width"], root.attrib["height"], root.attrib["role"]) == ("540", "380", "img")
    assert root.attrib["style"] == "max-width: 100%; height: auto"
    title, ground, *elements = root
    assert (title.tag, title.text) == (SVG + "title", "A sample")
    assert ground.attrib == {"width": "540", "height": "380", "fill": "#ffffff"}
    assert len(elements) == len(picture.marks)
    for mark, element in zip(picture.marks, elements, strict=True):
        found = {name[5:]: value for name, value in element.attrib.items() if name.startswith("data-")}
        assert found == dict(mark.data)
        if isinstance(mark, Text):
            assert content(element) == mark.plain
        elif isinstance(mark, Path):
            starts = re.findall(r"M([\d.]+) ([\d.]+)", element.attrib["d"])
            assert len(starts) == (2 if mark.double else 1)
            places = [(float(x), float(y)) for x, y in starts]
            mean = [sum(axis) / len(places) for axis in zip(*places, strict=True)]
            assert mean == pytest.approx(list(mark.start), abs=0.01)


@given(NAMES)
def test_every_name_is_text(name: str) -> None:
    root = parsed(named(name))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "rect", "path", "text", "tspan", "g")
    }
    title, _, glyph, label, other = root
    assert (title.text or "") == glyph.attrib["data-title"] == glyph.attrib["data-box"] == visible(name)
    assert (glyph[0].text or "") == visible(name)
    for element, times in ((label, 1), (other, 2)):
        assert element.attrib["data-name"] == visible(name)
        assert seen(content(element)) == seen(visible(name)) * times
    assert "\r" not in svg(named(name))


@given(st.lists(st.tuples(st.text("ab-_ .Z☃", min_size=1), st.text("xy", max_size=2)), max_size=4))
def test_any_data_is_well_formed(values: list[tuple[str, str]]) -> None:
    mark = Path((0, 0), ((1, 1),), data=tuple(values))
    (element,) = list(parsed(Picture(9, 9, (mark,))))[2:]
    found = sorted(word for name, value in element.attrib.items() if name.startswith("data-") for word in value.split())
    assert found == sorted(value for _, value in values if value)


def test_themes_have_the_same_geometry() -> None:
    texts = {theme: svg(sample(), theme) for theme in THEMES}
    shapes = {re.sub(r"#[0-9a-f]{6}", "#", text) for text in texts.values()}
    assert len(shapes) == 1
    assert len(set(texts.values())) == len(THEMES)
    with pytest.raises(CircuitError) as caught:
        svg(sample(), "sepia")
    assert str(caught.value) == "theme is 'sepia'; the themes are 'light', 'dark', 'print'"


def test_numbers_have_two_decimals() -> None:
    assert not re.findall(r"\d\.\d{3}|\de-|nan|inf", svg(sample()))
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(CircuitError, match=f"a picture has the coordinate {value}"):
            number(value)


@pytest.mark.slow
def test_another_process_writes_the_same_bytes() -> None:
    program = "from circuits.drawing.ink.svg import svg; from tests.drawing.samples import sample; print(svg(sample()))"
    written = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, env={"PYTHONHASHSEED": seed}, check=True)
        for seed in ("1", "2")
    ]
    assert {run.stdout for run in written} == {(svg(sample()) + "\n").encode()}


# --- Double lines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        wire((0, 0), (48, 0), double=True),
        curve(0, 0, 48, 24, double=True),
        curve(0, 0, 36, 168, double=True),
        curve(0, 72, 30, 0, double=True),
        cup(0, 0, 24, double=True),
        cup(0, 0, 96, double=True),
        wire((0, 0), (40, 0), (40, 40), (80, 40), double=True),
    ],
)
def test_two_lines_stand_at_equal_distances(path: Path) -> None:
    middle = list(points(lines(Path(path.start, path.pieces))[0], 400))
    sides = [list(points(part, 40)) for part in lines(path)]
    assert len(sides) == 2
    corners = len(path.pieces) > 2
    for side in sides:
        gaps = [_distance(point, middle) for point in side]
        assert max(gaps) < (2 * 2**0.5 + 0.01 if corners else 2.01)
        assert min(gaps) > 1.9
    for place, end in ((0, path.start), (-1, path.end)):
        assert sorted(side[place][1] for side in sides) == pytest.approx([end[1] - 2, end[1] + 2])
        assert [side[place][0] for side in sides] == pytest.approx([end[0], end[0]])


def _distance(point: tuple[float, float], way: list[tuple[float, float]]) -> float:
    """The distance of a point from a way of straight pieces."""
    found: list[float] = []
    for (x, y), (u, v) in pairwise(way):
        t = ((point[0] - x) * (u - x) + (point[1] - y) * (v - y)) / ((u - x) ** 2 + (v - y) ** 2)
        t = min(max(t, 0.0), 1.0)
        found.append(math.dist(point, (x + (u - x) * t, y + (v - y) * t)))
    return min(found)


def test_a_double_path_of_no_length_is_drawn() -> None:
    root = parsed(Picture(9, 9, (Path((3, 3), ((3, 3),), double=True), Path((3, 3), (), double=True))))
    assert len(root) == 4


# --- Text and themes --------------------------------------------------------------------------------------------------


def test_a_text_is_as_wide_as_layout_thinks() -> None:
    spans = (Span("x", "bold", over=True), Span("5−λ", shift="sub"), Span("→ Max", "upright"))
    for anchor, left in (("start", 100.0), ("middle", 100 - width(spans, 20) / 2), ("end", 100 - width(spans, 20))):
        element = parsed(Picture(200, 50, (Text(100, 30, spans, 20, anchor),)))[2]  # type: ignore[arg-type]
        pieces = list(element.iter(SVG + "tspan"))
        assert float(pieces[0].attrib["x"]) == pytest.approx(left, abs=0.01)
        ends = [float(piece.attrib["x"]) + float(piece.attrib["textLength"]) for piece in pieces]
        assert max(ends) == pytest.approx(left + width(spans, 20), abs=0.02)
        bar = re.fullmatch(r"M([\d.]+) ([\d.]+)H([\d.]+)", element.findall(SVG + "path")[0].attrib["d"])
        assert bar
        first = next(iter(line(spans, 20)))
        assert (float(bar[1]), float(bar[3])) == pytest.approx((left, left + first.width), abs=0.01)
        assert 30 - 20 < float(bar[2]) < 30 - 20 * 0.45


def brightness(colour: str) -> float:
    """The relative luminance of WCAG."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted([brightness(one), brightness(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_texts_are_readable_on_every_ground(theme: str) -> None:
    table = colours(theme)
    assert tuple(table) == ROLES
    grounds = [role for role in ROLES if role[:5] == "fence" or role[:3] == "box"]
    grounds += ["paper", "inside", "window", "star", "memory"]
    texts = ("label", "title", "error", "glyph", "ink", "wire", "bracket", "cotangent", "faint")
    poor = {
        (text, ground): round(contrast(table[text], table[ground]), 2)
        for text in texts
        for ground in grounds
        if contrast(table[text], table[ground]) < 4.5
    }
    assert not poor
    assert contrast(table["indextext"], table["index"]) >= 4.5


def test_tints_differ_and_print_is_grey() -> None:
    for theme in THEMES:
        table = colours(theme)
        for name in ("fence", "box"):
            assert len({table[f"{name}{number}"] for number in range(8)}) == 8
    for role, colour in colours("print").items():
        if role not in {"cotangent", "error"} and role != "memory":
            assert colour[1:3] == colour[3:5] == colour[5:7], role
    shades = [brightness(colours("print")[role]) for role in ("wire", "error", "cotangent")]
    assert max(shades) < 0.08, "dark on paper without colour too"
