"""Which name each axis of each value bears: cells by value, in scopes, and what patterns and signatures say of them.

A circuit's signature opens a scope with letters of its own. Inside, what comes from outside is seen under an outer
name only where no letter of the circuit means something else; leaving it, the outer names come back. What a letter
tells of an axis that had no name outside is told outside too. The rules, one per kind of operation, are in `rules`.
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from circuits.naming.axes import Affine, Cell, Letter, Scope, labels, quotient, same_size
from circuits.naming.axes import Group as Grouped
from circuits.naming.derivation import group, grouped, parts, prime, scaled, unify
from circuits.signature import Axes, Axis, Derived, Group, Number, Rest, Signature, Term, parse_axes, solve

Shape = tuple[Any, ...]


class Names:
    """The cells of every value, in scopes: a circuit's inside has names of its own."""

    def __init__(self) -> None:
        self.shapes: dict[int, Shape] = {}
        self.booleans: set[int] = set()
        self.levels: dict[int, Cell] = {}
        self.scopes: list[Scope] = [Scope()]

    @property
    def scope(self) -> Scope:
        """Where we are."""
        return self.scopes[-1]

    def of(self, number: int) -> list[Cell]:
        """The cells of a value as seen from here; new ones if nobody knows it."""
        for scope in reversed(self.scopes):
            if number in scope.cells:
                cells = scope.cells[number]
                return cells if scope is self.scope else self.put(number, map(self.scope.see, cells))
        return self.put(number, self.fresh(self.shapes[number]))

    def put(self, number: int, cells: Iterable[Cell]) -> list[Cell]:
        """Set the cells of a value in this scope; a size that does not fit gets a cell of its own, a rank no name."""
        shape, given = self.shapes[number], list(cells)
        if len(given) != len(shape):
            given = self.fresh(shape)
        fitting = [
            cell if same_size(cell.root.size, size) else Cell(size) for cell, size in zip(given, shape, strict=True)
        ]
        self.scope.cells[number] = fitting
        return fitting

    def fresh(self, shape: Iterable[Any]) -> list[Cell]:
        """Cells without names."""
        return [Cell(size) for size in shape]

    def meet(self, signature: Signature | None = None, others: Iterable[Axes] = ()) -> "Meeting":
        """A pattern or a caller's axes meet what is here; a signature also opens a scope, once it is entered."""
        if signature is None:
            return Meeting(self.scope)
        known = {name for axes in (*signature.inputs, *others) for term in axes for name in term.names}
        written = {name for axes in signature.outputs for term in axes for name in term.names}
        return Meeting(self.scope, Scope(written - known))

    def enter(self, meeting: "Meeting", inside: dict[int, list[Cell]]) -> None:
        """Go into the scope of a signature; `inside` has the cells that its tensors have there."""
        if meeting.inside is not None:
            self.scopes.append(meeting.inside)
            for number, cells in inside.items():
                self.put(number, cells)

    def leave(self, meeting: "Meeting", outputs: Iterable[tuple[Axes, int]]) -> None:
        """Come out of it again; the outputs are named by the signature inside, by what the letters meant outside."""
        outside = {number: meeting.close(axes, self.of(number)) for axes, number in outputs}
        self.scopes.pop()
        for number, cells in outside.items():
            self.put(number, cells)


class Meeting:
    """The letters of one pattern or signature, and the cells they stand for: outside, and inside if it has a scope."""

    def __init__(self, scope: Scope, inside: Scope | None = None, sizes: dict[str, Any] | None = None) -> None:
        self.scope = scope
        self.inside = inside
        self.cells: dict[str, Cell] = {}
        self.inner: dict[str, Cell] = {}
        self.sizes = dict(sizes or {})
        self.rest: list[Cell] = []
        self.first = not scope.sizes
        self.name = scope.name

    # Tensors that come in

    def read(self, axes: Axes, cells: Sequence[Cell], keep_rest: bool = True) -> list[Cell]:
        """Match the axes of a tensor with its cells; the cells it has inside. Of a wrong number nothing is said."""
        spare = len(cells) - sum([not isinstance(term, Rest) for term in axes])
        if spare < 0 or (spare > 0 and not any(isinstance(term, Rest) for term in axes)):
            return [Cell(cell.root.size) for cell in cells]
        left, found = list(cells), []
        for term in axes:
            if isinstance(term, Rest):
                rest, left = left[:spare], left[spare:]
                found += self._rest(rest, keep_rest)
            else:
                found.append(self._read(term, left.pop(0)))
        return found

    def _rest(self, cells: list[Cell], keep: bool) -> list[Cell]:
        """The axes that `...` stands for; those of several tensors are the same, counted from the right."""
        for here, there in zip(reversed(cells), reversed(self.rest), strict=False):
            unify(here, there)
        if keep and len(self.rest) < len(cells):
            self.rest = cells
        return cells if self.inside is None else [self.inside.see(cell) for cell in cells]

    def _read(self, term: Term, cell: Cell) -> Cell:
        if isinstance(term, Axis):
            return self._letter(term.name, cell)
        if isinstance(term, Group):
            return self._group(term, cell)
        if isinstance(term, Derived):
            return self._derived(term, cell)
        return cell if self.inside is None else Cell(cell.root.size)

    def _letter(self, name: str, cell: Cell) -> Cell:
        """What a letter stands for here; it names an axis that nobody named, and joins what it stood for before."""
        known = self.cells.setdefault(name, cell)
        unify(known, cell)
        self.name(cell, name)
        return self._inside(name, cell.root.size)

    def _inside(self, name: str, size: Any) -> Cell:
        """The cell of a letter in the scope inside; without such a scope the one outside."""
        if self.inside is None:
            return self.cells[name]
        known = self.inner.get(name)
        if known is None:
            known = self.inner[name] = Cell(size, self.inside.letter(name, size))
        return known if size is None or same_size(known.size, size) else Cell(size)

    def _group(self, term: Group, cell: Cell) -> Cell:
        pieces = parts(cell, Grouped)
        if len(pieces) != len(term.terms):
            pieces = self._split(term, cell.root.size)
            if cell.open and pieces:
                cell.root.origin = grouped(pieces)
        inside = [self._read(part, piece) for part, piece in zip(term.terms, pieces, strict=bool(pieces))]
        if self.inside is None:
            return cell
        inside = inside or [Cell(None, Letter(str(part), self.inside)) for part in term.terms]
        return group(inside, cell.root.size)

    def _split(self, term: Group, size: Any) -> tuple[Cell, ...]:
        """Cells for the parts of a group, sizes solved where all but one are known; none where more are not.

        Parts that have all been read are themselves, also where how long each is was never told.
        """
        known = [self._known(part) for part in term.terms]
        missing = [place for place, each in enumerate(known) if each is None]
        if len(missing) > 1:
            read = [self.cells[str(part)] for part in term.terms if str(part) in self.cells]
            return tuple(read) if len(read) == len(term.terms) else ()
        if missing:
            product: Any = 1
            for each in known:
                product = product * each if each is not None else product
            known[missing[0]] = quotient(size, product)
        return tuple([self._part(part, each) for part, each in zip(term.terms, known, strict=True)])

    def _known(self, term: Term) -> Any:
        if isinstance(term, Number):
            return term.value
        known = self.cells.get(str(term))
        return known.root.size if known is not None else self.sizes.get(str(term))

    def _part(self, term: Term, size: Any) -> Cell:
        known = self.cells.get(str(term))
        return known if known is not None and same_size(known.root.size, size) else Cell(size)

    def _derived(self, term: Derived, cell: Cell) -> Cell:
        """An axis written as arithmetic; its letter may have been read before."""
        size = cell.root.size
        base = self._base(term, size)
        if cell.open:
            cell.root.origin = base and _reckoned(term, base, size)
        if self.inside is None:
            return cell
        within = base and _reckoned(term, self._inside(term.names[0], base.root.size), size)
        return Cell(size, within or Letter(str(term), self.inside))

    def _base(self, term: Derived, size: Any) -> Cell | None:
        """The axis whose letter a term is written with, made if the letter was not read before."""
        if len(set(term.names)) != 1:
            return None
        name = term.names[0]
        if name not in self.cells:
            cell = self.cells[name] = Cell(solve(term, size, {}, quotient))
            self.scope.name(cell, name)
        return self.cells[name]

    # Tensors that go out

    def close(self, axes: Axes, cells: Sequence[Cell]) -> list[Cell]:
        """Name the cells of an output inside, as far as they have no name; its cells outside."""
        if self.inside is not None:
            self.inside.open_reserved()
            within = Meeting(self.inside)
            within.name = self.inside.rename
            within.cells, within.rest = self.inner, [self.inside.see(cell) for cell in self.rest]
            within.read(axes, cells)
        return self.write(axes, [cell.root.size for cell in cells])

    def write(self, axes: Axes, shape: Sequence[Any]) -> list[Cell]:
        """The cells outside of a tensor with these axes; a letter not read before is a new axis."""
        spare = len(shape) - sum([not isinstance(term, Rest) for term in axes])
        found: list[Cell] = []
        letters: dict[str, Cell] = {}
        for term in axes:
            if isinstance(term, Rest):
                found += self.rest[len(self.rest) - spare :] if 0 < spare <= len(self.rest) else []
            elif len(found) < len(shape):
                cell = self._write(term, shape[len(found)])
                if isinstance(term, Axis):
                    twice = any(cell.root is each.root for name, each in letters.items() if name != term.name)
                    cell = letters[term.name] = prime(cell) if twice and term.name not in letters else cell
                found.append(cell)
        return found

    def _write(self, term: Term, size: Any) -> Cell:
        if isinstance(term, Axis):
            known = self.cells.get(term.name)
            if known is None or not same_size(known.root.size, size):
                known = self.cells[term.name] = self._new(term.name, size)
            return known
        if isinstance(term, Group):
            pieces = self._split(term, size)
            for part, cell in zip(term.terms, pieces, strict=bool(pieces)):
                if isinstance(part, Axis) and self.cells.setdefault(part.name, cell) is cell:
                    self.scope.name(cell, part.name)
            return group(pieces, size) if pieces else Cell(size)
        if isinstance(term, Derived):
            base = self._base(term, size)
            return Cell(size, base and _reckoned(term, base, size))
        return Cell(size)

    def _new(self, name: str, size: Any) -> Cell:
        """An axis that comes out under a letter that did not go in; `h'` is reckoned from `h` where it can be."""
        stem = self.cells.get(name.rstrip("'"))
        if stem is not None and self.inside is not None and not self.first:
            return scaled(stem, size)
        cell = Cell(size)
        self.scope.name(cell, name)
        return cell


def _reckoned(term: Derived, cell: Cell, size: Any) -> Affine | None:
    """The arithmetic of a term on its one letter, if the sizes bear it out."""
    offset, once, twice = [term.size({term.names[0]: Fraction(x)}, lambda a, b: a / Fraction(b)) for x in (0, 1, 2)]
    base, ratio = cell.root, Fraction(once - offset)
    whole = offset + ratio * 2 == twice and Fraction(offset).denominator == 1
    fits = whole and same_size(size * ratio.denominator, base.size * ratio.numerator + int(offset) * ratio.denominator)
    return Affine(base, ratio, int(offset)) if fits else None


_WORD = re.compile(r"\([^)]*\)|[^\s()]+")


def read_axes(text: str) -> Axes:
    """The axes of one tensor of an einops pattern: `...` may stand anywhere, `()` is 1."""
    return tuple([term for word in _WORD.findall(text) for term in parse_axes("1" if word == "()" else word)])


def follow(pattern: str, inputs: Sequence[int], sizes: dict[str, Any], outputs: Sequence[int], names: Names) -> None:
    """An einops pattern: its letters name what nobody has named, and join what the letters join.

    What stands behind a colon, the maps of windows, tells no names. ValueError where the pattern is written in a way
    that is not known here; then nothing is named.
    """
    left, right = pattern.partition(":")[0].split("->")
    meeting = Meeting(names.scope, sizes=sizes)
    sides = [read_axes(axes) for axes in left.split(",")]
    result = read_axes(right)
    if any(term.names[:1] == ("_",) for axes in (*sides, result) for term in axes):
        raise ValueError("an anonymous axis")
    if len(sides) == 1 and len(inputs) > 1:
        count = Cell(len(inputs))
        for number in inputs:
            meeting.read(sides[0], [count, *names.of(number)])
    else:
        for axes, number in zip(sides, inputs, strict=True):
            meeting.read(axes, names.of(number))
    for number in outputs:
        names.put(number, meeting.write(result, names.shapes[number]))


__all__ = ["Cell", "Meeting", "Names", "Scope", "Shape", "follow", "labels", "parse_axes", "read_axes"]
