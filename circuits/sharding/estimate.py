"""`Estimate`: what one rank holds in training, what it sends, and how long a step takes at least, for one plan.

Memory is that of a run that frees every tensor after its last use. It is no bound: memory that an allocator keeps, and
workspaces of kernels, come on top; operations that are fused take less.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import sympy

from circuits.cost import Machine
from circuits.diagram import Size
from circuits.sharding.amounts import Mesh, largest_of_rank, of_rank
from circuits.sharding.estimate_report import brief, lines
from circuits.sharding.memory import Memory
from circuits.sharding.mesh import Split
from circuits.sharding.traffic import Traffic, traffic_of


@dataclass(frozen=True)
class Estimate:
    """The estimate of one plan on one mesh. Sizes are in bytes and times in seconds: numbers, or sympy formulas.

    A step is a forward and a backward pass and the update. Computing takes at least `compute`, the time of the FLOPs of
    contractions at the peak rate. `waits` is the least time of the communications between operations, on whose results
    the next operation waits, and `overlapped` that of `fully_shard`, which gathers and sums while the rank computes:
    together, a step takes at least `seconds`, the larger of compute + waits and overlapped.

    Attributes:
        mesh: The size of each mesh axis, a symbol where it is free.
        split: The mesh axis of each axis that is split.
        machine: The machine of each rank.
        parameters: The parameters and buffers that the rank holds.
        gradients: Their gradients.
        optimizer: The moments of the optimizer.
        saved: The tensors that are saved for backward.
        gathered: The parameters that `fully_shard` has gathered at a time: those outside of blocks, those of a block
            and of the next one, and the gradients of one block before they are added up.
        working: The most that tensors take at once in the forward and reverse pass, what is saved included.
        traffic: The communications of a step.
        compute: The least time of computing.
        between: The mesh axis of each axis that is split between modules.
        inputs: How often the inputs as they were given are in a step: once, unless they are those of one rank.
    """

    mesh: Mesh
    split: Mapping[str, Split]
    machine: Machine = field(repr=False)
    parameters: Size
    gradients: Size
    optimizer: Size
    saved: Size
    gathered: Size
    working: Size
    traffic: tuple[Traffic, ...]
    compute: Any
    between: Mapping[str, str] = field(default_factory=dict)
    inputs: Size = 1

    @property
    def peak(self) -> Any:
        """The most bytes that the rank needs at once."""
        return self.parameters + self.gradients + self.optimizer + self.gathered + self.working

    @property
    def fits(self) -> bool | None:
        """Whether the peak fits into the memory of the machine; None if it depends on free sizes."""
        return None if getattr(self.peak, "free_symbols", None) else bool(self.peak <= self.machine.memory.value)

    @property
    def waits(self) -> Any:
        """The least time of the communications that operations wait for."""
        return sum([each.seconds for each in self.traffic if each.waits])

    @property
    def overlapped(self) -> Any:
        """The least time of the communications that overlap with computing."""
        return sum([each.seconds for each in self.traffic if not each.waits])

    @property
    def seconds(self) -> Any:
        """The least time of a step, if what `fully_shard` sends overlaps with computing and the rest does not."""
        busy, overlapped = self.compute + self.waits, self.overlapped
        if any(getattr(each, "free_symbols", None) for each in (busy, overlapped)):
            return sympy.Max(busy, overlapped, evaluate=False)
        return max(busy, overlapped)

    @property
    def order(self) -> tuple[Any, ...]:
        """By which estimates are sorted: those that fit, by the least time for equal inputs, if nothing is free."""
        alone = self.compute + self.waits + self.overlapped
        return not self.fits, self.seconds / self.inputs, alone / self.inputs

    def sent(self, collective: str, *over: str) -> Size:
        """Return the bytes that one rank puts into the collectives of a kind over some mesh axes."""
        return sum([each.bytes for each in self.traffic if (each.collective, each.over) == (collective, over)])

    def __repr__(self) -> str:
        """Return the plan and the main amounts: `Estimate(data 8, b over data: peak 57.0 GiB, at least 1.2 s)`."""
        return f"Estimate({brief(self)})"

    def __str__(self) -> str:
        return lines(self)


def estimate_of(
    memory: Memory, split: Mapping[str, Split], mesh: Mesh, machine: Machine, between: Mapping[str, str]
) -> Estimate:
    """Return the estimate of a plan, whose amounts `memory` has, on a mesh.

    Raises:
        CircuitError: The machine has no rate for a dtype, or for a link.
    """
    compute = sum([of_rank(amount, mesh) / machine.rate_of(dtype).peak for dtype, amount in memory.flops.items()])
    return Estimate(
        mesh, split, machine, memory.parameters(mesh), memory.gradients(mesh),
        memory.training.moments * memory.gradients(mesh), of_rank(memory.saved, mesh), memory.gathered(mesh),
        largest_of_rank(memory.working, mesh), traffic_of(memory, mesh, machine), compute, between,
        prod([mesh[name] for name in memory.given]),
    )  # fmt: skip


__all__ = ["Estimate", "estimate_of"]
