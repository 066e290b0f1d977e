"""Pens draw wires from left to right: straight to a place, or by an S-curve to another height."""

from dataclasses import dataclass, field

from circuits.drawing.layout.lanes import Pieces
from circuits.drawing.layout.sweep import Key
from circuits.drawing.marks import Data, Mark, Path, Point
from circuits.drawing.scene import Strand, Wire


@dataclass
class _Pen:
    start: Point
    wire: Wire
    data: Data
    pieces: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def at(self) -> Point:
        return (self.pieces[-1][-2], self.pieces[-1][-1]) if self.pieces else self.start

    def straight(self, x: float) -> None:
        """Go on to the right; a straight piece after another is one with it."""
        if x <= self.at[0] + 0.005:
            return
        y = self.at[1]
        if self.pieces and len(self.pieces[-1]) == 2 and self.pieces[-1][1] == y:
            self.pieces[-1] = (x, y)
        else:
            self.pieces.append((x, y))

    def curve(self, x: float, y: float) -> None:
        """Go to another height by an S-curve that begins and ends horizontally."""
        middle = (self.at[0] + x) / 2
        self.pieces.append((middle, self.at[1], middle, y, x, y))


class Pens:
    """The wires of a row that are being drawn, and the finished ones."""

    def __init__(self) -> None:
        self._pens: dict[Key, _Pen] = {}
        self._done: list[Mark] = []

    def knows(self, key: Key) -> bool:
        """Return whether a wire is being drawn."""
        return key in self._pens

    def height(self, key: Key) -> float:
        """Return the height at which a wire is."""
        return self._pens[key].at[1]

    def begin(self, key: Key, strand: Strand, wire: Wire, start: Point, made: str | None = None) -> None:
        """Begin a wire.

        Args:
            key: The wire.
            strand: Its tensor.
            wire: The wire as it is named here.
            start: Where it begins.
            made: The id of the box that makes it; None if it only comes from another place.
        """
        data = (("kind", "wire"), ("value", f"{strand.value}"), ("axis", axes_text(wire)), ("name", wire.name))
        self._pens[key] = _Pen(start, wire, data if made is None else (*data, ("made", made)))

    def bend(self, key: Key, x: float, to: float, y: float) -> None:
        """Draw a wire straight to `x`, then by an S-curve to the height `y` at `to`; straight if that is its height."""
        pen = self._pens[key]
        pen.straight(x)
        if abs(pen.at[1] - y) > 0.005:
            pen.curve(max(to, pen.at[0] + 1), y)
        else:
            pen.straight(to)

    def follow(self, key: Key, x: float, pieces: Pieces) -> None:
        """Draw a wire straight to `x`, and then along pieces that begin there."""
        self._pens[key].straight(x)
        self._pens[key].pieces += pieces

    def finish(self, key: Key, end: Point) -> None:
        """End a wire at a place: straight, or by an S-curve if it is at another height."""
        pen = self._pens.pop(key)
        if abs(pen.at[1] - end[1]) > 0.005:
            pen.curve(*end)
        else:
            pen.straight(end[0])
        self._done.append(_mark(pen))

    def marks(self) -> list[Mark]:
        """Return all wires, the unfinished ones as they are."""
        return [*self._done, *[_mark(pen) for pen in self._pens.values()]]


def _mark(pen: _Pen) -> Path:
    wire = pen.wire
    role = "faint" if wire.scalar and wire.role == "wire" else wire.role
    dash = "dotted" if wire.scalar else ""
    return Path(pen.start, tuple(pen.pieces), role, dash=dash, double=wire.double, data=pen.data)


def axes_text(wire: Wire) -> str:
    """Return the places of a wire's axes in its tensor as text."""
    return ",".join([f"{axis}" for axis in wire.axes]) or "scalar"


__all__ = ["Pens", "axes_text"]
