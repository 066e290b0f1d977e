"""`Bound`: lower bounds on the time of each box of a diagram on a machine, and what binds.

There are two, by what they assume. `unfused`: the operations run one after the other, each reading its inputs from
memory and writing its results there. `fused`: a box is one kernel, which reads from memory what comes from outside the
box, once, and writes its results; this holds for any implementation of the box by the same contractions, and for
`unfused` too. Computing overlaps moving bytes completely in both. The FLOPs are those of contractions alone, so
pointwise operations and reductions take the time of their bytes. Outside of both are algorithms that compute a
contraction with fewer FLOPs (Strassen, Winograd, leaving out what a mask hides) or in another dtype (TF32 for float32).

If the size and rate of the machine's cache are known, as many bytes as fit may be there already; otherwise none are.
The FLOPs of an operation without a formula are not in the bound, which its bytes are: it is a lower one still.

Source: S. Williams, A. Waterman and D. Patterson, Roofline, CACM 52 (4), 2009.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import sympy
import torch

from circuits.cost import bound_report
from circuits.cost.box_bound import BoxBound, brief
from circuits.cost.box_cost import BoxCost, Work
from circuits.cost.groups import innermost
from circuits.cost.machine import MACHINES, Machine, larger
from circuits.diagram import Table, Width, is_printable
from circuits.errors import CircuitError, entry_points


@entry_points("at", "table", "to_html")
@dataclass(frozen=True)
class Bound:
    """Lower bounds on the time of a diagram on a machine, by box and in total: `Cost.on` returns it.

    `print(bound)` prints a table. Times are in seconds, numbers, or sympy formulas in the free axes; `at` gives these
    sizes.

    Attributes:
        machine: The machine.
        rows: One for each row of the cost.
        total: The whole.
        cost: The `Cost` from which they are computed.
    """

    machine: Machine
    rows: tuple[BoxBound, ...]
    total: BoxBound
    cost: Any = field(repr=False)

    def __repr__(self) -> str:
        """Return the machine and the times of the whole, in one line."""
        return f"Bound({self.machine.name}, {len(self.rows)} row{'s' * (len(self.rows) != 1)}, {brief(self.total)})"

    def at(self, **sizes: int) -> "Bound":
        """Return the bounds at sizes of some free axes; formulas in the others remain.

        Args:
            **sizes: The size of each axis, a positive number.

        Raises:
            CircuitError: As `Cost.at` raises.
        """
        return bound_of(self.cost.at(**sizes), self.machine)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain data for JSON: numbers, and formulas as text."""
        return bound_report.plain(self.rows, self.total, self.machine, self.cost.axes, self.cost.notes)

    def table(self, depth: int | None = None, width: Width = "auto", ascii: bool = False) -> str:
        """Return the table as text.

        Args:
            depth: How many levels of boxes inside boxes to show; None for all.
            width: The number of columns; "auto": the terminal's, or 120 if the standard output is none; None: as many
                as the texts have. If the table is wider, names of boxes shorten, and columns go, the last first.
            ascii: Whether to use ASCII alone.

        Raises:
            CircuitError: There is no such width.
        """
        return self._table(depth).text(width, ascii)

    def to_html(self, depth: int | None = None) -> str:
        """Return the table as HTML; the argument is that of `table`."""
        return self._table(depth).html()

    def _repr_html_(self) -> str:
        """Return the table as HTML, which notebooks show."""
        return self.to_html()

    def _table(self, depth: int | None) -> Table:
        time = cache(partial(_time, self.machine))
        lines = [
            (level, label, times, _bound(row, self.machine, time))
            for level, label, times, row in self.cost.lines()
            if depth is None or level <= depth
        ]
        return bound_report.table(lines, self.total, self.cost, self.machine)

    def __str__(self) -> str:
        """Return the table, as wide as the terminal; in ASCII if `sys.stdout` cannot encode it."""
        text = self.table()
        return text if is_printable(text) else self.table(ascii=True)


def bound_of(cost: Any, machine: Machine | str) -> Bound:
    """Return the lower bounds of a `Cost` on a machine, as `Cost.on` says."""
    if isinstance(machine, str):
        if machine not in MACHINES:
            raise CircuitError(f"on: no machine is called {machine!r}; there are {', '.join(MACHINES)}")
        machine = MACHINES[machine]
    if not isinstance(machine, Machine):
        raise CircuitError(f"on: a Machine or the name of one is expected, not {machine!r}")
    _check_dtypes([*innermost(cost.rows), cost.total], machine)
    time = cache(partial(_time, machine))
    return Bound(
        machine, tuple([_bound(row, machine, time) for row in cost.rows]), _bound(cost.total, machine, time), cost
    )


def _check_dtypes(rows: Sequence[BoxCost], machine: Machine) -> None:
    """Raise CircuitError if an operation computes in a dtype that the machine has no rate for."""
    for row in rows:
        for dtype in [dtype for work, _ in row.work for dtype, _ in work.flops]:
            try:
                machine.rate_of(dtype)
            except CircuitError as error:
                raise CircuitError(f"on: {row.label}: {error}") from None


def _bound(row: BoxCost, machine: Machine, time: Callable[[Work], tuple[Any, Any]]) -> BoxBound:
    """Return the bounds of one row; `time` returns those of an operation."""
    parts = [(*time(work), count) for work, count in row.work]
    unfused, binds = sum([count * seconds for seconds, _, count in parts]), _binds(parts)
    given: dict[str, Any] = {}
    if row.crossing is not None:
        fused, fused_binds = time(_one_kernel(row))
        if machine.cache_rate and machine.cache:  # what each operation finds in the cache, all together may not
            unfused = _largest(unfused, fused)
        given = {"crossing": row.crossing, "fused": fused, "fused_binds": fused_binds}
    return BoxBound(row.label, row.place, row.kind, row.path, row.live_flops, row.bytes, unfused, binds, **given)


def _one_kernel(row: BoxCost) -> Work:
    """Return the work of a box whose operations are one kernel."""
    flops: dict[torch.dtype, Any] = {}
    for work, count in row.work:
        for dtype, number in work.flops:
            flops[dtype] = flops.get(dtype, 0) + count * number
    return Work(tuple(flops.items()), row.crossing)  # type: ignore[arg-type]


def _binds(parts: Sequence[tuple[Any, Any, int]]) -> Any:
    """Return what binds several operations; None if it depends on free axes."""
    if len({binds for _, binds, _ in parts}) == 1:
        return parts[0][1]
    if any(getattr(seconds, "free_symbols", None) for seconds, _, _ in parts):
        return None
    shares = dict.fromkeys(("compute", "bandwidth"), 0)
    for seconds, binds, count in parts:
        shares[binds] += count * seconds
    return max(shares, key=lambda name: shares[name]) if parts else "bandwidth"


def _time(machine: Machine, work: Work) -> tuple[Any, Any]:
    """Return the least time of one kernel, and what binds; units of several dtypes may compute at the same time."""
    times = [flops / machine.rate_of(dtype).peak for dtype, flops in work.flops]
    compute = _largest(*times) if len(times) > 1 else sum(times)
    return larger(compute, _memory(work.bytes, machine))


def _memory(bytes: Any, machine: Machine) -> Any:
    """Return the least time in which bytes are moved, of which as many as fit may be in the cache."""
    memory = machine.memory_rate.peak
    if machine.cache_rate is None or machine.cache is None:
        return bytes / memory
    fastest = max(machine.cache_rate.peak, memory)
    return _largest(bytes / fastest, (bytes - machine.cache.value) / memory)


def _largest(*times: Any) -> Any:
    """Return the largest time; for formulas a `Max` that sympy does not try to simplify, which takes it long."""
    if not any(isinstance(each, sympy.Basic) for each in times):
        return max(times)
    return sympy.Max(*times, evaluate=False)


__all__ = ["Bound", "bound_of"]
