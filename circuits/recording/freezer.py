"""Freeze what was built: drafts of boxes, whose axes may still learn their names, become boxes, which are data."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import einops
import torch
from torch import nn

from circuits import verbs
from circuits.checking import Circuit, parameters_of
from circuits.diagram import (
    Box,
    Call,
    CustomBackward,
    Scalar,
    Struct,
    Value,
    attribute,
    mutates,
    operation_name,
    substitute,
    wires,
    without_defaults,
)
from circuits.naming import AxisNode, Matcher, Names, Note, labels
from circuits.recording import events
from circuits.recording.events import Enter, Record
from circuits.windows import fold, unfold

Port = tuple[int, list[AxisNode]]


def same(number: Any) -> Any:
    """The expression of a number that is one."""
    return number


@dataclass(eq=False)
class Draft:
    """A box whose axes may still learn their names."""

    event: Any
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    boxes: list["Draft"] = field(default_factory=list)
    note: Note = None
    matcher: Matcher | None = None
    failed: bool = False
    result: Any = None
    inside: list[Port] = field(default_factory=list)
    parent: "Draft | None" = None


class Freezer:
    """Freezes drafts of a record, in whose values `names` names the axes; `learn` reads the shapes of new values.

    `argument_names` are the parameters that the run's own inputs came for, by number; `root` is the outermost draft.
    """

    def __init__(self, record: Record, names: Names, learn: Callable[[], None]) -> None:
        self.record = record
        self.names = names
        self.learn = learn
        self.argument_names: dict[int, str] = {}
        self.unread: dict[str, int] = {}
        self.root: Draft | None = None

    def freeze(self, draft: Draft, scalar: Callable[[Any], Any] | None = None) -> Box:
        """The finished box; `scalar` gives the expression of a symbolic number for running, None a box to look at."""
        event = draft.event
        if isinstance(event, events.Call):
            return self._freeze_call(draft, scalar)
        circuit = event.circuit
        boxes = tuple([self.freeze(inner, scalar) for inner in draft.boxes])
        return Box(
            kind="circuit" if circuit is not None else event.kind,
            name=self._name(draft),
            label=circuit.name.removesuffix(".forward")
            if circuit is not None
            else event.label + (f" {draft.note}" if draft.note else ""),
            path=event.path,
            signature=circuit.signature if circuit is not None else None,
            inputs=self._values(draft.inputs),
            outputs=self._values(draft.outputs),
            parameters=self._parameters(event, boxes, scalar is None),
            boxes=boxes,
            call=self._whole(draft, scalar) if event.whole and scalar is not None else None,
            where=event.where,
            error=event.error,
            reverse=self._by_hand(draft, scalar) if circuit is not None and scalar is not None else None,
            given=_final(self._said(event), scalar) if scalar is not None and event.kind != "function" else None,
            inside=self._values(draft.inside),
        )

    def _said(self, event: Enter) -> Any:
        """How a box was called, but for what has its default."""
        function = event.circuit.definition if event.circuit is not None else getattr(event.module, "forward", None)
        parameters = parameters_of(function) if function is not None else ()
        owned = event.circuit is not None and event.circuit.owner
        args, kwargs = without_defaults(parameters[bool(owned) :], *unpacked((event.args, event.kwargs)))
        return Struct(tuple, (), (Struct(tuple, (), args), Struct(dict, tuple(kwargs), tuple(kwargs.values()))))

    def _by_hand(self, draft: Draft, scalar: Callable[[Any], Any]) -> CustomBackward | None:
        """The backward circuit that was written for a circuit, and what the circuit was given."""
        event, circuit = draft.event, draft.event.circuit
        if circuit.body.backward is None:
            return None
        owner = self.record.originals.get(id(event.owner), event.owner)
        if isinstance(owner, nn.Module):
            self._hold(owner, f"{event.path}." if event.path else "")
        names, args, kwargs = _taken(circuit, *unpacked((event.args, event.kwargs)))
        return CustomBackward(
            circuit.body.backward,
            owner,
            event.path,
            names,
            len(circuit.inputs),
            _final(Struct(tuple, (), args), scalar),
            _final(Struct(dict, tuple(kwargs), tuple(kwargs.values())), scalar),
            _final(draft.result, scalar),
            event.gradient or not self._watched,
        )

    def _hold(self, module: nn.Module, prefix: str) -> None:
        """Say where every parameter and buffer of a module lives: what its definition leaves, its reverse may read."""
        held = {id(attribute(*where)) for where in self.record.state.values()}
        for role, named in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
            for name, tensor in named:
                if id(tensor) not in held:
                    number = self._unread(f"{prefix}{name}", tensor, role).number
                    self.record.state[number] = (module, name)

    def _freeze_call(self, draft: Draft, scalar: Callable[[Any], Any] | None) -> Box:
        event = draft.event
        verb = event.function in VERBS
        label = event.pattern if event.pattern and not verb else operation_name(event.function)
        inputs = self._values(draft.inputs)
        return Box(
            kind="operation",
            name="",
            label=f"{label} {draft.note}" if draft.note else label,
            inputs=inputs,
            outputs=self._values(draft.outputs),
            parameters=tuple([value for value in inputs if value.role == "parameter"]),
            call=self._program(event, scalar) if scalar is not None and not event.error else None,
            mutates=wires(event.args[0])[:1] if event.args and mutates(event.function) else (),
            where=event.where,
            error=event.error,
        )

    def _program(self, event: events.Call, scalar: Callable[[Any], Any]) -> Call:
        """How to run an operation again. Where the whole run was without gradients, none of it says so."""
        return Call(
            event.function,
            _final(Struct(tuple, (), event.args), scalar),
            _final(Struct(dict, tuple(event.kwargs), tuple(event.kwargs.values())), scalar),
            _final(event.result, scalar),
            event.autocast,
            event.gradient or not self._watched,
        )

    @property
    def _watched(self) -> bool:
        return self.root is None or self.root.event.gradient

    def _whole(self, draft: Draft, scalar: Callable[[Any], Any]) -> Call:
        """How to run a box again as a whole: the module at its path, its method, or the circuit's definition."""
        event = draft.event
        function = event.path if event.kind == "module" else event.function or event.circuit.definition
        if event.kind == "circuit" and event.module is not None:
            function = f"{event.path}:{event.circuit.name.rsplit('.', 1)[-1]}"
        return Call(function, _final(event.args, scalar), _final(event.kwargs, scalar), _final(draft.result, scalar))

    def _name(self, draft: Draft) -> str:
        """A module's path below the module around it, with its other names if it has any."""
        event = draft.event
        roots = [prefix for prefix, _ in self.record.roots]
        if draft.parent is None or not event.path or event.kind == "circuit" or event.path in roots:
            return ""
        around = draft.parent
        while not around.event.path and around.parent is not None:
            around = around.parent
        paths = self.record.paths.get(id(event.module), [event.path])
        return "=".join(dict.fromkeys([_below(path, around.event.path) for path in paths]))

    def _values(self, ports: Sequence[Port]) -> tuple[Value, ...]:
        return tuple([self._value(number, cells) for number, cells in ports])

    def _value(self, number: int, cells: Sequence[AxisNode]) -> Value:
        _, dtype, role, name, levels = self.record.values[number]
        mapped = [self.names.levels[level] for level in levels if level in self.names.levels]
        cells = [*mapped, *cells]
        sizes = tuple([cell.root.size for cell in cells])
        name = name or self.argument_names.get(number, "")
        return Value(number, labels(cells), sizes, dtype, role, name, len(mapped))  # type: ignore[arg-type]

    def _parameters(self, event: Enter, boxes: Sequence[Box], brief: bool) -> tuple[Value, ...]:
        """A module's parameters, read or not, or those that the boxes inside a circuit read."""
        read = {value.name: value for box in boxes for value in box.parameters}
        if event.module is None or event.kind != "module":
            return tuple(read.values())
        if isinstance(event.module, nn.Module):
            prefix = f"{event.path}." if event.path else ""
            for name, parameter in event.module.named_parameters():
                full = self.record.names.setdefault(id(parameter), prefix + name)
                if full not in read:
                    read[full] = _unnamed(full, parameter) if brief else self._unread(full, parameter)
        return tuple(read.values())

    def _unread(self, name: str, tensor: torch.Tensor, role: str = "parameter") -> Value:
        if name not in self.unread:
            self.unread[name] = self.record.add(tensor, role, name)
            self.learn()
        return self._value(self.unread[name], self.names.of(self.unread[name]))


def _unnamed(name: str, parameter: torch.Tensor) -> Value:
    """A parameter of which only the size matters, in a box to look at."""
    shape = tuple(parameter.shape)
    return Value(-1, (None,) * len(shape), shape, parameter.dtype, "parameter", name)


def _final(description: Any, scalar: Callable[[Any], Any]) -> Any:
    """A description with its symbolic numbers as expressions; as it is, if there can be none."""
    if scalar is same:
        return description
    return substitute(description, lambda wire: wire, lambda found: Scalar(scalar(found.expression)))


def _taken(
    circuit: Circuit, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[Any, ...], dict[str, Any]]:
    """All that a circuit's definition takes, defaults too, by place and by name; and what stands at each place."""
    parameters = parameters_of(circuit.definition)[bool(circuit.owner) :]
    bound = inspect.Signature(parameters).bind(*args, **kwargs)
    bound.apply_defaults()
    names: list[str] = []
    for each in parameters:
        if each.kind is each.VAR_POSITIONAL:
            names += [f"{each.name}[{place}]" for place in range(len(bound.arguments[each.name]))]
        elif each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            names.append(each.name)
    return tuple(names), bound.args, bound.kwargs


def _below(path: str, parent: str) -> str:
    return path.removeprefix(f"{parent}.") if parent else path


def unpacked(described: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, which were described together or apart."""
    args, kwargs = described.parts if isinstance(described, Struct) else described
    args = args.parts if isinstance(args, Struct) else args
    kwargs = dict(zip(kwargs.keys, kwargs.parts, strict=True)) if isinstance(kwargs, Struct) else kwargs
    return tuple(args), kwargs


VERBS = {verbs.einsum, verbs.rearrange, verbs.reduce, verbs.repeat, unfold, fold, einops.rearrange}
"""What is called with a pattern of axes."""
