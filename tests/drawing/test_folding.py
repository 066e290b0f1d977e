"""Repeated boxes are drawn once in brackets if they are equal in boxes, axes, numbers and wiring, and never otherwise.

The brackets say whose weights the repetitions have, and labels by λ the sizes that follow a rule.
"""

import random
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import Diagram, Drawing, circuit, draw, trace
from circuits.diagram import Box, Value
from circuits.drawing import repeating
from tests.drawing.expected import differences
from tests.drawing.seen import at_the_left, at_the_right, brackets, closed, of_kind, texts
from tests.drawing.shapes import data
from tests.drawing.subjects import zoo


class Layer(nn.Module):
    """A layer that may differ from others in one thing."""

    def __init__(self, n: int = 4, **different: Any) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n, eps=different.get("eps", 1e-5))
        self.first = nn.Linear(n, different.get("wide", n), different.get("bias", True))
        self.back = nn.Linear(different.get("wide", n), n)
        self.different = different

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self.norm(x))
        y = y.tanh() if "tanh" in self.different else y.relu()
        y = self.back(y * self.different.get("factor", 2))
        y = y.half().float() if "dtype" in self.different else y
        return y - x if "swapped" in self.different else x - y


def stack(*layers: nn.Module) -> Diagram:
    return trace(nn.Sequential(*layers), torch.ones(3, 4))


def words(drawing: Drawing) -> list[list[str]]:
    """Return the words of all brackets."""
    return list(brackets(drawing).values())


# --- what is equal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, None])
def test_equal_layers_are_drawn_once(depth: int | None) -> None:
    drawing = draw(stack(*[Layer() for _ in range(5)]), depth=depth)
    assert words(drawing) == [["5", "own weights"]]
    assert "× 5" in texts(drawing, "bracket")
    assert {box.split(".")[0] for box in closed(drawing)} == {"0"}
    assert at_the_left(drawing) == at_the_right(drawing) == ["3", "4"]


def test_one_layer_that_is_called_again_has_the_same_weights() -> None:
    layer = Layer()
    assert words(draw(stack(layer, layer, layer))) == [["3", "the same weights"]]


def test_layers_without_weights_say_nothing_of_them() -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.sin() + x).exp()

    assert words(draw(stack(Step(), Step(), Step()))) == [["3"]]


@pytest.mark.slow
def test_layers_of_which_some_are_the_same_are_not_folded_together() -> None:
    one, other = Layer(), Layer()
    assert words(draw(stack(one, one, other))) == [["2", "the same weights"]]
    assert words(draw(stack(one, other, one))) == [["2", "own weights"]]
    assert words(draw(stack(one, other, one, other))) == [["2", "the same weights"]]
    assert words(draw(stack(one, one, other, other), depth=2)) == [["2", "own weights"]]  # of two layers each
    tied = Layer()
    tied.first.weight = other.first.weight
    assert words(draw(stack(Layer(), other, tied), depth=2)) == [["2", "own weights"]]


@pytest.mark.every(7)
@pytest.mark.parametrize(
    "different",
    [
        {"eps": 1e-6},
        {"factor": 3},
        {"factor": 2.0},
        {"bias": False},
        {"tanh": True},
        {"dtype": True},
        {"swapped": True},
    ],
    ids=lambda each: next(iter(each)),
)
def test_layers_that_differ_in_one_thing_are_not_folded(different: dict[str, Any]) -> None:
    assert words(draw(stack(Layer(), Layer(), Layer()))) == [["3", "own weights"]]
    assert words(draw(stack(Layer(), Layer(**different), Layer()))) == []
    assert words(draw(stack(Layer(), Layer(), Layer(), Layer(**different)))) == [["3", "own weights"]]


def test_a_layer_that_is_wider_is_drawn_by_a_rule_or_not_at_all() -> None:
    assert words(draw(stack(Layer(), Layer(wide=5)), depth=2)) == []
    drawing = draw(stack(Layer(), Layer(wide=5), Layer()), depth=2)
    assert texts(drawing, "legend") == ["ni = 4, 5, 4  (i = 1…3)"]
    assert "nλ" in texts(drawing, "label")


class Skipping(nn.Module):
    """Equal layers of which every third reads the input again, so that few can be drawn together."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(count)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for number, layer in enumerate(self.layers):
            y = layer(y if number % 3 else x)
        return y


@pytest.mark.slow
def test_the_work_of_folding_grows_with_the_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repetitions that are looked at: their number grows with that of layers, also where few fold."""
    flow, looked = repeating.flow_of, list[int]()

    def counted(items: Any, reads: Any, start: int, length: int, times: int) -> Any:
        looked.append(length * times)
        return flow(items, reads, start, length, times)

    monkeypatch.setattr(repeating, "flow_of", counted)
    work = []
    for count in (40, 80):
        looked.clear()
        draw(trace(Skipping(count), torch.ones(2, 3)), depth=2)
        work.append(sum(looked))
    assert work[1] < 3 * work[0]


def test_axes_have_equal_names() -> None:
    @circuit("x m -> x m")
    def step(x: Tensor) -> Tensor:
        return (x.tanh() + 1).sin()

    @circuit("m x -> m x")
    def other(x: Tensor) -> Tensor:
        return (x.tanh() + 1).sin()

    def run(*steps: Callable[[Tensor], Tensor]) -> Diagram:
        def steps_in_turn(x: Tensor) -> Tensor:
            for each in steps:
                x = each(x)
            return x

        return trace(steps_in_turn, torch.ones(3, 3))

    assert words(draw(run(step, step, step))) == [["3"]]
    assert words(draw(run(step, other, step))) == []


# --- wiring -----------------------------------------------------------------------------------------------------------


INPUTS = (torch.ones(3, 4), torch.ones(3, 4))


class Wired(nn.Module):
    """Four layers of two arguments, wired by a function."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()

        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(4, 4)

            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return self.linear(x).relu() - y

        self.layers = nn.ModuleList([Both() for _ in range(4)])
        self.run = run

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.run(self.layers, x, y)


def chain(layers: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x, y)
    return x


def one_swapped(layers: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
    for place, layer in enumerate(layers):
        x = layer(y, x) if place == 1 else layer(x, y)
    return x


def one_twice(layers: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
    for place, layer in enumerate(layers):
        x = layer(x, x) if place == 1 else layer(x, y)
    return x


def parallel(layers: nn.ModuleList, x: Tensor, y: Tensor) -> list[Tensor]:
    return [layer(x, y) for layer in layers]


def last_of_two(layers: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
    for layer in layers:
        x, y = layer(x, y), x
    return x


def dense(layers: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
    found = [x]
    for layer in layers:
        found.append(layer(torch.stack(found).sum(0), y))
    return found[-1]


@pytest.mark.parametrize(
    ("run", "counts"), [(chain, ["4"]), (one_swapped, ["2"]), (one_twice, ["2"]), (parallel, []), (dense, [])]
)
def test_repetitions_are_wired_alike(run: Callable[..., Any], counts: list[str]) -> None:
    drawing = draw(trace(Wired(run), *INPUTS), depth=2)
    assert [each[0] for each in words(drawing)] == counts


def test_operations_between_layers_are_wired_alike() -> None:
    def run(order: str) -> Callable[..., Tensor]:
        def layers(modules: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
            for sign, module in zip(order, modules, strict=True):
                z = module(x, y)
                x = x - z if sign == "-" else z - x
            return x

        return layers

    assert words(draw(trace(Wired(run("----")), *INPUTS))) == [["4", "own weights"]]
    assert words(draw(trace(Wired(run("-+-+")), *INPUTS))) == [["2", "own weights"]]
    assert words(draw(trace(Wired(run("-+--")), *INPUTS)))[0][0] == "2"


@pytest.mark.slow
def test_a_tensor_from_inside_brackets_that_is_read_later_is_named() -> None:
    """It is saved by λ, `→ C[λ]`, and loaded by its number: a reader sees from which layer it is."""

    def first_and_last(layers: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
        found = []
        for layer in layers:
            x = layer(x, y)
            found.append(x)
        return found[-1] * found[1]

    drawing = draw(trace(Wired(first_and_last), *INPUTS), depth=1)
    assert words(drawing) == [["4", "own weights"]]
    assert sorted(texts(drawing, "memory")) == ["C2 →", "C4 →", "→ Cλ"]


def test_hidden_states_that_are_all_returned_are_named() -> None:
    def all_returned(layers: nn.ModuleList, x: Tensor, y: Tensor) -> list[Tensor]:
        found = []
        for layer in layers:
            x = layer(x, y)
            found.append(x)
        return found

    drawing = draw(trace(Wired(all_returned), *INPUTS), depth=1)
    assert words(drawing) == [["4", "own weights"]]
    assert texts(drawing, "memory") == ["→ Cλ"]
    assert texts(drawing, "legend") == ["Ci is returned  (i = 1…4)"]


@pytest.mark.parametrize(("places", "said"), [((1, 3), "C2, C4 are returned"), ((1,), "C2 is returned")])
def test_only_the_hidden_states_that_are_returned_are_named(places: tuple[int, ...], said: str) -> None:
    def some_returned(layers: nn.ModuleList, x: Tensor, y: Tensor) -> list[Tensor]:
        found = []
        for layer in layers:
            x = layer(x, y)
            found.append(x)
        return [found[place] for place in places]

    assert texts(draw(trace(Wired(some_returned), *INPUTS), depth=1), "legend") == [said]


# --- sizes that follow a rule -----------------------------------------------------------------------------------------


def widening(*sizes: int, slopes: tuple[float, ...] = ()) -> Diagram:
    chosen = slopes or (0.1,) * (len(sizes) - 1)
    pairs = zip(pairwise(sizes), chosen, strict=True)
    return trace(
        nn.Sequential(*[nn.Sequential(nn.Linear(*each), nn.LeakyReLU(slope)) for each, slope in pairs]),
        axes=f"b {sizes[0]}",
    )


def test_sizes_that_follow_a_rule_are_named_by_their_place() -> None:
    drawing = draw(widening(8, 16, 32, 64), depth=2)
    assert words(drawing) == [["3", "own weights"]]
    assert {"nλ−1", "nλ"} <= set(texts(drawing, "label"))
    assert texts(drawing, "legend") == ["ni = 8, 16, 32, 64  (i = 0…3)"]
    assert at_the_left(drawing) == ["b", "8"]
    assert at_the_right(drawing) == ["b", "64"]


def test_two_sizes_are_no_rule() -> None:
    assert words(draw(widening(8, 16, 32), depth=2)) == []


def test_a_rule_of_sizes_does_not_hide_another_number() -> None:
    assert words(draw(widening(8, 16, 32, 64, slopes=(0.1, 0.2, 0.1)), depth=2)) == []


def members(drawing: Drawing) -> dict[str, dict[int, str]]:
    """Return the sizes that the legend lists, by letter and number."""
    found = {}
    for line in texts(drawing, "legend"):
        match = re.fullmatch(r"(\w+)i = (.*)  \(i = (−?\d+)…(\d+)\)", line)
        if match is not None:
            numbers = range(int(match[3].replace("−", "-")), int(match[4]) + 1)
            found[match[1]] = dict(zip(numbers, match[2].split(", "), strict=True))
    return found


def check_rule(drawing: Drawing, blocks: list[Box], pairs: dict[str, str]) -> int:
    """Compare the names by λ of the wires in brackets with the sizes of the axes in all repetitions.

    Args:
        drawing: The drawing.
        blocks: What is repeated, in order; the first is drawn.
        pairs: The letter in the legend for axes that are drawn as pairs.

    Returns:
        How many wires have been compared.
    """
    runs = [list({value.number: value for inner in block.walk() for value in inputs_of(inner)}) for block in blocks]
    sizes = {value.number: value.sizes for block in blocks for inner in block.walk() for value in inputs_of(inner)}
    count = 0
    for wire in [data(mark) for mark in of_kind(drawing, "wire")]:
        match = re.fullmatch(r"(?:(\d+)\*)?(\w)\[(?:(\d+)-)?λ([+-]\d+)?\]", wire.get("name", ""))
        if match is None or int(wire["value"]) not in runs[0]:
            continue
        place, axis = runs[0].index(int(wire["value"])), int(wire["axis"].split(",")[0])
        for times, run in enumerate(runs, start=1):
            number = int(match[3]) - times if match[3] else times + int(match[4] or 0)
            size = f"{sizes[run[place]][axis]}".replace(match[2], pairs.get(match[2], match[2]))
            for letter, label in pairs.items():
                size = size.replace(letter, label)
            listed = members(drawing)[match[2]][number]
            assert size == (f"{int(match[1]) * int(listed)}" if match[1] else listed), (wire, times)
        count += 1
    return count


def inputs_of(box: Box) -> list[Value]:
    """Return the tensors of a box that are no parameters."""
    return [value for value in (*box.inputs, *box.outputs) if value.role in ("input", "made")]


def test_names_by_the_place_are_the_sizes_of_each_repetition() -> None:
    diagram = widening(8, 16, 8, 4, 4)
    assert check_rule(draw(diagram, depth=2), list(diagram.box.boxes), {}) >= 1


@pytest.mark.slow
def test_the_unet_of_the_paper_has_the_sizes_of_its_blocks() -> None:
    """Figure 27: blocks down from c[λ-1] to c[λ] channels, blocks up from c[5-λ], and their tensors by name."""
    diagram = zoo("unet as drawn")
    drawing = draw(diagram, order="h w c", pairs="x = h w", depth=3)
    assert [each[0] for each in words(drawing)] == ["4", "3"]
    down = [box for box in diagram.box.boxes if box.label == "DownScaleBlock"]
    up = [box for box in diagram.box.boxes if box.label == "UpScaleBlock"]
    assert check_rule(drawing, down, {"h": "x", "w": "x"}) > 10
    assert check_rule(drawing, up, {"h": "x", "w": "x"}) > 10
    assert sorted(texts(drawing, "memory")) == ["C5−λ →", "→ Cλ"]


def test_a_wrong_rule_is_found() -> None:
    diagram = widening(8, 16, 8, 4, 4)
    first, second, *rest = diagram.box.boxes
    with pytest.raises(AssertionError):
        check_rule(draw(diagram, depth=2), [first, *rest, second], {})


# --- the same letters outside of brackets -----------------------------------------------------------------------------


@pytest.mark.slow
def test_wires_beside_the_brackets_have_the_letters_of_the_rule() -> None:
    """Figure 27: x̄₅ and c₄ behind the blocks down, and the names of the signature at the edges."""
    diagram = zoo("unet as drawn")
    drawing = draw(diagram, order="h w c", pairs="x = h w", hide="b", depth=3, width=3000)
    labels = texts(drawing, "label")
    assert {"x5", "x4", "x1", "c4", "c5", "c1"} < set(labels)
    assert not [label for label in labels if label.isdigit() or "/" in label]
    assert at_the_left(drawing) == ["x", "c"]
    assert at_the_right(drawing) == ["x", "k"]
    assert not differences(draw(diagram, depth=3).svg, diagram)


class Between(nn.Module):
    """Blocks whose sizes follow a rule, an operation, a block of two layers, and a layer of another size."""

    def __init__(self, sizes: Sequence[int], more: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[nn.Sequential(nn.Linear(*each), nn.LeakyReLU()) for each in pairwise(sizes)])
        self.other = nn.Sequential(nn.Linear(sizes[-1], more[0]), nn.Tanh(), nn.Linear(more[0], more[1]))
        self.turned = nn.Linear(more[1], more[2])

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x) * 2
        y = self.turned(self.other(x).sin()).relu()
        return y.mT @ y


def test_an_axis_keeps_its_letter_from_operation_to_operation() -> None:
    drawing = draw(trace(Between((8, 16, 32, 64), (32, 7, 5)), axes="b 8"), depth=3)
    labels = texts(drawing, "label")
    assert "n3" in labels
    assert {"64", "7", "5"} & set(labels) == {"7", "5"}
    assert "32" in labels, "it does not come from the blocks"


@pytest.mark.every(3)
@pytest.mark.parametrize("case", [pytest.param(case, marks=[] if case < 6 else pytest.mark.slow) for case in range(40)])
def test_every_letter_is_the_size_of_its_axis(case: int) -> None:
    """Also where sizes are equal by chance, as that of the batch, and where a rule has one size twice."""
    chosen = random.Random(case)
    sizes = chosen.choices((2, 3, 4, 6, 8), k=chosen.randint(4, 6))
    diagram = trace(Between(sizes, chosen.choices((2, 3, 4, 6), k=3)), torch.ones(chosen.choice((2, 3, 4)), sizes[0]))
    for drawing in (draw(diagram, depth=3), draw(diagram, depth=2), draw(diagram, depth=3, wires="tensors")):
        assert not differences(drawing.svg, diagram)
