# This file uses private names of torch.
# pyright: reportPrivateImportUsage=false
"""Custom operators, autograd functions and TorchScript: what they write and which numbers they return is kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import Diagram, trace
from circuits.errors import CircuitError
from tests.recorded import Runs, tracked

FIRST = torch.tensor([[1.0, -2, 3, 4], [2, 3, 4, 5]])
SECOND = -FIRST


@torch.library.custom_op("circuits_tests::add_into", mutates_args=("total", "count"))
def add_into(x: Tensor, total: Tensor, count: Tensor) -> None:
    total.add_(x)
    count.add_(1)


@torch.library.custom_op("circuits_tests::sum_into", mutates_args=("total",))
def sum_into(x: Tensor, total: Tensor) -> Tensor:
    total.add_(x)
    return total.sum()


@sum_into.register_fake
def _(x: Tensor, total: Tensor) -> Tensor:
    return x.new_empty(())


@torch.library.custom_op("circuits_tests::write_all", mutates_args=("parts",))
def write_all(parts: list[Tensor]) -> None:
    for part in parts:
        part.mul_(3)


def adds_into(x: Tensor) -> Any:
    total, count = torch.zeros_like(x), torch.zeros(1)
    before = total * 2
    add_into(x, total, count=count)
    torch.ops.circuits_tests.add_into(x, total, count=count)
    return before, total * 2, count


def sums_into(x: Tensor) -> Any:
    total = x.clone()
    return sum_into(x, total), total


def writes_all(x: Tensor) -> Any:
    parts = [x.clone(), x * 2]
    write_all(parts)
    torch._foreach_add_(parts, 1.0)
    torch.ops.aten._foreach_mul_.Scalar(parts, 2.0)
    return parts[0] + 1, parts[1]


@pytest.mark.parametrize("function", [adds_into, sums_into, writes_all])
@pytest.mark.parametrize("record", [lambda model: trace(model, FIRST), lambda model: tracked(model, FIRST)])
def test_an_operator_writes_to_its_arguments(
    function: Callable[[Tensor], Any], record: Callable[[nn.Module], Diagram]
) -> None:
    diagram = record(Runs(function))
    for given in (FIRST, SECOND):
        torch.testing.assert_close(diagram(given), function(given), rtol=0, atol=0)
        torch.testing.assert_close(diagram.function()(given), function(given), rtol=0, atol=0)


def test_what_an_operator_overwrites() -> None:
    diagram = tracked(Runs(adds_into), FIRST)
    first, second = [box for box in diagram.walk() if "add_into" in box.label]
    assert first.mutates == tuple(value.number for value in first.inputs[1:])
    assert second.mutates == tuple(value.number for value in first.outputs)


class DoubleAndSum(torch.autograd.Function):
    """Returns a tensor, a number that it reads from data, and an argument that is no tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Any:
        return x * 2, int(x.sum()), factor


def test_a_number_that_an_autograd_function_returns() -> None:
    diagram = tracked(Runs(lambda x: torch.mul(*DoubleAndSum.apply(x, 3)[:2])), FIRST)
    assert torch.equal(diagram(FIRST.flip(0)), FIRST.flip(0) * 40)
    for run in (diagram, diagram.function()):
        with pytest.raises(CircuitError, match=rf"DoubleAndSum at {__file__}:\d+ returned the numbers \(20, 3\)"):
            run(SECOND)


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)

    @torch.jit.export
    def branch(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return self.linear(x)
        return x - 1


class Calls(nn.Module):
    """Calls another method than `forward` of a scripted module."""

    def __init__(self) -> None:
        super().__init__()
        self.scripted: Any = torch.jit.script(Scripted())

    def forward(self, x: Tensor) -> Tensor:
        return self.scripted.branch(x) + self.scripted(x)


def test_a_method_of_a_scripted_module() -> None:
    model = Calls().requires_grad_(False)
    diagram = tracked(model, FIRST)
    model.scripted.linear.weight.mul_(2)
    for given in (FIRST, SECOND):
        assert torch.equal(diagram(given), model(given))
