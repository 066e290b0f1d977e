"""The law of going back: a backward circuit gives what autograd gives, and so does the backward circuit of that."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuits.autodiff import backward
from circuits.checking import definitions
from circuits.diagram import Diagram, Value, attribute, wires
from circuits.errors import CircuitError, SignatureError
from circuits.laws.comparison import agree, fail
from circuits.laws.counterexample import small
from circuits.laws.equality import circuits_in
from circuits.laws.subject import DoesNotApply, Sizes, Source, Subject, seeded
from circuits.recording import trace
from circuits.signature import Axes, parse_axes


@small
def backward_rule(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """The backward circuit gives the cotangents that autograd finds for the definition, and writes to nothing.

    It is what `@f.backward` gave, here and in every circuit inside, and what `backward` derives where nothing was
    given. What comes out has random cotangents. Compared are those of every floating input and parameter; then, where
    torch can differentiate again, the same of the backward circuit itself. Optional tensors are left out, then all
    given. DoesNotApply where nothing has a derivative, and where `backward` refuses what it is to derive.

    >>> from circuits import circuit
    >>> square = circuit("a -> a")(lambda x: x * x)
    >>> _ = square.backward(lambda x, dy: 2 * x * dy)
    >>> backward_rule(square)
    """
    _hold(Subject("backward_rule", f, sizes, inputs, seed, arguments))


@small
def backward_by_hand(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """`backward_rule` of what has a backward circuit by hand; DoesNotApply where `backward` derives all of it."""
    subject = Subject("backward_rule", f, sizes, inputs, seed, arguments)
    if not _by_hand(subject):
        raise DoesNotApply(f"laws.backward_rule: no circuit with a backward by hand runs in {subject.circuit.title}")
    _hold(subject)


def _by_hand(subject: Subject) -> bool:
    return any(circuit.body.backward is not None for circuit in circuits_in(subject))


def _hold(subject: Subject) -> None:
    for parameter in subject.parameters().values():
        parameter.requires_grad_(parameter.is_floating_point())
    by_hand = _by_hand(subject)
    cases = [_Case(subject, by_hand, [f"with {name}" for name in optional]) for optional in subject.extremes()]
    compared = [case.hold(subject.tensors(optional)) for case, optional in zip(cases, subject.extremes(), strict=True)]
    if not any(compared):
        raise DoesNotApply(f"laws.backward_rule: nothing in {subject.circuit.title} has a derivative")


class Asked(NamedTuple):
    """A tensor whose cotangent is compared: what it is called, its axes if they have names, and itself, watched."""

    name: str
    axes: Axes | None
    tensor: Tensor


class _Case(NamedTuple):
    """One choice of the optional tensors."""

    subject: Subject
    by_hand: bool
    notes: list[str]

    def hold(self, tensors: Mapping[str, Tensor]) -> bool:
        """AssertionError where a cotangent is another than autograd's; whether there is any."""
        tensors = {name: _watched(each) for name, each in tensors.items()}
        with definitions():
            outputs = [each for each in self.subject(tensors) if _floats(each)]
        if not any(each.requires_grad for each in outputs):
            return False
        diagram = self._made(self._recorded(tensors))
        backs = [_watched(each) for each in self._random(outputs, 1)]
        given = [*self._ordered(diagram, tensors), *backs]
        asked = self._asked(diagram, given, len(backs))
        expected = _gradients(outputs, asked, backs)
        self._agree(diagram, given, asked, expected, "")
        self._hold_again(diagram, given, expected)
        return True

    def _hold_again(self, first: Diagram, given: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """The same for the backward circuit, if torch can differentiate what it gives."""
        slopes = self._random(expected, 2)
        asked = self._asked(first, given, 0)
        try:
            wanted = _gradients(expected, asked, slopes)
        except RuntimeError:
            return
        self._agree(self._made(first), [*given, *slopes], asked, wanted, "differentiated again, ")

    # --- the backward circuit

    def _recorded(self, tensors: Mapping[str, Tensor]) -> Diagram:
        args, kwargs = self.subject.bound(tensors)
        try:
            with seeded(self.subject.seed):
                return trace(self.subject.f, *args, **kwargs)
        except CircuitError as error:
            raise self._unspoken(error) from error

    def _made(self, diagram: Diagram) -> Diagram:
        """The backward circuit; AssertionError where a rule is to blame that there is none."""
        try:
            return backward(diagram)
        except Exception as error:
            if type(error) is CircuitError and not self.by_hand:
                raise self._unspoken(error) from error
            brief = f"{error}".strip().partition("\n")[0]
            fail(self.subject, f"there is no backward circuit: {brief or type(error).__name__}", *self.notes)

    def _unspoken(self, error: CircuitError) -> DoesNotApply:
        return DoesNotApply(f"laws.backward_rule: {self.subject.circuit.title}: {error}")

    def _agree(
        self, diagram: Diagram, given: Sequence[Tensor], asked: Sequence[Asked], expected: Sequence[Tensor], again: str
    ) -> None:
        """AssertionError where a backward circuit gives something else, or writes to what it is given."""
        handed = [each.detach().clone() for each in given]
        with seeded(self.subject.seed), torch.no_grad():
            found = list(diagram(*handed).values())
        for (value, its), mine in zip(_given(diagram, given), handed, strict=True):
            if not torch.equal(mine, its):
                fail(self.subject, f"{again}the backward circuit writes to {value.name}", *self.notes)
        words = ("by hand" if self.by_hand else "by the backward circuit", "by autograd")
        for each, mine, its in zip(asked, found, expected, strict=True):
            name = f"{again}the cotangent of {each.name}"
            agree(self.subject, name, each.axes, mine, its.detach(), words, *self.notes)

    # --- what goes in

    def _random(self, like: Sequence[Tensor], draw: int) -> list[Tensor]:
        with seeded(self.subject.seed + draw):
            return [torch.randn_like(each) for each in like]

    def _ordered(self, diagram: Diagram, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """The inputs in the order in which a backward circuit takes them: by place, then by name."""
        args, _ = self.subject.bound(tensors)
        return [*args, *[tensors[word] for word in diagram.arguments.keys[len(args) : len(tensors)]]]

    def _asked(self, diagram: Diagram, given: Sequence[Tensor], cotangents: int) -> list[Asked]:
        """The floating inputs, but for the cotangents at the end, and parameters, in the order of what is given."""
        axes = {slot.name: slot.axes for slot in self.subject.circuit.slots}
        at = {value.number: tensor for value, tensor in _given(diagram, given)}
        inputs = diagram.inputs[: len(diagram.inputs) - cotangents]
        found = []
        for value in [value for value in (*inputs, *diagram.parameters) if _floats(value)]:
            tensor = at[value.number] if value.number in at else _parameter(diagram, value)
            found.append(Asked(value.name, axes.get(value.name) or _axes(value), tensor))
        return found


def _given(diagram: Diagram, given: Sequence[Tensor]) -> list[tuple[Value, Tensor]]:
    """Tensors in the order of a call, each with the value that it is inside."""
    values = {value.number: value for value in diagram.inputs}
    numbers = wires(diagram.arguments)
    return [(values[number], tensor) for number, tensor in zip(numbers, given, strict=True)]


def _parameter(diagram: Diagram, value: Value) -> Tensor:
    """A parameter; one that nobody reads is any tensor, for it has no gradient."""
    if value.number in diagram.state:
        return attribute(*diagram.state[value.number])
    return torch.zeros([int(size) for size in value.sizes], dtype=value.dtype, requires_grad=True)


def _axes(value: Value) -> Axes | None:
    """The axes of a value, if all have names."""
    with suppress(SignatureError):
        return parse_axes(f"{value}") if None not in value.axes else None
    return None


def _gradients(outputs: Sequence[Tensor], asked: Sequence[Asked], backs: Sequence[Tensor]) -> list[Tensor]:
    """What autograd finds, so that it can be differentiated again; zeros where nothing flows."""
    ways = [(each, back) for each, back in zip(outputs, backs, strict=True) if each.requires_grad]
    if not ways:
        return [torch.zeros_like(each.tensor) for each in asked]
    tensors = [each.tensor for each in asked]
    found = torch.autograd.grad(
        [each for each, _ in ways], tensors, [back for _, back in ways], create_graph=True, allow_unused=True
    )
    return [torch.zeros_like(each) if back is None else back for each, back in zip(tensors, found, strict=True)]


def _watched(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_() if _floats(tensor) else tensor


def _floats(tensor: Tensor | Value) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex
