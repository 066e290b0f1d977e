"""`Training`: how a model is trained, as far as memory and time depend on it; and its passes, recorded once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch

from circuits.autodiff import Recompute
from circuits.cost import Timeline, timeline
from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.sharding.blocks import blocks


@dataclass(frozen=True)
class Training:
    """A model and how it is trained.

    Attributes:
        diagram: The diagram of the model.
        recompute: What the reverse pass recomputes, as for `forward_backward`.
        moments: The numbers that the optimizer keeps for each parameter: 2 for Adam.
        stored: The dtype in which parameters, gradients and moments are held; None for that of each parameter.
        repeat: How often the run of a module counts, by its path.
        kernels: The part of its FLOPs that is computed of a circuit that runs as one kernel, by its name.
        per_rank: The axes whose sizes are those of the part of one rank.
        names: The names of axes of parameters, as for `plan_sharding`.
    """

    diagram: Diagram
    recompute: Recompute = ()
    moments: int = 2
    stored: torch.dtype | None = None
    repeat: Mapping[str, int] = field(default_factory=dict)
    kernels: Mapping[str, float] = field(default_factory=dict)
    per_rank: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def timeline(self) -> Timeline:
        """The forward and the reverse pass.

        Raises:
            CircuitError: A module or circuit that is named does not run; and as `timeline` raises.
        """
        found = timeline(self.diagram, self.recompute)
        known = {name for each in found.operations for name in each.around}
        for argument, names in (("repeat", self.repeat), ("kernels", self.kernels)):
            for name in names:
                if name not in known:
                    raise CircuitError(
                        f"{argument}: nothing that runs in {self.diagram.name} is called {name}; modules are named by "
                        f"their paths: {', '.join(sorted([each for each in known if '.' in each])[:3]) or 'layers.0'}"
                    )
        return found

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
        outside = set(self.timeline.saved)
        for box in self.diagram.walk():
            if box.label in self.kernels or box.path in self.kernels:
                outside |= {value.number for value in (*box.inputs, *box.outputs)}
        found = []
        for number, around in self.timeline.makers.items():
            primal = self.timeline.primal.get(number, number)
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
