"""One recorded operation as the drawing rules read it, and the links of which its drawing consists.

In the links of a rule a port is the place of a tensor among those drawn and the place of an axis in that tensor;
`SCALAR` in place of an axis stands for the wire of a tensor without axes.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from circuits.diagram import Box, Struct, Value, operation_name, size_text
from circuits.drawing.marks import Span
from circuits.drawing.scene import Link, Port
from circuits.naming import Operation

SCALAR = -1
"""The place of the axis in the port of a tensor without axes."""

LEARNED = ("parameter", "buffer", "constant", "saved")
"""The roles of tensors that are no data of the run: they are part of a learned map, or begin at the step itself.

In a backward diagram "saved" is the role of a tensor of the forward pass that the reverse pass loads by name.
"""


@dataclass(frozen=True)
class Drawn:
    """What is drawn of one operation.

    Attributes:
        ins: The tensors that it reads and whose wires are drawn, from top to bottom.
        outs: The tensors that it returns.
        links: How each wire goes on.
        above: The text above the wires, for an elementwise operation.
        sign: The sign above the dots at which tensors join.
        scale: The number by which a contraction is scaled, at the arrow from its cup.
    """

    ins: tuple[Value, ...]
    outs: tuple[Value, ...]
    links: tuple[Link, ...]
    above: tuple[Span, ...] = ()
    sign: str = ""
    scale: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One operation: its box, the name of the module that consists of it, and its arguments.

    Attributes:
        box: The box of the operation.
        name: The name of the module around it, from which a learned map gets its superscript; may be empty.
        symbols: The formula in the user's axes for each symbol of torch that numbers of the call may have.
    """

    box: Box
    name: str = ""
    symbols: Mapping[Any, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def operation(self) -> Operation:
        """The call with its arguments, as the naming rules read it."""
        call = self.box.call
        if call is None:
            raise ValueError(f"{self.box.label} has no call")
        function = call.function if callable(call.function) else _run_as_a_whole
        named = dict(zip(call.kwargs.keys, call.kwargs.parts, strict=True)) if isinstance(call.kwargs, Struct) else {}
        return Operation(function, tuple(getattr(call.args, "parts", call.args)), named, call.result)

    @cached_property
    def function_name(self) -> str:
        """The name of the torch function, without underscores."""
        call = self.box.call
        if call is None or not callable(call.function):
            return self.box.label
        return operation_name(call.function).strip("_")

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument as plain data, `default` if it is absent or None."""
        return self.operation.get(position, name, default)

    def value(self, position: int, name: str) -> Value | None:
        """Return a tensor argument; None if the argument is no tensor."""
        number = self.operation.tensor(position, name)
        return next((value for value in self.box.inputs if value.number == number), None)

    def spans(self, value: Any) -> tuple[Span, ...]:
        """Return a number of the call as text, in the user's axes."""
        expression = getattr(value, "expression", value)
        replace = getattr(expression, "xreplace", None)
        return number_spans(expression if replace is None else replace(dict(self.symbols)))

    @property
    def data(self) -> tuple[Value, ...]:
        """The input tensors that are data of the run, one for each time that the call reads them."""
        by_number = {value.number: value for value in self.box.inputs}
        numbers = [number for number in self.operation.inputs if number in by_number]
        rest = [value.number for value in self.box.inputs if value.number not in numbers]
        return tuple([by_number[number] for number in (*numbers, *rest) if by_number[number].role not in LEARNED])

    @property
    def tensors(self) -> tuple[Value, ...]:
        """All input tensors, one for each time that the call reads them."""
        by_number = {value.number: value for value in self.box.inputs}
        numbers = [number for number in self.operation.inputs if number in by_number]
        rest = [value.number for value in self.box.inputs if value.number not in numbers]
        return tuple([by_number[number] for number in (*numbers, *rest)])


def _run_as_a_whole() -> None:
    """Stands for the function of a module that is run as a whole."""


Rule = Callable[[Reading], Drawn | None]
"""Returns how an operation is drawn; None if its arguments are not those that the rule knows."""

RULES: dict[str, Rule] = {}
"""The drawing rule for each operation, by name."""


def rule(names: str) -> Callable[[Rule], Rule]:
    """Return a decorator that registers a drawing rule for operations of these names, separated by spaces."""

    def register(function: Rule) -> Rule:
        for name in names.split():
            RULES[name] = function
        return function

    return register


def passing(pairs: Iterable[tuple[Port, Port]]) -> list[Link]:
    """Return a link for each wire that goes on unchanged."""
    return [Link("pass", (before,), (after,)) for before, after in pairs]


def ports(tensor: int, value: Value) -> list[Port]:
    """Return the ports of all wires of a tensor."""
    return [(tensor, axis) for axis in range(len(value.sizes))] or [(tensor, SCALAR)]


def all_ports(values: Sequence[Value]) -> tuple[Port, ...]:
    """Return the ports of all wires of several tensors."""
    return tuple([port for place, value in enumerate(values) for port in ports(place, value)])


def on_axes(reading: Reading, dims: Iterable[int], shape: str, text: tuple[Span, ...], **more: Any) -> Drawn | None:
    """Return the drawing of an operation that acts on some axes of its first tensor and leaves the others alone.

    Args:
        reading: The operation, with one output that has as many axes as its first tensor.
        dims: The axes on which it acts.
        shape: The shape of its glyph.
        text: The text in the glyph.
        **more: Other attributes of the link.
    """
    value, out = reading.tensors[0], reading.box.outputs[0]
    taken = sorted({dim % len(value.sizes) for dim in dims}) if value.sizes else []
    if len(reading.box.outputs) != 1 or len(out.sizes) != len(value.sizes) or not taken:
        return None
    others = [axis for axis in range(len(value.sizes)) if axis not in taken]
    glyph = tuple([(0, axis) for axis in taken])
    links = [*passing([((0, axis), (0, axis)) for axis in others]), Link("glyph", glyph, glyph, shape, text, **more)]
    return Drawn((value,), (out,), tuple(links))


def as_box(ins: Sequence[Value], outs: Sequence[Value], title: str, shape: str = "box") -> Drawn:
    """Return a box with a name to which every wire is attached."""
    glyph = Link("glyph", all_ports(ins), all_ports(outs), shape, (Span(title, "sans"),))
    return Drawn(tuple(ins), tuple(outs), (glyph,))


def number_spans(value: Any) -> tuple[Span, ...]:
    """Return a number or a formula as text, with powers as superscripts.

    >>> "".join(span.text for span in number_spans(0.5))
    '0.5'
    """
    expression = getattr(value, "expression", value)
    if isinstance(expression, bool):
        return (Span(f"{expression}", "upright"),)
    if isinstance(expression, float):
        whole = math.isfinite(expression) and expression == int(expression) and abs(expression) < 1e6
        text = f"{int(expression)}" if whole else f"{expression:.4g}".replace("inf", "∞")
    else:
        text = size_text(expression) if not isinstance(expression, str) else expression
    power = re.fullmatch(r"(\w+)\*\*\(?(-?)(\d*\.?\d+)\)?", text)
    if power is None:
        return (Span(text.replace("-", "−").replace("**", "^"), "upright"),)
    exponent = {"0.5": "1/2", "1.0": "1"}.get(power[3], power[3])
    style = "italic" if power[1].isalpha() else "upright"
    return (Span(power[1], style), Span(power[2].replace("-", "−") + exponent, "upright", "sup"))


__all__ = [
    "LEARNED",
    "RULES",
    "SCALAR",
    "Drawn",
    "Reading",
    "all_ports",
    "as_box",
    "number_spans",
    "on_axes",
    "passing",
    "ports",
    "rule",
]
