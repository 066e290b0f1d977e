"""Identities 9, 10, 13 and 14 of the reference, over backward circuits: in float64, at random sizes, size 1 included.

The expected values are computed in another way: by loops over Python's numbers, by the formulas of the reference, by
attention over the keys that remain when the masked ones are removed, or by torch.func. Identity 11, on attention's
contractions, is in test_recompute.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import Diagram, Window, backward, circuit, einsum, forward_backward, simplify, trace, unfold
from models import MultiHeadAttention, VisualAttention
from models.attention import attention
from models.parts.masks import softmax_or_zeros

SIZE = st.integers(1, 5)
FREE = st.integers(2, 6)
SEED = st.integers(0, 2**31)

rare, few, some = settings(max_examples=2), settings(max_examples=4), settings(max_examples=8)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def near(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected)


# Identity 9 ----------------------------------------------------------------------------------------------------------


@circuit("a b -> a b")
def weights(score: Tensor) -> Tensor:
    return score.softmax(-1)


def by_loops(score: Tensor, dy: Tensor) -> Tensor:
    """dx = y (dy - <dy, y>), number by number."""
    rows = []
    for row, back in zip(score.tolist(), dy.tolist(), strict=True):
        powers = [math.exp(each) for each in row]
        y = [power / sum(powers) for power in powers]
        inner = sum([a * b for a, b in zip(y, back, strict=True)])
        rows.append([a * (b - inner) for a, b in zip(y, back, strict=True)])
    return torch.tensor(rows, dtype=torch.float64)


@cache
def free_weights() -> Diagram:
    return backward(weights)


@some
@given(a=SIZE, b=SIZE, seed=SEED)
def test_identity_9_softmax_backward(a: int, b: int, seed: int) -> None:
    torch.manual_seed(seed)
    score, dy = randn(a, b), randn(a, b)
    diagrams = [backward(weights, score)] + ([free_weights()] if a > 1 < b else [])
    for diagram in diagrams:
        near(diagram(score, dy)["score"], by_loops(score, dy))


SHIFTED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": lambda score, value: score.softmax(-1) @ value,
    "log_softmax": lambda score, value: score.log_softmax(-1) @ value,
    "logsumexp": lambda score, value: score.logsumexp(-1) * value.sum(),
    "by einsum": lambda score, value: einsum(score.softmax(-1), value, "a b, b -> a"),
}


@pytest.mark.parametrize("name", SHIFTED)
@few
@given(a=SIZE, b=SIZE, shift=st.floats(-300, 300), seed=SEED)
def test_identity_9_shifting_the_scores_changes_no_gradient(name: str, a: int, b: int, shift: float, seed: int) -> None:
    """If the output does not depend on the shift, each row of the gradient sums to 0.

    A score of 300 has a rounding error of 6e-14 itself, which later values inherit.
    """
    torch.manual_seed(seed)
    score, value, dy = randn(a, b), randn(b), randn(a)
    diagram = backward(SHIFTED[name], score, value)
    here, there = diagram(score, value, dy), diagram(score + shift, value, dy)
    assert torch.allclose(here["score"], there["score"], rtol=1e-9, atol=1e-11)
    if name == "logsumexp":  # which grows by the shift
        near(here["score"].sum(-1), dy * value.sum())
    else:
        assert torch.allclose(here["value"], there["value"], rtol=1e-9, atol=1e-11)
        near(here["score"].sum(-1), torch.zeros_like(dy))


@rare
@given(m=SIZE, k=SIZE, h=st.integers(1, 3), y=SIZE, x=SIZE, seed=SEED)
def test_identity_9_attention_has_no_gradient_by_the_bias_of_its_keys(
    m: int, k: int, h: int, y: int, x: int, seed: int
) -> None:
    """A bias on every key shifts all scores of a query alike: its gradient is 0 up to rounding, the query's is not."""
    torch.manual_seed(seed)
    model = MultiHeadAttention(m, k, h, bias=True, dtype=torch.float64)
    target, source, dy = randn(y, m), randn(x, m), randn(y, m)
    found = backward(model, target, source)(target, source, dy)
    assert found["Lk.bias"].abs().max() < 1e-14 * (1 + found["Lk.weight"].abs().max())
    if x > 1:
        assert found["Lq.bias"].abs().max() > 1e-9


# Identity 10 ---------------------------------------------------------------------------------------------------------

CROSS_ENTROPIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log_softmax": lambda score, target: -(target * score.log_softmax(-1)).sum(),
    "logsumexp": lambda score, target: (target * (score.logsumexp(-1) - score)).sum(),
    "cross_entropy": lambda score, target: F.cross_entropy(score, target),
    "log of softmax": lambda score, target: -einsum(target, score.softmax(-1).log(), "a, a ->"),
}


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
@few
@given(a=SIZE, seed=SEED)
def test_identity_10_hessian_of_cross_entropy(name: str, a: int, seed: int) -> None:
    """(diag p - p pᵀ) Σ target, row by row, from the backward circuit of the backward circuit; targets of any sum."""
    torch.manual_seed(seed)
    score, target, one = randn(a), torch.rand(a).double() + 0.1, torch.ones((), dtype=torch.float64)
    first = backward(CROSS_ENTROPIES[name], score, target, wrt="score")
    second = backward(first, wrt="score")
    rows = [second(score, target, one, unit)["score"] for unit in torch.eye(a, dtype=torch.float64)]
    powers = [math.exp(each) for each in score.tolist()]
    p = [power / sum(powers) for power in powers]
    total = sum(target.tolist())
    expected = [[total * ((i == j) * p[i] - p[i] * p[j]) for j in range(a)] for i in range(a)]
    near(torch.stack(rows), torch.tensor(expected, dtype=torch.float64))


# Identity 13 ---------------------------------------------------------------------------------------------------------

MASKS = ("bool", "floating", "window")
OPEN = torch.tensor([[True, False]])


@pytest.mark.parametrize("kind", ["bool", "floating"])
def test_identity_13_a_masked_score_of_200_has_weight_0(kind: str) -> None:
    """Scores (0, 200), the second masked: weights (1, 0) exactly, and a gradient by the first value only."""
    mask = OPEN if kind == "bool" else torch.zeros(1, 2).double().masked_fill(~OPEN, -torch.inf)
    query, key = torch.ones(1, 1).double(), torch.tensor([[0.0], [200.0]]).double()
    value, dy = torch.tensor([[3.0], [7.0]]).double(), torch.tensor([[5.0]]).double()
    assert trace(attention, query, key, value, mask=mask)(query, key, value, mask).item() == 3.0
    wrt = ["query", "key", "value"]
    found = backward(attention, query, key, value, mask=mask, wrt=wrt)(query, key, value, mask, dy)
    assert [each.flatten().tolist() for each in found.values()] == [[0.0], [0.0, 0.0], [5.0, 0.0]]


def without_the_masked(
    query: Tensor, key: Tensor, value: Tensor, may: Tensor, more: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of attention in which each query has only the keys that it may attend to; zeros if none."""
    leaves = [each.clone().requires_grad_() for each in (query, key, value)]
    q, k, v = leaves
    total = torch.zeros((), dtype=torch.float64)
    for y in range(len(query)):
        seen = may[y].nonzero()[:, 0]
        if len(seen):
            score = k[seen] @ q[y] / math.sqrt(query.shape[-1]) + more[y, seen]
            weight = score.exp() / score.exp().sum()
            total = total + (weight @ v[seen]) @ dy[y]
    if not total.requires_grad:
        return tuple([torch.zeros_like(each) for each in leaves])
    return torch.autograd.grad(total, leaves)


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", MASKS)
@few
@given(y=SIZE, x=SIZE, k=SIZE, seed=SEED)
def test_identity_13_masked_keys_have_no_influence(kind: str, y: int, x: int, k: int, seed: int) -> None:
    """Also in rows that are entirely masked: their outputs are defined, and their gradients are zeros, not NaN."""
    torch.manual_seed(seed)
    query, key, value, dy, more = randn(y, k), randn(x, k), randn(x, k), randn(y, k), torch.zeros(y, x).double()
    may = torch.rand(y, x) < 0.5
    may[0] = False
    options: dict[str, Any] = {"mask": may}
    if kind == "floating":
        more = randn(y, x)
        options = {"mask": more.masked_fill(~may, -torch.inf)}
    if kind == "window":
        places = torch.arange(y)[:, None] - torch.arange(x)
        may = may & (places >= 0) & (places < 2)
        options |= {"window": 2, "causal": True}
    diagram = backward(attention, query, key, value, wrt=["query", "key", "value"], **options)
    found = diagram(query, key, value, options["mask"], dy)
    near(tuple(found.values()), without_the_masked(query, key, value, may, more, dy))
    assert found["query"][0].tolist() == [0.0] * k


@some
@given(a=SIZE, b=SIZE, seed=SEED)
def test_identity_13_a_row_masked_as_a_whole_is_zeros(a: int, b: int, seed: int) -> None:
    """Softmax returns NaN for such a row; `softmax_or_zeros` returns zeros, also as gradient and second gradient."""
    torch.manual_seed(seed)
    score, dy = randn(a, b), randn(a, b)
    score[0] = -torch.inf
    assert score[0].softmax(-1).isnan().all()
    assert softmax_or_zeros(score)[0].tolist() == [0.0] * b
    first = backward(softmax_or_zeros, score)
    (found,) = first(score, dy).values()
    assert found[0].tolist() == [0.0] * b
    near(found[1:], by_loops(score[1:], dy[1:]) if a > 1 else found[1:])
    again = backward(first)(score, dy, randn(a, b))
    assert not any(each.isnan().any() for each in again.values())


# Identity 14 ---------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A function that makes a circuit, and the axes of the circuit's inputs."""

    make: Callable[..., Any]
    axes: tuple[str, ...]
    slow: bool = False


@circuit("... a -> ... a")
def chain(x: Tensor) -> Tensor:
    """Reads a value twice, overwrites a view, normalises and reduces."""
    y = F.layer_norm(x, x.shape[-1:]) + x.cumsum(-1)
    z = y.clone()
    z[..., :1] = y[..., -1:] * 2
    return z * y.logsumexp(-1, keepdim=True) - z.mean(-1, keepdim=True)


@circuit("... a, i -> ... a-i+1")
def slid(x: Tensor, kernel: Tensor) -> Tensor:
    """A convolution as windows and a contraction."""
    seen = unfold(x, "... a -> ... a' i", Window("a", "a'", "i", kernel.shape[0]))
    return einsum(seen, kernel, "... a i, i -> ... a")


CASES: dict[str, Case] = {
    "attention": Case(lambda **_: attention, ("y k", "x k", "x k")),
    "chain": Case(lambda **_: chain, ("b y",)),
    "heads": Case(lambda m, k, **_: MultiHeadAttention(m, k, 2, bias=True), ("b y m", "b x m"), True),
    "layers": Case(lambda m, k, **_: nn.Sequential(nn.Linear(m, k), nn.GELU(), nn.Linear(k, m), nn.Tanh()), ("y m",)),
    "windows": Case(lambda **_: slid, ("b 7", "k")),
    "visual": Case(lambda m, k, **_: VisualAttention(m, k, kernel=2, stride=2), ("1 m 4 6", "1 m 4 6"), True),
}


def drawn(case: Case, sizes: dict[str, int]) -> tuple[Any, list[Tensor]]:
    f = case.make(**sizes)
    shapes = [[sizes[axis] if axis in sizes else int(axis) for axis in axes.split()] for axes in case.axes]
    return f.double() if isinstance(f, nn.Module) else f, [randn(*shape) for shape in shapes]


def by_torch(f: Any, inputs: list[Tensor], dy: Tensor) -> list[Tensor]:
    leaves = [each.clone().requires_grad_() for each in inputs]
    parameters = list(f.parameters()) if isinstance(f, nn.Module) else []
    return list(torch.autograd.grad(f(*leaves), [*leaves, *parameters], dy))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * case.slow) for name, case in CASES.items()]
)
@rare
@given(sizes=st.fixed_dictionaries(dict.fromkeys("bymkx", SIZE)), seed=SEED)
def test_identity_14_a_diagram_computes_what_the_circuit_computes(name: str, sizes: dict[str, int], seed: int) -> None:
    """The same for its generated code, autograd through it, and its gradient as one diagram, simplified, and as two."""
    torch.manual_seed(seed)
    f, inputs = drawn(CASES[name], sizes)
    diagram, output = trace(f, *inputs), f(*inputs)
    dy = torch.randn_like(output)
    expected = by_torch(f, inputs, dy)
    near(diagram(*inputs), output)
    near(diagram.function()(*inputs), output)
    leaves = [each.clone().requires_grad_() for each in inputs]
    parameters = list(f.parameters()) if isinstance(f, nn.Module) else []
    near(list(torch.autograd.grad(diagram(*leaves), [*leaves, *parameters], dy)), expected)
    joint = backward(diagram)
    for each in (joint, simplify(joint), joint.function()):
        near(list(each(*inputs, dy).values()), expected)
    halves = forward_backward(diagram)
    again, saved = halves.forward(*inputs)
    near(again, output)
    near(list(halves.reverse(saved, dy).values()), expected)


@cache
def free(name: str) -> tuple[Diagram, Diagram]:
    """Return a diagram with free axes and its gradient, recorded with float64 as default dtype, for new zeros."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        diagram = trace(CASES[name].make())
        return diagram, backward(diagram)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", ["attention", "chain"])
@few
@given(sizes=st.fixed_dictionaries(dict.fromkeys("bymkx", FREE)), seed=SEED)
def test_identity_14_recorded_once_and_run_at_other_sizes(name: str, sizes: dict[str, int], seed: int) -> None:
    torch.manual_seed(seed)
    f, inputs = drawn(Case(CASES[name].make, {"chain": ("y",)}.get(name, CASES[name].axes)), sizes)
    diagram, joint = free(name)
    output = f(*inputs)
    dy = torch.randn_like(output)
    near(diagram(*inputs), output)
    near(list(joint(*inputs, dy).values()), by_torch(f, inputs, dy))
