"""The drawing rules say the truth: an axis that passes an operation is one at each index of which it works alone."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits import Diagram, einsum, trace
from circuits.diagram import Box
from circuits.drawing.operations import Drawn, drawing_of
from tests.diagram.programs import STEPS, Program
from tests.drawing.meaning import LEFT_OUT, Claim, untrue, uses_of
from tests.models.other_peoples_models import TORCH_NN
from tests.models.test_zoo import MODELS

QUICK = ("attention", "visual attention", "language model, parallel layers", "convolution")
"""The models of the zoo that are looked at with every change."""


def claims(box: Box, drawn: Drawn) -> list[Claim]:
    """Return what the wires of an operation say; `drawn` has a tensor once for each time that the call reads it."""
    used, seen = [value.number for value in uses_of(box)], Counter[int]()
    uses: list[int] = []
    for value in drawn.ins:
        places = [place for place, number in enumerate(used) if number == value.number]
        uses.append(places[min(seen[value.number], len(places) - 1)])
        seen[value.number] += 1
    plain = [link for link in drawn.links if link.kind != "glyph" and link.ins]
    return [Claim(tuple([(uses[place], axis) for place, axis in link.ins]), link.outs) for link in plain]


def operations(diagram: Diagram) -> list[Box]:
    """Return the operations of a diagram that can be run and compared."""
    boxes = [box for box in diagram.walk() if box.kind == "operation" and box.call is not None and not box.boxes]
    return [box for box in boxes if not box.label.startswith(LEFT_OUT)]


def lies(diagram: Diagram) -> list[str]:
    """Return the operations of a diagram whose wires say what does not hold, each with the wires."""
    return [
        f"{box.label} of {[str(value) for value in box.inputs]}: {claim}"
        for box in operations(diagram)
        for claim in untrue(box, claims(box, drawing_of(box)))
    ]


@pytest.mark.every(4)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_wires_of_the_models_say_the_truth(name: str) -> None:
    assert not lies(trace(MODELS[name].make(), sizes=MODELS[name].sizes))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TORCH_NN if name not in ("CTCLoss", "AdaptiveLogSoftmaxWithLoss")])
def test_wires_of_torch_modules_say_the_truth(name: str) -> None:
    entry = TORCH_NN[name]
    assert not lies(trace(entry.make(), *[each.make(2) for each in entry.inputs]))


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_wires_of_other_peoples_operations_say_the_truth(step: str) -> None:
    given = (torch.randn(3, 4), torch.randn(3, 4), {"y": torch.zeros(3, 4), "list": []})
    rest = [(random.Random(step).choice(list(STEPS)), 2, 3)]
    for plan in ([(step, 0, 1)], [(step, 2, 2)], [(step, 0, 1), *rest]):
        try:
            diagram = trace(Program(plan, 4), *given)
        except Exception:  # whether a program can be traced is tested elsewhere
            continue
        assert not lies(diagram)


WRONG: list[tuple[Callable[..., Any], Claim]] = [
    (lambda x: x.cumsum(0), Claim(((0, 0),), ((0, 0),))),
    (lambda x: x.softmax(1).cumsum(1), Claim(((0, 1),), ((0, 1),))),
    (lambda x: x.mT, Claim(((0, 0),), ((0, 0),))),
    (lambda x: x.sort(0).values, Claim(((0, 0),), ())),
    (lambda x: x + x.mT, Claim(((0, 0), (1, 1)), ((0, 0),))),
    (lambda x: x @ x, Claim(((0, 1), (1, 1)), ())),
    (lambda x: einsum(x, x, "y k, x k -> y x"), Claim(((0, 0), (1, 0)), ())),
    (lambda x: x[:, 0], Claim(((0, 1),), ())),
    (lambda x: torch.nn.functional.layer_norm(x, (4,), torch.arange(4.0)), Claim(((0, 1),), ((0, 1),))),
]


@pytest.mark.parametrize(("function", "claim"), WRONG)
def test_wires_that_do_not_say_the_truth_are_found(function: Callable[[Tensor], Any], claim: Claim) -> None:
    box = operations(trace(function, torch.randn(4, 4)))[-1]
    assert untrue(box, [claim]) == [claim]
