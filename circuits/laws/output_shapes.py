"""Laws of shape: what comes out has the axes promised, and a circuit lifted is the circuit at every index."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.broadcasting import broadcast
from circuits.checking import Circuit, Slot, checks, has_rest
from circuits.errors import CircuitError, ShapeError, SignatureError
from circuits.laws.comparison import agree, fail, results
from circuits.laws.counterexample import small
from circuits.laws.subject import PRIMES, DoesNotApply, Sizes, Source, Subject
from circuits.signature import Axes, Rest, Signature, Term, show_axes, unknown


@small
def shapes(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """What comes out has the axes of the signature, with any axes for `...`; tensors that clash are refused.

    Nothing is computed: sizes are distinct primes on the meta device, and the circuit's own check is off.

    >>> from circuits import circuit
    >>> shapes(circuit("a b -> b a")(lambda x: x.mT))
    """
    subject = Subject("shapes", f, sizes, inputs, seed, arguments)
    led = any(has_rest(slot.axes) for slot in subject.circuit.slots)
    leads: list[tuple[int, ...]] = [subject.lead]
    if led and "..." not in (sizes or {}):
        leads += [(), (*subject.lead, 53)]
    device = _weightless(subject)
    for optional, lead in itertools.product(subject.extremes(), leads):
        tensors = {name: each.to(device) for name, each in subject.tensors(optional, lead=lead).items()}
        with checks(False):
            found = subject(tensors)
        _promised(subject, found, lead)
        _refused(subject, tensors)


def _weightless(subject: Subject) -> torch.device:
    """The meta device, with the copy moved there; a function that holds tensors stays where these are."""
    meta, home = torch.device("meta"), subject.device
    if subject.module is not None:
        subject.module.to(meta)
        return meta
    try:
        with checks(False):
            subject({name: each.to(meta) for name, each in subject.tensors().items()})
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in f"{error}" and "device" not in f"{error}":
            raise
        return home
    return meta


def _promised(subject: Subject, found: Sequence[Tensor], lead: Sequence[int]) -> None:
    """Compare shapes with the signature's; an axis that only comes out is taken as it comes, everywhere the same."""
    sizes = dict(subject.sizes)
    for slot, tensor in zip(results(subject, len(found)), found, strict=True):
        ahead = len(lead) if has_rest(slot.axes) else 0
        named = [term for term in slot.axes if not isinstance(term, Rest)]
        sound = tensor.ndim == ahead + len(named) and tuple(tensor.shape[:ahead]) == tuple(lead)[:ahead]
        for term, size in zip(named, tensor.shape[ahead:], strict=False):
            if unknown(term, sizes):
                sizes |= {name: size for name in term.names if f"{term}" == name}
            else:
                sound &= term.size(sizes) == size
        if not sound:
            promised = [*lead[:ahead], *[f"{term.size(sizes) if not unknown(term, sizes) else term}" for term in named]]
            fail(
                subject,
                f"{slot.name} [{show_axes(slot.axes)}] is {_text(tensor.shape)}, but {_text(promised)} is promised",
                *[f"{name} is {_text(subject.shape(axes, lead=lead))}" for name, axes in _inputs(subject)],
            )


def _refused(subject: Subject, tensors: Mapping[str, Tensor]) -> None:
    """Each axis that two places state is made longer in one of them: ShapeError, or the law is broken."""
    places = [(name, place - len(axes), term) for name, axes in _inputs(subject) for place, term in enumerate(axes)]
    for name, place, term in places:
        others = [each for each in places if each[2] == term and each[:2] != (name, place)]
        if isinstance(term, Rest) or not (others or {*term.names} <= {*subject.circuit.fixed}):
            continue
        shape = list(tensors[name].shape)
        shape[place] += 1
        clash = {**tensors, name: tensors[name].new_empty(shape)}
        try:
            with checks(True):
                subject(clash)
        except ShapeError:
            continue
        fail(
            subject, f"{term} of {name} may be {shape[place]} where it is {shape[place] - 1} elsewhere: nobody refuses"
        )


def _inputs(subject: Subject) -> list[tuple[str, Axes]]:
    return [(slot.name, slot.axes) for slot in subject.circuit.slots if slot.role == "input"]


def _text(sizes: Sequence[Any]) -> str:
    return " ".join([f"{size}" for size in sizes]) or "one number"


@small
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
    """`broadcast(f, target)`, indexed, is `f` of what is indexed: a loop in plain Python over every lifted axis.

    Without a target every input is lifted over two axes, in front; a circuit that has `...` itself so promises that
    `...` is any axes. Optional tensors are shared. DoesNotApply where `broadcast` refuses to lift the circuit.

    >>> from circuits import circuit
    >>> broadcasting(circuit("a -> ")(lambda x: x.sum()), "a c -> c")
    """
    subject = Subject("broadcasting", f, sizes, inputs, seed, arguments)
    for text in [target] if target is not None else _targets(subject.circuit):
        lift = _Lift(subject, Signature.parse(text))
        try:
            lifted = broadcast(subject.f, text)
        except CircuitError as error:
            if target is not None or not isinstance(error, SignatureError):
                raise
            raise DoesNotApply(f"{error}") from error
        for optional in subject.extremes():
            tensors = lift.tensors(optional)
            try:
                found = subject.run(lifted, tensors)
            except CircuitError as error:
                if target is not None or not f"{error}".startswith("broadcast: "):
                    raise
                raise DoesNotApply(f"{error}") from error
            for slot, axes, mine in zip(results(subject, len(found)), lift.target.outputs, found, strict=True):
                its = lift.by_a_loop(tensors, slot, axes, mine)
                words = ("from the whole, indexed", "from the index alone")
                agree(subject, slot.name, axes, mine, its, words, f"lifted to {text}")


Label = tuple[Term, int]
"""One axis of a tensor: a term, and which of its occurrences."""


class _Lift:
    """A lifted signature beside that of a circuit: what to index, and where."""

    def __init__(self, subject: Subject, target: Signature) -> None:
        self.subject, self.target = subject, target
        self.led = any(has_rest(axes) for axes in target.inputs)
        self.lead = len(subject.lead) or 1
        self.sizes = dict(subject.sizes)
        free = iter(PRIMES)
        for axes in target.inputs:
            for name in [name for term in axes for name in term.names if name not in self.sizes]:
                self.sizes[name] = next(free)

    def labels(self, axes: Axes) -> list[Label]:
        """One label for each axis of a tensor; `...` has as many as it stands for."""
        found: list[Label] = []
        for term in axes:
            if isinstance(term, Rest):
                found += [(term, place) for place in range(self.lead if self.led else 0)]
            else:
                found.append((term, [each for each, _ in found].count(term)))
        return found

    def tensors(self, optional: Sequence[str]) -> dict[str, Tensor]:
        """Inputs of the lifted circuit; optional tensors have the axes of the circuit itself."""
        lead = (self.subject.lead or (2,)) if self.led else ()
        axes = dict(zip(self.subject.circuit.inputs, self.target.inputs, strict=False))
        return self.subject.tensors(optional, sizes=self.sizes, lead=lead, axes=axes)

    def by_a_loop(self, tensors: Mapping[str, Tensor], slot: Slot, axes: Axes, like: Tensor) -> Tensor:
        """One output of the circuit, at one index of the lifted axes after another."""
        expected = torch.zeros_like(like)
        own = self.labels(slot.axes)
        lifted = [(label, size) for label, size in zip(self.labels(axes), like.shape, strict=True) if label not in own]
        place = self.subject.circuit.results.index(slot)
        for index in itertools.product(*[range(size) for _, size in lifted]):
            where = {label: at for (label, _), at in zip(lifted, index, strict=True)}
            indexed = {name: self.indexed(name, each, where) for name, each in tensors.items()}
            answer = self.subject(indexed)[place]
            kept = [label for label in self.labels(axes) if label in own]
            expected[tuple([where.get(label, slice(None)) for label in self.labels(axes)])] = answer.permute(
                [own.index(label) for label in kept]
            )
        return expected

    def indexed(self, name: str, tensor: Tensor, where: Mapping[Label, int]) -> Tensor:
        """One input at an index, its own axes in the order that the circuit has them."""
        circuit = self.subject.circuit
        if name not in circuit.inputs:
            return tensor
        place = circuit.inputs.index(name)
        own, labels = (self.labels(side.inputs[place]) for side in (circuit.signature, self.target))
        picked = tensor[tuple([slice(None) if label in own else where[label] for label in labels])]
        kept = [label for label in labels if label in own]
        return picked.permute([kept.index(label) for label in own])


def _targets(circuit: Circuit) -> list[str]:
    """Every input lifted over two axes; then the first alone, where there are others to be shared."""
    signature = circuit.signature
    names = {name for slot in (*circuit.slots, *circuit.results) for term in slot.axes for name in term.names}
    first, second = [name for name in ("p", "q", "p'", "q'", "p''", "q''") if name not in names][:2]

    def lifted(side: Sequence[Axes], over: str, only: int | None = None) -> str:
        texts = [show_axes(axes[has_rest(axes) :]) for axes in side]
        return ", ".join([text if only not in (None, place) else f"{over} {text}" for place, text in enumerate(texts)])

    both = f"{first} {second}"
    targets = [f"{lifted(signature.inputs, both)} -> {lifted(signature.outputs, both)}"]
    if len(signature.inputs) > 1:
        targets.append(f"{lifted(signature.inputs, first, 0)} -> {lifted(signature.outputs, first)}")
    return targets
