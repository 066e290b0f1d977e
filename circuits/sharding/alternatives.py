"""Which sets of axes a mesh axis can split together, found by planning: `plan_sharding` accepts these.

Axes are tried alone, then those that are refused in pairs, as heads and groups of heads need each other, then unions of
what is accepted. Mesh axes are planned independently of each other, so one is enough.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations, product

from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.sharding.mesh import Split
from circuits.sharding.named import Named
from circuits.sharding.plan import plan_sharding
from circuits.sharding.sharding import Sharding

Axes = frozenset[str]

MOST_SETS = 64
"""The most sets of axes that are considered for one mesh axis."""


class Alternatives:
    """The sets of axes that one mesh axis can split.

    Args:
        diagram: The diagram of the model.
        names: The names of axes of parameters, as for `plan_sharding`.
        among: The axes to consider; None for all.

    Attributes:
        sets: The sets, those with fewer axes first.
        data: Those that split no parameter: a mesh axis that splits one of them is for data.
        refused: Why an axis is in none of them, by axis.

    Raises:
        CircuitError: No tensor has an axis of `among`.
    """

    def __init__(self, diagram: Diagram, names: Mapping[str, str], among: Iterable[str] | None) -> None:
        self.diagram, self.names = diagram, names
        self.known = list(Named(diagram, names).sizes)
        axes = self.known if among is None else list(dict.fromkeys(among))
        for axis in axes:
            if axis not in self.known:
                raise CircuitError(f"among: no tensor of {diagram.name} has an axis {axis}; there are {self.known}")
        self._reasons: dict[Axes, str] = {}
        self.data: set[Axes] = set()
        alone = [frozenset([axis]) for axis in axes]
        atoms = [each for each in alone if self._accepts(each)]
        pairs = [frozenset(pair) for pair in combinations(axes, 2) if not any(each <= {*pair} for each in atoms)]
        atoms += [each for each in pairs if self._accepts(each)]
        self.sets = self._unions(atoms)
        used = frozenset[str]().union(*self.sets)
        self.refused = {axis: self._reasons[frozenset([axis])] for axis in axes if axis not in used}

    def _accepts(self, axes: Axes) -> bool:
        """Return whether a plan that splits these axes over one mesh axis is accepted, and note the reason if not."""
        try:
            plan = self.plan({"ranks": 1}, dict.fromkeys(sorted(axes), "ranks"))
        except CircuitError as error:
            self._reasons[axes] = str(error).replace(" over ranks: ", ": ").splitlines()[0]
            return False
        self.data |= {axes} if plan.data else set()
        return True

    def _unions(self, atoms: list[Axes]) -> list[Axes]:
        """Return all accepted unions of sets, the smallest first, but no more than `MOST_SETS`."""
        found = dict.fromkeys(atoms)
        newest = list(atoms)
        while newest and len(found) < MOST_SETS:
            unions = dict.fromkeys([one | other for one, other in product(newest, atoms)])
            newest = [each for each in unions if each not in found and self._accepts(each)]
            found |= dict.fromkeys(newest)
        return sorted(found, key=len)[:MOST_SETS]

    def between(self, split: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
        """Return what can be split between modules beside a split: by mesh axes that split other axes of parameters."""
        for_data = {split[axis] for axes in self.data if all(axis in split for axis in axes) for axis in axes}
        return {
            axis: name
            for axis, name in given.items()
            if axis not in split and name in split.values() and name not in for_data
        }

    def plan(
        self, mesh: Mapping[str, int], split: Mapping[str, Split], between: Mapping[str, str] | None = None
    ) -> Sharding:
        """Return a plan; an axis that has the name of a mesh axis is split only if it says so.

        Raises:
            CircuitError: As `plan_sharding` raises.
        """
        whole = {name: None for name in mesh if name in self.known and name not in split}
        return plan_sharding(self.diagram, mesh, {**split, **whole}, names=self.names, between=between)

    def splits(self, mesh: Iterable[str], data: str = "") -> list[dict[str, str]]:
        """Return all ways in which each mesh axis splits one of the sets, and no axis is split twice.

        Args:
            mesh: The names of the mesh axes.
            data: A mesh axis that is for data, and no other is; empty if any may be.
        """
        names = list(mesh)
        sets = [[each for each in self.sets if not data or (each in self.data) == (name == data)] for name in names]
        return [
            {axis: name for name, axes in zip(names, way, strict=True) for axis in sorted(axes)}
            for way in product(*sets)
            if sum(map(len, way)) == len(frozenset().union(*way))
        ]


__all__ = ["Alternatives"]
