"""Assemble the diagram of a recorded run: its box, with what is needed to run it again."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch.nn.parameter import is_lazy

from circuits.diagram import Box, Change, Diagram, Fixed, Scalar, Struct, Value, leaves
from circuits.errors import CircuitError
from circuits.recording.builder import Builder
from circuits.recording.call_arguments import named_arguments, names_of_arguments
from circuits.recording.events import Record
from circuits.recording.freezer import identity, with_expressions
from circuits.recording.held_state import state_guards
from circuits.recording.module_paths import find_root
from circuits.recording.unopened import unopened_result


def assemble(
    builder: Builder,
    raw: Callable[[Any], Any] = identity,
    symbols: Mapping[sympy.Symbol, Any] | None = None,
    guards: tuple[Any, ...] = (),
    fixed: tuple[Fixed, ...] = (),
) -> Diagram:
    """Return the diagram of a recorded run.

    Args:
        builder: A builder that has processed all events of the run.
        raw: Converts a symbolic number to an expression in torch's symbols.
        symbols: The expression in torch's symbols for each of the user's axes.
        guards: The conditions on axes under which the code takes the recorded path.
        fixed: The axes that the run fixed to a number or to a function of other axes.

    Raises:
        CircuitError: The builder has no events.
    """
    root, record = builder.root, builder.record
    if root is None:
        raise CircuitError("nothing was recorded: the target was not called")
    box = builder.freeze(root, raw)
    calls = [each.call for each in box.walk() if each.call is not None]
    module_paths = [call.function for call in calls if isinstance(call.function, str)]
    guards_of_state = state_guards(record, raw is not identity, module_paths)  # it may set the refusal of the record
    return Diagram(
        box=box,
        arguments=named_arguments(root.event, builder.binder),
        result=with_expressions(root.result, raw),
        failed=root.failed,
        refusal=_refusal(box, with_expressions(root.result, raw), record),
        symbols=dict(symbols or {}),
        guards=guards,
        fixed=fixed,
        state=dict(record.state),
        constants=dict(record.constants),
        modules={path: _module_at(record, path) for path in module_paths},
        binder=builder.binder,
        changes=_changes(record.changes, names_of_arguments(root.event, builder.binder), raw),
        buffers=tuple(_buffers(record)),
        held=tuple([(number, place, key) for number, (place, key) in record.held.items() if place.owner is not None]),
        property_guards=(
            *guards_of_state,
            *[replace(call, args=with_expressions(call.args, raw)) for call in record.property_guards.values()],
        ),
    )


def _buffers(record: Record) -> Iterator[Value]:
    """Yield the buffers of the modules of a run, whether it reads them or not, without numbers."""
    for prefix, root in record.roots:
        for name, buffer in root.named_buffers():
            if not is_lazy(buffer):
                full = record.names.get(id(buffer), f"{prefix}.{name}" if prefix else name)
                shape = tuple(buffer.shape)
                yield Value(-1, (None,) * len(shape), shape, buffer.dtype, "buffer", full, 0, buffer.device)


def _changes(changes: Sequence[Change], names: Mapping[Any, str], raw: Callable[[Any], Any]) -> tuple[Change, ...]:
    """Return the changes of a run, with the names of the arguments in which they are."""
    found = []
    for place, before, after in [(change.place, change.before, change.after) for change in changes]:
        moved = place._replace(path=(names[place.path[0]], *place.path[1:])) if place.owner is None else place
        found.append(Change(moved, before, with_expressions(after, raw)))
    return tuple(found)


def _refusal(box: Box, result: Any, record: Record) -> str:
    """Return why a diagram can be read but not run; empty if it can be run."""
    unopened = unopened_result(result)
    if unopened:
        return f"{unopened}, in which tensors are not recorded (return a tuple, dict or dataclass)"
    if record.snapshot.refusal:
        return record.snapshot.refusal
    if _has_text_of_data(box, (result, *[change.after for change in record.changes])):
        return "the run returns or keeps the text of a number read from data, which trace does not have (use track)"
    reader = next((each for each in _boxes_that_run(box) if record.unrecorded.intersection(_numbers(each))), None)
    if reader is None:
        return record.refusal
    at = f" at {reader.where}" if reader.where else ""
    return (
        f"{reader.label}{at} reads a tensor that code made during the run which is not recorded (C++, another thread, "
        "a constructor such as torch.FloatTensor): make it by a torch function, such as torch.tensor"
    )


def _has_text_of_data(box: Box, kept: Any) -> bool:
    """Return whether a described value has a string with the name that torch gives a number of data without data.

    `f"{x.item()}"` is `"zuf0"` in a traced run.
    """
    numbers = [leaf.expression for call in box.calls() for leaf in leaves(call.result) if isinstance(leaf, Scalar)]
    names = {f"{symbol}" for number in numbers for symbol in getattr(number, "free_symbols", ())}
    return bool(names) and any(not names.isdisjoint(re.findall(r"\w+", text)) for text in _strings(kept))


def _strings(described: Any) -> Iterator[str]:
    """Yield the strings in a described value, the keys of mappings too."""
    if isinstance(described, str):
        yield described
    parts = (*described.keys, *described.parts) if isinstance(described, Struct) else described
    if isinstance(parts, (tuple, list, set, frozenset)):
        for part in parts:
            yield from _strings(part)


def _boxes_that_run(box: Box) -> Iterator[Box]:
    """Yield the boxes of a diagram, but not those inside a box that is run as a whole."""
    yield box
    for inner in box.boxes if box.call is None else ():
        yield from _boxes_that_run(inner)


def _numbers(box: Box) -> list[int]:
    return [value.number for value in (*box.inputs, *box.outputs)]


def _module_at(record: Record, path: str) -> Callable[..., Any]:
    """Return the module at a path, or the module's method for `path:method`."""
    path, _, method = path.partition(":")
    root, inner = find_root(record, path)
    module: Any = torch.nn.Module.get_submodule(root, inner)  # TorchScript modules refuse `root.get_submodule`.
    return getattr(module, method) if method else module
