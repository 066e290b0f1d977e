"""Options that `draw` refuses: each message, whole."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from circuits import CircuitError, draw, trace
from models.attention import MultiHeadAttention
from models.scaled_dot_product import attention

REFUSED: dict[str, dict[str, Any]] = {
    "depth": {"depth": -1},
    "depth, no number": {"depth": "2"},
    "depth, a bool": {"depth": True},
    "depth, a float": {"depth": 1.0},
    "wires": {"wires": "axis"},
    "order": {"order": 5},
    "order, a set": {"order": frozenset({"y"})},
    "order, not only names": {"order": ["y", 3]},
    "pairs, one name": {"pairs": "h"},
    "pairs, three names": {"pairs": "y x, y x k"},
    "pairs, one axis": {"pairs": "y y"},
    "pairs, no label": {"pairs": "= y x"},
    "pairs, no text": {"pairs": ["y x"]},
    "hide, read": {"hide": "x"},
    "hide, read in a closed box": {"hide": "x", "depth": 0},
    "hide, nothing": {"hide": None},
    "hide, misspelt": {"hide": "keys"},
    "names, of no input": {"names": "quer = Q"},
    "names, twice": {"names": "query = Q, query = K"},
    "names, empty": {"names": {"query": ""}},
    "names, no name": {"names": "query"},
    "names, a list": {"names": ["query"]},
    "open, no text": {"open": nn.Linear},
    "open, misspelt": {"open": "atention"},
    "close, an operation": {"close": "einsum"},
    "close, one of two": {"close": "attention Block"},
    "close, not only names": {"close": ["attention", nn.Linear]},
    "width": {"width": 0},
    "width, negative": {"width": -100.0},
    "width, no number": {"width": math.nan},
    "width, a word": {"width": "wide"},
    "width, a bool": {"width": True},
    "width, a list": {"width": [700]},
    "theme": {"theme": "blue"},
    "theme, nothing": {"theme": None},
}


def message(call: Callable[[], Any]) -> str:
    with pytest.raises(CircuitError) as caught:
        call()
    return str(caught.value)


def test_every_refusal_is_one_message(golden: Callable[[str, str], None]) -> None:
    diagram = trace(attention)
    calls: dict[str, Callable[[], Any]] = {}
    calls |= {name: partial(draw, diagram, **options) for name, options in REFUSED.items()}
    calls |= {
        "arguments with a diagram": lambda: draw(diagram, torch.ones(3)),
        "sizes with a diagram": lambda: draw(diagram, sizes={"y": 3}),
        "no target": lambda: draw("attention"),
        "a module without a signature": lambda: draw(nn.Linear(4, 3)),
    }
    lines = [f"{name}\n    {message(call)}" for name, call in calls.items()]
    golden("drawing/refusals.txt", "\n".join(lines) + "\n")


def test_an_option_is_refused_before_anything_is_traced() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("traced")

    refused: list[dict[str, Any]] = [{"depth": -1}, {"theme": "blue"}, {"width": 0}, {"pairs": "h"}]
    for options in refused:
        with pytest.raises(CircuitError):
            draw(run, torch.ones(3), **options)


def test_axes_that_are_nowhere_may_stand_in_order_and_pairs() -> None:
    """One order serves many models."""
    diagram = trace(attention)
    assert draw(diagram, order="y b x k h", pairs="h w").svg == draw(diagram, order="y x k").svg


def test_names_that_are_found_are_not_refused() -> None:
    diagram = trace(MultiHeadAttention(m=8, k=4, h=2))
    for name in ("MultiHeadAttention", "attention", "Lq", "Linear"):
        draw(diagram, open=name)
        draw(diagram, close=name)
    product = trace(nn.ReLU(), axes="(b h) m/2 4")
    for name in ("b", "h", "m", "4"):
        draw(product, hide=name)
