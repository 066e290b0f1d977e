"""The option `hide` of `draw`: axes that are drawn nowhere, and refused where an operation reads them."""

import pytest
import torch
from torch import nn

from circuits import CircuitError, circuit, draw, rearrange, trace
from tests.drawing.seen import at_the_left, at_the_right, closed, of_kind, texts
from tests.drawing.shapes import data
from tests.drawing.subjects import zoo

IMAGE = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), axes="b 3 h w")


def test_a_hidden_axis_is_drawn_nowhere() -> None:
    drawing = draw(IMAGE, hide="b")
    assert at_the_left(drawing) == ["3", "h", "w"]
    assert at_the_right(drawing) == ["8", "h", "w"]
    assert "b" not in {data(mark).get("name") for mark in drawing.picture.marks}
    assert closed(drawing) == closed(draw(IMAGE))


def test_several_axes_are_hidden() -> None:
    assert at_the_left(draw(IMAGE, hide=("b",), pairs="h w")) == ["3", "hw"]
    diagram = trace(nn.Linear(4, 3), axes="a b 4")
    assert at_the_left(draw(diagram, hide="a b")) == ["4"]


def test_the_label_of_a_whole_tensor_leaves_it_out() -> None:
    assert at_the_left(draw(IMAGE, hide="b", wires="tensors")) == ["3 h w"]


def test_a_tensor_whose_axes_are_all_hidden_is_a_wire_without_a_name() -> None:
    diagram = trace(lambda x: x.relu() + 1, axes="b")
    for depth in (0, 1):
        drawing = draw(diagram, hide="b", depth=depth)
        assert not texts(drawing, "label")
        assert {data(mark)["axis"] for mark in of_kind(drawing, "wire")} == {"scalar"}
        assert closed(drawing) == ({"root"} if depth == 0 else {"0", "1"})


def test_a_group_is_hidden_if_all_its_axes_are() -> None:
    @circuit("b h m -> (b h) m")
    def merge(x: torch.Tensor) -> torch.Tensor:
        return rearrange(x, "b h m -> (b h) m").relu()

    product = trace(nn.ReLU(), axes="(b h) m")
    assert at_the_left(draw(product, hide="b")) == ["b·h", "m"]
    assert at_the_left(draw(product, hide="b h")) == ["m"]
    with pytest.raises(CircuitError, match="axis b cannot be hidden: rearrange"):
        draw(merge, hide="b")


REFUSED = {
    "softmax over b": lambda x: x.softmax(0),
    "sum": lambda x: x.sum(0),
    "cumsum": lambda x: x.cumsum(0),
    "flip": lambda x: x.flip(0),
    "sort": lambda x: x.sort(0).values,
    "index": lambda x: x[1:],
    "matmul": lambda x: x.mT @ x,
}


@pytest.mark.parametrize("depth", [0, 1, None])
@pytest.mark.parametrize("name", REFUSED)
def test_an_axis_that_is_read_cannot_be_hidden(name: str, depth: int | None) -> None:
    """Also inside a closed box, which does not show it."""
    diagram = trace(REFUSED[name], axes="b m")
    draw(diagram, depth=depth)
    with pytest.raises(CircuitError, match=f"draw: axis b cannot be hidden: {name}.* does not leave it untouched"):
        draw(diagram, hide="b", depth=depth)


def test_an_axis_that_a_normalization_averages_over_cannot_be_hidden() -> None:
    layer = nn.BatchNorm1d(4)
    with pytest.raises(CircuitError, match="axis b cannot be hidden: batch_norm"):
        draw(layer, axes="b 4", hide="b")
    assert at_the_left(draw(layer.eval(), axes="b 4", hide="b")) == ["4"]


@pytest.mark.slow
def test_a_tensor_may_be_repeated_over_a_hidden_axis() -> None:
    drawing = draw(zoo("vision transformer"), hide="b", order="...")
    assert "b" not in texts(drawing, "label")
