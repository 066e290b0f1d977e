"""Containers of many entries, and many objects in each other: compared to the last, or the diagram refuses to run."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError
from tests.recording.test_read_state import recorded

X = torch.tensor([0.5, -1.0, 2.0])


def nested(count: int) -> dict[int, list[float]]:
    return {i: [float(i)] for i in range(count)}


NUMBERS: dict[Any, float] = {i: float(i) for i in range(1500)}
NESTED = nested(2500)


class OfGlobals(nn.Module):
    def __init__(self, key: int) -> None:
        super().__init__()
        self.key = key

    def forward(self, x: Tensor) -> Tensor:
        return x * NUMBERS[self.key] * NESTED[self.key][0]


class OfAttributes(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.table = nested(count)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.table[0][0] + self.table[len(self.table) - 1][0]


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        NUMBERS["calls"] = NUMBERS.get("calls", 0) + 1
        return x * NUMBERS["calls"]


both = pytest.mark.parametrize("kind", ["trace", "track"])


@pytest.mark.every(3)
@both
@pytest.mark.parametrize("key", [1, 1499])
def test_entries_of_large_globals(kind: str, key: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = OfGlobals(key)
    diagram = recorded(kind, model, X)
    assert torch.equal(diagram(X), model(X))
    for held, entry, value, name in (
        (NUMBERS, key, 7.5, rf"NUMBERS\[{key}\]"),
        (NESTED[key], 0, 7.5, rf"NESTED\[{key}\]\[0\]"),
    ):
        before = held[entry]
        held[entry] = value
        with pytest.raises(CircuitError, match=name):
            diagram(X)
        held[entry] = before
    assert torch.equal(diagram(X), model(X))


@both
@pytest.mark.parametrize("key", [0, 2499])
def test_many_objects_in_an_attribute(kind: str, key: int) -> None:
    model = OfAttributes(2500)
    diagram = recorded(kind, model, X)
    assert torch.equal(diagram(X), model(X))
    model.table[key][0] = 7.5
    with pytest.raises(CircuitError, match=rf"OfAttributes.table\[{key}\]\[0\]"):
        diagram(X)


@pytest.mark.slow
@both
def test_more_objects_than_are_compared(kind: str) -> None:
    """Read, and not run: the number of the first or of the last may be another."""
    diagram = recorded(kind, OfAttributes(20_100), X)
    assert "mul" in f"{diagram}"
    with pytest.raises(CircuitError, match=r"may read OfAttributes.table\[\d+\] and more than 20,000 other objects"):
        diagram(X)


@both
def test_what_a_run_writes_into_a_large_global(kind: str) -> None:
    try:
        diagram = recorded(kind, Counting(), X)
        assert NUMBERS.get("calls") == (None if kind == "trace" else 1)
        NUMBERS.pop("calls", None)
        assert torch.equal(diagram(X), X)
        assert NUMBERS["calls"] == 1
        with pytest.raises(CircuitError, match=r"NUMBERS\.calls"):
            diagram(X)
    finally:
        NUMBERS.pop("calls", None)
