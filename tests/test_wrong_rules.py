"""Wrong reverse rules, planted one at a time, and a comparison with autograd that sees each of them.

A table: the rule, its defect, and the function on whose random numbers it is caught.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import backward, einsum, reduce, verbs
from circuits.reversing.registry import RULES, Rule, reverses, zeros


def r(*shape: int) -> Tensor:
    """Random numbers of this shape."""
    return torch.randn(shape, dtype=torch.float64)


def differs(f: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> str:
    """What autograd says against the backward circuit of f; nothing, if they agree."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    output = f(*leaves)
    cotangent = torch.randn_like(output)
    wanted = torch.autograd.grad(output, leaves, cotangent)
    try:
        found = list(backward(f, *inputs)(*inputs, cotangent).values())
        torch.testing.assert_close(found, list(wanted), rtol=1e-9, atol=1e-9)
    except Exception as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Wrong:
    """The name of a rule, what stands in its place, and the function that shows it."""

    name: Any
    rule: Callable[..., Any]
    caught_by: Callable[..., Tensor]
    inputs: Callable[[], tuple[Tensor, ...]]


TIES = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], dtype=torch.float64)

WRONG: dict[str, Wrong] = {
    "matmul: a transpose is missing": Wrong(
        "matmul", lambda dy, x, other: {"x": dy @ other, "other": x.mT @ dy}, torch.matmul, lambda: (r(3, 3), r(3, 3))
    ),
    "matmul: what was stretched is not summed": Wrong(
        "matmul", lambda dy, x, other: {"x": dy @ other.mT, "other": (x.mT @ dy)[0]}, torch.matmul,
        lambda: (r(2, 3, 4), r(4, 5)),
    ),
    "linear: the bias is summed over the wrong axis": Wrong(
        "linear", lambda dy, x, weight, bias: {"x": dy @ weight, "weight": dy.mT @ x, "bias": dy.sum(1)}, F.linear,
        lambda: (r(3, 4), r(3, 4), r(3)),
    ),
    "linear: the weight's cotangent is transposed": Wrong(
        "linear", lambda dy, x, weight: {"x": dy @ weight, "weight": x.mT @ dy}, lambda x, w: F.linear(x, w),
        lambda: (r(4, 3), r(3, 3)),
    ),
    "einsum: the others meet without the cotangent": Wrong(
        verbs.einsum, lambda dy, args: {"args": [args[1] * 1.0, dy, None]},
        lambda a, b: einsum(a, b, "i j, i j -> i j"), lambda: (r(3, 3), r(3, 3)),
    ),
    "reduce: the mean is not shared out": Wrong(
        verbs.reduce, lambda dy, args: {"args": [dy.unsqueeze(-1).expand(args[0].shape), None, None]},
        lambda x: reduce(x, "a b -> a", "mean"), lambda: (r(3, 4),),
    ),
    "softmax: the weighted sum is lost": Wrong(
        "softmax", lambda dy, y: dy * y, lambda x: x.softmax(-1), lambda: (r(3, 4),)
    ),
    "softmax: the sum is over the wrong axis": Wrong(
        "softmax", lambda dy, y: y * (dy - (dy * y).sum(0, keepdim=True)), lambda x: x.softmax(-1), lambda: (r(4, 4),)
    ),
    "log_softmax: the result is not raised": Wrong(
        "log_softmax", lambda dy, y, dim: dy - y * dy.sum(dim, keepdim=True), lambda x: x.log_softmax(-1),
        lambda: (r(3, 4),),
    ),
    "logsumexp: shared out in equal parts": Wrong(
        "logsumexp", lambda dy, x: (dy.unsqueeze(-1) / x.shape[-1]).expand(x.shape), lambda x: x.logsumexp(-1),
        lambda: (r(3, 4),),
    ),
    "mean: without 1/n": Wrong(
        "mean", lambda dy, x: dy.unsqueeze(-1).expand(x.shape), lambda x: x.mean(-1), lambda: (r(3, 4),)
    ),
    "sum: along the wrong axis": Wrong(
        "sum", lambda dy, x: dy.unsqueeze(0).expand(x.shape), lambda x: x.sum(1), lambda: (r(3, 3),)
    ),
    "amax: equals get it all": Wrong(
        "amax", lambda dy, y, x: (x == y.unsqueeze(1)) * dy.unsqueeze(1), lambda x: x.amax(1), lambda: (TIES,)
    ),
    "maximum: the first gets it all where both are equal": Wrong(
        "maximum", lambda dy, x, other: {"x": dy * (x >= other), "other": dy * (x < other)}, torch.maximum,
        lambda: (TIES, TIES.clone()),
    ),
    "relu: also where it is 0": Wrong(
        "relu", lambda dy, y: dy * (y >= 0), lambda x: x.relu(), lambda: (torch.tensor([-1.0, 0, 2]).double(),)
    ),
    "sub: the sign of the second": Wrong(
        "sub", lambda dy: {"x": dy, "other": dy}, torch.sub, lambda: (r(3), r(3))
    ),
    "cos: the sign": Wrong("cos", lambda dy, x: dy * x.sin(), torch.cos, lambda: (r(3),)),
    "mul: what was stretched is not summed": Wrong(
        "mul", lambda dy, x, other: {"x": dy * other, "other": (dy * x)[:1]}, torch.mul, lambda: (r(3, 4), r(1, 4))
    ),
    "div: the square is lost": Wrong(
        "div", lambda dy, x, other: {"x": dy / other, "other": -dy * x / other}, torch.div, lambda: (r(3), r(3) + 5)
    ),
    "pow: the exponent stays": Wrong(
        "pow", lambda dy, x, exponent: dy * exponent * x**exponent, lambda x: x**3, lambda: (r(3),)
    ),
    "gelu: one term of a product": Wrong(
        "gelu", lambda dy, x: dy * (torch.erf(x * 0.5**0.5) + 1) * 0.5, F.gelu, lambda: (r(4),)
    ),
    "permute: the same order again": Wrong(
        "permute", lambda dy, dims: dy.permute(dims), lambda x: x.permute(1, 2, 0), lambda: (r(3, 3, 3),)
    ),
    "roll: the same way again": Wrong(
        "roll", lambda dy, shifts, dims: torch.roll(dy, shifts, dims), lambda x: x.roll(1, 0), lambda: (r(4),)
    ),
    "select: a place too far": Wrong(
        "select", lambda dy, x, dim, index: torch.select_scatter(zeros(x), dy, dim, index + 1),
        lambda x: x.select(0, 1), lambda: (r(4, 2),),
    ),
    "cat: the pieces in the wrong order": Wrong(
        "cat", lambda dy, dim: {"tensors": dy.chunk(2, dim)[::-1]}, lambda a, b: torch.cat([a, b]),
        lambda: (r(3), r(3)),
    ),
    "windows: folded with the wrong step": Wrong(
        "unfold", lambda dy, x: zeros(x).index_add(0, torch.arange(6), dy.reshape(6)), lambda x: x.unfold(0, 2, 3),
        lambda: (r(8),),
    ),
    "conv1d: the dilation is dropped": Wrong(
        "conv1d", lambda dy, x, weight: {"x": F.pad(F.conv_transpose1d(dy, weight), (0, 2)), "weight": None},
        lambda x: F.conv1d(x, torch.ones(3, 2, 3).to(x).cumsum(0), dilation=2), lambda: (r(1, 2, 7),),
    ),
    "gather: written over where it was read twice": Wrong(
        "gather", lambda dy, x, dim, index: zeros(x).scatter(dim, index, dy),
        lambda x: x.gather(0, torch.tensor([0, 0, 1])), lambda: (r(3),),
    ),
    "exp: the argument for the result": Wrong("exp", lambda dy, x: dy * x, torch.exp, lambda: (r(3),)),
    "sigmoid: the result taken for the argument": Wrong(
        "sigmoid", lambda dy, y: dy * y.sigmoid() * (1 - y.sigmoid()), torch.sigmoid, lambda: (r(3),)
    ),
}  # fmt: skip


@pytest.mark.parametrize("defect", WRONG)
def test_a_wrong_rule_is_caught(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule in its place agrees; the wrong one does not."""
    wrong = WRONG[defect]
    inputs = wrong.inputs()
    assert not differs(wrong.caught_by, inputs)
    kept = RULES[wrong.name]
    monkeypatch.delitem(RULES, wrong.name)
    reverses(wrong.name)(wrong.rule)
    planted: Rule = RULES[wrong.name]
    try:
        said = differs(wrong.caught_by, inputs)
    finally:
        RULES[wrong.name] = kept
    assert planted is not kept
    assert "not close" in said, said


def written_later(x: Tensor) -> Tensor:
    """2x; autograd refuses to reverse it, as the 2 is a 6 by then."""
    double = torch.full_like(x, 2.0)
    found = x * double
    double.mul_(3)
    return found


def test_a_saved_input_that_changed_is_read_as_it_was() -> None:
    x, ones = r(3), torch.ones(3, dtype=torch.float64)
    assert torch.equal(backward(written_later, x)(x, ones)["x"], 2 * ones)
