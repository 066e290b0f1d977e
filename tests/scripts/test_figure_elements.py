"""Elements of the paper's figures that were wrong once: each is measured in our drawing of the figure."""

import pytest

from circuits.drawing.marks import Circle, Mark, P, Path, Text
from scripts.figures import FIGURES, Part


def marks_of(target: str, kind: str) -> list[Mark]:
    """The marks of one kind in the part of a figure that draws a target."""
    parts = [each for rows in FIGURES.values() for row in rows for each in row if isinstance(each, Part)]
    part = next(each for each in parts if each.target == target and each.options.get("wires") != "tensors")
    return [mark for mark in part.drawing().picture.marks if dict(mark.data).get("kind") == kind]


def words(marks: list[Mark]) -> list[str]:
    return ["".join(span.text for span in mark.spans) for mark in marks if isinstance(mark, Text)]


def paths(marks: list[Mark], **data: str) -> list[Path]:
    return [mark for mark in marks if isinstance(mark, Path) and data.items() <= dict(mark.data).items()]


def edges(path: Path) -> tuple[float, float]:
    """The left and the right edge of a rectangle."""
    places = [path.start[0], *[piece[-2] for piece in path.pieces]]
    return min(places), max(places)


@pytest.mark.parametrize("target", ["basics:H_of_rows", "basics:apply_then_index_inner"])
def test_the_arguments_of_a_broadcast_circuit_stay_on_their_rows(target: str) -> None:
    """Figure 11: the tensor without the new axis came first, and its wire crossed the others."""
    wires = paths(marks_of(target, "wire"))
    assert wires
    assert all(piece[-1] == wire.start[1] for wire in wires for piece in wire.pieces)


@pytest.mark.slow
def test_declared_sizes_tell_inputs_apart() -> None:
    """Section 2.3 has no names at the left edge; Figure 20 has."""
    assert not marks_of("basics:h", "source")
    assert words(marks_of("scaled_dot_product:attention", "source")) == ["Q", "K", "V"]


@pytest.mark.slow
def test_dashed_lines_end_where_arcs_begin() -> None:
    """Figure 20: between the wires that a cup joins."""
    arcs = sorted(mark.start[0] for mark in paths(marks_of("scaled_dot_product:attention", "cup")))
    ends = sorted(mark.end[0] for mark in paths(marks_of("scaled_dot_product:attention", "comma")))
    assert len(arcs) == 2
    assert ends[-2:] == pytest.approx(arcs)


def test_wires_leave_a_box_at_its_top() -> None:
    """Section 2.3: 1 and 2 leave g below each other."""
    made = max(paths(marks_of("basics:h", "wire")), key=lambda wire: wire.start[0]).start[0]
    rows = [wire.start[1] for wire in paths(marks_of("basics:h", "wire")) if wire.start[0] == made]
    assert rows[1] - rows[0] == pytest.approx(P)


@pytest.mark.slow
def test_a_further_channel_rises_to_the_learned_map() -> None:
    """Figure 28: the heads end at the last map half a distance below the wire above."""
    ends = {tuple(wire.pieces[-1][-2:]) for wire in paths(marks_of("visual_attention:VisualAttention", "wire"))}
    letters = paths(marks_of("visual_attention:VisualAttention", "glyph"), shape="letter")
    x = max(letters, key=lambda each: each.start[0]).start[0]
    rows = sorted(y for end, y in ends if end == pytest.approx(x))
    assert rows[1] - rows[0] == pytest.approx(P / 2)


@pytest.mark.slow
def test_brackets_have_a_range_and_names_by_it() -> None:
    """Figure 27: λ = 4 above and λ = 1 below, and the names by λ stand before the bracket ends too."""
    texts = words(marks_of("unet:UNet.as_drawn", "bracket"))
    assert {"λ = 4", "λ = 3", "λ = 1"} <= {*texts}
    right = sorted({mark.start[0] for mark in paths(marks_of("unet:UNet.as_drawn", "bracket"))})
    labels = [mark for mark in marks_of("unet:UNet.as_drawn", "label") if words([mark]) == ["xλ+1"]]
    assert len(labels) == 1
    assert isinstance(labels[0], Text)
    assert labels[0].x < right[-1]


@pytest.mark.slow
def test_what_is_saved_is_copied_behind_the_box_that_returns_it() -> None:
    """Figure 27: the copy stands in the block, behind its double convolution."""
    fences = paths(marks_of("unet:UNet.as_drawn", "fence"))
    inner, outer = (
        next(edges(each) for each in fences if dict(each.data)["title"] == title)
        for title in ("DoubleConvolution", "DownScaleBlock")
    )
    dots = [mark.x for mark in marks_of("unet:UNet.as_drawn", "dot") if isinstance(mark, Circle)]
    (copy,) = {x for x in dots if dots.count(x) == 2}
    assert inner[1] < copy < outer[1]
