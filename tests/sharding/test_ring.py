# This file uses private names of torch.
# pyright: reportPrivateImportUsage=false
"""Ring attention on ranks that are threads, beside the attention of whole tensors: results, gradients, work, bytes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from circuits import CircuitError
from models.parts import ring, ring_attention, ring_blocks
from models.scaled_dot_product import attention, grouped_attention
from tests.sharding.ranks import on_ranks

Y, X, H, K = 6, 12, 4, 8


def mesh(world: int) -> DeviceMesh:
    return init_device_mesh("cpu", (world,), mesh_dim_names=("sequence",))


def parts(tensor: Tensor, on: DeviceMesh) -> Any:
    """Return a tensor as a DTensor that is split along axis -2."""
    whole = DTensor.from_local(tensor, on, [Replicate()], run_check=False)
    return whole.redistribute(placements=[Shard(tensor.ndim - 2)]).detach().requires_grad_(tensor.is_floating_point())


def tensors(y: int, x: int, heads: int = H, groups: int = H, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = [(2, heads, y, K), (2, groups, x, K), (2, groups, x, K)]
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def gradients(f: Callable[..., Tensor], given: list[Tensor], slope: Tensor, **options: Any) -> list[Tensor]:
    """Return the output and the gradients of plain tensors."""
    leaves = [each.clone().requires_grad_() for each in given]
    output = f(*leaves, **options)
    return [output.detach(), *torch.autograd.grad(output, leaves, slope)]


def ring_gradients(
    world: int, f: Callable[..., Tensor], given: list[Tensor], slope: Tensor, **options: Any
) -> list[list[Tensor]]:
    """Return the same for tensors that are split over ranks, from each rank."""

    def work(rank: int) -> list[Tensor]:
        on = mesh(world)
        leaves = [parts(each, on) for each in given]
        output: Any = f(*leaves, **options)
        output.backward(parts(slope, on))
        return [each.full_tensor().detach() for each in (output, *[leaf.grad for leaf in leaves])]

    return on_ranks(world, work)


def compare(world: int, f: Callable[..., Tensor], given: list[Tensor], tolerance: Any = None, **options: Any) -> None:
    slope = torch.randn_like(given[0])
    expected = gradients(f, given, slope, **options)
    for found in ring_gradients(world, f, given, slope, **options):
        torch.testing.assert_close(found, expected, **(tolerance or {}))


def key_mask() -> Tensor:
    """Return a key mask of which one example has no key at the beginning, and the whole of one part is padding."""
    kept = torch.rand(2, 1, X) > 0.4
    kept[0, :, :6], kept[1, :, 6:] = False, False
    return kept


def mask() -> Tensor:
    kept = torch.rand(2, 1, X, X) > 0.5
    kept[:, :, 3], kept[..., 5] = False, False
    return kept


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "every key": dict,
    "causal": lambda: {"causal": True},
    "causal, from a position": lambda: {"causal": True, "start": 5},
    "a window": lambda: {"window": 3},
    "a causal window": lambda: {"causal": True, "window": 4},
    "a causal window, from a position": lambda: {"causal": True, "window": 4, "start": 3},
    "padding": lambda: {"key_mask": key_mask()},
    "causal with padding": lambda: {"causal": True, "key_mask": key_mask()},
    "a mask": lambda: {"mask": mask()},
    "a mask of numbers": lambda: {"mask": torch.randn(H, X, X, dtype=torch.float64)},
    "all of it": lambda: {"mask": mask(), "causal": True, "window": 5, "key_mask": key_mask()},
}


@pytest.mark.every(4)
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_whole_tensors(name: str, world: int) -> None:
    compare(world, attention, tensors(X, X), **CASES[name]())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("y", "x"), [(Y, X), (X, Y)])
def test_lengths_may_differ(y: int, x: int, causal: bool) -> None:
    compare(2, attention, tensors(y, x), causal=causal)


def test_halves_may_be_unequal_and_a_part_may_have_one_position() -> None:
    compare(4, attention, tensors(X, X), causal=True)
    compare(3, attention, tensors(3, 3), causal=True)


def test_heads_that_share_keys() -> None:
    kept = key_mask()[:, 0]
    compare(2, grouped_attention, tensors(X, X, groups=2), causal=True, key_mask=kept)
    compare(2, grouped_attention, tensors(X, X, groups=2), mask=mask().expand(2, H, X, X).clone())


@pytest.mark.parametrize("lead", [(), (3,), (2, 1, 3)])
def test_leading_axes(lead: tuple[int, ...]) -> None:
    given = [torch.randn(*lead, X, K, dtype=torch.float64) for _ in range(3)]
    compare(2, attention, given, causal=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smaller_dtypes(dtype: torch.dtype) -> None:
    """Within twice the rounding error of the whole kernel's dtype, since blocks are rounded before they are merged."""
    compare(2, attention, tensors(X, X, dtype=dtype), {"atol": 0.04, "rtol": 0.04} if dtype == torch.bfloat16 else None,
            causal=True)  # fmt: skip


@pytest.mark.parametrize("name", ["every key", "causal", "causal with padding", "all of it"])
def test_without_the_fused_operator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_blocks, "_is_fused", lambda query: False)
    compare(2, attention, tensors(X, X), **CASES[name]())
    compare(2, grouped_attention, tensors(X, X, groups=2), causal=True)


def test_unseen_keys_and_queries_that_see_none_may_hold_nan() -> None:
    query, key, value = tensors(X, X)
    kept = key_mask()
    hidden = ~kept[:, 0]
    for each in (key, value):
        each.masked_fill_(hidden[:, None, :, None], torch.nan)
    query[0, :, 0] = torch.nan  # sees only padding
    slope = torch.ones_like(query)
    expected = gradients(attention, [query, key, value], slope, causal=True, key_mask=kept)
    assert all(each.isfinite().all() for each in expected)
    for found in ring_gradients(2, attention, [query, key, value], slope, causal=True, key_mask=kept):
        torch.testing.assert_close(found, expected)


# Work and bytes


def pairs_by_rank(world: int, monkeypatch: pytest.MonkeyPatch, size: int, **options: Any) -> list[int]:
    """Return the number of pairs of query and key of which each rank computes the score."""
    counts = [0] * world
    attend = ring_blocks.attend_to_block

    def counting(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Any:
        y, x = query.shape[-2], key.shape[-2]
        counts[dist.get_rank()] += sum([min(each + 1, x) for each in range(y)]) if causal else y * x
        return attend(query, key, value, mask, causal)

    with monkeypatch.context() as patch:
        patch.setattr(ring_attention, "attend_to_block", counting)
        given = tensors(size, size)
        on_ranks(world, lambda rank: attention(*[parts(each, mesh(world)) for each in given], **options))
    return counts


@pytest.mark.parametrize("world", [2, 4])
def test_causal_work_is_equal(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 8 * world
    assert pairs_by_rank(world, monkeypatch, size, causal=True) == [size * (size + 1) // 2 // world] * world


def test_causal_work_is_equal_up_to_a_block_where_halves_are_unequal(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = pairs_by_rank(3, monkeypatch, 15, causal=True)
    assert sum(counts) == 15 * 16 // 2
    assert max(counts) - min(counts) <= 5 * 5  # of which each rank has 3 in the order of the sequence: 15, 40, 65


def test_what_a_window_hides_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pairs_by_rank(4, monkeypatch, 16, window=2) == [2 * 16, 3 * 16, 3 * 16, 2 * 16]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_sent_is_what_the_kernel_says(
    causal: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, world = tensors(X, X, groups=2, dtype=dtype), 3
    sizes = [each.numel() * each.element_size() // world for each in (*given, given[0])]

    sent = [[0] for _ in range(world)]
    send = dist.all_to_all_single

    def counting(output: Tensor, input: Tensor, *args: Any, **options: Any) -> Any:
        sent[dist.get_rank()][-1] += input.numel() * input.element_size()
        return send(output, input, *args, **options)

    monkeypatch.setattr(dist, "all_to_all_single", counting)

    def work(rank: int) -> tuple[int, ...]:
        output: Any = grouped_attention(*[parts(each, mesh(world)) for each in given], causal=causal)
        sent[rank].append(0)
        output.backward(output.detach())
        return tuple(sent[rank])

    said = {"forward": 0, "backward": 0}
    for _, _, pass_, times, _ in ring_blocks.ring_sends(ranks=world, dtype=dtype, causal=causal):
        said[pass_] += sum([size * count for size, count in zip(sizes, times, strict=True)])
    assert on_ranks(world, work) == [tuple(said.values())] * world


# Planted defects


def no_weights(output: Tensor, total: Tensor, other: Tensor, other_total: Tensor) -> tuple[Tensor, Tensor]:
    return output + other, torch.logaddexp(total, other_total)


DEFECTS: dict[str, tuple[Any, str, Any]] = {
    "outputs are added up": (ring_attention, "merged", no_weights),
    "positions of another rank": (ring.Ring, "spans", lambda self, part, rank: [(0, part)]),
    "blocks that do not travel": (ring.Ring, "send", lambda self, tensor: lambda: tensor),
    "halves that are not exchanged": (ring.Ring, "balanced", lambda self, tensor: tensor),
    "outputs that stay in halves": (ring.Ring, "parted", lambda self, tensor: tensor),
    "blocks that are skipped": (ring_blocks.Sight, "is_hidden", lambda self, queries, keys: keys[0] >= queries[0]),
    "blocks that are not masked": (ring_blocks.Sight, "is_seen", lambda self, queries, keys: True),
    "a total of the wrong block": (ring_attention, "merged", lambda a, b, c, d: (ring_blocks.merged(a, b, c, d)[0], d)),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*DEFECTS[name])
    with pytest.raises(AssertionError, match="not close"):
        compare(2, attention, tensors(X, X), causal=True)


def test_a_wrong_offset_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_blocks, "within", lambda ahead, causal, window: ahead >= -1)
    with pytest.raises(AssertionError, match="not close"):
        compare(2, attention, tensors(X, X), causal=True, start=1)


# Refused


def refusal(*, queries: int = X, keys: int = X, **options: Any) -> str:
    """Return the message with which attention is refused on two ranks."""

    def work(rank: int) -> str:
        on = mesh(2)
        given = [parts(torch.randn(size, K), on) for size in (queries, keys, keys)]
        made = {name: each(on) if callable(each) else each for name, each in options.items()}
        with pytest.raises(CircuitError) as caught:
            attention(*given, **made)
        return str(caught.value)

    return on_ranks(2, work)[0]


def test_what_the_ring_cannot_do_is_refused() -> None:
    assert "11 queries are not divided by its 2 ranks" in refusal(queries=11)
    assert "11 keys are not divided by its 2 ranks" in refusal(keys=11)
    assert "split over sequence: dropout draws" in refusal(dropout=0.5)
    assert "mask needs a gradient" in refusal(mask=torch.zeros(X, X, requires_grad=True))
    assert "window of 0" in refusal(window=0)

    def split(on: DeviceMesh) -> Tensor:
        return parts(torch.ones(X, X, dtype=torch.bool), on)

    assert "mask has to be whole over sequence" in refusal(mask=split)


def test_queries_alone_are_refused() -> None:
    def work(rank: int) -> None:
        on = mesh(2)
        query, key = parts(torch.randn(X, K), on), DTensor.from_local(torch.randn(X, K), on, [Replicate()])
        with pytest.raises(CircuitError, match="or along queries and keys over one axis of the mesh"):
            attention(query, key, key)

    on_ranks(2, work)


@pytest.mark.slow
def test_second_derivatives_are_refused() -> None:
    def work(rank: int) -> None:
        leaves = [parts(each, mesh(2)) for each in tensors(X, X)]
        output: Any = attention(*leaves)
        with pytest.raises(CircuitError, match="first derivatives only"):
            torch.autograd.grad(output.to_local().sum(), leaves[:1], create_graph=True)

    on_ranks(2, work)
