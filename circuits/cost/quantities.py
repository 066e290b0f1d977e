"""The quantities of a cost: their names, headings and texts."""

from collections.abc import Iterable, Sequence
from typing import Any

from circuits.cost.texts import amount, is_formula, shorter
from circuits.errors import CircuitError

COLUMNS = {
    "calls": "calls",
    "multiply_adds": "multiply-adds",
    "flops": "FLOPs",
    "live_flops": "live FLOPs",
    "elementwise": "elementwise",
    "parameters": "parameters",
    "trained": "trained",
    "frozen": "frozen",
    "buffers": "buffers",
    "state_bytes": "state bytes",
    "read": "bytes read",
    "written": "bytes written",
    "bytes": "bytes moved",
    "intensity": "FLOPs/byte",
    "activations": "activations",
    "saved": "saved",
    "peak": "peak",
}
"""The heading of each quantity that a row shows, by its name."""


def check_columns(columns: Iterable[str]) -> None:
    """Raise CircuitError if there is no column of one of these names."""
    for name in columns:
        if name not in COLUMNS:
            raise CircuitError(f"a cost has no column {name!r}; it has {', '.join(COLUMNS)}")


_DEFAULT = (
    "flops", "live_flops", "parameters", "bytes", "activations", "saved", "peak", "intensity", "buffers",
)  # fmt: skip
"""The quantities that a table shows if none are chosen; in a narrow table the last go first. Multiply-adds are half the
FLOPs."""

_IN_BYTES = frozenset(["state_bytes", "read", "written", "bytes", "activations", "saved", "peak"])
_COUNTS = ("parameters", "trained", "frozen", "buffers", "calls")


def heading_of(name: str, values: Any) -> str:
    """Return the heading of a quantity."""
    heading = COLUMNS[name]
    unit = name in _IN_BYTES and "bytes" not in heading and any(map(is_formula, values))
    return f"{heading} (B)" if unit else heading


def text_of(name: str, value: Any) -> str:
    """Return the text of a value of a quantity."""
    if name in _COUNTS:
        return f"{value:,}" if value else ""
    if name == "intensity" and is_formula(value):
        return ""  # a quotient of two formulas that stand beside it
    return amount(value, "B" if name in _IN_BYTES else "")


def chosen_names(rows: Sequence[Any], columns: str | Sequence[str]) -> list[str]:
    """Return the names of the columns; by default those in which not all rows are empty.

    Raises:
        CircuitError: There is no such column.
    """
    names = columns.replace(",", " ").split() if isinstance(columns, str) else list(columns)
    if names:
        check_columns(names)
        return names
    grouped = any(row.calls > 1 for row in rows)
    found = [name for name in _DEFAULT if any(text_of(name, getattr(row, name)) for row in rows)]
    if all(row.live_multiply_adds == row.multiply_adds for row in rows):
        found = [name for name in found if name != "live_flops"]
    return [*(["calls"] if grouped else []), *found]


def brief(row: Any) -> str:
    """Return what a row is and what it costs, in one line: `'matmul': FLOPs 4*k*x*y, bytes moved 8*k*x + …`."""
    found = []
    for name in _BRIEF:
        value = getattr(row, name)
        texts = [text_of(name, value), *shorter(value)]
        if texts[0] and (name != "calls" or value > 1):
            found.append(f"{COLUMNS[name]} {next((text for text in texts if len(text) <= _LONGEST), '…')}")
    return f"{row.label!r}{': ' if found else ''}{', '.join(found)}"


_BRIEF = ("calls", "flops", "parameters", "bytes")
"""The quantities that one line has, if they are not empty."""

_LONGEST = 40
"""The most characters of each of them."""

__all__ = ["COLUMNS", "brief", "check_columns", "chosen_names", "heading_of", "text_of"]
