"""A cost as CSV, LaTeX and plain data."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import sympy

from circuits.cost.box_cost import BoxCost
from circuits.cost.quantities import COLUMNS, text_of
from circuits.cost.texts import formula, is_formula


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
    if is_formula(value):
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


Line = tuple[int, str, int, BoxCost]
"""A line of a LaTeX table: how deep it is, its name, how often it is repeated, and what it costs."""


def latex(lines: Sequence[Line], names: Sequence[str], headings: Sequence[str], total: BoxCost | None) -> str:
    """Return a LaTeX `tabular`.

    Args:
        lines: Its lines.
        names, headings: The quantities, and their headings.
        total: What is written under a rule, if anything.
    """
    found = [
        rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
        " & ".join(["", *map(_escaped, headings)]) + r" \\ \hline",
    ]
    for depth, label, times, row in lines:
        first = _QUAD * depth + _escaped(label) + (rf" $\times {times}$" if times > 1 else "")
        found.append(" & ".join([first, *[_in_math(row, name) for name in names]]) + r" \\")
    if total is not None:
        found.append(" & ".join([r"\hline total", *[_in_math(total, name) for name in names]]) + r" \\")
    return "\n".join([*found, r"\end{tabular}", ""])


_QUAD = r"\quad "


def _in_math(row: BoxCost, name: str) -> str:
    value = getattr(row, name)
    return f"${sympy.latex(value)}$" if is_formula(value) else _escaped(text_of(name, value))


_SPECIAL = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "∂": r"$\partial$"}
_SPECIAL |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"→": r"$\to$", "…": r"\dots{}", "'": "'"}


def _escaped(words: str) -> str:
    return "".join([_SPECIAL.get(letter, letter) for letter in words])


__all__ = ["Line", "csv_text", "latex", "plain"]
