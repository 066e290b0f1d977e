"""What a torch call is made of: its ATen operations, down to those that have reverse rules.

A call runs once on fake tensors under a dispatch mode below autograd, which sees an operation whole (`layer_norm`,
`einsum`, `softmax`) before torch takes it apart. One with a rule, or through which no gradient flows, is noted as it
is; another is replaced by its definition, or by what torch decomposes it into; what has no rule even then is opaque.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from circuits.autodiff.aten import (
    MISTAKEN,
    casting,
    given_by,
    gives_tensors,
    in_new_tensors,
    name_of,
    named,
    packed,
    recasts,
)
from circuits.autodiff.opaque import AutogradPullback, Pullback
from circuits.autodiff.rules.registry import DEFINITIONS, RULES, Rule
from circuits.autodiff.workspace import Bench
from circuits.diagram import Call, Struct, Wire, change, convert, describe, describe_all, tensors, wires
from circuits.errors import CircuitError
from circuits.recording import Call as Heard


class ThroughAView(Exception):
    """A call writes to a view that it takes itself."""


@dataclass(frozen=True)
class Step:
    """One operation that gradients flow through, with wires for tensors; `rule` is its own, or an opaque `Pullback`."""

    name: str
    rule: Rule | Pullback
    arguments: Mapping[str, Any]
    result: Any


class Lowering(TorchDispatchMode):
    """Notes what a call is made of, as heard operations and as `steps`; `active` are the values on the way.

    `noted` counts the operations; `changed` is whether they are others than torch would run.
    """

    def __init__(self, bench: Bench, active: set[int], call: Call) -> None:
        super().__init__()
        self.bench = bench
        self.active = active
        self.call = call
        self.steps: list[Step] = []
        self.noted = 0
        self.changed = False
        self.first = len(bench.listener.record.values)
        self.stands: dict[int, Tensor] = {}
        self.given = {number: bench.fakes[number] for part in (call.args, call.kwargs) for number in wires(part)}
        self.storages: dict[int, list[Tensor]] = {}
        self._hold(list(self.given.values()))

    # One call from outside

    def answer(self, function: Callable[..., Any], apart: Iterable[int] | None) -> Any:
        """What the call gives, in new tensors; `apart` are those that it writes, where it writes through views."""
        args, kwargs = self.bench.fill(Struct(tuple, (), (self.call.args, self.call.kwargs)))
        answer = function(*args, **kwargs) if apart is None else self._apart(function, set(apart))
        return convert(answer, lambda tensor: self.stands.get(id(tensor), tensor))

    def _apart(self, function: Callable[..., Any], apart: set[int]) -> Any:
        """The same, by functions alone: no tensor is written, neither itself nor through a view."""
        numbers = list(self.given)
        form: list[Any] = []

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            own = [each.clone() if number in apart else each for number, each in zip(numbers, given, strict=True)]
            at = dict(zip(numbers, own, strict=True))
            args, kwargs = (
                change(part, lambda wire: at[wire.number], self.bench.scalar)
                for part in (self.call.args, self.call.kwargs)
            )
            found: list[Tensor] = []
            form[:] = [describe(function(*args, **kwargs), lambda tensor: _put(found, tensor))]
            return tuple(found)

        self.changed = True
        found = torch.func.functionalize(run)(*self.given.values())
        return change(form[0], lambda wire: found[wire.number], lambda scalar: scalar.expression)

    def settle(self, results: dict[int, Tensor]) -> None:
        """A result that was there before, or comes twice, is a value of its own."""
        seen: set[int] = set()
        for number, fake in results.items():
            if self.bench.wire(fake) < self.first or id(fake) in seen:
                results[number] = torch.ops.aten.alias.default(fake)
            seen.add(id(results[number]))

    def rename(self, results: Mapping[int, Tensor]) -> None:
        """The results bear the numbers that the call gives them."""
        for number, fake in self.given.items():
            self.bench.known(fake, number)
        numbers = {self.bench.wire(fake): number for number, fake in results.items()}

        def renamed(description: Any) -> Any:
            return change(description, lambda wire: Wire(numbers.get(wire.number, wire.number)), _same, make=False)

        for event in self.bench.listener.record.events:
            if isinstance(event, Heard):
                event.args = tuple([renamed(each) for each in event.args])
                event.kwargs = {name: renamed(each) for name, each in event.kwargs.items()}
                event.result = renamed(event.result)
        self.steps = [
            replace(step, arguments={k: renamed(v) for k, v in step.arguments.items()}, result=renamed(step.result))
            for step in self.steps
        ]
        self.active = {numbers.get(number, number) for number in self.active}
        for number, fake in results.items():
            self.bench.put(number, fake)

    # One operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if func.namespace == "prim" or not gives_tensors(func):
            return func(*args, **kwargs)
        if name.startswith("lift_fresh"):
            return self._constant(args[0], func(*args, **kwargs))
        if func._schema.is_mutable and name.endswith("_") and self._holds(args, kwargs):
            turns = torch.Tag.inplace_view in func.tags
            return (self._turn if turns else self._write)(func, name, args, kwargs)
        if not self._flows(args, kwargs):
            return self._note(func, args, kwargs)[0]
        if name in RULES and not recasts(func, args, kwargs, self.call.autocast):
            return self._step(func, name, RULES[name], args, kwargs)
        return self._take_apart(func, name, args, kwargs)

    def _constant(self, tensor: Tensor, fake: Tensor) -> Tensor:
        """A tensor that is written out in the code."""
        record = self.bench.listener.record
        number = record.add(fake, "constant", "")
        record.constants[number] = tensor
        self.bench.fakes[number] = fake
        self.bench.known(fake, number)
        return fake

    def _flows(self, args: Any, kwargs: Any) -> bool:
        return torch.is_grad_enabled() and self._holds(args, kwargs)

    def _holds(self, args: Any, kwargs: Any) -> bool:
        return any(_floats(tensor) and self.bench.wire(tensor) in self.active for tensor in tensors((args, kwargs)))

    def _note(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Heard]:
        """Run one operation, and write it down."""
        values = self.bench.listener.values
        described = {name: describe(value, values.wire) for name, value in kwargs.items()}
        event = Heard(func, describe_all(args, values.wire), described, "", "")
        answer = func(*args, **kwargs)
        if not func._schema.is_mutable:
            answer = _apart(answer, tensors((args, kwargs)))
        event.result = describe(answer, values.made)
        event.autocast = None
        self.bench.listener.record.events.append(event)
        made = tensors(answer)
        self.bench.fakes |= {values.wire(tensor).number: tensor for tensor in made}
        self._hold(made)
        self.noted += 1
        return answer, event

    def _hold(self, made: list[Tensor]) -> None:
        for tensor in made:
            if tensor.layout is torch.strided:
                self.storages.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)

    def _step(self, func: Any, name: str, rule: Rule, args: Any, kwargs: Any) -> Any:
        if any(tensor.is_complex() for tensor in tensors((args, kwargs))):
            return self._opaque(func, name, args, kwargs)
        answer, event = self._note(func, args, kwargs)
        self._on_the_way(answer)
        self.steps.append(Step(name, rule, named(func, event.args, event.kwargs), event.result))
        return answer

    def _opaque(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise CircuitError(f"{name} draws random numbers and has no reverse rule, so its gradient cannot be known")
        answer, event = self._note(func, args, kwargs)
        self._on_the_way(answer)
        arguments = packed(
            Struct(tuple, (), event.args), Struct(dict, tuple(event.kwargs), tuple(event.kwargs.values()))
        )
        pullback = Pullback if func.namespace in ("aten", "prims") else AutogradPullback
        self.steps.append(Step(name, pullback(func, name), arguments, event.result))
        return answer

    def _on_the_way(self, answer: Any) -> None:
        self.active |= {self.bench.wire(tensor) for tensor in tensors(answer) if _floats(tensor)}

    def _take_apart(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name in DEFINITIONS:
            self.changed = True
            with self, casting(func, self.call.autocast):
                return DEFINITIONS[name](*args, **kwargs)
        if not any(_floats(tensor) for tensor in tensors(given_by(func, args, kwargs, self.call.autocast))):
            return self._note(func, args, kwargs)[0]
        with self, casting(func, self.call.autocast):
            answer = func.decompose(*args, **kwargs)
        if answer is not NotImplemented:
            return answer
        known = func in decomposition_table and name not in MISTAKEN
        found = self._tried(decomposition_table[func], args, kwargs) if known else None
        return self._opaque(func, name, args, kwargs) if found is None else found

    def _tried(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What a decomposition gives, if all of it has rules; else None, as if nothing had happened."""
        events, before = self.bench.listener.record.events, (self.noted, set(self.active))
        heard, stepped = len(events), len(self.steps)
        try:
            with self:
                found = function(*args, **kwargs)
        except (CircuitError, ThroughAView, NotImplementedError):
            found = None
        if found is None or any(isinstance(step.rule, Pullback) for step in self.steps[stepped:]):
            del events[heard:], self.steps[stepped:]
            self.noted, self.active = before
            return None
        return found

    def _write(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """An operation that writes: the functional one, whose answer stands for the written tensor from here on.

        Autograd sees no write that is hidden from it, and goes back through the tensor as if there were none.
        """
        target = args[0]
        packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
        functional = getattr(packet, func._overloadname, None)
        if len(self.storages.get(target.untyped_storage()._cdata, ())) > 1:
            raise ThroughAView
        if functional is None:
            raise CircuitError(f"{name} writes to what gradients flow through, and no function gives what it writes")
        made = self.__torch_dispatch__(functional, (), args, kwargs)
        if not torch.is_grad_enabled() and self.bench.wire(target) in self.active:
            with torch.enable_grad(), self:
                made = made.detach() + (target - target.detach())
        before = self.bench.wire(target)
        self.bench.known(target, self.bench.wire(made))
        if before not in self.given:
            self.bench.put(before, target)
        self.stands[id(target)] = made
        self.changed = True
        return target

    def _turn(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """An operation that turns a tensor in place, and writes none of its numbers: the view that it becomes."""
        target, before = args[0], self.bench.wire(args[0])
        functional = in_new_tensors(func)
        if functional is None or before in self.given:
            raise CircuitError(f"{name} changes what gradients flow through in place; compute a new value instead")
        self.bench.fakes[before] = torch.ops.aten.alias.default(target)
        made = self.__torch_dispatch__(functional, (), args, kwargs)
        func(*args, **kwargs)
        self.bench.known(self.bench.fakes[before], before)
        self.bench.known(target, self.bench.wire(made))
        self.stands[id(target)] = made
        self.changed = True
        return target


def _apart(answer: Any, given: list[Tensor]) -> Any:
    """An answer in which nothing is the very tensor that was given."""
    same = {id(tensor) for tensor in given}
    return convert(answer, lambda tensor: torch.ops.aten.alias.default(tensor) if id(tensor) in same else tensor)


def _put(found: list[Tensor], tensor: Tensor) -> Wire:
    found.append(tensor)
    return Wire(len(found) - 1)


def _same(scalar: Any) -> Any:
    return scalar


def _floats(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
