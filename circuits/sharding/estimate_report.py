"""Estimates as text: a table with a row for each, and one with its formulas."""

from collections.abc import Mapping, Sequence
from typing import Any

from circuits.cost import duration
from circuits.diagram import Cells, Table, bytes_text, size_text

_MEMORY = ("parameters", "gradients", "optimizer", "saved", "gathered", "peak")
_TIMES = ("compute", "waits", "overlapped", "seconds")
_HEADINGS = {"seconds": "at least"}
_ASSUMED = "bytes and times of one rank; at least: compute and waits, or overlapped if it is more"


def table(estimates: Sequence[Any], count: int, unsplit: Mapping[str, str], refusals: int) -> str:
    """Return some of `count` estimates as a table, with the axes and the number of splits that are refused."""
    columns = [
        Cells(["mesh", *[_mesh_text(each) for each in estimates]]),
        Cells(["split", *[_split_text(each) for each in estimates]]),
        *[_column(name, [bytes_text(getattr(each, name)) for each in estimates]) for name in _MEMORY],
        Cells(["fits", *[{True: "yes", False: "no", None: ""}[each.fits] for each in estimates]]),
        *[_column(name, [_time_text(getattr(each, name)) for each in estimates]) for name in _TIMES],
    ]
    if any(each.inputs != 1 for each in estimates):
        columns.append(_column("inputs", [f"× {size_text(each.inputs)}" for each in estimates]))
    columns.append(Cells(["sent by a rank", *[_sent_text(each) for each in estimates]]))
    footer = [("", _ASSUMED)] if estimates else []
    footer += [("not shown", f"{count - len(estimates)} more")] if count > len(estimates) else []
    footer += [("refused", why) for why in unsplit.values()]
    footer += [("", f"{refusals} more on one of the meshes")] if refusals else []
    return Table(columns, footer).text(None)


def brief(estimate: Any) -> str:
    """Return one estimate as a line: the mesh, the split, the peak and the least time."""
    amounts = [f"peak {bytes_text(estimate.peak)}", f"at least {_time_text(estimate.seconds) or 'no time'}"]
    plan = [each for each in (_mesh_text(estimate), _split_text(estimate)) if each]
    return f"{', '.join(plan)}: {', '.join(amounts)}{' (does not fit)' * (estimate.fits is False)}"


def lines(estimate: Any) -> str:
    """Return one estimate as lines, a quantity each, with formulas in full."""
    rows = [("mesh", _mesh_text(estimate)), ("split", _split_text(estimate))]
    rows += [(name, _full(getattr(estimate, name), bytes_text, " B")) for name in (*_MEMORY[:-1], "working", "peak")]
    rows += [(_HEADINGS.get(name, name), _full(getattr(estimate, name), _time_text, " s")) for name in _TIMES]
    rows += [
        (f"{each.collective} over {' '.join(each.over)}", f"{each.count} × {_full(each.bytes, bytes_text, ' B')}")
        for each in estimate.traffic
    ]
    width = max([len(name) for name, _ in rows])
    return "\n".join([f"{name:<{width}}  {text}".rstrip() for name, text in rows])


def _full(value: Any, as_text: Any, unit: str) -> str:
    return f"{value}{unit}" if getattr(value, "free_symbols", None) else as_text(value)


def _column(name: str, texts: list[str]) -> Cells:
    return Cells([_HEADINGS.get(name, name), *texts], right=True)


def _mesh_text(each: Any) -> str:
    return " × ".join([f"{name} {size}" if isinstance(size, int) else name for name, size in each.mesh.items()])


def _split_text(each: Any) -> str:
    return split_text(each.split, each.between)


def split_text(split: Mapping[str, Any], between: Mapping[str, str]) -> str:
    """Return the mesh axis of each axis that is split: `b over data, h f over tensor, x over tensor between modules`.

    Args:
        split: The mesh axis of each axis.
        between: The mesh axis of each axis that is split between modules.
    """
    over: dict[str, list[str]] = {}
    for axis, name in (*split.items(), *[(axis, f"{name} between modules") for axis, name in between.items()]):
        over.setdefault(str(name), []).append(axis)
    return ", ".join([f"{' '.join(axes)} over {name}" for name, axes in over.items()])


def _time_text(seconds: Any) -> str:
    if getattr(seconds, "free_symbols", None):
        return f"f({', '.join(sorted(map(str, seconds.free_symbols)))})"
    return duration(float(seconds)) if seconds else ""


def _sent_text(each: Any) -> str:
    return ", ".join([f"{part.collective} {' '.join(part.over)} {bytes_text(part.bytes)}" for part in each.traffic])


__all__ = ["brief", "lines", "split_text", "table"]
