"""Writes in place through views that regroup axes: the cotangent may have other strides than the tensor that was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circuits import CircuitError, backward, rearrange


def written(view: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function that writes through a view of a tensor and returns its transpose."""

    def f(x: Tensor) -> Tensor:
        y = x * 1.0
        view(y).mul_(2)
        return y.T

    return f


def written_by_itself(x: Tensor) -> Tensor:
    y = x * 1.0
    y.reshape(3, 2).mul_(x.reshape(3, 2))
    return y.t() + 1


def written_in_a_transpose(x: Tensor) -> Tensor:
    y = (x * 1.0).T
    y.T.flatten().mul_(2)
    return y


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": written(lambda y: y.flatten()),
    "ravel": written(lambda y: y.ravel()),
    "view": written(lambda y: y.view(-1)),
    "part of a view": written(lambda y: y.view(-1)[1:]),
    "as_strided": written(lambda y: y.as_strided((3,), (2,))),
    "contiguous": written(lambda y: y.contiguous()),
    "rearrange": written(lambda y: rearrange(y, "a b -> (a b)")),
    "by itself": written_by_itself,
    "in a transpose": written_in_a_transpose,
}


@pytest.mark.every(5)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("f", CASES.values(), ids=CASES.keys())
def test_a_write_through_a_regrouped_view_has_autograds_gradient(f: Callable[[Tensor], Tensor], layout: str) -> None:
    x = torch.tensor([[0.5, 2.0, -1.0], [3.0, -0.5, 1.5]], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    cotangent = torch.arange(1.0, 7.0, dtype=torch.float64)
    cotangent = cotangent.reshape(3, 2) if layout == "contiguous" else cotangent.reshape(2, 3).T
    (wanted,) = torch.autograd.grad(f(leaf), leaf, cotangent)
    diagram = backward(f, x)
    torch.testing.assert_close(diagram(x, cotangent)["x"], wanted)
    again = backward(diagram)(x, cotangent, x)
    leaf_cotangent = cotangent.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(leaf), leaf, leaf_cotangent, create_graph=True)
    second = torch.autograd.grad(first, (leaf, leaf_cotangent), x, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(tuple(again.values()), second)


def row_to_rows(x: Tensor) -> Tensor:
    y = x * 1.0
    y[1:] = y[0]
    return y * y


def narrow_to_narrow(x: Tensor) -> Tensor:
    y = x * 1.0
    y.narrow(0, 0, 2).copy_(y.narrow(0, 2, 2))
    return y * y


def added_to_another_row(x: Tensor) -> Tensor:
    y = x * 1.0
    y[0].add_(y[1])
    return y * y


def read_again_afterwards(x: Tensor) -> Tensor:
    y = x * 1.0
    first, rest = y[0], y[1:]
    rest.add_(first)
    return y * first + rest.sum()


def expanded(x: Tensor) -> Tensor:
    y = x * 1.0
    y[1:] = y[:1].expand(3)
    return y * y


PARTS = (row_to_rows, narrow_to_narrow, added_to_another_row, read_again_afterwards, expanded)


@pytest.mark.parametrize("f", PARTS)
def test_a_write_from_another_part_of_the_same_tensor_has_autograds_gradient(f: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([0.5, 2.0, -1.0, 3.0], dtype=torch.float64)
    leaf, cotangent = x.clone().requires_grad_(), torch.arange(1.0, 5.0, dtype=torch.float64)
    found = f(leaf)
    (wanted,) = torch.autograd.grad(found, leaf, cotangent)
    diagram = backward(f, x)
    torch.testing.assert_close(diagram(x, cotangent)["x"], wanted)
    assert torch.autograd.gradcheck(f, (leaf,))


def test_a_write_from_a_detached_part_is_refused_if_it_is_read_later() -> None:
    def f(x: Tensor) -> Tensor:
        y = x * 1.0
        y.detach()[1:] = y[0]
        return y * y

    with pytest.raises(CircuitError, match="in place, unseen by autograd"):
        backward(f, torch.rand(4))
