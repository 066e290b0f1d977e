"""Gradients by parameters that the box of their own module does not read: a transform or another module reads them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import backward, forward_backward, simplify, trace


class Ensemble(nn.Module):
    """Five linear maps at once: the weight is mapped by vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 3))
        self.bias = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(F.linear, (None, 0, None))(x, self.weight, self.bias)


class Mixture(nn.Module):
    """An ensemble as a submodule, whose weight is mapped twice and read once more as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.ensemble = Ensemble()
        self.last = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.ensemble.weight
        squares = torch.vmap(torch.vmap(lambda row, y: row.sin() * y, (0, None)), (0, None))(weight, x.sum(0))
        return self.last(self.ensemble(x)).sum(1) + squares.sum((1, 2)).unsqueeze(-1) + weight.sum()


class Decoder(nn.Module):
    """A module whose submodule is called by the module around it only."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


class ReadsInside(nn.Module):
    """`order` is whether the submodule of the decoder is called before the decoder, after it, or both."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> Tensor:
        x = self.decoder.positions(x) if self.order != "after" else x
        x = self.decoder(x)
        return self.decoder.positions(x) if self.order != "before" else x


MODULES: dict[str, Callable[[], nn.Module]] = {
    "mapped": Ensemble,
    "mapped in a submodule, and read": Mixture,
    "of an inner module, before": lambda: ReadsInside("before"),
    "of an inner module, after": lambda: ReadsInside("after"),
    "of an inner module, both": lambda: ReadsInside("both"),
}


def gradients(module: nn.Module, x: Tensor, cotangent: Tensor) -> dict[str, Tensor]:
    """Return autograd's gradients by the parameters, by name."""
    named = dict(module.named_parameters())
    found = torch.autograd.grad(module(x), list(named.values()), cotangent)
    return dict(zip(named, found, strict=True))


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())
def test_a_parameter_that_is_read_elsewhere_has_its_gradient(make: Any) -> None:
    module, x = make().double(), torch.randn(4, 3, dtype=torch.float64)
    cotangent = torch.randn_like(module(x))
    wanted, joint, halves = gradients(module, x, cotangent), backward(module, x), forward_backward(module, x)
    for found in (
        joint(x, cotangent),
        simplify(joint)(x, cotangent),
        halves.reverse(halves.forward(x)[1], cotangent),
    ):
        for name, each in wanted.items():
            torch.testing.assert_close(found[name], each)


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())
def test_a_parameter_is_one_value_of_the_diagram(make: Any) -> None:
    diagram = trace(make(), torch.randn(4, 3))
    assert {value.number for value in diagram.parameters} == set(diagram.state)
