"""The way there: a diagram's calls run once on fakes, and become a program whose values never change.

What a reverse rule reads must be there when it is read. So an in-place operation on a value that gradients flow
through becomes the functional one, views of what was written are taken again (`aliases`), and what is written
elsewhere is copied first if a rule may still read it. A call that is made of several operations becomes a box with
those inside.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from circuits.autodiff.aliases import Aliases, turned
from circuits.autodiff.aten import packed
from circuits.autodiff.custom_rules import reads
from circuits.autodiff.lowering import Lowering, Step, ThroughAView
from circuits.autodiff.opaque import AutogradPullback, Pullback, under
from circuits.autodiff.ports import flow, inside, outside
from circuits.autodiff.rules.registry import RULES
from circuits.autodiff.workspace import Axes, Bench, renumbered
from circuits.diagram import Box, ByHand, Call, Scalar, Struct, Value, Wire, change, collect, operation_name, wires
from circuits.errors import CircuitError

Described = TypeVar("Described", Call, ByHand)


@dataclass
class Tape:
    """What the way there leaves for the way back.

    `steps` by the box they belong to, in order; `hand` the backward circuits of boxes that have one by hand;
    `now` where a value of the diagram stands under another number; `kept` the copies to read instead of values that
    are written over.
    """

    steps: dict[int, list[Step]] = field(default_factory=dict)
    hand: dict[int, ByHand] = field(default_factory=dict)
    now: dict[int, int] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)


class Forward:
    """Makes the boxes of the way there, and the tape. `active` are the values that gradients flow through."""

    def __init__(self, bench: Bench, active: Iterable[int]) -> None:
        self.bench = bench
        self.active = set(active)
        self.tape = Tape()
        self.touched: set[int] = set()
        self.aliases = Aliases(bench)
        self.more: dict[int, tuple[Value, ...]] = {}
        self.boxes: list[Box] = []
        self.left = list(bench.diagram.box.calls())[::-1]

    def run(self, box: Box) -> Box:
        """This box with what it takes to reverse it."""
        hand = self._by_hand(box)
        if hand is None:
            return self._run(box)
        around, self.active = self.active, set()
        made = self._run(box)
        hand = replace(hand, result=change(hand.result, self.now, _same, make=False))
        made = replace(made, reverse=hand)
        self.active = around | {value.number for value in made.outputs if _flowing(value)}
        self.tape.hand[id(made)] = hand
        self.touched |= {*wires(hand.args), *wires(hand.kwargs), *wires(hand.result), *reads(made)}
        if made.call is None:
            self._more(made)
        else:
            self.boxes.append(made)
        return made

    def _run(self, box: Box) -> Box:
        if box.call is not None:
            made = self._leaf(box)
            return made[0] if len(made) == 1 else replace(box, boxes=tuple(made), call=None)
        entered = renumbered(replace(box, boxes=(), outputs=()), self.tape.now)
        boxes = [made for inner in box.boxes for made in self._inside(inner)]
        made = replace(entered, reverse=box.reverse, outputs=renumbered(box, self.tape.now).outputs, boxes=tuple(boxes))
        self._more(made)
        return made

    def _inside(self, box: Box) -> list[Box]:
        return self._leaf(box) if box.call is not None and box.reverse is None else [self.run(box)]

    def _by_hand(self, box: Box) -> ByHand | None:
        """The backward circuit written for a box, if gradients flow through it and all that it reads is there."""
        if box.reverse is None or not box.reverse.gradient:
            return None
        hand = self._described(box.reverse)
        given = {*wires(hand.args), *wires(hand.kwargs)}
        read = given | {self.tape.now.get(number, number) for number in reads(box)}
        return hand if read & self.active and given <= self.bench.fakes.keys() else None

    def _more(self, box: Box) -> None:
        """Remember what is made in a box besides its outputs, as it is called around it."""
        values = inside(box.boxes)
        for inner in box.boxes:
            values |= {value.number: value for value in self.more.get(id(inner), ())}
        made = flow(box.boxes).made
        self.more[id(box)] = outside(box, [values[number] for number in made if number in values], {})
        self.boxes.append(box)

    # Where values stand

    def now(self, wire: Wire) -> Wire:
        """Where a value of the diagram stands by now."""
        return Wire(self.tape.now.get(wire.number, wire.number))

    def _described(self, call: Described) -> Described:
        """A call on the values as they are now."""
        args, kwargs = (change(part, self.now, _same, make=False) for part in (call.args, call.kwargs))
        return replace(call, args=args, kwargs=kwargs)

    def _flows(self, call: Call) -> bool:
        return call.gradient and any(number in self.active for number in _read(call))

    def _placed(self, box: Box) -> Box:
        """A box on the values as they are now."""
        outputs = {value.number for value in box.outputs}
        return renumbered(box, {old: new for old, new in self.tape.now.items() if old not in outputs})

    def _known(self, box: Box) -> dict[int, Axes]:
        return {value.number: value.axes for value in (*box.outputs, *self._placed(box).inputs)}

    # One call

    def _leaf(self, box: Box) -> list[Box]:
        if self.left and self.left[-1] is box.call:
            self.left.pop()
        box = turned(box)
        now = self._described(box.call)  # type: ignore[arg-type]
        given = {number: self.bench.fakes[number] for number in _read(now)}
        versions = {number: fake._version for number, fake in given.items()}
        made: dict[Any, Tensor] = {}
        collect(now.result, self._plainly(now), made, {})
        touched = [number for number, fake in given.items() if fake._version != versions[number]]
        written = {old: new for old in touched for new, fake in made.items() if fake is given[old]}
        for number in made:
            self.tape.now.pop(number, None)
        flows = self._flows(now) and any(map(_floats, made.values()))
        self._refuse(box, [number for number in touched if number not in (written if flows else ())])
        boxes = [] if flows and not set(touched) - set(written) else self._copies(box, touched)
        boxes += self._lowered(box, now, made, written) if flows else self._unchanged(box, made)
        fresh = made if not flows else {number: fake for number, fake in made.items() if number not in written.values()}
        self.aliases.note(now, fresh, given)
        return [*boxes, *self._written(written)] if flows and written else boxes

    def _refuse(self, box: Box, written: list[int]) -> None:
        if any(number in self.active for number in written):
            raise CircuitError(
                f"{box.label} at {box.where or 'an unknown line'} writes, unwatched by autograd, to a value that "
                "gradients flow through; compute a new value instead, or detach it"
            )

    def _copies(self, box: Box, written: list[int]) -> list[Box]:
        """Copies of what is about to be written over, where a rule may read it."""
        storages = {_storage(self.bench.fakes[number]) for number in written}
        stale = [number for number in sorted(self.touched - set(self.tape.kept)) if number in self.bench.fakes]
        return [self._copied(number, box) for number in stale if _storage(self.bench.fakes[number]) in storages]

    def _plainly(self, call: Call) -> Any:
        """What a call gives on the fakes, heard by nobody."""
        with self.bench.silently(call.function), _as_recorded(call):
            args, kwargs = self.bench.fill(Struct(tuple, (), (call.args, call.kwargs)))
            return self._function(call)(*args, **kwargs)

    def _function(self, call: Call) -> Any:
        return (
            self.bench.module(self.bench.diagram.modules[call.function])
            if isinstance(call.function, str)
            else call.function
        )

    def _unchanged(self, box: Box, made: Mapping[int, Tensor]) -> list[Box]:
        """A call that no gradient flows through stays."""
        for number, fake in made.items():
            self.bench.put(number, fake)
        return [self._placed(box)]

    def _copied(self, number: int, box: Box) -> Box:
        copy: list[Tensor] = []
        source = self.bench.fakes[number]
        made = self.bench.record("clone", self._known(box), lambda: copy.append(source.clone()))
        self.tape.kept[number] = self.bench.wire(copy[0])
        self.bench.fakes[self.tape.kept[number]] = copy[0]
        return made.boxes[0]

    # A call that gradients flow through

    def _lowered(self, box: Box, now: Call, made: Mapping[int, Tensor], written: Mapping[int, int]) -> list[Box]:
        steps = None if written or _recast(now, self.bench.fakes, made) else self._own(now)
        if steps is None:
            lowering, results = self._heard(box, now, written)
            steps = lowering.steps
            whole = all(number in results for step in steps for number in wires(step.result))
            if lowering.changed or lowering.noted > 1 or written or not whole:
                return self._opened(box, steps, results)
            self.bench.forget()
            made = results
        for number, fake in made.items():
            self.bench.put(number, fake)
        self.active |= {number for number, fake in made.items() if _floats(fake)} if steps else set()
        kept = self._placed(box)
        self._keep(kept, steps)
        return [kept]

    def _opened(self, box: Box, steps: list[Step], results: Mapping[int, Tensor]) -> list[Box]:
        """A box with the operations that a call is made of."""
        for number, fake in results.items():
            self.bench.put(number, fake)
        found = self.bench.freeze(self._known(box))
        placed = self._placed(box)
        opened = replace(found, label=placed.label, inputs=placed.inputs, outputs=placed.outputs, where=box.where)
        opened = found.boxes[0] if len(found.boxes) == 1 else opened
        if opened.call is None:
            self._more(opened)
        self._keep(opened, steps)
        return [opened]

    def _keep(self, box: Box, steps: list[Step]) -> None:
        self.tape.steps[id(box)] = steps
        self.boxes.append(box)
        for step in steps:
            self.touched |= {*wires(step.result), *[n for part in step.arguments.values() for n in wires(part)]}

    def _own(self, now: Call) -> list[Step] | None:
        """The steps of a verb, of an `autograd.Function`, whose gradient is its own, or of an opaque way back."""
        function: Any = now.function
        name = operation_name(function)
        owner = getattr(function, "__self__", None)
        arguments = packed(now.args, now.kwargs)
        if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
            again = under(now.autocast, function)
            return [Step(owner.__name__, AutogradPullback(again, owner.__name__), arguments, now.result)]
        if isinstance(function, Pullback):
            return [Step(name, function.again(), arguments, now.result)]
        if function in RULES and isinstance(now.args.parts[0], Wire) and now.args.parts[2:] not in _OTHER:
            return [Step(name, RULES[function], arguments, now.result)]
        return None

    def _heard(self, box: Box, now: Call, written: Mapping[int, int]) -> tuple[Lowering, dict[int, Tensor]]:
        """What a call is made of, and its results by number; nothing is frozen yet."""
        try:
            return self._try(box, now, None)
        except ThroughAView:
            pass
        try:
            return self._try(box, now, written)
        except ThroughAView:
            raise CircuitError(
                f"{box.label} at {box.where or 'an unknown line'} writes through views of its own, which "
                "gradients cannot be followed through; compute a new value instead"
            ) from None

    def _try(self, box: Box, now: Call, apart: Iterable[int] | None) -> tuple[Lowering, dict[int, Tensor]]:
        lowering = Lowering(self.bench, set(self.active), now)
        results: dict[int, Tensor] = {}

        def run() -> None:
            with self.bench.silently(now.function), _as_recorded(now), _below(box), lowering:
                collect(now.result, lowering.answer(self._function(now), apart), results, {})
                lowering.settle(results)

        self.bench.hear(box.label, run)
        lowering.rename(results)
        self.active = lowering.active
        return lowering, results

    # What was written

    def _written(self, written: Mapping[int, int]) -> list[Box]:
        """Values that share what was written, taken anew if anybody reads them later."""
        later = {number for call in self.left for number in _read(call)} | set(wires(self.bench.diagram.result))
        boxes: list[Box] = []
        for old, new in written.items():
            places = {each: self.tape.now.get(each, each) for each in sorted(later)}
            self.tape.now |= {each: new for each, number in places.items() if number == old != new and each != new}
            for anew in self.aliases.anew(old, new, places):
                boxes += self._leaf(anew.box)
                self.tape.now |= {
                    each: anew.new for each, number in places.items() if number == anew.old or each == anew.old
                }
        return boxes


def _flowing(value: Value) -> bool:
    return value.dtype.is_floating_point or value.dtype.is_complex


_OTHER = (("max",), ("min",), ("prod",), ("any",), ("all",))
"""Reductions by `circuits.reduce` that are seen as the operations they are made of."""


def _read(call: Call) -> tuple[int, ...]:
    return (*wires(call.args), *wires(call.kwargs))


def _recast(call: Call, given: Mapping[int, Tensor], made: Mapping[int, Tensor]) -> bool:
    """Whether autocast has a verb reckon in another dtype than that of what it is given."""
    if call.autocast is None or call.function not in RULES:
        return False
    dtypes = {given[number].dtype for number in _read(call) if _floats(given[number])}
    return dtypes != {fake.dtype for fake in made.values() if _floats(fake)}


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same(scalar: Scalar) -> Scalar:
    return scalar


def _floats(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex())


@contextlib.contextmanager
def _below(box: Box) -> Iterator[None]:
    """Torch's operations are seen whole; what transforms are at work in is seen as they leave it."""
    if box.boxes:
        yield
    else:
        with torch._C._AutoDispatchBelowAutograd():
            yield


@contextlib.contextmanager
def _as_recorded(call: Call) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if call.autocast is not None:
            stack.enter_context(torch.autocast(call.autocast[0], dtype=call.autocast[1], cache_enabled=False))
        if not call.gradient:
            stack.enter_context(torch.no_grad())
        yield
