"""The tracker table: one row a box, indented as the boxes are nested.

A row has what the box is, its axes by name, its sizes, its learned numbers, and notes. A module that is one operation
takes one row; neighbours alike but for their names take one row with a count.
"""

import html as markup
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from circuits.boxes import Box, Fixed, Value

_DTYPES = {"float32": "", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    depth: int
    what: str
    axes: str
    sizes: str
    parameters: str
    notes: str

    @property
    def words(self) -> tuple[str, ...]:
        """The columns, the first one indented."""
        return ("  " * self.depth + self.what, self.axes, self.sizes, self.parameters, self.notes)


def rows(box: Box, depth: int | None = None) -> list[Row]:
    """The rows of a box and, `depth` levels down, of those inside it."""
    found = [row(box, opened=True)]
    if box.signature is not None:
        found = [replace(found[0], axes="", notes=" ".join([*_named_sizes(box), found[0].notes]).strip())]
    _add_inside(box, 1, depth, {box.path}, found)
    return found


def _add_inside(box: Box, level: int, depth: int | None, seen: set[str], found: list[Row]) -> None:
    if depth is not None and level > depth:
        return
    for inner, times in _alike(box.boxes):
        found.append(row(inner, level, times, seen, box.path))
        if not _is_one_operation(inner):
            _add_inside(inner, level + 1, depth, seen, found)


def row(
    box: Box, level: int = 0, times: int = 1, seen: set[str] | None = None, within: str = "", opened: bool = False
) -> Row:
    """One box as one row.

    `times` is how often it comes in a row, `seen` remembers which modules were counted, `within` is the path of the
    module around it. An opened box is never shown as the one operation inside it.
    """
    shown = box if opened or not _is_one_operation(box) else replace(box.boxes[0], name=box.name)
    notes = [f"×{times}"] if times > 1 else []
    notes += _dtype_notes(box) + ([f"failed: {box.error}"] if box.error else [])
    inputs = _data(shown)
    failed = any([inner.error for inner in box.walk()])
    axes = flow([str(value) for value in inputs], [str(value) for value in box.outputs], failed)
    sizes = flow([value.shape for value in inputs], [value.shape for value in box.outputs], failed)
    return Row(
        level,
        _what(shown),
        "" if axes == sizes else axes,
        sizes,
        _parameters(box, times, seen, within),
        " ".join(notes),
    )


def flow(inputs: Sequence[str], outputs: Sequence[str], failed: bool = False) -> str:
    """`y m, x m -> y m`."""
    left, right = [", ".join([words or "()" for words in side]) for side in (inputs, outputs)]
    return f"{left} -> {'?' if failed else right}".strip()


def line(row: Row, opened: bool) -> str:
    """One row on its own, in columns of fixed width; of a box that is still open only what goes in is known."""
    what, axes, sizes, parameters, notes = row.words
    axes, sizes = [text.removesuffix(" ->").removesuffix(" -> ?") if opened else text for text in (axes, sizes)]
    return f"{what:<48}  {axes:<28}  {sizes:<28}  {parameters}  {notes}".rstrip()


def _what(box: Box) -> str:
    name = f"{box.name} " if box.name else ""
    return f"{name}{box.label}: {box.signature}" if box.signature is not None else f"{name}{box.label}"


def _data(box: Box) -> list[Value]:
    """What goes in and is shown: an einsum's parameters are part of its pattern, others stand in their own column."""
    every = box.label.startswith(("einsum", "matmul"))
    return [value for value in box.inputs if every or value.role not in ("parameter", "buffer")]


def _is_one_operation(box: Box) -> bool:
    """A module that does one thing: its row says both."""
    if box.kind != "module" or len(box.boxes) != 1 or box.boxes[0].kind != "operation" or box.boxes[0].error:
        return False
    numbers = [[value.number for value in each.outputs] for each in (box, box.boxes[0])]
    return numbers[0] == numbers[1]


def _parameters(box: Box, times: int, seen: set[str] | None, within: str) -> str:
    """How many learned numbers; a module that was counted before is marked so."""
    count = box.parameter_count
    if not count:
        return ""
    if box.kind == "operation":
        names = [value.name.removeprefix(f"{within}.") for value in box.parameters]
        shown = ", ".join(names if len(names) < 4 else [*names[:2], f"… {len(names)} tensors"])
        return f"{shown}: {count:,} params"
    if seen is not None and box.path:
        if box.path in seen:
            return "shared"
        seen.add(box.path)
    several = times > 1 and "…" in box.name
    return f"{times} × {count:,} params" if several else f"{count:,} params"


def _dtype_notes(box: Box) -> list[str]:
    words = [str(value.dtype).removeprefix("torch.") for value in box.outputs]
    return list(dict.fromkeys([short for short in [_DTYPES.get(word, word) for word in words] if short]))


def _named_sizes(box: Box) -> Iterator[str]:
    """`y=20 x=22`: the size of each axis that the inputs name."""
    told: dict[str, Any] = {}
    for value in (*box.inputs, *box.outputs):
        for axis, size in zip(value.axes, value.sizes, strict=True):
            if axis is not None and axis.replace("'", "").isidentifier() and str(size) != axis:
                told.setdefault(axis, size)
    return iter([f"{axis}={size}" for axis, size in told.items()])


def _alike(boxes: Sequence[Box]) -> Iterator[tuple[Box, int]]:
    """Neighbours alike, as one and how many: one module called again, or a row of modules numbered `blocks.0…11`."""
    place = 0
    while place < len(boxes):
        first, shape = boxes[place], _shape(boxes[place])
        count = 1
        while (
            place + count < len(boxes)
            and _follows(boxes[place + count - 1], boxes[place + count])
            and _shape(boxes[place + count]) == shape
        ):
            count += 1
        last = boxes[place + count - 1]
        yield (
            (first if last.name == first.name else replace(first, name=f"{first.name}…{last.name.rpartition('.')[2]}")),
            count,
        )
        place += count


def _follows(box: Box, after: Box) -> bool:
    """Whether `after` is the same module again, or the one with the next number."""
    if not box.path or box.kind == "operation":
        return False
    (stem, _, number), (stem_after, _, number_after) = box.path.rpartition("."), after.path.rpartition(".")
    following = number.isdigit() and number_after.isdigit() and int(number_after) == int(number) + 1
    return box.path == after.path or (stem == stem_after and following)


def _shape(box: Box) -> tuple[Any, ...]:
    inner = tuple([_shape(inside) for inside in box.boxes])
    ports = tuple([(str(value), value.shape, value.dtype) for value in (*box.inputs, *box.outputs)])
    return box.label, ports, box.parameter_count, box.error, inner


def _lines(box: Box, fixed: Sequence[Fixed], depth: int | None) -> list[tuple[str, ...]]:
    table = [row.words for row in rows(box, depth)]
    return table + [(str(note), "", "", "", "") for note in fixed]


def text(box: Box, fixed: Sequence[Fixed] = (), depth: int | None = None) -> str:
    """The table as lines of text, as wide as they need to be."""
    grid = Table.grid(padding=(0, 2))
    for _ in range(5):
        grid.add_column(no_wrap=True)
    table = _lines(box, fixed, depth)
    for words in table[: len(table) - len(fixed)]:
        grid.add_row(*words)
    written = io.StringIO()
    Console(file=written, width=2000, color_system=None, markup=False, highlight=False, emoji=False).print(grid)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    return "\n".join(lines + [str(note) for note in fixed])


_TITLES = ("box", "axes", "sizes", "parameters", "notes")


def markdown(box: Box, fixed: Sequence[Fixed] = (), depth: int | None = None) -> str:
    """The table in GitHub's Markdown."""
    lines = ["| " + " | ".join(_TITLES) + " |", "|" + " --- |" * len(_TITLES)]
    for words in _lines(box, fixed, depth):
        indent = len(words[0]) - len(words[0].lstrip())
        first = "&nbsp;" * 2 * indent + words[0].lstrip()
        lines.append("| " + " | ".join([word.replace("|", "\\|") for word in (first, *words[1:])]) + " |")
    return "\n".join(lines) + "\n"


def html(box: Box, fixed: Sequence[Fixed] = (), depth: int | None = None) -> str:
    """The table for a notebook."""
    head = "".join([f"<th style='text-align:left'>{title}</th>" for title in _TITLES])
    body = "".join([_html_row(words) for words in _lines(box, fixed, depth)])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_row(words: tuple[str, ...]) -> str:
    indent = len(words[0]) - len(words[0].lstrip())
    style = f"text-align:left;white-space:nowrap;padding-left:{0.5 + indent * 0.6:g}em"
    cells = [f"<td style='{style}'>{markup.escape(words[0].lstrip())}</td>"]
    cells += [f"<td style='text-align:left;white-space:nowrap'>{markup.escape(word)}</td>" for word in words[1:]]
    return f"<tr>{''.join(cells)}</tr>"


def plain(box: Box, fixed: Sequence[Fixed] = (), guards: Sequence[Any] = ()) -> dict[str, Any]:
    """Plain data for JSON: the boxes nested, each with its values."""
    return {**_plain(box), "fixed": [str(note) for note in fixed], "guards": [str(guard) for guard in guards]}


def _plain(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": box.kind, "name": box.name, "label": box.label, "path": box.path}
    found["signature"] = None if box.signature is None else str(box.signature)
    found["inputs"] = [_plain_value(value) for value in box.inputs]
    found["outputs"] = [_plain_value(value) for value in box.outputs]
    found["parameters"] = box.parameter_count
    found["boxes"] = [_plain(inner) for inner in box.boxes]
    return found | ({"error": box.error} if box.error else {}) | ({"where": box.where} if box.where else {})


def _plain_value(value: Value) -> dict[str, Any]:
    sizes = [size if isinstance(size, int) else str(size) for size in value.sizes]
    found = {
        "value": value.number,
        "axes": list(value.axes),
        "sizes": sizes,
        "dtype": str(value.dtype).removeprefix("torch."),
    }
    return found | {"role": value.role, "name": value.name, "mapped": value.mapped}


__all__ = ["Row", "flow", "html", "line", "markdown", "plain", "row", "rows", "text"]
