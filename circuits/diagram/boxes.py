"""What a diagram is made of: values, boxes, and the calls that run them. Frozen data.

A `Value` is a tensor on a wire: its axes by name, its sizes, its dtype. A `Box` is one node: a circuit, a module or
one torch operation, with the boxes inside it. Seen from inside a circuit a value keeps its number and takes the
axis names of the circuit's signature.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.2 to 2.4.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import sympy
import torch
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from circuits.signature import Signature

Size = int | sympy.Expr
"""A number, or an expression in the axes whose sizes are free: `y`, `h/2`."""


class _Printer(StrPrinter):
    """Sizes as a person writes them: `h//2-2` where sympy and torch write `((h//2)) - 2`."""

    printmethod = "_as_a_size"

    def _print_FloorDiv(self, expression: Any) -> str:
        return "//".join([self.parenthesize(part, PRECEDENCE["Mul"] + 1) for part in expression.args])

    _print_CleanDiv = _print_FloorDiv

    def _print_Mod(self, expression: Any) -> str:
        return " % ".join([self.parenthesize(part, PRECEDENCE["Mul"] + 1) for part in expression.args])

    _print_PythonMod = _print_Mod

    def _print_Equality(self, expression: Any) -> str:
        return f"{self.doprint(expression.lhs)} = {self.doprint(expression.rhs)}"


def size_text(size: Any) -> str:
    """A size, or a condition on sizes, as text.

    >>> size_text(sympy.Symbol("h") / 2 - 1)
    'h/2-1'
    """
    if isinstance(size, int):
        return f"{size}"
    text = _Printer().doprint(size)
    return text.replace(" + ", "+").replace(" - ", "-")


@dataclass(frozen=True)
class Value:
    """A tensor between boxes.

    `number` tells values apart: two with the same number are the same tensor, perhaps under other axis names.
    `axes` names each axis, None where nobody did; `sizes` go with them. The first `mapped` of them are axes that
    `torch.vmap` hides from the code inside it.
    """

    number: int
    axes: tuple[str | None, ...]
    sizes: tuple[Size, ...]
    dtype: torch.dtype
    role: Literal["input", "parameter", "buffer", "constant", "made"] = "made"
    name: str = ""
    mapped: int = 0

    def __str__(self) -> str:
        """The axes, by name where there is one and by size where not; a mapped axis bears a star."""
        words = [axis or size_text(size) for axis, size in zip(self.axes, self.sizes, strict=True)]
        return " ".join([word + "*" * (place < self.mapped) for place, word in enumerate(words)])

    @property
    def shape(self) -> str:
        """The sizes as text: `20 4 h/2`."""
        return " ".join([size_text(size) for size in self.sizes])


@dataclass(frozen=True)
class Call:
    """How a leaf box is run again: the function, its arguments with wires in them, and where its result goes.

    `function` is a callable, or the dotted path of a module of the recorded model. `autocast` holds the device type
    and dtype where autocast was on; `gradient` is whether autograd was watching.
    """

    function: Callable[..., Any] | str
    args: Any
    kwargs: Any
    result: Any
    autocast: tuple[str, torch.dtype] | None = None
    gradient: bool = True


@dataclass(frozen=True)
class ByHand:
    """The backward circuit that somebody wrote for a circuit, with what the circuit was given and what it gave.

    `args` and `kwargs` are all that the definition takes, what was left out by its default; `names` are the parameters
    of `args`, of which the first `inputs` carry the signature's tensors. `owner` is whose method the circuit is, None
    for a function, and `path` the dotted path if that is a module; `gradient` is whether autograd was watching.
    """

    function: Callable[..., Any]
    owner: Any
    path: str
    names: tuple[str, ...]
    inputs: int
    args: Any
    kwargs: Any
    result: Any
    gradient: bool = True


@dataclass(frozen=True)
class Box:
    """One node of a diagram.

    `kind` says what it is: a decorated circuit, an undecorated module or function, one torch operation or einops
    verb, or a transform such as vmap. `name` is what its parent calls it, `path` a module's dotted path from the
    model, `label` the class, the circuit, or the operation with its pattern. `inputs` and `outputs` are the tensors
    that go in and come out; `parameters` the learned ones of a module and all inside it, or those that an operation
    reads.
    `given` is how a box with others inside was called, as `(args, kwargs)` without what has its default, None if
    nobody knows; `inside` what the code in a transform gives, as it is seen there.
    `mutates` numbers the values that an in-place operation overwrites; `where` is the line of the call if known;
    `error` is set where a run failed. A box with a `call` is run by it, any other by the boxes inside it. `reverse` is
    the backward circuit that somebody wrote for a circuit.
    """

    kind: Literal["circuit", "module", "function", "operation", "transform"]
    name: str
    label: str
    path: str = ""
    signature: Signature | None = None
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    parameters: tuple[Value, ...] = ()
    boxes: tuple["Box", ...] = ()
    call: Call | None = None
    mutates: tuple[int, ...] = ()
    where: str = ""
    error: str = ""
    reverse: ByHand | None = None
    given: Any = None
    inside: tuple[Value, ...] = ()

    @property
    def parameter_count(self) -> int:
        """Learned numbers in this box, each counted once."""
        return sum([prod([int(size) for size in value.sizes]) for value in self.parameters])

    def walk(self) -> Iterator["Box"]:
        """This box and all inside it, outermost first, in the order of the run."""
        yield self
        for box in self.boxes:
            yield from box.walk()

    def calls(self) -> Iterator[Call]:
        """What running this box does, in order."""
        if self.call is not None:
            yield self.call
        else:
            for box in self.boxes:
                yield from box.calls()


@dataclass(frozen=True)
class Fixed:
    """A free axis whose size the code asked for as a number, or set equal to another: `k = 16`, by `math.sqrt`."""

    axis: str
    size: Size
    by: str
    where: str

    def __str__(self) -> str:
        by = f" by {self.by}" if self.by else ""
        at = f" at {self.where}" if self.where else ""
        return f"{self.axis} = {size_text(self.size)}, fixed{by}{at}"
