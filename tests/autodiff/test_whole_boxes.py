"""Backward circuits of code that calls `torch.func`: it runs as a whole, several times, while the circuit is made."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, backward, circuit


def mapped(x: Tensor) -> Tensor:
    return torch.vmap(lambda row: row.sin())(x)


class Counts(nn.Module):
    """Counts its calls, keeps what it saw, and moves a mean, beside a transform."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))
        self.register_buffer("mean", torch.zeros(4))
        self.calls, self.seen = 1, {"sizes": [2]}
        self.generators = [torch.Generator().manual_seed(5)]

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen["sizes"].append(self.calls)
        self.mean = self.mean * 0.5 + x.detach().mean(0)
        x = x + torch.rand(4, generator=self.generators[0])
        return mapped(x) * self.weight * self.calls + self.mean * len(self.seen["sizes"])


def test_code_that_counts_its_calls_is_run_from_one_state() -> None:
    model, x = Counts().double(), torch.randn(3, 4, dtype=torch.float64)
    alone = copy.deepcopy(model)
    before = (model.calls, str(model.seen), model.mean)
    gradient = backward(model, x)
    assert (model.calls, str(model.seen), model.mean) == before
    given = x.clone().requires_grad_()
    expected = torch.autograd.grad(alone(given).sum(), [given, alone.weight])
    found = gradient(x, torch.ones_like(x))
    for name, tensor in zip(("x", "weight"), expected, strict=True):
        torch.testing.assert_close(found[name], tensor)


def test_a_function_that_counts_its_calls_leaves_the_count_of_the_user() -> None:
    count = {"calls": 1}

    def counting(x: Tensor) -> Tensor:
        count["calls"] += 1
        return mapped(x) * count["calls"]

    found = backward(counting, torch.zeros(2, 3))
    assert count == {"calls": 1}
    torch.testing.assert_close(found(torch.zeros(2, 3), torch.ones(2, 3))["x"], torch.full((2, 3), 2.0))


def seeded(x: Tensor) -> Tensor:
    torch.manual_seed(3)
    return mapped(x + torch.rand(4))


def restored(x: Tensor) -> Tensor:
    state = torch.get_rng_state()
    x = x + torch.rand(4)
    torch.set_rng_state(state)
    return mapped(x + torch.rand(4))


def forked(x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        return seeded(x)


def seeded_inside(x: Tensor) -> Tensor:
    return torch.vmap(lambda row: seeded(row[None]), randomness="same")(x)


def hooked(x: Tensor) -> Tensor:
    x = x * 2
    x.register_hook(lambda gradient: gradient * 10)
    return mapped(x)


def saved_doubled(x: Tensor) -> Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved * 2, lambda saved: saved):
        x = x.exp()
    return mapped(x)


HOOKED = nn.Linear(4, 4)
HOOKED.register_full_backward_hook(lambda module, before, after: (before[0] * 5,))


def with_hooked_module(x: Tensor) -> Tensor:
    return mapped(HOOKED(x))


def read(x: Tensor) -> Tensor:
    return mapped(x) * torch.tensor(x[0].tolist())


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (seeded, "manual_seed at .* sets the state of the random numbers in seeded"),
        (restored, "set_rng_state at .* sets the state of the random numbers in restored"),
        (forked, "sets the state of the random numbers in forked"),
        (seeded_inside, "manual_seed at .* sets the state of the random numbers in seeded_inside"),
        (hooked, "register_hook at .* registers a hook on a gradient"),
        (saved_doubled, "exp at .* runs under torch.autograd.graph.saved_tensors_hooks"),
        (with_hooked_module, "Linear has backward hooks"),
        (read, "reads a number of data"),
    ],
)
def test_what_the_operations_on_tensors_do_not_include_is_refused(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(CircuitError, match=reason):
        backward(function, torch.randn(3, 4).requires_grad_())


@circuit("a b -> a b")
def mapped_alone(x: Tensor) -> Tensor:
    return mapped(x)


def test_with_the_transform_in_a_circuit_of_its_own_it_is_not() -> None:
    def function(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return mapped_alone(x + torch.rand(4)) * torch.tensor(x[0].tolist())

    gradient = backward(function, torch.randn(3, 4))
    for _ in range(2):
        x = torch.randn(3, 4).requires_grad_()
        (expected,) = torch.autograd.grad(function(x).sum(), x)
        torch.testing.assert_close(gradient(x.detach(), torch.ones(3, 4))["x"], expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: mapped(x) * copy.deepcopy(x.detach()),
        lambda x: mapped(x) + torch.add(x.detach(), 1, out=torch.empty_like(x)),
    ],
)
def test_copies_and_outputs_given_by_the_code(function: Callable[..., Any]) -> None:
    gradient = backward(function, torch.randn(3, 4))
    x = torch.randn(3, 4).requires_grad_()
    (expected,) = torch.autograd.grad(function(x).sum(), x)
    torch.testing.assert_close(gradient(x.detach(), torch.ones(3, 4))["x"], expected)
