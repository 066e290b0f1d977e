"""Laws of linearity: f(a x + b y) = a f(x) + b f(y), in one argument or in every one."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from circuits.algebra import linear_sums
from circuits.errors import CircuitError
from circuits.laws.comparison import assert_outputs_close
from circuits.laws.counterexample import smallest_counterexample
from circuits.laws.inputs import Source
from circuits.laws.sizes import Sizes
from circuits.laws.subject import DoesNotApply, Subject


@smallest_counterexample
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
    """The circuit is linear in one argument while the others are constant.

    Args:
        f: A circuit.
        argument: The name of an input or of an optional tensor; the first input if None.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: The circuit is not linear in the argument.
        CircuitError: The circuit has no such tensor.
        DoesNotApply: The argument is a tensor of integers or booleans.

    >>> from circuits import circuit
    >>> linear(circuit("a, a -> ")(lambda x, y: (x * y.exp()).sum()), "x")
    """
    subject = Subject("linear", f, sizes, inputs, seed, arguments)
    _check_linear(subject, argument or subject.circuit.inputs[0])


@smallest_counterexample
def multilinear(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """The circuit is linear in each input of the signature while the others are constant.

    Args:
        f: A circuit.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: The circuit is not linear in an input.
        DoesNotApply: An input is a tensor of integers or booleans.

    >>> from circuits import circuit
    >>> multilinear(circuit("a, a -> ")(lambda x, y: (x * y).sum()))
    """
    subject = Subject("multilinear", f, sizes, inputs, seed, arguments)
    for name in subject.circuit.inputs:
        _check_linear(subject, name)


def _check_linear(subject: Subject, argument: str) -> None:
    """Raise BrokenLaw unless the circuit is linear in one argument, without and with the other optional tensors."""
    names = [slot.name for slot in subject.circuit.slots]
    if argument not in names:
        title, known = subject.circuit.title, ", ".join(names)
        raise CircuitError(f"laws.{subject.law}: {argument} is not a tensor of {title}; its tensors are {known}")
    optional = [argument] if argument in subject.circuit.optional else []
    for given in dict.fromkeys([tuple(optional), *subject.none_and_all()[1:]]):
        one, other = (subject.tensors(given, draw=draw) for draw in (0, 1))
        x, y = one[argument], other[argument]
        if not (x.is_floating_point() or x.is_complex()):
            raise DoesNotApply(
                f"laws.{subject.law}: {argument} is {x.dtype}, and linearity needs real or complex numbers"
            )

        def at(value: Tensor, one: dict[str, Tensor] = one) -> list[Tensor]:
            return subject({**one, argument: value})

        for a, b, found, expected in linear_sums(at, x, y):
            origins = (f"as f({a:g} x + {b:g} y)", f"as {a:g} f(x) + {b:g} f(y)")
            origins = origins if a else (f"where {argument} is zero", "for a linear map")
            notes = [f"x and y are two random values of {argument}"] if a else []
            assert_outputs_close(subject, found, expected, origins, *notes, tolerance_factor=max(1.0, abs(a)))
