"""`Training`: how a model is trained, as far as memory and time depend on it; and its passes, recorded once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch

from circuits.cost import Timeline
from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.sharding.blocks import blocks


@dataclass(frozen=True)
class Training:
    """A model and how it is trained.

    Attributes:
        diagram: The diagram of the model.
        passes: Its forward and its reverse pass.
        moments: The numbers that the optimizer keeps for each parameter: 2 for Adam.
        stored: The dtype in which parameters, gradients and moments are held; None for that of each parameter.
        repeat: How often the run of a module counts, by its path.
        kernels: The part of its FLOPs that is computed of a circuit that runs as one kernel, by its name.
        per_rank: The axes whose sizes are those of the part of one rank.
    """

    diagram: Diagram
    passes: Timeline = field(repr=False)
    moments: int = 2
    stored: torch.dtype | None = None
    repeat: Mapping[str, int] = field(default_factory=dict)
    kernels: Mapping[str, float] = field(default_factory=dict)
    per_rank: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raise CircuitError if a module or circuit that is named does not run."""
        known = {name for each in self.passes.operations for name in each.around}
        for argument, names in (("repeat", self.repeat), ("kernels", self.kernels)):
            for name in names:
                if name not in known:
                    raise CircuitError(
                        f"{argument}: nothing that runs in {self.diagram.name} is called {name}; modules are named by "
                        f"their paths: {', '.join(sorted([each for each in known if '.' in each])[:3]) or 'layers.0'}"
                    )

    def times(self, around: Any) -> int:
        """Return how often something counts, from the paths of the modules around it."""
        return prod([times for path, times in self.repeat.items() if path in around])

    def times_at(self, path: str) -> int:
        """Return how often something counts, from the path of the module or parameter where it is."""
        return prod([times for each, times in self.repeat.items() if path == each or path.startswith(f"{each}.")])

    def share(self, around: Any) -> float:
        """Return the part of the FLOPs of an operation that is computed."""
        return prod([share for name, share in self.kernels.items() if name in around])

    @cached_property
    def inner(self) -> frozenset[int]:
        """The tensors inside kernels, which take no memory: neither inputs nor results, nor saved."""
        if not self.kernels:
            return frozenset()
        outside = set(self.passes.saved)
        for box in self.diagram.walk():
            if box.label in self.kernels or box.path in self.kernels:
                outside |= {value.number for value in (*box.inputs, *box.outputs)}
        found = []
        for number, around in self.passes.makers.items():
            primal = self.passes.primal.get(number, number)
            if primal not in outside and any(name in around for name in self.kernels):
                found.append(number)
        return frozenset(found)

    def unit(self, parameter: str) -> str:
        """Return the path of the block in which `fully_shard` gathers a parameter; empty for that of the rest."""
        return max([path for path in self.blocks if parameter.startswith(f"{path}.")], key=len, default="")

    @cached_property
    def blocks(self) -> frozenset[str]:
        """The paths of the blocks to which `fully_shard` is applied one by one."""
        roots = {id(root): root for root, _ in self.diagram.state.values()}
        return frozenset([path for root in roots.values() for path, _ in blocks(root)]) | frozenset(self.repeat)


__all__ = ["Training"]
