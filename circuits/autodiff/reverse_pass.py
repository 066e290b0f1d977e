"""The way back: from the last box to the first, each reversed by its rule; cotangents that meet are added.

The boxes of the way back mirror those of the way there: the reverse of a circuit holds the reverses of what is in it.
What nobody asks for is left out at the end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from circuits.autodiff.custom_rules import cotangents, refuse_silence
from circuits.autodiff.functionalize import Tape
from circuits.autodiff.lowering import Step
from circuits.autodiff.opaque import Pullback
from circuits.autodiff.ports import inside, outside
from circuits.autodiff.rules.registry import RuleError, zeros
from circuits.autodiff.workspace import Axes, Bench
from circuits.diagram import Box, ByHand, Call, Struct, Value, Wire, change, wires
from circuits.errors import CircuitError


class Walk:
    """Makes the boxes of the way back. `primal` says of each cotangent whose it is."""

    def __init__(self, bench: Bench, tape: Tape, active: set[int]) -> None:
        self.bench = bench
        self.tape = tape
        self.active = active
        self.cotangents: dict[int, Tensor] = {}
        self.primal: dict[int, int] = {}

    def seed(self, number: int, cotangent: Tensor, axes: Axes) -> list[Box]:
        """An output of the way there has this cotangent, perhaps besides another: then both are added."""
        self.primal[self.bench.wire(cotangent)] = number
        other = self.cotangents.get(number)
        if other is None:
            self.cotangents[number] = cotangent
            return []
        known = {self.bench.wire(other): axes, self.bench.wire(cotangent): axes}
        return list(self.bench.record("add", known, lambda: self._give(number, other + cotangent, fresh=True)).boxes)

    def back(self, box: Box) -> list[Box]:
        """What reverses a box: nothing if no cotangent reaches it."""
        if id(box) in self.tape.hand:
            hand = self.tape.hand[id(box)]
            reached = any(number in self.cotangents for number in wires(hand.result))
            return self._leaf(box, lambda: self._by_hand(box, hand)) if reached else []
        if id(box) in self.tape.steps:
            steps = self.tape.steps[id(box)]
            reached = any(number in self.cotangents for step in steps for number in wires(step.result))
            return self._leaf(box, lambda: self._steps(steps)) if reached else []
        if box.call is not None or not box.boxes:
            return []
        found = [each for inner in reversed(box.boxes) for each in self.back(inner)]
        if not found:
            return []
        ports = outside(box, inside(found).values(), self.primal)
        return [replace(_reverse_of(box), inputs=ports, outputs=ports, boxes=tuple(found))]

    # One box

    def _leaf(self, box: Box, run: Any) -> list[Box]:
        """The reverse of one box, and the additions where its cotangents meet others."""
        outside, self.cotangents = self.cotangents, dict(self.cotangents)
        made_here = {value.number for value in box.outputs}
        around = [value.number for value in (*box.inputs, *box.parameters)]
        met = [number for number in around if number in outside and number not in made_here]
        for number in met:
            self.cotangents.pop(number, None)
        made = self.bench.record(f"∂{box.label}", self._known(box), run)
        found = [self._forced(_unwrapped(made), box)] if made.boxes else []
        for number in dict.fromkeys(met):
            if number in self.cotangents:
                found.append(self._sum(box, number, outside[number]))
            else:
                self.cotangents[number] = outside[number]
        return found

    def _sum(self, box: Box, number: int, other: Tensor) -> Box:
        mine = self.cotangents[number]
        made = self.bench.record("add", self._known(box), lambda: self._give(number, other + mine, fresh=True))
        return self._forced(made.boxes[0], box)

    def _known(self, box: Box) -> dict[int, Axes]:
        """The axes of the values around and in a box, of the copies of them, and of their cotangents."""
        values = _axes(box)
        known = dict(values)
        known |= {copy: values[number] for number, copy in self.tape.kept.items() if number in values}
        there = {number: self.cotangents[number] for number in values if number in self.cotangents}
        known |= {self.bench.wire(cotangent): values[number] for number, cotangent in there.items()}
        return known

    def _forced(self, made: Box, box: Box) -> Box:
        """A cotangent has the axes of its primal; around the reverse all are called as they are around the box."""
        axes = _axes(box)

        def known(value: Value) -> Axes:
            return axes.get(self.primal.get(value.number, value.number), value.axes)

        def within(inner: Box) -> Box:
            inputs, outputs = [
                tuple([replace(value, axes=_either(known(value), value.axes)) for value in values])
                for values in (inner.inputs, inner.outputs)
            ]
            return replace(inner, inputs=inputs, outputs=outputs, boxes=tuple(map(within, inner.boxes)))

        inputs, outputs = [
            tuple([replace(value, axes=known(value)) for value in values]) for values in (made.inputs, made.outputs)
        ]
        return replace(made, inputs=inputs, outputs=outputs, boxes=tuple(map(within, made.boxes)))

    # Rules

    def _steps(self, steps: list[Step]) -> None:
        for step in reversed(steps):
            if any(number in self.cotangents for number in wires(step.result)):
                self._step(step)

    def _step(self, step: Step) -> None:
        if isinstance(step.rule, Pullback):
            self._opaque(step, step.rule)
            return
        given = {name: self._filled(part) for name, part in step.arguments.items()}
        given |= {"y": self._filled(step.result), "dy": self._cotangents(step.result)}
        found = step.rule.function(**{name: given[name] for name in step.rule.reads if name in given})
        found = found if isinstance(found, Mapping) else {"x": found}
        for name, cotangent in found.items():
            self._hand_out(step.name, step.arguments[name], cotangent)

    def _filled(self, description: Any) -> Any:
        def read(wire: Wire) -> Tensor:
            return self.bench.fakes[self.tape.kept.get(wire.number, wire.number)]

        return change(description, read, self.bench.scalar)

    def _cotangents(self, result: Any) -> Any:
        """The cotangents of a result, as it is nested; zeros where none came, None for what has none."""
        return change(result, lambda wire: self._cotangent(wire.number), lambda _: None)

    def _cotangent(self, number: int) -> Tensor | None:
        fake = self.bench.fakes[number]
        if not (fake.is_floating_point() or fake.is_complex()):
            return None
        return self.cotangents[number] if number in self.cotangents else zeros(fake)

    def _opaque(self, step: Step, pullback: Pullback) -> None:
        back: list[Tensor | None] = []
        for number in wires(step.result):
            if self.bench.fakes[number].is_floating_point() or self.bench.fakes[number].is_complex():
                back.append(self.cotangents.get(number))
        args, kwargs = self._filled(step.arguments["args"]), self._filled(step.arguments["kwargs"])
        floating = [n for part in step.arguments.values() for n in wires(part) if _differs(self.bench.fakes[n])]
        asked = tuple([place for place, number in enumerate(floating) if number in self.active])
        try:
            found = pullback.of(asked)(args, kwargs, tuple(back))
        except RuntimeError as error:
            brief = str(error).splitlines()[0]
            raise CircuitError(
                f"{step.name} has no rule, and torch cannot reverse it at these sizes: {brief}"
            ) from error
        for place, cotangent in zip(asked, found, strict=True):
            self._hand_out(step.name, Wire(floating[place]), cotangent)

    def _by_hand(self, box: Box, hand: ByHand) -> None:
        """The backward circuit that somebody wrote for a box."""
        back = [self._cotangent(number) for number in wires(hand.result)]
        found = cotangents(self.bench, box, hand, self._filled, back)
        refuse_silence(box, hand, found, self.active)
        for place, cotangent in found:
            self._hand_out(box.label, place, cotangent)

    def _hand_out(self, name: str, places: Any, cotangent: Any) -> None:
        """Add a cotangent to what is known of the values at these places."""
        if isinstance(places, Struct) and isinstance(cotangent, (tuple, list)):
            for place, each in zip(places.parts, cotangent, strict=True):
                self._hand_out(name, place, each)
            return
        if not isinstance(places, Wire) or cotangent is None or places.number not in self.active:
            return
        fake = self.bench.fakes[places.number]
        if fake.ndim != cotangent.ndim or any(_unlike(a, b) for a, b in zip(fake.shape, cotangent.shape, strict=True)):
            raise RuleError(
                f"the reverse of {name} gives a cotangent of {tuple(cotangent.shape)} for a tensor of "
                f"{tuple(fake.shape)}"
            )
        self._give(places.number, cotangent if cotangent.dtype == fake.dtype else cotangent.to(fake.dtype))

    def _give(self, number: int, cotangent: Tensor, fresh: bool = False) -> None:
        if number in self.cotangents and not fresh:
            cotangent = self.cotangents[number] + cotangent
        self.cotangents[number] = cotangent
        self.primal.setdefault(self.bench.wire(cotangent), number)


def _either(axes: Axes, others: Axes) -> Axes:
    """Axes by the names that one gives, or else the other."""
    return tuple([axis or other for axis, other in zip(axes, others, strict=False)])


def _axes(box: Box) -> dict[int, Axes]:
    """The axes of all values around and in a box, as they are seen around it where they are."""
    every = reversed(list(box.walk()))
    return {value.number: value.axes for inner in every for value in (*inner.inputs, *inner.outputs)}


def _differs(fake: Tensor) -> bool:
    return fake.is_floating_point() or fake.is_complex()


def _unlike(a: Any, b: Any) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a != b


def _reverse_of(box: Box) -> Box:
    """An empty box that is called the reverse of another."""
    if box.kind == "module" and box.name:
        return Box("function", f"∂{box.name}", box.label, path=f"∂{box.path}")
    return Box("function", "", f"∂{box.label}", path=f"∂{box.path}" if box.path else "")


def _unwrapped(made: Box) -> Box:
    """A reverse that is one operation is that operation under its name."""
    if len(made.boxes) == 1 and made.boxes[0].kind == "operation" and not _is_opaque(made.boxes[0]):
        return replace(made.boxes[0], label=made.label)
    ports = tuple(inside(made.boxes).values())
    return replace(made, inputs=ports, outputs=ports)


def _is_opaque(box: Box) -> bool:
    return isinstance(box.call, Call) and isinstance(box.call.function, Pullback)


# What nobody asks for -------------------------------------------------------------------------------------------------


def needed(boxes: Iterable[Box], wanted: Iterable[int]) -> tuple[tuple[Box, ...], set[int]]:
    """The boxes without what nobody reads, and all that those left read or are asked for."""
    alive, kept = set(wanted), []
    for box in reversed(list(boxes)):
        if box.call is not None:
            if alive & set(wires(box.call.result)):
                alive |= {*wires(box.call.args), *wires(box.call.kwargs)}
                kept.append(box)
            continue
        inner, alive = needed(box.boxes, alive)
        if inner:
            kept.append(replace(box, boxes=inner))
    return tuple(reversed(kept)), alive
