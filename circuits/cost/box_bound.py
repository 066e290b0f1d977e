"""`BoxBound`: lower bounds on the time of one box, as frozen data."""

from dataclasses import dataclass
from typing import Any

from circuits.cost.texts import duration, is_formula


@dataclass(frozen=True)
class BoxBound:
    """Lower bounds on the time of one box with those inside it, or of several boxes (`Cost.by`), in seconds.

    What binds is "compute" or "bandwidth", for several operations that of the larger part of their time; if it depends
    on free axes, a `sympy.Piecewise` of both as symbols, or None for several operations.

    Attributes:
        label, place, kind, path: Those of the `BoxCost`.
        flops: The live FLOPs.
        bytes: The bytes that its operations move.
        unfused: The bound if its operations run one after the other.
        unfused_binds: What binds them.
        crossing: The bytes that cross the boundary of the box; None for several boxes.
        fused: The bound if it is one kernel; None for several boxes.
        fused_binds: What binds it.
    """

    label: str
    place: tuple[int, ...]
    kind: str
    path: str
    flops: Any
    bytes: Any
    unfused: Any
    unfused_binds: Any
    crossing: Any = None
    fused: Any = None
    fused_binds: Any = None

    @property
    def intensity(self) -> Any:
        """FLOPs for each byte that its operations move: the arithmetic intensity."""
        return self.flops / self.bytes if self.bytes != 0 else 0

    def __repr__(self) -> str:
        """Return the label and both times: `BoxBound('mul': unfused 40 µs (bandwidth), fused 40 µs (bandwidth))`."""
        return f"BoxBound({brief(self)})"


def brief(row: BoxBound) -> str:
    """Return what a row is and its times, in one line; of a formula, the axes in which it is one."""
    found = []
    for name, seconds, binds in (("unfused", row.unfused, row.unfused_binds), ("fused", row.fused, row.fused_binds)):
        if is_formula(seconds):
            found.append(f"{name} a formula in {', '.join(sorted(map(str, seconds.free_symbols)))}")
        elif seconds is not None and seconds != 0:
            found.append(f"{name} {duration(float(seconds))} ({binds})")
    return f"{row.label!r}{': ' if found else ''}{', '.join(found)}"


__all__ = ["BoxBound", "brief"]
