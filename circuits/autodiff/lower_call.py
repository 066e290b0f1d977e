"""`lower_call`: runs one call of a diagram under `Lowering`; the results keep their value numbers."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.lowering import Lowering, Step, WriteThroughView
from circuits.autodiff.tensors import append_as_wire
from circuits.autodiff.workspace import Workspace
from circuits.diagram import (
    Box,
    Call,
    Struct,
    Wire,
    applied,
    describe,
    fill,
    map_tensors,
    store,
    substitute,
    wires,
    with_gradients,
)
from circuits.errors import CircuitError
from circuits.recording import Call as RecordedCall


@dataclass(frozen=True)
class LoweredCall:
    """The operations of a call, which are recorded in the workspace and not frozen yet.

    `steps` are those that gradients flow through, `results` the fakes of the results by number, `active` all values
    that gradients flow through after the call. `is_one_operation` is whether the call stays as it is, because it
    consists of one operation that returns the results of the call.
    """

    steps: list[Step]
    results: dict[int, Tensor]
    active: set[int]
    is_one_operation: bool


def lower_call(
    workspace: Workspace, active: Iterable[int], box: Box, call: Call, run: Callable[..., Any], written: Iterable[int]
) -> LoweredCall:
    """Run a call as functional operations, and record these.

    Args:
        workspace: The workspace in which the operations are recorded.
        active: The numbers of the values that gradients flow through.
        box: The box of the call, for messages.
        call: The call, with current value numbers in its arguments.
        run: The function to call with the fake arguments.
        written: The numbers of the arguments that the call writes in place.

    Raises:
        CircuitError: The call writes in place through views that it creates, in a way that has no functional form; or
            torch cannot run the code below autograd.
    """
    place = f"{box.label} at {box.where or 'an unknown line'}"
    try:
        try:
            return _lower(workspace, set(active), box, call, run, None)
        except WriteThroughView:
            return _lower(workspace, set(active), box, call, run, set(written))
    except WriteThroughView:
        raise CircuitError(
            f"{place} writes in place through views that it creates, which gradients cannot be computed through; "
            "compute a new value instead"
        ) from None
    except (RuntimeError, NotImplementedError) as error:
        raise CircuitError(f"the operations of {place} cannot be recorded for gradients: {error}") from error


@contextlib.contextmanager
def as_recorded(call: Call) -> Iterator[None]:
    """Enable autocast inside the `with`, if it was on when the call was recorded, and apply the call's settings.

    In place of inference mode, whose tensors have no versions, gradients are off.
    """
    settings = [(name, value) for name, value in call.settings if name != "inference"]
    with applied(with_gradients(settings, call.gradient)) as stack:
        if call.autocast is not None:
            stack.enter_context(torch.autocast(call.autocast[0], dtype=call.autocast[1], cache_enabled=False))
        yield


def _lower(
    workspace: Workspace, active: set[int], box: Box, call: Call, run: Callable[..., Any], copied: set[int] | None
) -> LoweredCall:
    """Lower a call; with `copied`, under `torch.func.functionalize` and on copies of these arguments."""
    lowering = Lowering(workspace, active, call)
    first = len(workspace.listener.record.values)
    results: dict[int, Tensor] = {}

    def record() -> None:
        with workspace.unrecorded(call.function), as_recorded(call), _below_autograd(box), lowering:
            if copied is None:
                args, kwargs = workspace.fill(Struct(tuple, (), (call.args, call.kwargs)))
                output = run(*args, **kwargs)
            else:
                lowering.changed = True
                output = _run_functionalized(workspace, call, run, lowering.inputs, copied)
            output = map_tensors(output, lambda tensor: lowering.replacements.get(id(tensor), tensor))
            store(call.result, output, results, {})
            for number in lowering.inputs:
                results.pop(number, None)  # an argument that is returned as it is
            _make_distinct(workspace, results, first)

    workspace.record(box.label, record)
    steps, active = _rename_results(workspace, lowering, results)
    whole = all(number in results for step in steps for number in wires(step.result))
    return LoweredCall(steps, results, active, whole and not lowering.changed and lowering.recorded <= 1)


@contextlib.contextmanager
def _below_autograd(box: Box) -> Iterator[None]:
    """Dispatch below autograd inside the `with`, where composite operations are whole; not if a box contains others."""
    if box.boxes:
        yield
    else:
        with torch._C._AutoDispatchBelowAutograd():
            yield


def _run_functionalized(
    workspace: Workspace, call: Call, function: Callable[..., Any], inputs: Mapping[int, Tensor], copied: set[int]
) -> Any:
    """Return the output of a call that writes to no tensor, neither directly nor through a view."""
    numbers = list(inputs)
    form: list[Any] = []

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        own = [each.clone() if number in copied else each for number, each in zip(numbers, given, strict=True)]
        by_number = dict(zip(numbers, own, strict=True))
        args, kwargs = (
            fill(part, lambda wire: by_number[wire.number], workspace.sizes.scalar) for part in (call.args, call.kwargs)
        )
        found: list[Tensor] = []
        form[:] = [describe(function(*args, **kwargs), lambda tensor: append_as_wire(found, tensor))]
        return tuple(found)

    found = torch.func.functionalize(run)(*inputs.values())
    return fill(form[0], lambda wire: found[wire.number], lambda scalar: scalar.expression)


def _make_distinct(workspace: Workspace, results: dict[int, Tensor], first: int) -> None:
    """Replace a result that existed before the call (a number below `first`), or occurs twice, by an alias of it."""
    seen: set[int] = set()
    for number, fake in results.items():
        if workspace.number_of(fake) < first or id(fake) in seen:
            results[number] = torch.ops.aten.alias.default(fake)
        seen.add(id(results[number]))


def _rename_results(
    workspace: Workspace, lowering: Lowering, results: Mapping[int, Tensor]
) -> tuple[list[Step], set[int]]:
    """Give the results the numbers that the call has for them, in the recorded events too; return steps and active."""
    for number, fake in lowering.inputs.items():
        workspace.bind(fake, number)
    numbers = {workspace.number_of(fake): number for number, fake in results.items()}

    def wire(old: Wire) -> Wire:
        return Wire(numbers.get(old.number, old.number))

    def renamed(description: Any) -> Any:
        return substitute(description, wire, lambda scalar: scalar)

    for event in workspace.listener.record.events:
        if isinstance(event, RecordedCall):
            event.args = tuple([renamed(each) for each in event.args])
            event.kwargs = {name: renamed(each) for name, each in event.kwargs.items()}
            event.result = renamed(event.result)
    steps = [
        replace(step, arguments={k: renamed(v) for k, v in step.arguments.items()}, result=renamed(step.result))
        for step in lowering.steps
    ]
    for number, fake in results.items():
        workspace.assign_fake(number, fake)
    return steps, {numbers.get(number, number) for number in lowering.active}
