"""Interleaved timing: the variants run in turn, so that ratios can be taken block by block."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """The quartiles of some measurements.

        >>> Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])
        Spread(low=2.0, middle=3.0, high=4.0)
        """
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, middle, high)

    def show(self, unit: str = "") -> str:
        """The median, and the quartiles in brackets."""
        return f"{self.middle:.2f}{unit} ({self.low:.2f} to {self.high:.2f})"


def interleaved(functions: Mapping[str, Callable[[], object]], blocks: int, calls: int) -> dict[str, list[float]]:
    """Seconds per call of each function in each block; the order of the functions rotates from block to block."""
    names = list(functions)
    times: dict[str, list[float]] = {name: [] for name in names}
    for block in range(blocks):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            function = functions[name]
            start = time.perf_counter()
            for _ in range(calls):
                function()
            times[name].append((time.perf_counter() - start) / calls)
    return times


def bound(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[], object]:
    """The call as a function without arguments; it adds the same overhead of one call to every variant."""
    return lambda: function(*arguments)
