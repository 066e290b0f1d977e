"""Writes in place through views that regroup axes: the cotangent may have other strides than the tensor that was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circuits import backward, rearrange


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
