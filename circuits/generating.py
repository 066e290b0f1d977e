"""Write the check of a circuit as a few lines of Python.

The text has the function's own parameter list, so that Python binds a call as it always does; it asks once whether
anything records, once whether checks are on, and compares `.shape` entries. Whatever does not fit is handed to
`examine`, which says why. What is rare (an optional tensor that brings a size into a group or into arithmetic) is left
to `examine` altogether.
"""

import inspect
from dataclasses import dataclass
from typing import Any

from circuits.declaring import Circuit, Slot, has_rest, parameters_of
from circuits.signature import Axis, Group, Number, Rest, Term
from circuits.terms import solve, unknown


@dataclass(frozen=True)
class Code:
    """A size as the text that computes it; arithmetic on it writes more text.

    >>> (Code("h") * 2 + 1).text
    '((h * 2) + 1)'
    """

    text: str

    def __mul__(self, other: Any) -> "Code":
        return Code(f"({self.text} * {_text(other)})")

    def __rmul__(self, other: Any) -> "Code":
        return self if other == 1 else Code(f"({_text(other)} * {self.text})")

    def __add__(self, other: Any) -> "Code":
        return Code(f"({self.text} + {_text(other)})")

    def __radd__(self, other: Any) -> "Code":
        return Code(f"({_text(other)} + {self.text})")

    def __sub__(self, other: Any) -> "Code":
        return Code(f"({self.text} - {_text(other)})")

    def __rsub__(self, other: Any) -> "Code":
        return Code(f"({_text(other)} - {self.text})")


def _text(size: Any) -> str:
    return size.text if isinstance(size, Code) else f"{size}"


class Checks:
    """The lines of a check, as they are written: conditions gather until a size must be worked out."""

    def __init__(self, circuit: Circuit, prefix: str) -> None:
        self.circuit = circuit
        self.prefix = prefix
        self.lines: list[str] = []
        self.indent = "    "
        self.wrong: list[str] = []
        self.known: dict[str, Any] = {}
        self.maybe: set[str] = set()
        self.rest = ""
        self.open: list[tuple[str, Term]] = []
        self.products: dict[str, Any] = {}
        self.seen: dict[tuple[Term, ...], str] = {}
        self.count = 0
        self.results = "None"

    def name(self, kind: str) -> str:
        """A local name no parameter has."""
        self.count += 1
        return f"{self.prefix}{kind}{self.count}"

    def say(self, line: str) -> None:
        """Write a line, after the conditions gathered so far."""
        self.flush()
        self.lines.append(f"{self.indent}{line}")

    def flush(self) -> None:
        """Write the gathered conditions: any of them refuses the call."""
        if self.wrong:
            p = self.prefix
            values = "".join(f"{slot.name}, " for slot in self.circuit.slots)
            wrong = " or ".join(self.wrong)
            self.wrong.clear()
            self.say(f"if {wrong}:")
            self.say(f"    {p}refuse({p}circuit, {self.circuit.owner or None}, ({values}), {self.results})")

    def divide(self, size: Any, by: Any) -> Any:
        """Exact division, refused where something is left over."""
        if isinstance(size, int) and isinstance(by, int):
            if by == 0 or size % by:
                self.wrong.append("True")
                return 0
            return size // by
        if by == 1:
            return size
        top, bottom = _text(size), _text(by)
        self.wrong.append(
            f"{top} % {bottom} != 0" if isinstance(by, int) else f"{bottom} == 0 or {top} % {bottom} != 0"
        )
        return self.keep(Code(f"{top} // {bottom}"))

    def keep(self, size: Any) -> Any:
        """Give a size a name of its own."""
        if isinstance(size, int) or size.text.isidentifier():
            return size
        name = self.name("n")
        self.say(f"{name} = {size.text}")
        return Code(name)

    def fixed(self) -> None:
        """The sizes known before any tensor is seen."""
        for axis, by in self.circuit.fixed.items():
            if isinstance(by, int):
                self.known[axis] = by
                continue
            name = self.name("n")
            self.say(f"{name} = {self.circuit.owner}.__dict__.get({by!r})")
            self.known[axis] = Code(name)
            if axis in self.circuit.multiples:
                self.wrong.append(f"{name} is None or {name} % {self.circuit.multiples[axis]} != 0")

    def tensors(self, slots: list[tuple[Slot, str]], numbers: bool = False) -> None:
        """Kinds and numbers of axes of some tensors, then their plain axes."""
        shapes: list[tuple[Slot, str]] = []
        for slot, value in slots:
            if slot.axes in self.seen:
                continue
            shape = self.name("s")
            self.kind(slot, value, shape, numbers)
            if slot.axes:
                self.seen[slot.axes] = shape
                shapes.append((slot, shape))
        first = dict.fromkeys(id(slot) for slot, _ in shapes)
        for slot, value in slots:
            if slot.axes and id(slot) not in first:
                p = self.prefix
                self.wrong.append(f"not isinstance({value}, {p}Tensor) or {value}.shape != {self.seen[slot.axes]}")
                self.dtype(slot, value)
        for slot, shape in shapes:
            self.axes(slot, shape)

    def kind(self, slot: Slot, value: str, shape: str, numbers: bool) -> None:
        """The value is a tensor with the right number of axes."""
        p = self.prefix
        if not slot.axes:
            scalar = f"isinstance({value}, {p}Tensor) and {value}.ndim == 0"
            self.wrong.append(f"not ({scalar} or isinstance({value}, {p}NUMBERS))" if numbers else f"not ({scalar})")
        else:
            count = len(slot.axes) - has_rest(slot.axes)
            wrong = "<" if has_rest(slot.axes) else "!="
            compare = f" or len({shape} := {value}.shape) {wrong} {count}"
            self.wrong.append(f"not isinstance({value}, {p}Tensor){compare}")
        self.dtype(slot, value)

    def dtype(self, slot: Slot, value: str) -> None:
        """The value has the dtype asked for."""
        if slot.dtype is not None:
            self.wrong.append(f"{value}.dtype != {self.prefix}dtypes[{slot.name!r}]")

    def axes(self, slot: Slot, shape: str) -> None:
        """Each axis of one tensor, bound or compared."""
        names = [self.name("n") for _ in slot.axes]
        if slot.axes == (Rest(),):
            names = [shape]
        else:
            self.say(
                f"{'*' if has_rest(slot.axes) else ''}{', '.join(names)}{',' if len(names) == 1 else ''} = {shape}"
            )
        for term, name in zip(slot.axes, names, strict=True):
            if isinstance(term, Rest):
                self.leading(slot, name)
            elif isinstance(term, Number):
                self.wrong.append(f"{name} != {term.value}")
            elif isinstance(term, Axis):
                self.plain(slot, term.name, name)
            else:
                self.open.append((name, term))

    def plain(self, slot: Slot, axis: str, name: str) -> None:
        """A named axis: bound the first time, compared the others."""
        if axis in self.maybe:
            kept = f"{self.prefix}maybe{list(self.circuit_names()).index(axis)}"
            self.wrong.append(f"({kept} := {name} if {kept} is None else {kept}) != {name}")
            self.multiple(axis, name)
        elif axis in self.known:
            self.wrong.append(f"{name} != {_text(self.known[axis])}")
        else:
            self.bind(axis, Code(name))

    def bind(self, axis: str, size: Any) -> None:
        """From here on the axis has this size."""
        self.known[axis] = size
        self.multiple(axis, _text(size))

    def multiple(self, axis: str, size: str) -> None:
        if axis in self.circuit.multiples:
            self.wrong.append(f"{size} % {self.circuit.multiples[axis]} != 0")

    def leading(self, slot: Slot, name: str) -> None:
        """What `...` stands for."""
        name = f"[*{name}]" if slot.axes == (Rest(),) else name
        if not self.rest:
            self.rest = name
        elif slot.optional:
            self.wrong.append(f"not {self.prefix}broadcasts({name}, {self.rest})")
        else:
            self.wrong.append(f"{name} != {self.rest}")

    def settle(self) -> None:
        """Groups and arithmetic, as far as they can be worked out; open ones as products."""
        before = -1
        while before != len(self.open):
            before = len(self.open)
            waiting, self.open = self.open, []
            for name, term in waiting:
                lacking = unknown(term, self.known)
                if len(lacking) > 1:
                    self.open.append((name, term))
                elif lacking:
                    size = self.keep(solve(term, Code(name), self.known, self.divide))
                    self.wrong.append(f"{_text(size)} < 0")
                    self.bind(lacking[0], size)
                else:
                    self.wrong.append(f"{name} != {_text(term.size(self.known, self.divide))}")
        for name, term in self.open:
            self.product(name, term)

    def product(self, name: str, term: Term) -> None:
        """A group with several sizes unknown: their product is compared."""
        key = " ".join(sorted(unknown(term, self.known)))
        others: Any = 1
        for part in term.terms if isinstance(term, Group) else ():
            if not unknown(part, self.known):
                others = others * part.size(self.known, self.divide)
        product = self.divide(Code(name), others)
        if key in self.products:
            self.wrong.append(f"{_text(product)} != {_text(self.products[key])}")
        else:
            self.products[key] = product

    def circuit_names(self) -> list[str]:
        """Every axis name of the circuit, optional tensors included."""
        axes = [slot.axes for slot in self.circuit.slots + self.circuit.results]
        return list(dict.fromkeys(name for each in axes for term in each for name in term.names))

    def inputs(self) -> list[str]:
        """All lines before the body."""
        self.fixed()
        self.tensors([(slot, slot.name) for slot in self.circuit.slots if not slot.optional], numbers=True)
        self.settle()
        optional = [slot for slot in self.circuit.slots if slot.optional]
        names = dict.fromkeys(name for slot in optional for term in slot.axes for name in term.names)
        self.maybe = set(names) - set(self.known)
        for name in self.circuit_names():
            if name in self.maybe:
                self.say(f"{self.prefix}maybe{self.circuit_names().index(name)} = None")
        for slot in optional:
            self.say(f"if {slot.name} is not None:")
            self.indent += "    "
            seen, self.seen, waiting, self.open = self.seen, {}, self.open, []
            self.tensors([(slot, slot.name)])
            self.settle()
            self.flush()
            self.seen, self.open = seen, waiting
            self.indent = self.indent[:-4]
        self.flush()
        return self.take()

    def outputs(self, result: str) -> list[str]:
        """All lines after the body."""
        results, p = self.circuit.results, self.prefix
        if len(results) == 1:
            self.results = f"[{result}]"
            self.tensors([(results[0], result)])
        else:
            leaves = self.name("leaves")
            self.results = leaves
            self.say(f"{leaves} = {p}leaves({result})")
            self.wrong.append(f"len({leaves}) != {len(results)}")
            names = [self.name("out") for _ in results]
            self.say(f"{', '.join(names)} = {leaves}")
            self.tensors(list(zip(results, names, strict=True)))
        self.settle()
        self.flush()
        return self.take()

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


def is_rare(circuit: Circuit) -> bool:
    """Whether an optional tensor brings a size that a group or arithmetic waits for."""
    stated = set(circuit.fixed) | {name for axes in circuit.signature.inputs for term in axes for name in term.names}
    brought = {name for axes in circuit.optional.values() for term in axes for name in term.names} - stated
    first = any(has_rest(axes) for axes in circuit.signature.inputs)
    loose = any(has_rest(axes) for axes in circuit.optional.values()) and not first
    axes = [slot.axes for slot in circuit.slots + circuit.results]
    compound = {name for each in axes for term in each if not isinstance(term, Axis) for name in term.names}
    optional = [term for each in circuit.optional.values() for term in each]
    return loose or bool(brought & compound) or any(isinstance(term, Group) or len(term.names) > 1 for term in optional)


def source(circuit: Circuit) -> tuple[str, str]:
    """The text of `make`, which gives the checked function and its two-way twin, and the prefix of its own names."""
    parameters = parameters_of(circuit.definition)
    prefix = "_"
    while any(each.name.startswith(prefix) for each in parameters):
        prefix += "_"
    p, call = prefix, _call(parameters)
    take = _take(parameters, prefix)
    first, last = _checks(circuit, prefix)
    owner = circuit.owner or "None"
    kept = [
        each.name for each in parameters if each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    kept += [f"*{each.name}" for each in parameters if each.kind is each.VAR_POSITIONAL]
    named = [f"{each.name!r}: {each.name}" for each in parameters if each.kind is each.KEYWORD_ONLY]
    named += [f"**{each.name}" for each in parameters if each.kind is each.VAR_KEYWORD]
    args = "".join(f"{each}, " for each in kept if each != circuit.owner)
    lines = [
        f"def make({p}circuit, {p}body, {p}defaults, {p}dtypes, {p}switch, {p}recording, {p}detour, {p}examine, {p}refuse, {p}broadcasts,",
        f"         {p}leaves, {p}Tensor, {p}NUMBERS):",
        f"    def checked({take}):",
        f"        if {p}recording.active or {p}switch.definitions:",
        f"            return {p}detour({p}circuit, {p}through, {owner}, ({args}), {{{', '.join(named)}}})",
        f"        if not {p}switch.checks:",
        f"            return {p}body.runs({call})",
        *(f"    {line}" for line in first),
        f"        {p}result = {p}body.runs({call})",
        *(f"    {line}" for line in last),
        f"        return {p}result",
        "",
        f"    def {p}through({', '.join(each for each in (f'{p}run', take) if each)}):",
        *(f"    {line}" for line in first),
        f"        {p}result = {p}run({call})",
        *(f"    {line}" for line in last),
        f"        return {p}result",
        "",
        "    return checked",
        "",
    ]
    return "\n".join(lines), prefix


def _checks(circuit: Circuit, prefix: str) -> tuple[list[str], list[str]]:
    """The lines before and after the body."""
    p = prefix
    if is_rare(circuit):
        values = "".join(f"{slot.name}, " for slot in circuit.slots)
        call = f"    {p}examine({p}circuit, {circuit.owner or None}, ({values})"
        several = len(circuit.results) > 1
        return [f"{call})"], [f"{call}, {f'{p}leaves({p}result)' if several else f'[{p}result]'})"]
    checks = Checks(circuit, prefix)
    return checks.inputs(), checks.outputs(f"{p}result")


def _take(parameters: tuple[inspect.Parameter, ...], prefix: str) -> str:
    """The parameter list, defaults by reference."""
    words: list[str] = []
    kinds = [each.kind for each in parameters]
    for i, each in enumerate(parameters):
        if each.kind is each.KEYWORD_ONLY and each.VAR_POSITIONAL not in kinds and each.KEYWORD_ONLY not in kinds[:i]:
            words.append("*")
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        default = "" if each.default is each.empty else f"={prefix}defaults[{each.name!r}]"
        words.append(f"{stars}{each.name}{default}")
        if each.kind is each.POSITIONAL_ONLY and kinds[i + 1 : i + 2] != [each.POSITIONAL_ONLY]:
            words.append("/")
    return ", ".join(words)


def _call(parameters: tuple[inspect.Parameter, ...]) -> str:
    """The arguments that hand every parameter on."""
    words: list[str] = []
    for each in parameters:
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        words.append(f"{each.name}={each.name}" if each.kind is each.KEYWORD_ONLY else f"{stars}{each.name}")
    return ", ".join(words)
