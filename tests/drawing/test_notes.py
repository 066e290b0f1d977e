"""Notes of a picture: the number or text beside each box, and what is written of a cost."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, Diagram, Drawing, LinearMap, circuit, count, draw, trace
from circuits.diagram import Box
from circuits.drawing.marks import Text
from models.attention import MultiHeadAttention
from models.scaled_dot_product import attention
from tests.drawing.expected import differences
from tests.drawing.geometry import defects
from tests.drawing.seen import of_kind, texts
from tests.drawing.shapes import data
from tests.drawing.subjects import QUICK, foreign, zoo

ATTENTION = trace(attention)
IMAGE = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), axes="b 3 h w")


def noted(drawing: Drawing) -> dict[str, str]:
    """Return the note of each box, by its id."""
    marks = [mark for mark in of_kind(drawing, "note") if isinstance(mark, Text)]
    assert len({data(mark)["box"] for mark in marks}) == len(marks)
    return {data(mark)["box"]: mark.plain for mark in marks}


def places(box: Box, place: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    yield place
    for number, inner in enumerate(box.boxes):
        yield from places(inner, (*place, number))


def everywhere(diagram: Diagram, text: str) -> dict[Any, str]:
    """Return notes for every box of a diagram."""
    return dict.fromkeys(places(diagram.box), text)


# --- What is written --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cost_is_written_beside_what_it_is_of() -> None:
    """Formulas are written as mathematics, and the total beside the title of the fence."""
    drawing = draw(ATTENTION, notes=count(ATTENTION).column("flops"))
    assert noted(drawing) == {"root": "4kxy", "1": "2kxy", "3": "2kxy"}
    assert texts(drawing, "notes") == ["numbers: FLOPs"]
    numbers = draw(ATTENTION, notes=count(ATTENTION).at(y=20, x=22, k=16).column("flops"))
    assert noted(numbers) == {"root": "28.16 k", "1": "14.08 k", "3": "14.08 k"}
    assert texts(numbers, "notes") == ["numbers: FLOPs at y = 20, k = 16, x = 22"]


def test_notes_are_given_by_the_places_or_the_paths_of_boxes() -> None:
    model = MultiHeadAttention(m=16, k=4, h=2)
    diagram = trace(model)
    drawing = draw(diagram, notes={"heading": "µs", "Lq": 12, (6, 1): "hot", "": 99}, depth=2, literal=True)
    assert noted(drawing) == {"root": "99", "0": "12", "6.1": "hot"}
    assert texts(drawing, "notes") == ["numbers: µs"]


@pytest.mark.slow
def test_what_is_drawn_as_one_has_one_note() -> None:
    """A scale is drawn at the cup of its contraction, and a rearrangement at its learned map: both are counted."""
    diagram = trace(MultiHeadAttention(m=16, k=4, h=2))
    column = count(diagram).at(y=3, x=5).column("bytes")
    merged, apart = noted(draw(diagram, notes=column)), noted(draw(diagram, notes=column, literal=True))
    assert len(merged) < len(apart)
    assert merged["8"] == column.text(column.together([(7,), (8,)])) != column.text(column[8,])


def test_a_closed_box_has_the_note_of_the_whole() -> None:
    column = count(ATTENTION).column("flops")
    assert noted(draw(ATTENTION, notes=column, depth=0)) == {"root": "4kxy"}


def test_without_a_fence_the_total_is_in_the_line_below() -> None:
    drawing = draw(ATTENTION, notes=count(ATTENTION).column("flops"), frame=False)
    assert noted(drawing) == {"1": "2kxy", "3": "2kxy"}
    assert texts(drawing, "notes") == ["numbers: FLOPs; the whole: 4kxy"]


def test_an_equation_has_the_line_once() -> None:
    drawing = draw(ATTENTION, notes=count(ATTENTION).column("flops"), equation=True)
    assert texts(drawing, "note") == ["4kxy", "2kxy", "2kxy"]
    assert len(texts(drawing, "notes")) == 1


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_in_brackets_it_is_of_one_repetition_or_of_each() -> None:
    diagram = trace(Stack(), axes="5 4")
    cost = count(diagram)
    drawing = draw(diagram, notes=cost.column("flops"), depth=4)
    assert noted(drawing) == {"root": "960", "0": "960", "0.0": "320", "0.0.0": "160", "0.0.2": "160"}
    assert texts(drawing, "notes") == ["numbers: FLOPs; of one repetition in brackets"]
    peaks = noted(draw(diagram, notes=cost.column("peak"), depth=4))
    assert peaks["0.0.0"] == "160 B, 240 B, 240 B"
    counted = {(0, number, 0): number for number in range(3)}
    assert noted(draw(diagram, notes=counted, depth=4)) == {"0.0.0": "0, 1, 2"}


def test_many_unequal_repetitions_are_the_first_and_the_last() -> None:
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(6)])
    diagram = trace(layers, axes="5 4")
    notes = {(number, 0): number for number in range(6)}
    assert noted(draw(diagram, notes=notes, depth=3)) == {"0.0": "0, 1, …, 5"}


@pytest.mark.slow
def test_powers_are_above_the_line_and_long_formulas_have_a_mark() -> None:
    @circuit("x k -> x x'")
    def scores(token: Tensor) -> Tensor:
        return token @ token.mT

    drawing = draw(scores, notes=count(scores).column("flops"))
    (mark,) = [mark for mark in of_kind(drawing, "note") if isinstance(mark, Text) and data(mark)["box"] == "root"]
    assert mark.plain == "2kx2"
    assert [span.text for span in mark.spans if span.shift == "sup"] == ["2"]
    diagram = trace(MultiHeadAttention(m=128, k=16, h=4))
    assert noted(draw(diagram, notes=count(diagram).column("peak")))["root"] == "max(32xy + …, …)"


def test_a_name_of_several_letters_keeps_the_signs() -> None:
    diagram = trace(lambda a, b: a @ b, axes="row k, k column")
    assert noted(draw(diagram, notes=count(diagram).column("flops")))["0"] == "2·column·k·row"


# --- Where it is ------------------------------------------------------------------------------------------------------


def test_notes_change_neither_wires_nor_the_other_texts() -> None:
    for diagram in (ATTENTION, IMAGE, zoo("attention")):
        plain, drawing = draw(diagram), draw(diagram, notes=everywhere(diagram, "1 MB"))
        assert not differences(drawing.svg, diagram)
        for kind in ("wire", "glyph", "cup", "label", "title", "float", "text"):
            assert len(of_kind(plain, kind)) == len(of_kind(drawing, kind)), kind
    assert draw(ATTENTION, notes={}).svg == draw(ATTENTION).svg


@pytest.mark.parametrize("wires", ["axes", "tensors"])
def test_a_note_is_above_its_box(wires: Any) -> None:
    drawing = draw(zoo("attention"), notes=everywhere(zoo("attention"), "1 MB"), wires=wires, depth=1)
    notes = {data(mark)["box"]: mark for mark in of_kind(drawing, "note") if isinstance(mark, Text)}
    glyphs = {data(mark)["box"]: mark for mark in of_kind(drawing, "glyph")}
    assert set(glyphs) <= set(notes)
    for box, mark in glyphs.items():
        ys = [y for piece in mark.pieces for y in piece[1::2]]  # pyright: ignore[reportAttributeAccessIssue]
        assert 0 < min(ys) - notes[box].y < 60, box


SOME = ("attention", "mlp", "encoder layer")
OTHERS = ("convolution", "decoder layer", "language model", "unet as drawn", "resnet")
ZOO = [*SOME, *[pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]]


@pytest.mark.every(4)
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("text", ["12.35 MB", "a text that is longer than its box"])
def test_drawings_of_the_zoo_with_notes_have_no_defects(name: str, text: str) -> None:
    diagram = zoo(name)
    tried: list[dict[str, Any]] = [{"depth": 1}, {}, {"depth": 2, "wires": "tensors"}, {"literal": True}]
    for options in tried:
        drawing = draw(diagram, notes=everywhere(diagram, text), **options)
        assert not defects(drawing.picture), options
        assert not differences(drawing.svg, diagram), options


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_drawings_of_other_libraries_models_with_notes_have_no_defects(name: str) -> None:
    diagram = foreign(name)
    tried: list[dict[str, Any]] = [{"depth": 1}, {}, {"wires": "tensors"}]
    for options in tried:
        assert not defects(draw(diagram, notes=everywhere(diagram, "12.35 MB"), **options).picture), options


# --- Every ink --------------------------------------------------------------------------------------------------------


def test_every_ink_has_notes() -> None:
    drawing = draw(ATTENTION, notes=count(ATTENTION).column("flops"))
    assert """data-kind="note" data-box="1" data-title="einsum '... y k, ... x k -&gt; ... y x'\"""" in drawing.svg
    assert 'data-kind="notes"' in drawing.svg
    assert drawing.text().count("2kx̄ȳ") == 2
    assert "numbers: FLOPs" in drawing.text()
    assert "numbers:\\ FLOPs" in drawing.tikz
    assert drawing.text(letters="ascii").isascii()


def test_a_cost_in_a_golden_drawing(golden_drawing: Callable[[str, Drawing], None]) -> None:
    golden_drawing("notes_attention", draw(ATTENTION, order="y x k", notes=count(ATTENTION).column("flops")))


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        (3, "draw: notes has to be data from places or paths of boxes to numbers or texts, .*, not int"),
        ({(9,): 1}, r"draw: notes has \(9,\), which is neither the place nor the path of a box"),
        ({"layers": 1}, "draw: notes has 'layers', which is neither"),
        (count(IMAGE).column("flops"), r"draw: notes is of another diagram: the box at \(\) is 'attention' here"),
        (count(ATTENTION), "not Cost"),
    ],
)
def test_notes_of_something_else_are_refused(notes: Any, said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        draw(ATTENTION, notes=notes)


def test_a_linear_map_with_notes_is_drawn_by_its_boxes() -> None:
    single = LinearMap(torch.ones(2, 3), "a -> b")
    assert texts(draw(single), "notes") == []
    drawing = draw(single, notes={"": "all", "heading": "what"})
    assert noted(drawing)["root"] == "all"
    assert texts(drawing, "notes") == ["numbers: what"]
