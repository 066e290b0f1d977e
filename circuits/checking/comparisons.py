"""Write the comparisons a signature asks for as lines of Python.

Conditions that refuse a call gather into one `if`; where a size must be worked out first (a group, arithmetic), a line
that names it stands between. The order is settled here, once, so a call only compares. Sizes are bound once; tensors
with the same axes are compared whole.
"""

from dataclasses import dataclass
from typing import Any

from circuits.checking.declaration import Circuit, Slot, has_rest
from circuits.signature import Axis, Group, Number, Rest, Term, solve, unknown


@dataclass(frozen=True)
class Code:
    """A size as the text that computes it; arithmetic on it writes more text.

    >>> (Code("h") * 2 + 1).text
    '((h * 2) + 1)'
    """

    text: str

    def __mul__(self, other: Any) -> "Code":
        return Code(f"({self.text} * {text_of(other)})")

    def __rmul__(self, other: Any) -> "Code":
        return self if other == 1 else Code(f"({text_of(other)} * {self.text})")

    def __add__(self, other: Any) -> "Code":
        return Code(f"({self.text} + {text_of(other)})")

    def __radd__(self, other: Any) -> "Code":
        return Code(f"({text_of(other)} + {self.text})")

    def __sub__(self, other: Any) -> "Code":
        return Code(f"({self.text} - {text_of(other)})")

    def __rsub__(self, other: Any) -> "Code":
        return Code(f"({text_of(other)} - {self.text})")


def text_of(size: Any) -> str:
    """A size as text, whether code or a number."""
    return size.text if isinstance(size, Code) else f"{size}"


class Comparisons:
    """The lines of one circuit's check, as they are written.

    `prefix` begins every name of ours, and no parameter's. Beside the parameters and their own names the lines refer
    to `wrong`, `miscounted`, `broadcasts`, `leaves`, `Tensor`, `numbers`, `ints` and `dtypes`, each with the prefix.
    """

    def __init__(self, circuit: Circuit, prefix: str) -> None:
        self.circuit = circuit
        self.prefix = prefix
        self.lines: list[str] = []
        self.indent = ""
        self.wrong: list[str] = []
        self.results = "None"
        self.known: dict[str, Any] = {}
        self.loose: dict[str, str] = {}
        self.rest = ""
        self.open: list[tuple[Code, Term]] = []
        self.products: dict[str, Any] = {}
        self.shapes: dict[tuple[Term, ...], str] = {}
        self.count = 0

    def take(self) -> list[str]:
        """The lines written so far, which are then forgotten."""
        self.flush()
        lines, self.lines = self.lines, []
        return lines

    def name(self, kind: str) -> str:
        """A new name."""
        self.count += 1
        return f"{self.prefix}{kind}{self.count}"

    def say(self, line: str) -> None:
        """Write a line, after the conditions gathered so far."""
        self.flush()
        self.lines.append(f"{self.indent}{line}")

    def flush(self) -> None:
        """Write the gathered conditions: any of them refuses the call."""
        if self.wrong:
            wrong = f"if {' or '.join(self.wrong)}:"
            self.wrong.clear()
            self.say(wrong)
            self.say(f"    {self.call('wrong')}")

    def call(self, function: str) -> str:
        """A call of `wrong` or `always` with all there is to see."""
        values = "".join(f"{slot.name}, " for slot in self.circuit.slots)
        owner = self.circuit.owner or "None"
        return f"{self.prefix}{function}({owner}, ({values}), {self.results})"

    def divide(self, size: Any, by: Any) -> Any:
        """Exact division, which refuses the call where something is left over."""
        if by == 1:
            return size
        top, bottom = text_of(size), text_of(by)
        self.wrong.append(
            f"{top} % {bottom} != 0" if isinstance(by, int) and by else f"{bottom} == 0 or {top} % {bottom}"
        )
        return self.keep(Code(f"{top} // {bottom}"))

    def keep(self, size: Any) -> Any:
        """Give a size that takes arithmetic a name of its own."""
        if isinstance(size, int) or size.text.isidentifier():
            return size
        name = self.name("n")
        self.say(f"{name} = {size.text}")
        return Code(name)

    def before(self) -> None:
        """All comparisons of what goes in."""
        self.star()
        self.fixed()
        self.tensors([(slot, slot.name) for slot in self.circuit.slots if slot.role == "input"])
        self.settle()
        optional = [slot for slot in self.circuit.slots if slot.role == "optional"]
        for name in dict.fromkeys(name for slot in optional for term in slot.axes for name in term.names):
            if name not in self.known:
                self.loose[name] = self.name("n")
                self.say(f"{self.loose[name]} = None")
        for slot in optional:
            self.optional(slot)

    def after(self, result: str) -> None:
        """All comparisons of what came out."""
        results = self.circuit.results
        if len(results) == 1:
            self.results = f"[{result}]"
            self.tensors([(results[0], result)])
        else:
            self.results = self.name("leaves")
            self.say(f"{self.results} = {self.prefix}leaves({result})")
            self.wrong.append(f"len({self.results}) != {len(results)}")
            names = [self.name("output") for _ in results]
            self.say(f"{', '.join(names)} = {self.results}")
            self.tensors(list(zip(results, names, strict=True)))
        self.settle()

    def is_rare(self) -> bool:
        """Whether an optional tensor may bring a size that a group or arithmetic waits for: too many cases to write."""
        terms = [term for slot in self.circuit.slots + self.circuit.results for term in slot.axes]
        return any(name in self.loose for term in terms if not isinstance(term, Axis) for name in term.names)

    def star(self) -> None:
        """As many tensors came as the signature has, where `*tensors` leaves that open."""
        star, names = self.circuit.star, self.circuit.inputs
        if star:
            plain = "".join(f"{name}, " for name in names if "[" not in name)
            self.say(f"if len({star}) != {len([name for name in names if '[' in name])}:")
            self.say(f"    {self.prefix}miscounted(({plain}*{star},))")

    def fixed(self) -> None:
        """The sizes known before any tensor is seen."""
        for axis, by in self.circuit.fixed.items():
            if isinstance(by, int):
                self.known[axis] = by
                continue
            name = self.name("n")
            self.say(f"{name} = {self.circuit.owner}.__dict__.get({by!r})")
            self.wrong.append(f"not isinstance({name}, {self.prefix}ints)")
            self.bind(axis, Code(name))

    def optional(self, slot: Slot) -> None:
        """An optional tensor: compared when it is there. Its shape is no one else's."""
        self.say(f"if {slot.name} is not None:")
        shapes, waiting = self.shapes, self.open
        self.shapes, self.open, self.indent = {}, [], self.indent + "    "
        self.tensors([(slot, slot.name)])
        self.settle()
        self.flush()
        self.shapes, self.open, self.indent = shapes, waiting, self.indent[:-4]

    def tensors(self, values: list[tuple[Slot, str]]) -> None:
        """Some tensors: what they are and how many axes they have, then each axis. Same axes, same shape."""
        new: list[tuple[Slot, str]] = []
        for slot, value in values:
            if not slot.axes:
                self.scalar(slot, value)
            elif slot.axes in self.shapes:
                shape = self.shapes[slot.axes]
                self.wrong.append(f"not isinstance({value}, {self.prefix}Tensor) or {value}.shape != {shape}")
            else:
                shape = self.shapes[slot.axes] = self.name("s")
                count, least = len(slot.axes) - has_rest(slot.axes), "<" if has_rest(slot.axes) else "!="
                self.wrong.append(f"not isinstance({value}, {self.prefix}Tensor)")
                self.wrong.append(f"len({shape} := {value}.shape) {least} {count}")
                new.append((slot, shape))
            if slot.dtype is not None:
                self.wrong.append(f"{value}.dtype != {self.prefix}dtypes[{slot.name!r}]")
        for slot, shape in new:
            self.axes(slot, shape)

    def scalar(self, slot: Slot, value: str) -> None:
        """A tensor without axes; a number may go in for it."""
        fits = f"isinstance({value}, {self.prefix}Tensor) and {value}.ndim == 0"
        if slot.role == "input" and slot.dtype is None:
            fits = f"{fits} or isinstance({value}, {self.prefix}numbers)"
        self.wrong.append(f"not ({fits})")

    def axes(self, slot: Slot, shape: str) -> None:
        """Each axis of one tensor, bound or compared."""
        if slot.axes == (Rest(),):
            self.leading(slot, f"[*{shape}]")
            return
        names = [self.name("n") for _ in slot.axes]
        star = "*" if has_rest(slot.axes) else ""
        self.say(f"{star}{', '.join(names)}{',' if len(names) == 1 else ''} = {shape}")
        for term, name in zip(slot.axes, names, strict=True):
            if isinstance(term, Rest):
                self.leading(slot, name)
            elif isinstance(term, Number):
                self.wrong.append(f"{name} != {term.value}")
            elif isinstance(term, Axis):
                self.plain(term.name, name)
            else:
                self.open.append((Code(name), term))

    def leading(self, slot: Slot, name: str) -> None:
        """What `...` stands for."""
        if not self.rest:
            self.rest = name
        elif slot.role == "optional":
            self.wrong.append(f"not {self.prefix}broadcasts({name}, {self.rest})")
        else:
            self.wrong.append(f"{name} != {self.rest}")

    def plain(self, axis: str, name: str) -> None:
        """A named axis: bound the first time, compared the others."""
        if axis in self.loose:
            kept = self.loose[axis]
            self.wrong.append(f"({kept} := {name} if {kept} is None else {kept}) != {name}")
            self.multiple(axis, name)
        elif axis in self.known:
            self.wrong.append(f"{name} != {text_of(self.known[axis])}")
        else:
            self.bind(axis, Code(name))

    def bind(self, axis: str, size: Any) -> None:
        """From here on the axis has this size."""
        self.known[axis] = size
        self.multiple(axis, text_of(size))

    def multiple(self, axis: str, size: str) -> None:
        """The size is a multiple, where one is asked for."""
        if axis in self.circuit.multiples:
            self.wrong.append(f"{size} % {self.circuit.multiples[axis]} != 0")

    def settle(self) -> None:
        """Groups and arithmetic, as far as they can be worked out; then open groups as products."""
        before = -1
        while before != len(self.open):
            before = len(self.open)
            waiting, self.open = self.open, []
            for size, term in waiting:
                self.compare(size, term)
        for size, term in self.open:
            if isinstance(term, Group) and term.is_product(self.known):
                self.product(size, term)

    def compare(self, size: Code, term: Term) -> None:
        """A term all of whose names are known is compared; one unknown name is solved for; more must wait."""
        lacking = unknown(term, self.known)
        if len(lacking) > 1:
            self.open.append((size, term))
        elif lacking:
            found = self.keep(solve(term, size, self.known, self.divide))
            self.wrong.append(f"{text_of(found)} < 0")
            self.bind(lacking[0], found)
        else:
            wanted = term.size(self.known, self.divide)
            self.wrong.append(f"{size.text} != {text_of(wanted)}")

    def product(self, size: Code, term: Group) -> None:
        """A group with several sizes unknown: their product is kept, or compared."""
        key = " ".join(sorted(unknown(term, self.known)))
        others: Any = 1
        for part in term.terms:
            if not unknown(part, self.known):
                others = others * part.size(self.known, self.divide)
        product = self.divide(size, others)
        if key in self.products:
            self.wrong.append(f"{text_of(product)} != {text_of(self.products[key])}")
        else:
            self.products[key] = product
