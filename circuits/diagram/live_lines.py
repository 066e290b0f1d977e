"""One line for each box, while a run is printed: the name of the box, its axes, sizes, parameters and notes."""

import functools
from collections.abc import Callable, Iterable

from circuits.diagram import cells
from circuits.diagram.boxes import Box, Value

_SHARES = (0.34, 0.22, 0.28)
"""The shares of a line for names, axes and sizes."""


def heading_line(width: int, named: bool) -> str:
    """Return the headings above the lines of a run; the arguments are those of `box_line`."""
    return _line(("box", "axes", "sizes", "parameters", ""), width, named)


def box_line(
    box: Box, level: int, still_running: bool, width: int, named: bool = True, count: int | None = None
) -> str:
    """Return the line of one box.

    Args:
        box: The box; a module that consists of one operation is shown as that.
        level: How deep it is nested.
        still_running: Whether there are no outputs yet.
        width: How wide a line may be; a longer text shortens in the middle, except errors and notes. Narrow lines have
            no axes where sizes are known.
        named: Whether axes may have names, and are shown beside the sizes.
        count: The number of elements of its parameters; None: of those that the box has.
    """
    inputs = cells.shown_inputs(box)
    axes = _from_inputs_to_outputs(cells.axes_of, inputs, box, still_running) if _has_axes(width, named) else ""
    sizes = _from_inputs_to_outputs(cells.sizes_of, inputs, box, still_running)
    notes = [cells.dtype_change(box, inputs), f"failed: {box.error}" if box.error else "", box.note]
    notes += ["* mapped"] if cells.is_mapped(box) else []
    count = box.parameter_count if count is None else count
    name = "  " * level + cells.label(box)
    columns = name, axes, sizes, f"{count:,}" if count else "", ", ".join(filter(None, notes))
    return _line(columns, width, named)


def _from_inputs_to_outputs(
    text: Callable[[Iterable[Value]], str], inputs: Iterable[Value], box: Box, still_running: bool
) -> str:
    """Return the text of the inputs of a box and, unless it is still running, of its outputs."""
    before = text(inputs)
    if still_running:
        return before
    return f"{before} -> {'?' if cells.failed_inside(box) else text(box.outputs)}".strip()


def _has_axes(width: int, named: bool) -> bool:
    """Return whether lines have a column of axes."""
    return named and width >= 110


def _line(columns: tuple[str, str, str, str, str], width: int, named: bool) -> str:
    """Return texts as one line; a narrow one has no axes."""
    *texts, parameters, notes = columns
    shown = [
        f"{_short(text, share):<{share}}" for text, share in zip(texts, _widths(width, named), strict=True) if share
    ]
    return "  ".join([*shown, f"{parameters:>10}", notes]).rstrip()


@functools.lru_cache(8)
def _widths(width: int, named: bool) -> tuple[int, int, int]:
    """Return the widths of the columns of names, axes and sizes."""
    name, axes, sizes = [int(share * width) for share in _SHARES]
    return (name, axes, sizes) if _has_axes(width, named) else (name + axes // 3, 0, sizes + axes // 3)


def _short(text: str, width: int) -> str:
    """Return a text shortened behind its indentation."""
    if len(text) <= width:
        return text
    bare = text.lstrip()
    indent = min(len(text) - len(bare), width // 2)
    return " " * indent + cells.shortened(bare, width - indent)


__all__ = ["box_line", "heading_line"]
