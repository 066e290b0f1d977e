"""Writes that autograd does not see, through `.data` or `.detach()`: refused by name if a gradient depends on them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from circuits import CircuitError, backward


def through_data(x: Tensor) -> Tensor:
    y = x * 1.0
    y.data.clamp_(max=1.0)
    return y * 3


def through_detach(x: Tensor) -> Tensor:
    y = x * 1.0
    y.detach().clamp_(max=1.0)
    return y * 3


def through_a_part(x: Tensor) -> Tensor:
    y = x * 1.0
    y.data[:1] = 5.0
    return y * 3


def through_data_then_viewed(x: Tensor) -> Tensor:
    y = x * 1.0
    y.data.mul_(2)
    return y.view(-1) * 3


def beside_a_transform(x: Tensor) -> Tensor:
    y = x * 1.0
    y.data.clamp_(max=1.0)
    return vmap(torch.sin)(y)


class ClipsItsWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.clamp_(-0.1, 0.1)
        return x * self.weight


HIDDEN = [through_data, through_detach, through_a_part, through_data_then_viewed, beside_a_transform, ClipsItsWeight()]


@pytest.mark.parametrize("f", HIDDEN)
def test_a_write_to_a_detached_tensor_is_refused_if_its_source_is_read_later(f: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CircuitError, match="in place, unseen by autograd, to the storage of a value that gradients"):
        backward(f, torch.tensor([0.5, 2.0]))


def test_the_refusal_names_the_line() -> None:
    with pytest.raises(CircuitError, match=r"clamp_ at \S*test_hidden_writes\.py:15 writes .* write to a clone"):
        backward(through_data, torch.tensor([0.5, 2.0]))


def unread(x: Tensor) -> Tensor:
    y = x * 1.0
    z = y.data
    z.clamp_(max=1.0)
    return z * x


def cloned(x: Tensor) -> Tensor:
    y = x * 1.0
    z = y.detach().clone()
    z.clamp_(max=1.0)
    return z * y


def saved_before(x: Tensor) -> Tensor:
    """Overwrites a value after `sin` has read it: the reverse pass reads the value that `sin` read.

    The derivative is cos(x), as central differences say; autograd reads the overwritten tensor.
    """
    y = x * 1.0
    z = y.sin()
    y.data.mul_(2)
    return z


def test_the_reverse_pass_reads_what_was_there_before_a_hidden_write() -> None:
    x = torch.tensor([0.5, 2.0])
    (found,) = backward(saved_before, x)(x, torch.ones(2)).values()
    torch.testing.assert_close(found, x.cos())


def beside_a_clone(x: Tensor) -> Tensor:
    """Writes to a clone of a value that is read later."""
    y = x * 1.0
    z = y.sin()
    w = y.detach().clone().mul_(2)
    return z * w + y.data


@pytest.mark.parametrize("f", [unread, cloned, beside_a_clone])
def test_other_writes_to_detached_tensors_are_no_obstacle(f: Callable[[Tensor], Tensor]) -> None:
    x, leaf = torch.tensor([0.5, 2.0]), torch.tensor([0.5, 2.0], requires_grad=True)
    wanted = torch.autograd.grad(f(leaf), leaf, torch.ones(2))
    torch.testing.assert_close(tuple(backward(f, x)(x, torch.ones(2)).values()), wanted)
