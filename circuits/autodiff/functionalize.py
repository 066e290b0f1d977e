"""The forward pass as a program that overwrites no value: each call of a diagram, run once on fake tensors.

A reverse rule may read values of the forward pass, so these must not be overwritten. An in-place operation on a value
that gradients flow through is replaced by its functional form, and views of the written tensor that are read later are
recomputed (`aliases`). Any other value is copied before it is overwritten if a rule may still read it. A call that
consists of several operations becomes a box with these inside.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.aliases import Aliases, out_of_place
from circuits.autodiff.aten import whole_arguments
from circuits.autodiff.custom_rules import values_read
from circuits.autodiff.lower_call import as_recorded, lower_call
from circuits.autodiff.lowering import Step
from circuits.autodiff.opaque import AutogradPullback, Pullback, under_autocast
from circuits.autodiff.ports import axes_outside, flow, port_values
from circuits.autodiff.refusals import refuse_random_state
from circuits.autodiff.rules.registry import RULES
from circuits.autodiff.tape import Tape
from circuits.autodiff.tensors import is_floating, storage_of
from circuits.autodiff.workspace import Axes, Workspace
from circuits.diagram import Box, Call, CustomBackward, Struct, Value, Wire, operation_name, store, wires
from circuits.errors import CircuitError


class ForwardPass:
    """Makes the boxes of the forward pass, and the tape.

    `active` are the values that gradients flow through, `saved` those that the reverse pass may read. `extra_values`
    maps the id of each box with others inside to all values that are made in it, with the axis names used outside it:
    those that the reverse pass reads become outputs of the box.
    """

    def __init__(self, workspace: Workspace, active: Iterable[int]) -> None:
        self.workspace = workspace
        self.active = set(active)
        self.tape: Tape = Tape()
        self.saved: set[int] = set()
        self.aliases: Aliases = Aliases(workspace)
        self.extra_values: dict[int, tuple[Value, ...]] = {}
        self.boxes: list[Box] = []  # kept so that no other box gets the id of one of these
        self.remaining_calls: list[Call] = list(workspace.diagram.box.calls())[::-1]

    def run(self, box: Box) -> Box:
        """Return the forward pass of a box; no gradients are taken inside a box with a custom backward."""
        custom = self._custom_backward(box)
        if custom is None:
            return self._run(box)
        around, self.active = self.active, set()
        made = self._run(box)
        custom = replace(custom, result=self.tape.current.description(custom.result))
        made = replace(made, reverse=custom)
        self.active = around | {value.number for value in made.outputs if is_floating(value)}
        self.tape.custom[id(made)] = custom
        self.saved |= {*wires(custom.args), *wires(custom.kwargs), *wires(custom.result), *values_read(made)}
        if made.call is None:
            self._note_extra_values(made)
        else:
            self.boxes.append(made)
        return made

    def _run(self, box: Box) -> Box:
        """Return the forward pass of a box, ignoring a custom backward of its own."""
        if box.call is not None:
            made = self._call(box)
            return made[0] if len(made) == 1 else replace(box, boxes=tuple(made), call=None)
        current = self.tape.current
        entered = current.box(replace(box, boxes=(), outputs=()))
        boxes = [made for inner in box.boxes for made in self._inner(inner)]
        made = replace(entered, reverse=box.reverse, outputs=current.box(box).outputs, boxes=tuple(boxes))
        self._note_extra_values(made)
        return made

    def _inner(self, box: Box) -> list[Box]:
        """Return the forward pass of a box inside another, which may be several boxes."""
        return self._call(box) if box.call is not None and box.reverse is None else [self.run(box)]

    def _custom_backward(self, box: Box) -> CustomBackward | None:
        """Return the custom backward of a box, if gradients flow through the box and all its arguments have fakes."""
        if box.reverse is None or not box.reverse.gradient:
            return None
        custom = self.tape.current.arguments(box.reverse)
        given = {*wires(custom.args), *wires(custom.kwargs)}
        read = given | {self.tape.current.number(number) for number in values_read(box)}
        return custom if read & self.active and given <= self.workspace.fakes.keys() else None

    def _note_extra_values(self, box: Box) -> None:
        """Set the `extra_values` of a box."""
        values = port_values(box.boxes)
        for inner in box.boxes:
            values |= {value.number: value for value in self.extra_values.get(id(inner), ())}
        made = flow(box.boxes).made
        self.extra_values[id(box)] = axes_outside(box, [values[number] for number in made if number in values], {})
        self.boxes.append(box)

    # One call

    def _call(self, box: Box) -> list[Box]:
        """Run one call on the fakes; return copies of values it overwrites, its box, and boxes that recompute views."""
        if self.remaining_calls and self.remaining_calls[-1] is box.call:
            self.remaining_calls.pop()
        box = out_of_place(box)
        call = self.tape.current.returning(box.call)  # type: ignore[arg-type]
        given = {number: self.workspace.fakes[number] for number in _reads(call)}
        versions = {number: fake._version for number, fake in given.items()}
        made: dict[Any, Tensor] = {}
        function = self.workspace.function(box, call)
        store(call.result, self._run_unrecorded(call, function), made, numbers := {})
        self.workspace.sizes.read(numbers)
        made = {number: fake for number, fake in made.items() if number not in given}
        touched = [number for number, fake in given.items() if fake._version != versions[number]]
        written = {old: new for old in touched for new, fake in made.items() if fake is given[old]}
        for number in made:
            self.tape.current.reset(number)
        differentiated = self._reads_active(call) and any(map(is_floating, made.values()))
        hidden = self.aliases.hidden_writes(touched, written, self.active) if differentiated else touched
        _refuse_hidden_writes(self, box, hidden)
        boxes = [] if differentiated and not hidden else self._copies(box, touched)
        if differentiated:
            boxes += self._differentiated(box, call, function, made, written)
        else:
            boxes += self._unchanged(box, made)
        fresh = {number: fake for number, fake in made.items() if not (differentiated and number in written.values())}
        self.aliases.note(call, fresh, given)
        return [*boxes, *self._rematerialised_views(written)] if differentiated and written else boxes

    def _reads_active(self, call: Call) -> bool:
        return call.gradient and any(number in self.active for number in _reads(call))

    def _run_unrecorded(self, call: Call, function: Any) -> Any:
        """Return the output of a call on the fakes, without recording it."""
        with self.workspace.unrecorded(call.function), as_recorded(call):
            args, kwargs = self.workspace.fill(Struct(tuple, (), (call.args, call.kwargs)))
            return function(*args, **kwargs)

    def _unchanged(self, box: Box, made: Mapping[int, Tensor]) -> list[Box]:
        """Return the box of a call that no gradient flows through: it stays as it is."""
        for number, fake in made.items():
            self.workspace.assign_fake(number, fake)
        return [self.tape.current.inputs(box)]

    # Copies of overwritten values

    def _copies(self, box: Box, written: list[int]) -> list[Box]:
        """Return boxes that copy the saved values whose storage a call is about to overwrite."""
        storages = {storage_of(self.workspace.fakes[number]) for number in written}
        stale = [number for number in sorted(self.saved - set(self.tape.copies)) if number in self.workspace.fakes]
        return [self._copy(number, box) for number in stale if storage_of(self.workspace.fakes[number]) in storages]

    def _copy(self, number: int, box: Box) -> Box:
        """Return a box that copies a value, to run before `box`."""
        copies: list[Tensor] = []
        source = self.workspace.fakes[number]
        made = self.workspace.record_box("clone", self._axes(box), lambda: copies.append(source.clone()))
        self.tape.copies[number] = self.workspace.number_of(copies[0])
        self.workspace.fakes[self.tape.copies[number]] = copies[0]
        return made.boxes[0]

    def _axes(self, box: Box) -> dict[int, Axes]:
        """Return the axes of the values around a box."""
        return {value.number: value.axes for value in (*box.outputs, *self.tape.current.inputs(box).inputs)}

    # A call that gradients flow through

    def _differentiated(
        self, box: Box, call: Call, function: Any, made: Mapping[int, Tensor], written: Mapping[int, int]
    ) -> list[Box]:
        """Return the box of a call that gradients flow through, and put its steps on the tape."""
        steps = None if written or _is_recast(call, self.workspace.fakes, made) else _whole_steps(call)
        if steps is None:
            refuse_random_state(box)
            lowered = lower_call(self.workspace, self.active, box, call, function, written)
            self.active, steps = lowered.active, lowered.steps
            if written or not lowered.is_one_operation:
                return self._opened(box, steps, lowered.results)
            self.workspace.discard_events()
            made = lowered.results
        for number, fake in made.items():
            self.workspace.assign_fake(number, fake)
        self.active |= {number for number, fake in made.items() if is_floating(fake)} if steps else set()
        kept = self.tape.current.inputs(box)
        self._note_steps(kept, steps)
        return [kept]

    def _opened(self, box: Box, steps: list[Step], results: Mapping[int, Tensor]) -> list[Box]:
        """Return the box of a call with the recorded operations inside; the operation alone if there is only one."""
        for number, fake in results.items():
            self.workspace.assign_fake(number, fake)
        found = self.workspace.freeze(self._axes(box))
        renamed = self.tape.current.inputs(box)
        opened = replace(found, label=renamed.label, inputs=renamed.inputs, outputs=renamed.outputs, where=box.where)
        opened = replace(found.boxes[0], where=box.where) if len(found.boxes) == 1 else opened
        if opened.call is None:
            self._note_extra_values(opened)
        self._note_steps(opened, steps)
        return [opened]

    def _note_steps(self, box: Box, steps: list[Step]) -> None:
        """Put the steps of a box on the tape, and mark the values that they read or make as saved."""
        self.tape.steps[id(box)] = steps
        self.boxes.append(box)
        for step in steps:
            self.saved |= {*wires(step.result), *[n for part in step.arguments.values() for n in wires(part)]}

    def _read_later(self) -> set[int]:
        """Return the values of the diagram that later calls or the result read."""
        later = {number for call in self.remaining_calls for number in _reads(call)}
        return later | set(wires(self.workspace.diagram.result))

    def _rematerialised_views(self, written: Mapping[int, int]) -> list[Box]:
        """Return boxes that recompute the views of written tensors that later calls or the result read."""
        current = self.tape.current
        later = self._read_later()
        boxes: list[Box] = []
        for old, new in written.items():
            numbers = {each: current.number(each) for each in sorted(later)}
            current.update({each: new for each, number in numbers.items() if number == old != new and each != new})
            for view in self.aliases.rematerialise(old, new, numbers):
                boxes += self._call(view.box)
                current.update(
                    {each: view.new for each, number in numbers.items() if number == view.old or each == view.old}
                )
        return boxes


def _refuse_hidden_writes(forward: ForwardPass, box: Box, written: list[int]) -> None:
    """Raise CircuitError if a value that gradients flow through is written, or read later and overwritten.

    It is overwritten by a write to a value of the same storage that is detached from it (`y.data`, `y.detach()`).
    """
    fakes = forward.workspace.fakes
    storages = {storage_of(fakes[number]) for number in written if fakes[number].layout is torch.strided}
    read = (
        forward.active & {forward.tape.current.number(number) for number in forward._read_later()}
        if storages
        else set()
    )
    if any(number in forward.active for number in written):
        raise CircuitError(
            f"{box.label} at {box.where or 'an unknown line'} writes in place, unseen by autograd, to a value that "
            "gradients flow through; compute a new value instead, or detach it"
        )
    if any(fakes[number].layout is torch.strided and storage_of(fakes[number]) in storages for number in read):
        raise CircuitError(
            f"{box.label} at {box.where or 'an unknown line'} writes in place, unseen by autograd, to the storage "
            "of a value that gradients flow through and that is read later; compute a new value instead, or write "
            "to a clone"
        )


def _whole_steps(call: Call) -> list[Step] | None:
    """Return the steps of a call that is differentiated as a whole; None for one that has to be lowered.

    Differentiated as a whole are verbs that have a rule, an `autograd.Function`, by its own `backward`, and the
    `Pullback` of an opaque operation.
    """
    function: Any = call.function
    name = operation_name(function)
    owner = getattr(function, "__self__", None)
    arguments = whole_arguments(call.args, call.kwargs)
    if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
        run = under_autocast(call.autocast, function)
        return [Step(owner.__name__, AutogradPullback(run, owner.__name__), arguments, call.result)]
    if isinstance(function, Pullback):
        return [Step(name, function.pullback(), arguments, call.result)]
    if function in RULES and isinstance(call.args.parts[0], Wire) and call.args.parts[2:] not in _LOWERED_REDUCTIONS:
        return [Step(name, RULES[function], arguments, call.result)]
    return None


_LOWERED_REDUCTIONS = (("max",), ("min",), ("prod",), ("any",), ("all",))
"""Reductions by `circuits.reduce` that have no rule as a verb, and are lowered to ATen operations."""


def _is_recast(call: Call, given: Mapping[int, Tensor], made: Mapping[int, Tensor]) -> bool:
    """Return whether autocast makes a verb compute in another dtype than that of its inputs."""
    if call.autocast is None or call.function not in RULES:
        return False
    dtypes = {given[number].dtype for number in _reads(call) if is_floating(given[number])}
    return dtypes != {fake.dtype for fake in made.values() if is_floating(fake)}


def _reads(call: Call) -> tuple[int, ...]:
    return (*wires(call.args), *wires(call.kwargs))
