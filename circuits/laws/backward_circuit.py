"""The law of backward circuits: a backward circuit agrees with autograd at first and second order."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuits.autodiff import backward
from circuits.diagram import Diagram, Value, attribute, wires
from circuits.errors import CircuitError, SignatureError
from circuits.laws.called_circuits import circuits_in
from circuits.laws.comparison import assert_close, fail
from circuits.laws.copies import seeded
from circuits.laws.counterexample import smallest_counterexample
from circuits.laws.gradients import can_have_gradient, twice_differentiable
from circuits.laws.inputs import Source
from circuits.laws.sizes import Sizes
from circuits.laws.subject import DoesNotApply, Subject
from circuits.recording import trace
from circuits.signature import Axes, parse_axes


@smallest_counterexample
def backward_rule(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """The backward circuit returns the cotangents that autograd computes for the definition, and writes to no input.

    It contains the custom backward circuits that are registered with `@f.backward` for the circuit and for the circuits
    it calls; `backward` derives the rest. The cotangents of the outputs are random. The cotangents of every floating or
    complex input and parameter are compared; then, if torch has second derivatives, those of the backward circuit
    itself. The law is checked without optional tensors, and then with all of them.

    Args:
        f: A circuit.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: A cotangent differs from autograd's, the backward circuit writes to an input, or a custom
            backward circuit cannot be used.
        DoesNotApply: No output has a derivative, or `backward` cannot derive the backward circuit.

    >>> from circuits import circuit
    >>> square = circuit("a -> a")(lambda x: x * x)
    >>> _ = square.backward(lambda x, dy: 2 * x * dy)
    >>> backward_rule(square)
    """
    _check(Subject("backward_rule", f, sizes, inputs, seed, arguments))


@smallest_counterexample
def custom_backward_rule(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """Check `backward_rule` if a circuit with a custom backward circuit is called; otherwise raise DoesNotApply."""
    subject = Subject("backward_rule", f, sizes, inputs, seed, arguments)
    if not _has_custom_rule(subject):
        raise DoesNotApply(
            f"laws.backward_rule: no circuit with a custom backward circuit runs in {subject.circuit.title}"
        )
    _check(subject)


def _has_custom_rule(subject: Subject) -> bool:
    """Return whether the circuit, or a circuit that it calls, has a custom backward circuit."""
    return any(circuit.body.backward is not None for circuit in circuits_in(subject))


def _check(subject: Subject) -> None:
    """Check the law without optional tensors, and then with all of them."""
    for parameter in subject.parameters().values():
        parameter.requires_grad_(parameter.is_floating_point())
    custom = _has_custom_rule(subject)
    cases = [_Case(subject, custom, [f"with {name}" for name in optional]) for optional in subject.none_and_all()]
    found = [case.check(subject.tensors(each)) for case, each in zip(cases, subject.none_and_all(), strict=True)]
    if not any(found):
        raise DoesNotApply(f"laws.backward_rule: no output of {subject.circuit.title} has a derivative")


class Compared(NamedTuple):
    """A tensor whose cotangent is compared: its name, its axes (None if any has no name), and a leaf of autograd."""

    name: str
    axes: Axes | None
    tensor: Tensor


class _Case(NamedTuple):
    """The law for one choice of the optional tensors.

    Attributes:
        subject: The circuit.
        custom: Whether a circuit with a custom backward circuit is called.
        notes: Lines for the message that name the optional tensors.
    """

    subject: Subject
    custom: bool
    notes: list[str]

    def check(self, tensors: Mapping[str, Tensor]) -> bool:
        """Raise BrokenLaw if the law does not hold; return False if no output has a derivative, otherwise True."""
        tensors = {name: _leaf(each) for name, each in tensors.items()}
        with twice_differentiable():
            outputs = [each for each in self.subject(tensors) if can_have_gradient(each)]
        if not any(each.requires_grad for each in outputs):
            return False
        diagram = self._backward(self._recorded(tensors))
        cotangents = [_leaf(each) for each in self._random(outputs, 1)]
        given = [*self._ordered(diagram, tensors), *cotangents]
        compared = self._compared(diagram, given, len(cotangents))
        expected = _gradients(outputs, compared, cotangents)
        self._compare(diagram, given, compared, expected, "")
        self._check_second_order(diagram, given, expected)
        return True

    def _check_second_order(self, first: Diagram, given: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """Check the backward circuit of the backward circuit, if torch has second derivatives."""
        cotangents = self._random(expected, 2)
        compared = self._compared(first, given, 0)
        try:
            second = _gradients(expected, compared, cotangents)
        except RuntimeError:
            return
        self._compare(self._backward(first), [*given, *cotangents], compared, second, "at second order, ")

    # --- the backward circuit

    def _recorded(self, tensors: Mapping[str, Tensor]) -> Diagram:
        """Return the diagram of the circuit; raise DoesNotApply if it cannot be recorded."""
        args, kwargs = self.subject.bound(tensors)
        try:
            with seeded(self.subject.seed):
                return trace(self.subject.f, *args, **kwargs)
        except CircuitError as error:
            raise self._does_not_apply(error) from error

    def _backward(self, diagram: Diagram) -> Diagram:
        """Return the backward circuit of a diagram.

        Raises:
            DoesNotApply: `backward` raises CircuitError, not a subclass of it, and `custom` is False.
            BrokenLaw: `backward` raises any other error.
        """
        try:
            return backward(diagram)
        except Exception as error:
            if type(error) is CircuitError and not self.custom:
                raise self._does_not_apply(error) from error
            brief = f"{error}".strip().partition("\n")[0]
            fail(self.subject, f"the backward circuit cannot be made: {brief or type(error).__name__}", *self.notes)

    def _does_not_apply(self, error: CircuitError) -> DoesNotApply:
        """Return DoesNotApply with the message of another error."""
        return DoesNotApply(f"laws.backward_rule: {self.subject.circuit.title}: {error}")

    def _compare(
        self,
        diagram: Diagram,
        given: Sequence[Tensor],
        compared: Sequence[Compared],
        expected: Sequence[Tensor],
        order: str,
    ) -> None:
        """Raise BrokenLaw if a backward circuit returns cotangents other than `expected`, or writes to an input."""
        passed = [each.detach().clone() for each in given]
        with seeded(self.subject.seed), torch.no_grad():
            found = list(diagram(*passed).values())
        for (value, before), after in zip(_input_pairs(diagram, given), passed, strict=True):
            if not torch.equal(after, before):
                fail(self.subject, f"{order}the backward circuit writes to {value.name}", *self.notes)
        kind = "custom backward circuit" if self.custom else "backward circuit"
        origins = (f"by the {kind}", "by autograd")
        for each, one, other in zip(compared, found, expected, strict=True):
            name = f"{order}the cotangent of {each.name}"
            assert_close(self.subject, name, each.axes, one, other.detach(), origins, *self.notes)

    # --- the inputs of the backward circuit

    def _random(self, like: Sequence[Tensor], draw: int) -> list[Tensor]:
        """Return random tensors with the shapes and dtypes of the tensors in `like`; `draw` is added to the seed."""
        with seeded(self.subject.seed + draw):
            return [torch.randn_like(each) for each in like]

    def _ordered(self, diagram: Diagram, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the inputs in the order of a backward circuit's parameters: positional ones, then keyword ones."""
        args, _ = self.subject.bound(tensors)
        return [*args, *[tensors[name] for name in diagram.arguments.keys[len(args) : len(tensors)]]]

    def _compared(self, diagram: Diagram, given: Sequence[Tensor], cotangents: int) -> list[Compared]:
        """Return the tensors whose cotangents are compared: the floating or complex inputs and parameters.

        The last `cotangents` inputs of the diagram are the cotangents of its outputs, and are not included.
        """
        axes = {slot.name: slot.axes for slot in self.subject.circuit.slots}
        by_number = {value.number: tensor for value, tensor in _input_pairs(diagram, given)}
        inputs = diagram.inputs[: len(diagram.inputs) - cotangents]
        found = []
        for value in [value for value in (*inputs, *diagram.parameters) if can_have_gradient(value)]:
            tensor = by_number[value.number] if value.number in by_number else _parameter(diagram, value)
            found.append(Compared(value.name, axes.get(value.name) or _axes(value), tensor))
        return found


def _input_pairs(diagram: Diagram, given: Sequence[Tensor]) -> list[tuple[Value, Tensor]]:
    """Return the pairs (value of the diagram, tensor) of the inputs of a call."""
    values = {value.number: value for value in diagram.inputs}
    numbers = wires(diagram.arguments)
    return [(values[number], tensor) for number, tensor in zip(numbers, given, strict=True)]


def _parameter(diagram: Diagram, value: Value) -> Tensor:
    """Return the tensor of a parameter; zeros for an unused parameter, which has no gradient."""
    if value.number in diagram.state:
        return attribute(*diagram.state[value.number])
    return torch.zeros([int(size) for size in value.sizes], dtype=value.dtype, requires_grad=True)


def _axes(value: Value) -> Axes | None:
    """Return the axes of a value; None unless all of them have names."""
    with suppress(SignatureError):
        return parse_axes(f"{value}") if None not in value.axes else None
    return None


def _gradients(outputs: Sequence[Tensor], compared: Sequence[Compared], cotangents: Sequence[Tensor]) -> list[Tensor]:
    """Return autograd's gradients of `compared`, which can be differentiated again; zeros where no gradient flows."""
    pairs = [(each, cotangent) for each, cotangent in zip(outputs, cotangents, strict=True) if each.requires_grad]
    tensors = [each.tensor for each in compared]
    if not pairs:
        return [torch.zeros_like(each) for each in tensors]
    found = torch.autograd.grad(
        [each for each, _ in pairs], tensors, [each for _, each in pairs], create_graph=True, allow_unused=True
    )
    return [torch.zeros_like(each) if one is None else one for each, one in zip(tensors, found, strict=True)]


def _leaf(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor that is a leaf of autograd; the tensor itself if its dtype has no gradients."""
    return tensor.detach().clone().requires_grad_() if can_have_gradient(tensor) else tensor
