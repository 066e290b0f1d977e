"""A function that is run as a whole, for a transform inside it, and returns a tensor that it was given."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vjp, vmap

from circuits import backward, forward_backward


class ReturnsItsInput(nn.Module):
    """A module with a transform inside that returns its input too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, vmap(torch.exp)(x)


def within(x: Tensor) -> Any:
    """The module is called on a value that gradients flow through."""
    value, other = ReturnsItsInput()(x * 2)
    return value * other, value


def written_before_and_after(x: Tensor) -> Any:
    """The returned tensor is written in place before the call and after it."""
    value = (x * 2).mul_(x)
    same, first = ReturnsItsInput()(value)
    again, second = ReturnsItsInput()(same)
    value.add_(1)
    return same + first, second, again, value


CASES: dict[str, Callable[..., Any]] = {
    "vmap": lambda x: (x, vmap(torch.sin)(x)),
    "twice": lambda x: (x, x, vmap(torch.sin)(x)),
    "grad": lambda x: (x, vmap(grad(torch.sin))(x)),
    "jacrev": lambda x: (x, jacrev(lambda y: y**3)(x)),
    "vjp of a function that returns its input": lambda x: (x, *vjp(lambda y: (y, y**2), x)[0]),
    "view": lambda x: (x.view(-1), x, vmap(torch.sin)(x)),
    "module": ReturnsItsInput(),
    "module within": within,
    "written in place": written_before_and_after,
}


@pytest.mark.parametrize("f", CASES.values(), ids=CASES.keys())
def test_the_cotangent_of_a_returned_input_counts_once(f: Callable[..., Any]) -> None:
    x = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    outputs = f(leaf)
    cotangents = [torch.linspace(1, 2, each.numel()).double().reshape(each.shape) for each in outputs]
    (wanted,) = torch.autograd.grad(outputs, leaf, cotangents)
    torch.testing.assert_close(backward(f, x)(x.clone(), *cotangents)["x"], wanted)
    halves = forward_backward(f, x)
    again, saved = halves.forward(x.clone())
    torch.testing.assert_close(list(again), [each.detach() for each in outputs])
    torch.testing.assert_close(halves.reverse(saved, *cotangents)["x"], wanted)
