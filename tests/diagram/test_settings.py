"""Settings of torch that the code of a run changes: each call runs under them again, and nothing else does.

A diagram that is recorded in one gradient mode computes in every other what the original computes there, or refuses.
"""

# For pyright, an inner module is a Tensor or a Module.
# pyright: reportCallIssue=false
import contextlib
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from circuits import CircuitError, Diagram, backward, trace, track
from tests.process_state import differences, process_state

MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "as it is": nullcontext,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


class Runs(nn.Module):
    """A linear layer, and a function that computes the output with it."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.layer, x)


def force(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return -torch.autograd.grad(layer(x).sin().sum(), x)[0]


def one_step(layer: nn.Module, x: Tensor) -> Tensor:
    """x after a step against its own gradient."""
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        layer(y).sin().sum().backward()
    assert y.grad is not None
    return x - y.grad


@torch.no_grad()
def quiet(layer: nn.Module, x: Tensor) -> Tensor:
    y = layer(x)
    with torch.enable_grad():
        return y + layer(x)


def quiet_from_here(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.set_grad_enabled(False):
        y = layer(x)
    return layer(x) + y


def partly_quiet(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        mean = layer(x).mean(-1, keepdim=True)
    return layer(x) - mean


def in_inference_mode(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return layer(x)


def mean_in_inference_mode(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        mean = x.mean(-1, keepdim=True)
    return layer(x) - mean.clone()


def without_autocast(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        y = layer(x)
    return y @ layer(x).mT.to(y.dtype)


def transform(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        rows = torch.vmap(torch.func.grad(lambda row: layer(row).sin().sum()))(x)
    return layer(x) * rows


def transform_in_autocast(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.vmap(lambda row: layer(row))(x)


def recomputed(layer: nn.Module, x: Tensor) -> Tensor:
    found = checkpoint(lambda each: layer(each).sin(), x, use_reentrant=False)
    assert isinstance(found, Tensor)
    return found


def default_dtype(layer: nn.Module, x: Tensor) -> Tensor:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    weights = torch.zeros(3) + torch.ones(3)
    torch.set_default_dtype(before)
    return layer(x) * weights * torch.ones(3)


def default_device(layer: nn.Module, x: Tensor) -> Tensor:
    torch.set_default_device("meta")
    shape = torch.ones(3)
    torch.set_default_device(None)
    with torch.device("meta"):
        other = torch.ones(3)
    return layer(x) * len(shape) * torch.ones(3) * len(other)


RUNS = [force, one_step, quiet, quiet_from_here, partly_quiet, in_inference_mode, mean_in_inference_mode,
        without_autocast, transform, transform_in_autocast, recomputed, default_dtype, default_device]  # fmt: skip


def diagrams(model: nn.Module, x: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """The diagram of a trace and that of a tracked run, each with the Python function of it."""
    with track(model, to=None) as seen:
        model(x)
    both = [trace(model, x), seen.diagram]
    return [*both, *[diagram.function() for diagram in both]]


@pytest.mark.every(4, 2)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    "recorded", [pytest.param(name, marks=[pytest.mark.slow] * (name == "autocast")) for name in MODES]
)
def test_a_diagram_computes_in_every_mode_what_the_model_computes_there(recorded: str, run: Any) -> None:
    model, x = Runs(run), torch.rand(2, 3)
    if run in (force, one_step) and recorded == "inference_mode":
        return  # The model itself cannot run.
    with MODES[recorded]():
        found = diagrams(model, x)
    for mode in ["autocast"] if recorded == "autocast" else MODES:
        if run in (force, one_step) and mode == "inference_mode":
            continue
        with MODES[mode]():
            expected = model(x)
            for each in found:
                output = each(x)
                torch.testing.assert_close(output, expected)
                assert (output.requires_grad, output.is_inference()) == (
                    expected.requires_grad,
                    expected.is_inference(),
                )
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    "run", [quiet, quiet_from_here, mean_in_inference_mode, transform, recomputed, default_dtype, default_device]
)
def test_the_gradient_is_that_of_autograd(run: Any) -> None:
    model, x = Runs(run), torch.rand(2, 3, requires_grad=True)
    output = model(x)
    expected = torch.autograd.grad(output, [x, *model.parameters()], torch.ones_like(output), allow_unused=True)
    found = backward(model, x.detach())(x.detach(), torch.ones_like(output))
    for name, each in zip(("x", "layer.weight", "layer.bias"), expected, strict=True):
        torch.testing.assert_close(found[name], torch.zeros_like(found[name]) if each is None else each)


@pytest.mark.parametrize("run", [force, one_step])
def test_autograd_inside_a_run_is_not_differentiated_again(run: Any) -> None:
    with pytest.raises(
        CircuitError, match=r"(grad|backward) at .*test_settings.py:\d+ takes a gradient inside the run"
    ):
        backward(Runs(run), torch.rand(2, 3))


def test_a_default_device_that_the_code_unsets() -> None:
    def run(x: Tensor) -> Tensor:
        torch.set_default_device(None)
        ones = torch.ones(3)
        torch.set_default_device("meta")
        return x + ones

    x = torch.rand(3)
    torch.set_default_device("meta")
    try:
        diagram = trace(run, x)
        assert torch.equal(diagram(x), x + torch.ones(3, device="cpu"))
        assert torch.get_default_device() == torch.device("meta")
    finally:
        torch.set_default_device(None)
    assert torch.equal(diagram(x), x + 1)


# Modes that the code reads --------------------------------------------------------------------------------------------


READS: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "is_grad_enabled": (lambda layer, x: layer(x) if torch.is_grad_enabled() else x, "no_grad"),
    "is_inference_mode_enabled": (lambda _, x: x if torch.is_inference_mode_enabled() else x * 2, "inference_mode"),
    "is_autocast_enabled": (lambda layer, x: layer(x) if torch.is_autocast_enabled("cpu") else x, "autocast"),
}


@pytest.mark.parametrize("name", READS)
def test_a_mode_that_the_code_read_is_compared(name: str) -> None:
    run, other = READS[name]
    model, x = Runs(run), torch.rand(2, 3)
    for diagram in diagrams(model, x):
        assert torch.equal(diagram(x), model(x))
        with MODES[other](), pytest.raises(CircuitError, match=rf"read {name} at .*test_settings.py:\d+ as"):
            diagram(x)


def test_the_default_dtype_that_the_code_read_is_compared() -> None:
    diagram = trace(lambda x: x + torch.ones(3, dtype=torch.get_default_dtype()), torch.ones(3))
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(CircuitError, match="read get_default_dtype"):
            diagram(torch.ones(3))
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_mode_that_the_code_has_set_itself_is_not_compared() -> None:
    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        return x * 2 if torch.is_grad_enabled() else x * 3

    @torch.autocast("cpu", dtype=torch.bfloat16)
    def run_in_autocast(x: Tensor) -> Tensor:
        return x * 3 if torch.is_autocast_enabled("cpu") else x * 2

    for function in (run, run_in_autocast):
        diagram = trace(function, torch.ones(3))
        for mode in ("as it is", "no_grad", "autocast"):
            with MODES[mode]():
                assert torch.equal(diagram(torch.ones(3)), torch.full((3,), 3.0))


# Random numbers ------------------------------------------------------------------------------------------------------


def seeded(_: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(3)
    return x + torch.rand(3)


def forked(_: nn.Module, x: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        noise = torch.rand(3)
    return x + noise + torch.rand(3)


def the_same_twice(_: nn.Module, x: Tensor) -> Tensor:
    state = torch.get_rng_state()
    first = torch.rand(3)
    torch.set_rng_state(state)
    return x * first + torch.rand(3)


def dropped(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.dropout(layer(x), 0.5, True) + torch.randn(3)


@pytest.mark.parametrize("run", [seeded, forked, the_same_twice, dropped])
def test_random_numbers_are_those_of_the_model(run: Any) -> None:
    model, x = Runs(run), torch.rand(2, 3)
    for diagram in diagrams(model, x):
        torch.manual_seed(1)
        expected, after = model(x), torch.get_rng_state()
        torch.manual_seed(1)
        assert torch.equal(diagram(x), expected)
        assert torch.equal(torch.get_rng_state(), after)


# What is left behind -------------------------------------------------------------------------------------------------


def leaves_a_dtype(_: nn.Module, x: Tensor) -> Tensor:
    torch.set_default_dtype(torch.float64)
    return x + torch.ones(3)


def leaves_a_device(layer: nn.Module, x: Tensor) -> Tensor:
    torch.set_default_device("meta")
    return layer(x)


def leaves_gradients_off(layer: nn.Module, x: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    return layer(x)


@pytest.mark.parametrize(
    ("run", "setting"),
    [
        (leaves_a_dtype, "the default dtype"),
        (leaves_a_device, "the default device"),
        (leaves_gradients_off, "the gradient mode"),
    ],
)
def test_a_run_that_leaves_a_setting_changed_is_not_run_again(run: Any, setting: str) -> None:
    found: list[Diagram] = []
    model, x = Runs(run), torch.rand(2, 3)
    try:
        state = process_state()
        found.append(trace(model, x))
        assert not differences(state, process_state())
        with track(model, to=None) as seen:
            model(x)
        found.append(seen.diagram)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
    for diagram in found:
        with pytest.raises(CircuitError, match=f"changes {setting} for the code after it"):
            diagram(x)


def refused_backward(run: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CircuitError, match="the run draws random numbers from Python's random"):
        backward(run, torch.ones(3))


@pytest.mark.parametrize("record", [lambda run: trace(run, torch.ones(3)), refused_backward])
def test_a_trace_draws_no_numbers_of_the_process(record: Callable[[Any], Any]) -> None:
    def run(x: Tensor) -> Tensor:
        torch.manual_seed(7)
        return x * random.random() * np.random.rand() * torch.rand(())

    def numbers() -> tuple[Any, ...]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = numbers()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    with contextlib.suppress(CircuitError):  # The gradient is refused.
        record(run)
    assert numbers() == expected
