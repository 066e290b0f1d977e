# Attributes of modules are Tensor or Module to pyright.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
"""The names of parameters and buffers in a diagram: those of `named_parameters`, whatever code reads the tensor."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from circuits import backward, trace
from tests.conftest import Agreement


class Head(nn.Module):
    """The bias of the inner layer is the bias of the head, as in BERT; only the layer reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(4))
        self.decoder = nn.Linear(3, 4)
        self.decoder.bias = self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x)


class Shared(nn.Module):
    """Two layers with one embedding, as in T5: the module that has it first is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(3, 3, bias=False)
        self.parts = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
        for part in self.parts:
            part.weight = self.shared.weight

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x).tanh()
        return x


class Later(nn.Module):
    """The first name belongs to the layer that is called last."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 3)
        self.first = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.first[0].weight = self.last.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


class Mean(nn.Module):
    """A buffer that two layers have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(3))
        self.norm = nn.BatchNorm1d(3)
        self.norm.running_mean = self.mean

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


TIED: list[Callable[[], nn.Module]] = [Head, Shared, Later, Mean]


@pytest.mark.parametrize("make", TIED)
def test_a_tied_tensor_has_the_first_of_its_names(make: Callable[[], nn.Module], agree: Agreement) -> None:
    model, x = make().eval(), torch.randn(2, 3)
    diagram = agree(model, x)
    assert {each.name for each in diagram.parameters} == {name for name, _ in model.named_parameters()}
    buffers = {each.name for box in diagram.walk() for each in box.inputs if each.role == "buffer"}
    assert buffers <= {name for name, _ in model.named_buffers()}


@pytest.mark.parametrize("make", TIED)
def test_gradients_of_tied_parameters_have_the_names_that_optimizers_use(make: Callable[[], nn.Module]) -> None:
    model, x = make().eval(), torch.randn(2, 3)
    y = model(x)
    back = torch.randn_like(y)
    found = backward(model, x)(x, back)
    assert set(found) == {"x", *[name for name, _ in model.named_parameters()]}
    y.backward(back)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


@pytest.mark.parametrize("make", TIED)
def test_a_tied_tensor_is_replaced_by_its_first_name(make: Callable[[], nn.Module]) -> None:
    """As by `torch.func.functional_call`."""
    model, x = make().eval(), torch.randn(2, 3)
    others = {name: torch.rand_like(each) for name, each in (*model.named_parameters(), *model.named_buffers())
              if each.is_floating_point()}  # fmt: skip
    wanted = torch.func.functional_call(model, others, x)
    torch.testing.assert_close(trace(model, x).run((x,), {}, others), wanted)


def test_two_modules_of_a_function_that_share_a_weight() -> None:
    """The weight has its name in the module that is called first."""
    one, other = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3))
    other[0].weight = one.weight
    diagram = trace(lambda x: other(one(x)), torch.randn(2, 3))
    assert [each.name for each in diagram.parameters] == ["Linear.weight", "Linear.bias", "Sequential.0.bias"]
    x = torch.randn(2, 3)
    torch.testing.assert_close(diagram(x), other(one(x)))


def test_a_tensor_that_a_module_gets_in_the_run_is_named_by_its_place() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor) -> Tensor:
            self.register_buffer("table", torch.arange(3.0), persistent=False)
            return x * self.scale + self.table

    model, x = Cached(), torch.randn(2, 3)
    torch.testing.assert_close(trace(model, x)(x), x * model.scale + torch.arange(3.0))
