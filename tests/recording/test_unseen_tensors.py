# pyright: reportArgumentType=false, reportCallIssue=false
"""Tensors that reach a run without a torch function: by constructors, copies, numpy, TorchScript and C++."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Variable

from circuits import CircuitError, backward, trace, track


class Runs(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _diagrams(function: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Any]:
    """Return the traced and the tracked diagram of a function."""
    model = Runs(function)
    with track(model, to=None) as seen:
        model(x.clone())
    return {"trace": trace(function, x), "track": seen.diagram}


def _writes_to_a_copy(x: Tensor) -> Tensor:
    copied = copy.deepcopy(x)
    shared = Variable(x)
    x = x + 1
    copied.add_(1)
    shared.mul_(3)
    return copied * x + shared


def _same_copy_twice(x: Tensor) -> Tensor:
    first, second = copy.deepcopy([x, x])
    return first.mul_(2) + second


SCRIPTED = torch.jit.trace(lambda x: x * 2, torch.ones(3))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Variable": lambda x: Variable(x) * 2,
    "Tensor of a tensor": lambda x: torch.Tensor(x) * 2,
    "FloatTensor of numbers": lambda x: torch.FloatTensor([1, 2, 3]) * x,
    "Tensor of numbers": lambda x: torch.Tensor([1, 2, 3]) * x,
    "from_numpy": lambda x: torch.from_numpy(np.arange(3, dtype="float32")) * x,
    "deepcopy": lambda x: copy.deepcopy(x) * 2,
    "deepcopy in containers": _same_copy_twice,
    "writes to a copy": _writes_to_a_copy,
    "nn.Parameter": lambda x: nn.Parameter(x.detach()) * 2,
    "data": lambda x: x.data.mul(2),
    "TorchScript": lambda x: SCRIPTED(x) + 1,
}
"""Each is recorded by trace and by track, and its diagram computes the same at other numbers, also a second time."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_diagram_computes_such_tensors_for_the_new_data(name: str) -> None:
    function = FUNCTIONS[name]
    for kind, diagram in _diagrams(function, torch.ones(3)).items():
        if kind == "track" and "of numbers" in name:
            assert "which is not recorded" in diagram.refusal
            continue
        for run in (diagram, diagram.function()):
            for z in (torch.tensor([1.0, 5.0, 7.0]), torch.zeros(3)):
                assert torch.equal(run(z.clone()), function(z.clone())), (kind, run)


def test_a_shallow_copy_is_tracked_and_under_trace_refused() -> None:
    diagrams = _diagrams(lambda x: copy.copy(x) * 2, torch.ones(3))
    assert torch.equal(diagrams["track"](torch.arange(3.0)), 2 * torch.arange(3.0))
    assert "unrecorded code made" in str(diagrams["trace"])
    with pytest.raises(CircuitError, match=r"mul at .*test_unseen_tensors.py:\d+ reads a tensor that code made"):
        diagrams["trace"](torch.ones(3))


@pytest.mark.slow
def test_memory_of_a_traced_tensor_is_given_to_no_other_code() -> None:
    """Torch itself would read it, and the process would end."""
    with pytest.raises(CircuitError, match=r"needs a value that depends on data: `.*from_dlpack"):
        trace(lambda x: torch.from_dlpack(x * 2) + 1, torch.ones(3))


def _accumulates(x: Tensor) -> Tensor:
    total = torch.FloatTensor([0, 0, 0])
    total += x
    return total


def _in_another_process(x: Tensor) -> Tensor:
    return pickle.loads(pickle.dumps(x.detach())) * 2


@pytest.mark.parametrize("function", [_accumulates, lambda x: Variable(x * 1).add_(x), _in_another_process])
def test_a_tracked_run_with_a_tensor_of_unknown_origin_is_refused(function: Any) -> None:
    """Under track nothing tells whether the inputs have a say in such a tensor."""
    model = Runs(function)
    with track(model, to=None) as seen:
        model(torch.ones(3))
    assert "unrecorded code made" in str(seen.diagram)
    for use in (lambda d: d(torch.ones(3)), lambda d: d.function(), backward):
        with pytest.raises(CircuitError, match="reads a tensor that code made during the run which is not recorded"):
            use(seen.diagram)


def test_a_new_tensor_is_new_at_each_run_of_a_traced_diagram() -> None:
    diagram = trace(_accumulates, torch.ones(3))
    for _ in range(2):
        assert torch.equal(diagram(torch.arange(3.0)), torch.arange(3.0))


def test_constants_that_existed_before_the_run_stay_constants() -> None:
    table = torch.FloatTensor([1, 2, 3])
    diagrams = _diagrams(lambda x: table * x, torch.ones(3))
    table.add_(1)
    for diagram in diagrams.values():
        assert torch.equal(diagram(torch.full((3,), 2.0)), 2 * table)


@pytest.mark.slow
def test_a_torchscript_function_is_one_box_with_a_gradient() -> None:
    diagram = trace(lambda x: SCRIPTED(x).sum(), torch.ones(3))
    assert len(diagram.boxes) == 2
    reverse = backward(diagram)
    assert torch.equal(reverse(torch.ones(3), torch.ones(()))["x"], torch.full((3,), 2.0))
