# pyright: reportPrivateImportUsage=false
"""Operators that take functions (`torch.cond`, `scan`): diagrams run them with the tensors of their own run."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import associative_scan, map, scan, while_loop
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from circuits import CircuitError, Diagram, trace, track

FIRST = torch.tensor([[1.0, -2, 3, 4], [2, 3, 4, 5]])
SECOND = -FIRST


class Model(nn.Module):
    """Two layers and a scale, used by a function that is given the model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.full((4,), 0.5))
        self.function = function
        self.requires_grad_(False)

    def branch(self, x: Tensor) -> Tensor:
        return self.first(x) * self.scale

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def cond_in_a_closure(model: Model, x: Tensor) -> Tensor:
    doubled = x * 2
    return torch.cond(x.sum() > 0, lambda: model.second(doubled), lambda: doubled - 1)


def nested_cond(model: Model, x: Tensor) -> Tensor:
    def inner(y: Tensor) -> Tensor:
        return torch.cond(y[0, 0] > 0, lambda z: model.first(z), lambda z: z + x, (y,))

    return torch.cond(x.sum() > 0, inner, model.second, (-x,))


def default_value(model: Model, x: Tensor) -> Tensor:
    mean = x.mean()
    return torch.cond(x.sum() > 0, lambda y, m=mean: y * m, lambda y, *, m=mean: y - m, (x,))


def flex_with_a_bias(model: Model, x: Tensor) -> Any:
    query, bias = x.reshape(1, 1, 2, 4), x.sum()
    return flex_attention(query, query, query, score_mod=lambda score, b, h, i, j: score * bias + model.scale[i])


def flex_with_a_mask(model: Model, x: Tensor) -> Any:
    query, last = x.reshape(1, 1, 2, 4), x.argmax() % 2
    mask = create_block_mask(lambda b, h, i, j: (i >= j) | (j == last), 1, 1, 2, 2, device="cpu")
    return flex_attention(query, query, query, block_mask=mask)


OPERATORS: dict[str, Callable[[Model, Tensor], Any]] = {
    "cond of modules": lambda model, x: torch.cond(x.sum() > 0, model.first, model.second, (x,)),
    "cond of methods": lambda model, x: torch.cond(x.sum() > 0, model.branch, lambda y: y * model.scale, (x,)),
    "cond of partial functions": lambda model, x: torch.cond(
        x.sum() > 0,
        functools.partial(torch.mul, other=x.mean(0)),
        functools.partial(torch.add, x.mean(0), alpha=2),
        (x,),
    ),
    "cond in a closure": cond_in_a_closure,
    "cond of a default value": default_value,
    "nested cond": nested_cond,
    "cond of a size": lambda model, x: torch.cond(x.shape[0] > 1, model.first, model.second, (x,)),
    "cond under vmap": lambda model, x: torch.vmap(
        lambda row: torch.cond(row.sum() > 0, lambda y: y * 2, lambda y: y - 1, (row,))
    )(x),
    "while_loop": lambda model, x: while_loop(
        lambda y: y.sum().abs() < 100, lambda y: (y + 10 * model.scale + x.abs(),), (x,)
    ),
    "while_loop with a counter": lambda model, x: while_loop(
        lambda n, y: n < x.abs().max(), lambda n, y: (n + 1, model.first(y)), (torch.tensor(0), x)
    ),
    "scan": lambda model, x: scan(lambda carry, row: (model.first(carry) + row, carry * row), x[0], x, dim=0),
    "associative_scan": lambda model, x: associative_scan(
        lambda left, right: left * model.scale + right, x, 0, combine_mode="generic"
    ),
    "map": lambda model, x: map(lambda row, mean: model.first(row) + mean, x, x.mean(0)),  # type: ignore[arg-type]
    "flex_attention": flex_with_a_bias,
    "flex_attention with a mask": flex_with_a_mask,
}


@pytest.mark.every(11)
@pytest.mark.parametrize("record", ["trace", "track"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_choose_by_the_data_of_each_run(name: str, record: str) -> None:
    model = Model(OPERATORS[name])
    diagram = trace(model, FIRST) if record == "trace" else tracked(model)
    for given in (FIRST, SECOND):
        torch.testing.assert_close(diagram(given), model(given), rtol=0, atol=0)
        torch.testing.assert_close(diagram.function()(given), model(given), rtol=0, atol=0)


def tracked(model: Model) -> Diagram:
    with track(model, to=None) as seen:
        model(FIRST)
    return seen.diagram


@pytest.mark.parametrize("name", ["cond of methods", "cond in a closure", "while_loop"])
def test_an_operator_is_one_box(name: str) -> None:
    model = Model(OPERATORS[name])
    for diagram in (trace(model, FIRST), tracked(model)):
        (box,) = [each for each in diagram.walk() if each.label in ("cond", "while_loop")]
        assert not box.boxes
        assert box.outputs[0].sizes == (2, 4)


@pytest.mark.slow
def test_recording_changes_no_result() -> None:
    for function in OPERATORS.values():
        model = Model(function)
        expected = model(FIRST)
        with track(model, to=None):
            torch.testing.assert_close(model(FIRST), expected, rtol=0, atol=0)


def test_changed_parameters_are_read_again() -> None:
    model = Model(OPERATORS["cond of methods"])
    diagram = trace(model, FIRST)
    model.scale.mul_(3)
    assert torch.equal(diagram(SECOND), model(SECOND))


@pytest.mark.slow
def test_a_function_that_calls_itself() -> None:
    def code(model: Model, x: Tensor) -> Tensor:
        def power(y: Tensor, n: int = 3) -> Tensor:
            return y * power(y, n - 1) if n else y * x.mean()

        return torch.cond(x.sum() > 0, power, model.first, (x,))

    model = Model(code)
    diagram = trace(model, SECOND)
    assert torch.equal(diagram(SECOND), model(SECOND))


class Branch:
    """A callable object that holds a part of the model, and a number."""

    def __init__(self, linear: nn.Linear, factor: float) -> None:
        self.linear, self.factor = linear, factor

    def __call__(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.factor


class Chooses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.branch = Branch(self.linear, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, self.branch, lambda x: x * 2, (x,))


@pytest.mark.every(2)
@pytest.mark.parametrize("is_traced", [True, False])
def test_a_callable_object_as_a_branch_reads_the_present_model(is_traced: bool) -> None:
    torch.manual_seed(0)
    model, x = Chooses(), torch.tensor([1.0, -2.0, 3.0])
    if is_traced:
        diagram = trace(model, x)
    else:
        with track(model, to=None) as seen:
            model(x)
        diagram = seen.diagram
    for _ in range(2):
        for y in (x, -x):
            assert torch.equal(diagram(y), model(y))
        with torch.no_grad():
            model.linear.weight.add_(1.0)
    model.linear.weight = nn.Parameter(torch.ones(3, 3))
    assert torch.equal(diagram(x), model(x))
    model.branch.factor = 3.0
    with pytest.raises(CircuitError, match=r"Chooses.branch.factor as 2.0, and now it is 3.0"):
        diagram(x)
