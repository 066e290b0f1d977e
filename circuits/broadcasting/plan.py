"""How a circuit is lifted: from its signature and the lifted one to a plan, read once.

Tensors are moved into normal order: the lifted axes first, in the order of the output, then the circuit's own, as its
signature has them. What moves where is data here; nothing on this floor knows torch.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.3.2 and Definition 2.14.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from circuits.checking import Circuit, has_rest
from circuits.errors import SignatureError, point
from circuits.signature import Axes, Rest, Signature, Term, parse_axes, places, show_axes

_REST = Rest()


@dataclass(frozen=True)
class Move:
    """How one tensor stands in the lifted text: where its lifted axes and its own are, counted from the right.

    `lifted` has a place for each lifted axis, None where the tensor lacks it and is shared; `own` the places of the
    circuit's axes; `named` counts both, and `keeps` says that its own stand in the circuit's order. `rest` says that
    `...` leads in the lifted text, `loose` that it leads in the circuit's.
    """

    lifted: tuple[int | None, ...]
    own: tuple[int, ...]
    named: int
    keeps: bool
    rest: bool
    loose: bool

    def order(self, rank: int, leads: bool) -> tuple[int, ...]:
        """The places of a tensor of so many axes in normal order; `leads` says that `...` is lifted too.

        >>> Move((-1,), (-2,), named=2, keeps=True, rest=False, loose=False).order(2, leads=False)
        (1, 0)
        """
        lifted = [rank + place for place in self.lifted if place is not None]
        own = [rank + place for place in self.own]
        rest = range(rank - self.named)
        return (*rest, *lifted, *own) if leads else (*lifted, *rest, *own)


@dataclass(frozen=True)
class Plan:
    """A lift, read from two signatures: one move for each tensor in, each optional one, each tensor out.

    `front` says that the circuit's own `...` takes the lifted axes; else they are mapped, one after another. `leads`
    says that what `...` stands for in the lifted text is lifted too. `names` are the lifted axes as text.
    """

    signature: Signature
    inputs: tuple[Move, ...]
    optional: Mapping[str, Move]
    outputs: tuple[Move, ...]
    names: tuple[str, ...]
    front: bool
    leads: bool


def plan_lift(circuit: Circuit, text: str, optional: Mapping[str, str]) -> Plan:
    """The plan that lifts a circuit to the signature `text`; SignatureError where there is none, with the axis."""
    unknown = [name for name in optional if name not in circuit.optional]
    if unknown:
        known = ", ".join(circuit.optional) or "none"
        raise SignatureError(f"optional: {unknown[0]!r} is no optional tensor of {circuit.name}; there are {known}")
    signature = Signature.parse(text)
    try:
        stated = {name: parse_axes(axes) for name, axes in lifted_optional(circuit, text, optional).items()}
    except SignatureError as error:
        raise SignatureError(f"optional: {error}") from None
    return _Reader(circuit, signature, stated).plan()


def lifted_optional(circuit: Circuit, text: str, optional: Mapping[str, str]) -> dict[str, str]:
    """The axes of each optional tensor once lifted: as they are said, or the circuit's own, shared by every index."""
    led = any(has_rest(axes) for axes in Signature.parse(text).inputs)
    kept = {name: show_axes(axes[has_rest(axes) and not led :]) for name, axes in circuit.optional.items()}
    return kept | {**optional}


class _Reader:
    """Holds the two signatures against each other, tensor by tensor."""

    def __init__(self, circuit: Circuit, target: Signature, optional: Mapping[str, Axes]) -> None:
        self.circuit = circuit
        self.target = target
        self.optional = optional
        source = circuit.signature
        every = [*source.inputs, *circuit.optional.values(), *source.outputs]
        self.own = {term for axes in every for term in axes if term != _REST}
        self.own_names = {name for term in self.own for name in term.names}
        self.loose = any(has_rest(axes) for axes in source.inputs)

    def plan(self) -> Plan:
        """Compare counts, then axes, then where `...` stands."""
        source, target = self.circuit.signature, self.target
        self.count("takes", source.inputs, target.inputs)
        self.count("gives", source.outputs, target.outputs)
        lifted = [self.lifted(whose, axes, wanted) for whose, axes, wanted in self.tensors()]
        count = len(target.inputs)
        order = self.order(lifted[:count], lifted[len(lifted) - len(target.outputs) :])
        front = self.takes_the_front()
        self.refuse_rest(free=front or not self.loose)
        moves = [_move(axes, wanted, order, has_rest(axes)) for _, axes, wanted in self.tensors()]
        optional = dict(zip(self.optional, moves[count:], strict=False))
        leads = any(has_rest(axes) for axes in target.inputs) and (front or not self.loose)
        return Plan(
            target,
            tuple(moves[:count]),
            optional,
            tuple(moves[count + len(optional) :]),
            tuple([str(term) for term in order]),
            front,
            leads,
        )

    def tensors(self) -> Iterator[tuple[str, Axes, Axes]]:
        """What each tensor is called, its axes in the circuit, its axes lifted."""
        source, target = self.circuit.signature, self.target
        yield from zip(self.circuit.inputs, source.inputs, target.inputs, strict=False)
        for name, axes in self.optional.items():
            yield name, self.circuit.optional[name], axes
        several = len(source.outputs) > 1
        for number, (axes, wanted) in enumerate(zip(source.outputs, target.outputs, strict=True), start=1):
            yield f"output {number}" if several else "the output", axes, wanted

    def count(self, verb: str, mine: tuple[Axes, ...], wanted: tuple[Axes, ...]) -> None:
        """As many tensors must stand in the lifted text as in the circuit's."""
        if len(mine) != len(wanted):
            tensors = "1 tensor" if len(mine) == 1 else f"{len(mine)} tensors"
            self.refuse(f"{self.circuit.title} {verb} {tensors}, the lifted signature has {len(wanted)}")

    def lifted(self, whose: str, axes: Axes, wanted: Axes) -> list[Term]:
        """The axes of one tensor that the circuit lacks; its own must all be there, each as often."""
        title = self.circuit.title
        for term in dict.fromkeys(axes):
            times, found = axes.count(term), wanted.count(term)
            if term != _REST and found == 0:
                self.refuse(f"axis {term} of {whose} is missing: {title} works on the whole of it", *self.spans(term))
            if term != _REST and found != times:
                self.refuse(
                    f"axis {term} of {whose} stands {_times(found)} here, {_times(times)} in {title}", *self.spans(term)
                )
        found = [term for term in wanted if term not in axes and term != _REST]
        for term in found:
            if term in self.own or self.own_names & {*term.names}:
                name = next((name for name in term.names if name in self.own_names), str(term))
                self.refuse(
                    f"{name} is an axis of {title}; what {whose} is lifted over needs another name", *self.spans(term)
                )
            if found.count(term) > 1:
                self.refuse(
                    f"{whose} is lifted over {term} twice; two axes have two names, {term} and {term}'",
                    *self.spans(term),
                )
        return found

    def order(self, inputs: list[list[Term]], outputs: list[list[Term]]) -> tuple[Term, ...]:
        """The lifted axes, as the first output has them: every output has them all, and each comes from an input."""
        known = dict.fromkeys(term for terms in inputs for term in terms)
        whose = [name for name, *_ in self.tensors()]
        stated = whose[len(inputs) : len(whose) - len(outputs)]
        for name in stated:
            terms = [term for term in self.optional[name] if term not in self.own and term != _REST]
            lost = next((term for term in terms if term not in known), None)
            if lost is not None:
                raise SignatureError(
                    f"optional: {lost} of {name!r} is on no other input, so nothing is lifted over it\n"
                    f"{point(str(self.target))}"
                )
        for name, terms in zip(whose[len(whose) - len(outputs) :], outputs, strict=True):
            for term in terms:
                if term not in known:
                    self.refuse(f"axis {term} of {name} comes from nowhere: no input has it", *self.spans(term))
            for term in known:
                if term not in terms:
                    self.refuse(
                        f"axis {term} is missing from {name}: each index of it has an answer of its own",
                        *self.spans(term),
                    )
        return tuple(outputs[0]) if outputs else tuple(known)

    def takes_the_front(self) -> bool:
        """Whether the circuit's own `...` can take the lifted axes: it stands wherever one of them does."""
        if not self.loose or not all(has_rest(axes) for axes in self.circuit.signature.outputs):
            return False
        return all(
            has_rest(axes) or not (has_rest(wanted) or len(wanted) > len(axes)) for _, axes, wanted in self.tensors()
        )

    def refuse_rest(self, free: bool) -> None:
        """Where `...` may be lifted (it is `free`) every output has it; else it stands where the circuit has it."""
        tensors = list(self.tensors())
        some = any(has_rest(axes) for axes in self.target.inputs)
        for place, (name, axes, wanted) in enumerate(tensors):
            known = place < len(self.target.inputs)
            output = place >= len(tensors) - len(self.target.outputs)
            may = some and (free or has_rest(axes))
            if has_rest(wanted) and not may:
                why = f"{self.circuit.title} has none there" if some else "no input has it"
                self.refuse(f"'...' of {name} comes from nowhere: {why}", *self.spans(_REST))
            if may and not has_rest(wanted) and (output or (known and not free)):
                self.refuse(f"'...' is missing from {name}", *self.spans(_REST))

    def spans(self, term: Term) -> list[tuple[int, int]]:
        """Where a term stands in the lifted text."""
        return [span for _, _, each, span in places(self.target) if each == term]

    def refuse(self, what: str, *spans: tuple[int, int]) -> NoReturn:
        """SignatureError with carets under the lifted text."""
        raise SignatureError(f"broadcast: {what}\n{point(str(self.target), *spans)}")


def _move(axes: Axes, wanted: Axes, order: tuple[Term, ...], loose: bool) -> Move:
    """The places of the lifted axes and of the circuit's own; what stands several times keeps its order."""
    left = [*wanted]

    def place(term: Term) -> int:
        at = left.index(term)
        left[at] = _REST
        return at - len(wanted)

    own = tuple([place(term) for term in axes if term != _REST])
    lifted = tuple([place(term) if term in left else None for term in order])
    named = len(wanted) - has_rest(wanted)
    return Move(lifted, own, named, list(own) == sorted(own), has_rest(wanted), loose)


def _times(count: int) -> str:
    return {0: "nowhere", 1: "once", 2: "twice"}.get(count, f"{count} times")


__all__ = ["Move", "Plan", "lifted_optional", "plan_lift"]
