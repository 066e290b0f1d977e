"""What a law looks at: a copy of a circuit, sizes for its axes, and random inputs, all from the signature.

Sizes are distinct primes, so that no two axes can be taken for each other. A module is copied, in double precision, and
its parameters are stirred: a bias that begins at 0 hides mistakes. The circuit that was given is never touched.
"""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from circuits.checking import checks, find_circuit, fixed_sizes, has_rest, leaves
from circuits.errors import CircuitError
from circuits.laws.copies import copied, method_of_copy, owner_of, seeded
from circuits.signature import Axes, Axis, Derived, Group, Number, Rest, Term

Source = range | torch.dtype | Callable[[Sequence[int]], Tensor] | None
"""Where the numbers of an input come from: whole numbers of a range, random ones of a dtype, a function of the shape.

None says that an optional tensor is never given.
"""

Sizes = Mapping[str, int | Sequence[int]]
"""The sizes of axes by name; those that `...` stands for, as a tuple, by `"..."`."""

PRIMES = tuple([n for n in range(2, 1000) if all(n % p for p in range(2, int(n**0.5) + 1))])


class DoesNotApply(CircuitError):
    """The circuit has nothing for this law to speak of; passing would say what nobody looked at."""


class Subject:
    """One circuit under one law. `f` is a copy; `sizes` and `lead` (what `...` stands for) are settled."""

    def __init__(
        self,
        law: str,
        f: Any,
        sizes: Sizes | None,
        inputs: Mapping[str, Source] | None,
        seed: int,
        arguments: Mapping[str, Any],
        lead: Sequence[int] | None = None,
    ) -> None:
        circuit = find_circuit(f)
        if circuit is None:
            raise CircuitError(
                f"laws.{law} takes a circuit, and {f!r} has no signature; give it one, circuit('a -> b')(f)"
            )
        self.law, self.circuit, self.seed, self.arguments = law, circuit, seed, dict(arguments)
        self.given = f
        self.sources = dict(inputs or {})
        self.optional = [name for name in circuit.optional if self.sources.get(name, name) is not None]
        self._refuse_unknown("inputs", self.sources, [slot.name for slot in circuit.slots])
        owner = owner_of(f)
        self.twins: dict[str, str] = {}
        self._given: dict[str, Any] = dict(sizes or {})
        self._rest = lead
        self._fixed = fixed_sizes(circuit, owner) if owner is not None or not circuit.owner else {}
        self.sizes, self.lead = self._settled()
        self.f = copied(f, law, seed)
        self.module = owner_of(self.f)
        self.device = next((each.device for each in self.parameters().values()), torch.get_default_device())
        self.dtype = self._widest()

    # --- sizes

    def _refuse_unknown(self, what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
        for name in given:
            if name not in names:
                raise CircuitError(f"laws.{self.law}: {what} has {name}, but there are {', '.join(names)}")

    def others(self) -> tuple[dict[str, int], tuple[int, ...]]:
        """Other sizes, and another size for what `...` stands for, wherever they are free."""
        return self._settled(skip=len(self.sizes) + 1)

    def _settled(self, skip: int = 0) -> tuple[dict[str, int], tuple[int, ...]]:
        """A size for every axis that goes in: given, fixed, or the first prime, after `skip`, that nothing else has."""
        given, tensors = dict(self._given), [slot.axes for slot in self.circuit.slots]
        names = list(dict.fromkeys(name for axes in tensors for term in axes for name in term.names))
        led = any(has_rest(axes) for axes in tensors)
        results = [name for axes in self.circuit.signature.outputs for term in axes for name in term.names]
        self._refuse_unknown("sizes", given, [*names, *results, *["..."] * led])
        rest: Any = given.pop("...", self._rest)
        known = {**self._fixed, **given}
        taken = {*known.values(), *(rest or ()), *_numbers(tensors)}
        for start in range(skip, skip + 40):
            primes = (prime for prime in PRIMES[start:] if prime not in taken)
            ahead = tuple(rest) if rest is not None else (next(primes),) if led else ()
            sizes = dict(known)
            for name in names:
                if name not in sizes:
                    own = name.rstrip("'")
                    if own != name and own in sizes and self._only_optional(name):
                        sizes[name], self.twins[name] = sizes[own], own
                    else:
                        sizes[name] = next(primes) * self.multiple(name, known)
            if _whole([*tensors, *self.circuit.signature.outputs], sizes):
                return sizes, ahead
        raise CircuitError(
            f"laws.{self.law}: no primes make every axis of {self.circuit.title} whole; give sizes={{...}}"
        )

    def _only_optional(self, name: str) -> bool:
        """Whether an axis stands in optional tensors alone: a mask's x' is x until something is said."""
        return not any(name in term.names for axes in self.circuit.signature.inputs for term in axes)

    def is_free(self, name: str) -> bool:
        """Whether nobody said what size an axis has: not the caller, not the circuit, and no other axis."""
        return name not in {**self._given, **self._fixed, **self.twins} and (name != "..." or self._rest is None)

    def multiple(self, name: str, known: Mapping[str, int]) -> int:
        """What an axis must divide by: what its circuit says, and each divisor that stands after it."""
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

    # --- inputs

    def patterns(self) -> list[tuple[str, ...]]:
        """Which optional tensors are given: none, each by itself, all."""
        every = tuple(self.optional)
        alone = [(name,) for name in every]
        return list(dict.fromkeys([(), *alone, every]))

    def extremes(self) -> list[tuple[str, ...]]:
        """Which optional tensors are given: none, then all."""
        return list(dict.fromkeys([(), tuple(self.optional)]))

    def tensors(
        self,
        optional: Sequence[str] = (),
        *,
        dtype: torch.dtype | None = None,
        draw: int = 0,
        sizes: Mapping[str, int] | None = None,
        lead: Sequence[int] | None = None,
        axes: Mapping[str, Axes] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Random inputs by name, the same for each number of the draw; `dtype` is that of all that float.

        `sizes`, `lead` and `axes` stand in for those of the subject, or of some of its inputs.
        """
        with seeded(self.seed + 7919 * draw):
            made = {}
            for slot in self.circuit.slots:
                if slot.role == "input" or slot.name in optional:
                    shape = self.shape(axes.get(slot.name, slot.axes), sizes, lead)
                    made[slot.name] = self._random(slot.name, shape, slot.dtype, dtype or self.dtype).to(self.device)
            return made

    def shape(
        self, axes: Axes, sizes: Mapping[str, int] | None = None, lead: Sequence[int] | None = None
    ) -> tuple[int, ...]:
        """The sizes of the axes of one tensor."""
        known, ahead = self.sizes if sizes is None else sizes, self.lead if lead is None else lead
        found: list[int] = []
        for term in axes:
            found += ahead if isinstance(term, Rest) else [term.size(known)]
        return tuple(found)

    def _random(self, name: str, shape: tuple[int, ...], declared: torch.dtype | None, dtype: torch.dtype) -> Tensor:
        source = self.sources.get(name)
        if isinstance(source, range):
            return torch.tensor(source)[torch.randint(len(source), shape)].to(declared or torch.long)
        if source is None or isinstance(source, torch.dtype):
            wanted = source or declared or dtype
            if wanted == torch.bool:
                return torch.rand(shape) < 0.5
            if not wanted.is_floating_point and not wanted.is_complex:
                raise CircuitError(
                    f"laws.{self.law}: {name} is {wanted}; say which numbers it may hold, "
                    f"inputs={{{name!r}: range(10)}}"
                )
            number = torch.complex128 if wanted.is_complex else torch.float64
            return torch.randn(shape, dtype=number).to(wanted)
        made = source(shape)
        return made.to(declared or dtype) if made.is_floating_point() else made

    # --- running

    def __call__(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """What the copy makes of these inputs; random operations draw the same numbers in every call."""
        return self.run(self.f, tensors)

    def run(self, f: Callable[..., Any], tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """What some function makes of these inputs."""
        args, kwargs = self.bound(tensors)
        with seeded(self.seed):
            try:
                found = leaves(f(*args, **kwargs))
            except Exception as error:
                error.add_note(f"laws.{self.law} made the inputs: {self.said()}; sizes= and inputs= give others")
                raise
        if not all(isinstance(each, Tensor) for each in found):
            kinds = ", ".join([type(each).__name__ for each in found])
            raise CircuitError(f"laws.{self.law}: {self.circuit.title} gives {kinds}, and a law looks at tensors")
        return found

    def bound(self, tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], dict[str, Any]]:
        """The arguments of a call."""
        inputs = self.circuit.inputs
        if self.circuit.star or self.circuit.parameters[: len(inputs)] == inputs:
            args = [tensors[name] for name in inputs]
            return args, {**{name: each for name, each in tensors.items() if name not in inputs}, **self.arguments}
        return [], {**tensors, **self.arguments}

    def parameters(self) -> dict[str, Tensor]:
        """The parameters of the copy by name."""
        return dict(self.module.named_parameters()) if self.module is not None else {}

    def to(self, dtype: torch.dtype) -> "Subject":
        """The same in another precision."""
        other = copy.copy(self)
        other.f = copy.deepcopy(self.f) if isinstance(self.f, nn.Module) else method_of_copy(self.f)
        other.module = owner_of(other.f)
        if other.module is not None:
            other.module.to(dtype)
        other.dtype = dtype
        return other

    def _widest(self) -> torch.dtype:
        """Doubles, where the circuit takes them: a function may hold tensors of another dtype."""
        if self.module is not None:
            self.module.double()
            return torch.float64
        self.dtype = torch.float64
        try:
            with torch.no_grad(), checks(False):
                self(self.tensors())
        except (RuntimeError, TypeError) as error:
            if "dtype" in f"{error}" or "Double" in f"{error}":
                return torch.get_default_dtype()
            raise
        return torch.float64

    def said(self) -> str:
        """The sizes and the seed, for a message."""
        names = {"...": " ".join([f"{size}" for size in self.lead])} if self.lead else {}
        return (
            "sizes "
            + " ".join([f"{name}={size}" for name, size in {**names, **self.sizes}.items()])
            + f", seed {self.seed}"
        )


def _derived(axes: Axes) -> list[Derived]:
    """The arithmetic in one tensor's axes."""
    flat = itertools.chain.from_iterable(term.terms if isinstance(term, Group) else (term,) for term in axes)
    return [term for term in flat if isinstance(term, Derived)]


def _numbers(tensors: Sequence[Axes]) -> set[int]:
    return {term.value for axes in tensors for term in axes if isinstance(term, Number)}


def _whole(tensors: Sequence[Axes], sizes: Mapping[str, int]) -> bool:
    """Whether every axis whose size follows from these is 1 or longer."""
    for axes in tensors:
        for term in axes:
            if not isinstance(term, Rest) and not {*term.names} - {*sizes}:
                try:
                    if term.size(sizes) < 1 and not isinstance(term, Axis | Number):
                        return False
                except ValueError:
                    return False
    return True


__all__ = ["DoesNotApply", "Sizes", "Source", "Subject", "Term", "owner_of", "seeded"]
