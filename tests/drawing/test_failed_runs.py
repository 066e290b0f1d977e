"""A run that failed is drawn up to the box that failed, with the axes that clash and the error's words."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, Diagram, Drawing, circuit, draw, einsum, rearrange, track
from circuits.drawing.marks import Path, Text
from tests.drawing.seen import at_the_left, closed, of_kind, opened, texts
from tests.drawing.shapes import data


class Run(nn.Module):
    """A module that calls a function, in which it may fail."""

    def __init__(self, run: Callable[..., Any], inner: nn.Module) -> None:
        super().__init__()
        self.run, self.inner = run, inner

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def failed(run: Callable[..., Any], *args: Any, inner: nn.Module | None = None) -> Diagram:
    """Return the diagram of a run that fails."""
    model = Run(run, inner or nn.Identity())
    with track(model, to=io.StringIO()) as seen, pytest.raises((RuntimeError, ValueError, TypeError)):
        model(*args)
    return seen.diagram


def marked(drawing: Drawing) -> set[tuple[int, str]]:
    """Return the wires in the colour of an error, by tensor and axis."""
    wires = [mark for mark in of_kind(drawing, "wire") if isinstance(mark, Path) and mark.stroke == "error"]
    return {(int(data(wire)["value"]), data(wire)["axis"]) for wire in wires}


def said(drawing: Drawing) -> str:
    """Return the words of the error."""
    lines = [mark for mark in of_kind(drawing, "error") if isinstance(mark, Text)]
    assert {mark.role for mark in lines} <= {"error"}
    return " ".join([mark.plain for mark in lines])


def in_error(drawing: Drawing) -> list[str]:
    """Return the ids of the boxes whose outline has the colour of an error."""
    outlines = [mark for mark in of_kind(drawing, "glyph", "fence") if isinstance(mark, Path)]
    return [data(mark)["box"] for mark in outlines if mark.stroke == "error"]


@circuit("y k, x k -> y x")
def score(query: Tensor, key: Tensor) -> Tensor:
    """The score of each query with each key."""
    return einsum(query, key, "y k, x k -> y x")


MATRICES = (torch.ones(3, 4), torch.ones(5, 6))
CLASH = {(2, "1"), (1, "1")}

MISMATCHES: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], nn.Module, set[tuple[int, str]]]] = {
    "a circuit": (lambda _, a, b: score(a.relu(), b).exp(), MATRICES, nn.Identity(), CLASH),
    "matmul": (lambda _, a, b: a.relu() @ b, MATRICES, nn.Identity(), {(2, "1"), (1, "0")}),
    "matmul of batches": (
        lambda _, a, b: a.relu() @ b,
        (torch.ones(2, 3, 4), torch.ones(5, 4, 6)),
        nn.Identity(),
        {(2, "0"), (1, "0")},
    ),
    "add": (lambda _, a, b: a.relu() + b, (torch.ones(3, 4), torch.ones(3, 6)), nn.Identity(), CLASH),
    "add of another rank": (
        lambda _, a, b: a.relu() + b,
        (torch.ones(7, 3, 4), torch.ones(5, 1)),
        nn.Identity(),
        {(2, "1"), (1, "0")},
    ),
    "cat": (lambda _, a, b: torch.cat([a.relu(), b]), MATRICES, nn.Identity(), CLASH),
    "cat of three": (
        lambda _, a, b: torch.cat([a, b, a.relu()], 1),
        MATRICES,
        nn.Identity(),
        {(0, "0"), (1, "0"), (2, "0")},
    ),
    "linear": (lambda self, a: self.inner(a.relu()), (torch.ones(3, 4),), nn.Linear(5, 2), {(1, "1")}),
    "conv2d": (lambda self, a: self.inner(a.relu()), (torch.ones(2, 4, 5, 5),), nn.Conv2d(3, 4, 3), {(1, "1")}),
    "conv_transpose1d": (
        lambda self, a: self.inner(a.relu()),
        (torch.ones(2, 4, 5),),
        nn.ConvTranspose1d(3, 4, 3),
        {(1, "1")},
    ),
    "layer_norm": (lambda self, a: self.inner(a.relu()), (torch.ones(3, 4),), nn.LayerNorm(7), {(1, "1")}),
    "view": (lambda _, a: a.relu().view(7), (torch.ones(3, 4),), nn.Identity(), set()),
    "rearrange": (
        lambda _, a: rearrange(a.relu(), "(a b) c -> a b c", a=2),
        (torch.ones(3, 4),),
        nn.Identity(),
        set(),
    ),
}
"""Runs that fail: the function, its arguments, the module that it calls, and the axes that clash."""


@pytest.mark.parametrize("name", MISMATCHES)
def test_the_axes_that_clash_are_marked_and_no_others(name: str) -> None:
    run, args, inner, clashing = MISMATCHES[name]
    diagram = failed(run, *args, inner=inner)
    drawing = draw(diagram)
    assert marked(drawing) == clashing
    failing = next(box for box in diagram.walk() if box.error)
    assert failing.error.split()[0] in said(drawing)
    assert said(drawing).endswith(failing.error)
    assert len(in_error(drawing)) == 1


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_closed_box_in_which_a_run_failed_marks_the_axes_that_enter_it(name: str) -> None:
    run, args, inner, clashing = MISMATCHES[name]
    diagram = failed(run, *args, inner=inner)
    drawing = draw(diagram, depth=0)
    inputs = {value.number for value in diagram.inputs}
    assert marked(drawing) == {wire for wire in clashing if wire[0] in inputs}
    assert in_error(drawing) == ["root"]
    assert said(drawing).startswith("Run: ")


def test_the_size_of_an_axis_that_clashes_is_shown() -> None:
    run, args, _, _ = MISMATCHES["a circuit"]
    assert "k = 4" in texts(draw(failed(run, *args)), "label")
    tensors = draw(failed(run, *args), wires="tensors")
    assert at_the_left(tensors) == ["y k", "x 6"]
    assert marked(tensors) == {(2, "0,1"), (1, "0,1")}


def test_what_ran_before_is_drawn_and_what_would_come_later_is_not() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(6, 7), nn.Tanh())
    with track(model, to=io.StringIO()) as seen, pytest.raises(RuntimeError):
        model(torch.ones(3, 4))
    drawing = draw(seen.diagram)
    assert closed(drawing) == {"0", "1", "2.0"}
    assert in_error(drawing) == ["2.0"]
    assert "Tanh" not in drawing.svg


def test_an_error_between_operations_marks_the_box_that_raises_it() -> None:
    def run(_: nn.Module, x: Tensor) -> Tensor:
        x.relu()
        raise ValueError("no <b> & \\frac{1}{2}")

    drawing = draw(failed(run, torch.ones(3)))
    assert said(drawing) == "Run: ValueError: no <b> & \\frac{1}{2}"
    assert in_error(drawing) == ["root"]
    assert closed(drawing) == {"0"}
    assert not marked(drawing)


def test_an_einsum_that_does_not_fit_marks_the_box_around_it() -> None:
    def run(_: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        return einsum(a.relu(), b, "y k, x k -> y x")

    drawing = draw(failed(run, torch.ones(3, 4), torch.ones(5, 6)))
    assert said(drawing) == "Run: ShapeError: einsum: y k, x k -> y x"
    assert in_error(drawing) == ["root"]
    assert not marked(drawing)


def test_a_result_that_does_not_fit_marks_the_open_circuit() -> None:
    @circuit("x m -> x m")
    def turned(x: Tensor) -> Tensor:
        return x.relu().mT

    drawing = draw(failed(lambda _, x: turned(x), torch.ones(3, 4)))
    assert in_error(drawing) == ["0"]
    assert opened(drawing) == {"root", "0"}
    assert said(drawing).startswith("turned: ShapeError: ")


def test_a_run_that_fails_at_once_is_a_closed_box() -> None:
    def run(_: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError(f"no {tuple(x.shape)}")

    drawing = draw(failed(run, torch.ones(3, 4)))
    assert in_error(drawing) == ["root"]
    assert said(drawing) == "Run: RuntimeError: no (3, 4)"
    assert at_the_left(drawing) == ["3", "4"]


def test_a_run_that_fails_in_a_layer_of_several_is_not_folded_with_the_others() -> None:
    class Layer(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.linear = nn.Linear(n, n)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).relu() + x

    model = nn.Sequential(Layer(4), Layer(4), Layer(4), Layer(5), Layer(4))
    with track(model, to=io.StringIO()) as seen, pytest.raises(RuntimeError):
        model(torch.ones(3, 4))
    drawing = draw(seen.diagram)
    assert [text for text in texts(drawing, "bracket") if text.startswith("×")] == ["× 3"]
    assert in_error(drawing) == ["3.0.0"]


def test_the_error_is_text_in_every_file() -> None:
    def run(_: nn.Module, x: Tensor) -> Tensor:
        raise ValueError("<script>alert(1)</script> \\input{x} $a_b$ 100%")

    drawing = draw(failed(run, torch.ones(3)))
    assert "<script" not in drawing.svg
    assert "&lt;script&gt;" in drawing.svg
    assert "\\input" not in drawing.tikz
    assert "script" in drawing.text()


def test_an_axis_may_be_hidden_in_a_run_that_failed() -> None:
    run, args, inner, _ = MISMATCHES["linear"]
    names = draw(failed(run, *args, inner=inner), hide="3")
    assert at_the_left(names) == ["4"]
    with pytest.raises(CircuitError, match="axis 4 cannot be hidden"):
        draw(failed(lambda _, x: (x.sum(-1), x.view(7)), torch.ones(3, 4)), hide="4")
