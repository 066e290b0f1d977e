"""The rows of a diagram's table: one a box, with its label, axes, sizes, number of parameters, and notes.

A module that consists of one operation takes one row. A repeated box takes one row with a count in the notes (`×12`);
a repeated group of boxes takes one row for each box of the group, with a bracket in the notes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuits.diagram.boxes import Box, Value
from circuits.diagram.parameter_notes import element_count, shared_text
from circuits.diagram.repeats import repeated_groups

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}


@dataclass(frozen=True)
class Row:
    """One line of the table: how deep the box is nested, and the text of each column."""

    depth: int
    label: str
    axes: str
    sizes: str
    parameters: str
    notes: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The text of each column, the first one indented by depth."""
        return ("  " * self.depth + self.label, self.axes, self.sizes, self.parameters, self.notes)


def rows(box: Box, depth: int | None = None) -> list[Row]:
    """Return the rows of a box and of the boxes inside it, `depth` levels deep (all, if None)."""
    found = [box_row(box, opened=True)]
    if box.signature is not None:
        found = [replace(found[0], axes="", notes=" ".join([*_named_sizes(box), found[0].notes]).strip())]
    _add_rows_inside(box, 1, depth, {box.path}, {}, found)
    return found


def _add_rows_inside(
    box: Box, level: int, depth: int | None, seen: set[str], earlier: Mapping[int, str], found: list[Row]
) -> None:
    """Append the rows of the boxes inside a box to `found`.

    Args:
        box: The box.
        level: How deep the boxes inside it are nested in the table.
        depth: The deepest level to show; None for all.
        seen: The paths of the modules whose parameters were counted in rows above.
        earlier: The parameters that were counted in rows above of boxes that are not around this one: their names by
            value number.
        found: The rows so far.
    """
    if depth is not None and level > depth:
        return
    counted, start = {**earlier}, 0
    for group, times in repeated_groups(box.boxes):
        first = len(found)
        for place, inner in enumerate(group):
            each = box.boxes[start + place : start + times * len(group) : len(group)]
            row = box_row(inner, level, times, seen, box.path)
            is_reverse = (inner.name or inner.label).startswith("∂")
            if "params" in row.parameters and inner.kind != "operation" and not is_reverse:
                row = replace(row, parameters=_count_text(inner, each, counted))
            found.append(row)
            if not _is_one_operation(inner):
                _add_rows_inside(inner, level + 1, depth, seen, counted, found)
            counted |= {value.number: value.name for repeated in each for value in repeated.parameters}
        start += times * len(group)
        if times > 1:
            _mark_repeats(found, first, times)


def _mark_repeats(found: list[Row], first: int, times: int) -> None:
    """Add the count of repetitions to the notes of the rows from `first` on, with a bracket beside several boxes."""
    last = len(found) - 1
    single = all(row.depth > found[first].depth for row in found[first + 1 :])
    for place in range(first, first + 1 if single else last + 1):
        bracket = "" if single else " ┐" if place == first else "┘" if place == last else "│"
        mark = f"×{times}{bracket}" if place == first else bracket
        found[place] = replace(found[place], notes=f"{mark} {found[place].notes}".strip())


def box_row(
    box: Box, level: int = 0, times: int = 1, seen: set[str] | None = None, within: str = "", opened: bool = False
) -> Row:
    """Return the row of one box.

    Args:
        box: The box.
        level: How deep it is nested in the table.
        times: How many times the box is repeated.
        seen: The paths of the modules whose parameters were counted in rows above; gets the path of this one.
        within: The path of the module around the box; parameter names are shown relative to it.
        opened: Whether to show the box itself even if it consists of one operation; else the row of such a module is
            that of its operation.
    """
    shown = box if opened or not _is_one_operation(box) else replace(box.boxes[0], name=box.name)
    notes = _dtype_notes(shown, box) + ([f"failed: {box.error}"] if box.error else [])
    notes += [shown.note] if shown.note else []
    notes += ["* mapped"] if box.kind == "transform" and any(value.mapped for value in _all_values(box)) else []
    inputs = _shown_inputs(shown)
    failed = not box.outputs and any(inner.error for inner in box.walk())
    axes = _arrow([str(value) for value in inputs], [str(value) for value in box.outputs], failed)
    sizes = _arrow([value.shape for value in inputs], [value.shape for value in box.outputs], failed)
    return Row(
        level,
        _label(shown),
        "" if axes == sizes else axes,
        sizes,
        _parameter_text(box, times, seen, within),
        " ".join(notes),
    )


def _count_text(box: Box, each: Sequence[Box], counted: Mapping[int, str]) -> str:
    """Return the number of elements of the parameters of a box that is not an operation.

    Args:
        box: The box, named for all repetitions.
        each: All its repetitions.
        counted: The names of the parameters that rows above have counted, by value number.
    """
    count, total = box.parameter_count, element_count([value for repeated in each for value in repeated.parameters])
    if "…" not in box.name or len(each) == 1:
        return shared_text(box.parameters, counted)
    return f"{len(each)} × {count:,} params" if total == len(each) * count else f"{total:,} params in all"


def _arrow(inputs: Sequence[str], outputs: Sequence[str], failed: bool = False) -> str:
    """Return inputs and outputs as text: `y m, x m -> y m`, or `y m, x m -> ?` for a box that failed."""
    left, right = [", ".join([text or "()" for text in _shortened(side)]) for side in (inputs, outputs)]
    return f"{left} -> {'?' if failed else right}".strip()


_MAX_TENSORS = 8
"""The largest number of inputs or outputs that a row shows."""


def _shortened(texts: Sequence[str]) -> Sequence[str]:
    """Return the texts, or the first of them and the number of the others if they are more than `_MAX_TENSORS`."""
    if len(texts) <= _MAX_TENSORS:
        return texts
    return [*texts[: _MAX_TENSORS - 2], f"… {len(texts) - _MAX_TENSORS + 2} more"]


def row_line(row: Row, still_running: bool) -> str:
    """Return one row as a line with columns of fixed width, without outputs if the box is still running."""
    label, axes, sizes, parameters, notes = row.columns
    axes, sizes = [text.removesuffix(" ->").removesuffix(" -> ?") if still_running else text for text in (axes, sizes)]
    return f"{label:<48}  {axes:<28}  {sizes:<28}  {parameters}  {notes}".rstrip()


def _label(box: Box) -> str:
    """Return the name and label of a box, and its signature if it has one."""
    label = f"{box.name} {box.label.rpartition('<locals>.')[2]}".strip()
    return f"{label}: {box.signature}" if box.signature is not None else label


def _shown_inputs(box: Box) -> list[Value]:
    """Return the inputs for the columns of axes and sizes.

    Parameters are included only for an einsum or matmul, whose pattern includes them; parameters of other operations
    are shown in the column of parameters.
    """
    with_parameters = box.label.startswith(("einsum", "matmul"))
    return [value for value in box.inputs if with_parameters or value.role not in ("parameter", "buffer")]


def _is_one_operation(box: Box) -> bool:
    """Return whether a module consists of one operation with the same outputs, so that one row shows both."""
    if box.kind != "module" or len(box.boxes) != 1 or box.boxes[0].kind != "operation" or box.boxes[0].error:
        return False
    numbers = [[value.number for value in each.outputs] for each in (box, box.boxes[0])]
    return numbers[0] == numbers[1]


def _parameter_text(box: Box, times: int, seen: set[str] | None, within: str) -> str:
    """Return the number of elements of the learned parameters of a box, or `shared` if a row above counts them.

    For an operation the parameters are named: `weight, bias: 272 params`.
    """
    count = box.parameter_count
    if not count:
        return ""
    if box.kind == "operation":
        names = _relative_names([value.name for value in box.parameters], within)
        shown = ", ".join(names if len(names) < 4 else [*names[:2], f"… {len(names)} tensors"])
        return f"{shown}: {count:,} params"
    if seen is not None and box.path:
        if box.path in seen:
            return "shared"
        seen.add(box.path)
    several = times > 1 and "…" in box.name
    return f"{times} × {count:,} params" if several else f"{count:,} params"


def _relative_names(names: Sequence[str], within: str) -> list[str]:
    """Return parameter names relative to the module at path `within`; if it is empty, without their common path."""
    if within:
        return [name.removeprefix(f"{within}.") for name in names]
    while all("." in name for name in names) and len({name.partition(".")[0] for name in names}) == 1:
        names = [name.partition(".")[2] for name in names]
    return list(names)


def _all_values(box: Box) -> Iterator[Value]:
    """Yield the inputs and outputs of a box and of all boxes inside it."""
    return (value for inner in box.walk() for value in (*inner.inputs, *inner.outputs))


def _dtype_notes(shown: Box, box: Box) -> list[str]:
    """Return the dtypes of inputs and outputs as a note if they are not all float32: `bf16`, `int64 -> fp32`."""
    before, after = [list(dict.fromkeys(map(_dtype_name, values))) for values in (_shown_inputs(shown), box.outputs)]
    if set(before + after) <= {"fp32"}:
        return []
    if before == after or not before or not after:
        return [", ".join(after or before)]
    return [f"{', '.join(before)} -> {', '.join(after)}".strip()]


def _dtype_name(value: Value) -> str:
    """Return the dtype of a value, the common floating ones abbreviated."""
    name = str(value.dtype).removeprefix("torch.")
    return _DTYPES.get(name, name)


def _named_sizes(box: Box) -> Iterator[str]:
    """Return the size of each named axis of the inputs and outputs, unless it is symbolic: `y=20`, `x=22`."""
    found: dict[str, Any] = {}
    for value in (*box.inputs, *box.outputs):
        for axis, size in zip(value.axes, value.sizes, strict=True):
            if axis is not None and axis.replace("'", "").isidentifier() and str(size) != axis:
                found.setdefault(axis, size)
    return iter([f"{axis}={size}" for axis, size in found.items()])


__all__ = ["Row", "box_row", "row_line", "rows"]
