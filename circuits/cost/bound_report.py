"""Lower bounds on times as text and plain data."""

from collections.abc import Sequence
from typing import Any

from circuits.cost.box_bound import BoxBound
from circuits.cost.box_cost import BoxCost
from circuits.cost.machine import Machine
from circuits.cost.texts import amount, duration, formula
from circuits.diagram import Cells, Table

_HEADINGS = ("box", "FLOPs", "bytes moved", "FLOPs/byte", "unfused", "binds", "bytes in and out", "fused", "binds")
_ASSUMED = (
    "unfused: no less time if the operations run one after the other, each from memory to memory",
    "fused: no less time even if a box is one kernel, which reads and writes only what crosses its boundary",
)


Line = tuple[int, str, int, BoxBound]
"""A line of the table: how deep it is, its name, how often it is repeated, and the bounds of all of these."""


def table(lines: Sequence[Line], total: BoxBound, cost: Any, machine: Machine) -> Table:
    """Return the table of a `Cost` on a machine; columns without a number are left out."""
    cells = [
        [f"{'  ' * depth}{label}{f' ×{times}' if times > 1 else ''}", *_cells(bounds)]
        for depth, label, times, bounds in lines
    ]
    if not (lines and lines[0][3].place == () and lines[0][3].kind != "group"):
        cells.append(["total", *_cells(total)])
    columns = [
        Cells([heading, *texts], right=heading not in ("box", "binds"))
        for heading, *texts in zip(_HEADINGS, *cells, strict=True)
        if any(texts)
    ]
    notes = [rates_line(cost.total, machine), *_ASSUMED, *cost.notes, *_uncounted(cost.total)]
    if cost.axes:
        notes.append(f"times are formulas in {', '.join(cost.axes)}: at({cost.axes[0]}=…) gives sizes")
    return Table(columns, [("", note) for note in notes])


def _uncounted(total: BoxCost) -> list[str]:
    """Return the line that names each operation without a formula; none if there is no such operation."""
    found = [f"{name}{f' ×{times}' if times > 1 else ''}" for name, times in total.uncounted]
    return [f"not counted (no formula): {'; '.join(found)}"] if found else []


def rates_line(cost: BoxCost, machine: Machine) -> str:
    """Return the line of the machine's rates, with the FLOPs for each byte at which both take the same time: the ridge.

    It has the dtypes in which the cost has FLOPs.
    """
    memory = machine.memory_rate.peak
    used = dict.fromkeys([dtype for work, _ in cost.work for dtype, _ in work.flops])
    rates = [
        f"{str(dtype).removeprefix('torch.')} {amount(rate, 'FLOP/s')} (ridge at {rate / memory:.3g} FLOPs/byte)"
        for dtype, rate in [(dtype, machine.rate_of(dtype).peak) for dtype in used]
    ]
    cache = "no cache is assumed"
    if machine.cache_rate and machine.cache:
        found, rate = amount(machine.cache.value, "B"), amount(machine.cache_rate.peak, "B/s")
        cache = f"up to {found} may be in a cache, {rate}"
    rates.append(f"memory {amount(memory, 'B/s')}")
    return f"{machine.name}, at most: {', '.join(rates)}; {cache}"


def _cells(row: BoxBound) -> list[str]:
    symbolic = [getattr(each, "free_symbols", None) for each in (row.flops, row.bytes)]
    return [
        amount(row.flops),
        amount(row.bytes, "B"),
        "" if any(symbolic) else amount(row.intensity),
        *_time(row.unfused, row.unfused_binds),
        amount(row.crossing, "B"),
        *_time(row.fused, row.fused_binds),
    ]


def _time(seconds: Any, binds: Any) -> tuple[str, str]:
    """Return a time and what binds; nothing where there is none, or where it depends on free axes."""
    if seconds is None or seconds == 0 or getattr(seconds, "free_symbols", None):
        return "", ""
    return duration(float(seconds)), f"{binds}"


def plain(
    rows: Sequence[BoxBound], total: BoxBound, machine: Machine, axes: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """Return plain data for JSON."""
    return {
        "machine": machine.to_dict(),
        "assumed": list(_ASSUMED),
        "axes": list(axes),
        "total": _plain_row(total),
        "rows": [_plain_row(row) for row in rows],
        "notes": list(notes),
    }


def _plain_row(row: BoxBound) -> dict[str, Any]:
    found = {**vars(row), "place": list(row.place), "intensity": row.intensity}
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if getattr(value, "free_symbols", None):
        return formula(value)
    return float(value) if getattr(value, "is_number", False) else value


__all__ = ["plain", "rates_line", "table"]
