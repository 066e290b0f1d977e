import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, definitions, trace
from models.attention import MultiHeadAttention, attention, grouped_attention
from models.parts.positions import RotaryPositions

# --- Oracles: slower, plainer, and written without this library -------------------------------------------------------


def by_loops(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    start: int = 0,
) -> Tensor:
    """Attention of one example, computed number by number."""
    rows, query, key, value = [], query.detach(), key.detach(), value.detach()
    for i in range(len(query)):
        shares, mixed = [], torch.zeros_like(query[i])
        for j in range(len(key)):
            score = float(sum(query[i, a] * key[j, a] for a in range(query.shape[1]))) / math.sqrt(query.shape[1])
            if causal and j > start + i:
                score = -math.inf
            if window is not None and (j <= start + i - window or j >= start + i + window):
                score = -math.inf
            if mask is not None and mask.dtype == torch.bool:
                score = score if mask[i, j] else -math.inf
            elif mask is not None:
                score += float(mask[i, j])
            shares.append(score)
        highest = max(shares, default=-math.inf)
        if highest > -math.inf:
            shares = [math.exp(score - highest) for score in shares]
            for j, share in enumerate(shares):
                mixed = mixed + share / sum(shares) * value[j]
        rows.append(mixed)
    return torch.stack(rows)


def step_by_step(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The paper's first version and Figure 17: transpose, outer product, diagonal, inner product, step by step."""
    transposed = key.transpose(0, 1)  # k x
    outer = torch.tensordot(query, transposed, dims=0)  # y k k x
    diagonal = torch.diagonal(outer, dim1=1, dim2=2)  # y x k
    score = diagonal.sum(-1) / math.sqrt(query.shape[-1])  # y x
    weight = nn.Softmax(-1)(score)
    outer = torch.tensordot(weight, value, dims=0)  # y x x k
    return torch.diagonal(outer, dim1=1, dim2=2).sum(-1)


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


MASKS: dict[str, Callable[[int, int, torch.dtype], Tensor | None]] = {
    "none": lambda y, x, dtype: None,
    "bool": lambda y, x, dtype: (torch.rand(y, x) < 0.6) | (torch.arange(x) == 0),
    "bool, first and last row empty": lambda y, x, dtype: (torch.rand(y, x) < 0.6) & within(y),
    "bool, all empty": lambda y, x, dtype: torch.zeros(y, x, dtype=torch.bool),
    "floating": lambda y, x, dtype: torch.randn(y, x, dtype=dtype),
    "floating, some rows empty": lambda y, x, dtype: torch.randn(y, x, dtype=dtype).masked_fill(~within(y), -torch.inf),
}


def within(y: int) -> Tensor:
    """True except in the first and the last row."""
    return ((torch.arange(y) > 0) & (torch.arange(y) < y - 1))[:, None]


both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])


# --- The definition, and the kernel, against the oracles --------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("y", "x"), [(4, 6), (6, 4), (1, 1)])
def test_attention_number_by_number(way: Any, name: str, causal: bool, y: int, x: int) -> None:
    query, key, value = tensors((y, 3), (x, 3), (x, 3))
    mask = MASKS[name](y, x, torch.float64)
    with way():
        answer = attention(query, key, value, mask, causal=causal)
    torch.testing.assert_close(answer, by_loops(query, key, value, mask, causal))


REACHES: list[dict[str, Any]] = [
    {"window": 1},
    {"window": 2, "causal": True},
    {"window": 3, "start": 2},
    {"window": 100, "causal": True},
    {"start": 3, "causal": True},
    {"start": 5},
    {"window": 2, "start": 4},
    {"window": 2, "start": 4, "causal": True},
    {"window": 1, "start": 30},
]
"""Arguments that limit by position what a query may attend to; with some of them, rows may attend to nothing."""


@pytest.mark.every(3)
@both_ways
@pytest.mark.parametrize("reach", REACHES, ids=str)
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("y", "x"), [(5, 4), (1, 6)])
def test_windows_and_starts_number_by_number(way: Any, name: str, reach: dict[str, Any], y: int, x: int) -> None:
    query, key, value = tensors((y, 3), (x, 3), (x, 3))
    mask = MASKS[name](y, x, torch.float64)
    with way():
        answer = attention(query, key, value, mask, **reach)
    torch.testing.assert_close(answer, by_loops(query, key, value, mask, **reach))


@both_ways
def test_a_causal_window_is_mistrals_and_a_plain_one_longformers(way: Any) -> None:
    """With equal scores a query gets a mean of values: its own and w - 1 before it, or w - 1 on either side."""
    scores, numbers = torch.zeros(6, 1), torch.eye(6)
    with way():
        causal = attention(scores.expand(6, 6), scores.expand(6, 6), numbers, causal=True, window=3)
        plain = attention(scores.expand(6, 6), scores.expand(6, 6), numbers, window=3)
    assert causal.gt(0).int().tolist() == [[int(i - 3 < j <= i) for j in range(6)] for i in range(6)]
    assert plain.gt(0).int().tolist() == [[int(i - 2 <= j <= i + 2) for j in range(6)] for i in range(6)]


@both_ways
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_windows_and_starts_out_of_range_are_refused(way: Any, lead: tuple[int, ...]) -> None:
    data = torch.randn(*lead, 4, 2)
    with way():
        with pytest.raises(CircuitError, match="window of 0 lets a query attend to no key; it may be 1"):
            attention(data, data, data, window=0)
        with pytest.raises(CircuitError, match="window of -3"):
            attention(data, data, data, window=-3, start=9)
        with pytest.raises(CircuitError, match="the first query's position, is -1; it may be 0"):
            attention(data, data, data, start=-1)


def test_two_einsums_are_the_papers_first_version() -> None:
    query, key, value = tensors((5, 4), (3, 4), (3, 4))
    with definitions():
        answer = attention(query, key, value)
    torch.testing.assert_close(answer, step_by_step(query, key, value))


@pytest.mark.parametrize(("y", "x"), [(5, 7), (7, 5), (5, 5)])
@pytest.mark.parametrize("kind", ["plain", "causal", "bool", "floating"])
def test_the_definition_is_torchs_operator(y: int, x: int, kind: str) -> None:
    query, key, value = tensors((2, 3, y, 8), (2, 3, x, 8), (2, 3, x, 8), dtype=torch.float32)
    mask = MASKS[kind](y, x, torch.float32) if kind in MASKS else None
    with definitions():
        answer = attention(query, key, value, mask, causal=kind == "causal")
    expected = F.scaled_dot_product_attention(query, key, value, mask, is_causal=kind == "causal")
    torch.testing.assert_close(answer, expected)


@both_ways
def test_a_masked_score_counts_for_nothing_however_high(way: Any) -> None:
    """Scores (0, 200), the second masked out: the weights are exactly (1, 0)."""
    query, key = torch.tensor([[1.0]]), torch.tensor([[0.0], [200.0]])
    with way():
        for mask in (torch.tensor([[True, False]]), torch.tensor([[0.0, -torch.inf]])):
            weights = [attention(query, key, value[:, None], mask).item() for value in torch.eye(2)]
            assert weights == [1.0, 0.0]


@both_ways
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("name", ["bool, all empty", "bool, first and last row empty", "floating, some rows empty"])
def test_a_query_that_may_attend_to_nothing_gets_zeros_and_sends_no_gradient(
    way: Any, lead: tuple[int, ...], name: str
) -> None:
    query, key, value = tensors((*lead, 4, 3), (*lead, 5, 3), (*lead, 5, 3))
    mask = MASKS[name](4, 5, torch.float64)
    assert mask is not None
    with way():
        answer = attention(query, key, value, mask)
    answer.square().sum().backward()
    assert answer[..., 0, :].eq(0).all()
    for tensor in (query, key, value):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert query.grad is not None
    assert query.grad[..., 0, :].eq(0).all()


@both_ways
def test_nothing_to_attend_to_gives_zeros(way: Any) -> None:
    for lead in ((), (2, 3)):
        query, nothing = torch.randn(*lead, 4, 3), torch.randn(*lead, 0, 3)
        with way():
            assert attention(query, nothing, nothing).eq(0).all()
            assert attention(query, nothing, nothing, torch.ones(4, 0, dtype=torch.bool)).eq(0).all()


# --- Kernel = definition ----------------------------------------------------------------------------------------------


def value_and_gradients(circuit: Any, inputs: list[Tensor], **options: Any) -> list[Tensor]:
    answer = circuit(*inputs, **options)
    weights = torch.linspace(-1, 1, answer.numel(), dtype=answer.dtype).view_as(answer)
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    return [answer, *torch.autograd.grad((answer * weights).sum(), wanted, allow_unused=True, materialize_grads=True)]


def assert_kernel_is_definition(circuit: Any, inputs: list[Tensor], **options: Any) -> None:
    with definitions():
        expected = value_and_gradients(circuit, inputs, **options)
    for ours, theirs in zip(value_and_gradients(circuit, inputs, **options), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 3)])
def test_kernel_is_definition(lead: tuple[int, ...], name: str, causal: bool, dtype: torch.dtype) -> None:
    inputs = tensors((*lead, 5, 8), (*lead, 7, 8), (*lead, 7, 8), dtype=dtype)
    mask = MASKS[name](5, 7, dtype)
    if mask is not None:
        inputs.append(mask.requires_grad_(mask.is_floating_point()))
    assert_kernel_is_definition(attention, inputs, causal=causal)


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("repeated", [False, True])
def test_grouped_kernel_is_definition(
    lead: tuple[int, ...], name: str, causal: bool, dtype: torch.dtype, repeated: bool
) -> None:
    inputs = tensors((*lead, 6, 5, 8), (*lead, 2, 7, 8), (*lead, 2, 7, 8), dtype=dtype)
    mask = MASKS[name](5, 7, dtype)
    if mask is not None:
        mask = mask.expand(6, 5, 7) if repeated else torch.stack([mask.roll(h, -1) for h in range(6)])
        inputs.append(mask.requires_grad_(mask.is_floating_point()))
    assert_kernel_is_definition(grouped_attention, inputs, causal=causal)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (1, 5, 7), (2, 1, 5, 7), (2, 3, 5, 7), (1, 3, 5, 7)])
@pytest.mark.parametrize("lead", [(2, 3), (4, 2, 3)])
def test_a_mask_broadcasts_over_leading_axes(lead: tuple[int, ...], shape: tuple[int, ...]) -> None:
    inputs = tensors((*lead, 5, 8), (*lead, 7, 8), (*lead, 7, 8), dtype=torch.float32)
    mask = torch.rand(shape) < 0.4
    assert_kernel_is_definition(attention, [*inputs, mask])
    torch.testing.assert_close(
        attention(*inputs, mask=mask), attention(*inputs, mask=mask.expand(*lead, 5, 7).clone()), rtol=0, atol=0
    )


@settings(max_examples=50)
@given(
    lead=st.sampled_from([(), (2,), (2, 2), (2, 1, 2)]),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 2), st.integers(1, 3)),
    masked=st.sampled_from(list(MASKS)),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 8),
    start=st.integers(0, 8),
)
def test_kernel_is_definition_with_any_reach(
    lead: tuple[int, ...],
    sizes: tuple[int, int, int, int, int],
    masked: str,
    causal: bool,
    window: int | None,
    start: int,
) -> None:
    y, x, k, g, n = sizes
    mask = MASKS[masked](y, x, torch.float64)
    reach: dict[str, Any] = {"causal": causal, "window": window, "start": start}
    inputs = tensors((*lead, g * n, y, k), (*lead, g, x, k), (*lead, g, x, k))
    masks = [] if mask is None else [mask.expand(g * n, y, x).clone().requires_grad_(mask.is_floating_point())]
    assert_kernel_is_definition(grouped_attention, [*inputs, *masks], **reach)


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("reach", [{}, {"causal": True}, {"window": 4}, {"causal": True, "start": 3}], ids=str)
@pytest.mark.parametrize("n", [1, 2])
def test_training_in_bfloat16_is_training_in_float32(masked: str, reach: dict[str, Any], n: int) -> None:
    """bfloat16 keeps 8 bits: weights, values and gradients near 1 are right to a few units in the last place."""
    inputs = tensors((2, 2 * n, 9, 8), (2, 2, 12, 8), (2, 2, 12, 8), dtype=torch.bfloat16)
    mask = MASKS[masked](9, 12, torch.bfloat16)
    mask = mask if mask is None else mask.expand(2 * n, 9, 12)
    ours = value_and_gradients(grouped_attention, inputs, mask=mask, **reach)
    precise = [tensor.detach().float().requires_grad_() for tensor in inputs]
    mask = mask.float() if mask is not None and mask.is_floating_point() else mask
    for mine, other in zip(ours, value_and_gradients(grouped_attention, precise, mask=mask, **reach), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), other, rtol=2**-5, atol=2**-5)


EMPTY_BATCHES = torch.__version__ >= "2.12"
"""torch 2.11's fused operator divides by the number of heads, and kills the process if that is 0."""


@pytest.mark.slow
@given(
    lead=st.lists(st.integers(0 if EMPTY_BATCHES else 1, 3), max_size=3),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5)),
    masked=st.sampled_from(list(MASKS)),
    causal=st.booleans(),
)
def test_kernel_is_definition_at_any_size(
    lead: list[int], sizes: tuple[int, int, int], masked: str, causal: bool
) -> None:
    y, x, k = sizes
    inputs = tensors((*lead, y, k), (*lead, x, k), (*lead, x, k))
    mask = MASKS[masked](y, x, torch.float64)
    assert_kernel_is_definition(attention, [*inputs] if mask is None else [*inputs, mask], causal=causal)


def test_kernel_is_definition_on_views_of_any_stride() -> None:
    inputs = [tensor.detach().transpose(-1, -2).requires_grad_() for tensor in tensors(*[(2, 3, 8, 6)] * 3)]
    assert_kernel_is_definition(attention, inputs)


@pytest.mark.parametrize("name", ["none", "bool", "floating"])
def test_dropout_is_the_same_under_a_seed(name: str) -> None:
    inputs = tensors((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8))
    mask, answers = MASKS[name](5, 7, torch.float64), []
    for way in (nullcontext, definitions):
        torch.manual_seed(1)
        with way():
            answers.append(attention(*inputs, mask=mask, dropout=0.5))
    assert not torch.allclose(answers[0], attention(*inputs, mask=mask))
    torch.testing.assert_close(answers[0], answers[1])


@both_ways
def test_dropout_keeps_the_mean(way: Any) -> None:
    """Over 20,000 draws the standard error of the mean is below 0.01: the tolerance is five standard errors."""
    query, key, value = torch.zeros(1, 1), torch.zeros(4, 1), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    many = [tensor.expand(20_000, *tensor.shape) for tensor in (query, key, value)]
    with way():
        torch.testing.assert_close(attention(*many, dropout=0.2).mean().item(), 2.5, rtol=0, atol=0.05)


class Spy:
    """Replaces torch's operator, calls it, and records its arguments."""

    def __init__(self) -> None:
        self.operator = F.scaled_dot_product_attention
        self.calls: list[tuple[list[Tensor], Tensor | None, bool]] = []

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Any, dropout: float, *rest: Any, **more: Any
    ) -> Any:
        self.calls.append(([query, key, value], mask, bool(rest and rest[0])))
        return self.operator(query, key, value, mask, dropout, *rest, **more)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy = Spy()
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return spy


def test_the_kernel_gets_four_axes_the_last_contiguous(spy: Spy) -> None:
    data = torch.randn(2, 1, 3, 8, 6).transpose(-1, -2)
    attention(data, data, data, torch.ones(3, 6, 6, dtype=torch.bool))
    ((inputs, mask, _),) = spy.calls
    assert all(tensor.ndim == 4 and tensor.stride(-1) == 1 for tensor in inputs)
    assert mask is not None
    assert mask.ndim == 4


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("masked", MASKS)
def test_one_example_gets_four_axes_where_no_derivative_is_needed(spy: Spy, lead: tuple[int, ...], masked: str) -> None:
    query, key, value = tensors((*lead, 5, 6), (*lead, 7, 6), (*lead, 7, 6))
    mask = MASKS[masked](5, 7, torch.float64)
    expected = attention(query, key, value, mask)
    with torch.no_grad():
        answer = attention(query, key, value, mask)
    assert [given[0].ndim for given, *_ in spy.calls] == [len(lead) + 2, 4]
    torch.testing.assert_close(answer, expected)


def test_one_example_keeps_its_axes_under_every_transform(spy: Spy) -> None:
    """vmap, jvp, a forward-mode tangent, grad, a gradient of the mask: torch's plain implementation supports all."""

    def attend(query: Tensor) -> Tensor:
        return attention(query, key, key)

    query, key = torch.randn(4, 5, 6), torch.randn(7, 6)
    with torch.no_grad():
        torch.vmap(attend)(query)
        torch.func.jvp(attend, (query[0],), (query[1],))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(query[0], query[1])
            tangent = torch.autograd.forward_ad.unpack_dual(attend(dual)).tangent
    assert tangent is not None
    torch.func.grad(lambda query: attend(query).sum())(query[0])
    attention(query[0], key, key, torch.zeros(5, 7, requires_grad=True)).sum().backward()
    assert [given[0].ndim for given, *_ in spy.calls] == [2] * 5


def test_causal_needs_no_mask(spy: Spy) -> None:
    MultiHeadAttention(6, 2, 4, groups=2)(torch.randn(3, 5, 6), torch.randn(3, 5, 6), causal=True)
    ((inputs, mask, causal),) = spy.calls
    assert mask is None
    assert causal
    assert [tensor.shape for tensor in inputs] == [(3, 4, 5, 2), (3, 2, 5, 2), (3, 2, 5, 2)]


def test_one_query_after_all_keys_needs_no_mask_and_no_keys_beyond_its_window(spy: Spy) -> None:
    query, keys = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 9, 4)
    answers = [attention(query, keys, keys, causal=True, start=8, window=window) for window in (None, 9, 4)]
    assert [(mask, causal) for _, mask, causal in spy.calls] == [(None, False)] * 3
    assert [inputs[1].shape[-2] for inputs, *_ in spy.calls] == [9, 9, 4]
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)
    torch.testing.assert_close(answers[2], attention(query, keys[..., 5:, :], keys[..., 5:, :]))


@pytest.mark.parametrize("groups", [None, 2])
def test_a_short_bfloat16_model_trains_without_the_fused_operator(spy: Spy, groups: int | None) -> None:
    """The fused operator's reverse pass is slow in bfloat16 on CPU; it is used without gradients or for many keys."""
    model = MultiHeadAttention(8, 4, 2, groups=groups and 1, dtype=torch.bfloat16)
    for length, calls in ((512, 0), (513, 1)):
        data = torch.randn(length, 8, dtype=torch.bfloat16)
        model(data, data, causal=True)
        assert len(spy.calls) == calls
    with torch.no_grad():
        model(data[:5], data[:5])
    assert len(spy.calls) == 2


@pytest.mark.parametrize("groups", [None, 2])
def test_a_mask_for_all_heads_is_not_copied_for_each(spy: Spy, groups: int | None) -> None:
    mask = torch.ones(3, 5, 5, dtype=torch.bool)
    MultiHeadAttention(6, 2, 4, groups=groups)(torch.randn(3, 5, 6), torch.randn(3, 5, 6), mask)
    ((_, given, _),) = spy.calls
    assert given is not None
    assert given.shape == (3, 1, 5, 5)


# --- Gradients, transforms, other dtypes ------------------------------------------------------------------------------


@pytest.mark.every(4)
@both_ways
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_gradients_are_right(way: Any, name: str, causal: bool) -> None:
    inputs = tensors((2, 1, 3, 2), (2, 1, 4, 2), (2, 1, 4, 2))
    mask = MASKS[name](3, 4, torch.float64)
    with way():
        assert torch.autograd.gradcheck(lambda *each: attention(*each, mask=mask, causal=causal), inputs)


@both_ways
@pytest.mark.parametrize("reach", REACHES[1:8:3], ids=str)
def test_gradients_are_right_with_any_reach(way: Any, reach: dict[str, Any]) -> None:
    inputs = tensors((1, 1, 3, 2), (1, 1, 4, 2), (1, 1, 4, 2))
    with way():
        assert torch.autograd.gradcheck(lambda *each: attention(*each, **reach), inputs)


def test_second_derivatives_are_right_in_the_definition() -> None:
    inputs, mask = tensors((3, 2), (4, 2), (4, 2)), MASKS["bool, first and last row empty"](3, 4, torch.float64)
    with definitions():
        assert torch.autograd.gradgradcheck(lambda *each: attention(*each, mask=mask), inputs)


@both_ways
def test_maps_and_derivatives_of_one_example(way: Any) -> None:
    query, key, value = [tensor.detach() for tensor in tensors((5, 3, 2), (5, 4, 2), (5, 4, 2))]
    mask = MASKS["bool, first and last row empty"](3, 4, torch.float64)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value, mask)

    def loss(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query, key, value).square().sum()

    with way():
        torch.testing.assert_close(torch.vmap(attend)(query, key, value), attend(query, key, value))
        single = torch.stack([torch.func.grad(loss)(*each) for each in zip(query, key, value, strict=True)])
        torch.testing.assert_close(torch.vmap(torch.func.grad(loss))(query, key, value), single)
        one = (query[0], key[0], value[0])
        reverse = torch.func.jacrev(loss)(*one)
        torch.testing.assert_close(torch.func.jacfwd(loss)(*one), reverse)
        expected = torch.func.jacrev(torch.func.grad(loss))(*one)
        torch.testing.assert_close(torch.func.hessian(loss)(*one), expected)


@pytest.mark.parametrize("mask", [torch.tensor(1), torch.tensor(1, dtype=torch.uint8)])
@both_ways
def test_a_mask_of_integers_is_refused(way: Any, mask: Tensor) -> None:
    target, mask = torch.randn(2, 3, 4), mask.expand(3, 3)
    model, heads = MultiHeadAttention(4, 2, 2), mask.expand(2, 3, 3)
    good = torch.ones(3, 3, dtype=torch.bool)
    with way():
        for call in (
            lambda: attention(target, target, target, mask),
            lambda: attention(target, target, target, mask, causal=True),
            lambda: model(target, target, mask),
            lambda: model(target, target, good, head_mask=heads),
            lambda: model(target, target, good.float(), head_mask=heads),
        ):
            with pytest.raises(CircuitError, match=r"not torch\.u?int"):
                call()


@both_ways
@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize(("own", "other"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_a_floating_mask_of_another_precision_is_taken(
    way: Any, lead: tuple[int, ...], own: torch.dtype, other: torch.dtype
) -> None:
    inputs, mask = tensors(*[(*lead, 5, 4)] * 3, dtype=own), torch.randn(5, 5, dtype=other)
    with way():
        answer = attention(*inputs, mask=mask)
        assert answer.dtype == own
        torch.testing.assert_close(answer, attention(*inputs, mask=mask.to(own)))


@both_ways
@pytest.mark.parametrize("groups", [None, 2])
def test_it_runs_under_autocast(way: Any, groups: int | None) -> None:
    """bfloat16 keeps 8 bits: the tolerance is a few units in the last place for numbers around 1."""
    model = MultiHeadAttention(16, 4, 4, groups=groups)
    target, mask = torch.randn(3, 5, 16), torch.randn(5, 5)
    with way(), torch.autocast("cpu", torch.bfloat16):
        answer = model(target, target, mask, causal=True)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.float(), model(target, target, mask, causal=True), rtol=0, atol=0.03)


def test_axes_that_clash_are_named() -> None:
    with pytest.raises(ShapeError, match="attention"):
        attention(torch.rand(5, 8), torch.rand(7, 8), torch.rand(6, 8))
    with pytest.raises(ShapeError, match="mask"):
        attention(torch.rand(5, 8), torch.rand(7, 8), torch.rand(7, 8), torch.ones(5, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match="grouped_attention"):
        grouped_attention(torch.rand(5, 5, 8), torch.rand(2, 7, 8), torch.rand(2, 7, 8))


# --- Multi-head ----------------------------------------------------------------------------------------------------


def head_by_head(
    model: MultiHeadAttention, target: Tensor, source: Tensor, masks: list[Tensor | None], causal: bool = False
) -> Tensor:
    """Figure 21 for one example, each head computed separately by the loops."""
    k, sharing = model.k, model.h // model.g
    mixed = []
    for h in range(model.h):
        own, shared = slice(h * k, (h + 1) * k), slice(h // sharing * k, (h // sharing + 1) * k)
        query, key, value = (
            data @ box.weight[rows].T + (0 if box.bias is None else box.bias[rows])
            for data, box, rows in ((target, model.Lq, own), (source, model.Lk, shared), (source, model.Lv, shared))
        )
        mixed.append(by_loops(query, key, value, masks[h], causal))
    return torch.cat(mixed, -1) @ model.Lo.weight.T + (0 if model.Lo.bias is None else model.Lo.bias)


@pytest.mark.every(5)
@both_ways
@pytest.mark.parametrize("groups", [None, 1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_head_by_head(way: Any, groups: int | None, bias: bool, causal: bool) -> None:
    model = MultiHeadAttention(m=6, k=3, h=4, groups=groups, bias=bias, dtype=torch.float64)
    target, source = tensors((5, 6), (4, 6))
    mask, head_mask = torch.rand(5, 4) < 0.7, torch.randn(4, 5, 4, dtype=torch.float64)
    combined = [head_mask[h].masked_fill(~mask, -torch.inf) for h in range(4)]
    cases: list[tuple[Tensor | None, Tensor | None, list[Tensor | None]]] = [
        (None, None, [None] * 4),
        (mask, None, [mask] * 4),
        (None, head_mask, list(head_mask)),
        (mask, head_mask, [*combined]),
        (mask, head_mask > 0, [mask & (head_mask[h] > 0) for h in range(4)]),
        (head_mask[0], head_mask, [head_mask[0] + head_mask[h] for h in range(4)]),
        (head_mask[0], head_mask > 0, [head_mask[0].masked_fill(head_mask[h] <= 0, -torch.inf) for h in range(4)]),
    ]
    with way():
        for shared, own, masks in cases:
            answer = model(target, source, shared, head_mask=own, causal=causal)
            torch.testing.assert_close(answer, head_by_head(model, target, source, masks, causal))


@both_ways
@pytest.mark.parametrize("groups", [None, 1, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_rotary_and_window_head_by_head(way: Any, groups: int | None, causal: bool) -> None:
    """The queries and keys of each head are rotated, then attended to by the loops; the values are not rotated."""
    rotary = RotaryPositions(4)
    model = MultiHeadAttention(6, 4, 2, groups=groups, rotary=rotary, window=2, dtype=torch.float64)
    target, source = tensors((5, 6), (4, 6))
    heads = []
    for h in range(2):
        g = h * model.g // 2
        query = target @ model.Lq.weight[h * 4 : h * 4 + 4].T
        key, value = (source @ box.weight[g * 4 : g * 4 + 4].T for box in (model.Lk, model.Lv))
        heads.append(by_loops(rotary(query), rotary(key), value, causal=causal, window=2))
    with way():
        answer = model(target, source, causal=causal)
    torch.testing.assert_close(answer, torch.cat(heads, -1) @ model.Lo.weight.T)


def test_rotary_heads_see_distances_alone() -> None:
    """Without a mask, shifting all positions by the same number changes no output; shifting the target alone does."""
    model = MultiHeadAttention(6, 4, 2, rotary=RotaryPositions(4), dtype=torch.float64)
    data = torch.randn(5, 6, dtype=torch.float64)
    here = model.recall(data, *model.remember(data))
    torch.testing.assert_close(model.recall(data, *model.remember(data, start=9), start=9), here)
    torch.testing.assert_close(model(data, data), here)
    assert not torch.allclose(model.recall(data, *model.remember(data, start=9), start=8), here)


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ((6, 4, 2), {"rotary": RotaryPositions(6)}, "heads are 4 wide, rotary is for vectors 6 wide"),
        ((6, 4, 2), {"window": 0}, "window is 0; it may be 1 or more"),
        ((0, 4, 2), {}, "m is 0"),
        ((6, -4, 2), {}, "k is -4"),
        ((6, 4, 0), {}, "h is 0"),
    ],
)
def test_sizes_that_cannot_work_are_refused(sizes: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(CircuitError, match=words):
        MultiHeadAttention(*sizes, **options)


def test_names_of_the_state_are_a_promise() -> None:
    model = MultiHeadAttention(6, 4, 2, bias=True, rotary=RotaryPositions(4), window=3)
    names = [f"{box}.{name}" for box in ("Lq", "Lk", "Lv", "Lo") for name in ("weight", "bias")]
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("batch", [2, 4])
def test_each_example_has_its_own_mask(groups: int | None, batch: int) -> None:
    """Also with as many examples as heads or groups, so that a confusion of these axes would not change the shapes."""
    model = MultiHeadAttention(6, 3, 4, groups=groups, dtype=torch.float64)
    target, source = tensors((batch, 5, 6), (batch, 7, 6))
    mask, head_mask = torch.rand(batch, 5, 7) < 0.5, torch.rand(batch, 4, 5, 7) < 0.8
    expected = [model(target[b], source[b], mask[b], head_mask=head_mask[b]) for b in range(batch)]
    torch.testing.assert_close(model(target, source, mask, head_mask=head_mask), torch.stack(expected))


@pytest.mark.parametrize("lead", [(2,), (2, 3), (2, 1, 3), (0,)])
def test_index_then_apply_is_apply_then_index(lead: tuple[int, ...]) -> None:
    model = MultiHeadAttention(6, 3, 2, dtype=torch.float64)
    target, source = tensors((*lead, 5, 6), (*lead, 4, 6))
    answer = model(target, source)
    assert answer.shape == (*lead, 5, 6)
    for one, other, expected in zip(
        target.reshape(-1, 5, 6), source.reshape(-1, 4, 6), answer.reshape(-1, 5, 6), strict=True
    ):
        torch.testing.assert_close(model(one, other), expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_sharing_keys_is_having_equal_keys(groups: int) -> None:
    """A grouped module equals a plain one whose heads of keys and values are copies of each other."""
    shared = MultiHeadAttention(6, 3, 4, groups=groups)
    plain = MultiHeadAttention(6, 3, 4)
    weights = shared.state_dict()
    for name in ("Lk.weight", "Lv.weight"):
        weights[name] = weights[name].view(groups, 3, 6).repeat_interleave(4 // groups, 0).reshape(12, 6)
    plain.load_state_dict(weights)
    target, source = torch.randn(2, 5, 6), torch.randn(2, 7, 6)
    torch.testing.assert_close(shared(target, source), plain(target, source))


@pytest.mark.parametrize("groups", [0, 3, 5, 8, -2])
def test_groups_that_do_not_divide_the_heads_are_refused(groups: int) -> None:
    with pytest.raises(CircuitError, match=f"4 heads cannot share {groups} groups; groups may be 1, 2, 4"):
        MultiHeadAttention(6, 3, 4, groups=groups)


@given(m=st.integers(1, 5), k=st.integers(1, 5), g=st.integers(1, 3), n=st.integers(1, 3), bias=st.booleans())
def test_parameters_are_as_many_as_the_formula_says(m: int, k: int, g: int, n: int, bias: bool) -> None:
    h = g * n
    model = MultiHeadAttention(m, k, h, groups=g, bias=bias)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 2 * m * h * k + 2 * m * g * k + bias * ((h + 2 * g) * k + m)
    if g == h and not bias:
        assert count == 4 * m * h * k


def test_dropout_is_for_training_alone() -> None:
    model, target = MultiHeadAttention(8, 4, 2, dropout=0.5), torch.randn(2, 5, 8)
    assert not torch.equal(model(target, target), model(target, target))
    model.eval()
    torch.testing.assert_close(model(target, target), model(target, target), rtol=0, atol=0)


def test_a_bias_on_the_keys_changes_nothing() -> None:
    """The bias adds the same number to every score of a query, so the softmax does not change: its gradient is zero."""
    model = MultiHeadAttention(6, 3, 2, bias=True, dtype=torch.float64)
    target, source = tensors((5, 6), (7, 6))
    model(target, source).square().sum().backward()
    assert model.Lk.bias.grad is not None
    torch.testing.assert_close(model.Lk.bias.grad, torch.zeros_like(model.Lk.bias))


def test_the_source_must_fit_the_module() -> None:
    with pytest.raises(ShapeError) as caught:
        MultiHeadAttention(m=128, k=16, h=4)(torch.rand(20, 128), torch.rand(22, 64))
    for part in ("MultiHeadAttention.forward", "source", "64", "128"):
        assert part in str(caught.value)


def test_it_is_made_on_the_device_and_in_the_dtype_given() -> None:
    model = MultiHeadAttention(6, 3, 4, groups=2, bias=True, device="meta", dtype=torch.float16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.float16)}
    data = torch.rand(5, 6, device="meta", dtype=torch.float16)
    assert model(data, data, causal=True).shape == (5, 6)


# --- torch's own module -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_from_torch_gives_what_torch_gives(bias: bool, batch_first: bool, masked: bool, training: bool) -> None:
    theirs = nn.MultiheadAttention(12, 4, bias=bias, batch_first=batch_first).train(training)
    for (
        parameter
    ) in theirs.parameters():  # torch initializes its biases as zero, so that one that is not copied would go unnoticed
        nn.init.normal_(parameter, std=0.3)
    ours = MultiHeadAttention.from_torch(theirs)
    assert ours.training is training
    target, source = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    mask = (torch.rand(5, 7) < 0.6) | (torch.arange(7) == 0) if masked else None
    opposite = None if mask is None else ~mask
    if batch_first:
        expected = theirs(target, source, source, attn_mask=opposite)[0]
    else:
        turned = [each.transpose(0, 1) for each in (target, source, source)]
        expected = theirs(*turned, attn_mask=opposite)[0].transpose(0, 1)
    torch.testing.assert_close(ours(target, source, mask), expected)


def test_from_torch_copies() -> None:
    theirs = nn.MultiheadAttention(4, 2, dropout=0.25, dtype=torch.float64)
    ours = MultiHeadAttention.from_torch(theirs)
    assert ours.dropout == 0.25
    assert {p.dtype for p in ours.parameters()} == {torch.float64}
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(1)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == torch.float64


@pytest.mark.parametrize(
    "options", [{"kdim": 3}, {"vdim": 5}, {"kdim": 3, "vdim": 5}, {"add_bias_kv": True}, {"add_zero_attn": True}]
)
def test_from_torch_names_options_that_the_figure_does_not_have(options: dict[str, Any]) -> None:
    with pytest.raises(CircuitError, match=", ".join(options)):
        MultiHeadAttention.from_torch(nn.MultiheadAttention(4, 2, **options))


# --- One graph, and the diagram ---------------------------------------------------------------------------------------


@pytest.mark.every(1, 2)
@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("dynamic", [False, True])
def test_it_is_one_graph(way: Any, groups: int | None, dynamic: bool) -> None:
    torch.compiler.reset()
    model = MultiHeadAttention(12, 3, 4, groups=groups)
    with way():
        compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="eager")
        for b, y, x in ((2, 5, 7), (3, 6, 4)):
            target, source, mask = torch.randn(b, y, 12), torch.randn(b, x, 12), torch.rand(y, x) < 0.5
            expected = model(target, source, mask, causal=True)
            torch.testing.assert_close(compiled(target, source, mask, causal=True), expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_and_window_are_one_graph_with_their_gradients(backend: str, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    model = MultiHeadAttention(12, 4, 4, groups=2, rotary=RotaryPositions(4), window=3, dtype=dtype)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for x in (5, 7):
        data, wanted = torch.randn(2, x, 12, dtype=dtype), [*model.parameters()]
        expected = torch.autograd.grad(model(data, data, causal=True).square().sum(), wanted)
        ours = torch.autograd.grad(compiled(data, data, causal=True).square().sum(), wanted)
        torch.testing.assert_close(ours, expected)


@pytest.mark.slow
def test_rotary_and_window_export_and_map() -> None:
    model = MultiHeadAttention(12, 4, 4, groups=2, rotary=RotaryPositions(4), window=3)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        model, (torch.randn(2, 5, 12), torch.randn(2, 7, 12)), dynamic_shapes={"target": free, "source": free}
    )
    target, source = torch.randn(3, 9, 12), torch.randn(3, 4, 12)
    torch.testing.assert_close(program.module()(target, source), model(target, source))
    torch.testing.assert_close(torch.vmap(model)(target, source), model(target, source))


@pytest.mark.slow
@pytest.mark.every(1, 2)
@pytest.mark.parametrize("groups", [2, None])
def test_compiled_code_gives_the_same_values_and_gradients(groups: int | None) -> None:
    """Also with as many tokens as heads, where torch 2.13 can confuse two matrix products."""
    model = MultiHeadAttention(12, 3, 4, groups=groups)
    for way in (nullcontext, definitions):
        with way():
            torch.compiler.reset()
            compiled = torch.compile(model, fullgraph=True)
            for y, x in ((5, 7), (4, 4)):
                target, source = torch.randn(2, y, 12), torch.randn(2, x, 12)
                with torch.no_grad():
                    torch.testing.assert_close(compiled(target, source), model(target, source))
                wanted = [*model.parameters()]
                expected = torch.autograd.grad(model(target, source, causal=True).square().sum(), wanted)
                ours = torch.autograd.grad(compiled(target, source, causal=True).square().sum(), wanted)
                torch.testing.assert_close(ours, expected)


@pytest.mark.every(2)
@pytest.mark.parametrize("groups", [None, 2])
def test_it_exports_with_any_number_of_targets_and_sources(groups: int | None) -> None:
    model = MultiHeadAttention(12, 3, 4, groups=groups)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        model, (torch.randn(2, 5, 12), torch.randn(2, 7, 12)), dynamic_shapes={"target": free, "source": free}
    )
    target, source = torch.randn(3, 9, 12), torch.randn(3, 4, 12)
    torch.testing.assert_close(program.module()(target, source), model(target, source))


@both_ways
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch 2.13 loops over the fused kernel
def test_it_maps_over_examples_and_models(way: Any) -> None:
    model = MultiHeadAttention(6, 3, 2)
    target, source = torch.randn(4, 5, 6), torch.randn(4, 7, 6)
    stacked = {name: torch.stack([value, 2 * value]) for name, value in model.state_dict().items()}
    twice = MultiHeadAttention(6, 3, 2)
    twice.load_state_dict({name: each[1] for name, each in stacked.items()})
    with way():
        torch.testing.assert_close(torch.vmap(model)(target, source), model(target, source))
        both = torch.vmap(lambda weights: torch.func.functional_call(model, weights, (target, source)))(stacked)
        torch.testing.assert_close(both, torch.stack([model(target, source), twice(target, source)]))


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [None, 2])
def test_the_diagram_keeps_its_axes_free(groups: int | None, causal: bool) -> None:
    table = trace(MultiHeadAttention(128, 16, 4, groups=groups), causal=causal).table(width=200, depth=None)
    assert "y 128, x 128 -> y 128" in table
    assert "softmax over x" in table
    assert "fixed by" not in table
