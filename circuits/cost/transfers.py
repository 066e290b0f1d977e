"""`transfers`: the elements that a diagram moves between a slow memory and a fast one when its axes are tiled.

The model of two memories: operations read and write the fast one, of M elements, and all inputs, parameters and results
are in the slow one. It counts elements, no time, and treats the diagram as one pass: what operations pass to each other
stays in fast memory.

Source: V. Abbott and G. Zardini, FlashAttention on a Napkin, TMLR 2025, arXiv 2412.03317.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy

from circuits.cost import io
from circuits.diagram import size_text
from circuits.errors import CircuitError, entry_point, entry_points
from circuits.recording import diagram_of


@entry_points("at", "tiling")
@dataclass(frozen=True)
class Transfers:
    """What a diagram moves under grouping and streaming, as formulas in sizes of axes, groups and blocks.

    `g_y` is the group size of the axis y, `s_x` the block size of the streamed axis x, M the elements of fast memory.

    Attributes:
        name: The name of the circuit.
        group: The grouped axes.
        stream: The streamed axes.
        M: The elements of fast memory: a number or a symbol.
        formula: The elements moved.
        memory: The fast memory that the schedule needs, in elements: the tallest column of live values.
        optimum: The least of `formula` with at most M elements of fast memory, as a formula; None if it has no closed
            form. Blocks take no room in it, and of several groups only the leading product does, so that no tiling
            moves less. It assumes that no group is larger than its axis; where one would be, `least` is the better
            bound.
        groups: The group sizes of the optimum.
        floor: The elements of all inputs and results, which are moved at least once.
        exponent: The power of M by which the elements moved fall: 1/2 for a matrix product, 1 for attention.
        accumulators: What is kept in fast memory for each operation that folds a streamed axis.
        moved: The tensors that are moved.
        columns: The live elements at the operations that may need most memory; `memory` is their maximum.
        sizes: The size of each grouped and streamed axis.
        symbols: The symbol of each group or block size, by axis.
    """

    name: str
    group: tuple[str, ...]
    stream: tuple[str, ...]
    M: Any
    formula: Any
    memory: Any
    optimum: Any
    groups: Mapping[str, Any]
    floor: Any
    exponent: Any
    accumulators: tuple[io.Accumulator, ...]
    moved: tuple[io.Moved, ...]
    columns: tuple[Any, ...]
    sizes: Mapping[str, Any]
    symbols: Mapping[str, Any]

    @property
    def least(self) -> Any:
        """A lower bound of what every tiling moves: the larger of `optimum` and `floor`."""
        none = self.optimum is None or self.optimum.has(sympy.oo, sympy.zoo, sympy.nan)
        return self.floor if none else sympy.Max(self.optimum, self.floor)

    def at(self, **numbers: Any) -> "Transfers":
        """Return the same with numbers for sizes: of axes, `M`, `g_y`, `s_x`.

        Raises:
            CircuitError: No formula has a symbol of this name.
        """
        every = [self.M, self.formula, self.memory, *self.columns, *self.sizes.values(), *self.symbols.values()]
        known = {str(symbol): symbol for each in every for symbol in sympy.sympify(each).free_symbols}
        unknown = [name for name in numbers if name not in known]
        if unknown:
            raise CircuitError(f"transfers: no size is called {unknown[0]!r}; there are {', '.join(sorted(known))}")
        given = {known[name]: sympy.sympify(number) for name, number in numbers.items()}

        def put(formula: Any) -> Any:
            return None if formula is None else sympy.sympify(formula).subs(given)

        return replace(
            self,
            **{each: put(getattr(self, each)) for each in ("M", "formula", "memory", "optimum", "floor")},
            groups={axis: put(size) for axis, size in self.groups.items()},
            moved=tuple([replace(each, elements=put(each.elements)) for each in self.moved]),
            columns=tuple(map(put, self.columns)),
            sizes={axis: put(size) for axis, size in self.sizes.items()},
            symbols={axis: put(symbol) for axis, symbol in self.symbols.items()},
        )

    def tiling(self) -> io.Tiling:
        """Return the best group and block sizes as whole numbers, found among all.

        Raises:
            CircuitError: A size or M has no number, a group or block size has one, or M is too small for any tiling.
        """
        free = self._free()
        if free:
            raise CircuitError(f"transfers: tiling needs a number for {', '.join(free)}: at({free[0]}=…)")
        if any(not isinstance(symbol, sympy.Symbol) for symbol in self.symbols.values()):
            raise CircuitError("transfers: tiling chooses group and block sizes, which are given here")
        sizes = {axis: int(size) for axis, size in self.sizes.items()}
        return io.best_tiling(self.moved, self.columns, sizes, self.symbols, self.stream, int(self.M))

    def gain(self, before: float, after: float) -> Any:
        """Return the factor by which the bytes moved fall if an element has `after` bytes and not `before`.

        It is that of the part that depends on M. Elements are smaller, and more of them fit into the same fast memory.
        """
        return sympy.nsimplify(sympy.sympify(before) / after) ** (1 + self.exponent)

    def _free(self) -> list[str]:
        """Return the names of the sizes that have no number."""
        every = [self.M, *self.sizes.values(), *[each.elements for each in self.moved], *self.columns]
        tiles = {*self.symbols.values()}
        return sorted(
            {str(symbol) for each in every for symbol in sympy.sympify(each).free_symbols if symbol not in tiles}
        )

    def __repr__(self) -> str:
        """Return what is moved, in one line: `Transfers('matmul', grouped over y x: moves x*y+k*x*y/g_y+k*x*y/g_x)`."""
        return f"Transfers({self.name.rpartition('<locals>.')[2]!r}, {self._tiled()}: moves {size_text(self.formula)})"

    def _tiled(self) -> str:
        """Return which axes are grouped and streamed: `grouped over y, streamed over x`."""
        parts = ("grouped", self.group), ("streamed", self.stream)
        return ", ".join([f"{what} over {' '.join(axes)}" for what, axes in parts if axes]) or "in one piece"

    def __str__(self) -> str:
        rows = [(f"{each.direction}", f"{each.name}{_times(each, self)}") for each in self.moved]
        rows += [("moved", size_text(self.formula)), ("memory", f"{size_text(self.memory)} of {size_text(self.M)}")]
        rows += [(f"keeps, over {each.axis}", str(each)) for each in self.accumulators]
        shown = "no closed form" if self.optimum is None else size_text(self.optimum)
        sizes = ", ".join([f"g_{axis} = {size_text(size)}" for axis, size in self.groups.items()])
        rows += [("best groups", sizes)] if sizes else []
        rows += [("at best", f"{shown}, exponent of {size_text(self.M)}: {self.exponent}")]
        if not self._free() and all(isinstance(each, sympy.Symbol) for each in self.symbols.values()):
            found = self.tiling()
            tiles = [f"g_{axis} = {size}" for axis, size in found.groups.items()]
            tiles += [f"s_{axis} = {size}" for axis, size in found.blocks.items()]
            rows += [("best tiling", f"{', '.join(tiles)}: moves {found.moved:,}, needs {found.memory:,}")]
        width = max([len(head) for head, _ in rows])
        title = f"{self.name}, {self._tiled()}"
        return "\n".join([title, *[f"  {head:<{width}}  {text}".rstrip() for head, text in rows]])


def _times(moved: io.Moved, around: Transfers) -> str:
    return "".join([f", × {size_text(around.sizes[axis])}/{around.symbols[axis]}" for axis in moved.lacks])


@entry_point
def transfers(
    target: Any,
    /,
    *args: Any,
    M: Any = None,
    group: str | Sequence[str] = "",
    stream: str | Sequence[str] = "",
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Transfers:
    """Return the elements that a diagram moves between slow and fast memory, under grouping and streaming of axes.

    A grouped axis is divided into groups of `g_y` indexes, computed apart from each other: a tensor without this axis
    is read once for each group. A streamed axis is read in blocks of `s_x` indexes while accumulators stay in fast
    memory.

    Args:
        target: A diagram, or what `trace` takes.
        *args: The positional arguments of `trace`, which a diagram does not take.
        M: The elements of fast memory, a number or an expression; by default a symbol, M.
        group: The grouped axes, by the names that the outermost box gives them: `"a c"`.
        stream: The streamed axes.
        sizes, axes: Those of `trace`.
        **kwargs: The keyword arguments of `trace`, those of the model included.

    Raises:
        CircuitError: An axis is unknown; an operation reads across it, or has no rule; a softmax that is not contracted
            over it is streamed; and as `trace` raises.
        Exception: As `trace` raises.

    >>> from circuits import circuit, einsum
    >>> @circuit("a b, b c -> a c")
    ... def matmul(x, y):
    ...     return einsum(x, y, "a b, b c -> a c")
    >>> found = transfers(matmul, group="a c", stream="b")
    >>> print(f"moved: {found.formula}, memory: {found.memory}")
    moved: a*b*c/g_c + a*b*c/g_a + a*c, memory: g_a*g_c + g_a*s_b + g_c*s_b
    >>> print(f"{found.optimum} at {found.groups}, exponent {found.exponent}")
    a*c + 2*a*b*c/sqrt(M) at {'a': sqrt(M), 'c': sqrt(M)}, exponent 1/2
    >>> found.at(a=4096, b=4096, c=4096, M=65536).optimum
    553648128
    """
    diagram = diagram_of("transfers", target, args, kwargs, sizes, axes)
    grouped, streamed = [tuple(each.split() if isinstance(each, str) else each) for each in (group, stream)]
    program = io.unfused(io.program_of(diagram))
    folds = io.checked(program, grouped, streamed)
    symbols = {axis: sympy.Symbol(f"g_{axis}", positive=True) for axis in grouped}
    symbols |= {axis: sympy.Symbol(f"s_{axis}", positive=True) for axis in streamed}
    sizes_of = {axis: program.sizes[axis] for axis in symbols}
    moved = io.moved(program, grouped)
    columns = io.columns(program, io.Tiles(program.sizes, symbols), streamed, folds)
    memory = _memory_symbol(program) if M is None else sympy.sympify(M)
    return _optimised(diagram.name, memory, moved, columns, sizes_of, symbols, streamed, folds)


def _memory_symbol(program: io.Program) -> Any:
    """Return the symbol M, with a prime if an axis has this name."""
    return sympy.Symbol("M'" if "M" in program.sizes else "M", positive=True)


def _optimised(
    name: str,
    memory: Any,
    moved: tuple[io.Moved, ...],
    columns: list[Any],
    sizes: Mapping[str, Any],
    symbols: Mapping[str, Any],
    stream: tuple[str, ...],
    folds: Mapping[int, Sequence[io.Accumulator]],
) -> Transfers:
    """Return the result with the best group sizes."""
    group = tuple([axis for axis in symbols if axis not in stream])
    terms: dict[frozenset[Any], Any] = {}
    for each in moved:
        lacks = frozenset([symbols[axis] for axis in each.lacks])
        times = sympy.Mul(each.elements, *[sizes[axis] for axis in each.lacks])
        terms[lacks] = terms.get(lacks, 0) + times
    tallest = _tallest(columns)
    without_blocks = _tallest([each.subs({symbols[axis]: 0 for axis in stream}) for each in tallest])
    groups = [symbols[axis] for axis in group]
    best = io.best(terms, without_blocks, groups, memory)
    return Transfers(
        name, group, stream, memory,
        formula=sympy.Add(*[coefficient / sympy.Mul(*lacks) for lacks, coefficient in terms.items()]),
        memory=sympy.Max(*tallest),
        optimum=best.moved,
        groups={axis: best.groups[symbols[axis]] for axis in group} if best.groups else {},
        floor=sympy.Add(*[each.elements for each in moved]),
        exponent=io.exponent_of(terms, without_blocks, groups),
        accumulators=tuple([each for place in sorted(folds) for each in folds[place]]),
        moved=moved, columns=tuple(tallest), sizes=sizes, symbols=symbols,
    )  # fmt: skip


def _tallest(columns: Sequence[Any]) -> list[Any]:
    """Return the columns that are not smaller than another at all sizes: sums of products, compared by their terms."""
    found: list[Any] = []
    for column in dict.fromkeys(map(sympy.sympify, columns)):
        if not any(_at_most(column, other) for other in found):
            found = [other for other in found if not _at_most(other, column)] + [column]
    return found or [sympy.Integer(0)]


def _at_most(column: Any, other: Any) -> bool:
    return all(number >= 0 for number in sympy.expand(other - column).as_coefficients_dict().values())
