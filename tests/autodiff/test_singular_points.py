"""Gradients where a formula divides zero by zero, or an operation has a mode of its own: they are autograd's."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import CircuitError, backward

NAN, INFINITY = math.nan, math.inf


def t(*numbers: float) -> Tensor:
    """Return a vector in float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def agree(f: Callable[..., Any], *inputs: Tensor) -> None:
    """Assert that the backward circuit returns autograd's cotangents; NaN equals NaN."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    output = f(*leaves)
    cotangent = torch.linspace(1, 2, output.numel(), dtype=torch.float64).reshape(output.shape)
    wanted = torch.autograd.grad(output, leaves, cotangent)
    found = backward(f, *inputs)(*inputs, cotangent)
    for one, other in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


ZEROS, WITH_NAN, WITH_ZERO = t(0, 1, 0), t(1, NAN, 3), t(0, 1, -2)
POINTS = torch.arange(90.0, dtype=torch.float64).reshape(30, 3).sin()

CASES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "sum that skips NaN": (lambda x: x.nansum(), (WITH_NAN,)),
    "sum of rows that skips NaN": (lambda x: x.nansum(1, keepdim=True), (torch.stack([WITH_NAN, ZEROS]),)),
    "mean that skips NaN": (lambda x: x.nanmean(0), (WITH_NAN,)),
    "norm of power 1/2": (lambda x: torch.linalg.vector_norm(x, 0.5), (WITH_ZERO,)),
    "norm of power 1/2 of zeros": (lambda x: torch.linalg.vector_norm(x, 0.5), (WITH_ZERO * 0,)),
    "norm of power -1": (lambda x: torch.linalg.vector_norm(x, -1), (WITH_ZERO,)),
    "distance of power 1/2": (lambda x, y: F.pairwise_distance(x, y, 0.5, eps=0), (WITH_ZERO, ZEROS)),
    "renorm": (lambda x: torch.renorm(x.unsqueeze(0), 0.5, 0, 0.5), (WITH_ZERO,)),
    "atan2": (torch.atan2, (ZEROS, -ZEROS)),
    "atan2, broadcast": (torch.atan2, (ZEROS[0], ZEROS)),
    "angle of a vector": (lambda x: torch.arctan2(x[..., 1], x[..., 0]), (torch.stack([ZEROS, WITH_ZERO]),)),
    "product of nothing": (lambda x: x.prod(), (t(1)[:0],)),
    "product of rows of nothing": (lambda x: x.prod(1), (ZEROS[:, None][:, :0],)),
    "product of columns of nothing": (lambda x: x.prod(0, keepdim=True), (ZEROS[None][:0],)),
    "variance, corrected by more than there are": (lambda x: x.var(correction=4), (WITH_ZERO,)),
    "variance, corrected by as many as there are": (lambda x: x.var(correction=3), (t(0, 1, 2),)),
    "variance of rows, corrected by more": (lambda x: x.var(1, correction=5), (torch.stack([ZEROS, WITH_ZERO]),)),
    "variance of a number, corrected by more": (lambda x: x.var(correction=2), (t(2)[0],)),
    "variance of one element": (lambda x: x.var(), (t(2),)),
    "variance of rows of one element": (lambda x: x.var(1), (t(2, 3).unsqueeze(1),)),
    "deviation of one element": (lambda x: x.std(0), (t(2),)),
    "variance and mean of one element": (lambda x: torch.stack(torch.var_mean(x, 0)), (t(2),)),
    "deviation and mean of one element": (lambda x: torch.stack(torch.std_mean(x, 0)), (t(2),)),
    "deviation and mean, not corrected": (lambda x: torch.stack(torch.std_mean(x, 0, correction=0)), (t(2),)),
    "logsumexp of nothing": (lambda x: x.logsumexp(0), (t(-INFINITY, -INFINITY),)),
    "logsumexp of a row of nothing": (lambda x: x.logsumexp(1), (torch.stack([ZEROS - INFINITY, ZEROS]),)),
    "logsumexp of infinity": (lambda x: x.logsumexp(0), (t(INFINITY, 1),)),
    "logaddexp of infinity": (torch.logaddexp, (t(INFINITY, 1, -INFINITY), t(1, INFINITY, 0))),
    "x ln y": (torch.xlogy, (t(0, 0, 2), t(0, 1, 2))),
    "x ln y of a number": (lambda x: torch.xlogy(2.0, x) + torch.xlogy(x, 3.0), (t(1, 2),)),
    "sinc": (torch.sinc, (t(0, 0.5, -2),)),
    "entropy": (torch.special.entr, (t(0, 0.5, 2),)),
    "distances of equal rows": (lambda x: torch.cdist(x, x), (POINTS,)),
    "distances of equal rows of a batch": (lambda x, y: torch.cdist(x, y), (POINTS.expand(2, 30, 3), POINTS[:1] * 1)),
}  # fmt: skip


@pytest.mark.every(4)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_gradients_at_singular_points_are_autograds(case: Any) -> None:
    agree(case[0], *case[1])


def test_the_second_derivative_of_sinc_at_0() -> None:
    """It is -π²/3; autograd in torch 2.13 returns NaN."""
    first = backward(torch.sinc, torch.ones(()))
    second = backward(first)(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.0))
    torch.testing.assert_close(next(iter(second.values())), torch.tensor(-(math.pi**2) / 3))


# Scatter that adds or multiplies -------------------------------------------------------------------------------------

INDICES = {"different": torch.tensor([0, 2, 3]), "repeated": torch.tensor([0, 0, 1])}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_scatter_that_adds_is_scatter_add(index: Tensor) -> None:
    """Autograd differentiates only `scatter_add`."""
    x, source, cotangent = t(1, 2, 3, 4), t(5, 6, 7), t(1, 2, 3, 4)
    wanted = backward(lambda x, s: x.scatter_add(0, index, s), x, source)(x, source, cotangent)
    for f in (
        lambda x, s: x.scatter(0, index, s, reduce="add"),
        lambda x, s: (x * 1).scatter_(0, index, s, reduce="add"),
    ):
        assert str(backward(f, x, source)(x, source, cotangent)) == str(wanted)
    found = backward(lambda x: x.scatter(0, index, 2.5, reduce="add"), x)(x, cotangent)
    torch.testing.assert_close(found["x"], cotangent)


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
@pytest.mark.parametrize("number", [2.5, 0.0])
def test_scatter_that_multiplies_by_a_number(index: Tensor, number: float) -> None:
    x, cotangent = t(1, 2, 3, 4), t(1, 2, 3, 4)
    found = backward(lambda x: x.scatter(0, index, number, reduce="multiply"), x)(x, cotangent)
    times = torch.zeros(4).index_add(0, index, torch.ones(3))
    torch.testing.assert_close(found["x"], cotangent * number**times)


def test_scatter_that_multiplies_by_a_tensor_is_refused_with_its_line() -> None:
    index, x, source = INDICES["different"], t(1, 2, 3, 4), t(5, 6, 7)
    message = r"test_singular_points\.py:\d+.*reduce=\"multiply\".*came with a tensor.*ones_like"
    with pytest.raises(CircuitError, match=message):
        backward(lambda x, s: x.scatter(0, index, s, reduce="multiply"), x, source)
    with pytest.raises(CircuitError, match=message):
        backward(lambda x, s: (x * 1).scatter_(0, index, s, reduce="multiply"), x, source)
    agree(lambda x, s: x * torch.ones_like(x).scatter(0, index, s), x, source)
