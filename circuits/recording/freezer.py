"""Convert drafts to boxes: a `Draft` is a box whose axes may still get names, a `Box` is frozen data."""

from collections.abc import Callable, Sequence
from typing import Any

import einops
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from circuits import verbs
from circuits.diagram import (
    Box,
    Call,
    CustomBackward,
    Reading,
    Scalar,
    Size,
    Struct,
    Value,
    attribute,
    operation_name,
    overwritten,
    substitute,
)
from circuits.naming import AxisNode, Names
from circuits.recording import events
from circuits.recording.call_arguments import bound_arguments, explicit_arguments, unpacked
from circuits.recording.drafts import Draft, Port
from circuits.recording.events import Enter, Record, RecordedValue, has_gradient
from circuits.recording.unopened import unopened_result
from circuits.windows import fold, unfold

PATTERN_VERBS: set[Any] = {verbs.einsum, verbs.rearrange, verbs.reduce, verbs.repeat, unfold, fold, einops.rearrange}
"""Functions that are called with a pattern of axes."""


def identity(number: Any) -> Any:
    """Return the argument: the conversion of sizes and numbers in a run without symbolic sizes."""
    return number


class Freezer:
    """Freezes the drafts of one record.

    Args:
        record: The record.
        names: The axes of the record's values.
        size: Converts the sizes of new values, which it adds to `names`.

    Attributes:
        argument_names: The parameter name of each value that is an argument of the run, by number.
        unused_state: The number of each parameter or buffer that no recorded call uses, by name in the run.
        root: The draft of the outermost box.
    """

    def __init__(self, record: Record, names: Names, size: Callable[[Any], Size]) -> None:
        self.record, self.names, self.size = record, names, size
        self.argument_names: dict[int, str] = {}
        self.unused_state: dict[str, int] = {}
        self._without_names: dict[int, Value] = {}
        self.root: Draft | None = None

    def read_new_shapes(self) -> None:
        """Add the shapes of the record's new values to `names`."""
        _read_new_shapes(self.record, self.names, self.size)

    def freeze(self, draft: Draft, scalar: Callable[[Any], Any] | None = None) -> Box:
        """Return the box of a draft.

        `scalar` converts a symbolic number to an expression; None makes a box that can be printed but not run.
        """
        event = draft.event
        if isinstance(event, events.Call):
            return self._freeze_call(draft, scalar)
        circuit = event.circuit
        boxes = tuple([self.freeze(inner, scalar) for inner in draft.boxes])
        return Box(
            kind="circuit" if circuit is not None else event.kind,
            name=_name(draft, self.record),
            label=circuit.name.removesuffix(".forward")
            if circuit is not None
            else event.label + (f" {draft.note}" if draft.note else ""),
            path=event.path,
            signature=circuit.signature if circuit is not None else None,
            across=circuit.body.across if circuit is not None else None,
            inputs=self._values(draft.inputs),
            outputs=self._values(draft.outputs),
            parameters=self._parameters(event, boxes, scalar is None),
            boxes=boxes,
            call=self._call_as_whole(draft, scalar) if event.whole and scalar is not None else None,
            where=event.where,
            error=event.error,
            reverse=self._custom_backward(draft, scalar) if circuit is not None and scalar is not None else None,
            given=with_expressions(explicit_arguments(event), scalar)
            if scalar is not None and event.kind != "function"
            else None,
            inside=self._values(draft.inside),
            lifted=draft.lifted,
            note="" if draft.parent is not None else unopened_result(draft.result) or self.record.shared,
        )

    def _custom_backward(self, draft: Draft, scalar: Callable[[Any], Any]) -> CustomBackward | None:
        """Return the custom backward circuit of a circuit, with the arguments of this call; None if it has none."""
        event, circuit = draft.event, draft.event.circuit
        if circuit.body.backward is None:
            return None
        owner = self.record.originals.get(id(event.owner), event.owner)
        if isinstance(owner, nn.Module):
            self._add_state(owner, f"{event.path}." if event.path else "")
        names, args, kwargs = bound_arguments(circuit, *unpacked((event.args, event.kwargs)))
        return CustomBackward(
            circuit.body.backward,
            owner,
            event.path,
            names,
            len(circuit.inputs),
            with_expressions(Struct(tuple, (), args), scalar),
            with_expressions(Struct(dict, tuple(kwargs), tuple(kwargs.values())), scalar),
            with_expressions(draft.result, scalar),
            has_gradient(event, self.root is None or self.root.event.gradient),
        )

    def _add_state(self, module: nn.Module, prefix: str) -> None:
        """Add all parameters and buffers of a module to the record, because a custom backward may use any of them."""
        known = {id(attribute(*where)) for where in self.record.state.values()}
        for role, named in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
            for name, tensor in named:
                if id(tensor) not in known:
                    number = self._state_value(f"{prefix}{name}", tensor, role).number
                    self.record.state[number] = (module, name)

    def _freeze_call(self, draft: Draft, scalar: Callable[[Any], Any] | None) -> Box:
        """Return the box of a call."""
        event = draft.event
        verb = event.function in PATTERN_VERBS
        label = event.pattern if event.pattern and not verb else operation_name(event.function)
        inputs = self._values(draft.inputs)
        return Box(
            kind="operation",
            name="",
            label=f"{label} {draft.note}" if draft.note else label,
            inputs=inputs,
            outputs=self._values(draft.outputs),
            parameters=tuple([value for value in inputs if value.role == "parameter"]),
            call=self._operation_call(event, scalar) if scalar is not None and not event.error else None,
            mutates=overwritten(event.function, event.args, event.kwargs),
            where=event.where,
            error=event.error,
            note=event.function.note if isinstance(event.function, Reading) else self._unrecorded_input(inputs),
            views=_views(draft, self.record.values) if scalar is not None else (),
        )

    def _unrecorded_input(self, inputs: Sequence[Value]) -> str:
        """Return which input of an operation was made by code that is not recorded, for a note; empty if none."""
        found = [value for value in inputs if value.number in self.record.unrecorded]
        return f"reads a tensor of sizes ({found[0].shape}) that unrecorded code made" if found else ""

    def _operation_call(self, event: events.Call, scalar: Callable[[Any], Any]) -> Call:
        """Return the call by which a diagram runs an operation."""
        return Call(
            event.function,
            with_expressions(Struct(tuple, (), event.args), scalar),
            with_expressions(Struct(dict, tuple(event.kwargs), tuple(event.kwargs.values())), scalar),
            with_expressions(event.result, scalar),
            event.autocast,
            has_gradient(event, self.root is None or self.root.event.gradient),
            event.settings,
        )

    def _call_as_whole(self, draft: Draft, scalar: Callable[[Any], Any]) -> Call:
        """Return the call by which a diagram runs a box as a whole: a module, its method, a circuit or a function."""
        event = draft.event
        function = event.path if event.kind == "module" else event.function or event.circuit.definition
        if event.kind == "module" and event.function:
            function = f"{event.path}:{event.function}"
        if event.kind == "circuit" and event.module is not None:
            function = f"{event.path}:{event.circuit.name.rsplit('.', 1)[-1]}"
        return Call(
            function,
            with_expressions(event.args, scalar),
            with_expressions(event.kwargs, scalar),
            with_expressions(draft.result, scalar),
            event.autocast,
            has_gradient(event, self.root is None or self.root.event.gradient),
            event.settings,
        )

    def _values(self, ports: Sequence[Port]) -> tuple[Value, ...]:
        return tuple([self._unnamed(number) if axes is None else self._value(number, axes) for number, axes in ports])

    def _unnamed(self, number: int) -> Value:
        """Return a value whose axes have no names; it is the same in all boxes."""
        if number not in self._without_names:
            shape, dtype, role, name, _, device, requires_grad, _ = self.record.values[number]
            about: Any = (None,) * len(shape), shape, dtype, role, name, 0, device, requires_grad
            self._without_names[number] = Value(number, *about)
        return self._without_names[number]

    def _value(self, number: int, axes: Sequence[AxisNode]) -> Value:
        """Return a value; the axes that vmap hides come first."""
        _, dtype, role, name, levels, device, requires_grad, _ = self.record.values[number]
        mapped = [self.names.levels[level] for level in levels if level in self.names.levels]
        axes = [*mapped, *axes]
        sizes = tuple([axis.root.size for axis in axes])
        name = name or self.argument_names.get(number, "")
        named = self.names.labels(axes), sizes, dtype, role, name, len(mapped), device, requires_grad
        return Value(number, *named)  # type: ignore[arg-type]

    def _parameters(self, event: Enter, boxes: Sequence[Box], printed: bool) -> tuple[Value, ...]:
        """Return all parameters of a module; for any other box, the parameters that the boxes inside use.

        `printed` is whether the box is printed but not run; then a module has those alone that the boxes inside use.
        """
        used = {value.name: value for box in boxes for value in box.parameters}
        if printed or event.module is None or event.kind != "module":
            return tuple(used.values())
        if isinstance(event.module, nn.Module):
            prefix = f"{event.path}." if event.path else ""
            for name, parameter in event.module.named_parameters():
                if is_lazy(parameter):
                    continue
                full = self.record.names.setdefault(id(parameter), prefix + name)
                if full not in used:
                    used[full] = self._state_value(full, parameter)
        return tuple(used.values())

    def _state_value(self, name: str, tensor: torch.Tensor, role: str = "parameter") -> Value:
        """Return the value of a parameter or buffer that no box inside takes.

        A call elsewhere may have read it, or one inside a transform, which maps it; then it has this value. If no
        recorded call reads it, a value is added to the record the first time.
        """
        values = self.record.values
        read = [number for number in self.record.state if values[number][3] == name and values[number][2] == role]
        if read:
            return self._value(read[0], self.names.of(read[0]))
        if name not in self.unused_state:
            self.unused_state[name] = self.record.add(tensor, role, name)
            self.read_new_shapes()
        return self._value(self.unused_state[name], self.names.of(self.unused_state[name]))


def _read_new_shapes(record: Record, names: Names, size: Callable[[Any], Size]) -> None:
    """Add the shapes of the record's new values to `names`."""
    shapes, values = names.shapes, record.values
    for number in range(len(shapes), len(values)):
        shape = values[number][0]
        shapes[number] = shape if size is identity else tuple([size(each) for each in shape])
        if values[number][1] is torch.bool:
            names.booleans.add(number)


def _name(draft: Draft, record: Record) -> str:
    """Return a module's paths relative to the module around it, joined by "="; empty for a root and other boxes."""
    event = draft.event
    roots = [prefix for prefix, _ in record.roots]
    if draft.parent is None or not event.path or event.kind == "circuit" or event.path in roots:
        return ""
    parent = draft.parent
    while not parent.event.path and parent.parent is not None:
        parent = parent.parent
    paths = record.paths.get(id(event.module), [event.path])
    return "=".join(dict.fromkeys([_relative(path, parent.event.path) for path in paths]))


def _views(draft: Draft, values: Sequence[RecordedValue]) -> tuple[int, ...]:
    """Return the outputs of an operation that have the memory of one of its inputs, which exist as long as it runs."""
    before = {values[number][7] for number, _ in draft.inputs} - {0}
    return tuple([number for number, _ in draft.outputs if values[number][7] in before]) if before else ()


def with_expressions(description: Any, scalar: Callable[[Any], Any]) -> Any:
    """Return a description with its symbolic numbers converted by `scalar`; unchanged if `scalar` is `identity`."""
    if scalar is identity:
        return description
    return substitute(description, lambda wire: wire, lambda found: Scalar(scalar(found.expression)))


def _relative(path: str, parent: str) -> str:
    """Return a path relative to the path of the parent."""
    return path.removeprefix(f"{parent}.") if parent else path
