"""Laws of linearity: sums go to sums, multiples to multiples, in one argument or in each."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from circuits.algebra import combined
from circuits.errors import CircuitError
from circuits.laws.comparison import agree_all
from circuits.laws.counterexample import small
from circuits.laws.subject import DoesNotApply, Sizes, Source, Subject


@small
def linear(
    f: Any,
    /,
    argument: str | None = None,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """The circuit is linear in one argument, the others held; without a name, in its first.

    >>> from circuits import circuit
    >>> linear(circuit("a, a -> ")(lambda x, y: (x * y.exp()).sum()), "x")
    """
    subject = Subject("linear", f, sizes, inputs, seed, arguments)
    _linear(subject, argument or subject.circuit.inputs[0])


@small
def multilinear(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """The circuit is linear in each of the signature's tensors by itself, the others held.

    >>> from circuits import circuit
    >>> multilinear(circuit("a, a -> ")(lambda x, y: (x * y).sum()))
    """
    subject = Subject("multilinear", f, sizes, inputs, seed, arguments)
    for name in subject.circuit.inputs:
        _linear(subject, name)


def _linear(subject: Subject, argument: str) -> None:
    names = [slot.name for slot in subject.circuit.slots]
    if argument not in names:
        raise CircuitError(
            f"laws.{subject.law}: {argument} is no tensor of {subject.circuit.title}: {', '.join(names)}"
        )
    optional = [argument] if argument in subject.circuit.optional else []
    for given in dict.fromkeys([tuple(optional), *subject.extremes()[1:]]):
        one, other = (subject.tensors(given, draw=draw) for draw in (0, 1))
        x, y = one[argument], other[argument]
        if not (x.is_floating_point() or x.is_complex()):
            raise DoesNotApply(f"laws.{subject.law}: {argument} is {x.dtype}, which has no multiples")

        def at(value: Tensor, one: dict[str, Tensor] = one) -> list[Tensor]:
            return subject({**one, argument: value})

        for a, b, found, expected in combined(at, x, y):
            words = (f"for {a:g} x + {b:g} y", f"by {a:g} f(x) + {b:g} f(y)")
            words = words if a else (f"where {argument} is zero", "for a linear map")
            notes = [f"x and y are two draws of {argument}"] if a else []
            agree_all(subject, found, expected, words, *notes, room=max(1.0, abs(a)))
