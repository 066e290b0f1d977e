"""The cost of a checked call, compared with hand-written asserts and other checkers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from circuits import circuit
from scripts.benches.timing import Spread, bound, interleaved


@dataclass(frozen=True)
class Case:
    """One function without a check, with hand-written asserts, and with each checker; and its arguments."""

    title: str
    variants: Mapping[str, Callable[..., Any]]
    arguments: tuple[Any, ...]


def attention_bare(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """No computation, so that only the check is timed."""
    return query


def attention_by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Hand-written asserts for `... y k, ... x k, ... x k -> ... y k`."""
    assert query.ndim >= 2  # noqa: S101
    assert key.ndim >= 2  # noqa: S101
    assert query.shape[:-2] == key.shape[:-2]  # noqa: S101
    assert query.shape[-1] == key.shape[-1]  # noqa: S101
    assert key.shape == value.shape  # noqa: S101
    result = attention_bare(query, key, value)
    assert result.shape == query.shape  # noqa: S101
    return result


def linear_bare(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """No computation; the result has the right shape for these arguments."""
    return x


def linear_by_hand(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Hand-written asserts for `b m, k m, k -> b k`, where k and m have the same size."""
    assert x.ndim == 2  # noqa: S101
    assert weight.ndim == 2  # noqa: S101
    assert bias.ndim == 1  # noqa: S101
    assert x.shape[1] == weight.shape[1]  # noqa: S101
    assert weight.shape[0] == bias.shape[0]  # noqa: S101
    result = linear_bare(x, weight, bias)
    assert result.ndim == 2  # noqa: S101
    assert result.shape[0] == x.shape[0]  # noqa: S101
    assert result.shape[1] == weight.shape[0]  # noqa: S101
    return result


def cases() -> tuple[list[Case], list[str]]:
    """The cases to measure, and the names of peers that are not installed."""
    ours: dict[str, Any] = {
        "attention": circuit("... y k, ... x k, ... x k -> ... y k")(attention_bare),
        "linear": circuit("b m, k m, k -> b k")(linear_bare),
    }
    peers, missing = installed_peers()
    query, key = torch.rand(2, 4, 20, 16), torch.rand(2, 4, 22, 16)
    found = [
        Case(
            "attention",
            {"bare": attention_bare, "by hand": attention_by_hand, "circuit": ours["attention"]}
            | {name: peer["attention"] for name, peer in peers.items()},
            (query, key, torch.rand(2, 4, 22, 16)),
        ),
        Case(
            "linear",
            {"bare": linear_bare, "by hand": linear_by_hand, "circuit": ours["linear"]}
            | {name: peer["linear"] for name, peer in peers.items()},
            (torch.rand(8, 16), torch.rand(16, 16), torch.rand(16)),
        ),
    ]
    return found, missing


def installed_peers() -> tuple[dict[str, dict[str, Callable[..., Any]]], list[str]]:
    """The same functions with the other checkers, and the names of those not installed."""
    peers: dict[str, dict[str, Callable[..., Any]]] = {}
    missing: list[str] = []
    for name, make in (("jaxtyping+beartype", with_jaxtyping), ("eincheck", with_eincheck)):
        try:
            peers[name] = make()
        except ImportError:
            missing.append(name)
    return peers, missing


def with_jaxtyping() -> dict[str, Callable[..., Any]]:
    """The functions checked by jaxtyping and beartype."""
    from beartype import beartype
    from jaxtyping import Float, jaxtyped

    y, x, out = Float[Tensor, "*r y k"], Float[Tensor, "*r x k"], Float[Tensor, "*r y k"]

    def attention(query: y, key: x, value: x) -> out:  # pyright: ignore[reportInvalidTypeForm]
        return query

    def linear(
        x: Float[Tensor, "b m"],  # noqa: F722
        weight: Float[Tensor, "k m"],  # noqa: F722
        bias: Float[Tensor, "k"],  # noqa: F821
    ) -> Float[Tensor, "b k"]:  # noqa: F722
        return x

    checked = jaxtyped(typechecker=beartype)
    return {"attention": checked(attention), "linear": checked(linear)}


def with_eincheck() -> dict[str, Callable[..., Any]]:
    """The functions checked by eincheck."""
    from eincheck import check_func

    return {
        "attention": check_func("*r y k, *r x k, *r x k -> *r y k")(attention_bare),
        "linear": check_func("b m, k m, k -> b k")(linear_bare),
    }


def added(times: Mapping[str, list[float]], name: str) -> list[float]:
    """Seconds that a variant adds to the bare function, in each block."""
    return [mine - bare for mine, bare in zip(times[name], times["bare"], strict=True)]


def report(title: str, times: Mapping[str, list[float]]) -> Table:
    """A table with one line for each variant: the time it adds, and its ratio to the hand-written asserts."""
    table = Table(title=title)
    for column in ("check", "adds, microseconds", "times what asserts by hand add"):
        table.add_column(column, justify="left" if column == "check" else "right")
    hand = added(times, "by hand")
    for name in times:
        if name != "bare":
            mine = added(times, name)
            ratios = [a / b for a, b in zip(mine, hand, strict=True)]
            table.add_row(name, Spread.of([1e6 * each for each in mine]).show(), Spread.of(ratios).show("×"))
    return table


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """A small computation, so that torch.compile has a graph."""
    return (query @ key.mT).softmax(-1) @ value


def compiled(case: Case, blocks: int, calls: int) -> Table:
    """A function under torch.compile, with and without a signature: the remaining cost of the check."""
    torch._dynamo.reset()
    functions = {"bare": attend, "circuit": circuit("... y k, ... x k, ... x k -> ... y k")(attend)}
    made = {name: bound(torch.compile(f, backend="eager"), case.arguments) for name, f in functions.items()}
    for call in made.values():
        call()
    times = interleaved(made, blocks, calls)
    table = Table(title=f"{case.title} under torch.compile: a whole call")
    for column in ("function", "microseconds", "times the bare function"):
        table.add_column(column, justify="left" if column == "function" else "right")
    for name in functions:
        ratios = [mine / bare for mine, bare in zip(times[name], times["bare"], strict=True)]
        table.add_row(name, Spread.of([1e6 * each for each in times[name]]).show(), Spread.of(ratios).show("×"))
    return table


def measure(console: Console, blocks: int, calls: int) -> None:
    """Print the time that a check adds to a call, for every variant and under torch.compile."""
    found, missing = cases()
    for name in missing:
        console.print(f"{name} is not installed, so it is not measured (pip install neural-circuit-diagrams[bench])")
    for case in found:
        slow = {name: bound(function, case.arguments) for name, function in case.variants.items()}
        fast = {name: slow[name] for name in ("bare", "by hand", "circuit")}
        times = interleaved(fast, blocks, calls)
        console.print(report(f"{case.title}: what a check adds to a call", times))
        times = interleaved(slow, blocks, max(1, calls // 10))
        console.print(report(f"{case.title}, with other checkers in the turn", times))
    console.print(compiled(found[0], blocks, max(1, calls // 10)))
