"""Say everything that is wrong with a call, in one message.

Every tensor stands in it by its own name, with its axes, its sizes, what does not agree and where the other size came
from. Like `binding`, this runs under torch.compile: plain loops and f-strings alone.
"""

from typing import Any

from torch import SymInt

from circuits import switch
from circuits.checking.binding import Binding, Row
from circuits.checking.declaration import Circuit
from circuits.errors import CircuitError, ShapeError


def examine(circuit: Circuit, owner: Any, values: tuple[Any, ...], results: list[Any] | None = None) -> None:
    """Raise ShapeError, saying everything that does not fit, if anything does not.

    `values` are the tensors that go in, in the order of `circuit.slots`; `results` those that came out, if they have.
    """
    binding = Binding(circuit.multiples)
    footer = fix(binding, circuit, owner)
    rows: list[Row] = []
    for i in range(len(circuit.slots)):
        if values[i] is not None or circuit.slots[i].role == "input":
            rows.append(Row(circuit.slots[i], values[i]))
            binding.read(rows[-1])
    binding.settle()
    if results is not None:
        came, wanted = len(results), len(circuit.results)
        if came != wanted:
            footer += f"  {_tensors(came)} came out, but the signature has {wanted}\n"
        for i in range(min(came, wanted)):
            rows.append(Row(circuit.results[i], results[i]))
            binding.read(rows[-1])
        binding.settle()
    if footer or any_wrong(rows):
        raise ShapeError(f"{circuit.title}\n{table(rows)}{footer}  declared at {circuit.where}")


def refuse(circuit: Circuit, owner: Any, values: tuple[Any, ...], results: list[Any] | None = None) -> None:
    """Raise ShapeError for a call that the generated check has found not to fit."""
    examine(circuit, owner, values, results)
    raise CircuitError(f"{circuit.title}\n  this call was refused and no reason was found: a defect of circuits itself")


def miscount(circuit: Circuit, given: tuple[Any, ...]) -> None:
    """Raise ShapeError for a call with more tensors than the signature has, or fewer."""
    rows: list[Row] = []
    for i in range(min(len(given), len(circuit.inputs))):
        rows.append(Row(circuit.slots[i], given[i]))
    count = f"{_tensors(len(given))} came, but the signature has {len(circuit.inputs)}"
    raise ShapeError(f"{circuit.title}\n{table(rows)}  {count}\n  declared at {circuit.where}")


def fix(binding: Binding, circuit: Circuit, owner: Any) -> str:
    """Give the sizes that are fixed; answers what is wrong with them."""
    text = ""
    for name, by in circuit.fixed.items():
        wrong = binding.give(name, fixed_size(circuit, owner, name, by), fixed_source(owner, by))
        if wrong:
            text += f"  {wrong} ({binding.sources[name]})\n"
    return text


def fixed_size(circuit: Circuit, owner: Any, name: str, by: str | int) -> Any:
    """The size of a fixed axis, which must be an int among the owner's own attributes."""
    if not isinstance(by, str):
        return by
    kind, where = _kind(owner), f"declared at {circuit.where}"
    what = f"{circuit.title}\n  the size of {name} is to be {kind}.{by}"
    if by not in owner.__dict__:
        raise CircuitError(f"{what}, but this {kind} has no attribute {by} of its own\n  {where}")
    size = owner.__dict__[by]
    if isinstance(size, bool) or not isinstance(size, int | SymInt):
        raise CircuitError(f"{what}, which is of type {type(size).__name__}, not int\n  {where}")
    return size


def fixed_source(owner: Any, by: str | int) -> str:
    """The words for where a fixed size stands."""
    return f"fixed by {_kind(owner)}.{by}" if isinstance(by, str) else "fixed"


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def _kind(owner: Any) -> str:
    return owner.__name__ if isinstance(owner, type) else type(owner).__name__


def any_wrong(rows: list[Row]) -> bool:
    """Whether anything was noted."""
    for row in rows:  # noqa: SIM110 (a generator here is one torch.compile would have to trace)
        if len(row.notes) > 0:
            return True
    return False


def table(rows: list[Row]) -> str:
    """One line a tensor: its name, its axes, its sizes, what is wrong; and carets below the sizes that clash."""
    names, axes, sizes = 0, 0, 0
    for row in rows:
        names = max(names, len(row.slot.name))
        axes = max(axes, len(row.slot.text) + 2)
        sizes = max(sizes, len(row.shown))
    text = ""
    for row in rows:
        note = ""
        for each in row.notes:
            note += f"{'; ' if note else ''}{each}"
        start = f"  {row.slot.name.ljust(names)} {f'[{row.slot.text}]'.ljust(axes)}  "
        line = f"{start}{row.shown.ljust(sizes)}    {note}"
        text += f"{line.rstrip()}\n{carets(row, len(start))}"
    return text


def carets(row: Row, start: int) -> str:
    """The line below a row, when something on it is marked."""
    if len(row.marked) == 0:
        return ""
    text = " " * start
    for i in range(len(row.sizes)):
        letter = "^" if i in row.marked else " "
        text += f"{letter * len(switch.show(row.sizes[i]))} "
    return f"{text.rstrip()}\n"
