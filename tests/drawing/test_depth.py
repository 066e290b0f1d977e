"""How far boxes are open: `depth`, `open` and `close`; deeper levels only add, and the automatic depth is readable."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from circuits import Diagram, Drawing, draw, trace
from circuits.diagram import Box
from circuits.drawing.depths import READABLE
from tests.drawing.seen import at_the_left, at_the_right, brackets, closed, of_kind, opened, texts
from tests.drawing.shapes import data
from tests.drawing.subjects import FOREIGN, MODELS, foreign, zoo

QUICK = ("attention", "encoder", "language model, learned positions")
"""The models of the zoo that are drawn with every change."""


@cache
def nested() -> Diagram:
    """Return the diagram of a network in a network in a network."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu())

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Inner(), nn.Sequential(Inner(), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x)) + x

    return trace(nn.Sequential(Outer(), nn.Linear(4, 2)), axes="b 4")


def drawn_at(depth: int | None, **options: str) -> tuple[set[str], set[str]]:
    """Return the open and the closed boxes of the network."""
    drawing = draw(nested(), depth=depth, **options)  # pyright: ignore[reportArgumentType]
    return opened(drawing), closed(drawing)


# --- depth, open, close -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_depth_opens_one_level_more() -> None:
    assert drawn_at(0) == (set(), {"root"})
    assert drawn_at(1) == ({"root"}, {"0", "1"})
    assert drawn_at(2) == ({"root", "0"}, {"0.0", "0.1", "0.2", "1"})
    assert drawn_at(3) == ({"root", "0", "0.0", "0.1"}, {"0.0.0", "0.0.1", "0.0.2", "0.1.0", "0.1.1", "0.2", "1"})
    deepest = {"0.0.0", "0.0.1", "0.0.2", "0.1.0.0", "0.1.0.1", "0.1.0.2", "0.1.1", "0.2", "1"}
    assert drawn_at(4) == ({"root", "0", "0.0", "0.1", "0.1.0"}, deepest)
    assert drawn_at(99) == drawn_at(4) == drawn_at(None)


def test_a_name_is_open_at_any_depth_with_what_is_around_it() -> None:
    assert drawn_at(1, open="Inner")[0] == {"root", "0", "0.0", "0.1", "0.1.0"}
    assert drawn_at(1, open="0.two.0")[0] == {"root", "0", "0.1", "0.1.0"}
    assert drawn_at(1, open="one")[0] == {"root", "0", "0.0"}
    assert drawn_at(1, open="one 0.two.0")[0] == {"root", "0", "0.0", "0.1", "0.1.0"}
    assert draw(nested(), depth=1, open=["one", "0.two.0"]).svg == draw(nested(), depth=1, open="one 0.two.0").svg


def test_a_name_is_closed_at_any_depth() -> None:
    assert drawn_at(99, close="Inner")[0] == {"root", "0", "0.1"}
    assert drawn_at(None, close="Outer") == ({"root"}, {"0", "1"})
    assert drawn_at(99, close="one")[0] == {"root", "0", "0.1", "0.1.0"}


def test_what_is_open_in_a_closed_box_is_not_drawn() -> None:
    assert drawn_at(1, open="Inner", close="Outer") == ({"root"}, {"0", "1"})


def test_a_closed_box_has_its_name_and_its_wires() -> None:
    drawing = draw(nested(), depth=1)
    assert "Outer" in texts(drawing, "text")
    assert at_the_left(drawing) == ["b", "4"]
    assert at_the_right(drawing) == ["b", "2"]


# --- deeper levels only add -------------------------------------------------------------------------------------------


def is_folded(box: str, drawing: Drawing) -> bool:
    """Return whether a box belongs to a repetition that is not drawn, since it is equal to one that is."""
    for start in brackets(drawing):
        path, _, place = start.rpartition(".")
        rest = box.removeprefix(f"{path}." if path else "")
        if rest != box or not path:
            first = rest.split(".")[0]
            if first.isdigit() and int(first) > int(place):
                return True
    return False


def lost(shallow: Drawing, deep: Drawing) -> set[str]:
    """Return the boxes of a drawing that are missing in a deeper one: neither drawn as they were, nor opened."""
    missing = {box for box in closed(shallow) - {"root"} if box not in closed(deep) | opened(deep)}
    missing |= opened(shallow) - opened(deep)
    return {box for box in missing if not is_folded(box, deep)}


def levels(box: Box) -> int:
    return 1 + max([levels(inner) for inner in box.boxes], default=0)


def only_adds(diagram: Diagram) -> None:
    drawings = [draw(diagram, depth=depth) for depth in range(levels(diagram.box))]
    for shallow, deep in pairwise(drawings):
        assert not lost(shallow, deep)
        assert inputs_of(shallow, diagram) == inputs_of(deep, diagram)


def inputs_of(drawing: Drawing, diagram: Diagram) -> set[tuple[str, str]]:
    """Return the wires of the inputs, each by its tensor and its axis."""
    numbers = {f"{value.number}" for value in diagram.inputs}
    wires = [data(mark) for mark in of_kind(drawing, "wire")]
    return {(wire["value"], wire["axis"]) for wire in wires if wire["value"] in numbers}


@pytest.mark.every(3, 2)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_going_deeper_only_ever_adds(name: str) -> None:
    only_adds(zoo(name))


@pytest.mark.every(1, 3)
@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
def test_going_deeper_into_other_models_only_ever_adds(name: str) -> None:
    only_adds(foreign(name))


def test_a_box_that_is_lost_is_found() -> None:
    shallow, deep = draw(nested(), depth=2), draw(nested(), depth=3, close="Outer")
    assert lost(shallow, deep) == {"0", "0.0", "0.1", "0.2"}
    assert not lost(draw(nested(), depth=1), shallow)


# --- the automatic depth ----------------------------------------------------------------------------------------------


def steps(drawing: Drawing) -> int:
    return len(closed(drawing))


def check_automatic(diagram: Diagram) -> None:
    """The automatic depth is the deepest that is readable; depth 1 if none is."""
    found = draw(diagram)
    depths = [draw(diagram, depth=depth) for depth in range(1, max(levels(diagram.box), 2))]
    chosen = [place for place, drawing in enumerate(depths) if drawing.svg == found.svg]
    assert chosen
    assert steps(found) <= READABLE or 0 in chosen
    if chosen[-1] + 1 < len(depths):
        assert steps(depths[chosen[-1] + 1]) > 0.7 * READABLE  # regrouping beside a learned map is counted too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_the_automatic_depth_is_the_deepest_that_is_readable(name: str) -> None:
    check_automatic(zoo(name))


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
def test_the_automatic_depth_of_other_models(name: str) -> None:
    check_automatic(foreign(name))


def test_boxes_with_one_box_inside_are_opened() -> None:
    model = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU())))
    assert opened(draw(model, axes="b 4")) == {"root", "0", "0.0"}


@pytest.mark.parametrize(("count", "depth"), [(READABLE // 2, 2), (READABLE // 2 + 1, 1), (READABLE + 1, 1)])
def test_too_many_steps_are_not_opened(count: int, depth: int) -> None:
    """Two operations in each box, which differ in a number, so that they are not folded."""

    class Step(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.number).relu()

    diagram = trace(nn.Sequential(*[Step(number) for number in range(2, count + 2)]), torch.ones(3))
    assert closed(draw(diagram)) == closed(draw(diagram, depth=depth))
    assert (steps(draw(diagram)) <= READABLE) == (count <= READABLE)
