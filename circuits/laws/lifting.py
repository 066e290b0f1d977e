"""The law of broadcasting: a circuit lifted over more axes equals a loop that calls it at every index."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.broadcasting import broadcast
from circuits.checking import Circuit, Slot, has_rest
from circuits.errors import CircuitError, SignatureError
from circuits.laws.comparison import assert_close, output_slots
from circuits.laws.counterexample import smallest_counterexample
from circuits.laws.inputs import Source
from circuits.laws.sizes import PRIMES, Sizes
from circuits.laws.subject import DoesNotApply, Subject
from circuits.signature import Axes, Rest, Signature, Term, show_axes


@smallest_counterexample
def broadcasting(
    f: Any,
    /,
    target: str | None = None,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """`broadcast(f, target)` returns what a Python loop returns that calls `f` at every index of the lifted axes.

    Without a target every input is lifted over two leading axes; then, if there are several inputs, the first one over
    one axis. For a circuit with `...` this tests that `...` may stand for any axes. Optional tensors are not lifted.

    Args:
        f: A circuit.
        target: The signature of the lifted circuit, as for `circuits.broadcast`.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: The lifted circuit and the loop return different numbers.
        DoesNotApply: There is no target, and `broadcast` refuses to lift the circuit.

    >>> from circuits import circuit
    >>> broadcasting(circuit("a -> ")(lambda x: x.sum()), "a c -> c")
    """
    subject = Subject("broadcasting", f, sizes, inputs, seed, arguments)
    for text in [target] if target is not None else _targets(subject.circuit):
        looped = _LoopedCircuit(subject, Signature.parse(text))
        try:
            lifted = broadcast(subject.f, text)
        except CircuitError as error:
            if target is not None or not isinstance(error, SignatureError):
                raise
            raise DoesNotApply(f"{error}") from error
        for optional in subject.none_and_all():
            tensors = looped.tensors(optional)
            try:
                found = subject.run(lifted, tensors)
            except CircuitError as error:
                if target is not None or not f"{error}".startswith("broadcast: "):
                    raise
                raise DoesNotApply(f"{error}") from error
            for slot, axes, result in zip(output_slots(subject, len(found)), looped.target.outputs, found, strict=True):
                expected = looped.by_loop(tensors, slot, axes, result)
                origins = ("from the lifted circuit", "from the circuit called at that index")
                assert_close(subject, slot.name, axes, result, expected, origins, f"lifted to {text}")


Label = tuple[Term, int]
"""One axis of a tensor: a term of its signature, and how many axes before it have the same term."""


class _LoopedCircuit:
    """A circuit that is called in a loop over the axes that a target signature adds.

    Attributes:
        subject: The circuit.
        target: The signature of the lifted circuit.
        has_lead: Whether the inputs of the target have `...`.
        lead: The number of axes that `...` stands for.
        sizes: The size of each named axis of the target.
    """

    def __init__(self, subject: Subject, target: Signature) -> None:
        self.subject, self.target = subject, target
        self.has_lead = any(has_rest(axes) for axes in target.inputs)
        self.lead = len(subject.lead) or 1
        self.sizes = dict(subject.sizes)
        free = iter(PRIMES)
        for axes in target.inputs:
            for name in [name for term in axes for name in term.names if name not in self.sizes]:
                self.sizes[name] = next(free)

    def labels(self, axes: Axes) -> list[Label]:
        """Return a label for each axis of a tensor, including each axis that `...` stands for."""
        found: list[Label] = []
        for term in axes:
            if isinstance(term, Rest):
                found += [(term, number) for number in range(self.lead if self.has_lead else 0)]
            else:
                found.append((term, [each for each, _ in found].count(term)))
        return found

    def tensors(self, optional: Sequence[str]) -> dict[str, Tensor]:
        """Return random inputs of the lifted circuit; optional tensors are not lifted."""
        lead = (self.subject.lead or (2,)) if self.has_lead else ()
        axes = dict(zip(self.subject.circuit.inputs, self.target.inputs, strict=False))
        return self.subject.tensors(optional, sizes=self.sizes, lead=lead, axes=axes)

    def by_loop(self, tensors: Mapping[str, Tensor], slot: Slot, axes: Axes, like: Tensor) -> Tensor:
        """Return one output of the lifted circuit, by a call of the circuit at each index of the lifted axes."""
        expected = torch.zeros_like(like)
        own = self.labels(slot.axes)
        lifted = [(label, size) for label, size in zip(self.labels(axes), like.shape, strict=True) if label not in own]
        number = self.subject.circuit.results.index(slot)
        for index in itertools.product(*[range(size) for _, size in lifted]):
            where = {label: each for (label, _), each in zip(lifted, index, strict=True)}
            indexed = {name: self.indexed(name, each, where) for name, each in tensors.items()}
            output = self.subject(indexed)[number]
            kept = [label for label in self.labels(axes) if label in own]
            expected[tuple([where.get(label, slice(None)) for label in self.labels(axes)])] = output.permute(
                [own.index(label) for label in kept]
            )
        return expected

    def indexed(self, name: str, tensor: Tensor, where: Mapping[Label, int]) -> Tensor:
        """Return one input at an index of the lifted axes, with its other axes in the circuit's order."""
        circuit = self.subject.circuit
        if name not in circuit.inputs:
            return tensor
        number = circuit.inputs.index(name)
        own, labels = (self.labels(side.inputs[number]) for side in (circuit.signature, self.target))
        at_index = tensor[tuple([slice(None) if label in own else where[label] for label in labels])]
        kept = [label for label in labels if label in own]
        return at_index.permute([kept.index(label) for label in own])


def _targets(circuit: Circuit) -> list[str]:
    """Return targets: all inputs lifted over two axes; if there are several inputs, only the first over one."""
    signature = circuit.signature
    names = {name for slot in (*circuit.slots, *circuit.results) for term in slot.axes for name in term.names}
    first, second = [name for name in ("p", "q", "p'", "q'", "p''", "q''") if name not in names][:2]

    def side_text(side: Sequence[Axes], over: str, only: int | None = None) -> str:
        texts = [show_axes(axes[has_rest(axes) :]) for axes in side]
        return ", ".join(
            [text if only not in (None, number) else f"{over} {text}" for number, text in enumerate(texts)]
        )

    both = f"{first} {second}"
    targets = [f"{side_text(signature.inputs, both)} -> {side_text(signature.outputs, both)}"]
    if len(signature.inputs) > 1:
        targets.append(f"{side_text(signature.inputs, first, 0)} -> {side_text(signature.outputs, first)}")
    return targets
