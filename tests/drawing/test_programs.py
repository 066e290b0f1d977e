"""`draw` draws whatever `trace` and `track` record: random programs of torch operations, at every depth and option."""

import io
import random
from typing import Any

import pytest
import torch
from torch import nn

from circuits import CircuitError, Diagram, backward, draw, track
from circuits.drawing.marks import Picture
from tests.diagram.programs import KINDS, Program
from tests.drawing.seen import of_kind
from tests.drawing.subjects import PROGRAMS, program

OPTIONS: list[dict[str, Any]] = [
    {},
    {"depth": 0},
    {"depth": 1},
    {"depth": 9},
    {"wires": "tensors"},
    {"literal": True},
    {"show_sizes": True, "width": "column"},
    {"equation": True},
    {"frame": False},
    {"order": "4 ...", "pairs": "y k"},
]
"""What is chosen, in turn."""


def is_drawn(picture: Picture) -> bool:
    """Return whether a picture has a size and marks within it."""
    return bool(picture.marks) and 0 < picture.width < 1e6 and 0 < picture.height < 1e6


def check(diagram: Diagram, options: dict[str, Any]) -> None:
    """Draw a diagram with options, and write it in every kind of text."""
    drawing = draw(diagram, **options)
    assert is_drawn(drawing.picture)
    assert drawing.svg.startswith("<svg")
    assert drawing.tikz
    assert drawing.text(80)


@pytest.mark.every(16, 4)
@pytest.mark.parametrize("case", [pytest.param(case, marks=[] if case < 16 else pytest.mark.slow) for case in PROGRAMS])
def test_a_program_is_drawn(case: int) -> None:
    diagram = program(case)
    if diagram is None:
        pytest.skip("it needs numbers that a trace does not have")
    check(diagram, OPTIONS[case % len(OPTIONS)])
    check(diagram, {})


@pytest.mark.every(7)
@pytest.mark.parametrize("case", range(0, 400, 20))
def test_a_program_that_fails_is_drawn(case: int) -> None:
    """A module that runs a random program and then fails."""
    chosen = random.Random(case)
    steps = list(KINDS["pure"])
    plan = [(chosen.choice(steps), chosen.randrange(9), chosen.randrange(9)) for _ in range(chosen.randint(1, 8))]

    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = Program(plan, 4, whole=case % 2 == 0)

        def forward(self, *given: Any) -> Any:
            self.program(*given)
            return torch.ones(3) @ torch.ones(4)

    given = (torch.randn(3, 4), torch.randn(3, 4), {"y": torch.zeros(3, 4), "list": []})
    model = Failing()
    with track(model, to=io.StringIO()) as seen, pytest.raises((RuntimeError, IndexError)):
        model(*given)
    drawing = draw(seen.diagram)
    assert of_kind(drawing, "error")
    check(seen.diagram, OPTIONS[case // 20 % len(OPTIONS)])


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("case", range(0, 400, 5))
def test_the_gradient_of_a_program_is_drawn(case: int) -> None:
    diagram = program(case)
    if diagram is None:
        pytest.skip("it needs numbers that a trace does not have")
    try:
        gradient = backward(diagram)
    except (CircuitError, RuntimeError):
        pytest.skip("it has no gradient")
    for options in OPTIONS[:5]:
        check(gradient, options)
