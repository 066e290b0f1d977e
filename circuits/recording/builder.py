"""Turn the events of one run into a diagram: name the axes, nest the boxes, freeze.

Events can be feed_all one at a time (a tracker prints as it goes) or all at once. A draft of a box holds cells, which may
still learn their names; `freezing` reads them.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from circuits.diagram import Box, Diagram, Fixed, Scalar, Size, Struct, Wire, arguments, substitute, wires
from circuits.errors import CircuitError
from circuits.naming import AxisNode, Names, Note, Operation, name_by_pattern, name_outputs
from circuits.recording.events import Enter, Event, Leave, Lift, Record
from circuits.recording.freezer import VERBS, Draft, Freezer, Port, same, unpacked
from circuits.signature import Axes


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
        self.consumed = 0
        self.freezer = Freezer(record, self.names, self.read_new_shapes)

    def feed_all(self) -> "Builder":
        """This builder, feed_all all that its record holds."""
        while self.consumed < len(self.record.events):
            self.feed(self.record.events[self.consumed])
        return self

    def feed(self, event: Event) -> Draft | None:
        """Take in one event; the draft it opened, closed or made."""
        self.consumed += not (isinstance(event, Enter) and bool(self.open) and self.open[-1].event is event)
        self.read_new_shapes()
        if isinstance(event, Enter):
            return self._enter(event)
        if isinstance(event, Leave):
            return self._leave(event)
        if isinstance(event, Lift):
            self._lift(event)
            return None
        return self._call(event)

    def read_new_shapes(self) -> None:
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
            self.root = self.freezer.root = draft
            self._name_arguments(event)
        draft.inputs = self._ports(wires(Struct(tuple, (), (event.args, event.kwargs))))
        self.open.append(draft)
        return self._sign(draft, event)

    def _name_arguments(self, event: Enter) -> None:
        """Name the run's own inputs by the parameters they came for, their axes by the signature or the caller."""
        for path, wire in _paths(_arguments(event, self.binder)):
            self.freezer.argument_names.setdefault(wire, path)
        numbers = list(dict.fromkeys(wires(Struct(tuple, (), (event.args, event.kwargs)))))
        for axes, number in zip(self.axes, numbers, strict=False):
            self.names.matcher().match_input(axes, self.names.of(number))

    def _sign(self, draft: Draft, event: Enter) -> Draft:
        """Open the scope of a circuit: inside, its tensors bear the names of its signature."""
        circuit = event.circuit
        if circuit is None or draft.matcher is not None:
            return draft
        matcher = draft.matcher = self.names.matcher(circuit.signature, circuit.optional.values())
        ports: list[Port] = []
        inside: dict[int, list[AxisNode]] = {}
        for place, axes in enumerate(circuit.signature.inputs):
            found = event.tensors.get(str(place))
            if isinstance(found, Wire):
                cells = self.names.of(found.number)
                inside.setdefault(found.number, matcher.match_input(axes, cells))
                ports.append((found.number, cells))
        for name, axes in circuit.optional.items():
            found = event.tensors.get(name)
            if isinstance(found, Wire):
                cells = self.names.of(found.number)
                inside.setdefault(found.number, matcher.match_input(axes, cells, keep_rest=False))
                ports.append((found.number, cells))
        others = [port for port in draft.inputs if port[0] not in inside]
        draft.inputs = ports + others
        self.names.enter(matcher, inside)
        return draft

    def _leave(self, event: Leave) -> Draft:
        draft = self.open.pop()
        draft.result, draft.failed = event.result, event.failed
        numbers = wires(event.result)
        if draft.matcher is not None:
            signature = draft.event.circuit.signature
            self.names.leave(draft.matcher, zip(signature.outputs, numbers, strict=False))
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
                name_by_pattern(text, [number for number, _ in draft.inputs][:1], sizes, numbers, self.names)
            except (ValueError, IndexError):
                return

    def _lift(self, event: Lift) -> None:
        """Inside vmap a tensor lacks one axis, which its values keep in mind."""
        cells = list(self.names.of(event.source))
        if event.dim is not None:
            self.names.levels[event.level] = cells.pop(event.dim)
        self.names.put(event.number, cells)
        if event.source in self.freezer.argument_names:
            self.freezer.argument_names[event.number] = self.freezer.argument_names[event.source]

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
                axis = AxisNode(shape[place])
                cells.insert(place, self.names.levels.get(gone[-1], axis) if gone else axis)
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
        if event.pattern and event.function in VERBS:
            sizes = {name: self._plain(size) for name, size in event.kwargs.items()}
            try:
                name_by_pattern(event.pattern, inputs, sizes, outputs, self.names)
            except (ValueError, IndexError):
                self.names.put(outputs[0], self.names.fresh(self.names.shapes[outputs[0]]))
            return quoted(event.pattern)
        args, kwargs = event.args, event.kwargs
        if self.size is not same:
            parts = Struct(tuple, (), args), Struct(dict, tuple(kwargs), tuple(kwargs.values()))
            args, kwargs = unpacked([substitute(part, lambda wire: wire, self._scalar) for part in parts])
        return name_outputs(Operation(event.function, args, kwargs, event.result), self.names)

    def _plain(self, size: Any) -> Any:
        return self.size(size.expression) if isinstance(size, Scalar) else size

    def _scalar(self, scalar: Scalar) -> Scalar:
        return Scalar(self.size(scalar.expression))

    def _ports(self, numbers: Sequence[int]) -> list[Port]:
        return [(number, self.names.of(number)) for number in dict.fromkeys(numbers)]

    def freeze(self, draft: Draft, scalar: Callable[[Any], Any] | None = None) -> Box:
        """The finished box; `scalar` gives the expression of a symbolic number for running, None a box to look at."""
        return self.freezer.freeze(draft, scalar)


def _arguments(event: Enter, binder: inspect.Signature | None) -> Struct:
    """What a call was given, by the names of its parameters; by place, if Python would refuse the call."""
    args, kwargs = unpacked((event.args, event.kwargs))
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


def python_signature(target: Any) -> inspect.Signature | None:
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
