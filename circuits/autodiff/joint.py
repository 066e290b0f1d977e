"""The joint graph: a circuit's forward pass and its reverse pass as boxes, before they become one diagram or two."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from circuits.autodiff.functionalize import ForwardPass
from circuits.autodiff.ports import needed, with_ports
from circuits.autodiff.refusals import other_guards, refuse_guards_without_gradients, refuse_hooks_and_autograd
from circuits.autodiff.reverse_pass import ReversePass
from circuits.autodiff.tensors import is_floating
from circuits.autodiff.workspace import Workspace
from circuits.diagram import Box, Diagram, Struct, Value, Wire, wires
from circuits.errors import CircuitError
from circuits.recording import refuse_target, restores_modes, trace


@dataclass(frozen=True)
class Joint:
    """The boxes of the forward and the reverse pass, with their inputs and outputs.

    `extra_values` are those of `ForwardPass`. `inputs` are the inputs of the circuit, `cotangents` the cotangents of
    its outputs, which are inputs of the reverse pass, and `gradients` the values that the reverse pass returns.
    `outputs` describes the circuit's outputs, nested as they are, and `result` the dict of the gradients by name.
    `primal` is that of `Halves`.
    """

    diagram: Diagram
    workspace: Workspace
    forward: Box
    reverse: tuple[Box, ...]
    extra_values: Mapping[int, Sequence[Value]]
    inputs: tuple[Value, ...]
    cotangents: tuple[Value, ...]
    gradients: tuple[Value, ...]
    outputs: Any
    result: Struct
    primal: Mapping[int, int]

    @property
    def constants(self) -> Mapping[int, torch.Tensor]:
        """The constants of the code, by number: tensors that it refers to, and literals."""
        held = self.workspace.listener.record.constants
        return {number: tensor for number, tensor in held.items() if not hasattr(tensor, "fake_mode")}

    def whole(self) -> Diagram:
        """Return the forward and the reverse pass as one diagram."""
        box = Box(
            "function", "", f"∂{self.diagram.name}", inputs=(*self.inputs, *self.cotangents), outputs=self.gradients,
            parameters=self.forward.parameters,
        )  # fmt: skip
        boxes = with_ports([self.forward, *self.reverse], wires(self.result), self.extra_values)
        arguments = arguments_of(self.diagram, self.cotangents)
        return self.diagram_of(replace(box, boxes=boxes), arguments, self.result, parameters_of(arguments))

    def diagram_of(self, box: Box, arguments: Any, result: Any, binder: inspect.Signature | None) -> Diagram:
        """Return a diagram of `box`, which contains boxes of this graph; `binder` has its Python parameters."""
        return replace(
            self.diagram,
            box=box,
            arguments=arguments,
            result=result,
            guards=tuple(dict.fromkeys([*self.diagram.guards, *self.workspace.sizes.guards()])),
            fixed=(*self.diagram.fixed, *self.workspace.sizes.fixed()),
            constants=self.constants,
            binder=binder,
            changes=tuple(
                [replace(change, after=None) for change in self.diagram.changes if change.place.owner is not None]
            ),
            property_guards=other_guards(self.diagram),
        )


@restores_modes
def joint_of(f: Any, inputs: Any, wrt: Any, sizes: Any, axes: Any, kwargs: Any) -> Joint:
    """Record a circuit, unless it is a diagram already, and make the boxes of its forward and reverse pass.

    The arguments are those of `backward`.
    """
    diagram = _diagram(f, inputs, sizes, axes, kwargs)
    requested = _requested(diagram, wrt)
    refuse_hooks_and_autograd(diagram, requested.values())
    workspace = Workspace(diagram)
    with workspace.open():
        forward_pass = ForwardPass(workspace, [value.number for value in requested.values()])
        forward = forward_pass.run(diagram.box)
        refuse_guards_without_gradients(diagram, forward_pass.active, workspace.fakes)
        reverse_pass = ReversePass(workspace, forward_pass.tape, forward_pass.active)
        cotangents, sums = _cotangents(workspace, reverse_pass, forward_pass)
        reverse = reverse_pass.reverse(forward)
        result, zeros = _result(workspace, reverse_pass, requested)
    boxes, _ = needed([*sums, *reverse, *zeros], wires(result))
    pairs = zip(wires(result), requested.values(), strict=True)
    gradients = tuple([replace(value, number=number, role="made", name="") for number, value in pairs])
    outputs = forward_pass.tape.current.description(diagram.result)
    return Joint(
        diagram, workspace, forward, boxes, forward_pass.extra_values, diagram.inputs, cotangents, gradients, outputs,
        result, reverse_pass.primal,
    )  # fmt: skip


def _diagram(f: Any, inputs: Any, sizes: Any, axes: Any, kwargs: Any) -> Diagram:
    """Return the diagram of a circuit; raise CircuitError for a diagram with inputs, or of a run that failed."""
    if isinstance(f, Diagram):
        if inputs or kwargs or sizes or axes:
            raise CircuitError(f"{f.name} is a diagram: it was recorded with its inputs and sizes, and takes no others")
        diagram = f
    else:
        refuse_target("backward", f)
        diagram = trace(f, *inputs, sizes=sizes, axes=axes, **kwargs)
    if diagram.failed or diagram.refusal:
        reason = diagram.refusal or "the recorded run failed"
        raise CircuitError(f"{diagram.name}: {reason}, so it cannot be differentiated")
    return diagram


# The tensors that `wrt` names -----------------------------------------------------------------------------------------


def _requested(diagram: Diagram, wrt: str | Sequence[str] | None) -> dict[str, Value]:
    """Return the values whose cotangents are requested, by name; an input shadows a parameter of its name."""
    known: dict[str, Value] = {}
    for value in (*diagram.inputs, *diagram.parameters):
        if is_floating(value):
            name = value.name if value.name not in known else f"{diagram.name}.{value.name}"
            if value.role == "input" or value.role == "parameter":
                known[name] = value
    if wrt is None:
        return known
    for box in diagram.walk():
        for value in box.inputs:
            if value.role == "buffer" and is_floating(value):
                known.setdefault(value.name, value)
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    others = _other_names(diagram, known) if set(names) - set(known) else {}
    unknown = [name for name in names if name not in known and name not in others]
    if unknown:
        raise CircuitError(
            f"wrt: {diagram.name} has no floating tensor {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return {name: known[name] for name in dict.fromkeys([others.get(name, name) for name in names])}


def _other_names(diagram: Diagram, known: Mapping[str, Value]) -> dict[str, str]:
    """Map each further name of a tied parameter to its first one, which `named_parameters` and a diagram use."""
    found: dict[str, str] = {}
    for first, value in known.items():
        if value.number in diagram.state:
            root, own = diagram.state[value.number]
            tensors = (*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False))
            tensor = dict(tensors).get(own)
            found |= {f"{first.removesuffix(own)}{name}": first for name, each in tensors if each is tensor}
    return {name: first for name, first in found.items() if name not in known}


# Cotangents -----------------------------------------------------------------------------------------------------------


def _cotangents(
    workspace: Workspace, reverse_pass: ReversePass, forward_pass: ForwardPass
) -> tuple[tuple[Value, ...], list[Box]]:
    """Make an input for the cotangent of each floating output; return these, and boxes that add those of one value."""
    outputs = {value.number: value for value in workspace.diagram.outputs}
    numbers = [number for number in wires(workspace.diagram.result) if is_floating(outputs[number])]
    names = _cotangent_names(len(numbers), {value.name for value in workspace.diagram.inputs})
    found: list[Value] = []
    boxes: list[Box] = []
    for number, name in zip(numbers, names, strict=True):
        value = outputs[number]
        with workspace.listener.paused():
            fake = workspace.empty(value)
        wire = workspace.listener.values.define(fake, "input", name)
        workspace.fakes[wire.number] = fake
        boxes += reverse_pass.seed(forward_pass.tape.current.number(number), fake, value.axes)
        found.append(replace(value, number=wire.number, role="input", name=name))
    return tuple(found), boxes


def _cotangent_names(count: int, taken: set[str]) -> list[str]:
    """Return `cotangent`, or `cotangent_1`, `cotangent_2`, ..., without names that are taken."""
    free = (f"cotangent_{place}" for place in range(1, 10**6))
    names = ["cotangent"] if count == 1 and "cotangent" not in taken else []
    while len(names) < count:
        names += [name for name in [next(free)] if name not in taken]
    return names


def _result(
    workspace: Workspace, reverse_pass: ReversePass, requested: Mapping[str, Value]
) -> tuple[Struct, list[Box]]:
    """Return the description of the gradients, a dict by name, and boxes that make zeros where no gradient flows."""
    found, boxes = [], []
    for value in requested.values():
        cotangent = reverse_pass.cotangents.get(value.number)
        if cotangent is None:
            boxes.append(_zeros(workspace, reverse_pass, value))
            cotangent = reverse_pass.cotangents[value.number]
        found.append(Wire(workspace.number_of(cotangent)))
    return Struct(dict, tuple(requested), tuple(found)), boxes


def _zeros(workspace: Workspace, reverse_pass: ReversePass, value: Value) -> Box:
    """Return a box that makes zeros as the cotangent of a value."""

    def run() -> None:
        sizes = [workspace.sizes.size(size) for size in value.sizes]
        zeros = torch.zeros(sizes, dtype=value.dtype, device=workspace.device)
        reverse_pass.seed(value.number, zeros, value.axes)

    (box,) = workspace.record_box("zeros", {}, run).boxes
    return replace(box, outputs=(replace(box.outputs[0], axes=value.axes),))


# Parameters -----------------------------------------------------------------------------------------------------------


def arguments_of(diagram: Diagram, cotangents: Sequence[Value]) -> Struct:
    """Return the arguments of a backward circuit by name: the circuit's tensors, cotangents, its other arguments."""
    given = dict(zip(diagram.arguments.keys, diagram.arguments.parts, strict=True))
    tensors = {_identifier(name): part for name, part in given.items() if wires(part)}
    back = {value.name: Wire(value.number) for value in cotangents}
    others = {name: part for name, part in given.items() if not wires(part) and name.isidentifier()}
    named = tensors | back | others
    return Struct(dict, tuple(named), tuple(named.values()))


def _identifier(name: str) -> str:
    """Return a name as a Python identifier: `rest_0` for `rest.0`."""
    word = name.replace(".", "_")
    return word if word.isidentifier() else f"input_{word}"


def parameters_of(arguments: Struct) -> inspect.Signature | None:
    """Return a Python signature for some arguments; one without tensors has its recorded value as default.

    None if a name is no identifier, as for a function whose parameters have no names.
    """
    if not all(name.isidentifier() for name in arguments.keys):
        return None
    pairs = zip(arguments.keys, arguments.parts, strict=True)
    return parameters_named(arguments.keys, {name: part for name, part in pairs if not wires(part)})


def parameters_named(names: Iterable[str], defaults: Mapping[str, Any]) -> inspect.Signature:
    """Return a Python signature with these names: positional, or keyword-only for those that have a default."""
    kinds = inspect.Parameter
    positional = [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in names if name not in defaults]
    return inspect.Signature(
        [*positional, *[kinds(name, kinds.KEYWORD_ONLY, default=default) for name, default in defaults.items()]]
    )
