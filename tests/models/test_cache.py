from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from circuits import CircuitError, ShapeError, definitions
from models.attention import MultiHeadAttention
from models.parts.cache import KeyValueCache
from models.parts.positions import RotaryPositions

both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])


# --- Step by step equals all at once ----------------------------------------------------------------------------------


def pieces(model: MultiHeadAttention, data: Tensor, steps: list[int], masks: dict[str, Tensor]) -> Tensor:
    """The output of a module with a cache, a few vectors at a time; each step gets their rows of the masks."""
    cache, answers, start = model.cache(data.shape[-2], data.shape[:-2]), [], 0
    for stop in torch.tensor(steps).cumsum(0).tolist():
        now = data[..., start:stop, :]
        rows: dict[str, Any] = {name: mask[..., start:stop, :stop] for name, mask in masks.items()}
        answers.append(model(now, now, causal=True, cache=cache, **rows))
        start = stop
    assert cache.length == data.shape[-2]
    return torch.cat(answers, -2)


MASKS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "none": dict,
    "bool": lambda: {"mask": torch.rand(9, 9) < 0.7},
    "one for each example": lambda: {"mask": torch.rand(2, 9, 9) < 0.7},
    "heads": lambda: {"head_mask": torch.randn(4, 9, 9, dtype=torch.float64)},
    "both": lambda: {"mask": torch.rand(2, 9, 9) < 0.7, "head_mask": torch.randn(4, 9, 9, dtype=torch.float64)},
}


@both_ways
@pytest.mark.parametrize("steps", [[1] * 9, [4, 3, 2], [5, 1, 1, 2]], ids=str)
@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize(
    "options", [{}, {"groups": 2, "rotary": RotaryPositions(4), "window": 3}], ids=["plain", "all"]
)
@torch.no_grad()
def test_step_by_step_is_at_once(way: Any, options: dict[str, Any], masked: str, steps: list[int]) -> None:
    model = MultiHeadAttention(6, 4, 4, **options, dtype=torch.float64)
    data, masks = torch.randn(2, 9, 6, dtype=torch.float64), MASKS[masked]()
    with way():
        torch.testing.assert_close(pieces(model, data, steps, masks), model(data, data, causal=True, **masks))


@settings(max_examples=40)
@given(
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    groups=st.sampled_from([1, 2, 4]),
    rotated=st.booleans(),
    window=st.none() | st.integers(1, 12),
    batch=st.sampled_from([(), (2,), (2, 1, 2)]),
)
@torch.no_grad()
def test_step_by_step_is_at_once_for_any_steps(
    steps: list[int], groups: int, rotated: bool, window: int | None, batch: tuple[int, ...]
) -> None:
    rotary = RotaryPositions(2) if rotated else None
    model = MultiHeadAttention(3, 2, 4, groups=groups, rotary=rotary, window=window, dtype=torch.float64)
    data = torch.randn(*batch, sum(steps), 3, dtype=torch.float64)
    torch.testing.assert_close(pieces(model, data, steps, {}), model(data, data, causal=True))


@torch.no_grad()
def test_an_empty_cache_changes_nothing() -> None:
    """Also if target and source have different lengths: `causal` counts positions from the first vector of each."""
    model = MultiHeadAttention(6, 4, 4, rotary=RotaryPositions(4), dtype=torch.float64)
    for y, x in ((5, 3), (3, 5)):
        target, source = torch.randn(2, y, 6, dtype=torch.float64), torch.randn(2, x, 6, dtype=torch.float64)
        answer = model(target, source, causal=True, cache=model.cache(8, (2,)))
        torch.testing.assert_close(answer, model(target, source, causal=True))


@pytest.mark.parametrize("groups", [None, 2])
def test_a_source_is_remembered_once(groups: int | None) -> None:
    """Every step of a decoder attends to the same keys and values, which have gradients."""
    model = MultiHeadAttention(6, 4, 4, groups=groups, dtype=torch.float64)
    target, source = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 7, 6, dtype=torch.float64)
    mask = torch.rand(2, 5, 7) < 0.7
    keys, values = model.remember(source)
    assert keys.shape == values.shape == (2, groups or 4, 7, 4)
    steps = [model.recall(target[:, i : i + 1], keys, values, mask[:, i : i + 1]) for i in range(5)]
    wanted = [*model.parameters()]
    ours, expected = torch.cat(steps, 1), model(target, source, mask)
    torch.testing.assert_close(ours, expected)
    gradients = torch.autograd.grad(ours.square().sum(), wanted)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), wanted))


def test_bfloat16_by_autocast() -> None:
    """The cache has the dtype of autocast's results; bfloat16 is right to a few units in the last place."""
    model, data = MultiHeadAttention(16, 4, 4, rotary=RotaryPositions(4)), torch.randn(2, 9, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model.cache(9).keys.dtype == torch.bfloat16
        answer = pieces(model, data, [4, 1, 1, 3], {})
    torch.testing.assert_close(answer.float(), model(data, data, causal=True), rtol=0, atol=0.03)


@pytest.mark.slow
@torch.no_grad()
def test_steps_share_a_graph() -> None:
    """One graph for the first step, one for the second, one for all others."""
    torch.compiler.reset()
    model, counter = MultiHeadAttention(6, 4, 4, groups=2, rotary=RotaryPositions(4)), CompileCounter()
    step = torch.compile(lambda now, cache: model(now, now, causal=True, cache=cache), fullgraph=True, backend=counter)
    data, cache = torch.randn(2, 12, 6), model.cache(12, (2,))
    answers = [step(data[:, i : i + 1], cache) for i in range(12)]
    torch.testing.assert_close(torch.cat(answers, 1), model(data, data, causal=True))
    assert counter.frame_count <= 3
    assert cache.length == 12


# --- The cache alone --------------------------------------------------------------------------------------------------


def test_it_keeps_what_was_appended_and_moves_nothing() -> None:
    cache = KeyValueCache(x=7, k=3, g=2, batch=(5,), dtype=torch.float64)
    kept, places = [torch.randn(5, 2, n, 3, dtype=torch.float64) for n in (4, 1, 2)], []
    for i in range(3):
        keys, values = cache.append(kept[i], -kept[i])
        expected = torch.cat(kept[: i + 1], -2)
        assert torch.equal(keys, expected)
        assert torch.equal(values, -expected)
        assert keys.stride(-1) == 1
        places.append(keys.data_ptr())
    assert len(set(places)) == 1
    assert cache.length == 7


def test_truncated_positions_are_overwritten() -> None:
    cache = KeyValueCache(x=4, k=3, g=2)
    first, second = torch.randn(2, 2, 4, 3)
    cache.append(first, first)
    cache.truncate(1)
    keys, _ = cache.append(second[:, :2], second[:, :2])
    assert torch.equal(keys, torch.cat((first[:, :1], second[:, :2]), 1))
    cache.truncate()
    assert cache.length == 0
    for length in (-1, 1):
        with pytest.raises(CircuitError, match=f"{length} positions cannot be kept; it may be 0 to 0"):
            cache.truncate(length)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (torch.ones(5, 2, 4, 3), "1 of 4 positions are filled, 4 more have no room; up to 3 may be appended"),
        (torch.ones(1, 2, 1, 3), r"batch \[1\] of keys, \[5\] in the cache"),
        (torch.ones(2, 1, 3), r"batch \[\] of keys"),
        (torch.ones(5, 2, 1, 3, dtype=torch.float64), r"keys are torch.float64 .* the cache's torch.float32"),
        (torch.ones(5, 2, 1, 3, device="meta"), "on meta"),
        (torch.ones(5, 2, 1, 3, requires_grad=True), "require a gradient"),
        (torch.ones(5, 2, 1, 4), "k is 4 here, but 3"),
        (torch.ones(5, 1, 1, 3), "g is 1 here, but 2"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(key: Tensor, words: str) -> None:
    cache = KeyValueCache(x=4, k=3, g=2, batch=(5,))
    before, _ = cache.append(torch.zeros(5, 2, 1, 3), torch.zeros(5, 2, 1, 3))
    with pytest.raises(CircuitError, match=words):
        cache.append(key, key)
    assert cache.length == 1
    assert before.eq(0).all()


def test_keys_and_values_come_together() -> None:
    cache = KeyValueCache(x=4, k=3, g=2)
    with pytest.raises(ShapeError, match="n is 2 here, but 1"):
        cache.append(torch.ones(2, 1, 3), torch.ones(2, 2, 3))
    with pytest.raises(CircuitError, match="values require a gradient"):
        cache.append(torch.ones(2, 1, 3), torch.ones(2, 1, 3, requires_grad=True))
    with torch.no_grad():
        cache.append(torch.ones(2, 1, 3), torch.ones(2, 1, 3, requires_grad=True))


@pytest.mark.parametrize("sizes", [(0, 3, 2), (4, 0, 2), (4, 3, -1)])
def test_sizes_below_1_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(CircuitError, match="it may be 1 or more"):
        KeyValueCache(*sizes)


@pytest.mark.parametrize("name", ["mask", "head_mask"])
@torch.no_grad()
def test_a_mask_is_for_all_that_the_cache_then_has(name: str) -> None:
    """A mask of another size is refused before the cache is written."""
    model, data = MultiHeadAttention(6, 4, 4), torch.randn(3, 6)
    cache = model.cache(9)
    model(data, data, causal=True, cache=cache)
    mask: dict[str, Any] = {name: torch.ones(4, 3, 3, dtype=torch.bool)[0 if name == "mask" else slice(None)]}
    with pytest.raises(ShapeError, match=f"{name} is for 3 source vectors; with those of this call the cache has 6"):
        model(data, data, **mask, cache=cache)
    assert cache.length == 3


def test_a_cache_is_made_as_its_module_is() -> None:
    cache = MultiHeadAttention(6, 4, 4, groups=2, device="meta", dtype=torch.float16).cache(9, (3,))
    assert (cache.keys.shape, cache.values.shape) == ((3, 2, 9, 4), (3, 2, 9, 4))
    assert (cache.keys.device.type, cache.keys.dtype) == ("meta", torch.float16)
