"""Hooks on gradients: a diagram registers them again, so that autograd calls them; backward circuits refuse them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, Diagram, backward, forward_backward, trace, track


class Hooked(nn.Module):
    """A layer whose output has ten times its gradient."""

    def __init__(self, hook: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.hook = hook or (lambda gradient: gradient * 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        y.register_hook(self.hook)
        return y.sin()


class SavesDoubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved * 2, lambda saved: saved):
            y = self.layer(x).exp()
        return y.sin()


class SavesInnermost(SavesDoubled):
    """Of two nested pairs of hooks autograd uses the inner one, then the outer one again."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved * 3, lambda saved: saved):
            y = super().forward(x)
            return self.layer(y).exp()


def with_module_hook(register: Callable[..., Any], hook: Callable[..., Any]) -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    register(model[1], hook)
    return model


def with_parameter_hook() -> nn.Module:
    model = nn.Linear(3, 3)
    model.weight.register_hook(lambda gradient: gradient * 7)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "of a tensor": (Hooked, r"register_hook at .*test_gradient_hooks.py:\d+ registers a hook"),
    "of a module": (
        lambda: with_module_hook(nn.Module.register_full_backward_hook, lambda _, gradients, __: (gradients[0] * 5,)),
        "ReLU has backward hooks",
    ),
    "before a module": (
        lambda: with_module_hook(nn.Module.register_full_backward_pre_hook, lambda _, gradients: (gradients[0] * 5,)),
        "ReLU has backward hooks",
    ),
    "of a parameter": (with_parameter_hook, "weight has a hook on its gradient"),
    "of saved tensors": (SavesDoubled, r"linear at .*:\d+ runs under torch.autograd.graph.saved_tensors_hooks"),
    "of saved tensors, nested": (SavesInnermost, r"linear at .*:\d+ runs under torch.autograd.graph.saved_tensors"),
}


def gradients(run: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(run(x).sum(), [x, *model.parameters()])


def diagrams(model: nn.Module, x: Tensor) -> list[Diagram]:
    with track(model, to=None) as seen:
        model(x.clone().requires_grad_())
    return [trace(model, x), seen.diagram]


@pytest.mark.parametrize("name", MODELS)
def test_autograd_calls_the_hooks_of_a_model_through_its_diagram(name: str) -> None:
    model, x = MODELS[name][0](), torch.rand(2, 3)
    expected = gradients(model, model, x)
    for diagram in diagrams(model, x):
        for run in (diagram, diagram.function()):
            torch.testing.assert_close(gradients(run, model, x), expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_backward_circuit_refuses_hooks(name: str) -> None:
    make, reason = MODELS[name]
    for circuit in (backward, forward_backward):
        with pytest.raises(CircuitError, match=reason):
            circuit(make(), torch.rand(2, 3))


def test_a_hook_that_may_hold_values_of_the_run_is_not_registered_again() -> None:
    factor = torch.tensor(3.0)
    model, x = Hooked(lambda gradient: gradient * factor), torch.rand(2, 3)
    for diagram in diagrams(model, x):
        with pytest.raises(CircuitError, match=r"gave autograd the hook .*<lambda>, which may hold values of that run"):
            diagram(x)
        with torch.no_grad():
            torch.testing.assert_close(diagram(x), model.layer(x).sin())


def test_hooks_of_saved_tensors_that_may_hold_values_of_the_run() -> None:
    factor = torch.tensor(3.0)

    def run(x: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved * factor, lambda saved: saved):
            return x.exp()

    diagram, x = trace(run, torch.rand(3)), torch.rand(3)
    with pytest.raises(CircuitError, match=r"gave autograd the hook .*<lambda>, which may hold values of that run"):
        diagram(x)
    with torch.no_grad():
        torch.testing.assert_close(diagram(x), x.exp())


def test_a_computed_value_is_no_leaf_where_gradients_flow() -> None:
    def of_input(x: Tensor) -> Tensor:
        return (x * 2).sin() if x.is_leaf else (x * 2).cos()

    def of_product(x: Tensor) -> Tensor:
        y = x * 2
        return y.sin() if y.is_leaf else y.cos()

    x, leaf = torch.ones(2), torch.ones(2, requires_grad=True)
    with pytest.raises(CircuitError, match=r"read is_leaf at .*:\d+ as True, but it is another where gradients flow"):
        backward(of_product, x)
    for run in (of_input, of_product):
        (expected,) = torch.autograd.grad(run(leaf).sum(), leaf)
        torch.testing.assert_close(backward(run, leaf)(x, torch.ones(2))["x"], expected)


def test_an_input_of_a_gradient_is_a_leaf_as_in_the_recorded_run() -> None:
    leaf = torch.ones(2, requires_grad=True)
    with_leaf = backward(lambda x: x * 2 if x.is_leaf else x * 3, leaf)
    assert torch.equal(with_leaf(leaf, torch.ones(2))["x"], torch.full((2,), 2.0))
    assert torch.equal(with_leaf(torch.ones(2), torch.ones(2))["x"], torch.full((2,), 2.0))
    for other in (leaf * 1, leaf.sin(), leaf[:]):
        with pytest.raises(CircuitError, match=r"read is_leaf at .*:\d+ as True, and now it is False"):
            with_leaf(other, torch.ones(2))


def test_a_hook_that_is_registered_only_where_gradients_flow_is_noticed() -> None:
    def run(x: Tensor) -> Tensor:
        y = x * 2
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient * 10)
        return y

    def run_around_a_transform(x: Tensor) -> Tensor:
        y = run(x)
        return y + torch.func.grad(lambda t: (t * t).sum())(y)

    x = torch.ones(2)
    with pytest.raises(CircuitError, match=r"read requires_grad at .*:\d+ as False, but it is another where gradients"):
        backward(run_around_a_transform, x)
    with pytest.raises(CircuitError, match=r"read requires_grad at .*:\d+ as False, but it is another where gradients"):
        backward(run, x)
    with pytest.raises(CircuitError, match="registers a hook on a gradient"):
        backward(run, x.clone().requires_grad_())
    diagram = trace(run, x.clone().requires_grad_())
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(diagram(x).sum(), x)
    assert torch.equal(found, torch.full((2,), 20.0))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.requires_grad,
        lambda x: (x * 1).requires_grad,
        lambda x: (x * 1).grad_fn is not None,
        lambda x: x.is_leaf,
        lambda _: torch.is_grad_enabled(),
    ],
)
def test_a_backward_circuit_needs_no_gradients_of_autograd(read: Callable[[Tensor], bool]) -> None:
    """It computes them itself, so it runs where the code would read that there are none."""
    circuit = backward(lambda x: x * 2 if read(x) else x * 3, torch.ones(2, requires_grad=True))
    with torch.no_grad():
        assert torch.equal(circuit(torch.ones(2), torch.ones(2))["x"], torch.full((2,), 2.0))


@pytest.mark.parametrize("read", [lambda y: y.grad_fn is None, lambda _: not torch.is_grad_enabled()])
def test_a_branch_without_gradients_is_not_differentiated(read: Callable[[Tensor], bool]) -> None:
    with torch.no_grad(), pytest.raises(CircuitError, match="another where gradients flow"):
        backward(lambda x: x * 2 if read(x * 1) else x * 3, torch.ones(2))


def test_hooks_after_accumulation_change_no_gradient() -> None:
    """They change `.grad`, which neither `torch.autograd.grad` nor a backward circuit sets."""
    model, x = nn.Linear(3, 3), torch.rand(2, 3)
    model.weight.register_post_accumulate_grad_hook(lambda weight: weight.grad.mul_(7) and None)
    expected = gradients(model, model, x)
    found = backward(model, x)(x, torch.ones(2, 3))
    torch.testing.assert_close(tuple(found.values()), expected)


def test_a_retained_gradient_changes_no_gradient() -> None:
    def run(x: Tensor) -> Tensor:
        y = x.sin()
        y.retain_grad()
        return y.exp()

    x = torch.rand(3, requires_grad=True)
    (expected,) = torch.autograd.grad(run(x).sum(), x)
    found = backward(run, x)(x.detach(), torch.ones(3))
    torch.testing.assert_close(found["x"], expected)
