"""`Cost`: what a diagram costs as frozen data, by box and in total.

Start with `BoxCost`, the rows. `groups` adds rows up, `tables` shows them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sympy

from circuits.cost.bound import Bound, bound_of
from circuits.cost.box_cost import QUANTITIES, BoxCost, Work
from circuits.cost.groups import grouped, innermost
from circuits.cost.machine import Machine
from circuits.cost.quantities import brief, check_columns
from circuits.cost.sizes import at
from circuits.cost.tables import CostTables
from circuits.diagram import Box, evaluate, size_text
from circuits.errors import CircuitError, entry_points


@entry_points("at", "by", "sort", "on")
@dataclass(frozen=True)
class Cost(CostTables):
    """What a diagram costs: `count` returns it.

    `print(cost)` prints a table. Quantities are numbers, or sympy formulas in the free axes; `at` gives these sizes.

    Attributes:
        rows: One for each box, each before those inside it; or one for each group.
        total: The whole.
        axes: The free axes.
        guards: The conditions on their sizes under which the diagram, and so its cost, is as recorded.
        notes: The axes that did not stay free, and why.
        sizes: The sizes that `at` has given axes.
        box: The outermost box of the diagram, for tables, without what runs it.
    """

    rows: tuple[BoxCost, ...]
    total: BoxCost
    axes: tuple[str, ...] = ()
    guards: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    box: Box = field(default=Box("function", "", ""), repr=False, compare=False)

    def __repr__(self) -> str:
        """Return what the whole costs, in one line: `Cost(5 rows, 'attention': FLOPs 4*k*x*y)`."""
        return f"Cost({len(self.rows)} row{'s' * (len(self.rows) != 1)}, {brief(self.total)})"

    def at(self, **sizes: int) -> "Cost":
        """Return the cost at sizes of some free axes; formulas in the others remain.

        Args:
            **sizes: The size of each axis, a positive number.

        Raises:
            CircuitError: There is no free axis of this name, a size is no positive number, or at these sizes the
                diagram would be another.

        >>> from circuits import count
        >>> cost = count(lambda a, b: a @ b, axes="y k, k x")
        >>> cost.total.flops, cost.at(y=2, k=3).total.flops, cost.at(y=2, k=3, x=4).total.flops
        (2*k*x*y, 12*x, 48)
        """
        unknown = [axis for axis in sizes if axis not in self.axes]
        if unknown:
            known = f"; the free axes are {', '.join(self.axes)}" if self.axes else ": no axis is free"
            raise CircuitError(f"at: there is no free axis {', '.join(unknown)}{known}")
        for axis, size in sizes.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise CircuitError(f"at: {axis} has to be a positive number, not {size!r}")
        numbers = {sympy.Symbol(axis, integer=True, positive=True): size for axis, size in sizes.items()}
        self._check_guards(numbers)
        return replace(
            self,
            rows=tuple([_at(row, numbers) for row in self.rows]),
            total=_at(self.total, numbers),
            axes=tuple([axis for axis in self.axes if axis not in sizes]),
            guards=tuple([_partial(guard, numbers) for guard in self.guards if not _known(guard, numbers)]),
            sizes=(*self.sizes, *sizes.items()),
        )

    def _check_guards(self, numbers: Mapping[Any, int]) -> None:
        """Raise CircuitError if sizes break a guard.

        That an axis has at least 2 elements is torch's assumption about every free size; costs hold for 1 too.
        """
        for guard in self.guards:
            only_not_one = isinstance(guard, sympy.Ge) and guard.lhs.is_Symbol and guard.rhs == 2
            holds = evaluate(guard, numbers) if _known(guard, numbers) else _partial(guard, numbers)
            if not only_not_one and holds in (False, sympy.false):
                axes = [axis for axis in sorted(guard.free_symbols, key=str) if axis in numbers]
                raise CircuitError(
                    f"at: counted for sizes with {size_text(guard)}, and "
                    f"{', '.join([f'{axis} = {numbers[axis]}' for axis in axes])} "
                    "breaks it: count it again with these sizes"
                )

    def by(self, what: str) -> "Cost":
        """Return the cost in groups of boxes: the numbers of the groups add up to the total.

        Args:
            what: "circuit", "module" or "function": every operation counts for the innermost such box around it;
                "operation": the operations of one name; "path": every module by itself.

        Raises:
            CircuitError: `what` is none of these.
        """
        if what not in ("circuit", "module", "function", "operation", "path"):
            raise CircuitError(f"by has to be 'circuit', 'module', 'function', 'operation' or 'path', not {what!r}")
        return replace(self, rows=grouped(self.rows, what))

    def sort(self, column: str) -> "Cost":
        """Return the rows in order of a column, the largest first, without nesting.

        Boxes with boxes inside are left out, so that nothing is counted twice. Where formulas cannot be compared, give
        the axes sizes first: `cost.at(y=20).sort("flops")`.

        Raises:
            CircuitError: There is no such column, or formulas cannot be compared.
        """
        check_columns([column])
        inner = innermost(self.rows)
        values = [getattr(row, column) for row in inner]
        if any(getattr(value, "free_symbols", None) for value in values):
            raise CircuitError(f"sort: {column} depends on free axes: give them sizes, at({self.axes[0]}=20, ...)")
        order = sorted(range(len(inner)), key=lambda place: -(values[place] or 0))
        return replace(self, rows=tuple([self._alone(inner[place]) for place in order]))

    def on(self, machine: Machine | str) -> Bound:
        """Return lower bounds on the time of each row and of the whole on a machine, and what binds (the roofline).

        No machine with these rates takes less time: `unfused`, if the operations run one after the other, each reading
        its inputs from memory and writing its results there; `fused`, even if each box is one kernel, which reads what
        comes from outside of it once and writes its results. Both assume that computing and moving overlap, and the
        FLOPs of contractions, each in the dtype of its inputs; everything else takes the time of its bytes.

        Args:
            machine: The machine, or the name of one of `MACHINES`.

        Raises:
            CircuitError: No machine has this name, or it has no rate for a dtype in which an operation computes.

        Source: S. Williams, A. Waterman and D. Patterson, Roofline, CACM 52 (4), 2009.

        >>> from circuits import count
        >>> cost = count(lambda a, b: a @ b, axes="y k, k x").at(y=4096, k=4096, x=4096)
        >>> found = cost.on("A100 SXM").total
        >>> f"{found.unfused * 1e3:.2f} ms, {found.unfused_binds}"
        '7.05 ms, compute'
        """
        return bound_of(self, machine)

    def _alone(self, row: BoxCost) -> BoxCost:
        """Return the row of a box as a group of its own, with the module around it in its label."""
        around = [each.path for each in self.rows if each.path and each.place == row.place[: len(each.place)]]
        label = row.label if row.kind == "group" or row.path or not around else f"{row.label} in {around[-1]}"
        return replace(row, kind="group", label=label)


def _at(row: BoxCost, numbers: Mapping[Any, int]) -> BoxCost:
    """Return a row at these sizes."""
    work: Counter[Work] = Counter()
    for each, count in row.work:
        flops = tuple([(dtype, at(number, numbers)) for dtype, number in each.flops])
        work[Work(flops, at(each.bytes, numbers))] += count
    return replace(row, work=tuple(work.items()), **{name: at(getattr(row, name), numbers) for name in QUANTITIES})


def _partial(guard: Any, numbers: Mapping[Any, int]) -> Any:
    """Return a guard with the known sizes in it."""
    return guard.xreplace({axis: sympy.Integer(number) for axis, number in numbers.items()})


def _known(guard: Any, numbers: Mapping[Any, int]) -> bool:
    """Return whether all axes of a guard have sizes."""
    return set(guard.free_symbols) <= set(numbers)


__all__ = ["Cost"]
