"""What is drawn once in brackets is compared with every repetition: planted defects are found, and honest brackets not.

Defects are planted in the drawing, or the drawing of one model is compared with the diagram of another one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import Diagram, draw, trace
from circuits.drawing.ink.svg import svg
from circuits.drawing.marks import Picture, Text
from tests.drawing.expected import differences
from tests.drawing.planting import moved
from tests.drawing.rebuild import rebuild
from tests.drawing.rules import number_at
from tests.drawing.shapes import data, kind
from tests.drawing.subjects import zoo
from tests.drawing.test_drawn_models import bent
from tests.drawing.test_folding import Wired, chain, one_swapped, one_twice, widening

INPUTS = (torch.ones(3, 4), torch.ones(3, 4))


def found(picture: Picture, diagram: Diagram) -> list[str]:
    return differences(svg(picture), diagram)


def rewritten(picture: Picture, which: str, old: str, new: str, most: int = 9) -> Picture:
    """Return a picture with other characters in the first texts of a kind that have them."""
    marks = list(picture.marks)
    count = 0
    for place, mark in enumerate(marks):
        if kind(mark) == which and isinstance(mark, Text) and count < most:
            spans = tuple([replace(span, text=span.text.replace(old, new)) for span in mark.spans])
            count += spans != mark.spans
            marks[place] = replace(mark, spans=spans)
    assert count
    return replace(picture, marks=tuple(marks))


@pytest.fixture(scope="module")
def unet() -> Picture:
    """Return the drawing of a UNet: blocks down that save tensors, and blocks up that load them in reversed order."""
    picture = draw(zoo("unet"), depth=2).picture
    assert not found(picture, zoo("unet"))
    return picture


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("= 2, 2, 4,", "= 2, 2, 5,", "at λ = 2"),  # one size of a family
        ("2, 2, 4, 8, 16, 32", "2, 4, 8, 16, 32, 32", "at λ = 1"),  # a family that begins elsewhere
        ("2, 2, 4, 8, 16, 32", "2, 2, 4, 8, 16, 32, 64", "the legend says"),
    ],
)
def test_a_wrong_size_in_the_legend_is_found(unet: Picture, old: str, new: str, said: str) -> None:
    assert said in "\n".join(found(rewritten(unet, "legend", old, new), zoo("unet")))


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("old", "new"), [("λ−1", "λ"), ("−1", "+1"), ("5−λ", "λ"), ("5−λ", "6−λ"), ("λ+1", "λ"), ("4", "3"), ("λ", "1")]
)
def test_a_wrong_rule_at_one_label_is_found(unet: Picture, old: str, new: str) -> None:
    marks = [mark for mark in unet.marks if kind(mark) == "label" and isinstance(mark, Text) and old in mark.plain]
    mark = marks[0]
    spans = [span for span in mark.spans if span.shift == "sub"] or list(mark.spans)
    said = "".join([span.text for span in spans]).replace(old, new)
    kept = [span for span in mark.spans if span not in spans]
    other = replace(mark, spans=(*kept, replace(spans[0], text=said)))
    changed = [other if each is mark else each for each in unet.marks]
    assert any("is named" in each for each in found(replace(unet, marks=tuple(changed)), zoo("unet")))


@pytest.mark.parametrize(
    ("old", "new"),
    [("5−λ", "6−λ"), ("5−λ", "4−λ"), ("5−λ", "λ"), ("5−λ", "λ+1"), ("1", "2"), ("5−λ", "4"), ("λ", "λ+1")],
)
def test_a_skip_connected_to_another_repetition_is_found(unet: Picture, old: str, new: str) -> None:
    memories = [mark for mark in unet.marks if kind(mark) == "memory" and isinstance(mark, Text)]
    inside = {mark: "".join([span.text for span in mark.spans if span.shift == "sub"]) for mark in memories}
    mark = next(mark for mark, index in inside.items() if index == old)
    index, *rest = [span for span in mark.spans if span.shift == "sub"]
    spans = [replace(index, text=new) if span == index else span for span in mark.spans if span not in rest]
    marks = [replace(mark, spans=tuple(spans)) if each is mark else each for each in unet.marks]
    assert any("as C" in each for each in found(replace(unet, marks=tuple(marks)), zoo("unet")))


@pytest.mark.every(2)
@pytest.mark.parametrize(("old", "new"), [("4", "5"), ("4", "3"), ("3", "4"), ("3", "2")])
def test_a_wrong_number_of_repetitions_is_found(unet: Picture, old: str, new: str) -> None:
    at_one = rewritten(unet, "bracket", f"× {old}", f"× {new}")
    assert any("equal repetitions" in each for each in found(at_one, zoo("unet")))
    assert len(found(rewritten(at_one, "bracket", f"= {old}", f"= {new}"), zoo("unet"))) > 0


@pytest.mark.slow
def test_a_wire_exchanged_in_brackets_is_found(unet: Picture) -> None:
    brackets = rebuild(svg(unet)).rules
    changes = [each for first, second, each in bent(unet) if all(map(brackets.around, (first.end, second.end)))]
    assert len(changes) > 7
    assert all(found(each, zoo("unet")) for each in changes)


def test_a_memory_outside_its_bracket_is_found(unet: Picture) -> None:
    """The bracket at the left of the blocks up is moved behind what they load."""
    marks = list(unet.marks)
    lefts = [mark for mark in marks if kind(mark) == "bracket" and data(mark)["box"].startswith("7")]
    for mark in lefts[:1]:
        marks[marks.index(mark)] = moved(300, 0)(mark)
    assert any("outside of brackets" in each for each in found(replace(unet, marks=tuple(marks)), zoo("unet")))


# --- the drawing of another model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [one_swapped, one_twice])
def test_repetitions_that_are_wired_otherwise_are_found(other: Callable[..., Any]) -> None:
    drawing = draw(trace(Wired(chain), *INPUTS), depth=2)
    assert not differences(drawing.svg, trace(Wired(chain), *INPUTS))
    assert differences(drawing.svg, trace(Wired(other), *INPUTS))


@pytest.mark.slow
def test_sizes_of_each_repetition_are_compared() -> None:
    drawing = draw(widening(8, 16, 8, 4, 4), depth=2)
    assert not differences(drawing.svg, widening(8, 16, 8, 4, 4))
    for sizes in ((8, 16, 8, 5, 4), (8, 16, 9, 4, 4), (8, 16, 8, 4, 5), (8, 17, 8, 4, 4)):
        assert differences(drawing.svg, widening(*sizes))
    same = draw(widening(8, 8, 8, 8), depth=1)
    assert any("no label" in each for each in differences(same.svg, widening(8, 9, 8, 8)))


class Skipping(nn.Module):
    """Blocks that save tensors and blocks that load them: which one each loads is chosen."""

    def __init__(self, loads: tuple[int, ...], results: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in loads])
        self.up = nn.ModuleList([nn.Bilinear(4, 4, 4) for _ in loads])
        self.loads, self.results = loads, results

    def forward(self, x: Tensor) -> Any:
        saved = []
        for block in self.down:
            x = block(x)
            saved.append(x)
        for block, number in zip(self.up, self.loads, strict=True):
            x = block(x, saved[number])
        return (x, *[saved[number] for number in self.results]) if self.results else x


def skipping(*loads: int, results: tuple[int, ...] = ()) -> Diagram:
    return trace(Skipping(loads, results), torch.ones(3, 4))


@pytest.mark.every(4)
@pytest.mark.parametrize("loads", [(3, 2, 1, 0), (0, 1, 2, 3), (1, 1, 1, 1), (0, 3, 1, 2)])
@pytest.mark.parametrize("depth", [1, 2])
def test_tensors_loaded_across_repetitions_are_rebuilt(loads: tuple[int, ...], depth: int) -> None:
    assert not differences(draw(skipping(*loads), depth=depth).svg, skipping(*loads))


@pytest.mark.every(2)
@pytest.mark.parametrize("others", [(0, 1, 2, 3), (3, 2, 0, 1), (2, 2, 1, 0), (3, 3, 2, 1)])
def test_other_tensors_loaded_across_repetitions_are_found(others: tuple[int, ...]) -> None:
    drawing = draw(skipping(3, 2, 1, 0), depth=1)
    assert differences(drawing.svg, skipping(*others))


@pytest.mark.every(3)
@pytest.mark.parametrize("results", [(0, 1, 2, 3), (1,), (0, 2), (3,)])
def test_saved_tensors_that_are_returned_are_rebuilt(results: tuple[int, ...]) -> None:
    diagram = skipping(3, 2, 1, 0, results=results)
    drawing = draw(diagram, depth=1)
    assert not differences(drawing.svg, diagram)
    others = {(1,): (2,), (0, 2): (0, 2, 1)}.get(results, (0,))
    assert differences(drawing.svg, skipping(3, 2, 1, 0, results=others))


def test_formulas_of_the_place_are_read() -> None:
    assert [number_at(text, 3) for text in ("λ", "λ−1", "λ+2", "5−λ", "2", "−1", "λλ", "x")] == [
        3,
        2,
        5,
        2,
        2,
        -1,
        None,
        None,
    ]
