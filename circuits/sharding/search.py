"""`search_shardings`: of all ways to split a model over a mesh, those with which a step takes the least time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch

from circuits.autodiff import Recompute
from circuits.cost import MACHINES, Machine, timeline
from circuits.errors import CircuitError, entry_point, entry_points
from circuits.recording import diagram_of
from circuits.sharding.alternatives import Alternatives
from circuits.sharding.estimate import Estimate, estimate_of
from circuits.sharding.estimate_report import brief, split_text, table
from circuits.sharding.memory import Memory
from circuits.sharding.training import Training

Case = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, str]]
"""What is estimated: the mesh axis of each axis, the sizes of the mesh, and what is split between modules."""

MOST_DEVICES = 16384
"""The most devices of a mesh that is given by their number."""


@entry_points("at")
@dataclass(frozen=True)
class Search:
    """What `search_shardings` found; `print` shows it as a table.

    Attributes:
        found: The estimates, best first: those that fit into memory, then by their least time; in the order in which
            they were tried if sizes of the mesh are free.
        unsplit: Why an axis cannot be split at all, by axis.
        refused: Why a split is not possible on a mesh, by the text of both.
        top: How many of them the table has.
        cases: What each estimate was computed from.
    """

    found: tuple[Estimate, ...]
    unsplit: Mapping[str, str] = field(repr=False)
    refused: Mapping[str, str] = field(repr=False)
    top: int = 5
    cases: "Cases | None" = field(default=None, repr=False, compare=False)

    @property
    @entry_point
    def best(self) -> Estimate:
        """The best estimate.

        Raises:
            CircuitError: Nothing was found.
        """
        if not self.found:
            raise CircuitError(f"search_shardings: {self}")
        return self.found[0]

    def at(self, **sizes: int) -> "Search":
        """Return the search with sizes for free mesh axes; formulas in the others remain.

        Raises:
            CircuitError: There is no free mesh axis of this name, or a size is no positive number.
        """
        free = {name for each in self.found for name, size in each.mesh.items() if not isinstance(size, int)}
        for name, size in sizes.items():
            if name not in free:
                raise CircuitError(f"at: no mesh axis {name} is free; free are {', '.join(sorted(free)) or 'none'}")
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise CircuitError(f"at: {name} has to be a positive number, not {size!r}")
        cases: Any = self.cases
        return cases.search([(each.split, {**each.mesh, **sizes}, each.between) for each in self.found], self.top)

    def _refusals(self) -> str:
        return "\n".join([*self.unsplit.values(), *self.refused.values()])

    def __repr__(self) -> str:
        """Return how many were found, and the first: `Search(12 estimates, the first: data 8, …)`."""
        first = f", the first: {brief(self.found[0])}" if self.found else ""
        return f"Search({len(self.found)} estimate{'s' * (len(self.found) != 1)}{first})"

    def __str__(self) -> str:
        if not self.found:
            return f"no split is possible\n{self._refusals()}"
        return table(self.found[: self.top], len(self.found), self.unsplit, len(self.refused))


@entry_point
def search_shardings(
    target: Any,
    mesh: Mapping[str, int | None] | int,
    machine: Machine | str,
    /,
    *args: Any,
    among: str | None = None,
    only: Mapping[str, str] | None = None,
    between: Mapping[str, str] | None = None,
    per_rank: str = "",
    recompute: Recompute = (),
    repeat: Mapping[str, int] | None = None,
    kernels: Mapping[str, float] | None = None,
    moments: int = 2,
    stored: torch.dtype | None = None,
    top: int = 5,
    names: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Search:
    """Return how a model can be split over a mesh, with memory, communication and least time of a training step.

    Every assignment of axes to mesh axes that `plan_sharding` accepts is estimated, on paper: see `Estimate` for what
    is counted and assumed. Mesh axes that split no parameter are for data, and `fully_shard` splits the parameters over
    them. Links are those of `machine`: the last mesh axes are inside of a node. Times are lower bounds: those of the
    FLOPs of contractions at the peak rate, and of the bytes that collectives have to send at the rate of the links.

    Args:
        target: A diagram, or what `trace` takes. All sizes have to be numbers.
        mesh: The size of each mesh axis by name, None for one that stays free: then what depends on it is a formula,
            and `at` gives it a size. Or the number of devices, 2 to 16,384: then every mesh of `data` and `tensor` is
            tried whose `tensor`, which splits parameters, is inside of a node.
        machine: The machine of each rank, or the name of one of `MACHINES`.
        *args: The positional arguments of `trace`.
        among: The axes that may be split, such as `"b h f"`; None for all.
        only: The one split to estimate, the mesh axis of each axis, in place of all that are possible.
        between: An axis, and the mesh axis that may split it between modules, as for `plan_sharding`: splits in which
            this mesh axis splits parameters are tried with it and without; `only` is tried with it.
        per_rank: The axes whose sizes are those of the part of one rank, such as `"b"` of a batch that grows with the
            mesh; by default all sizes are of the whole.
        recompute: What the reverse pass recomputes, as for `forward_backward`.
        repeat: How often a module counts, by its path: with `{"layers.0": 32}` a model of one layer is one of 32.
        kernels: The circuits and modules that run as one kernel, by name or path, each with the part of its FLOPs that
            the kernel computes: `{"attention": 0.5}` if a causal mask hides half. Tensors inside take no memory unless
            they are saved: beside it, `recompute="y x"` says that scores are not.
        moments: The numbers that the optimizer keeps for each parameter: 2 for Adam, 1 with momentum, 0 for SGD.
        stored: The dtype in which parameters, their gradients and moments are held and gradients are added up, if it
            is not that of the model, in which it computes: `torch.float32` for mixed precision.
        top: How many estimates the table has.
        names: Names for the axes of parameters, as for `plan_sharding`.
        sizes: Sizes of axes, as for `trace`.
        axes: The axes of the inputs, as for `trace`.
        **kwargs: The keyword arguments of `trace`.

    Raises:
        CircuitError: A size of the model is free; the mesh or the machine is not as described; an axis or module has
            another name; and as `plan_sharding`, `forward_backward` and `trace` raise.
        Exception: As `trace` raises.

    >>> from circuits.models import MLP
    >>> mlp = MLP(x=28, y=28, m=512, k=10)
    >>> found = search_shardings(mlp, 2, "H100 SXM", axes="b x y", sizes={"b": 64}, among="b")
    >>> found.best.split, found.best.sent("all-gather", "data"), found.best.sent("reduce-scatter", "data")
    ({'b': 'data'}, 1339412, 2678824)
    """
    diagram = diagram_of("search_shardings", target, args, kwargs, sizes, axes)
    device = machine_of(machine)
    tried = [*meshes(mesh, device)]
    training = Training(
        diagram, timeline(diagram, recompute), moments, stored, repeat or {}, kernels or {}, frozenset(per_rank.split())
    )
    alternatives = Alternatives(diagram, names or {}, () if only is not None else among and among.split())
    given = dict(between or {})
    cases = Cases(training, alternatives, device)
    return cases.search(cases.tried(tried, only, "data" if isinstance(mesh, int) else "", given), top)


class Cases:
    """Estimates plans: each split is planned, and its amounts are computed, once."""

    def __init__(self, training: Training, alternatives: Alternatives, machine: Machine) -> None:
        self.training, self.alternatives, self.machine = training, alternatives, machine
        self._memories: dict[tuple[Any, ...], Memory] = {}

    def tried(
        self, meshes: Iterable[Mapping[str, Any]], only: Any, data: str, between: Mapping[str, str] | None = None
    ) -> Iterator[Case]:
        """Yield each split to try on each mesh, or `only` one; `data` is as for `Alternatives.splits`."""
        given = dict(between or {})
        for mesh in meshes:
            if only is not None:
                yield only, mesh, given
                continue
            for split in self.alternatives.splits([name for name, size in mesh.items() if size != 1], data):
                yield split, mesh, {}
                beside = self.alternatives.between(split, given)
                if beside:
                    yield split, mesh, beside

    def search(self, tried: Iterable[Case], top: int) -> Search:
        """Return the estimates of splits on meshes, the best first."""
        found: list[Estimate] = []
        reasons: dict[str, str] = {}
        for split, mesh, between in tried:
            try:
                found.append(self.estimate(split, mesh, between))
            except CircuitError as error:
                over = split_text(split, between)
                reasons[f"{over} on {' × '.join([f'{name} {size}' for name, size in mesh.items()])}"] = str(error)
        if all(isinstance(size, int) for each in found for size in each.mesh.values()):
            found.sort(key=lambda each: each.order)
        return Search(tuple(found), self.alternatives.refused, reasons, top, self)

    def estimate(
        self, split: Mapping[str, Any], mesh: Mapping[str, Any], between: Mapping[str, str] | None = None
    ) -> Estimate:
        """Return the estimate of one split on one mesh, with axes that are split between modules.

        Raises:
            CircuitError: It is refused.
        """
        given = self._given(split)
        numbers = {name: size if isinstance(size, int) and name not in given else 1 for name, size in mesh.items()}
        between = dict(between or {})
        plan = self.alternatives.plan(numbers, split, between)
        for move in plan.moves:
            if move.side == "inside" and numbers[move.mesh_axis] != mesh[move.mesh_axis]:
                raise CircuitError(
                    f"{move.axis} over {move.mesh_axis}: how often blocks are sent round the ranks depends on how many "
                    f"these are: give {move.mesh_axis} a size, and no axis of it in `per_rank`"
                )
        key = tuple(split.items()), tuple(mesh), tuple(between.items())
        if key not in self._memories:
            self._memories[key] = Memory(self.training, plan, given)
        return estimate_of(self._memories[key], split, mesh, self.machine, between)

    def _given(self, split: Mapping[str, Any]) -> frozenset[str]:
        """Return the mesh axes over which each rank is given its part of the inputs, and the sizes of that part.

        Raises:
            CircuitError: One of them splits another axis too.
        """
        given = {name for axis, name in split.items() if axis in self.training.per_rank}
        for axis, name in split.items():
            if name in given and axis not in self.training.per_rank:
                raise CircuitError(f"{name} splits {axis}, whose size is that of the whole, and axes of `per_rank`")
        return frozenset(given)


def machine_of(machine: Machine | str) -> Machine:
    """Return a machine by its name."""
    found = MACHINES.get(machine) if isinstance(machine, str) else machine
    if not isinstance(found, Machine):
        raise CircuitError(
            f"search_shardings: a Machine or the name of one is expected, not {machine!r}; "
            f"there are {', '.join(MACHINES)}"
        )
    return found


def meshes(mesh: Any, machine: Machine) -> Iterator[dict[str, Any]]:
    """Yield each mesh to try: sizes by name, a symbol for one that is free.

    Raises:
        CircuitError: A size is no positive number, or there are too many devices.
    """
    if isinstance(mesh, Mapping) and mesh:
        for name, size in mesh.items():
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise CircuitError(f"mesh axis {name}: its size has to be a positive number, or None, not {size!r}")
        yield {
            name: sympy.Symbol(name, integer=True, positive=True) if size is None else size
            for name, size in mesh.items()
        }
        return
    if isinstance(mesh, bool) or not isinstance(mesh, int) or not 2 <= mesh <= MOST_DEVICES:
        raise CircuitError(
            f"search_shardings: the mesh has to be sizes by name, {{'data': 8, 'tensor': 8}}, or a number of devices "
            f"from 2 to {MOST_DEVICES:,}, not {mesh!r}"
        )
    for tensor in range(1, max(machine.node, 1) + 1):
        if mesh % tensor == 0 and machine.node % tensor == 0:
            yield {"data": mesh // tensor, "tensor": tensor}


__all__ = ["Search", "search_shardings"]
