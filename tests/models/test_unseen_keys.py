"""Keys that no query may attend to, and queries that may attend to no key, have no effect, whatever they hold."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits import backward, broadcast, definitions, trace, track
from models import MultiHeadAttention, VisualAttention
from models.attention import attention, grouped_attention
from models.transformer_layers import DecoderLayer

both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])
holding = pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
either = pytest.mark.parametrize("circuit", [attention, grouped_attention], ids=["attention", "grouped_attention"])

PADDING = torch.tensor([True, True, False, True, True, False]).expand(5, 6)
"""Keys 2 and 5 of six are padding."""

EARLY = torch.ones(5, 6, dtype=torch.bool).tril() | (torch.arange(6) > 3) & (torch.arange(5)[:, None] < 2)
"""Only the queries before keys 4 and 5 may attend to these."""

CASES: dict[str, tuple[Tensor | None, dict[str, Any]]] = {
    "bool": (PADDING, {}),
    "one mask for each example": (torch.stack([PADDING, PADDING.roll(1, -1)])[:, None], {}),
    "one mask for each head": (torch.stack([PADDING.roll(h, -1) for h in (0, 1, 0, 3)]), {}),
    "no key for the last query": (PADDING & (torch.arange(5) < 4)[:, None], {}),
    "causal": (None, {"causal": True}),
    "causal, one later": (None, {"causal": True, "start": 1}),
    "window": (None, {"window": 1}),
    "window, later": (None, {"window": 2, "start": 3}),
    "window, later than all keys": (None, {"window": 2, "start": 6, "causal": True}),
    "causal and a mask of other keys": (EARLY, {"causal": True, "start": 1}),
    "bool, causal window": (PADDING, {"window": 3, "causal": True, "start": 1}),
}
"""A mask for five queries and six keys, and arguments of positions."""


def allowed_by_loops(heads: int, mask: Tensor | None, causal: bool = False, window: int = 99, start: int = 0) -> Tensor:
    """Which keys each query of two examples may attend to, number by number."""
    allowed = torch.ones(2, heads, 5, 6, dtype=torch.bool)
    if mask is not None:
        allowed &= mask if mask.ndim < 3 or mask.shape[-3] == 1 else mask[:heads]
    for i in range(5):
        for j in range(6):
            ahead = start + i - j
            if (causal and ahead < 0) or abs(ahead) >= window:
                allowed[..., i, j] = False
    return allowed


def case(circuit: Any, name: str) -> tuple[list[Any], Tensor | None, dict[str, Any], Tensor, Tensor]:
    """Inputs, mask and arguments, and the rows of queries and of keys that have no effect."""
    mask, reach = CASES[name]
    heads = 4 if circuit is grouped_attention else 2
    inputs = [torch.randn(2, *shape, dtype=torch.float64) for shape in ((heads, 5, 3), (2, 6, 3), (2, 6, 3))]
    allowed = allowed_by_loops(heads, mask, **reach)
    seen = allowed.any(-2).unflatten(1, (2, heads // 2)).any(2)
    if mask is not None:
        mask = (mask if mask.ndim < 3 or mask.shape[-3] == 1 else mask[:heads]).expand(2, heads, 5, 6)
    return inputs, mask, reach, ~allowed.any(-1, keepdim=True), ~seen[..., None]


def output_and_gradients(f: Callable[..., Any], inputs: list[Any]) -> list[Tensor]:
    leaves = [each.detach().requires_grad_() for each in inputs]
    output = f(*leaves)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), leaves)]


@pytest.mark.every(5)
@both_ways
@holding
@pytest.mark.parametrize("masked", ["bool", "floating"])
@pytest.mark.parametrize("name", CASES)
@either
def test_what_is_unseen_has_no_effect(way: Any, number: float, masked: str, name: str, circuit: Any) -> None:
    """Output and gradients are those of ordinary numbers; rows that attend to nothing are zeros as ever."""
    inputs, mask, reach, empty, unseen = case(circuit, name)
    if masked == "floating" and mask is not None:
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    replaced = [each.masked_fill(rows, number) for each, rows in zip(inputs, (empty, unseen, unseen), strict=True)]
    assert unseen.any() or empty.any() or name.startswith("causal, one")
    with way():
        expected = output_and_gradients(lambda *tensors: circuit(*tensors, mask, **reach), inputs)
        found = output_and_gradients(lambda *tensors: circuit(*tensors, mask, **reach), replaced)
        with torch.no_grad():
            torch.testing.assert_close(circuit(*replaced, mask, **reach), expected[0])
    torch.testing.assert_close(found, expected)
    assert all(each.isfinite().all() for each in expected)


@both_ways
def test_a_mask_of_a_wider_dtype_hides_what_overflows_in_the_dtype_of_the_queries(way: Any) -> None:
    """-1e300 is -inf as a number of float32."""
    query, key, value = (torch.randn(n, 3) for n in (2, 3, 3))
    mask = torch.tensor([0.0, -1e300, 0.0], dtype=torch.float64).expand(2, 3)
    nan_key, nan_value = [each.index_fill(0, torch.tensor(1), math.nan) for each in (key, value)]
    with way():
        torch.testing.assert_close(attention(query, nan_key, nan_value, mask), attention(query, key, value, mask))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("y", "x"), [(1, 9), (1, 600), (5, 7), (70, 600)])
@either
def test_without_gradients_the_operator_returns_zeros_for_a_query_without_keys(
    circuit: Any, y: int, x: int, dtype: torch.dtype
) -> None:
    """The kernel relies on it, and looks only whether the output is finite."""
    inputs = [torch.randn(2, n, m, 16, dtype=dtype) for n, m in ((4, y), (2, x), (2, x))]
    if circuit is attention:
        inputs[0] = inputs[0][:, :2]
    allowed = torch.rand(2, 1, y, x) > 0.5
    allowed[0, :, y // 2] = False
    added = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, -torch.inf)
    for mask in (allowed, added):
        with torch.no_grad():
            found = circuit(*inputs, mask.expand(2, inputs[0].shape[1], y, x))
        assert torch.equal(found[0, :, y // 2], torch.zeros_like(found[0, :, 0]))
        assert found[1].count_nonzero()


@pytest.mark.parametrize("gradients", [False, True])
def test_dropout_draws_as_many_numbers_whatever_is_unseen(gradients: bool) -> None:
    (query, key, value), mask, _, _, unseen = case(attention, "bool")
    nan_key, nan_value = key.masked_fill(unseen, math.nan), value.masked_fill(unseen, math.nan)
    with torch.set_grad_enabled(gradients):
        torch.manual_seed(1)
        expected, after = attention(query, key, value, mask, dropout=0.5), torch.get_rng_state()
        torch.manual_seed(1)
        torch.testing.assert_close(attention(query, nan_key, nan_value, mask, dropout=0.5), expected)
        assert torch.equal(torch.get_rng_state(), after)


def test_dropout_draws_as_many_numbers_in_the_kernel_where_keys_are_out_of_reach() -> None:
    query, key, value = (torch.randn(2, 2, n, 3) for n in (2, 6, 6))
    torch.manual_seed(1)
    found, after = attention(query, key, value, causal=True, dropout=0.5), torch.get_rng_state()
    torch.manual_seed(1)
    with definitions():
        torch.testing.assert_close(found, attention(query, key, value, causal=True, dropout=0.5))
    assert torch.equal(torch.get_rng_state(), after)


@both_ways
def test_a_key_that_some_query_sees_is_not_hidden(way: Any) -> None:
    """NaN is replaced by zeros only where no query may attend to it."""
    query, key, value = (torch.randn(n, 3) for n in (2, 2, 2))
    value[1] = math.nan
    with way():
        assert attention(query, key, value, torch.tensor([[True, False], [True, True]]))[1].isnan().all()
        assert attention(query, key, value, causal=True)[1].isnan().all()


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("circuit", "name"),
    [(attention, "bool"), (attention, "causal"), (grouped_attention, "bool, causal window")],
    ids=["bool", "causal", "grouped"],
)
def test_nor_in_diagrams_and_transforms(circuit: Any, name: str) -> None:
    """Traced, tracked and differentiated at ordinary numbers, run with NaN; and mapped."""
    inputs, mask, reach, empty, unseen = case(circuit, name)
    replaced = [each.masked_fill(rows, math.nan) for each, rows in zip(inputs, (empty, unseen, unseen), strict=True)]
    masks = [] if mask is None else [mask]
    expected = output_and_gradients(lambda *tensors: circuit(*tensors, *masks, **reach), inputs)
    ones = torch.linspace(-1, 1, expected[0].numel(), dtype=torch.float64).view_as(expected[0])
    with track(circuit, to=None) as seen:
        circuit(*inputs, *masks, **reach)
    for diagram in (trace(circuit, *inputs, *masks, **reach), seen.diagram):
        torch.testing.assert_close(diagram(*replaced, *masks, **reach), expected[0])
    found = backward(circuit, *inputs, *masks, **reach)(*replaced, *masks, cotangent=ones, **reach)
    torch.testing.assert_close([found[each] for each in ("query", "key", "value")], expected[1:])
    mapped: Any = torch.vmap(partial(circuit, **reach))
    torch.testing.assert_close(mapped(*replaced, *masks), expected[0])


@pytest.mark.slow
def test_nor_in_one_graph() -> None:
    inputs, mask, reach, empty, unseen = case(grouped_attention, "bool, causal window")
    replaced = [each.masked_fill(rows, math.nan) for each, rows in zip(inputs, (empty, unseen, unseen), strict=True)]
    expected = output_and_gradients(partial(grouped_attention, mask=mask, **reach), inputs)
    torch.compiler.reset()
    compiled: Any = torch.compile(grouped_attention, fullgraph=True, dynamic=True, backend="eager")
    torch.testing.assert_close(output_and_gradients(lambda *t: compiled(*t, mask, **reach), replaced), expected)


@pytest.mark.slow
def test_nor_in_sizes_that_are_left_open() -> None:
    """A diagram whose y and x are free, run with more keys than queries under `causal`, and with fewer."""
    diagram = trace(attention, sizes={"k": 3}, causal=True)
    exported = torch.export.export(
        Causal(), (torch.randn(5, 3), *torch.randn(2, 6, 3)), dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}] * 3
    ).module()
    for y, x in ((3, 6), (6, 3), (4, 4)):
        query, (key, value) = torch.randn(y, 3), torch.randn(2, x, 3)
        expected = attention(query, key, value, causal=True)
        key[y:], value[y:] = math.nan, math.inf
        torch.testing.assert_close(diagram(query, key, value, causal=True), expected)
        torch.testing.assert_close(exported(query, key, value), expected)


class Causal(torch.nn.Module):
    """Causal attention as a module, for torch.export."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value, causal=True)


def test_nor_when_broadcast() -> None:
    """Axes of heads last; the mask, which is shared, hides the last key."""
    lifted = broadcast(attention, "y k h, x k h, x k h -> y k h")
    query, key, value = torch.randn(5, 3, 2), torch.randn(6, 3, 2), torch.randn(6, 3, 2)
    expected = lifted(query, key, value, mask=PADDING)
    key[[2, 5]], value[[2, 5]] = math.nan, -math.inf
    torch.testing.assert_close(lifted(query, key, value, mask=PADDING), expected)


# --- Modules ----------------------------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("groups", [None, 2])
def test_a_masked_vector_of_a_source_has_no_effect(way: Any, groups: int | None) -> None:
    """On the output and on the target's gradient; by a mask for all heads, by one for each head, and by both."""
    model = MultiHeadAttention(6, 3, 4, groups=groups, window=5, dtype=torch.float64)
    target, source = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 6, 6, dtype=torch.float64)
    replaced = source.index_fill(-2, torch.tensor([2, 5]), math.nan)
    heads = PADDING.expand(4, 5, 6)
    for masks in ({"mask": PADDING}, {"head_mask": heads}, {"mask": PADDING, "head_mask": heads.roll(1, -2)}):
        with way():
            expected = output_and_gradients(partial(model, source=source, **masks), [target])
            torch.testing.assert_close(
                output_and_gradients(partial(model, source=replaced, **masks), [target]), expected
            )


@both_ways
@torch.no_grad()
def test_padding_of_a_memory_has_no_effect_on_decoding_with_caches(way: Any) -> None:
    layer = DecoderLayer(6, 3, 4, 8, groups=2, window=3, dtype=torch.float64)
    target, memory = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 6, 6, dtype=torch.float64)
    outputs = []
    with way():
        for each in (memory, memory.index_fill(-2, torch.tensor([2, 5]), math.nan)):
            cache = layer.cache(each, 5)
            for part in (cache.own.keys, cache.own.values):
                part.fill_(math.nan)  # positions that are not yet written
            steps = [layer(target[:, [i]], each, memory_mask=PADDING[[i]], cache=cache) for i in range(5)]
            outputs.append(torch.cat(steps, 1))
    torch.testing.assert_close(outputs[1], outputs[0])
    assert outputs[0].isfinite().all()


@both_ways
@torch.no_grad()
def test_a_prompt_padded_on_the_left_has_no_effect_on_decoding_with_a_cache(way: Any) -> None:
    """Two vectors of padding, then three: the cache keeps NaN at the padding's positions."""
    model = MultiHeadAttention(6, 3, 4, groups=2, dtype=torch.float64)
    data = torch.randn(5, 6, dtype=torch.float64)
    replaced, mask = data.index_fill(0, torch.tensor([0, 1]), math.nan), (torch.arange(5) > 1).expand(5, 5)
    with way():
        expected, cache = model(data, data, mask, causal=True), model.cache(5)
        steps = [model(replaced[[i]], replaced[[i]], mask[[i], : i + 1], causal=True, cache=cache) for i in range(5)]
    torch.testing.assert_close(torch.cat(steps), expected)


@both_ways
def test_a_masked_window_of_an_image_has_no_effect(way: Any) -> None:
    attend = VisualAttention(c=2, k=3, heads=2, kernel=2, stride=2, dtype=torch.float64)
    target, source = torch.randn(1, 2, 4, 6, dtype=torch.float64), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    mask = torch.ones(1, 2, 3, 2, 2, dtype=torch.bool)
    mask[..., 1, 0] = False
    replaced = source.clone()
    replaced[..., 2:, :2] = math.nan
    with way():
        torch.testing.assert_close(attend(target, replaced, mask), attend(target, source, mask))
