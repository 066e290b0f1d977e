"""Every reverse rule is compared with autograd in float64: first and second derivatives."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import CircuitError, backward, einsum, rearrange, reduce, repeat
from circuits.autodiff.rules.registry import DEFINITIONS, RULES, Rule, defines, reverses
from circuits.diagram.structure import tensors

# Comparison with autograd --------------------------------------------------------------------------------------------


def agree(f: Callable[..., Any], *given: Tensor, order: int = 2, opaque: tuple[str, ...] = ()) -> None:
    """Assert that the backward circuit of f, and its own backward circuit, return autograd's cotangents.

    Args:
        f: A function.
        given: Its inputs; floating ones are converted to float64.
        order: 1 to compare first derivatives only.
        opaque: The labels of the boxes without a rule, in order.
    """
    inputs = [each.double() if each.is_floating_point() else each for each in given]
    diagram = backward(f, *inputs)
    assert tuple(dict.fromkeys(box.label for box in diagram.opaque)) == opaque
    floating = [place for place, each in enumerate(inputs) if each.is_floating_point()]
    torch.manual_seed(3)
    leaves = [each.clone().requires_grad_() if each.is_floating_point() else each for each in inputs]
    leaves_with_gradient = [leaves[place] for place in floating]
    outputs = [each for each in tensors(f(*leaves)) if each.is_floating_point()]
    cotangents = [torch.randn_like(each).requires_grad_() for each in outputs]
    wanted = torch.autograd.grad(outputs, leaves_with_gradient, cotangents, create_graph=order > 1, allow_unused=True)
    torch.manual_seed(3)
    found = diagram(*[each.clone() for each in inputs], *[each.detach() for each in cotangents])
    assert_same(list(found.values())[: len(floating)], wanted)
    slopes = [torch.randn_like(each) for each in found.values()]
    if order == 1 or not any(each is not None and each.requires_grad for each in wanted):
        return
    kept = [(each, slope) for each, slope in zip(wanted, slopes, strict=False) if each is not None]
    second = [*leaves_with_gradient, *cotangents]
    wanted = torch.autograd.grad([a for a, _ in kept], second, [b for _, b in kept], allow_unused=True)
    torch.manual_seed(3)
    again = backward(diagram)(*inputs, *[each.detach() for each in cotangents], *slopes)
    assert_same(list(again.values()), wanted)


def assert_same(found: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    """Assert that tensors are equal up to 1e-9, less than the error of an intermediate result in single precision."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        other = torch.zeros_like(one) if other is None else other
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def r(*shape: int) -> Tensor:
    """Return normal random numbers of this shape."""
    return torch.randn(shape, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    """Return positive random numbers of this shape."""
    return r(*shape).exp()


Case = tuple[Callable[..., Any], Callable[[], tuple[Tensor, ...]]]


def every(cases: dict[str, Case]) -> Any:
    """Parametrize a test by cases."""
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


# Linear maps ---------------------------------------------------------------------------------------------------------

CONTRACTIONS: dict[str, Case] = {
    "matrices": (lambda a, b: einsum(a, b, "i j, j k -> i k"), lambda: (r(2, 3), r(3, 4))),
    "rest": (lambda a, b: einsum(a, b, "... i j, j k -> ... k"), lambda: (r(2, 3, 4), r(4, 2))),
    "rest of both": (lambda a, b: einsum(a, b, "... i j, ... j k -> ... i k"), lambda: (r(5, 2, 3), r(5, 3, 4))),
    "rest summed away": (lambda a, b: einsum(a, b, "... i, ... i -> i"), lambda: (r(2, 3, 4), r(2, 3, 4))),
    "rest of nothing, summed away": (lambda a: einsum(a, "... i -> i"), lambda: (r(3),)),
    "rest of nothing, with a contraction": (lambda a, b: einsum(a, b, "... i j, j -> i"), lambda: (r(2, 3), r(3))),
    "torch, rest of nothing": (lambda a: torch.einsum("...ii->i", a), lambda: (r(3, 3),)),
    "torch, rest of two at the end": (lambda a: torch.einsum("i...->i", a), lambda: (r(3, 4, 2),)),
    "torch, rest inside a diagonal": (lambda a: torch.einsum("i...i->i", a), lambda: (r(3, 2, 4, 3),)),
    "axis of one tensor alone": (lambda a, b: einsum(a, b, "i j, k -> k"), lambda: (r(3, 2), r(4))),
    "primes": (lambda a, b: einsum(a, b, "y k, y' k -> y y'"), lambda: (r(3, 2), r(3, 2))),
    "three tensors": (lambda a, b, c: einsum(a, b, c, "i j, j k, k -> i"), lambda: (r(2, 3), r(3, 4), r(4))),
    "one tensor twice": (lambda a: einsum(a, a, "i j, k j -> i k"), lambda: (r(3, 2),)),
    "transposed": (lambda a: einsum(a, "i j k -> k i j"), lambda: (r(2, 3, 4),)),
    "scalars": (lambda a, b: einsum(a, b, ", -> "), lambda: (r(), r())),
    "outer": (lambda a, b: einsum(a, b, "i, j -> i j"), lambda: (r(3), r(1))),
    "torch, diagonal": (lambda a: torch.einsum("ii->i", a), lambda: (r(3, 3),)),
    "torch, trace": (lambda a: torch.einsum("ii", a), lambda: (r(3, 3),)),
    "torch, diagonal met": (lambda a, b: torch.einsum("iij,jk->ik", a, b), lambda: (r(3, 3, 4), r(4, 2))),
    "torch, stretched rest": (lambda a, b: torch.einsum("...ij,...jk", a, b), lambda: (r(2, 3, 4), r(5, 1, 4, 2))),
    "torch, rest in the middle": (lambda a, b: torch.einsum("i...j,jk->ki...", a, b), lambda: (r(2, 5, 3), r(3, 4))),
    "linear": (F.linear, lambda: (r(2, 3, 4), r(5, 4), r(5))),
    "linear of a vector": (F.linear, lambda: (r(4), r(5, 4), r(5))),
    "linear without bias": (lambda x, w: F.linear(x, w), lambda: (r(2, 1, 4), r(1, 4))),
    "linear, transposed": (lambda x, w: F.linear(x.mT, w.mT), lambda: (r(4, 3), r(4, 5))),
    "matmul, stretched": (torch.matmul, lambda: (r(2, 1, 3, 4), r(5, 4, 6))),
    "matmul, matrix and vector": (torch.matmul, lambda: (r(2, 3, 4), r(4))),
    "matmul, vector and matrix": (torch.matmul, lambda: (r(4), r(2, 4, 3))),
    "matmul, vectors": (torch.matmul, lambda: (r(4), r(4))),
    "mm": (torch.mm, lambda: (r(2, 3), r(3, 1))),
    "bmm": (torch.bmm, lambda: (r(2, 3, 4), r(2, 4, 1))),
    "mv": (torch.mv, lambda: (r(2, 3), r(3))),
    "dot": (torch.dot, lambda: (r(3), r(3))),
    "vdot": (torch.vdot, lambda: (r(3), r(3))),
    "outer product": (torch.outer, lambda: (r(3), r(4))),
    "addmm": (lambda a, b, c: torch.addmm(a, b, c, beta=0.5, alpha=2), lambda: (r(4), r(3, 2), r(2, 4))),
    "addmv": (lambda a, b, c: torch.addmv(a, b, c, beta=0.5, alpha=2), lambda: (r(3), r(3, 2), r(2))),
    "baddbmm": (torch.baddbmm, lambda: (r(2, 3, 4), r(2, 3, 5), r(2, 5, 4))),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 1), lambda: (r(2, 3), r(3, 4))),
    "kron": (torch.kron, lambda: (r(2, 2), r(3, 2))),
    "cross": (torch.linalg.cross, lambda: (r(2, 3), r(2, 3))),
    "bilinear": (F.bilinear, lambda: (r(2, 3), r(2, 4), r(5, 3, 4), r(5))),
}


@pytest.mark.every(8)
@every(CONTRACTIONS)
def test_contractions(case: Case) -> None:
    agree(case[0], *case[1]())


def padded_by_a_word(x: Tensor, w: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it copies the image for an even kernel
        return F.conv2d(x, w, padding="same", dilation=(1, 2))


CONVOLUTIONS: dict[str, Case] = {
    "one axis": (lambda x, w, b: F.conv1d(x, w, b, 2, 1, 2), lambda: (r(2, 4, 9), r(6, 4, 3), r(6))),
    "a remainder of the stride": (lambda x, w: F.conv1d(x, w, stride=3), lambda: (r(2, 2, 9), r(3, 2, 2))),
    "groups": (
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0), groups=2), lambda: (r(2, 4, 8, 7), r(6, 2, 3, 2), r(6)),
    ),
    "each channel by itself": (lambda x, w: F.conv2d(x, w, groups=4), lambda: (r(1, 4, 5, 5), r(4, 1, 3, 3))),
    "one by one": (lambda x, w: F.conv2d(x, w), lambda: (r(2, 1, 3, 1), r(2, 1, 1, 1))),
    "three axes": (lambda x, w: F.conv3d(x, w, stride=2), lambda: (r(2, 2, 5, 4, 4), r(3, 2, 2, 2, 2))),
    "no batch": (lambda x, w, b: F.conv1d(x, w, b), lambda: (r(4, 9), r(6, 4, 3), r(6))),
    "same": (padded_by_a_word, lambda: (r(2, 4, 8, 7), r(6, 4, 4, 2))),
    "valid": (lambda x, w: F.conv1d(x, w, padding="valid"), lambda: (r(2, 4, 8), r(6, 4, 3))),
    "transposed": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, output_padding=1, groups=2, dilation=2),
        lambda: (r(2, 4, 5, 4), r(4, 3, 3, 2), r(6)),
    ),
    "transposed, one axis": (lambda x, w: F.conv_transpose1d(x, w, stride=3), lambda: (r(2, 3, 4), r(3, 2, 2))),
    "transposed, gaps beyond the step": (
        lambda x, w: F.conv_transpose1d(x, w, stride=1, output_padding=1, dilation=2), lambda: (r(1, 2, 4), r(2, 3, 3)),
    ),
}  # fmt: skip


@every(CONVOLUTIONS)
def test_convolutions(case: Case) -> None:
    agree(case[0], *case[1]())


# Pointwise -----------------------------------------------------------------------------------------------------------

ARITHMETIC: dict[str, Case] = {
    "add, stretched": (lambda a, b: torch.add(a, b, alpha=3), lambda: (r(2, 3), r(3))),
    "add a number": (lambda a: a + 2.0, lambda: (r(2, 3),)),
    "add itself": (lambda a: a + a, lambda: (r(2),)),
    "sub, stretched both ways": (lambda a, b: torch.sub(a, b, alpha=0.5), lambda: (r(2, 1), r(1, 3))),
    "rsub": (lambda a: torch.rsub(a, 3.0, alpha=2) - (1 - a), lambda: (r(3),)),
    "mul by a scalar tensor": (lambda a, b: a * b, lambda: (r(2, 3), r())),
    "mul, stretched": (lambda a, b: a * b, lambda: (r(4, 1, 3), r(2, 1))),
    "mul by itself": (lambda a: a * a, lambda: (r(3),)),
    "div": (lambda a, b: a / b + 1 / a, lambda: (positive(2, 3), positive(3))),
    "fmod": (torch.fmod, lambda: (r(4) * 5, positive(4))),
    "remainder": (torch.remainder, lambda: (r(4) * 5, positive(4))),
    "pow": (lambda a, b: a**b, lambda: (positive(2, 3), r(3))),
    "pow 0": (lambda a: a**0 + a**1 + a**2 + a**3, lambda: (r(3),)),
    "pow of a number": (lambda a: 2.0**a, lambda: (r(3),)),
    "addcmul": (lambda a, b, c: torch.addcmul(a, b, c, value=0.5), lambda: (r(2, 3), r(3), r(2, 1))),
    "addcdiv": (lambda a, b, c: torch.addcdiv(a, b, c, value=0.5), lambda: (r(2, 3), r(3), positive(2, 1))),
    "lerp": (torch.lerp, lambda: (r(3), r(3), r(3))),
    "lerp by a number": (lambda a, b: torch.lerp(a, b, 0.3), lambda: (r(3), r(3))),
    "atan2": (torch.atan2, lambda: (r(3), r(3))),
    "maximum, equals too": (torch.maximum, lambda: (torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 0.0, 3.0]))),
    "max of two, equals too": (torch.max, lambda: (torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[1.0], [0.5]]))),
    "min of two": (torch.min, lambda: (r(2, 3), r(3))),
    "minimum, equals too": (torch.minimum, lambda: (torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 0.0, 3.0]))),
    "where": (lambda a, b: torch.where(a > 0, a, b), lambda: (r(2, 3), r(3))),
    "where, a number": (lambda a: torch.where(a > 0, a, 1.0), lambda: (r(2, 3),)),
    "masked_fill": (lambda a: a.masked_fill(a > 0, 1.0), lambda: (r(2, 3),)),
    "masked_fill by a tensor": (lambda a, b: a.masked_fill(a > 0, b), lambda: (r(2, 3), r())),
    "clamp": (lambda a: a.clamp(-0.5, 0.5), lambda: (r(3, 4),)),
    "clamp from below": (lambda a: a.clamp(min=0.1), lambda: (r(3, 4),)),
    "clamp between tensors": (lambda a, b, c: a.clamp(b, c), lambda: (r(3, 4), r(4), r(4))),
    "hypot": (torch.hypot, lambda: (r(3), r(3))),
    "xlogy": (torch.xlogy, lambda: (r(3), positive(3))),
    "logaddexp": (torch.logaddexp, lambda: (r(3), r(3))),
    "to another dtype and back": (lambda a: (a * 2).float().double() * a, lambda: (torch.tensor([1.0, 2.5]),)),
    "detached": (lambda a: a.detach() * a, lambda: (r(3),)),
    "data": (lambda a: a.data * a, lambda: (r(3),)),
}


@pytest.mark.every(3)
@every(ARITHMETIC)
def test_arithmetic(case: Case) -> None:
    agree(case[0], *case[1]())


ANYWHERE = (
    "abs exp exp2 expm1 sin cos tan atan sinh cosh tanh asinh sigmoid erf erfc square neg sign floor round frac "
    "reciprocal relu deg2rad sinc positive"
)
WITHIN = "asin acos atanh"
ABOVE = "log log2 log10 log1p sqrt rsqrt"
ACTIVATIONS = (
    "relu relu6 elu selu celu leaky_relu gelu silu mish softplus softsign tanhshrink softshrink hardshrink hardtanh "
    "hardswish logsigmoid glu"
)


@pytest.mark.parametrize("name", ANYWHERE.split())
def test_functions_of_one_number(name: str) -> None:
    agree(getattr(torch, name), r(2, 3))


@pytest.mark.parametrize("name", WITHIN.split())
def test_functions_of_a_number_between_minus_one_and_one(name: str) -> None:
    agree(getattr(torch, name), r(2, 3).tanh() * 0.9)


@pytest.mark.parametrize("name", [*ABOVE.split(), "acosh"])
def test_functions_of_a_positive_number(name: str) -> None:
    agree(getattr(torch, name), positive(2, 3) + (name == "acosh"))


@pytest.mark.parametrize("name", ACTIVATIONS.split())
def test_activations(name: str) -> None:
    agree(getattr(F, name), r(3, 4) * 3)


def test_the_hard_sigmoid_equals_its_definition() -> None:
    """torch's derivative divides by 6 in single precision, and torch has no second derivative."""
    x, back = r(3, 4) * 3, r(3, 4)
    leaf = x.clone().requires_grad_()
    found = [*backward(F.hardsigmoid, x)(x, back).values()]
    assert_same(found, torch.autograd.grad(F.relu6(leaf + 3) / 6, leaf, back))
    assert_same(found, torch.autograd.grad(F.hardsigmoid(leaf), leaf, back), tolerance=1e-7)


SETTINGS: dict[str, Case] = {
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), lambda: (r(3, 4),)),
    "elu": (lambda x: F.elu(x, alpha=0.5), lambda: (r(3, 4),)),
    "leaky": (lambda x: F.leaky_relu(x, 0.3), lambda: (r(3, 4),)),
    "softplus": (lambda x: F.softplus(x, 2.0, 1.0), lambda: (r(3, 4),)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.7), lambda: (r(3, 4),)),
    "threshold": (lambda x: F.threshold(x, 0.2, -1.0), lambda: (r(3, 4),)),
    "prelu": (F.prelu, lambda: (r(3, 4), r(4))),
    "prelu of one slope": (F.prelu, lambda: (r(3, 4, 2), r(1))),
    "relu at nought": (torch.relu, lambda: (torch.zeros(2),)),
    "dropout": (lambda x: F.dropout(x, 0.3), lambda: (r(3, 4),)),
    "dropout of all": (lambda x: F.dropout(x, 1.0), lambda: (r(3, 4),)),
    "dropout of none": (lambda x: F.dropout(x, 0.5, training=False) * x, lambda: (r(3, 4),)),
    "dropout of channels": (lambda x: F.dropout2d(x, 0.3), lambda: (r(3, 4, 2, 2),)),
    "alpha dropout": (lambda x: F.alpha_dropout(x, 0.3, True), lambda: (r(3, 4),)),
    "rrelu": (lambda x: F.rrelu(x, training=False), lambda: (r(3, 4),)),
}


@every(SETTINGS)
def test_activations_with_settings(case: Case) -> None:
    agree(case[0], *case[1]())


# Reductions ----------------------------------------------------------------------------------------------------------

TIES = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
WITH_ZEROS = torch.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0]])

REDUCTIONS: dict[str, Case] = {
    "sum": (lambda x: x.sum(), lambda: (r(2, 3),)),
    "sum of a scalar": (lambda x: x.sum() * x, lambda: (r(),)),
    "sum over one": (lambda x: x.sum(1), lambda: (r(2, 3),)),
    "sum over several": (lambda x: x.sum((0, -1), keepdim=True), lambda: (r(2, 3, 4),)),
    "mean": (lambda x: x.mean() * x.mean(-1), lambda: (r(2, 3),)),
    "mean over size 1": (lambda x: x.mean(1), lambda: (r(2, 1),)),
    "var": (lambda x: x.var(1) + x.var(), lambda: (r(3, 4),)),
    "var, biased": (lambda x: x.var(1, correction=0, keepdim=True), lambda: (r(3, 4),)),
    "std": (lambda x: x.std(0) * x.std(), lambda: (r(3, 4),)),
    "var_mean": (lambda x: torch.var_mean(x, 1), lambda: (r(3, 4),)),
    "std_mean": (lambda x: torch.std_mean(x, 1), lambda: (r(3, 4),)),
    "amax with equals": (lambda x: x.amax(1), lambda: (TIES,)),
    "amin over all": (lambda x: x.amin((0, 1)), lambda: (TIES,)),
    "max over one": (lambda x: x.max(1), lambda: (r(3, 4),)),
    "max of all with equals": (lambda x: x.max(), lambda: (TIES,)),
    "min over one": (lambda x: x.min(0, keepdim=True).values, lambda: (r(3, 4),)),
    "median": (lambda x: x.median(1).values, lambda: (r(3, 5),)),
    "prod": (lambda x: x.prod(1), lambda: (r(3, 4),)),
    "prod with zeros": (lambda x: x.prod(1), lambda: (WITH_ZEROS,)),
    "prod of all": (lambda x: x.prod(), lambda: (r(2, 3),)),
    "cumsum": (lambda x: x.cumsum(0), lambda: (r(3, 4),)),
    "cumprod": (lambda x: x.cumprod(1), lambda: (r(3, 4),)),
    "cumprod with zeros": (lambda x: x.cumprod(1), lambda: (WITH_ZEROS,)),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), lambda: (r(3, 4),)),
    "sort": (lambda x: x.sort(1).values, lambda: (r(3, 4),)),
    "topk": (lambda x: x.topk(2).values, lambda: (r(3, 4),)),
    "softmax": (lambda x: x.softmax(-1), lambda: (r(3, 4),)),
    "softmax over the first": (lambda x: F.softmax(x, 0), lambda: (r(3, 4, 2),)),
    "softmax over size 1": (lambda x: x.softmax(1), lambda: (r(3, 1),)),
    "log_softmax": (lambda x: F.log_softmax(x, 0), lambda: (r(3, 4),)),
    "softmin": (lambda x: F.softmin(x, 1), lambda: (r(3, 4),)),
    "logsumexp": (lambda x: x.logsumexp((0, 1)), lambda: (r(3, 4),)),
    "norm": (lambda x: x.norm() + x.norm(dim=1).sum(), lambda: (r(3, 4),)),
    "norm of other powers": (lambda x: torch.linalg.vector_norm(x, 3, dim=1), lambda: (r(3, 4),)),
    "norm, the largest": (lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1), lambda: (r(3, 4),)),
    "norm, the largest with equals": (lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1), lambda: (TIES,)),
    "norm, absolute": (lambda x: torch.linalg.vector_norm(x, 1, dim=1), lambda: (r(3, 4),)),
    "normalised": (F.normalize, lambda: (r(3, 4),)),
    "cosine": (F.cosine_similarity, lambda: (r(3, 4), r(3, 4))),
    "trace": (torch.trace, lambda: (r(3, 4),)),
    "reduce, sum": (lambda x: reduce(x, "b (h w) c -> b h", "sum", h=2), lambda: (r(2, 6, 3),)),
    "reduce, mean": (lambda x: reduce(x, "b (h w) c -> b h", "mean", h=2), lambda: (r(2, 6, 3),)),
    "reduce, max": (lambda x: reduce(x, "b (h w) c -> b h", "max", h=2), lambda: (r(2, 6, 3),)),
    "reduce, of all": (lambda x: reduce(x, "a b -> ", "sum"), lambda: (r(2, 3),)),
}


@pytest.mark.every(5)
@every(REDUCTIONS)
def test_reductions(case: Case) -> None:
    agree(case[0], *case[1]())


OF_A_NUMBER: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(0) * x,
    "mean": lambda x: x.mean(-1, keepdim=True) * x,
    "var": lambda x: x.var(0, correction=0) + x,
    "amax": lambda x: x.amax(0) * x,
    "max": lambda x: x.max(0).values * x,
    "prod": lambda x: x.prod(0) * x,
    "norm": lambda x: x.norm(dim=0) * x,
    "cumsum": lambda x: x.cumsum(0) * x,
    "cumprod": lambda x: x.cumprod(0) * x,
    "logsumexp": lambda x: x.logsumexp(0) * x,
    "softmax": lambda x: x.softmax(0) * x,
    "sort": lambda x: x.sort(0).values * x,
    "topk": lambda x: x.topk(1).values * x,
    "gather": lambda x: x.gather(0, torch.tensor(0)) * x,
    "index_select": lambda x: x.index_select(0, torch.tensor([0])) * x,
    "transpose": lambda x: x.transpose(0, -1) * x,
}


@pytest.mark.every(3)
@pytest.mark.parametrize("name", OF_A_NUMBER)
def test_a_scalar_accepts_dimension_0(name: str) -> None:
    """torch accepts a dimension for a tensor without axes."""
    agree(OF_A_NUMBER[name], r())


NORMALISATIONS: dict[str, Case] = {
    "layer": (lambda x, w, b: F.layer_norm(x, (4,), w, b), lambda: (r(2, 3, 4), r(4), r(4))),
    "layer over two": (lambda x, w, b: F.layer_norm(x, (3, 4), w, b), lambda: (r(2, 3, 4), r(3, 4), r(3, 4))),
    "layer of one vector": (lambda x, w: F.layer_norm(x, (4,), w), lambda: (r(4), r(4))),
    "root mean square": (lambda x, w: F.rms_norm(x, (4,), w), lambda: (r(2, 3, 4), r(4))),
    "batch, training": (
        lambda x, w, b: F.batch_norm(x, torch.zeros(4).to(x), torch.ones(4).to(x), w, b, training=True),
        lambda: (r(5, 4, 3), r(4), r(4)),
    ),
    "batch, remembered": (
        lambda x, w, b: F.batch_norm(x, torch.full((4,), 0.3).to(x), torch.full((4,), 2.0).to(x), w, b),
        lambda: (r(5, 4), r(4), r(4)),
    ),
    "group": (lambda x, w, b: F.group_norm(x, 2, w, b), lambda: (r(5, 4, 3), r(4), r(4))),
    "group of all": (lambda x: F.group_norm(x, 1), lambda: (r(2, 4, 3, 1),)),
    "instance": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), lambda: (r(5, 4, 3), r(4), r(4))),
    "local response": (lambda x: F.local_response_norm(x, 3), lambda: (r(2, 4, 3, 3),)),
}  # fmt: skip


@pytest.mark.every(3)
@every(NORMALISATIONS)
def test_normalisations(case: Case) -> None:
    agree(case[0], *case[1]())


POOLS: dict[str, Case] = {
    "max over one axis": (lambda x: F.max_pool1d(x, 2, 1, 1), lambda: (r(2, 3, 6),)),
    "max over two": (lambda x: F.max_pool2d(x, 3, 2, 1), lambda: (r(2, 3, 6, 6),)),
    "max over three": (lambda x: F.max_pool3d(x, 2), lambda: (r(1, 2, 4, 4, 4),)),
    "max, no batch": (lambda x: F.max_pool2d(x, 2), lambda: (r(3, 6, 5),)),
    "mean over one axis": (lambda x: F.avg_pool1d(x, 3, 2), lambda: (r(2, 3, 8),)),
    "mean over two": (lambda x: F.avg_pool2d(x, 3, 2, 1), lambda: (r(2, 3, 6, 7),)),
    "mean of what is there": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), lambda: (r(2, 3, 6, 7),),
    ),
    "mean by a divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), lambda: (r(2, 3, 4, 4),)),
    "mean over three": (lambda x: F.avg_pool3d(x, 2), lambda: (r(1, 2, 4, 4, 4),)),
    "adaptive mean": (lambda x: F.adaptive_avg_pool2d(x, (3, 1)), lambda: (r(2, 3, 8, 5),)),
    "adaptive mean over one axis": (lambda x: F.adaptive_avg_pool1d(x, 3), lambda: (r(2, 3, 8),)),
    "adaptive max": (lambda x: F.adaptive_max_pool2d(x, (3, 2)), lambda: (r(2, 3, 8, 5),)),
    "power": (lambda x: F.lp_pool2d(x.exp(), 3, 2), lambda: (r(2, 3, 4, 4),)),
}  # fmt: skip


@pytest.mark.every(3)
@every(POOLS)
def test_pools(case: Case) -> None:
    agree(case[0], *case[1]())


CLASSES = torch.tensor([1, 0, -100])
OF_SPACE = torch.tensor([[1, 0], [2, 3], [1, 1]])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64)

LOSSES: dict[str, Case] = {
    "cross-entropy": (lambda x: F.cross_entropy(x, CLASSES), lambda: (r(3, 4),)),
    "cross-entropy, smoothed": (lambda x: F.cross_entropy(x, CLASSES, label_smoothing=0.1), lambda: (r(3, 4),)),
    "cross-entropy, weighted": (
        lambda x: F.cross_entropy(x, OF_SPACE, WEIGHTS, label_smoothing=0.1, reduction="sum"), lambda: (r(3, 4, 2),),
    ),
    "cross-entropy, weighted mean": (
        lambda x: F.cross_entropy(x, CLASSES, WEIGHTS, label_smoothing=0.1), lambda: (r(3, 4),),
    ),
    "cross-entropy, each": (lambda x: F.cross_entropy(x, CLASSES, reduction="none"), lambda: (r(3, 4),)),
    "cross-entropy of likelihoods": (lambda x, t: F.cross_entropy(x, t.softmax(-1)), lambda: (r(3, 4), r(3, 4))),
    "cross-entropy of likelihoods, smoothed": (
        lambda x, t: F.cross_entropy(x, t.softmax(-1), WEIGHTS, label_smoothing=0.2), lambda: (r(3, 4), r(3, 4)),
    ),
    "cross-entropy of one": (lambda x: F.cross_entropy(x, torch.tensor(2)), lambda: (r(4),)),
    "nll": (lambda x: F.nll_loss(x, CLASSES), lambda: (r(3, 4),)),
    "squared": (F.mse_loss, lambda: (r(3, 4), r(3, 4))),
    "squared, summed": (lambda x, y: F.mse_loss(x, y, reduction="sum"), lambda: (r(3, 4), r(3, 4))),
    "absolute": (F.l1_loss, lambda: (r(3, 4), r(3, 4))),
    "smooth": (F.smooth_l1_loss, lambda: (r(3, 4), r(3, 4))),
    "huber": (F.huber_loss, lambda: (r(3, 4), r(3, 4))),
    "binary": (lambda x, t: F.binary_cross_entropy(x.sigmoid(), t.sigmoid()), lambda: (r(3, 4), r(3, 4))),
    "binary of logits": (
        lambda x, t: F.binary_cross_entropy_with_logits(x, t.sigmoid()), lambda: (r(3, 4), r(3, 4)),
    ),
    "divergence": (
        lambda x, t: F.kl_div(x.log_softmax(-1), t.softmax(-1), reduction="batchmean"), lambda: (r(3, 4), r(3, 4)),
    ),
}  # fmt: skip


@pytest.mark.every(5)
@every(LOSSES)
def test_losses(case: Case) -> None:
    agree(case[0], *case[1]())


# Structure -----------------------------------------------------------------------------------------------------------

SHAPES: dict[str, Case] = {
    "rearrange": (lambda x: rearrange(x, "b (h w) c -> b c h w", h=2) * 2, lambda: (r(2, 6, 3),)),
    "rearrange with rest": (lambda x: rearrange(x, "... y (h k) -> ... h y k", k=3), lambda: (r(2, 4, 6),)),
    "rearrange, joined": (lambda x: rearrange(x, "b h w -> (b w) h 1"), lambda: (r(2, 3, 4),)),
    "rearrange, several": (lambda x, y: rearrange([x, y], "n a b -> a (n b)"), lambda: (r(2, 3), r(2, 3))),
    "repeat": (lambda x: repeat(x, "b c -> b (c k) r", k=3, r=2), lambda: (r(2, 6),)),
    "view": (lambda x: x.view(2, -1).flatten() * 2, lambda: (r(3, 4),)),
    "view as another": (lambda x, y: x.view_as(y).sin() * y, lambda: (r(3, 4), r(2, 6))),
    "unflatten": (lambda x: x.unflatten(1, (2, 2)), lambda: (r(3, 4),)),
    "permute": (lambda x: x.permute(2, 0, -2), lambda: (r(3, 4, 2),)),
    "transpose": (lambda x: x.transpose(0, 1) @ x.T.mT, lambda: (r(3, 3),)),
    "transpose by other names": (lambda x: x.swapaxes(0, 2) * x.swapdims(-1, 0), lambda: (r(3, 2, 4),)),
    "movedim": (lambda x: x.movedim((0, 1), (-1, 0)), lambda: (r(3, 4, 2),)),
    "squeeze": (lambda x: x.squeeze().unsqueeze(0), lambda: (r(1, 3, 1),)),
    "expand": (lambda x: x[:, None].expand(3, 5, 4) * x[:, None], lambda: (r(3, 4),)),
    "expand size 1": (lambda x: x.expand(2, 3, 4), lambda: (r(3, 1),)),
    "copied": (lambda x: x.repeat(2, 1, 3), lambda: (r(3, 4),)),
    "nothing, copied": (lambda x: x.repeat(2, 3).sum() + x.sum(), lambda: (r(0, 4),)),
    "copied one by one": (lambda x: x.repeat_interleave(2, 1), lambda: (r(3, 4),)),
    "flip": (lambda x: x.flip(0, 1) * x, lambda: (r(3, 4),)),
    "roll": (lambda x: x.roll(1, 0) * x.roll((1, 2), (0, 1)), lambda: (r(3, 4),)),
    "roll of all": (lambda x: x.roll(1) * x, lambda: (r(3, 4),)),
    "triangles": (lambda x: x.tril() * x.triu(-1), lambda: (r(3, 4),)),
    "diagonal": (lambda x: x.diagonal(1, 0, 2), lambda: (r(3, 2, 4),)),
    "diag_embed": (torch.diag_embed, lambda: (r(3, 4),)),
    "cat": (lambda x, y: torch.cat([x, y, x], 1), lambda: (r(3, 4), r(3, 2))),
    "stack": (lambda x, y: torch.stack([x, y], 1), lambda: (r(3, 4), r(3, 4))),
    "split": (lambda x: x.split([1, 3], 1)[1] * 2, lambda: (r(3, 4),)),
    "chunk": (lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1], lambda: (r(3, 4),)),
    "unbind": (lambda x: x.unbind(1)[2] * x.unbind(-1)[0], lambda: (r(3, 4),)),
    "pad": (lambda x: F.pad(x, (1, -1, 2, 0), value=3.0), lambda: (r(3, 4),)),
    "pad, mirrored": (lambda x: F.pad(x, (1, 1), mode="reflect"), lambda: (r(3, 4),)),
    "pad, continued": (lambda x: F.pad(x, (2, 1), mode="replicate"), lambda: (r(1, 3, 4),)),
    "pad, round": (lambda x: F.pad(x, (1, 2), mode="circular"), lambda: (r(1, 3, 4),)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), lambda: (r(1, 4, 2, 2),)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), lambda: (r(1, 1, 4, 2),)),
    "windows": (lambda x: x.unfold(1, 3, 2), lambda: (r(3, 8),)),
    "unfold": (lambda x: F.unfold(x, 3, padding=1, stride=2), lambda: (r(2, 3, 5, 6),)),
    "fold": (lambda x: F.fold(x, (4, 4), 2), lambda: (r(2, 12, 9),)),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), lambda: (r(1, 2, 3, 3),)),
    "bilinear": (lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"), lambda: (r(1, 2, 3, 3),)),
    "identity": (lambda x: x.contiguous() * x.clone() + x, lambda: (r(3),)),
}

ROWS, PLACES = torch.tensor([0, 0, 2]), torch.tensor([[0, 1], [1, 2], [3, 0]])
BAGS, STARTS = torch.tensor([0, 1, 4, 0, 2, 4]), torch.tensor([0, 2, 2, 6])

INDICES: dict[str, Case] = {
    "slices": (lambda x: x[1:, None, ::2, ...], lambda: (r(3, 4),)),
    "a number": (lambda x: x[-1] * x[0, 1], lambda: (r(3, 4),)),
    "a list": (lambda x: x[[0, 1, 1], :2], lambda: (r(3, 4),)),
    "tensors, a place twice": (lambda x: x[ROWS, ROWS], lambda: (r(3, 4),)),
    "select": (lambda x: x.select(1, -1), lambda: (r(3, 4),)),
    "narrow": (lambda x: x.narrow(1, 1, 2), lambda: (r(3, 4),)),
    "gather": (lambda x: x.gather(1, PLACES), lambda: (r(3, 4),)),
    "index_select": (lambda x: x.index_select(1, ROWS), lambda: (r(3, 4),)),
    "take": (lambda x: x.take(PLACES), lambda: (r(3, 4),)),
    "take_along_dim": (lambda x: x.take_along_dim(PLACES, 1), lambda: (r(3, 4),)),
    "scatter": (lambda x, s: x.scatter(1, PLACES, s), lambda: (r(3, 4), r(3, 2))),
    "scatter a number": (lambda x: x.scatter(1, PLACES, 2.0), lambda: (r(3, 4),)),
    "scatter_add": (lambda x, s: x.scatter_add(1, PLACES, s), lambda: (r(3, 4), r(3, 2))),
    "index_put": (lambda x, v: x.index_put((ROWS[1:],), v), lambda: (r(3, 4), r(4))),
    "index_put, a number where a mask says": (
        lambda x, v: x.exp().index_put((x > 0,), v) * x.sin().index_put((x[:, 0] > 0,), v, accumulate=True),
        lambda: (r(3, 4), r()),
    ),
    "index_put, added": (lambda x, v: x.index_put((ROWS,), v, accumulate=True), lambda: (r(3, 4), r(3, 4))),
    "index_add": (lambda x, v: x.index_add(0, ROWS, v, alpha=2), lambda: (r(3, 4), r(3, 4))),
    "index_copy": (lambda x, v: x.index_copy(0, ROWS[1:], v), lambda: (r(3, 4), r(2, 4))),
    "index_fill": (lambda x: x.index_fill(0, ROWS, 2.0), lambda: (r(3, 4),)),
    "select_scatter": (lambda x, v: x.select_scatter(v, 1, 2), lambda: (r(3, 4), r(3))),
    "slice_scatter": (lambda x, v: x.slice_scatter(v, 1, 0, 4, 2), lambda: (r(3, 4), r(3, 2))),
    "diagonal_scatter": (lambda x, v: x.diagonal_scatter(v), lambda: (r(3, 4), r(3))),
    "embedding": (lambda w: F.embedding(PLACES, w), lambda: (r(4, 5),)),
    "embedding, padded": (lambda w: F.embedding(PLACES, w, padding_idx=0), lambda: (r(4, 5),)),
    "embedding, by how often": (lambda w: F.embedding(PLACES, w, scale_grad_by_freq=True), lambda: (r(4, 5),)),
    "bags, a padded one": (
        lambda w: F.embedding_bag(BAGS, w, STARTS, mode="mean", padding_idx=4), lambda: (r(5, 3),),
    ),
    "bags, the largest": (lambda w: F.embedding_bag(BAGS, w, STARTS, mode="max"), lambda: (r(5, 3),)),
    "bags, with the last offset": (
        lambda w: F.embedding_bag(BAGS, w, STARTS, mode="sum", include_last_offset=True), lambda: (r(5, 3),),
    ),
    "bags, weighed": (
        lambda w, s: F.embedding_bag(BAGS, w, STARTS, mode="sum", per_sample_weights=s, padding_idx=0),
        lambda: (r(5, 3), r(6)),
    ),
    "one_hot": (lambda x: F.one_hot(ROWS, 4) * x, lambda: (r(3, 4),)),
}  # fmt: skip


@pytest.mark.every(6)
@every(SHAPES)
def test_shapes(case: Case) -> None:
    agree(case[0], *case[1]())


@pytest.mark.every(4)
@every(INDICES)
def test_indices(case: Case) -> None:
    """torch has no second derivatives of bags, nor of embeddings scaled by frequency."""
    once = [each for name, each in INDICES.items() if "by how often" in name or "bags" in name]
    agree(case[0], *case[1](), order=1 if case in once else 2)


@pytest.mark.every(2)
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags_twice(mode: str) -> None:
    """The second derivatives of squared bags equal those of rows that are indexed and summed."""

    def by_rows(w: Tensor) -> Tensor:
        rows = [w[BAGS[start:end]] for start, end in ((0, 2), (2, 2), (2, 6))]
        return torch.stack([each.sum(0) / (max(1, len(each)) if mode == "mean" else 1) for each in rows]).square()

    w, back, slope = r(5, 3), r(3, 3), r(5, 3)
    gradients = [
        backward(backward(f, w))(w, back, slope)
        for f in (lambda w: F.embedding_bag(BAGS, w, STARTS[:-1], mode=mode).square(), by_rows)
    ]
    assert_same(list(gradients[0].values()), list(gradients[1].values()))


def test_bags_scaled_by_frequency_use_torch() -> None:
    def f(w: Tensor) -> Tensor:
        return F.embedding_bag(BAGS, w, STARTS, mode="sum", scale_grad_by_freq=True)

    agree(f, r(5, 3), order=1, opaque=("∂_embedding_bag",))


# Views changed in place ----------------------------------------------------------------------------------------------


def transposed_in_place(x: Tensor) -> Tensor:
    y = x * 2
    y.transpose_(0, 1)
    return y.swapaxes_(0, 1).sin() @ x.swapaxes(0, 1)


def stretched_in_place(x: Tensor) -> Tensor:
    y = x * 2
    return y.unsqueeze_(0).squeeze_(0).t_() @ x


def transposed_then_written(x: Tensor) -> Tensor:
    """A view is transposed back and then written: the base is changed at the original indexes."""
    y = x * 2
    z = y.t()
    z.t_()
    z[1].mul_(x[0])
    return y.sin() * z


def strided_in_place(x: Tensor) -> Tensor:
    return (x * 2).as_strided_((3, 2), (1, 2)) * 2


def detached_in_place(x: Tensor) -> Tensor:
    y = x * 2
    z = y + x
    return z * y.detach_()


@pytest.mark.parametrize("f", [transposed_in_place, stretched_in_place, transposed_then_written, detached_in_place])
def test_views_changed_in_place_are_differentiated(f: Callable[[Tensor], Tensor]) -> None:
    agree(f, r(3, 4))


def test_strides_set_in_place_use_torch() -> None:
    agree(strided_in_place, r(3, 4), opaque=("∂as_strided",))


def test_resize_in_place_is_refused_by_name() -> None:
    with pytest.raises(CircuitError, match="resize_ changes in place a tensor that gradients flow through"):
        backward(lambda x: (x * 2).resize_(2, 6), r(3, 4))


SEEN = torch.tensor([[True, False, True], [False, True, True]])

ATTENTIONS: dict[str, Case] = {
    "plain": (F.scaled_dot_product_attention, lambda: (r(2, 3, 4), r(2, 5, 4), r(2, 5, 6))),
    "causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
        lambda: (r(2, 3, 4), r(2, 3, 4), r(2, 3, 4)),
    ),
    "masked": (F.scaled_dot_product_attention, lambda: (r(4, 2, 4), r(4, 3, 4), r(4, 3, 4), SEEN)),
    "biased": (F.scaled_dot_product_attention, lambda: (r(4, 2, 4), r(4, 3, 4), r(4, 3, 4), r(2, 3))),
    "dropped out": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.4),
        lambda: (r(2, 3, 4), r(2, 5, 4), r(2, 5, 6)),
    ),
    "grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        lambda: (r(1, 4, 3, 2), r(1, 2, 5, 2), r(1, 2, 5, 2)),
    ),
}  # fmt: skip


@pytest.mark.every(6)
@every(ATTENTIONS)
def test_attentions(case: Case) -> None:
    """torch has no second derivatives of the fused kernel, so it is compared with the math kernel."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        agree(case[0], *case[1]())


# Operations without a rule -------------------------------------------------------------------------------------------

OPAQUE: dict[str, tuple[Case, str]] = {
    "masked_scatter": ((lambda x, y: x.masked_scatter(x > 0, y), lambda: (r(2, 2), r(4))), "∂masked_scatter"),
    "svd": ((torch.linalg.svdvals, lambda: (r(3, 4),)), "∂_linalg_svd"),
    "inverse": ((torch.linalg.inv, lambda: (r(3, 3),)), "∂linalg_inv_ex"),
    "determinant": ((torch.linalg.det, lambda: (r(3, 3),)), "∂_linalg_det"),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_operations_without_a_rule_use_torch_and_are_listed(name: str) -> None:
    (f, given), label = OPAQUE[name]
    agree(f, *given(), opaque=(label,))


def test_complex_intermediates_use_torch() -> None:
    agree(lambda x: torch.fft.rfft(x).abs(), r(5), opaque=("∂abs", "∂_fft_r2c"))


WINDOW = torch.hann_window(8, dtype=torch.float64)


@pytest.mark.slow
def test_short_time_fourier_transforms_use_torch_for_complex_values() -> None:
    """Inside one call, torch transposes the spectrum in place."""

    def spectrum(x: Tensor, w: Tensor) -> Tensor:
        return torch.view_as_real(torch.stft(x, 8, 4, window=w, return_complex=True))

    def restored(x: Tensor) -> Tensor:
        return torch.istft(torch.stft(x, 8, 4, window=WINDOW, return_complex=True) * 2, 8, 4, window=WINDOW)

    agree(spectrum, r(2, 40), WINDOW, opaque=("∂view_as_real", "∂transpose", "∂_fft_r2c"))
    opaque = ("∂_fft_c2r", "∂transpose", "∂unsqueeze", "∂mul", "∂squeeze", "∂_fft_r2c")
    agree(restored, r(40), opaque=opaque)


@torch.library.custom_op("circuits_tests::mul", mutates_args=())
def doubled(x: Tensor, other: Tensor) -> Tensor:
    """A custom operation: twice the product."""
    return x * other * 2


@doubled.register_fake
def _(x: Tensor, other: Tensor) -> Tensor:
    return torch.empty_like(x)


doubled.register_autograd(
    lambda ctx, back: (back * ctx.saved_tensors[1] * 2, back * ctx.saved_tensors[0] * 2),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def test_an_operation_of_another_library_has_its_own_gradient() -> None:
    """A rule is for ATen's operation, not for operations of the same name in other libraries."""
    agree(lambda x, y: doubled(x, y).sin(), r(3), r(3), order=1, opaque=("∂circuits_tests.mul",))
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    agree(lambda x: torch.copysign(x, signs), r(3), opaque=("∂copysign",))  # torch decomposes it into prims.where


def test_a_wrong_decomposition_of_torch_is_not_used() -> None:
    """In torch 2.13 the decomposition of this loss returns another number than the loss."""
    classes = torch.tensor([[3, 0, -1, 1]])
    opaque = ("∂multilabel_margin_loss_forward",)
    agree(lambda x: F.multilabel_margin_loss(x, classes), r(1, 4), order=1, opaque=opaque)


def test_torch_computes_only_the_gradients_that_are_needed() -> None:
    """torch has no derivative with respect to the samples of a fractional pool, and none is needed."""
    samples = torch.rand(1, 2, 2, dtype=torch.float64)

    def pooled(x: Tensor) -> Tensor:
        return F.fractional_max_pool2d(x, 2, output_size=3, _random_samples=samples)

    agree(pooled, r(1, 2, 6, 6), order=1, opaque=("∂fractional_max_pool2d",))


def test_random_operations_without_a_rule_are_refused_by_name() -> None:
    with pytest.raises(CircuitError, match="_sample_dirichlet draws random numbers"):
        backward(lambda x: torch.ops.aten._sample_dirichlet(x), positive(3, 4))


# The registry --------------------------------------------------------------------------------------------------------


def test_a_rule_is_registered_once() -> None:
    with pytest.raises(ValueError, match="mul has two reverse rules"):
        reverses("mul")(lambda dy: dy)
    with pytest.raises(ValueError, match="dropout has two definitions"):
        defines("dropout")(lambda x: x)
    assert isinstance(RULES["mul"], Rule)


def differentiable(name: str) -> list[Any]:
    """Return the overloads of an operation that return tensors from tensors and write to none."""
    packet = getattr(torch.ops.aten, name)
    found = [getattr(packet, each)._schema for each in packet.overloads()]
    return [
        each for each in found
        if not each.is_mutable and "Dimname" not in f"{each}" and "Dict" not in f"{each}"
        and any("Tensor" in f"{a.type}" for a in each.arguments) and any("Tensor" in f"{a.type}" for a in each.returns)
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in RULES if isinstance(name, str)])
def test_parameters_of_a_rule_are_arguments_of_its_operation(name: str) -> None:
    """Each parameter of a rule is an argument of every overload, or has a default."""
    parameters = inspect.signature(RULES[name].function).parameters.values()
    required = {each.name for each in parameters if each.default is each.empty} - {"dy", "y"}
    for schema in differentiable(name):
        if (name, schema.overload_name) in (("where", ""), ("einsum", "sublist")):
            continue  # where with only a condition returns integers; einsum.sublist is not a separate operation
        available = {"x" if each.name in ("self", "input") else each.name for each in schema.arguments}
        assert required <= available, schema


def test_rules_and_definitions_are_of_different_operations() -> None:
    assert not set(RULES) & set(DEFINITIONS)


# Planted defects -----------------------------------------------------------------------------------------------------

Planted = tuple[str, Callable[..., Any], Callable[..., Any], Callable[[], tuple[Tensor, ...]]]


def wrong_linear(dy: Tensor, x: Tensor, weight: Tensor, bias: Any) -> Any:
    twice = einsum(dy, x, "... o, ... i -> o i") * 2
    return {"x": einsum(dy, weight, "... o, o i -> ... i"), "weight": twice}


def wrong_stride(dy: Tensor, x: Tensor, weight: Tensor, stride: Any) -> Any:
    back = F.conv_transpose1d(dy, weight, stride=[each + 1 for each in stride])
    return {"x": back[..., : x.shape[-1]]}


def wrong_group(dy: Tensor, x: Tensor, weight: Tensor) -> Any:
    return {"weight": torch.zeros_like(weight) + (dy.sum() * x.mean())}


PLANTED: dict[str, Planted] = {
    "a missing transpose": (
        "mm",
        lambda dy, x, mat2: {"x": dy @ mat2, "mat2": x.mT @ dy},
        torch.mm,
        lambda: (r(3, 3), r(3, 3)),
    ),
    "the wrong one of two": (
        "matmul",
        lambda dy, x, other: {"x": dy @ x, "other": dy @ other},
        torch.matmul,
        lambda: (r(3, 3), r(3, 3)),
    ),
    "twice the weight": ("linear", wrong_linear, F.linear, lambda: (r(2, 4), r(3, 4), r(3))),
    "a sum over the wrong axis": (
        "sum",
        lambda dy, x: dy.unsqueeze(0) * torch.ones_like(x),
        lambda x: x.sum(1),
        lambda: (r(3, 3),),
    ),
    "a mean without its divisor": ("mean", lambda dy, x: dy.expand(x.shape), lambda x: x.mean(), lambda: (r(3, 4),)),
    "softmax without its second term": ("softmax", lambda dy, y: dy * y, lambda x: x.softmax(1), lambda: (r(3, 4),)),
    "softmax summed over another axis": (
        "softmax",
        lambda dy, y: y * (dy - (dy * y).sum(0, keepdim=True)),
        lambda x: x.softmax(1),
        lambda: (r(3, 4),),
    ),
    "log_softmax by the wrong sign": (
        "log_softmax",
        lambda dy, y, dim: dy + y.exp() * dy.sum(dim, keepdim=True),
        lambda x: x.log_softmax(1),
        lambda: (r(3, 4),),
    ),
    "a derivative at the output": ("sin", lambda dy, y: dy * y.cos(), torch.sin, lambda: (r(3),)),
    "a derivative at the input": ("tanh", lambda dy, x: dy * (1 - x * x), torch.tanh, lambda: (r(3),)),
    "a lost minus": ("neg", lambda dy: dy, torch.neg, lambda: (r(3),)),
    "the sign of a difference": ("sub", lambda dy: {"x": dy, "other": dy}, torch.sub, lambda: (r(3), r(3))),
    "a product by itself": (
        "mul",
        lambda dy, x, other: {"x": dy * x, "other": dy * other},
        torch.mul,
        lambda: (r(3), r(3)),
    ),
    "a quotient once": (
        "div",
        lambda dy, x, other: {"x": dy / other, "other": -dy * x / other},
        torch.div,
        lambda: (r(3), positive(3)),
    ),
    "a power too many": ("pow", lambda dy, x, exponent: dy * exponent * x**exponent, lambda x: x**3, lambda: (r(3),)),
    "relu on the other side": ("relu", lambda dy, y: dy.masked_fill(y > 0, 0), torch.relu, lambda: (r(5),)),
    "norm without its mean": (
        "layer_norm",
        lambda dy, x: dy * x.var(-1, keepdim=True, correction=0).add(1e-5).rsqrt(),
        lambda x: F.layer_norm(x, (4,)),
        lambda: (r(3, 4),),
    ),
    "a convolution by the wrong stride": (
        "conv1d",
        wrong_stride,
        lambda x, w: F.conv1d(x, w, stride=2),
        lambda: (r(1, 2, 7), r(2, 2, 3)),
    ),
    "one gradient for all weights": ("conv1d", wrong_group, F.conv1d, lambda: (r(1, 2, 5), r(2, 2, 3))),
    "an index written instead of added": (
        "index",
        lambda dy, x, indices: torch.zeros_like(x).index_put(tuple(indices), dy),
        lambda x: x[ROWS],
        lambda: (r(4, 2),),
    ),
    "a permutation instead of its inverse": (
        "permute",
        lambda dy, dims: dy.permute(list(dims)),
        lambda x: x.permute(1, 2, 0),
        lambda: (r(3, 3, 3),),
    ),
    "a roll the same way": (
        "roll",
        lambda dy, shifts, dims: dy.roll(shifts, dims),
        lambda x: x.roll(1, 0),
        lambda: (r(3, 2),),
    ),
    "parts in the wrong order": (
        "cat",
        lambda dy, dim: {"tensors": list(dy.chunk(2, dim))[::-1]},
        lambda a, b: torch.cat([a, b], 1),
        lambda: (r(2, 3), r(2, 3)),
    ),
    "a maximum to all": (
        "amax",
        lambda dy, x: dy.expand(x.shape),
        lambda x: x.amax((0, 1)),
        lambda: (r(3, 3),),
    ),
    "a running sum forwards": ("cumsum", lambda dy, dim: dy.cumsum(dim), lambda x: x.cumsum(0), lambda: (r(4),)),
    "a gradient through detach": ("detach", lambda dy: dy, lambda x: x.detach() * x, lambda: (r(3),)),
}


@pytest.mark.every(5)
@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation, rule, f, given = PLANTED[name]
    inputs = given()
    agree(f, *inputs)
    monkeypatch.setitem(RULES, operation, Rule(rule, tuple(inspect.signature(rule).parameters)))
    with pytest.raises(AssertionError, match="not close"):
        agree(f, *inputs)
