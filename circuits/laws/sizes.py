"""The sizes with which a law calls a circuit: one for each axis of its inputs, chosen from the signature.

A size is passed by the caller, fixed by the circuit (`fixed=`), or a prime that no other axis has, so that no two axes
can be confused. The prime is multiplied where the circuit requires multiples (`h/2`, `multiples=`).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from circuits.checking import Circuit, has_rest
from circuits.errors import CircuitError, perhaps
from circuits.signature import Axes, Axis, Derived, Group, Number, Rest, normalized

Sizes = Mapping[str, int | Sequence[int]]
"""Sizes of axes by name; the sizes that `...` stands for are a tuple, under the name `"..."`."""

PRIMES = tuple([n for n in range(2, 1000) if all(n % p for p in range(2, int(n**0.5) + 1))])

ATTEMPTS = 40
"""The number of attempts to find primes for which all derived sizes are positive whole numbers.

Each attempt starts with the next larger prime.
"""


class AxisSizes:
    """The sizes of the axes of one circuit under one law.

    Attributes:
        sizes: The size of each named axis of the inputs and optional tensors.
        lead: The sizes that `...` stands for; `()` if the signature has no `...`.
        twins: For each primed axis that only optional tensors have, the axis without primes that has the same size.
    """

    def __init__(self, law: str, circuit: Circuit, given: Sizes, fixed: Mapping[str, int]) -> None:
        """Choose the sizes.

        Args:
            law: The name of the law, for messages.
            circuit: The circuit.
            given: The caller's sizes.
            fixed: The sizes that the circuit fixes.
        """
        self.law: str = law
        self.circuit: Circuit = circuit
        self.twins: dict[str, str] = {}
        self._given: dict[str, Any] = {normalized(name): size for name, size in given.items()}
        self._fixed = fixed
        self._tensors = [slot.axes for slot in circuit.slots]
        self.sizes, self.lead = self._choose()

    def alternatives(self) -> tuple[dict[str, int], tuple[int, ...]]:
        """Return sizes and `lead` with other numbers for the axes that neither the caller nor the circuit fixes."""
        return self._choose(skip=len(self.sizes) + 1)

    def is_free(self, name: str) -> bool:
        """Return whether neither the caller, nor the circuit, nor another axis (`twins`) fixes the size of an axis."""
        return name not in {**self._given, **self._fixed, **self.twins}

    def multiple(self, name: str, known: Mapping[str, int]) -> int:
        """Return the number that must divide the size of an axis.

        It is computed from the circuit's `multiples=` and from the divisors in derived axes that contain the axis.
        """
        multiple = self.circuit.multiples.get(name, 1)
        for axes in (*self.circuit.signature.inputs, *self.circuit.signature.outputs):
            for derived in _derived(axes):
                for _, chain in derived.products():
                    divisors = [
                        atom.size(known) for sign, atom in chain if sign == "/" and not {*atom.names} - {*known}
                    ]
                    for divisor in divisors if name in derived.names else ():
                        multiple = multiple if multiple % divisor == 0 else multiple * divisor
        return multiple

    def _choose(self, skip: int = 0) -> tuple[dict[str, int], tuple[int, ...]]:
        """Return the size of every axis of the inputs and the sizes of `...`; the first `skip` primes are not used."""
        names = list(dict.fromkeys(name for axes in self._tensors for term in axes for name in term.names))
        has_lead = any(has_rest(axes) for axes in self._tensors)
        results = [name for axes in self.circuit.signature.outputs for term in axes for name in term.names]
        refuse_unknown(self.law, "sizes", self._given, [*names, *results, *["..."] * has_lead])
        given = dict(self._given)
        rest: Any = given.pop("...", None)
        known = {**self._fixed, **given}
        taken = {*known.values(), *(rest or ()), *_numbers(self._tensors)}
        for start in range(skip, skip + ATTEMPTS):
            primes = (prime for prime in PRIMES[start:] if prime not in taken)
            lead = tuple(rest) if rest is not None else (next(primes),) if has_lead else ()
            sizes = dict(known)
            for name in names:
                if name not in sizes:
                    base = name.rstrip("'")
                    if base != name and base in sizes and self._is_optional(name):
                        sizes[name], self.twins[name] = sizes[base], base
                    else:
                        sizes[name] = next(primes) * self.multiple(name, known)
            if _all_positive([*self._tensors, *self.circuit.signature.outputs], sizes):
                return sizes, lead
        raise CircuitError(
            f"laws.{self.law}: found no primes for which every axis of {self.circuit.title} has a positive whole size; "
            "pass sizes={...}"
        )

    def _is_optional(self, name: str) -> bool:
        """Return whether only optional tensors have an axis: by default, x' of a mask then has the size of x."""
        return not any(name in term.names for axes in self.circuit.signature.inputs for term in axes)


def refuse_unknown(law: str, argument: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise CircuitError if a mapping that the caller passed has a key that is not among `names`."""
    for name in given:
        if name not in names:
            possible = f"{', '.join(dict.fromkeys(names))}{perhaps(name, names)}"
            raise CircuitError(f"laws.{law}: {argument} has the key {name}; possible keys are {possible}")


def _derived(axes: Axes) -> list[Derived]:
    """Return the derived axes (`h/2`) of one tensor, those inside groups too."""
    flat = itertools.chain.from_iterable(term.terms if isinstance(term, Group) else (term,) for term in axes)
    return [term for term in flat if isinstance(term, Derived)]


def _numbers(tensors: Sequence[Axes]) -> set[int]:
    """Return the sizes that are written as numbers in the axes of some tensors."""
    return {term.value for axes in tensors for term in axes if isinstance(term, Number)}


def _all_positive(tensors: Sequence[Axes], sizes: Mapping[str, int]) -> bool:
    """Return whether every group and derived axis whose size follows from `sizes` has a positive whole size."""
    for axes in tensors:
        for term in axes:
            if not isinstance(term, Rest) and not {*term.names} - {*sizes}:
                try:
                    if term.size(sizes) < 1 and not isinstance(term, Axis | Number):
                        return False
                except ValueError:
                    return False
    return True
