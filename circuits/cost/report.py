"""A cost as text, CSV, LaTeX and plain data."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

import sympy
from rich.console import Console
from rich.table import Table

from circuits.cost.box_cost import COLUMNS, BoxCost, check_columns
from circuits.diagram import size_text

_DEFAULT = (
    "multiply_adds", "flops", "live_flops", "parameters", "buffers", "bytes", "intensity", "activations", "saved",
    "peak",
)  # fmt: skip
_IN_BYTES = frozenset(["state_bytes", "read", "written", "bytes", "activations", "saved", "peak"])


def formula(value: Any) -> str:
    """Return a number, or a formula with spaces around the signs between its terms.

    >>> h, w = sympy.symbols("h w")
    >>> formula(2 * h * w + h), formula(12)
    ('2*h*w + h', '12')
    """
    if value is None:
        return ""
    if not isinstance(value, sympy.Basic) and not isinstance(value, float):
        return f"{value}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return re.sub(r"(?<=[\w)])([+-])(?=[\w(])", r" \1 ", size_text(value))


def amount(value: Any, unit: str = "") -> str:
    """Return a number with four digits and a prefix, each 1,000 times the one before, or a formula.

    >>> amount(16_850_000_000), amount(1_234, "B"), amount(12)
    ('16.85 G', '1.234 kB', '12')
    """
    if value is None or value == 0:
        return ""
    if getattr(value, "free_symbols", None):
        return formula(value)
    number, prefixes = float(value), ["", "k", "M", "G", "T", "P", "E"]
    while abs(number) >= 999.95 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.4g} {prefixes[0]}{unit}".rstrip()


def chosen(rows: Sequence[BoxCost], columns: str | Sequence[str]) -> list[str]:
    """Return the names of the columns; by default those in which not all rows are empty."""
    names = columns.replace(",", " ").split() if isinstance(columns, str) else list(columns)
    if names:
        check_columns(names)
        return names
    grouped = any(row.calls > 1 for row in rows)
    found = [name for name in _DEFAULT if any(getattr(row, name) not in (0, None) for row in rows)]
    if all(row.live_multiply_adds == row.multiply_adds for row in rows):
        found = [name for name in found if name != "live_flops"]
    return [*(["calls"] if grouped else []), *found]


def cell(row: BoxCost, name: str) -> str:
    """Return the text of a quantity of a row."""
    value = getattr(row, name)
    if name in ("parameters", "trained", "frozen", "buffers", "calls"):
        return f"{value:,}" if value else ""
    if name == "intensity" and getattr(value, "free_symbols", None):
        return ""  # a quotient of two formulas that stand beside it
    return amount(value, "B" if name in _IN_BYTES else "")


def text(
    rows: Sequence[BoxCost], total: BoxCost, columns: str | Sequence[str], depth: int | None, notes: Sequence[str]
) -> str:
    """Return the table as lines of text, which are not wrapped."""
    names = chosen([*rows, total], columns)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    for _ in names:
        grid.add_column(no_wrap=True, justify="right")
    grid.add_row("", *[COLUMNS[name] for name in names])
    for row, times in shown(rows, names, depth):
        mark = f" ×{times}" if times > 1 else ""
        grid.add_row(f"{'  ' * len(row.place)}{row.label}{mark}", *[cell(row, name) for name in names])
    if not (rows and rows[0].place == () and rows[0].kind != "group"):
        grid.add_row("total", *[cell(total, name) for name in names])
    written = io.StringIO()
    Console(file=written, width=4000, color_system=None, markup=False, highlight=False, emoji=False).print(grid)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    return "\n".join([*lines, *notes, *uncounted_lines(total)])


def uncounted_lines(total: BoxCost) -> list[str]:
    """Return the line that names each operation without a formula; none if there is no such operation."""
    found = [f"{name}{f' ×{times}' if times > 1 else ''}" for name, times in total.uncounted]
    return [f"not counted (no formula): {'; '.join(found)}"] if found else []


def shown(rows: Sequence[BoxCost], names: Sequence[str], depth: int | None) -> list[tuple[BoxCost, int]]:
    """Return the rows down to a depth, each with the number of equal ones in a row that it stands for."""
    kept = [row for row in rows if depth is None or len(row.place) <= depth]
    found: list[tuple[BoxCost, int]] = []
    contents = {}
    for row in reversed(kept):
        inside = tuple([contents[each.place] for each in kept if _is_directly_inside(each, row)])
        contents[row.place] = (_without_name(row), *[cell(row, name) for name in names], inside)
    skipped = {place for row in kept for place in _same_inside(row, kept, names)}
    for row in kept:
        if row.place in skipped or any(row.place[:length] in skipped for length in range(len(row.place))):
            continue
        times, place = 1, row.place
        while row.kind != "group" and place and contents.get(_next(place)) == contents[row.place]:
            place = _next(place)
            skipped.add(place)
            times += 1
        found.append((row, times))
    return found


def _same_inside(row: BoxCost, rows: Sequence[BoxCost], names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the place of the only box inside a module if it shows the same: an operation."""
    inside = [each for each in rows if _is_directly_inside(each, row)] if row.kind == "module" else []
    same = len(inside) == 1 and [cell(inside[0], name) for name in names] == [cell(row, name) for name in names]
    return [inside[0].place] if same else []


def _next(place: tuple[int, ...]) -> tuple[int, ...]:
    return (*place[:-1], place[-1] + 1)


def _is_directly_inside(row: BoxCost, around: BoxCost) -> bool:
    return row.kind != "group" and row.place[:-1] == around.place and row.place != ()


def _without_name(row: BoxCost) -> str:
    """Return what a row is called, for a module without its own name, the number of a block."""
    return row.name if row.path else row.label


def plain(rows: Sequence[BoxCost], total: BoxCost, axes: Sequence[str], notes: Sequence[str]) -> dict[str, Any]:
    """Return plain data for JSON."""
    return {
        "axes": list(axes),
        "total": _plain_row(total),
        "rows": [_plain_row(row) for row in rows],
        "not counted": dict(total.uncounted),
        "notes": list(notes),
    }


def _plain_row(row: BoxCost) -> dict[str, Any]:
    found: dict[str, Any] = {"label": row.label, "place": list(row.place), "kind": row.kind, "path": row.path}
    return found | {name: _plain_number(getattr(row, name)) for name in COLUMNS}


def _plain_number(value: Any) -> Any:
    if getattr(value, "free_symbols", None):
        return formula(value)
    return float(value) if not isinstance(value, (int, type(None))) else value


def csv_text(rows: Sequence[BoxCost], total: BoxCost) -> str:
    """Return comma-separated values."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["box", *COLUMNS])
    for row in (*rows, total):
        values = [_plain_number(getattr(row, name)) for name in COLUMNS]
        writer.writerow(["total" if row is total else row.label, *["" if each is None else each for each in values]])
    return written.getvalue()


def latex(rows: Sequence[BoxCost], total: BoxCost, columns: str | Sequence[str]) -> str:
    """Return a LaTeX `tabular`."""
    names = chosen([*rows, total], columns)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
        " & ".join(["", *[_escaped(COLUMNS[name]) for name in names]]) + r" \\ \hline",
    ]
    for row, times in shown(rows, names, None):
        mark = rf" $\times {times}$" if times > 1 else ""
        first = _QUAD * len(row.place) + _escaped(row.label) + mark
        lines.append(" & ".join([first, *[_in_math(row, name) for name in names]]) + r" \\")
    if not (rows and rows[0].place == () and rows[0].kind != "group"):
        lines.append(" & ".join([r"\hline total", *[_in_math(total, name) for name in names]]) + r" \\")
    return "\n".join([*lines, r"\end{tabular}", ""])


_QUAD = r"\quad "


def _in_math(row: BoxCost, name: str) -> str:
    value = getattr(row, name)
    return f"${sympy.latex(value)}$" if getattr(value, "free_symbols", None) else _escaped(cell(row, name))


_SPECIAL = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "∂": r"$\partial$"}
_SPECIAL |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"→": r"$\to$", "…": r"\dots{}", "'": "'"}


def _escaped(words: str) -> str:
    return "".join([_SPECIAL.get(letter, letter) for letter in words])


__all__ = ["amount", "csv_text", "formula", "latex", "plain", "shown", "text"]
