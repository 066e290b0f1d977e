"""The drawing of a backward diagram: the colour of cotangents, saved tensors by name, and the names of gradients."""

from functools import cache

import pytest
from torch import Tensor, nn

from circuits import Diagram, Drawing, backward, circuit, draw, forward_backward
from circuits.diagram import Box, wires
from circuits.drawing.marks import Mark, Path, Text
from models.attention import MultiHeadAttention
from models.scaled_dot_product import attention
from tests.drawing.seen import at_the_left, of_kind, texts
from tests.drawing.shapes import box as around
from tests.drawing.shapes import data, kind
from tests.models.test_zoo import MODELS

NAMES = ["attention", "heads", "linear"]


@cache
def gradient(name: str) -> Diagram:
    """Return a backward diagram."""
    if name == "attention":
        return backward(attention)
    if name == "heads":
        return backward(MultiHeadAttention(m=8, k=4, h=2))
    if name == "linear":
        return backward(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), sizes={"b": 5}, axes="b 4")
    return backward(MODELS[name].make(), sizes=MODELS[name].sizes)


def dependent(box: Box, known: set[int]) -> set[int]:
    """Return the numbers of the tensors that are computed from others, these included."""
    for inner in box.boxes:
        if inner.boxes:
            dependent(inner, known)
        elif known & {value.number for value in inner.inputs}:
            known |= {value.number for value in inner.outputs}
    return known


def check_colours(diagram: Diagram, drawing: Drawing) -> None:
    """The wires of cotangents, and no others, have their colour."""
    (cotangent,) = [value.number for value in diagram.inputs if value.name == "cotangent"]
    expected = dependent(diagram.box, {cotangent})
    wires = [(mark.stroke, int(data(mark)["value"])) for mark in of_kind(drawing, "wire") if isinstance(mark, Path)]
    assert {"wire", "cotangent"} <= {stroke for stroke, _ in wires} <= {"wire", "cotangent", "faint"}
    assert [each for each in wires if (each[0] == "cotangent") != (each[1] in expected)] == []


@pytest.mark.every(3)
@pytest.mark.parametrize("depth", [1, 2, None])
@pytest.mark.parametrize("name", NAMES)
def test_cotangents_have_a_colour_of_their_own(name: str, depth: int | None) -> None:
    check_colours(gradient(name), draw(gradient(name), depth=depth))


def test_their_wires_are_named_as_those_of_the_tensors_that_they_belong_to() -> None:
    drawing = draw(gradient("attention"), depth=0)
    assert at_the_left(drawing) == ["y", "k", "x", "k", "x", "k", "y", "k"]
    assert texts(drawing, "source") == ["query", "key", "value", "cotangent", "∂query", "∂key", "∂value"]


# --- saved tensors ----------------------------------------------------------------------------------------------------


def row_of(drawing: Drawing, mark: Mark) -> int:
    """Return the row in which a mark is drawn: that of the piece of the outermost fence around it."""
    pieces = [around(piece) for piece in of_kind(drawing, "fence") if data(piece)["box"] == "root"]
    middle = sum(around(mark)[1::2]) / 2
    return next(number for number, piece in enumerate(pieces) if piece[1] <= middle <= piece[3])


def memories(drawing: Drawing) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[tuple[int, float]]]]:
    """Return the places at which each tensor is saved, and at which it is loaded: the row, then the height of x."""
    saved: dict[str, list[tuple[int, float]]] = {}
    loaded: dict[str, list[tuple[int, float]]] = {}
    for mark in of_kind(drawing, "memory"):
        if isinstance(mark, Text):
            side = saved if mark.plain.startswith("→") else loaded
            side.setdefault(mark.plain.strip("→ "), []).append((row_of(drawing, mark), mark.x))
    return saved, loaded


def reads(diagram: Diagram) -> dict[int, int]:
    """Return how often the reverse pass reads each tensor of the forward pass, by its number."""
    (cotangent,) = [value.number for value in diagram.inputs if value.name == "cotangent"]
    found: dict[int, int] = {}
    reverse = [inner for box in diagram.box.boxes if box.label.startswith("∂") for inner in box.walk()]
    own = {value.number for box in reverse for value in box.outputs} | {cotangent}
    for box in reverse:
        for value in box.inputs if not box.boxes else ():
            if value.role in ("input", "made") and value.number not in own:
                times = 1 if box.call is None else wires(box.call.args).count(value.number)
                found[value.number] = found.get(value.number, 0) + times
    return found


def check_memories(drawing: Drawing) -> None:
    """Every tensor is saved under a name of its own, and loaded to the right of that or in a later row."""
    saved, loaded = memories(drawing)
    for name, places in loaded.items():
        assert all(place > saved[name][0] for place in places), name
    names: dict[str, set[str]] = {}
    for mark in of_kind(drawing, "memory"):
        if isinstance(mark, Text):
            names.setdefault(mark.plain.strip("→ "), set()).add(data(mark)["value"])
    assert [name for name, values in names.items() if len(values) > 1] == []


@pytest.mark.parametrize("width", [500.0, 900.0, float("inf")])
@pytest.mark.parametrize("depth", [1, 2, None])
@pytest.mark.parametrize("name", NAMES)
def test_every_load_is_right_of_its_save_or_in_a_later_row(name: str, depth: int | None, width: float) -> None:
    check_memories(draw(gradient(name), depth=depth, width=width))


@pytest.mark.parametrize("name", NAMES)
def test_what_the_reverse_pass_reads_of_the_forward_pass_is_loaded_by_name(name: str) -> None:
    """Also if a circuit is closed; then it is loaded once for each time that the closed box reads it."""
    diagram = gradient(name)
    expected = reads(diagram)
    drawing = draw(diagram, width=float("inf"))
    saved, loaded = memories(drawing)
    assert sum([len(places) for places in loaded.values()]) == sum(expected.values())
    assert len(saved) == len(expected)
    numbers = {int(data(mark)["value"]) for mark in of_kind(drawing, "memory") if "value" in data(mark)}
    assert numbers == set(expected)


def test_inputs_keep_their_names_and_others_are_numbered() -> None:
    saved, loaded = memories(draw(gradient("attention"), width=float("inf")))
    assert [*saved] == ["key", "value", "C1", "C2"]
    assert {name: len(places) for name, places in loaded.items()} == {"value": 1, "C2": 3, "key": 1, "C1": 1}


def test_a_load_before_its_save_is_found() -> None:
    drawing = draw(gradient("attention"), width=float("inf"))
    marks = list(drawing.picture.marks)
    save = next(mark for mark in marks if kind(mark) == "memory" and isinstance(mark, Text) and mark.plain == "→ C1")
    marks[marks.index(save)] = Text(save.x + 5000, save.y, save.spans, data=save.data)
    planted = type(drawing.picture)(drawing.picture.width, drawing.picture.height, tuple(marks))
    with pytest.raises(AssertionError, match="C1"):
        check_memories(Drawing(planted))


# --- other gradients --------------------------------------------------------------------------------------------------


def test_a_circuit_whose_argument_is_named_cotangent_is_no_backward_diagram() -> None:
    @circuit("m -> m")
    def scaled(cotangent: Tensor) -> Tensor:
        return cotangent.relu() * 2

    drawing = draw(scaled)
    assert {mark.stroke for mark in of_kind(drawing, "wire") if isinstance(mark, Path)} == {"wire"}


def test_an_argument_named_as_a_saved_tensor_keeps_its_name() -> None:
    @circuit("m, m -> m")
    def product(C1: Tensor, y: Tensor) -> Tensor:
        return C1.exp() * y.exp()

    saved, _ = memories(draw(backward(product), width=float("inf")))
    assert [*saved] == ["C2", "C3"]
    drawing = draw(backward(product), width=250)
    check_memories(drawing)


@pytest.mark.slow
def test_the_reverse_pass_alone_has_what_it_reads_as_inputs() -> None:
    diagram = forward_backward(attention).reverse
    drawing = draw(diagram, width=float("inf"))
    check_colours(diagram, drawing)
    assert not of_kind(drawing, "memory")
    assert at_the_left(drawing) == ["x", "k", "x", "k", "y", "k", "y", "x", "y", "k"]


def test_a_circuit_with_several_results_has_a_cotangent_for_each() -> None:
    @circuit("m -> m, m")
    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin(), x.cos()

    drawing = draw(backward(both), depth=1)
    assert [name for name in texts(drawing, "source") if name.startswith("cotangent")] == ["cotangent_1", "cotangent_2"]
    strokes = {data(mark)["value"]: mark.stroke for mark in of_kind(drawing, "wire") if isinstance(mark, Path)}
    numbers = [f"{value.number}" for value in backward(both).inputs]
    assert [strokes[number] for number in numbers] == ["wire", "cotangent", "cotangent"]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, None])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_the_models(name: str, depth: int | None) -> None:
    drawing = draw(gradient(name), depth=depth)
    check_colours(gradient(name), drawing)
    check_memories(drawing)
