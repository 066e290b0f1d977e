"""What a rank holds and computes under a plan, by the mesh axes that divide it."""

from collections.abc import Iterable
from functools import cached_property
from math import prod
from typing import Any

import sympy
import torch

from circuits.diagram import Size
from circuits.sharding.amounts import Amount, Mesh, added, of_rank
from circuits.sharding.moves import Placed
from circuits.sharding.sharding import Sharding
from circuits.sharding.splits import Splits
from circuits.sharding.training import Training


class Memory:
    """The amounts of a plan: all are of one step of one rank, for meshes of any sizes.

    Args:
        training: The model and how it is trained.
        plan: The plan.
        given: The mesh axes over which each rank is given its part: they divide no tensor whose sizes are of one rank.
    """

    def __init__(self, training: Training, plan: Sharding, given: frozenset[str]) -> None:
        self.training, self.plan, self.given = training, plan, given
        self.splits = Splits(plan, training.passes, given)

    # Parameters

    def parameters(self, mesh: Mesh) -> Size:
        """Return the bytes of parameters and buffers, in the dtype in which they are held."""
        return self._held(self.plan.parameters, mesh)

    def gradients(self, mesh: Mesh) -> Size:
        """Return the bytes of the gradients, in the dtype of the parameters that are held."""
        return self._held([each for each in self.plan.parameters if _is_trained(each)], mesh)

    def _held(self, parameters: Iterable[Placed], mesh: Mesh) -> Size:
        return sum([self.training.times_at(each.name) * self._part(each, mesh) for each in parameters])

    def _part(self, placed: Placed, mesh: Mesh) -> Any:
        """Return the bytes of the largest part of a parameter; `fully_shard` splits the first axis, rounding up."""
        sizes: list[Any] = list(placed.value.sizes)
        for axis, dim in placed.dims.items():
            sizes[dim] = _quotient(sizes[dim], mesh[axis])
        if placed.fully and sizes:
            sizes[0] = _ceiling(sizes[0], prod([mesh[axis] for axis in placed.fully]))
        return prod(sizes) * self._stored(placed).itemsize

    def _stored(self, placed: Placed) -> torch.dtype:
        """Return the dtype in which a parameter or buffer is held."""
        dtype = placed.value.dtype
        return dtype if self.training.stored is None or placed.value.role == "buffer" else self.training.stored

    def gathered(self, mesh: Mesh) -> Size:
        """Return the bytes that `fully_shard` has gathered at a time: the rest, two blocks, and gradients of one."""
        if not self.plan.data:
            return 0
        blocks = [of_rank(self.unit(name), mesh) for name in self.units if name]
        gradients = [of_rank(self.unit(name, is_gradient=True), mesh) for name in self.units]
        return of_rank(self.unit(""), mesh) + 2 * _largest(blocks) + _largest(gradients)

    @cached_property
    def units(self) -> tuple[str, ...]:
        """The blocks in which `fully_shard` gathers parameters; an empty path for that of the rest."""
        return tuple(dict.fromkeys([self.training.unit(each.name) for each in self._sharded]))

    @property
    def _sharded(self) -> list[Placed]:
        return [each for each in self.plan.parameters if each.fully]

    def unit(self, name: str, is_gradient: bool = False) -> Amount:
        """Return the bytes of the parameters of a block before `fully_shard` splits them, or of their gradients."""
        found = []
        for each in self._sharded:
            if self.training.unit(each.name) == name and (_is_trained(each) or not is_gradient):
                itemsize = (self._stored(each) if is_gradient else each.value.dtype).itemsize
                found.append((frozenset(each.dims), prod([int(size) for size in each.value.sizes]) * itemsize))
        return added(found)

    # Tensors

    @cached_property
    def saved(self) -> Amount:
        """The bytes of the tensors that are saved for backward."""
        passes = self.training.passes
        return added([self._tensor(number, self._times(number)) for number in sorted(passes.saved)])

    @cached_property
    def working(self) -> list[Amount]:
        """The bytes of tensors in memory while each operation runs; gradients of parameters are counted as such.

        What the other runs of a repeated module save is added to each.
        """
        passes, parameters = self.training.passes, {each.value.number for each in self.plan.parameters}
        gradients = {number for number, primal in passes.primal.items() if primal in parameters}
        others = [self._tensor(number, self._times(number) - 1) for number in sorted(passes.saved)]
        ignored = self.training.inner | gradients
        return [
            added([*others, *[self._tensor(number) for number in sorted(each.live - ignored)]])
            for each in passes.operations
        ]

    def _times(self, number: int) -> int:
        return self.training.times(self.training.passes.makers.get(number, frozenset()))

    def _tensor(self, number: int, times: int = 1) -> tuple[frozenset[str], int]:
        return self.splits.of(number), self.training.passes.bytes[number] * times

    # FLOPs

    @cached_property
    def flops(self) -> dict[torch.dtype, Amount]:
        """The FLOPs of contractions by dtype."""
        found: dict[torch.dtype, list[tuple[frozenset[str], int]]] = {}
        for each in self.training.passes.operations:
            times = self.training.times(each.around) * self.training.share(each.around)
            for dtype, flops in each.flops.items():
                found.setdefault(dtype, []).append((self.splits.of_operation(each), round(flops * times)))
        return {dtype: added(parts) for dtype, parts in found.items()}


def _is_trained(placed: Placed) -> bool:
    return placed.value.role == "parameter" and placed.value.requires_grad


def _quotient(size: Any, ranks: Any) -> Any:
    return size // ranks if isinstance(size, int) and isinstance(ranks, int) else size / ranks


def _ceiling(size: Any, ranks: Any) -> Any:
    return -(-size // ranks) if isinstance(size, int) and isinstance(ranks, int) else sympy.ceiling(size / ranks)


def _largest(sizes: list[Any]) -> Any:
    """Return the largest of some sizes, 0 if there are none; a `Max` of formulas."""
    if all(isinstance(size, int) for size in sizes):
        return max(sizes, default=0)
    return sympy.Max(*sizes)


__all__ = ["Memory"]
