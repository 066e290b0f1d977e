"""Raise ShapeError with every mismatch of a call in one message.

The message has one row for each tensor: its name, its axes, its sizes, its mismatches, and the source of the size that
was expected. Like `binding`, this module is traced by torch.compile, so it uses only plain loops and f-strings.
"""

from typing import Any

from circuits import switch
from circuits.checking.binding import INTEGERS, Binding
from circuits.checking.declaration import Circuit
from circuits.checking.rows import Row
from circuits.errors import CircuitError, DtypeError, ShapeError
from circuits.signature import plain_size
from circuits.tracers import has_proxy


def examine(circuit: Circuit, owner: Any, values: tuple[Any, ...], results: list[Any] | None = None) -> None:
    """Raise ShapeError with every mismatch of a call, if there is any.

    A call with a Proxy of torch.fx has no sizes, so nothing is raised.

    Args:
        circuit: The declaration.
        owner: The module or object whose method was called, or None.
        values: The inputs and optional tensors, in the order of `circuit.slots`.
        results: The outputs, or None if the function has not run yet.
    """
    if has_proxy(values) or (results is not None and has_proxy(results)):
        return
    binding = Binding(circuit.multiples)
    footer = _bind_fixed(binding, circuit, owner)
    rows: list[Row] = []
    for i in range(len(circuit.slots)):
        if values[i] is not None or circuit.slots[i].role == "input":
            rows.append(Row(circuit.slots[i], values[i]))
            binding.bind(rows[-1])
    binding.solve_all()
    if results is not None:
        found, expected = len(results), len(circuit.results)
        if found != expected:
            were = "was" if found == 1 else "were"
            footer += f"  {_count_tensors(found)} {were} returned, but the signature has {expected}\n"
        for i in range(min(found, expected)):
            rows.append(Row(circuit.results[i], results[i]))
            binding.bind(rows[-1])
        binding.solve_all()
    if footer or has_mismatch(rows):
        only_dtypes = footer == "" and _only_dtypes(rows)
        footer += _hints(circuit, rows)
        text = f"{circuit.title}\n{table(rows)}{footer}  declared at {circuit.where}"
        if only_dtypes:
            raise DtypeError(text)
        raise ShapeError(text)


def _only_dtypes(rows: list[Row]) -> bool:
    """Return whether no row has another mismatch than a dtype."""
    for row in rows:  # noqa: SIM110 (torch.compile would have to trace a generator)
        if len(row.mismatches) > (1 if row.wrong_dtype else 0):
            return False
    return True


def miscount(circuit: Circuit, given: tuple[Any, ...]) -> None:
    """Raise ShapeError for a call with more or fewer tensors than the signature has."""
    rows: list[Row] = []
    for i in range(min(len(given), len(circuit.inputs))):
        rows.append(Row(circuit.slots[i], given[i]))
    were = "was" if len(given) == 1 else "were"
    count = f"{_count_tensors(len(given))} {were} passed, but the signature has {len(circuit.inputs)}"
    raise ShapeError(f"{circuit.title}\n{table(rows)}  {count}\n  declared at {circuit.where}")


def _hints(circuit: Circuit, rows: list[Row]) -> str:
    """Return the hints for the tensors that do not fit, a line for each."""
    text = ""
    for row in rows:
        if len(row.mismatches) > 0 and row.slot.name in circuit.hints:
            text += f"  {row.slot.name}: {circuit.hints[row.slot.name]}\n"
    return text


def _bind_fixed(binding: Binding, circuit: Circuit, owner: Any) -> str:
    """Set the sizes of the fixed axes and return their mismatches as lines of text."""
    text = ""
    for name, by in circuit.fixed.items():
        source = f"fixed by {_class_name(owner)}.{by}" if isinstance(by, str) else "fixed"
        mismatch = binding.set_size(name, fixed_size(circuit, owner, name, by), source)
        if mismatch:
            text += f"  {mismatch} ({source})\n"
    return text


def fixed_size(circuit: Circuit, owner: Any, name: str, by: str | int) -> Any:
    """Return the size of a fixed axis: `by` if it is a number, else the value of the owner's attribute of this name.

    Raises:
        CircuitError: If the owner has no such attribute, or its value is not an integer.
    """
    if not isinstance(by, str):
        return by
    kind, where = _class_name(owner), f"declared at {circuit.where}"
    what = f"{circuit.title}\n  the size of {name} should be {kind}.{by}"
    try:
        size = getattr(owner, by)
    except AttributeError as error:
        raise CircuitError(f"{what}, which cannot be read: {error}\n  {where}") from error
    if isinstance(size, bool) or not isinstance(size, INTEGERS):
        raise CircuitError(f"{what}, which is of type {type(size).__name__}, not int\n  {where}")
    return plain_size(size)


def _count_tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def _class_name(owner: Any) -> str:
    """Return the name of the owner's class; the owner of a class method is the class itself."""
    return owner.__name__ if isinstance(owner, type) else type(owner).__name__


def has_mismatch(rows: list[Row]) -> bool:
    """Return whether any row has a mismatch."""
    for row in rows:  # noqa: SIM110 (torch.compile would have to trace a generator)
        if len(row.mismatches) > 0:
            return True
    return False


def table(rows: list[Row]) -> str:
    """Return one line for each tensor: its name, axes, sizes and mismatches; below it, carets under wrong sizes."""
    names, axes, sizes = 0, 0, 0
    for row in rows:
        names = max(names, len(row.slot.name))
        axes = max(axes, len(row.slot.text) + 2)
        sizes = max(sizes, len(row.text))
    text = ""
    for row in rows:
        mismatches = ""
        for each in row.mismatches:
            mismatches += f"{'; ' if mismatches else ''}{each}"
        start = f"  {row.slot.name.ljust(names)} {f'[{row.slot.text}]'.ljust(axes)}  "
        line = f"{start}{row.text.ljust(sizes)}    {mismatches}"
        text += f"{line.rstrip()}\n{_carets(row, len(start))}"
    return text


def _carets(row: Row, start: int) -> str:
    """Return the line below a row, with carets under its marked sizes; "" if none is marked."""
    if len(row.marked) == 0:
        return ""
    text = " " * start
    for i in range(len(row.sizes)):
        letter = "^" if i in row.marked else " "
        text += f"{letter * len(switch.show(row.sizes[i]))} "
    return f"{text.rstrip()}\n"
