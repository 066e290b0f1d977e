"""Turn the events of a run into a diagram: name the axes, nest the boxes, freeze them.

A builder processes events one at a time, so that `track` can print during the run, or all events at once. It makes
drafts, whose axes may still get names from later events; `freezer` converts the drafts to boxes. Axes are named when a
draft is frozen. As long as nothing has stated a name, a box that is printed needs no other box: it is named alone.
"""

import inspect
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from circuits.diagram import Box, Scalar, Size, Struct, Wire, substitute, wires, wires_in
from circuits.naming import AxisNode, Names, Note, Operation, may_have_note, name_by_pattern, name_outputs
from circuits.recording.call_arguments import argument_paths, named_arguments, unpacked
from circuits.recording.drafts import Draft, Port
from circuits.recording.events import Call, Enter, Event, Leave, Lift, Record
from circuits.recording.freezer import PATTERN_VERBS, Freezer, identity
from circuits.signature import Axes


class Builder:
    """Builds drafts of boxes from the events of a record.

    Args:
        record: The record.
        size: Converts a size (an int or a symbolic number) to an int or an expression in the user's axis names.
        binder: The Python signature of the recorded call; its parameters name the arguments in the diagram.
        axes: The axes that the user named for the tensor arguments of the recorded call, in order.

    Attributes:
        names: The axes of the record's values.
        open: The drafts of the open boxes, the innermost last.
        root: The draft of the outermost box, None before the first event.
        consumed: The number of events of the record that have been processed.
    """

    def __init__(
        self,
        record: Record,
        size: Callable[[Any], Size] = identity,
        binder: inspect.Signature | None = None,
        axes: Sequence[Axes] = (),
    ) -> None:
        self.record = record
        self.size = size
        self.binder = binder
        self.axes = axes
        self.names: Names = Names()
        self._names_alone: Names = Names(self.names.shapes, self.names.booleans)
        self._waiting: list[tuple[Draft | None, Event]] = []
        self._are_stated = bool(axes)
        self.open: list[Draft] = []
        self.root: Draft | None = None
        self.consumed = 0
        self.freezer: Freezer = Freezer(record, self.names, size)

    def feed_all(self) -> "Builder":
        """Process the remaining events of the record, name the axes, and return this builder."""
        while self.consumed < len(self.record.events):
            self.feed(self.record.events[self.consumed])
        self._name_waiting()
        return self

    def feed(self, event: Any) -> Draft | None:
        """Process one event and return the draft that it opens, closes or creates; None for a `Lift`.

        An `Enter` is processed a second time if the listener set a circuit on it after emitting it.
        """
        if not self._are_stated:
            self._are_stated = _states_names(event)
        innermost = self.open[-1] if self.open else None
        draft = None
        if type(event) is Leave:  # Not isinstance, here and below, for speed: this runs for every event.
            draft = self.open.pop()
            draft.result, draft.failed = event.result, event.failed
        elif type(event) is Lift:
            _add_lifted(self.open, event)
        elif innermost is not None and innermost.event is event:
            draft = innermost
            self.consumed -= 1
        else:
            draft = Draft(event)
            if innermost is not None:
                draft.around = weakref.ref(innermost)
                innermost.boxes.append(draft)
            if type(event) is Enter:
                self.open.append(draft)
                if innermost is None:
                    self.root = self.freezer.root = draft
        self.consumed += 1
        self._waiting.append((draft, event))
        return draft

    def read_new_shapes(self) -> None:
        """Add the shapes of the record's new values to `names`."""
        self.freezer.read_new_shapes()

    def _name_waiting(self) -> None:
        """Name the axes of the drafts whose axes are not named yet, in the order of the events."""
        self.read_new_shapes()
        for draft, event in self._waiting:
            if isinstance(event, Lift):
                self._lift(event)
            elif draft is not None and isinstance(event, Enter):
                self._enter(draft, event)
            elif draft is not None and isinstance(event, Leave):
                self._leave(draft, event)
            elif draft is not None:
                self._call(draft)
        self._waiting.clear()

    def _name_alone(self, draft: Draft) -> None:
        """Set the values of a draft, whose axes have no names, and the notes of the operations in it."""
        event = draft.event
        if isinstance(event, Call) and may_have_note(event.function) and not event.error and event.result is not None:
            draft.note = self._name_axes(event, self._names_alone)
        draft.inputs, draft.outputs = [[(number, None) for number in each] for each in (draft.reads, draft.makes)]
        for inner in draft.boxes:
            self._name_alone(inner)

    def _enter(self, draft: Draft, event: Enter) -> None:
        """Name the axes of the inputs of a box; of a repeated event, those of the circuit alone."""
        if not draft.is_named:
            draft.is_named = True
            if draft is self.root:
                self._name_arguments(event)
            draft.inputs = self._ports(draft.reads)
        self._enter_circuit(draft, event)

    def _name_arguments(self, event: Enter) -> None:
        """Name the arguments of the run by their parameters, and the axes of its tensor arguments by `axes`."""
        for path, number in argument_paths(named_arguments(event, self.binder)):
            self.freezer.argument_names.setdefault(number, path)
        numbers = list(dict.fromkeys(wires_in((event.args, event.kwargs))))
        for axes, number in zip(self.axes, numbers, strict=False):
            self.names.matcher().match_input(axes, self.names.of(number))

    def _enter_circuit(self, draft: Draft, event: Enter) -> None:
        """Open the scope of a circuit, where its signature names the axes of its inputs."""
        circuit = event.circuit
        if circuit is None or draft.matcher is not None:
            return
        matcher = draft.matcher = self.names.matcher(circuit.signature, circuit.optional.values())
        ports: list[Port] = []
        inside: dict[int, list[AxisNode]] = {}
        inputs = {f"{position}": terms for position, terms in enumerate(circuit.signature.inputs)}
        for key, terms in (*inputs.items(), *circuit.optional.items()):
            found = event.tensors.get(key)
            if isinstance(found, Wire):
                axes = self.names.of(found.number)
                inside.setdefault(found.number, matcher.match_input(terms, axes, keep_rest=key in inputs))
                ports.append((found.number, axes))
        others = [port for port in draft.inputs if port[0] not in inside]
        draft.inputs = ports + others
        self.names.enter(matcher, inside)

    def _leave(self, draft: Draft, event: Leave) -> None:
        """Name the axes of the outputs of a box; the axis names of the outer scope apply again."""
        numbers = wires(event.result)
        if draft.matcher is not None:
            signature = draft.event.circuit.signature
            self.names.leave(draft.matcher, zip(signature.outputs, numbers, strict=False))
        elif draft.event.kind == "transform":
            _restore_mapped_axis(event, numbers, self.names, self.record)
            draft.inside = self._ports(wires(event.inside))
        else:
            _name_einops_layer(draft, numbers, self.names)
        draft.outputs = self._ports(numbers)

    def _lift(self, event: Lift) -> None:
        """Set the axes of a tensor inside a transform; store the axis that a vmap hides by the level of that vmap."""
        axes = list(self.names.of(event.source))
        if event.dim is not None:
            self.names.levels[event.level] = axes.pop(event.dim)
        self.names.put(event.number, axes)
        if event.source in self.freezer.argument_names:
            self.freezer.argument_names[event.number] = self.freezer.argument_names[event.source]

    def _call(self, draft: Draft) -> None:
        """Name the axes of a call."""
        event = draft.event
        for number in draft.reads:
            self.names.of(number)
        if not event.error and event.result is not None:
            draft.note = self._name_axes(event, self.names)
        draft.inputs, draft.outputs = self._ports(draft.reads), self._ports(draft.makes)

    def _name_axes(self, event: Any, names: Names) -> Note:
        """Name the axes of the result of a call; return the text after the operation's name in the label, or None."""
        if event.pattern and event.function in PATTERN_VERBS:
            inputs, outputs = wires_in((*event.args, *event.kwargs.values())), wires(event.result)
            sizes = {name: _converted(size, self.size) for name, size in event.kwargs.items()}
            try:
                name_by_pattern(event.pattern, inputs, sizes, outputs, names)
            except (ValueError, IndexError):
                names.put(outputs[0], names.fresh(names.shapes[outputs[0]]))
            return quoted(event.pattern)
        args, kwargs = event.args, event.kwargs
        if self.size is not identity:
            parts = Struct(tuple, (), args), Struct(dict, tuple(kwargs), tuple(kwargs.values()))
            args, kwargs = unpacked(
                [
                    substitute(part, lambda wire: wire, lambda found: Scalar(self.size(found.expression)))
                    for part in parts
                ]
            )
        return name_outputs(Operation(event.function, args, kwargs, event.result), names)

    def _ports(self, numbers: Iterable[int]) -> list[Port]:
        """Return the port of each value, once, with the value's axes in the current scope."""
        return [(number, self.names.of(number)) for number in dict.fromkeys(numbers)]

    def freeze(self, draft: Draft, scalar: Callable[[Any], Any] | None = None) -> Box:
        """Return the box of a draft; see `Freezer.freeze`."""
        self.read_new_shapes()
        if self._are_stated or scalar is not None:
            self._name_waiting()
        else:
            self._name_alone(draft)
        return self.freezer.freeze(draft, scalar)


def _restore_mapped_axis(event: Leave, numbers: tuple[int, ...], names: Names, record: Record) -> None:
    """Set the axes of the results of vmap: the axes of the inner results, with the mapped axis at `out_dims`."""
    inside = wires(event.inside)
    if len(inside) != len(numbers):
        return
    dims = event.dims if isinstance(event.dims, (tuple, list)) else (event.dims,) * len(numbers)
    dims = dims if len(dims) == len(numbers) else (0,) * len(numbers)
    for number, source, dim in zip(numbers, inside, dims, strict=True):
        axes = list(names.of(source))
        shape = names.shapes[number]
        levels = record.values[source][4]
        outer_levels = record.values[number][4]
        ended_levels = [level for level in levels if level not in outer_levels]
        if isinstance(dim, int) and len(axes) == len(shape) - 1:
            position = dim % len(shape)
            new_axis = AxisNode(shape[position])
            mapped_axis = names.levels.get(ended_levels[-1], new_axis) if ended_levels else new_axis
            axes.insert(position, mapped_axis)
        names.put(number, axes)


def _converted(size: Any, convert: Callable[[Any], Size]) -> Any:
    return convert(size.expression) if isinstance(size, Scalar) else size


def _states_names(event: Any) -> bool:
    """Return whether an event states the name of an axis, or lifts an axis, whose names are then no longer alone."""
    kind = type(event)
    if kind is Call:
        return event.function in PATTERN_VERBS
    if kind is Enter:
        return event.circuit is not None or event.kind == "transform" or _is_einops_layer(event.module)
    return kind is Lift


def _add_lifted(drafts: Sequence[Draft], event: Lift) -> None:
    """Add a tensor inside a transform to the draft of this transform, the open one of the event's level."""
    transforms = [draft for draft in drafts if draft.event.kind == "transform"]
    if 0 < event.level <= len(transforms):
        transforms[event.level - 1].lifted += ((event.number, event.source, event.dim),)


def _name_einops_layer(draft: Draft, numbers: tuple[int, ...], names: Names) -> None:
    """Name the axes of the result of an einops layer by the layer's pattern; do nothing for other modules."""
    module = draft.event.module
    text = getattr(module, "pattern", None) if _is_einops_layer(module) else None
    if isinstance(text, str) and numbers:
        sizes = {name: size for name, size in getattr(module, "axes_lengths", {}).items() if isinstance(size, int)}
        draft.note = quoted(text)
        try:
            name_by_pattern(text, [number for number, _ in draft.inputs][:1], sizes, numbers, names)
        except (ValueError, IndexError):
            return


def _is_einops_layer(module: Any) -> bool:
    return type(module).__module__.startswith("einops.layers")


def quoted(pattern: str) -> str:
    """Return a pattern in single quotes, or in double quotes if it contains a prime (a single quote).

    >>> quoted("a b -> b a"), quoted("h -> h'")
    ("'a b -> b a'", '"h -> h\\'"')
    """
    return f'"{pattern}"' if "'" in pattern else f"'{pattern}'"
