"""Turn the events of one run into a diagram: name the axes, nest the boxes, freeze.

Events can be fed one at a time (a tracker prints as it goes) or all at once. A draft of a box holds cells, which may
still learn their names; `freeze` reads them.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import einops
import sympy
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from circuits import events, folding, verbs
from circuits.boxes import Box, ByHand, Call, Fixed, Size, Value
from circuits.declaring import Circuit, parameters_of
from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.events import Enter, Event, Leave, Lift, Record
from circuits.kinds import mutates, operation_name
from circuits.naming import Cell, Meeting, Names, follow, labels
from circuits.rules import Note, Operation, name_outputs
from circuits.structure import Scalar, Struct, Wire, arguments, attribute, change, wires, without_defaults
from circuits.terms import Axes

Port = tuple[int, list[Cell]]


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
    meeting: Meeting | None = None
    failed: bool = False
    result: Any = None
    inside: list[Port] = field(default_factory=list)
    parent: "Draft | None" = None


class Builder:
    """Builds boxes from the events of a record; `size` turns what torch calls a size into ours."""

    def __init__(
        self,
        record: Record,
        size: Callable[[Any], Size] = same,
        binder: inspect.Signature | None = None,
        axes: Sequence[Axes] = (),
    ) -> None:
        self.record = record
        self.size = size
        self.binder = binder
        self.axes = axes
        self.names = Names()
        self.open: list[Draft] = []
        self.root: Draft | None = None
        self.eaten = 0
        self.argument_names: dict[int, str] = {}
        self.unread: dict[str, int] = {}

    def fed(self) -> "Builder":
        """This builder, fed all that its record holds."""
        while self.eaten < len(self.record.events):
            self.feed(self.record.events[self.eaten])
        return self

    def feed(self, event: Event) -> Draft | None:
        """Take in one event; the draft it opened, closed or made."""
        self.eaten += not (isinstance(event, Enter) and bool(self.open) and self.open[-1].event is event)
        self._learn_shapes()
        if isinstance(event, Enter):
            return self._enter(event)
        if isinstance(event, Leave):
            return self._leave(event)
        if isinstance(event, Lift):
            self._lift(event)
            return None
        return self._call(event)

    def _learn_shapes(self) -> None:
        shapes, values = self.names.shapes, self.record.values
        for number in range(len(shapes), len(values)):
            shape, dtype, *_ = values[number]
            shapes[number] = tuple([self.size(size) for size in shape])
            if dtype is torch.bool:
                self.names.booleans.add(number)

    # Events

    def _enter(self, event: Enter) -> Draft:
        if self.open and self.open[-1].event is event:
            return self._sign(self.open[-1], event)
        draft = Draft(event)
        if self.open:
            draft.parent = self.open[-1]
            self.open[-1].boxes.append(draft)
        else:
            self.root = draft
            self._name_arguments(event)
        draft.inputs = self._ports(wires(Struct(tuple, (), (event.args, event.kwargs))))
        self.open.append(draft)
        return self._sign(draft, event)

    def _name_arguments(self, event: Enter) -> None:
        """Name the run's own inputs by the parameters they came for, their axes by the signature or the caller."""
        for path, wire in _paths(_arguments(event, self.binder)):
            self.argument_names.setdefault(wire, path)
        numbers = list(dict.fromkeys(wires(Struct(tuple, (), (event.args, event.kwargs)))))
        for axes, number in zip(self.axes, numbers, strict=False):
            self.names.meet().read(axes, self.names.of(number))

    def _sign(self, draft: Draft, event: Enter) -> Draft:
        """Open the scope of a circuit: inside, its tensors bear the names of its signature."""
        circuit = event.circuit
        if circuit is None or draft.meeting is not None:
            return draft
        meeting = draft.meeting = self.names.meet(circuit.signature, circuit.optional.values())
        ports: list[Port] = []
        inside: dict[int, list[Cell]] = {}
        for place, axes in enumerate(circuit.signature.inputs):
            found = event.tensors.get(str(place))
            if isinstance(found, Wire):
                cells = self.names.of(found.number)
                inside.setdefault(found.number, meeting.read(axes, cells))
                ports.append((found.number, cells))
        for name, axes in circuit.optional.items():
            found = event.tensors.get(name)
            if isinstance(found, Wire):
                cells = self.names.of(found.number)
                inside.setdefault(found.number, meeting.read(axes, cells, keep_rest=False))
                ports.append((found.number, cells))
        others = [port for port in draft.inputs if port[0] not in inside]
        draft.inputs = ports + others
        self.names.enter(meeting, inside)
        return draft

    def _leave(self, event: Leave) -> Draft:
        draft = self.open.pop()
        draft.result, draft.failed = event.result, event.failed
        numbers = wires(event.result)
        if draft.meeting is not None:
            signature = draft.event.circuit.signature
            self.names.leave(draft.meeting, zip(signature.outputs, numbers, strict=False))
        elif draft.event.kind == "transform":
            self._unmap(event, numbers)
            draft.inside = self._ports(wires(event.inside))
        else:
            self._einops_layer(draft, numbers)
        draft.outputs = self._ports(numbers)
        return draft

    def _einops_layer(self, draft: Draft, numbers: tuple[int, ...]) -> None:
        """einops' layers carry their pattern."""
        module = draft.event.module
        text = getattr(module, "pattern", None)
        if isinstance(text, str) and type(module).__module__.startswith("einops.layers") and numbers:
            sizes = {name: size for name, size in getattr(module, "axes_lengths", {}).items() if isinstance(size, int)}
            draft.note = quoted(text)
            try:
                follow(text, [number for number, _ in draft.inputs][:1], sizes, numbers, self.names)
            except (ValueError, IndexError):
                return

    def _lift(self, event: Lift) -> None:
        """Inside vmap a tensor lacks one axis, which its values keep in mind."""
        cells = list(self.names.of(event.source))
        if event.dim is not None:
            self.names.levels[event.level] = cells.pop(event.dim)
        self.names.put(event.number, cells)
        if event.source in self.argument_names:
            self.argument_names[event.number] = self.argument_names[event.source]

    def _unmap(self, event: Leave, numbers: tuple[int, ...]) -> None:
        """Outside vmap the axis is back, where `out_dims` puts it."""
        inside = wires(event.inside)
        if len(inside) != len(numbers):
            return
        dims = event.dims if isinstance(event.dims, (tuple, list)) else (event.dims,) * len(numbers)
        dims = dims if len(dims) == len(numbers) else (0,) * len(numbers)
        for number, source, dim in zip(numbers, inside, dims, strict=True):
            cells = list(self.names.of(source))
            shape = self.names.shapes[number]
            levels = self.record.values[source][4]
            kept = self.record.values[number][4]
            gone = [level for level in levels if level not in kept]
            if isinstance(dim, int) and len(cells) == len(shape) - 1:
                place = dim % len(shape)
                cells.insert(place, self.names.levels.get(gone[-1], Cell(shape[place])) if gone else Cell(shape[place]))
            self.names.put(number, cells)

    def _call(self, event: Any) -> Draft:
        draft = Draft(event)
        inputs = wires(Struct(tuple, (), (*event.args, *event.kwargs.values())))
        for number in inputs:
            self.names.of(number)
        if not event.error:
            draft.note = self._name_result(event, inputs)
        draft.inputs = self._ports(inputs)
        draft.outputs = self._ports(wires(event.result))
        if self.open:
            draft.parent = self.open[-1]
            self.open[-1].boxes.append(draft)
        return draft

    def _name_result(self, event: Any, inputs: tuple[int, ...]) -> Note:
        outputs = wires(event.result)
        if event.pattern and event.function in _VERBS:
            sizes = {name: self._plain(size) for name, size in event.kwargs.items()}
            try:
                follow(event.pattern, inputs, sizes, outputs, self.names)
            except (ValueError, IndexError):
                self.names.put(outputs[0], self.names.fresh(self.names.shapes[outputs[0]]))
            return quoted(event.pattern)
        args, kwargs = event.args, event.kwargs
        if self.size is not same:
            parts = Struct(tuple, (), args), Struct(dict, tuple(kwargs), tuple(kwargs.values()))
            args, kwargs = _unpack([change(part, lambda wire: wire, self._scalar, make=False) for part in parts])
        return name_outputs(Operation(event.function, args, kwargs, event.result), self.names)

    def _plain(self, size: Any) -> Any:
        return self.size(size.expression) if isinstance(size, Scalar) else size

    def _scalar(self, scalar: Scalar) -> Scalar:
        return Scalar(self.size(scalar.expression))

    def _ports(self, numbers: Sequence[int]) -> list[Port]:
        return [(number, self.names.of(number)) for number in dict.fromkeys(numbers)]

    # Freezing

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
        args, kwargs = without_defaults(parameters[bool(owned) :], *_unpack((event.args, event.kwargs)))
        return Struct(tuple, (), (Struct(tuple, (), args), Struct(dict, tuple(kwargs), tuple(kwargs.values()))))

    def _by_hand(self, draft: Draft, scalar: Callable[[Any], Any]) -> ByHand | None:
        """The backward circuit that was written for a circuit, and what the circuit was given."""
        event, circuit = draft.event, draft.event.circuit
        if circuit.body.backward is None:
            return None
        owner = self.record.originals.get(id(event.owner), event.owner)
        if isinstance(owner, nn.Module):
            self._hold(owner, f"{event.path}." if event.path else "")
        names, args, kwargs = _taken(circuit, *_unpack((event.args, event.kwargs)))
        return ByHand(
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
        verb = event.function in _VERBS
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

    def _value(self, number: int, cells: Sequence[Cell]) -> Value:
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
            self._learn_shapes()
        return self._value(self.unread[name], self.names.of(self.unread[name]))


def _unnamed(name: str, parameter: torch.Tensor) -> Value:
    """A parameter of which only the size matters, in a box to look at."""
    shape = tuple(parameter.shape)
    return Value(-1, (None,) * len(shape), shape, parameter.dtype, "parameter", name)


def _final(description: Any, scalar: Callable[[Any], Any]) -> Any:
    """A description with its symbolic numbers as expressions; as it is, if there can be none."""
    if scalar is same:
        return description
    return change(description, lambda wire: wire, lambda found: Scalar(scalar(found.expression)), make=False)


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


def _unpack(described: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = described.parts if isinstance(described, Struct) else described
    args = args.parts if isinstance(args, Struct) else args
    kwargs = dict(zip(kwargs.keys, kwargs.parts, strict=True)) if isinstance(kwargs, Struct) else kwargs
    return tuple(args), kwargs


def _arguments(event: Enter, binder: inspect.Signature | None) -> Struct:
    """What a call was given, by the names of its parameters; by place, if Python would refuse the call."""
    args, kwargs = _unpack((event.args, event.kwargs))
    try:
        named = arguments(args, kwargs, binder)
    except TypeError:
        named = arguments(args, kwargs, None)
    return Struct(dict, tuple(named), tuple(named.values()))


def _paths(description: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Each wire of a description, with the words that lead to it: `target`, `state.1`."""
    if isinstance(description, Wire):
        yield path, description.number
    elif isinstance(description, Struct):
        keys = description.keys or range(len(description.parts))
        for key, part in zip(keys, description.parts, strict=True):
            yield from _paths(part, f"{path}.{key}" if path else str(key))


_VERBS = {verbs.einsum, verbs.rearrange, verbs.reduce, verbs.repeat, folding.unfold, folding.fold, einops.rearrange}


def signature_of(target: Any) -> inspect.Signature | None:
    """The parameters of a call of the target; None if Python cannot tell."""
    try:
        return inspect.signature(target.forward if isinstance(target, nn.Module) else target)
    except (TypeError, ValueError):
        return None


def assemble(
    builder: Builder,
    raw: Callable[[Any], Any] = same,
    symbols: Mapping[sympy.Symbol, Any] | None = None,
    guards: tuple[Any, ...] = (),
    fixed: tuple[Fixed, ...] = (),
) -> Diagram:
    """The diagram of what a builder has built; `raw` gives the expression of a symbolic number for running."""
    root, record = builder.root, builder.record
    if root is None:
        raise CircuitError("nothing was recorded: the target was not called")
    box = builder.freeze(root, raw)
    whole = [call.function for call in box.calls() if isinstance(call.function, str)]
    return Diagram(
        box=box,
        arguments=_arguments(root.event, builder.binder),
        result=root.result,
        failed=root.failed,
        symbols=dict(symbols or {}),
        guards=guards,
        fixed=fixed,
        state=dict(record.state),
        constants={number: tensor for number, tensor in record.constants.items() if not isinstance(tensor, FakeTensor)},
        modules={path: _module_at(record, path) for path in whole},
        binder=builder.binder,
    )


def _module_at(record: Record, path: str) -> Callable[..., Any]:
    """What is run whole: a module by its path, or one of its methods (`path:method`)."""
    path, _, method = path.partition(":")
    for prefix, root in reversed(record.roots):
        if path == prefix or not prefix or path.startswith(f"{prefix}."):
            module: Any = record.originals.get(id(root), root).get_submodule(
                path.removeprefix(prefix).removeprefix(".")
            )
            return getattr(module, method) if method else module
    raise CircuitError(f"no module stands at '{path}'")


def quoted(pattern: str) -> str:
    """A pattern in quotes, double where it has primes: they read as quotes.

    >>> quoted("a b -> b a"), quoted("h -> h'")
    ("'a b -> b a'", '"h -> h\\'"')
    """
    return f'"{pattern}"' if "'" in pattern else f"'{pattern}'"
