"""The tracker table: one row a box, indented as the boxes are nested.

A row has what the box is, its axes by name, its sizes, its learned numbers, and notes. A module that is one operation
takes one row; neighbours alike but for their names take one row with a count (`×12`), and so do several neighbours that
come again in turn, bracketed in the notes.
"""

import html as markup
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from circuits.diagram.boxes import Box, Fixed, Value

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}


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
    for turn, times in _turns(box.boxes):
        first = len(found)
        for inner in turn:
            found.append(row(inner, level, times, seen, box.path))
            if not _is_one_operation(inner):
                _add_inside(inner, level + 1, depth, seen, found)
        if times > 1:
            _mark(found, first, times)


def _mark(found: list[Row], first: int, times: int) -> None:
    """Say how often rows come: a count on the one, a bracket beside several."""
    last = len(found) - 1
    single = all(row.depth > found[first].depth for row in found[first + 1 :])
    for place in range(first, first + 1 if single else last + 1):
        bracket = "" if single else " ┐" if place == first else "┘" if place == last else "│"
        mark = f"×{times}{bracket}" if place == first else bracket
        found[place] = replace(found[place], notes=f"{mark} {found[place].notes}".strip())


def row(
    box: Box, level: int = 0, times: int = 1, seen: set[str] | None = None, within: str = "", opened: bool = False
) -> Row:
    """One box as one row.

    `times` is how often it comes in a row, `seen` remembers which modules were counted, `within` is the path of the
    module around it. An opened box is never shown as the one operation inside it.
    """
    shown = box if opened or not _is_one_operation(box) else replace(box.boxes[0], name=box.name)
    notes = _dtype_notes(shown, box) + ([f"failed: {box.error}"] if box.error else [])
    notes += ["* mapped"] if box.kind == "transform" and any(value.mapped for value in _all_values(box)) else []
    inputs = _data(shown)
    failed = not box.outputs and any(inner.error for inner in box.walk())
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
    left, right = [", ".join([words or "()" for words in _few(side)]) for side in (inputs, outputs)]
    return f"{left} -> {'?' if failed else right}".strip()


def _few(words: Sequence[str]) -> Sequence[str]:
    """Not more tensors than can be read: the first ones, and how many there are besides."""
    return words if len(words) <= _MOST else [*words[: _MOST - 2], f"… {len(words) - _MOST + 2} more"]


_MOST = 8


def line(row: Row, opened: bool) -> str:
    """One row on its own, in columns of fixed width; of a box that is still open only what goes in is known."""
    what, axes, sizes, parameters, notes = row.words
    axes, sizes = [text.removesuffix(" ->").removesuffix(" -> ?") if opened else text for text in (axes, sizes)]
    return f"{what:<48}  {axes:<28}  {sizes:<28}  {parameters}  {notes}".rstrip()


def _what(box: Box) -> str:
    words = f"{box.name} {box.label.rpartition('<locals>.')[2]}".strip()
    return f"{words}: {box.signature}" if box.signature is not None else words


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
        names = _relative([value.name for value in box.parameters], within)
        shown = ", ".join(names if len(names) < 4 else [*names[:2], f"… {len(names)} tensors"])
        return f"{shown}: {count:,} params"
    if seen is not None and box.path:
        if box.path in seen:
            return "shared"
        seen.add(box.path)
    several = times > 1 and "…" in box.name
    return f"{times} × {count:,} params" if several else f"{count:,} params"


def _relative(names: Sequence[str], within: str) -> list[str]:
    """Parameters as the module calls them that reads them; without one, as what they have in common does."""
    if within:
        return [name.removeprefix(f"{within}.") for name in names]
    while all("." in name for name in names) and len({name.partition(".")[0] for name in names}) == 1:
        names = [name.partition(".")[2] for name in names]
    return list(names)


def _all_values(box: Box) -> Iterator[Value]:
    return (value for inner in box.walk() for value in (*inner.inputs, *inner.outputs))


def _dtype_notes(shown: Box, box: Box) -> list[str]:
    """The numbers that go in and come out, where they are not all float32: `bf16`, `int64 -> fp32`."""
    into, out = [list(dict.fromkeys(map(_dtype, values))) for values in (_data(shown), box.outputs)]
    if set(into + out) <= {"fp32"}:
        return []
    return [", ".join(out)] if into == out or not into else [f"{', '.join(into)} -> {', '.join(out)}".strip()]


def _dtype(value: Value) -> str:
    word = str(value.dtype).removeprefix("torch.")
    return _DTYPES.get(word, word)


def _named_sizes(box: Box) -> Iterator[str]:
    """`y=20 x=22`: the size of each axis that the inputs name."""
    told: dict[str, Any] = {}
    for value in (*box.inputs, *box.outputs):
        for axis, size in zip(value.axes, value.sizes, strict=True):
            if axis is not None and axis.replace("'", "").isidentifier() and str(size) != axis:
                told.setdefault(axis, size)
    return iter([f"{axis}={size}" for axis, size in told.items()])


def _turns(boxes: Sequence[Box]) -> Iterator[tuple[list[Box], int]]:
    """Neighbours alike, as the ones to show and how many times they come: the turn that covers most boxes wins.

    A turn is a module called again, the next of modules numbered `blocks.0`, `blocks.1`, or several boxes with such a
    module among them.
    """
    shapes = [_shape(box) for box in boxes]
    place = 0
    while place < len(boxes):
        length, times = max(
            [(length, _times(boxes, shapes, place, length)) for length in range(1, _LONGEST + 1)],
            key=lambda turn: (turn[0] * turn[1] if turn[1] > 1 else 1, -turn[0]),
        )
        length = length if times > 1 else 1
        last = place + (times - 1) * length
        yield [_spanning(boxes[place + step], boxes[last + step]) for step in range(length)], times
        place += length * times


_LONGEST = 8
"""How many neighbours may come again in turn."""


def _times(boxes: Sequence[Box], shapes: Sequence[Any], place: int, length: int) -> int:
    """How often the boxes from here on come in turn."""
    times = 1
    while place + length * (times + 1) <= len(boxes):
        before, after = place + length * (times - 1), place + length * times
        pairs = [(boxes[before + step], boxes[after + step]) for step in range(length)]
        alike = all(shapes[before + step] == shapes[after + step] for step in range(length))
        if not alike or not all(_follows(*pair, length) for pair in pairs) or not any(pair[0].path for pair in pairs):
            return times
        times += 1
    return times


def _follows(box: Box, after: Box, length: int) -> bool:
    """Whether `after` is the same module again or the next by number; operations have no names to compare."""
    if box.kind == "operation" or box.path == after.path:
        return box.kind == after.kind and (length > 1 or bool(box.path))
    (stem, _, number), (stem_after, _, number_after) = box.path.rpartition("."), after.path.rpartition(".")
    numbered = number.isdigit() and number_after.isdigit()
    return stem == stem_after and numbered and int(number) < int(number_after) <= int(number) + length


def _spanning(first: Box, last: Box) -> Box:
    """The first of a row of boxes, named for all of them: `blocks.0…11`."""
    return first if last.name == first.name else replace(first, name=f"{first.name}…{last.name.rpartition('.')[2]}")


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
        first = "&nbsp;" * 2 * indent + _escaped(words[0].lstrip())
        lines.append("| " + " | ".join([first, *map(_escaped, words[1:])]) + " |")
    return "\n".join(lines) + "\n"


def _escaped(words: str) -> str:
    """Text that Markdown leaves alone: `2*h` is no emphasis."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", markup.escape(words, quote=False))


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
