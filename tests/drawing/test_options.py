"""Each option of `draw` that says what wires and labels show: what is seen with it, and what without."""

from typing import Any

import pytest
import torch
from torch import nn

from circuits import CircuitError, Drawing, LinearMap, circuit, draw, trace
from circuits.drawing.marks import Path, Text
from models.scaled_dot_product import attention
from tests.drawing.elements import without_colours
from tests.drawing.seen import at_the_left, at_the_right, closed, of_kind, opened, rows, texts
from tests.drawing.shapes import data
from tests.drawing.subjects import zoo

ATTENTION = trace(attention)
SIZED = trace(attention, sizes={"y": 20, "x": 22, "k": 16})
IMAGE = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), axes="b 3 h w")


def double(drawing: Drawing) -> list[str]:
    """Return the names of the wires that are drawn as two lines."""
    return [data(mark)["name"] for mark in of_kind(drawing, "wire") if isinstance(mark, Path) and mark.double]


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("", "b 3 h w"),
        ("h w", "h w b 3"),
        (("h", "w"), "h w b 3"),
        ("... b", "3 h w b"),
        ("w ... b", "w 3 h b"),
        ("w ...", "w b 3 h"),
        ("... h w", "b 3 h w"),
        ("q b", "b 3 h w"),
    ],
)
def test_order_is_that_from_top_to_bottom(order: str | tuple[str, ...], expected: str) -> None:
    drawing = draw(IMAGE, order=order)
    assert at_the_left(drawing) == expected.split()
    assert at_the_right(drawing) == expected.replace("3", "8").split()


def test_order_is_that_of_every_tensor() -> None:
    assert at_the_left(draw(ATTENTION)) == ["y", "k", "x", "k", "x", "k"]
    drawing = draw(ATTENTION, order="k")
    assert at_the_left(drawing) == ["k", "y", "k", "x", "k", "x"]
    assert at_the_right(drawing) == ["k", "y"]


def test_order_finds_axes_by_their_letters() -> None:
    @circuit("c h w -> c h/2 w/2")
    def pooled(image: torch.Tensor) -> torch.Tensor:
        return nn.functional.max_pool2d(image, 2)

    drawing = draw(pooled, sizes={"h": 4, "w": 4, "c": 3}, order="w h c")
    assert at_the_left(drawing) == ["w", "h", "c"]
    assert at_the_right(drawing) == ["w/2", "h/2", "c"]


def test_order_changes_no_connection() -> None:
    """The cup joins the same axes, and every wire has the name that it has without an order."""
    joined = [
        {(data(mark)["value"], data(mark)["axis"]) for mark in of_kind(drawing, "cup")}
        for drawing in (draw(ATTENTION), draw(ATTENTION, order="k x y"))
    ]
    assert joined[0] == joined[1]
    names = [
        {(data(mark)["value"], data(mark)["axis"], data(mark)["name"]) for mark in of_kind(drawing, "wire")}
        for drawing in (draw(ATTENTION), draw(ATTENTION, order="k x y"))
    ]
    assert names[0] == names[1]


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_a_pair_is_one_double_wire_with_a_bold_label() -> None:
    assert not double(draw(IMAGE))
    drawing = draw(IMAGE, pairs="h w")
    assert at_the_left(drawing) == ["b", "3", "hw"]
    assert set(double(drawing)) == {"hw"}
    labels = [mark for mark in of_kind(drawing, "label") if isinstance(mark, Text) and mark.plain == "hw"]
    assert {span.style for label in labels for span in label.spans} == {"bold"}


def test_a_pair_has_the_label_that_is_given() -> None:
    drawing = draw(IMAGE, pairs="x = h w", order="x")
    assert at_the_left(drawing) == ["x", "b", "3"]
    assert set(double(drawing)) == {"x"}


def test_parts_of_a_pair_are_a_pair() -> None:
    diagram = trace(nn.MaxPool2d(2), axes="c h w", sizes={"h": 8, "w": 8})
    assert at_the_right(draw(diagram, pairs="x = h w")) == ["c", "x/2"]
    assert at_the_right(draw(diagram, pairs="h c")) == ["c", "h/2", "w/2"]


def test_several_pairs() -> None:
    diagram = trace(lambda a, b: (a, b), axes="h w, i j")
    assert at_the_left(draw(diagram, pairs="x = h w, y = i j")) == ["x", "y"]
    assert at_the_left(draw(diagram, pairs="h w")) == ["hw", "i", "j"]


# --- wires ------------------------------------------------------------------------------------------------------------


def test_a_wire_for_each_tensor() -> None:
    drawing = draw(ATTENTION, wires="tensors")
    assert at_the_left(drawing) == ["y k", "x k", "x k"]
    assert at_the_right(drawing) == ["y k"]
    assert closed(drawing) == closed(draw(ATTENTION))
    assert not of_kind(drawing, "cup")
    assert [word for word in texts(drawing, "text") if word.startswith(("einsum", "softmax"))] == [
        "einsum",
        "softmax over x",
        "einsum",
    ]


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_of_inputs_are_chosen() -> None:
    """By default these three have those of the code, since two have the same axes."""
    assert texts(draw(ATTENTION), "source") == ["query", "key", "value"]
    for names in ("query = Q, key = K", {"query": "Q", "key": "K"}):
        assert texts(draw(ATTENTION, names=names), "source") == ["Q", "K", "value"]
    linear = trace(nn.Linear(4, 3), axes="b 4")
    assert texts(draw(linear), "source") == []
    assert texts(draw(linear, names={"input": "<X> & Y"}), "source") == ["<X> & Y"]


def test_a_name_is_at_the_wires_of_its_input() -> None:
    drawing = draw(ATTENTION, names="value = V")
    value = next(value.number for value in ATTENTION.inputs if value.name == "value")
    mark = next(mark for mark in of_kind(drawing, "source") if isinstance(mark, Text) and mark.plain == "V")
    assert data(mark)["value"] == f"{value}"


# --- show_sizes -------------------------------------------------------------------------------------------------------


def test_sizes_beside_names() -> None:
    assert at_the_left(draw(SIZED)) == ["y", "k", "x", "k", "x", "k"]
    assert at_the_left(draw(SIZED, show_sizes=True)) == ["y = 20", "k = 16", "x = 22", "k = 16", "x = 22", "k = 16"]
    assert at_the_left(draw(SIZED, show_sizes=True, wires="tensors"))[0] == "y = 20, k = 16"


def test_a_size_is_shown_once_and_only_if_it_is_known() -> None:
    assert at_the_left(draw(ATTENTION, show_sizes=True)) == at_the_left(draw(ATTENTION))
    assert at_the_left(draw(ATTENTION, show_sizes=True, wires="tensors"))[0] == "y, k"
    assert at_the_left(draw(trace(nn.ReLU(), torch.ones(2, 3)), show_sizes=True)) == ["2", "3"]


# --- literal ----------------------------------------------------------------------------------------------------------


def test_regrouping_is_ports_of_the_map_beside_it_or_stands_by_itself() -> None:
    diagram = zoo("attention")
    merged, literal = draw(diagram), draw(diagram, literal=True)
    regrouping = {f"{place}" for place, box in enumerate(diagram.box.boxes) if box.label.startswith("rearrange")}
    assert len(regrouping) == 4
    assert not regrouping & closed(merged)
    assert regrouping <= closed(literal)
    assert closed(merged) | regrouping == closed(literal)
    bars = [mark for mark in of_kind(literal, "glyph") if data(mark).get("shape") == "bar"]
    assert len(bars) == 4
    assert not [mark for mark in of_kind(merged, "glyph") if data(mark).get("shape") == "bar"]


# --- width ------------------------------------------------------------------------------------------------------------


def test_rows_break_at_the_width() -> None:
    diagram = zoo("attention")
    wide = draw(diagram, width=float("inf"))
    assert rows(wide) == 1
    counts = []
    for width in (700.0, 400.0, 250.0):
        drawing = draw(diagram, width=width)
        counts.append(rows(drawing))
        assert drawing.picture.width < width + 35  # its margins, and an arrow
        assert closed(drawing) == closed(wide)
        assert opened(drawing) == opened(wide)
    assert 1 < counts[0] < counts[1] < counts[2]


def test_the_width_of_a_column_and_of_a_page() -> None:
    diagram = zoo("attention")
    assert draw(diagram, width="column").svg == draw(diagram, width=330).svg
    assert draw(diagram, width="page").svg == draw(diagram, width=690).svg
    assert rows(draw(diagram, width="column")) > rows(draw(diagram, width="page"))


def test_every_wire_of_a_row_that_goes_on_has_an_arrow_in_both_rows() -> None:
    arrows = [data(mark) for mark in of_kind(draw(zoo("attention"), width=400), "row")]
    ends = [(arrow["value"], arrow["axis"]) for arrow in arrows]
    assert ends
    assert all(ends.count(end) % 2 == 0 for end in ends)


# --- theme ------------------------------------------------------------------------------------------------------------


def test_themes_have_the_same_marks() -> None:
    light, dark, printed = (draw(ATTENTION, theme=theme) for theme in ("light", "dark", "print"))
    assert light.picture == dark.picture == printed.picture
    assert len({light.svg, dark.svg, printed.svg}) == 3
    assert without_colours(light.svg) == without_colours(dark.svg) == without_colours(printed.svg)


# --- equation, frame --------------------------------------------------------------------------------------------------


def test_an_equation_has_the_closed_box_and_what_is_in_it() -> None:
    whole, inside = draw(ATTENTION, equation=True), draw(ATTENTION, frame=False)
    assert texts(whole, "equals") == ["="]
    assert closed(whole) == closed(inside) | {"root"}
    assert texts(whole, "text").count("attention") == 1
    assert at_the_left(whole) == at_the_left(draw(ATTENTION, depth=0)) + at_the_left(inside)
    assert not texts(whole, "title")


def test_without_a_frame_neither_background_nor_title() -> None:
    framed, bare = draw(ATTENTION), draw(ATTENTION, frame=False)
    assert texts(framed, "title") == ["attention"]
    assert texts(bare, "title") in ([], [""])
    fills = [mark.fill for mark in of_kind(bare, "fence") if isinstance(mark, Path)]
    assert set(fills) <= {""}
    assert closed(framed) == closed(bare)


def test_without_a_frame_the_boxes_inside_keep_theirs() -> None:
    bare = draw(zoo("attention"), frame=False)
    assert [title for title in texts(bare, "title") if title] == ["attention"]


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_a_target_is_traced_with_the_arguments_of_trace() -> None:
    assert draw(attention).svg == draw(ATTENTION).svg
    assert draw(attention, sizes={"y": 20, "x": 22, "k": 16}).svg == draw(SIZED).svg
    assert draw(nn.Linear(4, 3), torch.ones(2, 4)).svg == draw(trace(nn.Linear(4, 3), torch.ones(2, 4))).svg
    assert draw(nn.ReLU(), input=torch.ones(2)).svg == draw(trace(nn.ReLU(), input=torch.ones(2))).svg


def test_an_option_wins_over_a_keyword_of_the_model() -> None:
    class Deep(nn.Module):
        def forward(self, x: torch.Tensor, depth: int = 2) -> torch.Tensor:
            return x if not depth else self.forward(x.relu(), depth - 1)

    x = torch.ones(3)
    assert closed(draw(Deep(), x, depth=0)) == {"root"}
    assert closed(draw(trace(Deep(), x, depth=3))) == {"0", "1", "2"}


@pytest.mark.parametrize("given", [{"sizes": {"y": 2}}, {"axes": "y k, x k, x k"}, {"query": 1}])
def test_a_diagram_takes_no_arguments_of_trace(given: dict[str, Any]) -> None:
    with pytest.raises(CircuitError, match="a diagram takes no arguments of trace"):
        draw(ATTENTION, **given)
    with pytest.raises(CircuitError, match="a diagram takes no arguments of trace"):
        draw(ATTENTION, torch.ones(2))


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": {"a": 3}},
        {"axes": "x a"},
        {"equation": True},
        {"wires": "tensors"},
        {"close": "LinearMap"},
        {"pairs": "b x"},
    ],
)
def test_options_of_a_trace_are_not_lost_on_a_linear_map(options: dict[str, Any]) -> None:
    linear = LinearMap(torch.ones(3, 4), "a -> b")
    assert draw(linear, **options).svg != draw(linear).svg
