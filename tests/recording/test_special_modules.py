# To pyright a submodule or a buffer is a Tensor or a Module.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
"""Modules that are not plain Python: TorchScript modules are closed boxes, lazy modules are initialized as usual."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, backward, forward_backward, trace, track

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Pair(nn.Module):
    """A module that returns a dict of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"same": x, "other": self.linear(x)}


class Whole(nn.Module):
    """A module that calls another one between operations of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(4, 4), inner

    def forward(self, x: Tensor) -> Tensor:
        result = self.inner(self.first(x))
        return (result["same"] + result["other"] if isinstance(result, dict) else result).cos()


SCRIPTS: dict[str, Callable[[], Any]] = {
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU())),
    "traced": lambda: torch.jit.trace(nn.Linear(4, 4), torch.rand(2, 4)),
    "nested result": lambda: torch.jit.script(Pair()),
    "in an operation": lambda: Whole(torch.jit.script(nn.Linear(4, 4))),
}


@pytest.mark.every(3)
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("as_root", [True, False], ids=["root", "part"])
def test_a_torchscript_module_is_a_closed_box(name: str, as_root: bool) -> None:
    torch.manual_seed(0)
    script = SCRIPTS[name]()
    target = script if as_root else Whole(script)
    x, other = torch.rand(2, 4), torch.rand(2, 4)
    expected = target(x)
    with track(target, to=None) as seen:
        found = target(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for diagram in (seen.diagram, trace(target, x)):
        torch.testing.assert_close(diagram(other), target(other), rtol=0, atol=0)
        assert diagram.box.parameter_count == sum(each.numel() for each in target.parameters())
    free = trace(target, axes="b 4")
    torch.testing.assert_close(free(torch.ones(5, 4)), target(torch.ones(5, 4)), rtol=0, atol=0)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("differentiate", [backward, forward_backward])
def test_the_gradient_of_a_torchscript_module_is_refused(name: str, differentiate: Any) -> None:
    script = SCRIPTS[name]()
    for target in (script, Whole(script)):
        with pytest.raises(CircuitError, match="the operations inside a TorchScript module"):
            differentiate(trace(target, torch.rand(2, 4)))


LAZY: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.LazyLinear(3), nn.ReLU()),
    "norm": lambda: nn.Sequential(nn.LazyBatchNorm1d(), nn.ReLU()),
    "several": lambda: nn.Sequential(nn.Linear(4, 2), nn.LazyLinear(3), nn.Sequential(nn.ReLU(), nn.LazyLinear(1))),
    "root": lambda: nn.LazyLinear(3),
}


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("printed", [True, False])
def test_lazy_modules_are_initialized_in_a_tracked_run(name: str, printed: bool, caplog: Any) -> None:
    x, lines = torch.rand(2, 4), []
    torch.manual_seed(0)
    plain = LAZY[name]()
    expected = plain(x)
    torch.manual_seed(0)
    model = LAZY[name]()
    with track(model, to=lines.append if printed else None) as seen:
        assert torch.equal(model(x), expected)
        model(x)
    assert not caplog.records
    assert bool(lines) == printed
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }
    for diagram in seen:
        assert diagram.box.parameter_count == sum(each.numel() for each in model.parameters())
        assert torch.equal(diagram(x), expected)
        assert "Lazy" not in str(diagram.box.boxes)
    assert str(trace(model, x)).count("params") == str(seen[-1]).count("params")


@pytest.mark.parametrize("name", LAZY)
def test_trace_refuses_parameters_without_sizes(name: str) -> None:
    model = LAZY[name]()
    for target in (model, model.forward):
        with pytest.raises(CircuitError, match=r"parameters without sizes \(.*Lazy.*call it once on tensors"):
            trace(target, torch.rand(2, 4))


def test_an_error_of_a_lazy_module_is_that_of_the_run_without_a_recording() -> None:
    for target in (nn.LazyConv1d(2, 1), nn.Sequential(nn.LazyConv1d(2, 1))):
        with pytest.raises(RuntimeError) as plain:
            target(torch.rand(2))
        with pytest.raises(RuntimeError) as caught, track(target, to=None):
            target(torch.rand(2))
        assert str(caught.value) == str(plain.value)
