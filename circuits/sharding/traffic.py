"""The communications of a training step under a plan: those that the plan says, and those of `fully_shard`."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from circuits.cost import Machine
from circuits.diagram import Size
from circuits.sharding.amounts import Mesh, added, of_rank
from circuits.sharding.links import least_seconds
from circuits.sharding.memory import Memory
from circuits.sharding.moves import Move, sent_by


@dataclass(frozen=True)
class Traffic:
    """The collectives of one kind over the same mesh axes.

    Attributes:
        collective: all-reduce, all-gather, reduce-scatter, all-to-all or ring.
        over: The mesh axes.
        waits: Whether the next operation waits for them, as for all that the plan says; what `fully_shard` sends
            overlaps with computing.
        count: How many there are.
        bytes: The bytes of the tensors of one rank that it puts in, all together.
        seconds: The least time that they take.
    """

    collective: str
    over: tuple[str, ...]
    waits: bool
    count: int
    bytes: Size
    seconds: Any


def traffic_of(memory: Memory, mesh: Mesh, machine: Machine) -> tuple[Traffic, ...]:
    """Return the communications of a step.

    Raises:
        CircuitError: The machine has no rate for a link.
    """
    found: dict[tuple[str, tuple[str, ...], bool], list[tuple[Any, int]]] = {}
    for move in [each for each in memory.plan.moves if each.is_sent]:
        sent = of_rank(added(_sent(memory, move)), mesh)
        found.setdefault((move.collective, (move.mesh_axis,), True), []).append((sent, _times(memory, move)))
    for collective, sent, times in _fully_sharded(memory, mesh):
        found.setdefault((collective, memory.plan.data, False), []).append((sent, times))
    return tuple([
        Traffic(
            collective, over, waits, sum([times for _, times in each]), sum([times * sent for sent, times in each]),
            sum([times * least_seconds(collective, sent, over, mesh, machine) for sent, times in each]),
        )
        for (collective, over, waits), each in found.items()
    ])  # fmt: skip


def _sent(memory: Memory, move: Move) -> Iterator[tuple[frozenset[str], int]]:
    """Yield the bytes of each tensor of a communication, and the mesh axes that divide it."""
    for value, times in move.sent or ((move.value, 1),):
        dims = frozenset(memory.plan.dims.get(value.number, {}))
        axes = dims if move.sent else sent_by(move, dims)
        yield axes - memory.given, times * prod([int(size) for size in value.sizes]) * value.dtype.itemsize


def _times(memory: Memory, move: Move) -> int:
    """Return how often a communication runs: again if its tensor is recomputed, and in each run of its module."""
    reverse = [each for each in memory.training.passes.operations if each.is_reverse]
    is_again = any(value.number == move.value.number for each in reverse for value in each.box.outputs)
    return memory.training.times_at(move.at) * (2 if is_again and move.pass_ == "forward" else 1)


def _fully_sharded(memory: Memory, mesh: Mesh) -> list[tuple[str, Any, int]]:
    """Return the collectives of `fully_shard`: the bytes that one rank puts in, and how often.

    The parameters of a block are gathered in the forward pass and again in the backward pass, those of the rest once;
    gradients are added up once. Gathered are parameters in the dtype in which the model computes.
    """
    found: list[tuple[str, Any, int]] = []
    ranks: Any = prod([mesh[axis] for axis in memory.plan.data])
    for name in memory.units:
        times = memory.training.times_at(name)
        whole, gradient = of_rank(memory.unit(name), mesh), of_rank(memory.unit(name, is_gradient=True), mesh)
        part = -(-whole // ranks) if isinstance(whole, int) and isinstance(ranks, int) else whole / ranks
        found += [("all-gather", part, times * (2 if name else 1)), ("reduce-scatter", gradient, times)]
    return found


__all__ = ["Traffic", "traffic_of"]
