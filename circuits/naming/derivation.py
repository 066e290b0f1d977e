"""How one axis comes of others: joined, grouped, laid end to end, cut, scaled, shifted; and back to what it was.

Each gives a cell whose name, if it has one, says its size truly. Where the sizes do not bear the arithmetic out, the
axis is another one beside (`h'`), and where just a number was asked for it has no name.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy

from circuits.naming.axes import Affine, Cell, Group, Primed, Sum, same_size


def unify(a: Cell, b: Cell) -> None:
    """Say that two axes are one, if their sizes agree and not both are known already."""
    a, b = a.root, b.root
    if a is b or not same_size(a.size, b.size):
        return
    if b.origin is not None and a.origin is None:
        a, b = b, a
    if b.open and not _made_of(a, b):
        b.join(a)
    elif a.open and not _made_of(b, a):
        a.join(b)


def _made_of(cell: Cell, part: Cell) -> bool:
    """Whether `cell` is made of `part`: joining the two would make a ring."""
    origin = cell.root.origin
    return origin is not None and any(each.root is part or _made_of(each, part) for each in origin.sources)


def group(cells: Sequence[Cell], size: Any) -> Cell:
    """The axis that these axes make when they are read as one, the last running fastest."""
    if len(cells) == 1:
        return cells[0]
    return Cell(size, grouped(cells))


def grouped(cells: Sequence[Cell]) -> Group:
    """These axes as one group: of those that are groups themselves, the parts."""
    return Group(tuple([part for cell in cells for part in parts(cell, Group) or (cell.root,)]))


def parts(cell: Cell, kind: type[Group] | type[Sum]) -> tuple[Cell, ...]:
    """The axes that an axis groups, or is the sum of; none if it is no such axis."""
    origin = cell.root.origin
    return origin.sources if isinstance(origin, kind) else ()


def total(cells: Sequence[Cell], size: Any) -> Cell:
    """The axis that these axes make laid end to end; what was cut and is put together again is what it was."""
    if len(cells) == 1:
        return cells[0]
    origins = [cell.root.origin for cell in cells]
    pieces = [origin for origin in origins if isinstance(origin, Affine) and origin.ratio < 1 and not origin.offset]
    bases = {id(piece.base.root): piece.base for piece in pieces}
    if len(pieces) == len(cells) and len(bases) == 1 and same_size(pieces[0].base.root.size, size):
        return pieces[0].base
    return Cell(size, Sum(tuple([part for cell in cells for part in parts(cell, Sum) or (cell.root,)])))


def divided(cell: Cell, sizes: Sequence[Any]) -> list[Cell]:
    """The axes of these sizes into which an axis is cut: what it was put together from, if the sizes say so."""
    if len(sizes) == 1:
        return [cell]
    found = _consumed(parts(cell, Sum), sizes)
    if found:
        return found
    equal = all(same_size(size, sizes[0]) for size in sizes[1:])
    if cell.open:
        pieces = [Cell(size) for size in sizes]
        cell.root.origin = Sum(tuple(pieces))
        return pieces
    return [scaled(cell, size, Fraction(1, len(sizes))) if equal else Cell(size) for size in sizes]


def _consumed(sources: Sequence[Cell], sizes: Sequence[Any]) -> list[Cell]:
    """Neighbouring sources put together so that they have these sizes; none if they do not add up."""
    left, found = list(sources), []
    for size in sizes:
        taken: list[Cell] = []
        while left and not same_size(sum([cell.root.size for cell in taken]), size):
            taken.append(left.pop(0))
        if not taken or not same_size(sum([cell.root.size for cell in taken]), size):
            return []
        found.append(total(taken, size))
    return found if not left else []


def scaled(cell: Cell, size: Any, ratio: Fraction | None = None) -> Cell:
    """The axis of this size that is `ratio` times `cell`, any ratio if none is given; `h'` if the sizes are not so."""
    ratio = _ratio(size, cell.root.size) if ratio is None else ratio
    return _derived(cell, size, lambda: None if ratio is None else _affine(cell, size, ratio, 0))


def shifted(cell: Cell, size: Any) -> Cell:
    """The axis of this size that is `cell` with a border cut off or added; `h'` if no number tells how much."""
    difference = size - cell.root.size
    whole = isinstance(difference, int) or bool(getattr(difference, "is_Integer", False))
    return _derived(cell, size, lambda: _affine(cell, size, Fraction(1), int(difference)) if whole else None)


def reached(cell: Cell, size: Any) -> Cell:
    """The axis of this size that takes the place of `cell`: one it comes from, or any if the size is just a number."""
    if isinstance(size, int):
        return _derived(cell, size, lambda: Cell(size))
    return scaled(cell, size)


def prime(cell: Cell) -> Cell:
    """Another axis of the same size: `y'` beside `y`."""
    return Cell(cell.root.size, Primed(cell.root))


def _derived(cell: Cell, size: Any, reckon: Callable[[], Cell | None]) -> Cell:
    """The axis itself or one it comes from, if it has this size; else what arithmetic says, else another axis."""
    back: Cell | None = cell
    while back is not None:
        if same_size(back.root.size, size):
            return back
        origin = back.root.origin
        back = origin.base if isinstance(origin, Affine | Primed) else None
    if same_size(size, 1):
        return Cell(size)
    return reckon() or Cell(size, Primed(cell.root))


def _affine(cell: Cell, size: Any, ratio: Fraction, offset: int) -> Cell | None:
    root = cell.root
    if isinstance(root.origin, Affine):
        offset, ratio, root = int(offset + ratio * root.origin.offset), ratio * root.origin.ratio, root.origin.base.root
    fits = same_size(size * ratio.denominator, root.size * ratio.numerator + offset * ratio.denominator)
    return Cell(size, Affine(root, ratio, offset)) if fits else None


def _ratio(a: Any, b: Any) -> Fraction | None:
    """Two sizes as a ratio of numbers, if it is one for every size of the axes in them."""
    if isinstance(a, int) and isinstance(b, int):
        return Fraction(a, b) if b else None
    found = sympy.simplify(sympy.sympify(a) / b)
    return Fraction(int(found.p), int(found.q)) if found.is_Rational else None
