"""Rows of a cost added up: for the boxes around others, and in groups (`Cost.by`)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from circuits.cost.box_cost import BoxCost, Work
from circuits.cost.sizes import largest, simplified

SUMS = ("multiply_adds", "live_multiply_adds", "elementwise", "read", "written", "activations")
"""The quantities of a group that are the sums of those of its boxes."""


def added(row: BoxCost, parts: Sequence[BoxCost], calls: int) -> BoxCost:
    """Return a row with what other rows cost together: parameters once each, and the largest of their peaks."""
    sums = {name: simplified(sum([getattr(part, name) for part in parts])) for name in SUMS}
    saved = [part.saved for part in parts if part.saved is not None]
    uncounted: Counter[str] = Counter()
    work: Counter[Work] = Counter()
    for part in parts:
        uncounted.update(dict(part.uncounted))
        work.update(dict(part.work))
    return replace(
        row,
        **sums,
        calls=calls,
        saved=simplified(sum(saved)) if saved else row.saved,
        peak=largest([part.peak for part in parts]),
        held=tuple({each.key: each for part in parts for each in part.held}.values()),
        uncounted=tuple(uncounted.items()),
        work=tuple(work.items()),
    )


def innermost(rows: Sequence[BoxCost]) -> list[BoxCost]:
    """Return the rows that no other is inside of."""
    around = {row.place[:-1] for row in rows if row.place and row.kind != "group"}
    return [row for row in rows if row.kind == "group" or row.place not in around]


def grouped(rows: Sequence[BoxCost], what: str) -> tuple[BoxCost, ...]:
    """Return rows in groups: each that no other is inside of, in the group of the innermost box around it."""
    by_place = {row.place: row for row in rows}
    groups: dict[str, list[BoxCost]] = {}
    owners: dict[str, set[tuple[int, ...]]] = {}
    for row in innermost(rows):
        owner = _owner(row, by_place, what)
        label = _label(owner, what)
        groups.setdefault(label, []).append(row)
        owners.setdefault(label, set()).add(row.place if owner is None else owner.place)
    return tuple([added(BoxCost(label), parts, len(owners[label])) for label, parts in groups.items()])


def _label(owner: BoxCost | None, what: str) -> str:
    if owner is None:
        return f"(in no {what})" if what != "path" else "(in no module)"
    return (owner.path or owner.name) if what == "path" else owner.name


def _owner(row: BoxCost, by_place: dict[tuple[int, ...], BoxCost], what: str) -> BoxCost | None:
    """Return the innermost box, around a row or itself, by which it is grouped; None if there is none."""
    if what == "operation":
        return row
    around: Iterable[tuple[int, ...]] = (row.place[:length] for length in range(len(row.place), -1, -1))
    found = [by_place[place] for place in around if place in by_place]
    if what == "path":
        return next((each for each in found if each.path or each.kind == "module"), None)
    return next((each for each in found if each.kind == what), None)


class Joined:
    """Rows by their places, and what several of them cost together.

    Attributes:
        rows: The rows.
    """

    def __init__(self, rows: Iterable[BoxCost]) -> None:
        self.rows = {row.place: row for row in rows}
        self._found: dict[tuple[tuple[int, ...], ...], BoxCost] = {}

    def row(self, places: Sequence[tuple[int, ...]]) -> BoxCost:
        """Return what the boxes at these places cost together."""
        known = tuple([place for place in places if place in self.rows])
        if len(known) == 1:
            return self.rows[known[0]]
        if known not in self._found:
            self._found[known] = added(BoxCost(""), [self.rows[place] for place in known], len(known))
        return self._found[known]


__all__ = ["SUMS", "Joined", "added", "grouped", "innermost"]
