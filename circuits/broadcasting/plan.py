"""The plan of a lift, read once from the signature of a circuit and the lifted signature.

Tensors are permuted into normal order: the lifted axes first, in the order of the first output, then the circuit's own
axes in the order of its signature. This module does not use torch.

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
class AxisPositions:
    """The positions of one tensor's axes in the lifted signature, as negative indexes, counted from the right.

    Attributes:
        lifted: The position of each lifted axis; None if the tensor does not have it and is shared along it.
        own: The positions of the axes that the circuit's signature names.
        named: The number of axes of the tensor in the lifted signature, `...` left out.
        in_order: Whether the own axes have the same order as in the circuit's signature.
        lifted_rest: Whether the tensor has `...` in the lifted signature.
        own_rest: Whether the tensor has `...` in the circuit's signature.
    """

    lifted: tuple[int | None, ...]
    own: tuple[int, ...]
    named: int
    in_order: bool
    lifted_rest: bool
    own_rest: bool

    def normal_order(self, rank: int, lifts_rest: bool) -> tuple[int, ...]:
        """Return the permutation of a tensor with `rank` axes into normal order.

        `lifts_rest` says whether the axes that `...` matches are lifted too. Then they come before the lifted axes that
        have names, otherwise between these and the own axes.

        >>> positions = AxisPositions((-1,), (-2,), named=2, in_order=True, lifted_rest=False, own_rest=False)
        >>> positions.normal_order(2, lifts_rest=False)
        (1, 0)
        """
        lifted = [rank + position for position in self.lifted if position is not None]
        own = [rank + position for position in self.own]
        rest = range(rank - self.named)
        return (*rest, *lifted, *own) if lifts_rest else (*lifted, *rest, *own)


@dataclass(frozen=True)
class Plan:
    """The positions of all axes of a lift, computed from the circuit's signature and the lifted one.

    Attributes:
        signature: The lifted signature.
        inputs: The positions of each input's axes.
        optional: The positions of each optional tensor's axes, by the name of its parameter.
        outputs: The positions of each output's axes.
        names: The lifted axes as text, in normal order.
        batched: Whether the circuit's own `...` matches the lifted axes, so that the circuit runs once for all indexes.
            Otherwise torch.vmap maps it over one axis after another.
        lifts_rest: Whether the axes that `...` matches in the lifted signature are lifted too.
    """

    signature: Signature
    inputs: tuple[AxisPositions, ...]
    optional: Mapping[str, AxisPositions]
    outputs: tuple[AxisPositions, ...]
    names: tuple[str, ...]
    batched: bool
    lifts_rest: bool


def plan_lift(circuit: Circuit, text: str, optional: Mapping[str, str]) -> Plan:
    """Return the plan that lifts a circuit to the signature `text`.

    Raises:
        SignatureError: If `text` is not the circuit's signature with further axes; the message names the axis.
    """
    unknown = [name for name in optional if name not in circuit.optional]
    if unknown:
        known = ", ".join(circuit.optional) or "none"
        raise SignatureError(f"optional: {unknown[0]!r} is not an optional tensor of {circuit.name}; there are {known}")
    signature = Signature.parse(text)
    stated: dict[str, Axes] = {}
    for name, axes in lifted_optional(circuit, text, optional).items():
        try:
            stated[name] = parse_axes(axes)
        except SignatureError as error:
            raise SignatureError(f"optional: {name}: {error}") from None
    return _Planner(circuit, signature, stated).plan()


def lifted_optional(circuit: Circuit, text: str, optional: Mapping[str, str]) -> dict[str, str]:
    """Return the axes of each optional tensor after the lift: those in `optional`, or the circuit's own.

    A tensor that keeps the circuit's own axes is shared by every index. It loses its `...` if no input of the lifted
    signature has one.
    """
    has_leading = any(has_rest(axes) for axes in Signature.parse(text).inputs)
    kept = {name: show_axes(axes[has_rest(axes) and not has_leading :]) for name, axes in circuit.optional.items()}
    return kept | {**optional}


class _Planner:
    """Compares the signature of a circuit with the lifted one, tensor by tensor."""

    def __init__(self, circuit: Circuit, target: Signature, optional: Mapping[str, Axes]) -> None:
        self.circuit = circuit
        self.target = target
        self.optional = optional
        source = circuit.signature
        every = [*source.inputs, *circuit.optional.values(), *source.outputs]
        self.own = {term for axes in every for term in axes if term != _REST}
        self.own_names = {name for term in self.own for name in term.names}
        self.own_rest = any(has_rest(axes) for axes in source.inputs)

    def plan(self) -> Plan:
        """Check the numbers of tensors, then their axes, then their `...`, and return the plan."""
        source, target = self.circuit.signature, self.target
        self.check_count("takes", source.inputs, target.inputs)
        self.check_count("returns", source.outputs, target.outputs)
        lifted = [self.lifted_axes(name, axes, target_axes) for name, axes, target_axes in self.tensors()]
        count = len(target.inputs)
        order = self.lifted_order(lifted[:count], lifted[len(lifted) - len(target.outputs) :])
        batched = self.can_batch()
        may_lift_rest = batched or not self.own_rest
        self.check_rest(may_lift_rest)
        positions = [_positions(axes, target_axes, order) for _, axes, target_axes in self.tensors()]
        optional = dict(zip(self.optional, positions[count:], strict=False))
        return Plan(
            signature=target,
            inputs=tuple(positions[:count]),
            optional=optional,
            outputs=tuple(positions[count + len(optional) :]),
            names=tuple([str(term) for term in order]),
            batched=batched,
            lifts_rest=any(has_rest(axes) for axes in target.inputs) and may_lift_rest,
        )

    def tensors(self) -> Iterator[tuple[str, Axes, Axes]]:
        """Yield the name of each tensor, its axes in the circuit's signature and its axes in the lifted one."""
        source, target = self.circuit.signature, self.target
        yield from zip(self.circuit.inputs, source.inputs, target.inputs, strict=False)
        for name, axes in self.optional.items():
            yield name, self.circuit.optional[name], axes
        several = len(source.outputs) > 1
        for number, (axes, target_axes) in enumerate(zip(source.outputs, target.outputs, strict=True), start=1):
            yield f"output {number}" if several else "the output", axes, target_axes

    def check_count(self, verb: str, source: tuple[Axes, ...], target: tuple[Axes, ...]) -> None:
        """Refuse a lifted signature with more or fewer tensors than the circuit's."""
        if len(source) != len(target):
            tensors = "1 tensor" if len(source) == 1 else f"{len(source)} tensors"
            self.refuse(f"{self.circuit.title} {verb} {tensors}, the lifted signature has {len(target)}")

    def lifted_axes(self, tensor: str, axes: Axes, target_axes: Axes) -> list[Term]:
        """Return the axes that one tensor has only in the lifted signature.

        Refuses a tensor that has one of the circuit's axes more or less often than in the circuit's signature, and
        lifted axes that are not new or occur twice.
        """
        title = self.circuit.title
        for term in dict.fromkeys(axes):
            count, found = axes.count(term), target_axes.count(term)
            if term != _REST and found == 0:
                self.refuse(f"axis {term} of {tensor} is missing: a lift keeps every axis of {title}", term)
            if term != _REST and found != count:
                self.refuse(f"axis {term} of {tensor} occurs {_times(found)} here, {_times(count)} in {title}", term)
        lifted = [term for term in target_axes if term not in axes and term != _REST]
        for term in lifted:
            if term in self.own or self.own_names & {*term.names}:
                name = next((name for name in term.names if name in self.own_names), str(term))
                self.refuse(f"{name} is an axis of {title}; a lifted axis of {tensor} needs another name", term)
            if lifted.count(term) > 1:
                self.refuse(f"{tensor} is lifted over {term} twice; two axes need two names, {term} and {term}'", term)
        return lifted

    def lifted_order(self, inputs: list[list[Term]], outputs: list[list[Term]]) -> tuple[Term, ...]:
        """Return the lifted axes in the order of the first output.

        Refuses an output that does not have every lifted axis of the inputs, and an output or an optional tensor with a
        lifted axis that no input has.
        """
        known = dict.fromkeys(term for terms in inputs for term in terms)
        self.check_optional_axes(known)
        names = [name for name, *_ in self.tensors()]
        for name, terms in zip(names[len(names) - len(outputs) :], outputs, strict=True):
            for term in terms:
                if term not in known:
                    self.refuse(f"axis {term} of {name} is on no input", term)
            for term in known:
                if term not in terms:
                    self.refuse(f"axis {term} is missing from {name}: every output must have all lifted axes", term)
        return tuple(outputs[0]) if outputs else tuple(known)

    def check_optional_axes(self, known: Mapping[Term, None]) -> None:
        """Refuse an optional tensor with a lifted axis that no input has."""
        for name, axes in self.optional.items():
            lifted = [term for term in axes if term not in self.own and term != _REST]
            unknown = next((term for term in lifted if term not in known), None)
            if unknown is not None:
                raise SignatureError(
                    f"optional: axis {unknown} of {name!r} is on no input of the lifted signature\n"
                    f"{point(str(self.target))}"
                )

    def can_batch(self) -> bool:
        """Return whether the circuit's own `...` can match the lifted axes.

        All outputs and every other tensor with a lifted axis must have `...` in the circuit's signature.
        """
        if not self.own_rest or not all(has_rest(axes) for axes in self.circuit.signature.outputs):
            return False
        return all(
            has_rest(axes) or not (has_rest(target_axes) or len(target_axes) > len(axes))
            for _, axes, target_axes in self.tensors()
        )

    def check_rest(self, may_lift_rest: bool) -> None:
        """Refuse a misplaced or missing `...` in the lifted signature.

        If no input has `...`, no tensor may have it. If an input has `...` and it may be lifted, every output must have
        it. If it may not be lifted, an input or output must have it exactly if it has it in the circuit's signature.
        """
        tensors = list(self.tensors())
        some = any(has_rest(axes) for axes in self.target.inputs)
        for number, (name, axes, target_axes) in enumerate(tensors):
            is_input = number < len(self.target.inputs)
            is_output = number >= len(tensors) - len(self.target.outputs)
            allowed = some and (may_lift_rest or has_rest(axes))
            if has_rest(target_axes) and not allowed:
                why = f"not in {self.circuit.title}" if some else "no input has it"
                self.refuse(f"{name} has '...' here, but {why}", _REST)
            if allowed and not has_rest(target_axes) and (is_output or (is_input and not may_lift_rest)):
                self.refuse(f"'...' is missing from {name}", _REST)

    def refuse(self, what: str, *terms: Term) -> NoReturn:
        """Raise SignatureError with the lifted signature, and carets under each occurrence of the terms."""
        spans = [span for _, _, each, span in places(self.target) if each in terms]
        raise SignatureError(f"broadcast: {what}\n{point(str(self.target), *spans)}")


def _positions(axes: Axes, target_axes: Axes, order: tuple[Term, ...]) -> AxisPositions:
    """Return the positions of one tensor's axes; repeated occurrences of an axis are matched in order."""
    remaining = [*target_axes]

    def take(term: Term) -> int:
        at = remaining.index(term)
        remaining[at] = _REST
        return at - len(target_axes)

    own = tuple([take(term) for term in axes if term != _REST])
    lifted = tuple([take(term) if term in remaining else None for term in order])
    named = len(target_axes) - has_rest(target_axes)
    return AxisPositions(lifted, own, named, list(own) == sorted(own), has_rest(target_axes), has_rest(axes))


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


__all__ = ["AxisPositions", "Plan", "lifted_optional", "plan_lift"]
