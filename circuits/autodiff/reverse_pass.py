"""The reverse pass: from the last box to the first, each reversed by its rule; cotangents of one value are added.

The boxes of the reverse pass mirror those of the forward pass: the reverse of a circuit contains the reverses of the
boxes in it. `joint` removes boxes whose results are unused.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from circuits.autodiff.custom_rules import custom_cotangents, refuse_missing
from circuits.autodiff.lowering import Step
from circuits.autodiff.opaque import Pullback
from circuits.autodiff.ports import axes_outside, port_values
from circuits.autodiff.rules.registry import RuleError, zeros
from circuits.autodiff.tape import Tape
from circuits.autodiff.tensors import is_floating
from circuits.autodiff.workspace import Axes, Workspace
from circuits.diagram import Box, Call, CustomBackward, Struct, Value, Wire, fill, wires
from circuits.errors import CircuitError


class ReversePass:
    """Makes the boxes of the reverse pass.

    `active` are the values that gradients flow through, `cotangents` the cotangents found so far, by the number of
    their primal. `primal` maps the number of a cotangent to that of its primal.
    """

    def __init__(self, workspace: Workspace, tape: Tape, active: set[int]) -> None:
        self.workspace = workspace
        self.tape = tape
        self.active = active
        self.cotangents: dict[int, Tensor] = {}
        self.primal: dict[int, int] = {}

    def seed(self, number: int, cotangent: Tensor, axes: Axes) -> list[Box]:
        """Set the cotangent of an output of the forward pass; return the box that adds it to an earlier one, if any."""
        self.primal[self.workspace.number_of(cotangent)] = number
        other = self.cotangents.get(number)
        if other is None:
            self.cotangents[number] = cotangent
            return []
        known = {self.workspace.number_of(other): axes, self.workspace.number_of(cotangent): axes}
        return list(
            self.workspace.record_box("add", known, lambda: self._add(number, other + cotangent, is_sum=True)).boxes
        )

    def reverse(self, box: Box) -> list[Box]:
        """Return the boxes that reverse a box of the forward pass; none if no cotangent reaches it."""
        if id(box) in self.tape.custom:
            custom = self.tape.custom[id(box)]
            reached = any(number in self.cotangents for number in wires(custom.result))
            return self._reverse_leaf(box, lambda: self._custom(box, custom)) if reached else []
        if id(box) in self.tape.steps:
            steps = self.tape.steps[id(box)]
            reached = any(number in self.cotangents for step in steps for number in wires(step.result))
            return self._reverse_leaf(box, lambda: self._steps(box, steps)) if reached else []
        if box.call is not None or not box.boxes:
            return []
        found = [each for inner in reversed(box.boxes) for each in self.reverse(inner)]
        if not found:
            return []
        ports = axes_outside(box, port_values(found).values(), self.primal)
        return [replace(_empty_reverse(box), inputs=ports, outputs=ports, boxes=tuple(found))]

    # One box

    def _reverse_leaf(self, box: Box, run: Callable[[], None]) -> list[Box]:
        """Return the reverse of one box, recorded from `run`, and the additions to cotangents found before it."""
        before, self.cotangents = self.cotangents, dict(self.cotangents)
        made_here = {value.number for value in box.outputs}
        around = [value.number for value in (*box.inputs, *box.parameters)]
        shared = [number for number in around if number in before and number not in made_here]
        for number in shared:
            self.cotangents.pop(number, None)
        made = self.workspace.record_box(f"∂{box.label}", self._axes(box), run)
        found = [self._with_primal_axes(_unwrapped(made), box)] if made.boxes else []
        for number in dict.fromkeys(shared):
            if number in self.cotangents:
                found.append(self._sum(box, number, before[number]))
            else:
                self.cotangents[number] = before[number]
        return found

    def _sum(self, box: Box, number: int, other: Tensor) -> Box:
        """Return a box that adds an earlier cotangent of a value to its new one."""
        mine = self.cotangents[number]
        made = self.workspace.record_box("add", self._axes(box), lambda: self._add(number, other + mine, is_sum=True))
        return self._with_primal_axes(made.boxes[0], box)

    def _axes(self, box: Box) -> dict[int, Axes]:
        """Return the axes of the values around and in a box, of their copies, and of their cotangents."""
        values = _axes_within(box)
        known = dict(values)
        known |= {copy: values[number] for number, copy in self.tape.copies.items() if number in values}
        found = {number: self.cotangents[number] for number in values if number in self.cotangents}
        known |= {self.workspace.number_of(cotangent): values[number] for number, cotangent in found.items()}
        return known

    def _with_primal_axes(self, made: Box, box: Box) -> Box:
        """Return the reverse of `box`, each cotangent with the axis names that its primal has outside `box`."""
        axes = _axes_within(box)

        def known(value: Value) -> Axes:
            return axes.get(self.primal.get(value.number, value.number), value.axes)

        def within(inner: Box) -> Box:
            inputs, outputs = [
                tuple([replace(value, axes=_merged(known(value), value.axes)) for value in values])
                for values in (inner.inputs, inner.outputs)
            ]
            return replace(inner, inputs=inputs, outputs=outputs, boxes=tuple(map(within, inner.boxes)))

        inputs, outputs = [
            tuple([replace(value, axes=known(value)) for value in values]) for values in (made.inputs, made.outputs)
        ]
        return replace(made, inputs=inputs, outputs=outputs, boxes=tuple(map(within, made.boxes)))

    # Rules

    def _steps(self, box: Box, steps: list[Step]) -> None:
        """Run the rules of the steps of a box that a cotangent reaches, the last first; a refusal names its line."""
        for step in reversed(steps):
            if any(number in self.cotangents for number in wires(step.result)):
                try:
                    self._step(step)
                except RuleError:
                    raise
                except CircuitError as error:
                    raise CircuitError(f"{box.label} at {box.where or 'an unknown line'}: {error}") from error

    def _step(self, step: Step) -> None:
        """Run the rule of one operation, and add the cotangents that it returns."""
        if isinstance(step.rule, Pullback):
            self._opaque(step, step.rule)
            return
        given = {name: self._fill(part) for name, part in step.arguments.items()}
        given |= {"y": self._fill(step.result), "dy": self._result_cotangents(step.result)}
        found = step.rule.function(**{name: given[name] for name in step.rule.reads if name in given})
        found = found if isinstance(found, Mapping) else {"x": found}
        for name, cotangent in found.items():
            self._accumulate(step.name, step.arguments[name], cotangent)

    def _fill(self, description: Any) -> Any:
        """Return the fakes of a description, with the copies of values that are overwritten."""

        def read(wire: Wire) -> Tensor:
            return self.workspace.fakes[self.tape.copies.get(wire.number, wire.number)]

        return fill(description, read, self.workspace.sizes.scalar)

    def _result_cotangents(self, result: Any) -> Any:
        """Return the cotangents of a result, nested in the same way; zeros where none was found, None for integers."""
        return fill(result, lambda wire: self._cotangent(wire.number), lambda _: None)

    def _cotangent(self, number: int) -> Tensor | None:
        """Return the cotangent of a value; zeros if none was found, None for integers."""
        fake = self.workspace.fakes[number]
        if not is_floating(fake):
            return None
        return self.cotangents[number] if number in self.cotangents else zeros(fake)

    def _opaque(self, step: Step, pullback: Pullback) -> None:
        """Run the vector-Jacobian product of an operation without a rule, for the arguments that gradients flow to."""
        fakes = self.workspace.fakes
        back = [self.cotangents.get(number) for number in wires(step.result) if is_floating(fakes[number])]
        args, kwargs = self._fill(step.arguments["args"]), self._fill(step.arguments["kwargs"])
        floating = [n for part in step.arguments.values() for n in wires(part) if is_floating(fakes[n])]
        positions = tuple([place for place, number in enumerate(floating) if number in self.active])
        try:
            found = pullback.restricted(positions)(args, kwargs, tuple(back))
        except RuntimeError as error:
            brief = str(error).splitlines()[0]
            raise CircuitError(
                f"{step.name} has no rule, and torch cannot differentiate it at these sizes: {brief}"
            ) from error
        for place, cotangent in zip(positions, found, strict=True):
            self._accumulate(step.name, Wire(floating[place]), cotangent)

    def _custom(self, box: Box, custom: CustomBackward) -> None:
        """Run the custom backward circuit of a box, and add the cotangents that it returns."""
        back = [self._cotangent(number) for number in wires(custom.result)]
        found = custom_cotangents(self.workspace, box, custom, self._fill, back)
        refuse_missing(box, custom, found, self.active)
        for argument, cotangent in found:
            self._accumulate(box.label, argument, cotangent)

    # Cotangents

    def _accumulate(self, name: str, argument: Any, cotangent: Any) -> None:
        """Add the cotangent of an argument, or of each tensor in a nested one, that operation `name` returned."""
        if isinstance(argument, Struct) and isinstance(cotangent, (tuple, list)):
            for part, each in zip(argument.parts, cotangent, strict=True):
                self._accumulate(name, part, each)
            return
        if not isinstance(argument, Wire) or cotangent is None or argument.number not in self.active:
            return
        fake = self.workspace.fakes[argument.number]
        if fake.ndim != cotangent.ndim or any(_differ(a, b) for a, b in zip(fake.shape, cotangent.shape, strict=True)):
            raise RuleError(
                f"the reverse of {name} returns a cotangent of shape {tuple(cotangent.shape)} for a tensor of shape "
                f"{tuple(fake.shape)}"
            )
        self._add(argument.number, cotangent if cotangent.dtype == fake.dtype else cotangent.to(fake.dtype))

    def _add(self, number: int, cotangent: Tensor, is_sum: bool = False) -> None:
        """Add a cotangent to the one that a value has, if any; with `is_sum`, `cotangent` is their sum already."""
        if number in self.cotangents and not is_sum:
            cotangent = self.cotangents[number] + cotangent
        self.cotangents[number] = cotangent
        self.primal.setdefault(self.workspace.number_of(cotangent), number)


def _merged(axes: Axes, others: Axes) -> Axes:
    """Return axes with the names of the second where the first has none."""
    return tuple([axis or other for axis, other in zip(axes, others, strict=False)])


def _axes_within(box: Box) -> dict[int, Axes]:
    """Return the axes of all values around and in a box, each as named in the outermost box that has it."""
    every = reversed(list(box.walk()))
    return {value.number: value.axes for inner in every for value in (*inner.inputs, *inner.outputs)}


def _differ(a: Any, b: Any) -> bool:
    """Return whether two sizes are known and different."""
    return isinstance(a, int) and isinstance(b, int) and a != b


def _empty_reverse(box: Box) -> Box:
    """Return a box without content that is named as the reverse of another."""
    if box.kind == "module" and box.name:
        return Box("function", f"∂{box.name}", box.label, path=f"∂{box.path}")
    return Box("function", "", f"∂{box.label}", path=f"∂{box.path}" if box.path else "")


def _unwrapped(made: Box) -> Box:
    """Return a reverse, with all possible ports; or the operation in it, under the same label, if there is only one."""
    if len(made.boxes) == 1 and made.boxes[0].kind == "operation" and not _is_opaque(made.boxes[0]):
        return replace(made.boxes[0], label=made.label)
    ports = tuple(port_values(made.boxes).values())
    return replace(made, inputs=ports, outputs=ports)


def _is_opaque(box: Box) -> bool:
    return isinstance(box.call, Call) and isinstance(box.call.function, Pullback)
