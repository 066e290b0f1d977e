"""The columns of a table: what each shows of a row, and how it is chosen by name or handed in as data."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuits.diagram import cells
from circuits.diagram.boxes import Box, Value
from circuits.diagram.counts import elements
from circuits.diagram.handed_in import HasColumns, heading_of, is_number, text_of, value_of
from circuits.diagram.operation_arguments import arguments_text
from circuits.diagram.rows import Row
from circuits.errors import CircuitError

Columns = str | Mapping[Any, Any] | HasColumns | Sequence[str | Mapping[Any, Any] | HasColumns]
"""How columns are chosen: names, also as one text with spaces between them, data from paths to numbers or text, and
costs, each of which is several columns of data."""

DEFAULT = ("axes", "sizes", "parameters")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        heading: Its heading.
        text: The text of a row.
        short: A shorter text, which shows the outputs alone; None if there is none.
        number: The number by which rows are sorted; None: they are sorted by the text.
        forms: The shorter forms of a formula, the longest first; None if there are none.
        data: What is handed in.
    """

    heading: str
    text: Callable[[Row], str]
    short: Callable[[Row], str] | None = None
    number: Callable[[Row], Any] | None = None
    forms: Callable[[Row], Sequence[str]] | None = None
    data: Mapping[Any, Any] | None = None


def chosen_columns(columns: Columns | None, frozen: Collection[str]) -> list[Column]:
    """Return the columns of a table; the last has the notes, unless they are chosen at another place.

    Args:
        columns: What is chosen; None: axes, sizes and parameters.
        frozen: The names of the parameters that are not trained.

    Raises:
        CircuitError: There is no column of a name.
    """
    chosen = _all_columns(columns)
    notes = _notes(frozen, with_dtypes="dtype" not in chosen)
    found = []
    for each in chosen:
        if not isinstance(each, str):
            found.append(data_column(each))
        elif each == "notes":
            found.append(notes)
        elif each in NAMED:
            found.append(NAMED[each])
        else:
            raise CircuitError(
                f"a table has no column {each!r}; it has {', '.join([*NAMED, 'notes'])}, or give a mapping"
            )
    return found if notes in found else [*found, notes]


def _arrow(text: Callable[[Sequence[Value]], str]) -> Callable[[Row], str]:
    """Return what a column shows that has something of the inputs and of the outputs: `y m, x m -> y m`."""

    def show(row: Row) -> str:
        if row.box is None:
            return ""
        right = "?" if cells.failed_inside(row.box) else text(row.box.outputs)
        return f"{text(cells.shown_inputs(row.box))} -> {right}".strip()

    return show


def _outputs(text: Callable[[Sequence[Value]], str]) -> Callable[[Row], str]:
    """Return what a column shows that has something of the outputs alone."""
    return lambda row: "" if row.box is None else "?" if cells.failed_inside(row.box) else text(row.box.outputs)


def parameter_count(row: Row) -> int:
    """Return the number of elements of the parameters that a row counts."""
    if row.unread:
        return elements([value for node in row.nodes for value in node.unread])
    return sum([node.parameters for node in row.nodes])


def _parameters(row: Row) -> str:
    """Return this number as text, `12 × 72` for equal repetitions."""
    total, each = parameter_count(row), {node.parameters for node in row.nodes}
    if not total:
        return ""
    if row.box is not None and len(row.nodes) > 1 and len(each) == 1:
        return f"{len(row.nodes)} × {each.pop():,}"
    return f"{total:,}"


def memory(row: Row) -> Any:
    """Return the bytes of the tensors that the operations of a row compute, or a formula in axes."""
    return 0 if row.unread else sum([node.memory for node in row.nodes])


def _dtypes(row: Row) -> str:
    return "" if row.box is None else cells.dtype_change(row.box) or cells.dtypes_of(row.box.outputs)


NAMED: Mapping[str, Column] = {
    "axes": Column("axes", _arrow(cells.axes_of), _outputs(cells.axes_of)),
    "sizes": Column("sizes", _arrow(cells.sizes_of), _outputs(cells.sizes_of)),
    "parameters": Column("parameters", _parameters, None, parameter_count),
    "dtype": Column("dtype", _dtypes),
    "device": Column("device", lambda row: "" if row.box is None else cells.devices_of(row.box.outputs)),
    "arguments": Column("arguments", lambda row: "" if row.box is None else arguments_text(row.box)),
    "memory": Column("memory", lambda row: cells.bytes_text(memory(row)) if memory(row) != 0 else "", None, memory),
    "where": Column("where", lambda row: "" if row.box is None else row.box.where),
}
"""The columns that are chosen by name; `notes` is one more."""


def data_column(data: Mapping[Any, Any]) -> Column:
    """Return a column of data: a mapping from the path of a module, or the place of a box, to a number or text."""
    if not isinstance(data, Mapping):
        raise CircuitError(
            f"a column is a name, a mapping from paths to numbers or text, or a cost, not {type(data).__name__}"
        )
    value = value_of(data)

    def number(row: Row) -> Any:
        found = value(row)
        return found if is_number(found) else 0

    def text(row: Row) -> str:
        found = value(row)
        if not isinstance(found, list):
            return "" if found is None else text_of(data, found)
        texts = [*dict.fromkeys(found)]
        return texts[0] if len(texts) == 1 else cells.few(texts)

    def forms(row: Row) -> Sequence[str]:
        found = value(row)
        return () if found is None else data.shorter(found)  # pyright: ignore[reportAttributeAccessIssue]

    return Column(heading_of(data), text, None, number, forms if hasattr(data, "shorter") else None, data)


def adds_to_usual(columns: Columns | None) -> bool:
    """Return whether columns are shown beside the usual ones: none, one mapping, or a cost."""
    return columns is None or isinstance(columns, (Mapping, HasColumns))


def _all_columns(columns: Columns | None) -> list[str | Mapping[Any, Any]]:
    """Return the columns that are chosen, those of a cost one by one.

    A mapping or a cost alone is shown beside the usual columns, without those that it has too.
    """
    if isinstance(columns, str):
        return [*columns.split()]
    if columns is None:
        return [*DEFAULT]
    if isinstance(columns, (Mapping, HasColumns)):
        found = [columns] if isinstance(columns, Mapping) else [*columns.columns()]
        headings = {heading_of(each) for each in found}
        return [*[each for each in DEFAULT if each not in headings], *found]
    parts = [each.columns() if isinstance(each, HasColumns) else [each] for each in columns]
    return [each for part in parts for each in part]


REPEATS = Column("", lambda row: row.repeats)
"""The column of the repetitions alone, without other notes."""


def _notes(frozen: Collection[str], with_dtypes: bool) -> Column:
    """Return the column of notes: repetitions, errors, names and marks of parameters, dtypes."""

    def text(row: Row) -> str:
        notes = [row.repeats]
        if row.unread:
            return " ".join([*notes, cells.few([value.name for node in row.nodes for value in node.unread])]).strip()
        if row.box is not None:
            notes += ["failed"] if row.box.error else []
            notes += _parameter_marks(row, row.box, frozen)
            notes += [cells.dtype_change(row.box)] if with_dtypes else []
            alone = None if row.is_open else cells.only_operation(row.box)  # an operation that has no row of its own
            notes += [row.box.note, alone.note if alone is not None else ""]
            notes += ["* mapped"] if cells.is_mapped(row.box) else []
        return f"{notes[0]} {', '.join([note for note in notes[1:] if note])}".strip()

    return Column("notes", text)


def _parameter_marks(row: Row, box: Box, frozen: Collection[str]) -> list[str]:
    """Return the names of the parameters of an operation, and marks: `frozen`, `tied to embed.weight`, `unused`."""
    counted = [value for node in row.nodes for value in node.counted]
    marks = []
    if box.kind == "operation" and counted:
        marks.append(
            cells.few([_relative(value.name, row.within) for value in counted[: len(counted) // len(row.nodes)]])
        )
    if row.depth == 0 and row.is_open:
        return marks
    still = [value for value in counted if value.name in frozen]
    unused = [value for node in row.nodes for value in node.unused]
    for word, found in (("frozen", still), ("unused", unused)):
        if found and len(found) == len(counted):
            marks.append(word)
        elif found and not row.is_open:
            marks.append(f"{elements(found):,} {word}")
    if not row.is_open and not (box.name or box.label).startswith("∂"):
        marks += _tied(row, box, {value.name for value in counted})
    return marks


def _tied(row: Row, box: Box, counted: Collection[str]) -> list[str]:
    """Return the marks of the parameters that rows above count: those of this module itself, and those of others."""
    path = row.within if box.kind == "operation" else box.path
    names = [*dict.fromkeys([value.name for node in row.nodes for value in node.shared if value.name not in counted])]
    others = [name for name in names if not _belongs(name, path, box.kind == "operation")]
    marks = ["counted above"] if len(others) < len(names) else []
    return marks + ([f"tied to {cells.few(others)}"] if others else [])


def _belongs(name: str, path: str, directly: bool) -> bool:
    """Return whether a parameter is one of the module at a path, or of a module inside it unless `directly`."""
    return name.rpartition(".")[0] == path if directly else not path or name.startswith(f"{path}.")


def _relative(name: str, path: str) -> str:
    """Return the name of a parameter relative to the module at a path."""
    return name.removeprefix(f"{path}.") if path else name


__all__ = [
    "DEFAULT", "NAMED", "REPEATS", "Column", "Columns", "adds_to_usual", "chosen_columns", "data_column", "memory",
    "parameter_count",
]  # fmt: skip
