"""`backward`: the way there and the way back, one after the other, as one diagram."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from circuits.autodiff.functionalize import Forward
from circuits.autodiff.ports import ported
from circuits.autodiff.reverse_pass import Walk, needed
from circuits.autodiff.workspace import Bench
from circuits.diagram import Box, Diagram, Struct, Value, Wire, change, wires
from circuits.errors import CircuitError
from circuits.recording import trace


def backward(
    f: Any,
    /,
    *inputs: Any,
    wrt: str | Sequence[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Diagram:
    """The diagram of the vector-Jacobian product of a circuit, a module, a function, or a diagram.

    It takes the tensors that the forward takes, then the cotangents of its floating outputs, and gives a dict with the
    cotangent of each floating input by the name of its parameter and of each learned tensor by its dotted name; a tied
    one by its first. `wrt` names those to give, buffers too, by any of their names. What is complex counts as floating,
    and has the cotangents that torch gives it. The other arguments are those of `trace`; a diagram takes none. A tensor
    given twice is one input. Run, it changes what the circuit changes, as often: the statistics of a BatchNorm once.

    CircuitError where a gradient cannot be known: an in-place change, hidden from autograd, of a value that gradients
    flow through, say. What has no rule is a box `∂name` that asks torch, listed by `.opaque`.

    >>> gradient = backward(lambda x: x.log() / 2.0, torch.ones(()))
    >>> gradient(torch.tensor(4.0), torch.tensor(1.0))
    {'x': tensor(0.1250)}
    """
    made = make(f, inputs, wrt, sizes, axes, kwargs)
    diagram = made.diagram
    box = Box("function", "", f"∂{diagram.name}", inputs=(*made.inputs, *made.cotangents), outputs=made.answers,
              parameters=made.forward.parameters)  # fmt: skip
    boxes = ported([made.forward, *made.reverse], wires(made.result), made.more)
    return made.assembled(replace(box, boxes=boxes), _arguments(diagram, made.cotangents), made.result)


@dataclass(frozen=True)
class Made:
    """The two boxes of a circuit and its reverse, and what goes in and comes out.

    `outputs` says where the results of the circuit stand, `result` where the cotangents do that were asked for.
    """

    diagram: Diagram
    bench: Bench
    forward: Box
    reverse: tuple[Box, ...]
    more: Mapping[int, Sequence[Value]]
    inputs: tuple[Value, ...]
    cotangents: tuple[Value, ...]
    answers: tuple[Value, ...]
    outputs: Any
    result: Struct

    @property
    def constants(self) -> Mapping[int, torch.Tensor]:
        """Tensors that were there before, or that the code writes out."""
        held = self.bench.listener.record.constants
        return {number: tensor for number, tensor in held.items() if not hasattr(tensor, "fake_mode")}

    def assembled(self, box: Box, arguments: Any, result: Any, binder: inspect.Signature | None = None) -> Diagram:
        """A diagram of a box that is made of these."""
        return replace(
            self.diagram,
            box=box,
            arguments=arguments,
            result=result,
            guards=tuple(dict.fromkeys([*self.diagram.guards, *self.bench.guards()])),
            fixed=(*self.diagram.fixed, *self.bench.fixed()),
            constants=self.constants,
            binder=binder if binder is not None else _named(arguments),
        )


def make(f: Any, inputs: Any, wrt: Any, sizes: Any, axes: Any, kwargs: Any) -> Made:
    """Record, go there, come back."""
    if isinstance(f, Diagram):
        if inputs or kwargs or sizes or axes:
            raise CircuitError(f"{f.name} is a diagram: it was recorded with its inputs and sizes, and takes no others")
        diagram = f
    else:
        diagram = trace(f, *inputs, sizes=sizes, axes=axes, **kwargs)
    if diagram.failed:
        raise CircuitError(f"{diagram.name}: the recorded run failed, so it cannot be reversed")
    asked = _asked(diagram, wrt)
    bench = Bench(diagram)
    with bench.open():
        way = Forward(bench, [value.number for value in asked.values()])
        there = way.run(diagram.box)
        walk = Walk(bench, way.tape, way.active)
        cotangents, added = _cotangents(bench, walk, way)
        back = walk.back(there)
        result, zeros = _result(bench, walk, asked)
    boxes, _ = needed([*added, *back, *zeros], wires(result))
    pairs = zip(wires(result), asked.values(), strict=True)
    answers = tuple([replace(value, number=number, role="made", name="") for number, value in pairs])
    outputs = change(diagram.result, way.now, lambda scalar: scalar, make=False)
    return Made(diagram, bench, there, boxes, way.more, diagram.inputs, cotangents, answers, outputs, result)


def _asked(diagram: Diagram, wrt: str | Sequence[str] | None) -> dict[str, Value]:
    """The values whose cotangents are asked for, by name; an input goes before a parameter of its name."""
    known: dict[str, Value] = {}
    for value in (*diagram.inputs, *diagram.parameters):
        if _floats(value):
            name = value.name if value.name not in known else f"{diagram.name}.{value.name}"
            if value.role == "input" or value.role == "parameter":
                known[name] = value
    if wrt is None:
        return known
    for box in diagram.walk():
        for value in box.inputs:
            if value.role == "buffer" and _floats(value):
                known.setdefault(value.name, value)
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    others = _other_names(diagram, known) if set(names) - set(known) else {}
    unknown = [name for name in names if name not in known and name not in others]
    if unknown:
        raise CircuitError(f"wrt: {diagram.name} has no floating {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: known[name] for name in dict.fromkeys([others.get(name, name) for name in names])}


def _other_names(diagram: Diagram, known: Mapping[str, Value]) -> dict[str, str]:
    """The further names of tied parameters, each with the first, which `named_parameters` and a diagram call it by."""
    found: dict[str, str] = {}
    for first, value in known.items():
        if value.number in diagram.state:
            root, own = diagram.state[value.number]
            tensors = (*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False))
            tensor = dict(tensors).get(own)
            found |= {f"{first.removesuffix(own)}{name}": first for name, each in tensors if each is tensor}
    return {name: first for name, first in found.items() if name not in known}


def _floats(value: Value) -> bool:
    return value.dtype.is_floating_point or value.dtype.is_complex


def _cotangents(bench: Bench, walk: Walk, way: Forward) -> tuple[tuple[Value, ...], list[Box]]:
    """The cotangents of the floating and complex outputs, which go in, one for each; those of one value are added."""
    outputs = {value.number: value for value in bench.diagram.outputs}
    numbers = [number for number in wires(bench.diagram.result) if _floats(outputs[number])]
    names = _names(len(numbers), {value.name for value in bench.diagram.inputs})
    found: list[Value] = []
    boxes: list[Box] = []
    for number, name in zip(numbers, names, strict=True):
        value = outputs[number]
        with bench.listener.muted():
            fake = bench.empty(value)
        wire = bench.listener.values.made(fake, "input", name)
        bench.fakes[wire.number] = fake
        boxes += walk.seed(way.tape.now.get(number, number), fake, value.axes)
        found.append(replace(value, number=wire.number, role="input", name=name))
    return tuple(found), boxes


def _names(count: int, taken: set[str]) -> list[str]:
    """`cotangent`, or `cotangent_1`, `cotangent_2`; none that is taken."""
    free = (f"cotangent_{place}" for place in range(1, 10**6))
    names = ["cotangent"] if count == 1 and "cotangent" not in taken else []
    while len(names) < count:
        names += [name for name in [next(free)] if name not in taken]
    return names


def _result(bench: Bench, walk: Walk, asked: Mapping[str, Value]) -> tuple[Struct, list[Box]]:
    """The answer, a dict by name; zeros for what nothing flows to."""
    found, boxes = [], []
    for value in asked.values():
        cotangent = walk.cotangents.get(value.number)
        if cotangent is None:
            boxes.append(_zeros(bench, walk, value))
            cotangent = walk.cotangents[value.number]
        found.append(Wire(bench.wire(cotangent)))
    return Struct(dict, tuple(asked), tuple(found)), boxes


def _zeros(bench: Bench, walk: Walk, value: Value) -> Box:
    def run() -> None:
        sizes = [bench.size(size) for size in value.sizes]
        walk.seed(value.number, torch.zeros(sizes, dtype=value.dtype, device=bench.device), value.axes)

    (box,) = bench.record("zeros", {}, run).boxes
    return replace(box, outputs=(replace(box.outputs[0], axes=value.axes),))


# How it is called ----------------------------------------------------------------------------------------------------


def _arguments(diagram: Diagram, cotangents: Sequence[Value]) -> Struct:
    """The tensors of the forward by the names of its parameters, then the cotangents, then what is no tensor."""
    given = dict(zip(diagram.arguments.keys, diagram.arguments.parts, strict=True))
    tensors = {_word(name): part for name, part in given.items() if wires(part)}
    back = {value.name: Wire(value.number) for value in cotangents}
    others = {name: part for name, part in given.items() if not wires(part) and name.isidentifier()}
    named = tensors | back | others
    return Struct(dict, tuple(named), tuple(named.values()))


def _word(name: str) -> str:
    """A name that a parameter can bear: `rest_0` for `rest.0`."""
    word = name.replace(".", "_")
    return word if word.isidentifier() else f"input_{word}"


def _defaults(arguments: Struct) -> dict[str, Any]:
    """What holds no tensor may be left out: the diagram was recorded with it."""
    return {name: part for name, part in zip(arguments.keys, arguments.parts, strict=True) if not wires(part)}


def _named(arguments: Struct) -> inspect.Signature | None:
    """The parameters that arguments are bound to; None for those of a function that does not say how its are called."""
    if not all(name.isidentifier() for name in arguments.keys):
        return None
    return bind_names(arguments.keys, _defaults(arguments))


def bind_names(names: Iterable[str], defaults: Mapping[str, Any]) -> inspect.Signature:
    """Parameters of these names: by place, or by name where there is a default."""
    kinds = inspect.Parameter
    placed = [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in names if name not in defaults]
    return inspect.Signature(
        [*placed, *[kinds(name, kinds.KEYWORD_ONLY, default=default) for name, default in defaults.items()]]
    )
