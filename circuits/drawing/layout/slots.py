"""Where names stand in a row, and the places of the slots of its columns from left to right."""

from collections.abc import Iterable, Mapping, Sequence

from circuits.drawing.labels import axis_label
from circuits.drawing.layout.dots import dots_room
from circuits.drawing.layout.frames import SMALL, note_width, step_width
from circuits.drawing.layout.lanes import Move, bends_width
from circuits.drawing.layout.sources import source_text
from circuits.drawing.layout.stations import Placed, Stations
from circuits.drawing.layout.sweep import Key
from circuits.drawing.marks import P, Span
from circuits.drawing.scene import Group, Wire
from circuits.drawing.widths import width

FONT, TITLE_FONT, SOURCE_FONT = 15.0, 12.0, 11.0
"""The sizes of labels, of titles, and of the names of parameters and constants."""
_LONG = 8  # the number of columns after which a name stands again
LEAD, PAD, BRACKET = 8.0, 9.0, 26.0
"""The room at the edges of a row, between nested fences, and for a bracket."""
BESIDE = 9.0
"""The room between a title and the note beside it."""


def label(wire: Wire, show_sizes: bool) -> tuple[Span, ...]:
    """Return the label of a wire: its name, and its size if sizes are shown."""
    spans = axis_label(wire.name, wire.double)
    if show_sizes and wire.size and wire.size != wire.name:
        return (*spans, Span(f" = {wire.size}", "upright"))
    return spans


def set_labels(stations: Stations) -> None:
    """Choose where names stand: again where a wire is new, has another name or another height, and after a long way.

    At the left edge of the row all names stand, so that the first column repeats none of them.
    """
    heights = stations.heights
    shown: dict[Key, tuple[str, float]] = {}
    since: dict[Key, int] = {}  # the column in which the name of a wire stood last
    for number, placed in enumerate(stations.placed):
        for key, run in placed.before.items():
            if key[0] == "wire" and (number == 0 or key[1] in placed.column.outer):
                now = (placed.outer(key).name, heights[run])
                if number and now[0] and shown.get(key) != now:
                    placed.outside.append(key)
                shown[key], since[key] = now, number
        for key, run in placed.opened.items():
            if key[0] == "wire":
                now = (placed.wire(key).name, heights[run])
                if now[0] and shown.get(key) != now:
                    placed.labels.append(key)
                    since[key] = number
                shown[key] = now
        _repeat_labels(placed, since, number)
        for key, old in placed.column.same.items():
            if old in shown:
                shown[key], since[key] = shown[old], since.get(old, number)
        for key, run in placed.done.items():
            if key[0] == "wire" and key[1] in placed.column.inner:
                now = (placed.inner(key).name, heights[run])
                outside = placed.column.after[key[1]].wires[key[2]].name
                if now[0] not in ("", outside) and shown.get(key) != now:
                    placed.inside.append(key)


def _repeat_labels(placed: Placed, since: dict[Key, int], number: int) -> None:
    """Add the names of wires that have not stood for a long way to a column in which other names stand."""
    for key in placed.opened if placed.labels else ():
        old = key[0] == "wire" and number - since.get(key, number) >= _LONG
        if old and key not in placed.outside and placed.wire(key).name:
            placed.labels.append(key)
            since[key] = number


def set_places(stations: Stations, groups: Sequence[Group], left: float, show_sizes: bool) -> float:
    """Set the places of the slots of all columns, and return the right edge of the last.

    Args:
        stations: The columns.
        groups: All groups, whose titles have to fit into their fences.
        left: The left edge of the first column.
        show_sizes: Whether labels show sizes.
    """
    x = left
    begins: dict[int, float] = {}
    for placed in stations.placed:
        placed.x = [x]
        for slot in _slots(placed, groups, stations.heights, show_sizes):
            placed.x.append(placed.x[-1] + slot)
        begins |= dict.fromkeys(placed.column.opens, placed.x[2])
        last = placed is stations.placed[-1]
        ending = [key[1] for key in placed.opened if key[0] == "top"] if last else placed.column.closes
        for group in ending:
            missing = begins.get(group, left) + _title_width(groups[group]) - placed.x[-1]
            if missing > 0:
                placed.x[7:] = [place + missing for place in placed.x[7:]]
        x = placed.x[-1]
    return x


def _title_width(group: Group) -> float:
    return title_width(group) + 2 * PAD + 10 if group.title else 0.0


def title_width(group: Group) -> float:
    """Return the width of the title of a group, with the note beside it."""
    note = BESIDE + width(group.noted, SMALL) if group.noted else 0.0
    return width((Span(group.title, "sans"),), TITLE_FONT) + note


def _slots(placed: Placed, groups: Sequence[Group], heights: Sequence[float], show_sizes: bool) -> list[float]:
    """Return the widths of the slots of a column."""
    column = placed.column
    sources = [width(source_text(name), SOURCE_FONT) for _, step in column.steps for _, name in step.sources]
    return [
        label_width([placed.outer(key) for key in placed.outside], show_sizes),
        bend_width(placed.before, placed.opened, heights),
        edge_width(column.opens, groups),
        label_width([placed.wire(key) for key in placed.labels], show_sizes) or 4.0,
        bend_width(placed.opened, placed.at, heights),
        max([each + 12 for each in sources], default=0.0),
        _event_width(placed, heights),
        label_width([placed.inner(key) for key in placed.inside], show_sizes) + edge_width(column.closes, groups),
    ]


def edge_width(groups: Sequence[int], every: Sequence[Group]) -> float:
    """Return the room for the edges of groups that begin or end in one column."""
    return sum([BRACKET if every[group].times > 1 else PAD for group in groups]) + (4.0 if groups else 0.0)


def label_width(wires: Iterable[Wire], show_sizes: bool) -> float:
    """Return the width of the longest label with the room beside it; 0 without any."""
    widths = [width(label(wire, show_sizes), FONT) for wire in wires]
    return max(widths) + LEAD if widths else 0.0


def _event_width(placed: Placed, heights: Sequence[float]) -> float:
    """Return the width of the slot of the steps; wires that come down do so behind the cup."""
    units = [height * P for height in heights]
    beside, falls = event_moves(placed, units)
    long = [P * (2.6 + min(0.45 * abs(after - before) / P, 3.8)) for before, after in falls.values()]
    here, there = ({key: units[run] for key, run in station.items()} for station in (placed.at, placed.done))
    steps = []
    for _, step in placed.column.steps:
        wide = step_width(step)
        steps.append(max(wide + dots_room(step, wide, here, there), note_width(step)))
    return max([*steps, *long, bends_width(beside), 10.0])


def bend_width(before: Mapping[Key, int], after: Mapping[Key, int], heights: Sequence[float]) -> float:
    """Return the width that the bends between two stations need."""
    return bends_width(
        {key: (heights[before[key]] * P, heights[run] * P) for key, run in after.items() if key in before}
    )


def event_moves(placed: Placed, heights: Sequence[float]) -> tuple[dict[Key, Move], dict[Key, Move]]:
    """Return the height of each wire that passes a column before and after its steps, by the wire that enters.

    Args:
        placed: The column.
        heights: The height of each run, in units.

    Returns:
        Those that bend beside the steps, and those that come down behind a cup.
    """
    found, falls = dict[Key, Move](), dict[Key, Move]()
    for key, run in placed.done.items():
        if key[0] == "wire" and key in placed.at:
            found[key] = (heights[placed.at[key]], heights[run])
    for _, step in placed.column.steps:
        cups = any(link.kind == "cup" for link in step.links)
        for link in [link for link in step.links if link.kind == "pass"]:
            (index, wire), (place, other) = link.ins[0], link.outs[0]
            key, later = ("wire", step.ins[index], wire), ("wire", step.outs[place], other)
            if key in placed.at and later in placed.done:
                move = heights[placed.at[key]], heights[placed.done[later]]
                (falls if cups and move[1] > move[0] + 0.005 else found)[key] = move
    return found, falls


__all__ = [
    "BESIDE",
    "BRACKET",
    "FONT",
    "LEAD",
    "PAD",
    "SOURCE_FONT",
    "TITLE_FONT",
    "bend_width",
    "edge_width",
    "event_moves",
    "label",
    "label_width",
    "set_labels",
    "set_places",
    "title_width",
]
