"""The smallest distances between neighbours from top to bottom, in distances of neighbouring wires."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from circuits.drawing.layout.sweep import Column, Key
from circuits.drawing.scene import Group, Link, Port, Step

TITLE = 0.8
"""The height of a title inside the upper edge of a fence."""
_RANGE = 0.7  # the height of the range of λ above and below a bracket

_DISTANCES = {
    ("wire", "top"): 0.8,
    ("wire", "bottom"): 0.75,
    ("wire", "above"): 0.95,
    ("top", "wire"): 0.95,
    ("top", "top"): 0.4,
    ("top", "above"): 0.6,
    ("top", "bottom"): 0.8,
    ("bottom", "wire"): 1.3,
    ("bottom", "top"): 0.5,
    ("bottom", "bottom"): 0.35,
    ("bottom", "above"): 0.9,
    ("above", "wire"): 0.75,
    ("above", "bottom"): 0.6,
    ("above", "top"): 0.6,
    ("above", "above"): 1.0,
    ("wire", "note"): 0.95,
    ("top", "note"): 0.6,
    ("bottom", "note"): 0.8,
    ("above", "note"): 1.0,
    ("note", "above"): 0.7,
    ("note", "bottom"): 0.6,
    ("note", "top"): 0.6,
    ("note", "note"): 0.7,
}

_NOTE = 0.42
"""How far the middle of a note is above what it stands over."""

_ABOVE = {"triangle": 0.7, "box": 0.42, "letter": 0.45, "bar": 0.25, "transposed": 0.85}
"""How far glyphs reach above their first wire; others 0.42."""

_BELOW = {"triangle": 0.7, "window": 1.1, "transposed": 1.1, "bar": 0.25, "letter": 0.42}
"""How far glyphs reach below their last wire; others less than the distance of a dashed line."""


def distance_at(column: Column, groups: Sequence[Group]) -> Callable[[Key, Key], float]:
    """Return the function that gives the distance of two neighbours at the stations of a column.

    Args:
        column: The column; its steps need room between some of their wires.
        groups: All groups, of which a title needs room below the upper edge.
    """
    wide = _wide(column)
    over = {number: _NOTE + _reach_above(step) for number, step in column.steps}
    under = {strand: _reach_below(step) for _, step in column.steps for strand in (*step.ins, *step.outs)}

    def distance(upper: Key, lower: Key) -> float:
        if upper[0] == "note" and lower[0] == "wire":
            return over[upper[1]]
        if upper[0] == "wire" and lower[0] == "note":  # a dashed line may be between them
            return max(_DISTANCES["wire", "note"], under.get(upper[1], 0.0) + _NOTE)
        if upper[0] == lower[0] == "wire":
            return max(wide.get((upper, lower), 0.0), 1.0 if upper[1] == lower[1] else 1.5)
        title = TITLE if upper[0] == "top" and groups[upper[1]].title else 0.0
        title += _RANGE * (lower[0] == "top" and groups[lower[1]].times > 1)
        title += _RANGE * (upper[0] == "bottom" and groups[upper[1]].times > 1)
        return max(_DISTANCES[upper[0], lower[0]] + title, wide.get((upper, lower), 0.0) - 0.4)

    return distance


def _reach_above(step: Step) -> float:
    """Return how far what is drawn of a step reaches above its first wire."""
    solid = 0.3 if step.fill else 0.0
    return max([solid + _ABOVE.get(link.shape, 0.42) for link in step.links if link.kind == "glyph"], default=0.2)


def _reach_below(step: Step) -> float:
    """Return how far the dashed line below a step is below its last wire."""
    return max([reach_below(link) + 0.1 for link in step.links], default=0.0)


def reach_below(link: Link) -> float:
    """Return how far what is drawn of a link reaches below its last wire."""
    if link.kind != "glyph":
        return 0.0
    if any(link.channels):  # the wires of the channels are below the windows
        return _BELOW["letter"] - 0.1
    sunk = link.shape == "letter" and any(span.shift == "sub" for span in link.text)
    return 0.5 if sunk else _BELOW.get(link.shape, 0.4)


def _wide(column: Column) -> dict[tuple[Key, Key], float]:
    """Return the distances that are larger than usual: below an image whose windows end there."""
    found = {}
    for _, step in column.steps:
        for link in step.links:
            if link.kind == "glyph" and link.shape in ("window", "transposed"):
                sides = [image_ports(link, link.ins), image_ports(link, link.outs)]
                rows = max(map(len, sides))
                for keys, ports, strands in zip((column.at, column.done), sides, (step.ins, step.outs), strict=True):
                    image = {("wire", strands[index], wire) for index, wire in ports}
                    for upper, lower in pairwise(keys):
                        if upper in image and lower not in image:
                            found[upper, lower] = 1.6 + rows - len(ports)
    return found


def image_ports(link: Link, side: Sequence[Port]) -> list[Port]:
    """Return the wires of the image of a window: all but the channels, which a learned map takes."""
    channels = link.channels[1] if side is link.outs and side is not link.ins else link.channels[0]
    return [port for port in side if port not in channels]


__all__ = ["TITLE", "distance_at", "image_ports", "reach_below"]
