"""Lower bounds on the time of collectives from the rates of links.

A rank of n that gathers a tensor of B bytes receives (n - 1)/n B; the same to sum a tensor and keep a part of it; twice
that to sum it and have all of it, unless switches add. These are the standard bounds, which a ring attains. What a rank
sends to others once, as a block to the next rank of a ring, another one receives.

Ranks are numbered as those of a DeviceMesh, the last axis the fastest, and a node holds as many in a row as it has
devices. Bytes from outside enter a node once, over the network links of the ranks of the group in it.

Source: P. Patarasu and X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, JPDC 69, 2009; E.
Chan et al., Collective communication: theory, practice, and experience, CCPE 19, 2007.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import sympy

from circuits.cost import Machine
from circuits.errors import CircuitError
from circuits.sharding.amounts import Mesh


def least_seconds(collective: str, sent: Any, over: Sequence[str], mesh: Mesh, machine: Machine) -> Any:
    """Return a lower bound on the seconds of one collective, a formula if sizes of the mesh are free.

    Args:
        collective: all-reduce, all-gather, reduce-scatter, all-to-all or ring.
        sent: The bytes of the tensor of one rank before it.
        over: The mesh axes whose ranks take part.
        mesh: The mesh.
        machine: The machine of every rank.

    Raises:
        CircuitError: The machine lacks the rate of a link.

    >>> from circuits import MACHINES
    >>> f"{least_seconds('all-gather', 1e9, ['data'], {'data': 8}, MACHINES['H100 SXM']) * 1e3:.1f} ms"
    '15.6 ms'
    """
    ranks, inside = prod([mesh[axis] for axis in over]), ranks_in_a_node(over, mesh, machine)
    if ranks == 1:
        return 0.0
    link = _link(machine) if inside != 1 else None
    if collective in ("ring", "all-to-all"):
        return sent / ((link or 0) + (_network(machine) if inside != ranks else 0))
    part: Any = sent if collective == "all-gather" else sent / ranks
    times = 2 if collective == "all-reduce" else 1
    if inside == ranks:
        return times * (ranks - 1) * part / link
    network = _network(machine)
    entering = times * (ranks - inside) * part / (inside * network)
    if link is None:
        return entering
    received = times * (ranks - 1) * part / (link + network)
    if isinstance(ranks, int) and isinstance(inside, int):
        return max(entering, received)
    alone = times * (ranks - 1) * part / link
    return sympy.Piecewise((alone, sympy.Eq(inside, ranks)), (sympy.Max(entering, received, evaluate=False), True))


def ranks_in_a_node(over: Sequence[str], mesh: Mesh, machine: Machine) -> Any:
    """Return how many ranks of a group are in one node: those along mesh axes, of which the last is the innermost."""
    found: Any = 1
    names = list(mesh)
    for axis in over:
        stride: Any = prod([mesh[each] for each in names[names.index(axis) + 1 :]])
        size: Any = mesh[axis]
        if isinstance(stride, int) and isinstance(size, int):
            found *= min(size, max(1, -(-machine.node // stride)))
        else:
            found *= sympy.Min(size, sympy.Max(1, sympy.ceiling(sympy.Integer(machine.node) / stride)))
    return found


def _link(machine: Machine) -> float:
    """Return the bytes in a second from one device of a node to another, in one direction."""
    if not machine.links:
        raise CircuitError(
            f"{machine.name} has no links between the devices of a node: Machine(links={{'NVLink': ...}})"
        )
    return max([rate.peak for rate in machine.links.values()]) / 2


def _network(machine: Machine) -> float:
    """Return the bytes in a second from one device to other nodes, in one direction."""
    if machine.network is None:
        raise CircuitError(
            f"{machine.name} has {machine.node} devices in a node and no rate between nodes: Machine(network=Rate(...))"
        )
    return machine.network.peak / 2


__all__ = ["least_seconds", "ranks_in_a_node"]
