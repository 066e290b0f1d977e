"""listing: the text of a traced circuit, one line an operation, with axes where they are known.

It is the counterpart of a jaxpr: what goes in, every operation by what it makes and what it was given, what comes out.

Source: J. Bradbury et al., JAX, 2018, whose `make_jaxpr` prints functions so.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensor

from circuits.diagram import Box, Call, Diagram, Struct, Value, Wire, operation_name, wires, without_defaults
from circuits.errors import CircuitError
from circuits.printing.aten import graph_text
from circuits.printing.words import another, argument_text, given_text, letters, opening, type_text
from circuits.recording import trace

Inside = Literal["nested", "inline", "closed"]
"""How boxes inside boxes are shown: each under its line, in braces; as if its lines stood outside; not at all."""


def listing(
    f: Any,
    /,
    *inputs: Any,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    level: Literal["torch", "aten"] = "torch",
    inside: Inside = "nested",
    **kwargs: Any,
) -> str:
    """The text of a circuit, a module, any function of tensors, or a diagram; nothing is computed.

    First stand the parameters by their dotted names, then, after a semicolon, what goes in. Each line after names what
    an operation makes, and gives its arguments in the order of the code. An axis says its size where it first stands,
    `y=20`; one that nobody named is its size. `_` is what nobody reads, `?` what was not seen
    being made, or not made any more after a failure; an operation that ends in `_` overwrites its first argument. A box
    with others inside has the arguments of its call but for defaults. A module that is one operation is the line of
    that operation. A value has one name, inside a box and outside; seen by torch.vmap it has a prime, and an axis that
    is hidden there a star. What torch.func's grad and vjp do on the way back is one line, `grad`.

    The other arguments are those of `trace`; a diagram takes none. `level="aten"` lists what torch's `make_fx` sees of
    a call instead: kernels as they run, and what torch.func's grad, vjp, jacrev and vmap do, to any order. CircuitError
    where an axis is left free there.

    >>> print(listing(lambda x: torch.log(x) / torch.log(torch.tensor(2.0)), torch.ones(())))
    { x:f32[] .
      a:f32[] = log x
      b:f32[] = log 2.0
      c:f32[] = div a b
      in c }
    """
    if level not in ("torch", "aten") or inside not in ("nested", "inline", "closed"):
        raise CircuitError(
            "listing: level is 'torch' or 'aten', and inside is 'nested', 'inline' or 'closed'; "
            f"not {level!r}, {inside!r}"
        )
    if level == "aten":
        return graph_text(f, inputs, sizes, axes, kwargs)
    if not isinstance(f, Diagram):
        f = trace(f, *inputs, sizes=sizes, axes=axes, **kwargs)
    elif inputs or kwargs or sizes or axes:
        raise CircuitError(f"{f.name} is a diagram: it was recorded with its inputs and sizes, and takes no others")
    return "\n".join(_Listing(f, inside).lines())


class _Listing:
    """The lines of one diagram. `names` calls every value, `symbols` torch's symbols by ours."""

    def __init__(self, diagram: Diagram, inside: Inside) -> None:
        self.diagram = diagram
        self.inside = inside
        self.symbols = dict(_ours(diagram))
        self.leaves = [box for box in diagram.box.walk() if _is_leaf(box)]
        self.read = {number for box in self.leaves for number in _read(box)} | set(wires(diagram.result))
        transforms = [box for box in diagram.box.walk() if box.kind == "transform"]
        self.read |= {value.number for box in transforms for value in box.inputs}
        self.literal = dict(_literals(diagram, self.leaves))
        met = [value for box in self.leaves for value in box.inputs] + list(diagram.outputs)
        before = {value.number: value for value in met if value.role in ("parameter", "buffer", "constant")}
        seen = {*diagram.constants, *diagram.state}
        unseen = [value.number for value in before.values() if value.role == "constant" and value.number not in seen]
        self.names: dict[int, str] = {**self.literal, **dict.fromkeys(unseen, "?")}
        self.before = [value for number, value in before.items() if number not in self.names]
        self.given = list({value.number: value for value in diagram.inputs}.values())
        self._name_all()

    # Names

    def _name_all(self) -> None:
        """Arguments and parameters by their own names, the rest by letters in the order of the run."""
        for value in (*self.given, *self.before):
            if value.name and not value.name.isdigit():
                self.names.setdefault(value.number, another(value.name, self.names.values()))
        self.letters = letters(self.names.values())
        for value in (*self.before, *self.given):
            self._call(value.number)
        self._name_inside(self.diagram.box)
        for number in wires(self.diagram.result):
            self._call(number)

    def _name_inside(self, box: Box, hidden: bool = False) -> None:
        """What a box reads, then what is in it, then what it makes; nobody knows what of it leaves a transform."""
        if _is_leaf(box):
            for value in box.inputs:
                lifted = hidden and value.number not in self.names and value.name
                self._call(value.number, another(value.name, self.names.values()) if lifted else value.name)
            for number in _read(box):
                self._call(number)
        for inner in box.boxes:
            self._name_inside(inner, hidden or box.kind == "transform")
        for value in box.inside:
            self._call(value.number, another(value.name, self.names.values()) if value.name else "")
        for value in box.outputs:
            if hidden or value.number in self.read:
                self._call(value.number)

    def _call(self, number: int, name: str = "") -> None:
        if number not in self.names:
            self.names[number] = name or next(self.letters)

    def _typed(self, value: Value, told: dict[str, str]) -> str:
        text = type_text(value.dtype, value.axes, value.sizes, value.mapped, told)
        return f"{self.names.get(value.number, '_')}:{text}"

    # Lines

    def lines(self) -> Iterator[str]:
        """The whole text, line by line."""
        told: dict[str, str] = {}
        fixed = [self._typed(value, told) for value in self.before]
        yield from opening("", fixed, [self._typed(value, told) for value in self.given])
        root = self.diagram.box
        yield from self._leaf(root, "  ", told) if _is_leaf(root) else self._body(root, "  ", told)
        out = "?" if self.diagram.failed else argument_text(self.diagram.result, self.names, self.symbols)
        yield f"  in {out} }}"

    def _body(self, box: Box, indent: str, told: dict[str, str]) -> Iterator[str]:
        for inner in box.boxes:
            if _is_leaf(inner):
                yield from self._leaf(inner, indent, told)
            elif _is_one_operation(inner) or (self.inside == "inline" and inner.kind != "transform"):
                yield from self._body(inner, indent, told)
            else:
                yield from self._box(inner, indent, told)

    def _leaf(self, box: Box, indent: str, told: dict[str, str]) -> Iterator[str]:
        """One operation; none where what it makes is a number in the text."""
        if box.outputs and all(value.number in self.literal for value in box.outputs):
            return
        if box.call is None:
            words = self._words(box.inputs)
        else:
            args, kwargs = _unpacked(box.call)
            if box.call.function in _WORDY:
                args, kwargs = without_defaults(_WORDY[box.call.function], args, kwargs)
            words = given_text(args, kwargs, self.names, self.symbols)
        yield f"{indent}{self._makes(box, told)} = {_operation(box)}{words}{_failure(box)}"

    def _box(self, box: Box, indent: str, told: dict[str, str]) -> Iterator[str]:
        """A box by its name, and under it what is in it."""
        into = [value for value in box.inputs if value.role not in ("parameter", "buffer")]
        words = self._words(into) if box.given is None else self._given(box.given)
        yield f"{indent}{self._makes(box, told)} = {_called(box)}{words}{_failure(box)}"
        if self.inside == "closed":
            return
        told, indent = dict(told), f"{indent}  "
        into = list(_lifted(box)) if box.kind == "transform" else into
        yield from opening(indent, [], [self._typed(value, told) for value in into])
        yield from self._body(box, f"{indent}  ", told)
        given = box.inside if box.kind == "transform" else box.outputs
        out = [self.names.get(value.number, "_") for value in given]
        ends = "?" if _fails(box) else out[0] if len(out) == 1 else f"({', '.join(out)})"
        yield f"{indent}  in {ends} }}"

    def _makes(self, box: Box, told: dict[str, str]) -> str:
        if _fails(box):
            return "?"
        values = {value.number: value for value in box.outputs}
        numbers = list(values) if box.call is None or box.boxes else list(_places(box.call.result))
        return " ".join([self._typed(values[each], told) if each in values else "_" for each in numbers]) or "_"

    def _given(self, given: Any) -> str:
        """How a box was called; a tensor that nobody reads there, and nobody makes any more, has no name."""
        args, kwargs = given.parts
        names = {number: self.names.get(number, "_") for number in wires(given)}
        return given_text(args.parts, dict(zip(kwargs.keys, kwargs.parts, strict=True)), names, self.symbols)

    def _words(self, values: Iterable[Value]) -> str:
        return "".join([f" {self.names.get(value.number, '_')}" for value in values])


# What a diagram says of itself ----------------------------------------------------------------------------------------


def _is_leaf(box: Box) -> bool:
    return box.kind == "operation" or (box.call is not None and not box.boxes)


def _is_one_operation(box: Box) -> bool:
    """A module or a reverse that does one thing."""
    return box.kind in ("module", "function") and len(box.boxes) == 1 and _is_leaf(box.boxes[0])


def _fails(box: Box) -> bool:
    """Whether a box did not come to its end."""
    return not box.outputs and any(inner.error for inner in box.walk())


def _failure(box: Box) -> str:
    return f"  failed: {box.error}" if box.error else ""


def _read(box: Box) -> tuple[int, ...]:
    """What a leaf reads."""
    if box.call is None:
        return tuple([value.number for value in box.inputs])
    return (*wires(box.call.args), *wires(box.call.kwargs))


def _places(result: Any) -> Iterator[int]:
    """The numbers of all that a call gives, in order; -1 for what is no tensor."""
    if isinstance(result, Struct):
        for part in result.parts:
            yield from _places(part)
    else:
        yield result.number if isinstance(result, Wire) else -1


def _lifted(box: Box) -> Iterator[Value]:
    """What a transform lets the code inside see of what goes in."""
    found: dict[int, Value] = {}
    leaves = [inner for inner in box.walk() if _is_leaf(inner)]
    made = {value.number for inner in box.walk() if inner is not box for value in inner.outputs}
    for value in [*[value for inner in leaves for value in inner.inputs], *box.inside]:
        if value.number not in made and value.mapped:
            found.setdefault(value.number, value)
    return iter(found.values())


def _unpacked(call: Call) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments of a call, by place and by name."""
    args, kwargs = call.args, call.kwargs
    if isinstance(kwargs, Struct):
        kwargs = dict(zip(kwargs.keys, kwargs.parts, strict=True))
    return (args.parts if isinstance(args, Struct) else args), kwargs


def _operation(box: Box) -> str:
    """What an operation is called: by its function, or by its box where that says more."""
    function = box.call.function if box.call is not None else None
    owner = getattr(function, "__self__", None)
    made_by_hand = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    if function is None or isinstance(function, str) or made_by_hand or getattr(function, "opaque", False):
        name = box.label
    else:
        name = operation_name(function).replace(" ", "_")
    return f"{name}_" if box.mutates and not name.endswith("_") else name


def _called(box: Box) -> str:
    """What a box with others in it is called: a module by its dotted name."""
    if box.kind == "module" or box.path.startswith("∂"):
        return box.path or box.label
    return box.label.rpartition("<locals>.")[2].strip()


def _literals(diagram: Diagram, leaves: Iterable[Box]) -> Iterator[tuple[int, str]]:
    """Single numbers that the code writes out, as text: `2.0`. One that is overwritten is a value like others."""
    leaves = list(leaves)
    changed = {number for box in leaves for number in box.mutates}
    for number, tensor in diagram.constants.items():
        if tensor.ndim == 0 and number not in changed and not isinstance(tensor, FakeTensor) and not tensor.is_meta:
            yield number, repr(tensor.item())
    for box in leaves:
        if box.call is None or box.call.function not in _WRITTEN or not isinstance(box.call.result, Wire):
            continue
        args, _ = _unpacked(box.call)
        if args and isinstance(args[0], (bool, int, float, complex)) and box.call.result.number not in changed:
            yield box.call.result.number, repr(args[0])


_WRITTEN = (torch.tensor, torch.as_tensor, torch.scalar_tensor)
"""How code writes out a number as a tensor."""


_WORDY: dict[Any, tuple[inspect.Parameter, ...]] = {
    torch.autograd.grad: tuple(inspect.signature(torch.autograd.grad).parameters.values())
}
"""What torch.func calls with every keyword that there is; those with their default are left out."""


def _ours(diagram: Diagram) -> Iterator[tuple[Any, Any]]:
    """Torch's symbols in terms of the axes: `h/16` where torch knows h as `16*s`."""
    for axis, expression in diagram.symbols.items():
        for symbol in getattr(expression, "free_symbols", ()):
            yield symbol, axis * symbol / expression


__all__ = ["listing"]
