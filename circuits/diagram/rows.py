"""The rows of a diagram's table: one a box, repeated boxes in one row, and how deep a table goes that fits a screen.

A module inside another that consists of one operation takes one row. A repeated box takes one row with a count
(`×12`); a repeated group of boxes takes one row for each box of the group, with a bracket. What a row counts is counted
for all repetitions, so the rows inside a row add up to it. Operations that only count runs have no row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from circuits.diagram.boxes import Box
from circuits.diagram.cells import is_bookkeeping, label, only_operation
from circuits.diagram.counts import Node
from circuits.diagram.repeats import repeated_groups

_FEWEST = 5
"""The fewest rows of a table in which one row stands for several operations."""

SCREEN = 40
"""The most rows that a table has if no depth is asked for."""


@dataclass(eq=False)
class Row:
    """One line of the table.

    Attributes:
        depth: How deep the box is nested.
        label: The name of the box and what it is.
        nodes: What is counted in this row: the box, or all its repetitions.
        box: The box whose axes and sizes are shown; None for a row that stands for others, or for unread parameters.
        is_open: Whether the rows that follow show what is inside the box.
        unread: Whether the row is that of the parameters of `nodes` that no operation reads.
        within: The path of the module around the box.
        repeats: How often the box is repeated, with a bracket: `×12 ┐`.
    """

    depth: int
    label: str
    nodes: Sequence[Node]
    box: Box | None = None
    is_open: bool = False
    unread: bool = False
    within: str = ""
    repeats: str = ""


def rows(root: Node, depth: int | None = None) -> list[Row]:
    """Return the rows of a box and of the boxes inside it, `depth` levels deep (all, if None)."""
    first = Row(0, label(root.box), [root], root.box)
    found = [first]
    _add_rows_inside(first, depth, any(box.error for box in root.box.walk()), found)
    return found


def fitting_rows(root: Node) -> tuple[list[Row], int]:
    """Return as many levels of rows as fit a screen, and how many rows are left out.

    If that is less than a third of a screen, one row stands for several operations without parameters that follow each
    other, so that more levels fit. If even the boxes directly inside the outermost are too many, one row stands for
    those in the middle.
    """
    whole = rows(root)
    levels = max([row.depth for row in whole])
    fits = [level for level in range(levels + 1) if len([row for row in whole if row.depth <= level]) <= SCREEN]
    found = rows(root, max(1, *fits, 0))
    if len(found) > SCREEN or len(found) < min(len(whole), SCREEN // 3):
        shorter = (_without_operations(rows(root, level)) for level in range(levels, 0, -1))
        found = next((each for each in shorter if _FEWEST <= len(each) <= SCREEN), found)
    if len(found) > SCREEN:
        first, last = SCREEN - 6, len(found) - 5
        found = [*found[:first], _standing_for(found[first:last], "more rows"), *found[last:]]
    return found, len(whole) - len([row for row in found if row.box is not None or row.unread])


def _without_operations(found: Sequence[Row]) -> list[Row]:
    """Return rows with one row in place of three or more operations without parameters that follow each other."""
    kept: list[Row] = []
    start = 0
    for place, row in enumerate(found):
        if not _is_plain(row) or (place > start and row.depth != found[start].depth):
            kept += _joined(found[start:place])
            start = place
        if not _is_plain(row):
            kept.append(row)
            start = place + 1
    return kept + _joined(found[start:])


def _is_plain(row: Row) -> bool:
    """Return whether a row is that of an operation without parameters, which did not fail and is not in a bracket."""
    box = row.box
    return box is not None and box.kind == "operation" and not (box.parameters or box.error or row.repeats)


def _joined(found: Sequence[Row]) -> list[Row]:
    return [_standing_for(found, "operations")] if len(found) > 2 else [*found]


def _standing_for(found: Sequence[Row], what: str) -> Row:
    """Return the row that stands for others."""
    nodes = [node for row in found for node in row.nodes if not row.unread and not row.is_open]
    return Row(min([row.depth for row in found]), f"… {len(found)} {what}", nodes)


def _add_rows_inside(row: Row, depth: int | None, failed: bool, found: list[Row]) -> None:
    """Append the rows of the boxes inside the box of a row, and of its parameters that nothing reads, to `found`."""
    if (depth is not None and row.depth >= depth) or not row.nodes[0].box.boxes:
        return
    row.is_open = True
    boxes, start = row.nodes[0].box.boxes, 0
    for group, times in repeated_groups(boxes):
        first = len(found)
        for place, box in enumerate(group):
            if is_bookkeeping(box):
                continue
            steps = range(start + place, start + times * len(group), len(group))
            nodes = [node.inside[step] for node in row.nodes for step in steps]
            inner = Row(row.depth + 1, label(box), nodes, box, within=row.nodes[0].box.path or row.within)
            found.append(inner)
            if only_operation(box) is None:
                _add_rows_inside(inner, depth, failed, found)
        start += times * len(group)
        if times > 1:
            _mark_repeats(found, first, times)
    if any(node.unread for node in row.nodes):
        text = "(parameters of what did not run)" if failed else "(parameters that no box reads)"
        found.append(Row(row.depth + 1, text, row.nodes, unread=True))


def _mark_repeats(found: list[Row], first: int, times: int) -> None:
    """Add the count of repetitions to the rows from `first` on, with a bracket beside several boxes."""
    last = len(found) - 1
    single = all(row.depth > found[first].depth for row in found[first + 1 :])
    for place in range(first, first + 1 if single else last + 1):
        bracket = "" if single else " ┐" if place == first else "┘" if place == last else "│"
        mark = f"×{times}{bracket}" if place == first else bracket
        found[place].repeats = f"{mark} {found[place].repeats}".strip()


def flat_rows(found: Sequence[Row]) -> list[Row]:
    """Return the rows without rows inside, each with the names of the rows around it, for a table that is sorted."""
    names: list[str] = []
    flat = []
    for row in found:
        name = row.box.name if row.box is not None else ""
        names = [*names[: row.depth], name]
        if not row.is_open:
            around = ".".join([each for each in names[1 : row.depth] if each])
            flat.append(replace(row, depth=0, label=f"{around}.{row.label}" if around and name else _of(row, around)))
    return flat


def _of(row: Row, around: str) -> str:
    """Return the label of a row without a name, with the module around it."""
    return f"{row.label} in {around}" if around else row.label


__all__ = ["Row", "fitting_rows", "flat_rows", "rows"]
