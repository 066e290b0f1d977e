"""Which name each axis of each value bears, and how names pass through boxes.

An axis is a `Cell`: all axes known to be one and the same share it, so a name learned late (a pattern, a signature)
reaches back to the boxes that came before. Cells are joined only when their sizes agree and at most one is named.
A circuit's signature opens a scope with names of its own; leaving it, the outer names come back.
The rules, one per kind of operation, are in `rules`.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import sympy

from circuits.signature import Axes, Axis, Derived, Group, Number, Rest, Term

Shape = tuple[Any, ...]


class Cell:
    """One axis, by identity. It may have a name, or be made of others: a group `(h k)`, a part `h/2`, a sum `c+d`."""

    __slots__ = ("_same", "base", "join", "name", "offset", "parts", "primes", "scale", "size")

    def __init__(self, size: Any, name: str | None = None) -> None:
        self.size = size
        self.name = name
        self.parts: tuple[Cell, ...] = ()
        self.join = " "
        self.base: Cell | None = None
        self.scale = Fraction(1)
        self.offset = 0
        self.primes = 0
        self._same: Cell | None = None

    @property
    def root(self) -> "Cell":
        """The cell that stands for all that are the same as this one."""
        cell = self
        while cell._same is not None:
            cell = cell._same
        return cell

    @property
    def plain(self) -> bool:
        """Whether nothing is known of this axis but its size."""
        root = self.root
        return root.name is None and not root.parts and root.base is None

    def label(self) -> str | None:
        """The name to show, or None where there is none."""
        root = self.root
        if root.name is not None:
            return root.name
        if root.parts:
            return _joined([part.label() for part in root.parts], root.join)
        if root.base is not None:
            return _derived(root.base.label(), root.scale, root.offset, root.primes)
        return None


def _joined(labels: Sequence[str | None], join: str) -> str | None:
    words = [label for label in labels if label is not None]
    if len(words) < len(labels):
        return None
    return f"({' '.join(words)})" if join == " " else join.join(words)


def _derived(base: str | None, scale: Fraction, offset: int, primes: int) -> str | None:
    if base is None:
        return None
    if primes:
        return (base if base.isidentifier() else "".join(filter(str.isidentifier, base[:1])) or "n") + "'" * primes
    if not base.replace("'", "").isidentifier():
        return None
    text = base if scale.numerator == 1 else f"{scale.numerator}*{base}"
    text += f"/{scale.denominator}" if scale.denominator != 1 else ""
    return text + (f"{offset:+d}" if offset else "")


def prime(cell: Cell) -> Cell:
    """Another axis of the same size: `y'` beside `y`."""
    made = Cell(cell.root.size)
    made.base, made.primes = cell.root, 1
    return made


def quotient(a: Any, b: Any) -> Any:
    """`a / b`, a whole number if both are."""
    return a // b if isinstance(a, int) and isinstance(b, int) else a / b


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are one: numbers, or expressions alike once multiplied out."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(a == b) or sympy.expand(a) == sympy.expand(b)


def unify(a: Cell, b: Cell) -> None:
    """Say that two axes are one, if their sizes agree and not both are known already."""
    a, b = a.root, b.root
    if a is b or not (a.plain or b.plain) or not same_size(a.size, b.size):
        return
    if a.plain and _within(a, b):
        return
    if b.plain and _within(b, a):
        return
    if a.plain:
        a._same = b
    else:
        b._same = a


def _within(cell: Cell, other: Cell) -> bool:
    """Whether `other` is made of `cell`: joining the two would make a ring."""
    parts = other.root.parts + ((other.root.base,) if other.root.base is not None else ())
    return any(part.root is cell or _within(cell, part) for part in parts)


def suggest(cell: Cell, name: str) -> None:
    """Name an axis that has no name yet."""
    if cell.plain:
        cell.root.name = name


def group(cells: Sequence[Cell], size: Any) -> Cell:
    """The axis that these axes make when they are read as one, the last running fastest."""
    if len(cells) == 1:
        return cells[0]
    cell = Cell(size)
    cell.parts = tuple([part for inner in cells for part in (inner.root.parts if _grouped(inner) else (inner,))])
    return cell


def _grouped(cell: Cell) -> bool:
    return bool(cell.root.parts) and cell.root.join == " "


def total(cells: Sequence[Cell], size: Any) -> Cell:
    """The axis that these axes make laid end to end: `2*c` for two of one name, `c+d` else."""
    if len(cells) == 1:
        return cells[0]
    if all([cell.root is cells[0].root for cell in cells]) and not cells[0].plain:
        return derive(cells[0], size, Fraction(len(cells)))
    cell = Cell(size)
    cell.parts, cell.join = tuple(cells), "+"
    return cell


def derive(cell: Cell, size: Any, scale: Fraction | None = None, offset: int | None = None) -> Cell:
    """The axis of this size that comes from `cell`: itself if the sizes agree, `h/2`, `2*h`, `h-2`, or `h'`."""
    if same_size(cell.size, size):
        return cell
    root = cell.root
    scale = _ratio(size, root.size) if scale is None and offset is None else scale
    base, made = root, Cell(size)
    if scale is not None and (scale.numerator == 1 or scale.denominator == 1):
        if root.base is not None and not root.offset and not root.primes:
            base, scale = root.base.root, scale * root.scale
            if scale == 1 and same_size(base.size, size):
                return base
        made.scale = scale
    elif offset is not None and root.base is None:
        made.offset = offset
    else:
        base, made.primes = (root.base.root, root.primes + 1) if root.base is not None else (root, 1)
    made.base = base
    return made


def _ratio(a: Any, b: Any) -> Fraction | None:
    if isinstance(a, int) and isinstance(b, int):
        return Fraction(a, b) if b else None
    quotient = sympy.sympify(a) / b
    return Fraction(int(quotient.p), int(quotient.q)) if quotient.is_Rational else None


class Names:
    """The cells of every value, in scopes: a circuit's inside has names of its own."""

    def __init__(self) -> None:
        self.shapes: dict[int, Shape] = {}
        self.booleans: set[int] = set()
        self.scopes: list[dict[int, list[Cell]]] = [{}]
        self.levels: dict[int, Cell] = {}

    def of(self, number: int) -> list[Cell]:
        """The cells of a value as seen from here; new ones if nobody knows it."""
        for scope in reversed(self.scopes):
            if number in scope:
                return scope[number]
        return self.put(number, self.fresh(self.shapes[number]))

    def put(self, number: int, cells: Iterable[Cell]) -> list[Cell]:
        """Set the cells of a value in this scope; a size that does not fit gets a cell of its own."""
        shape = self.shapes[number]
        given = list(cells)[: len(shape)]
        given += self.fresh(shape[len(given) :])
        fitting = [
            cell if same_size(cell.root.size, size) else Cell(size) for cell, size in zip(given, shape, strict=True)
        ]
        self.scopes[-1][number] = fitting
        return fitting

    def fresh(self, shape: Iterable[Any]) -> list[Cell]:
        """Cells without names."""
        return [Cell(size) for size in shape]

    def text(self, number: int) -> tuple[str | None, ...]:
        """The names to show for a value; of two different axes of one name the second bears a prime."""
        return labels(self.of(number))


def labels(cells: Sequence[Cell]) -> tuple[str | None, ...]:
    """The names to show for the axes of one value; of two different axes of one name the second bears a prime."""
    shown: dict[str, Cell] = {}
    words: list[str | None] = []
    for cell in cells:
        label = cell.label()
        while label is not None and shown.setdefault(label, cell.root) is not cell.root:
            label = label + "'" if label.replace("'", "").isidentifier() else None
        words.append(label)
    return tuple(words)


class Meeting:
    """The letters of one pattern or signature, and the cells they stand for outside and inside."""

    def __init__(self, local: bool, sizes: dict[str, Any] | None = None) -> None:
        self.local = local
        self.sizes = dict(sizes or {})
        self.outer: dict[str, Cell] = {}
        self.inner: dict[str, Cell] = {}
        self.rest: list[Cell] = []

    def read(self, axes: Axes, cells: Sequence[Cell], keep_rest: bool = True) -> list[Cell]:
        """Match the axes of a tensor with its cells; the cells it has inside."""
        spare = len(cells) - sum([not isinstance(term, Rest) for term in axes])
        inside: list[Cell] = []
        place = 0
        for term in axes:
            if isinstance(term, Rest):
                inside += cells[place : place + spare]
                if keep_rest and len(self.rest) < spare:
                    self.rest = list(cells[place : place + spare])
                elif keep_rest and spare:
                    for here, there in zip(cells[place : place + spare], self.rest[-spare:], strict=True):
                        unify(here, there)
                place += max(spare, 0)
            elif place < len(cells):
                inside.append(self._read(term, cells[place]))
                place += 1
        return inside

    def _read(self, term: Term, cell: Cell) -> Cell:
        if isinstance(term, Axis):
            return self._letter(term.name, cell)
        if isinstance(term, Group):
            return self._group(term, cell)
        if isinstance(term, Derived):
            suggest(cell, str(term))
            return self._inside(str(term), cell)
        return cell

    def _letter(self, name: str, cell: Cell) -> Cell:
        known = self.outer.get(name)
        if known is None:
            suggest(cell, name)
            taken = any([other.root is cell.root for other in self.outer.values()])
            self.outer[name] = prime(cell) if taken else cell
        else:
            unify(known, cell)
        return self._inside(name, cell)

    def _inside(self, name: str, cell: Cell) -> Cell:
        if not self.local:
            return cell
        return self.inner.setdefault(name, Cell(cell.root.size, name))

    def _group(self, term: Group, cell: Cell) -> Cell:
        parts = cell.root.parts if _grouped(cell) and len(cell.root.parts) == len(term.terms) else None
        if parts is None and cell.plain:
            parts = self._split(term, cell)
            cell.root.parts = tuple(parts)
        if parts is None:
            parts = self._split(term, cell)
        inside = [self._read(part, piece) for part, piece in zip(term.terms, parts, strict=True)]
        return group(inside, cell.root.size) if self.local else cell

    def _split(self, term: Group, cell: Cell) -> tuple[Cell, ...]:
        """Cells for the parts of a group, sizes solved where all but one are known."""
        known = [self._known(part) for part in term.terms]
        missing = [place for place, size in enumerate(known) if size is None]
        if len(missing) == 1:
            product: Any = 1
            for size in known:
                product = product * size if size is not None else product
            known[missing[0]] = quotient(cell.root.size, product)
        return tuple([self._part(part, size) for part, size in zip(term.terms, known, strict=True)])

    def _known(self, term: Term) -> Any:
        if isinstance(term, Number):
            return term.value
        known = self.outer.get(str(term))
        return known.root.size if known is not None else self.sizes.get(str(term))

    def _part(self, term: Term, size: Any) -> Cell:
        if isinstance(term, Axis) and term.name in self.outer:
            return self.outer[term.name]
        return Cell(size, term.name if isinstance(term, Axis) else None)

    def write(self, axes: Axes, shape: Shape) -> list[Cell]:
        """The cells outside of a tensor with these axes; a letter not read before is a new axis."""
        spare = len(shape) - sum([not isinstance(term, Rest) for term in axes])
        cells: list[Cell] = []
        for term in axes:
            if isinstance(term, Rest):
                cells += self.rest[-spare:] if spare > 0 else []
            elif len(cells) < len(shape):
                cells.append(self._write(term, shape[len(cells)]))
        return cells

    def _write(self, term: Term, size: Any) -> Cell:
        if isinstance(term, Axis):
            known = self.outer.get(term.name)
            if known is None or not same_size(known.root.size, size):
                known = self.outer[term.name] = Cell(size, term.name)
            return known
        if isinstance(term, Group):
            parts = self._split(term, Cell(size))
            for part, cell in zip(term.terms, parts, strict=True):
                if isinstance(part, Axis):
                    self.outer.setdefault(part.name, cell)
            return group(parts, size)
        if isinstance(term, Derived):
            base = next((self.outer[name] for name in term.names if name in self.outer), None)
            return Cell(size, str(term)) if base is None else derive(base, size)
        return Cell(size)
