"""The parts of a diagram as frozen data: values, boxes, and the calls that run the boxes.

A `Value` is a tensor between boxes: its axis names, sizes and dtype. A `Box` is one node: a circuit, a module or one
torch operation, with the boxes inside it. Inside the box of a circuit a value has the same number as outside, and the
axis names of the circuit's signature.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.2 to 2.4.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import sympy
import torch

from circuits.checking import Across
from circuits.diagram.formulas import size_text
from circuits.diagram.settings import Setting
from circuits.signature import Signature

Size = int | sympy.Expr
"""The size of an axis: a number or, if it is symbolic, an expression in axis names such as `y` or `h/2`."""


@dataclass(frozen=True)
class Value:
    """A tensor of a diagram, between the box that computes it and the boxes that read it.

    Attributes:
        number: Identifies the tensor: two values with the same number are the same tensor, perhaps with other axis
            names.
        axes: The name of each axis, or None for an axis without a name.
        sizes: The size of each axis, in the same order.
        dtype: The dtype of the tensor.
        role: "input", "parameter", "buffer", "made" (computed by a recorded call), or "constant" (any other tensor: it
            existed before the run, or its computation was not recorded).
        name: The name of an argument, or the dotted name of a parameter or buffer; empty for other values.
        mapped: The number of leading axes that `torch.vmap` hides from the code inside it.
        device: The device of the tensor; None if it is unknown.
        requires_grad: Whether the tensor required gradients when the run first met it.
    """

    number: int
    axes: tuple[str | None, ...]
    sizes: tuple[Size, ...]
    dtype: torch.dtype
    role: Literal["input", "parameter", "buffer", "constant", "made"] = "made"
    name: str = ""
    mapped: int = 0
    device: torch.device | None = field(default=None, compare=False, repr=False)
    requires_grad: bool = field(default=False, compare=False, repr=False)

    def __str__(self) -> str:
        """Return the axes as text: each by its name, or by its size if it has none; mapped axes are marked `*`."""
        labels = [axis or size_text(size) for axis, size in zip(self.axes, self.sizes, strict=True)]
        return " ".join([label + "*" * (place < self.mapped) for place, label in enumerate(labels)])

    @property
    def shape(self) -> str:
        """The sizes as text, such as `20 4 h/2`."""
        return " ".join([f"{size}" if type(size) is int else size_text(size) for size in self.sizes])


@dataclass(frozen=True)
class Call:
    """One recorded call, as data with which it can be run again.

    A description is a nested value with a `Wire`, which holds a value number, in place of each tensor (see
    `structure`).

    Attributes:
        function: The callable, or the dotted path of a module of the recorded model (`path:method` for its method).
        args: The description of the positional arguments.
        kwargs: The description of the keyword arguments.
        result: The description of the result.
        autocast: The device type and dtype of autocast if it was on, else None.
        gradient: False if the code disabled gradients for the call.
        settings: The settings that the code had changed for the call: each by its name in `settings.SETTINGS`, with its
            value.
    """

    function: Callable[..., Any] | str
    args: Any
    kwargs: Any
    result: Any
    autocast: tuple[str, torch.dtype] | None = None
    gradient: bool = True
    settings: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class CustomBackward:
    """The user-defined backward circuit of a circuit, with the arguments and the result of the recorded call.

    Attributes:
        function: The backward circuit.
        owner: The object of which the circuit is a method, or None for a function.
        path: The dotted path of `owner` if it is a module of the recorded model, else empty.
        names: The parameter names of `args`.
        inputs: The number of leading `args` that are the tensors of the signature.
        args: The description of the positional arguments of the definition, with defaults filled in.
        kwargs: The description of its keyword arguments, with defaults filled in.
        result: The description of its result.
        gradient: False if the code disabled gradients for the call.
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


ByHand = CustomBackward
"""The former name of the class, by which older pickles refer to it."""


@dataclass(frozen=True)
class Box:
    """One node of a diagram: a call of a circuit, module, function or operation, with the boxes inside it.

    A box with a `call` is run by that call, any other box by the boxes inside it. In a backward circuit, the reverse of
    a box has the path and the name (or else the label) of that box, each with the prefix `∂`.

    Attributes:
        kind: "circuit" (decorated function or module), "module" or "function" (undecorated), "operation" (one torch
            operation or einops verb), or "transform" (such as vmap).
        name: The path of a module from the module around it, such as `0` or `blocks.1`, with its other paths after
            `=` if it has several; empty for other boxes.
        label: The name of the class, circuit or function, or the name of the operation with its pattern.
        path: The dotted path, from the recorded model, of the module that is called; else empty.
        signature: The signature of a circuit, else None.
        inputs: The tensors that the box reads.
        outputs: The tensors that it returns.
        parameters: The learned parameters of a module and of all modules inside it, used or not; of any other box,
            those that it and the boxes inside it read.
        boxes: The boxes inside, in the order of the run.
        call: How to run the box as a whole, or None.
        mutates: The numbers of the values that an in-place operation overwrites.
        where: The file and line of the call, if known.
        error: The error with which the run failed in this box, else empty.
        reverse: The user-defined backward circuit of a circuit, else None.
        given: The description of the arguments of a box with boxes inside it, as `(args, kwargs)` without those that
            have their default value; None if they are unknown.
        inside: The values that the function inside a transform returns, before the transform converts them to its
            outputs.
        lifted: The tensors inside a transform that wrap tensors outside it: the number inside, the number outside, and
            the axis that vmap hides, among those that are not hidden outside; None if it hides none.
        note: What a reader of the table has to know of this box: the number that it read from data; else empty.
        views: The numbers of the outputs of an operation that have the memory of one of its inputs.
        across: What the kernel of a circuit communicates if its inputs are split along axes that it reads across.
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
    reverse: CustomBackward | None = None
    given: Any = None
    inside: tuple[Value, ...] = ()
    lifted: tuple[tuple[int, int, int | None], ...] = ()
    note: str = ""
    views: tuple[int, ...] = field(default=(), compare=False, repr=False)
    across: Across | None = field(default=None, compare=False, repr=False)

    @property
    def parameter_count(self) -> int:
        """The number of elements of the learned parameters, each parameter counted once."""
        return sum([prod([int(size) for size in value.sizes]) for value in self.parameters])

    @property
    def brief(self) -> str:
        """What the box is, in one line: `'Lq Linear': y m -> y (h k), 1 box inside`."""
        read = [value for value in self.inputs if value.role not in ("parameter", "buffer")]
        inside = sum([1 for _ in self.walk()]) - 1
        name = f"{self.name} {self.label.rpartition('<locals>.')[2]}".strip()
        text = f"{name!r}: {_listed(read)} -> {_listed(self.outputs)}"
        return f"{text}, {inside} box{'es' * (inside != 1)} inside" if inside else text

    def __repr__(self) -> str:
        return f"Box({self.brief})"

    def walk(self) -> Iterator["Box"]:
        """Yield this box and all boxes inside it, in the order of the run, each before the boxes inside it."""
        yield self
        for box in self.boxes:
            yield from box.walk()

    def calls(self) -> Iterator[Call]:
        """Yield the calls that run this box, in order."""
        if self.call is not None:
            yield self.call
        else:
            for box in self.boxes:
                yield from box.calls()


def _listed(values: Sequence[Value]) -> str:
    """Return the axes of tensors as text, those of the first few."""
    texts = [str(value) or "()" for value in values[:_MOST]]
    return ", ".join([*texts, *([f"… {len(values) - _MOST} more"] if len(values) > _MOST else [])])


_MOST = 4
"""The most tensors whose axes one line has on each side."""


@dataclass(frozen=True)
class Fixed:
    """A symbolic axis whose size did not stay symbolic: it was used as a number, or had to equal another size.

    Attributes:
        axis: The name of the axis, or an expression in free axes that was used as a number: `int(0.5*n)`.
        size: Its size: a number, or an expression in the names of other axes.
        by: The function that used the size as a number, such as `math.sqrt`; empty if unknown.
        where: The file and line of the call; empty if unknown.
    """

    axis: str
    size: Size
    by: str
    where: str

    def __str__(self) -> str:
        by = f" by {self.by}" if self.by else ""
        at = f" at {self.where}" if self.where else ""
        return f"{self.axis} = {size_text(self.size)}, fixed{by}{at}"
