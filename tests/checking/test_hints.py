"""`circuit(hints=...)`: what a ShapeError adds where a tensor does not fit."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import ShapeError, SignatureError, broadcast, circuit

HINTS = {"mask": "for padding pass lengths", "key": "keys come second"}


@circuit("y k, x k -> y x", optional={"mask": "y x"}, hints=HINTS)
def scores(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    found = query @ key.mT
    return found if mask is None else found + mask


def said(*shapes: tuple[int, ...], f: Any = scores) -> str:
    with pytest.raises(ShapeError) as caught:
        f(*[torch.ones(shape) for shape in shapes])
    return str(caught.value)


def test_it_stands_below_the_table_for_each_tensor_that_does_not_fit() -> None:
    lines = said((2, 3), (4, 3), (2, 5)).splitlines()
    assert lines[-2:] == ["  mask: for padding pass lengths", lines[-1]]
    assert lines[-1].startswith("  declared at ")
    assert "  key: keys come second\n  mask: for padding pass lengths\n" in said((2, 3), (4, 5), (3, 4))
    assert "key:" not in said((2, 3), (4, 3), (2, 5))


def test_it_is_not_said_of_other_tensors() -> None:
    assert "pass lengths" not in said((2, 3), (4, 5))
    assert "pass lengths" not in said((2, 3), (4, 5), (2, 4))
    torch.testing.assert_close(scores(torch.ones(2, 3), torch.ones(4, 3), torch.ones(2, 4)), torch.full((2, 4), 4.0))


def test_it_is_said_under_compile_and_of_lifted_circuits_and_signed_modules() -> None:
    compiled = torch.compile(scores, fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="mask: for padding pass lengths"):
        compiled(torch.ones(2, 3), torch.ones(4, 3), torch.ones(2, 5))
    lifted = broadcast(scores, "b y k, b x k -> b y x")
    assert "key: keys come second" in said((5, 2, 3), (5, 4, 4), f=lifted)
    module = circuit("b m -> b k", hints={"input": "flatten images first"})(nn.Linear(4, 3))
    assert "input: flatten images first" in said((2, 4, 4), f=module)


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ({"masks": "text"}, "hints: 'masks' is not a tensor of"),
        ({"mask": 3}, "a text"),
        ("mask", "expected a mapping from the name of a parameter"),
    ],
)
def test_a_wrong_declaration_is_refused(hints: Any, message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        circuit("y -> y", optional={"mask": "y"}, hints=hints)(lambda y, mask=None: y)
