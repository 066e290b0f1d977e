"""The subject of a law: a copy of a circuit, sizes for its axes, and random inputs with the axes of its signature.

A module is copied, converted to double precision, and its parameters are randomized, because a bias that is
initialized to 0 hides mistakes. The circuit that the caller passed is never changed.
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from circuits.checking import Circuit, checks, find_circuit, fixed_sizes, leaves
from circuits.errors import CircuitError, described
from circuits.laws.copies import copy_of, owner_of, randomized_copy, seeded
from circuits.laws.inputs import Source, random_tensor
from circuits.laws.sizes import AxisSizes, Sizes, refuse_unknown
from circuits.signature import Axes, Rest


class DoesNotApply(CircuitError):
    """The law says nothing about this circuit, so that passing would be misleading; `suite` skips such a test."""


class Subject:
    """One circuit under one law.

    Attributes:
        law: The name of the law.
        circuit: The declaration of the circuit.
        f: A copy of the circuit, with randomized parameters in `dtype`.
        module: The copy of the module to which `f` belongs, or None.
        optional: The names of the optional tensors that may be passed.
        axis_sizes: The sizes of the axes; `sizes` and `lead` are part of them.
        dtype: torch.float64 if the circuit can compute in it, else the default dtype.
        device: The device of the parameters, or the default device.
    """

    def __init__(
        self,
        law: str,
        f: Any,
        sizes: Sizes | None,
        inputs: Mapping[str, Source] | None,
        seed: int,
        arguments: Mapping[str, Any],
    ) -> None:
        """Copy the circuit and choose sizes.

        Args:
            law: The name of the law, for messages.
            f: A circuit: a decorated function, a module or a method of a module.
            sizes: The caller's sizes of axes by name.
            inputs: How the values of inputs are made, by name.
            seed: The seed of all random numbers.
            arguments: Further keyword arguments of each call of the circuit.

        Raises:
            CircuitError: `f` has no signature or cannot be copied, a name in `sizes` or `inputs` is unknown, or no
                sizes fit the signature.
        """
        circuit = find_circuit(f)
        if circuit is None:
            raise CircuitError(
                f"laws.{law} takes a circuit, and {described(f)} has no signature; give it one, circuit('a -> b')(f)"
            )
        self.law: str = law
        self.circuit: Circuit = circuit
        self.seed: int = seed
        self.arguments: dict[str, Any] = dict(arguments)
        self.sources: dict[str, Source] = dict(inputs or {})
        self.optional: list[str] = [name for name in circuit.optional if self.sources.get(name, name) is not None]
        refuse_unknown(law, "inputs", self.sources, [slot.name for slot in circuit.slots])
        owner = owner_of(f)
        fixed = fixed_sizes(circuit, owner) if owner is not None or not circuit.owner else {}
        self.axis_sizes: AxisSizes = AxisSizes(law, circuit, sizes or {}, fixed)
        self.f: Any = randomized_copy(f, law, seed)
        self.module: Any = owner_of(self.f)
        self.device: torch.device = next(
            (each.device for each in self.parameters().values()), torch.get_default_device()
        )
        self.dtype = self._to_double()

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each named axis of the inputs."""
        return self.axis_sizes.sizes

    @property
    def lead(self) -> tuple[int, ...]:
        """The sizes that `...` stands for."""
        return self.axis_sizes.lead

    # --- inputs

    def optional_subsets(self) -> list[tuple[str, ...]]:
        """Return which optional tensors to pass: none, each by itself, all."""
        every = tuple(self.optional)
        singles = [(name,) for name in every]
        return list(dict.fromkeys([(), *singles, every]))

    def none_and_all(self) -> list[tuple[str, ...]]:
        """Return which optional tensors to pass: none, then all."""
        return list(dict.fromkeys([(), tuple(self.optional)]))

    def tensors(
        self,
        optional: Sequence[str] = (),
        *,
        draw: int = 0,
        sizes: Mapping[str, int] | None = None,
        lead: Sequence[int] | None = None,
        axes: Mapping[str, Axes] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Return random inputs by name.

        Args:
            optional: The names of the optional tensors to include.
            draw: An integer, added to the seed so that the same circuit gets other random values.
            sizes: Sizes of axes instead of the subject's.
            lead: Sizes of `...` instead of the subject's.
            axes: The axes of inputs by name, instead of those of the circuit.
        """
        with seeded(self.seed + 7919 * draw):
            made = {}
            for slot in self.circuit.slots:
                if slot.role == "input" or slot.name in optional:
                    shape = self.shape(axes.get(slot.name, slot.axes), sizes, lead)
                    source = self.sources.get(slot.name)
                    tensor = random_tensor(self.law, slot.name, source, shape, slot.dtype, self.dtype)
                    made[slot.name] = tensor.to(self.device)
            return made

    def shape(
        self, axes: Axes, sizes: Mapping[str, int] | None = None, lead: Sequence[int] | None = None
    ) -> tuple[int, ...]:
        """Return the shape of a tensor with these axes."""
        known, leading = self.sizes if sizes is None else sizes, self.lead if lead is None else lead
        found: list[int] = []
        for term in axes:
            found += leading if isinstance(term, Rest) else [term.size(known)]
        return tuple(found)

    # --- running

    def __call__(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the outputs of the copy; random operations draw the same numbers in every call."""
        return self.run(self.f, tensors)

    def run(self, f: Callable[..., Any], tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """Call a function with the arguments of the circuit, and return its outputs as a flat list.

        Raises:
            CircuitError: An output is not a tensor.
        """
        args, kwargs = self.bound(tensors)
        with seeded(self.seed):
            try:
                found = leaves(f(*args, **kwargs))
            except Exception as error:
                error.add_note(
                    f"laws.{self.law} called the circuit with {self.describe_sizes()}; sizes= and inputs= change them"
                )
                name = next((name for name, each in tensors.items() if self._is_guess(name, each)), None)
                if name is not None and re.search(r"\b([Ll]ong|[Ii]nt|int64|ind(ex|ices))\b", f"{error}"):
                    error.add_note(
                        f"if {name} has integers, pass the values it may have, inputs={{{name!r}: range(10)}}"
                    )
                raise
        if not all(isinstance(each, Tensor) for each in found):
            kinds = ", ".join([type(each).__name__ for each in found])
            raise CircuitError(f"laws.{self.law}: {self.circuit.title} returns {kinds}; a law checks tensors only")
        return found

    def _is_guess(self, name: str, tensor: Tensor) -> bool:
        """Return whether an input is floating although neither the circuit nor the caller says so."""
        declared = [slot.dtype for slot in self.circuit.slots if slot.name == name and slot.dtype is not None]
        return tensor.is_floating_point() and not declared and name not in self.sources

    def bound(self, tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], dict[str, Any]]:
        """Return the positional and keyword arguments of a call with these tensors."""
        inputs = self.circuit.inputs
        if self.circuit.star or self.circuit.parameters[: len(inputs)] == inputs:
            args = [tensors[name] for name in inputs]
            return args, {**{name: each for name, each in tensors.items() if name not in inputs}, **self.arguments}
        return [], {**tensors, **self.arguments}

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters of the copy by name."""
        return dict(self.module.named_parameters()) if self.module is not None else {}

    def to(self, dtype: torch.dtype) -> "Subject":
        """Return the subject in another dtype, with a new copy of the circuit."""
        other = copy.copy(self)
        other.f = copy_of(self.f)
        other.module = owner_of(other.f)
        if other.module is not None:
            other.module.to(dtype)
        other.dtype = dtype
        return other

    def _to_double(self) -> torch.dtype:
        """Convert the module to double precision and return the dtype in which the circuit runs.

        A function that holds tensors of another dtype cannot compute in double precision: it keeps the default dtype.
        """
        if self.module is not None:
            self.module.double()
            return torch.float64
        self.dtype: torch.dtype = torch.float64
        try:
            with torch.no_grad(), checks(False):
                self(self.tensors())
        except (RuntimeError, TypeError) as error:
            if "dtype" in f"{error}" or "Double" in f"{error}":
                return torch.get_default_dtype()
            raise
        return torch.float64

    def describe_sizes(self) -> str:
        """Return the sizes and the seed as text for a message."""
        lead = {"...": " ".join([f"{size}" for size in self.lead])} if self.lead else {}
        sizes = " ".join([f"{name}={size}" for name, size in {**lead, **self.sizes}.items()])
        return f"sizes {sizes}, seed {self.seed}"
