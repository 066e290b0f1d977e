"""Compare a call with its signature, slowly and completely, and say everything that does not fit.

The generated checks of `generating` only ask whether a call fits. When it does not, this floor goes over it again,
collects every mismatch, and writes the message. It runs under torch.compile too, so it uses plain loops and f-strings
alone: there, `str(size)`, `map` and joins over generators lose the message.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from circuits import recording
from circuits.declaring import Circuit, Slot, has_rest
from circuits.errors import CircuitError, ShapeError
from circuits.signature import Axis, Group, Number, Rest, Term
from circuits.terms import solve, unknown

NUMBERS = (int, float, complex, torch.SymInt, torch.SymFloat, torch.SymBool)
"""What may stand for a scalar that goes in."""

ANYWHERE = -1
"""The place of a mismatch that is not about one axis."""


class Row:
    """One tensor of a call beside its slot."""

    def __init__(self, slot: Slot, value: Any) -> None:
        self.slot = slot
        self.fits = False
        self.sizes: list[Any] = []
        self.notes: list[str] = []
        self.marked: list[int] = []
        if isinstance(value, Tensor):
            self.shown = ""
            for size in value.shape:
                self.sizes.append(size)
        elif len(slot.axes) == 0 and isinstance(value, NUMBERS) and not slot.name.startswith("output"):
            self.shown = "a number"
        else:
            self.shown = f"{type(value).__name__}"

    def note(self, place: int, text: str) -> None:
        """Write a mismatch beside this tensor, with a caret under the size at `place`."""
        self.notes.append(text)
        if place != ANYWHERE:
            self.marked.append(place)


class Binding:
    """The sizes found so far, where each came from, and what does not agree with them."""

    def __init__(self, multiples: Mapping[str, int]) -> None:
        self.sizes: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.multiples = multiples
        self.rest: list[Any] | None = None
        self.rest_source = ""
        self.open: list[tuple[Row, int, Term]] = []
        self.products: dict[str, Any] = {}
        self.product_sources: dict[str, str] = {}

    def give(self, name: str, size: Any, source: str) -> str:
        """Take the size of a name; what is wrong with it, if anything."""
        self.sizes[name] = size
        self.sources[name] = source
        if name in self.multiples and size % self.multiples[name] != 0:
            return f"{name} is {recording.show(size)}, not a multiple of {self.multiples[name]}"
        return ""

    def tensor(self, row: Row, value: Any) -> None:
        """Look at one tensor: its kind, its number of axes, then its plain axes."""
        slot = row.slot
        if row.shown:
            row.fits = row.shown == "a number"
            if not row.fits:
                row.note(ANYWHERE, _not_a_tensor(slot, value))
            return
        if slot.dtype is not None and value.dtype != slot.dtype:
            row.note(ANYWHERE, f"{slot.name} is {value.dtype}, not {slot.dtype}")
        found, wanted = len(row.sizes), len(slot.axes)
        if has_rest(slot.axes):
            wanted -= 1
            if found < wanted:
                row.note(ANYWHERE, f"{_count(found)} here, but the signature names {wanted}")
                return
        elif found != wanted:
            row.note(ANYWHERE, f"{_count(found)} here, but the signature names {wanted}")
            return
        row.fits = True
        for i in range(len(slot.axes)):
            term = slot.axes[i]
            place = found - len(slot.axes) + i
            if isinstance(term, Rest):
                self.leading(row, row.sizes[: found - wanted])
            elif isinstance(term, Axis):
                self.plain(row, place, term.name)
            elif isinstance(term, Number):
                if row.sizes[place] != term.value:
                    row.note(place, f"{recording.show(row.sizes[place])} here, but the signature says {term.value}")
            else:
                self.open.append((row, place, term))

    def plain(self, row: Row, place: int, name: str) -> None:
        """A named axis: its first size is taken, the others must equal it."""
        size = row.sizes[place]
        if name not in self.sizes:
            wrong = self.give(name, size, f"from {row.slot.name}")
            if wrong:
                row.note(place, wrong)
        elif size != self.sizes[name]:
            row.note(place, f"{name} is {recording.show(size)} here, but {self.said(name)}")

    def leading(self, row: Row, sizes: list[Any]) -> None:
        """The axes `...` stands for: equal everywhere, but an optional tensor's need only broadcast."""
        if self.rest is None:
            self.rest = sizes
            self.rest_source = f"from {row.slot.name}"
            return
        rest = self.rest
        said = f"{_show(rest)} ({self.rest_source})"
        if row.slot.optional:
            if not broadcasts(sizes, rest):
                row.note(ANYWHERE, f"... is {_show(sizes)} here, which does not broadcast to {said}")
                for i in range(len(sizes)):
                    row.marked.append(i)
        elif len(sizes) != len(rest):
            row.note(ANYWHERE, f"... is {_show(sizes)} here, but {said}")
            for i in range(len(sizes)):
                row.marked.append(i)
        else:
            for i in range(len(sizes)):
                if sizes[i] != rest[i]:
                    row.marked.append(i)
            if len(row.marked) and sizes != rest:
                row.note(ANYWHERE, f"... is {_show(sizes)} here, but {said}")

    def said(self, name: str) -> str:
        """A size with where it came from."""
        return f"{recording.show(self.sizes[name])} ({self.sources[name]})"

    def settle(self) -> None:
        """Solve and compare groups and arithmetic until nothing more is known."""
        before = -1
        while before != len(self.open):
            before = len(self.open)
            still: list[tuple[Row, int, Term]] = []
            for row, place, term in self.open:
                lacking = unknown(term, self.sizes)
                if len(lacking) > 1:
                    still.append((row, place, term))
                elif len(lacking) == 1:
                    self.solved(row, place, term, lacking[0])
                else:
                    self.compare(row, place, term)
            self.open = still

    def compare(self, row: Row, place: int, term: Term) -> None:
        """A term all of whose names are known."""
        size = row.sizes[place]
        try:
            wanted = term.size(self.sizes)
        except ValueError:
            row.note(place, f"{term} is not whole: {self.parts(term)}")
            return
        if size != wanted:
            row.note(
                place, f"{term} is {recording.show(size)} here, but {recording.show(wanted)} where {self.parts(term)}"
            )

    def solved(self, row: Row, place: int, term: Term, name: str) -> None:
        """A term with one name still unknown, whose size follows."""
        size = row.sizes[place]
        parts = self.parts(term)
        try:
            found = solve(term, size, self.sizes)
        except ValueError:
            found = -1
        if found < 0:
            row.note(
                place,
                f"{term} is {recording.show(size)} here, which leaves no whole {name}{' where ' if parts else ''}{parts}",
            )
            return
        wrong = self.give(name, found, f"from {term} of {row.slot.name}")
        if wrong:
            row.note(place, wrong)

    def parts(self, term: Term) -> str:
        """The known names inside a term, each with its size and source."""
        text = ""
        told: list[str] = []
        for name in term.names:
            if name in self.sizes and name not in told:
                text += f"{', ' if text else ''}{name} is {self.said(name)}"
                told.append(name)
        return text

    def match(self) -> None:
        """Compare the groups that stay open as products."""
        for row, place, term in self.open:
            lacking = unknown(term, self.sizes)
            lacking.sort()
            key = ""
            for name in lacking:
                key += f"{' ' if key else ''}{name}"
            others = 1
            for part in term.terms if isinstance(term, Group) else ():
                if len(unknown(part, self.sizes)) == 0:
                    others = others * part.size(self.sizes)
            size = row.sizes[place]
            if others == 0 or size % others != 0:
                row.note(
                    place, f"{term} is {recording.show(size)} here, which {recording.show(others)} does not divide"
                )
                continue
            product = size // others
            if key not in self.products:
                self.products[key] = product
                self.product_sources[key] = f"from {row.slot.name}"
            elif product != self.products[key]:
                said = f"{recording.show(self.products[key])} ({self.product_sources[key]})"
                row.note(place, f"({key}) is {recording.show(product)} here, but {said}")


def examine(circuit: Circuit, owner: Any, values: tuple[Any, ...], results: list[Any] | None = None) -> None:
    """Raise ShapeError, with everything that does not fit, if anything does not."""
    binding = Binding(circuit.multiples)
    for name, by in circuit.fixed.items():
        size, source = fixed_size(circuit, owner, name, by)
        wrong = binding.give(name, size, source)
        if wrong:
            raise CircuitError(f"{circuit.title}\n  {wrong} ({source})\n  declared at {circuit.where}")
    rows: list[Row] = []
    for i in range(len(circuit.slots)):
        if values[i] is not None or not circuit.slots[i].optional:
            row = Row(circuit.slots[i], values[i])
            binding.tensor(row, values[i])
            rows.append(row)
    binding.settle()
    binding.match()
    if results is not None:
        for i in range(len(circuit.results)):
            if i < len(results):
                row = Row(circuit.results[i], results[i])
                binding.tensor(row, results[i])
                rows.append(row)
        binding.settle()
        binding.match()
    extra = ""
    if results is not None and len(results) != len(circuit.results):
        came = len(results)
        extra = f"{came} tensor{'' if came == 1 else 's'} came out, but the signature names {len(circuit.results)}"
    text = describe(rows)
    if text == "" and extra == "":
        return
    raise ShapeError(
        f"{circuit.title}\n{table(rows)}{'  ' if extra else ''}{extra}{chr(10) if extra else ''}  declared at {circuit.where}"
    )


def refuse(circuit: Circuit, owner: Any, values: tuple[Any, ...], results: list[Any] | None = None) -> None:
    """Raise ShapeError for a call that the generated check has found not to fit."""
    examine(circuit, owner, values, results)
    raise CircuitError(f"{circuit.title}\n  this call was refused and no reason was found: a defect of circuits itself")


def fixed_size(circuit: Circuit, owner: Any, name: str, by: str | int) -> tuple[Any, str]:
    """The size of a fixed axis, and the words for where it stands."""
    if not isinstance(by, str):
        return by, f"fixed at {by}"
    kind = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    held = owner.__dict__
    if by not in held:
        raise CircuitError(
            f"{circuit.name}: the size of {name} is fixed by {kind}.{by}, but the {kind} has no attribute {by}"
        )
    size = held[by]
    if isinstance(size, bool) or not isinstance(size, (int, torch.SymInt)):
        what = f"{type(size).__name__}"
        raise CircuitError(
            f"{circuit.name}: the size of {name} is fixed by {kind}.{by}, which is no int but of type {what}"
        )
    return size, f"fixed by {kind}.{by}"


def broadcasts(sizes: list[Any], to: list[Any]) -> bool:
    """Whether sizes, aligned at the right, are each 1 or equal to what they meet.

    >>> broadcasts([1, 3], [2, 5, 3]), broadcasts([2, 3], [3])
    (True, False)
    """
    if len(sizes) > len(to):
        return False
    for i in range(1, len(sizes) + 1):
        if sizes[-i] != 1 and sizes[-i] != to[-i]:
            return False
    return True


def describe(rows: list[Row]) -> str:
    """All notes of all rows; nothing when everything fits."""
    text = ""
    for row in rows:
        for note in row.notes:
            text += note
    return text


def table(rows: list[Row]) -> str:
    """One line a tensor: its name, its axes, its sizes, what is wrong; and carets below the sizes that clash."""
    name_width = axes_width = size_width = 0
    for row in rows:
        name_width = max(name_width, len(row.slot.name))
        axes_width = max(axes_width, len(row.slot.text) + 2)
        size_width = max(size_width, len(row.shown or _show(row.sizes)))
    text = ""
    for row in rows:
        start = f"  {row.slot.name.ljust(name_width)} {f'[{row.slot.text}]'.ljust(axes_width)}  "
        note = ""
        for each in row.notes:
            note += f"{'; ' if note else ''}{each}"
        line = f"{start}{(row.shown or _show(row.sizes)).ljust(size_width)}    {note}"
        text += f"{line.rstrip()}\n"
        marks = ""
        for i in range(len(row.sizes)):
            letter = "^" if i in row.marked else " "
            marks += f"{letter * len(f'{recording.show(row.sizes[i])}')} "
        if marks.strip():
            text += f"{' ' * len(start)}{marks.rstrip()}\n"
    return text


def _show(sizes: list[Any]) -> str:
    text = ""
    for size in sizes:
        text += f"{' ' if text else ''}{recording.show(size)}"
    return text if text else "()"


def _count(axes: int) -> str:
    return "1 axis" if axes == 1 else f"{axes} axes"


def _not_a_tensor(slot: Slot, value: Any) -> str:
    """What came where a tensor belongs, and what would have worked."""
    if value is None:
        return "a tensor belongs here, None came"
    return f"a tensor belongs here, {type(value).__name__} came"
