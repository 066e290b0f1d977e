"""Attention broadcast over batch and heads by its signature, compared with other implementations; heads come last."""

import importlib
import random
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from circuits import broadcast
from models.attention import attention
from scripts.benches.timing import Spread, bound, interleaved

Way = Callable[[Tensor, Tensor, Tensor], Tensor]

SIZES = ((1, 16, 8, 2), (2, 16, 16, 4), (8, 64, 64, 8), (1, 512, 64, 8), (1, 2048, 64, 4))
"""The sizes of b, y = x, k and h."""


def by_einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Two einsums and a softmax."""
    score = torch.einsum("bykh,bxkh->bhyx", query, key) * query.shape[2] ** -0.5
    return torch.einsum("bhyx,bxkh->bykh", score.softmax(-1), value)


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """torch's fused operator on `... y k`, `... x k` and `... x k`."""
    return F.scaled_dot_product_attention(query, key, value)


def by_fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """torch's fused operator on contiguous copies with the heads before y, its fastest layout."""
    query, key, value = (each.permute(0, 3, 1, 2).contiguous() for each in (query, key, value))
    return fused(query, key, value).permute(0, 2, 3, 1)


def by_fused_on_views(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same on permuted views, without copies."""
    query, key, value = (each.permute(0, 3, 1, 2) for each in (query, key, value))
    return fused(query, key, value).permute(0, 2, 3, 1)


def ways() -> dict[str, Way]:
    """Every implementation by name, `broadcast` first, and those of einx if it is installed."""
    found: dict[str, Way] = {
        "broadcast": broadcast(attention, "b y k h, b x k h, b x k h -> b y k h"),
        "fused by hand, copied": by_fused,
        "fused by hand, views": by_fused_on_views,
        "einsum by hand": by_einsum,
        "torch.vmap, nested": torch.vmap(torch.vmap(fused, 2, 2)),
    }
    return found | _einx()


def _einx() -> dict[str, Way]:
    """Two implementations with einx: its own operations, and its notation around torch's fused operator."""
    try:
        einx: Any = importlib.import_module("einx")
        importlib.import_module("einx.torch")
    except ImportError:
        return {}
    mapped = einx.torch.adapt_with_vmap(fused)

    def verbs(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        score = einx.dot("b y k h, b x k h -> b h y x", query, key) * query.shape[2] ** -0.5
        return einx.dot("b h y x, b x k h -> b y k h", einx.softmax("b h y [x]", score), value)

    def notation(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mapped("b [y k] h, b [x k] h, b [x k] h -> b [y k] h", query, key, value)

    return {"einx, verbs": verbs, "einx, vmap": notation}


def measure(console: Console, seconds: float, device: torch.device) -> None:
    """Print a line for every implementation and size, without gradients, after comparing their outputs."""
    found = ways()
    if not any(name.startswith("einx") for name in found):
        console.print("einx is not installed, so it is not measured")
    for b, n, k, h in SIZES:
        tensors = tuple(torch.randn(3, b, n, k, h, device=device))
        table = Table(title=f"attention over b={b} and h={h}, y=x={n}, k={k}, on {device}")
        for column in ("way", "microseconds", "broadcast is, times this"):
            table.add_column(column, justify="left" if column == "way" else "right")
        with torch.no_grad():
            agree(found, *tensors)
            times = timed({name: bound(way, tensors) for name, way in found.items()}, seconds, device)
        for name, each in times.items():
            ratios = [ours / other for ours, other in zip(times["broadcast"], each, strict=True)]
            table.add_row(name, Spread.of([1e6 * one for one in each]).show(), Spread.of(ratios).show("×"))
        console.print(table)


def agree(found: dict[str, Way], query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise AssertionError unless all implementations return the same numbers, so that the times are comparable.

    Relative tolerance: 1e-4, for sums over up to 2,048 keys in float32, in any order.
    """
    expected = by_einsum(query.double(), key.double(), value.double()).to(query.dtype)
    for name, way in found.items():
        torch.testing.assert_close(
            way(query, key, value), expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def timed(calls: dict[str, Callable[[], object]], seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Seconds per call, for about `seconds`; the order is random in each block, since a call changes the caches."""
    calls = {name: _settling(call) if device.type == "cuda" else call for name, call in calls.items()}
    for call in calls.values():
        call()
    start = time.perf_counter()
    for call in calls.values():
        call()
    once = time.perf_counter() - start
    each = max(1, int(0.005 * len(calls) / once))
    times: dict[str, list[float]] = {name: [] for name in calls}
    shuffled, names = random.Random(0), [*calls]
    for _ in range(min(300, max(7, int(seconds / (once * each))))):
        shuffled.shuffle(names)
        for name, block in interleaved({name: calls[name] for name in names}, 1, each).items():
            times[name] += block
    return times


def _settling(call: Callable[[], object]) -> Callable[[], object]:
    """The call, followed by a synchronization of the device."""

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run
