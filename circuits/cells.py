"""One axis, by identity, and what is known of it: a letter, a group `(h k)`, arithmetic `h/2`, another axis `h'`.

All axes known to be one and the same share a `Cell`, so a name learned late reaches back to the boxes that came
before. What a name says of a size is true by construction: an origin is given only where the sizes bear it out, and
in one scope a letter stands for one size. Where nothing is sure the axis has no name and shows its size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy


class Cell:
    """One axis of known size; `origin` says what it is called, None while nobody knows."""

    __slots__ = ("_same", "origin", "size")

    def __init__(self, size: Any, origin: "Origin | None" = None) -> None:
        self.size = size
        self.origin = origin
        self._same: Cell | None = None

    @property
    def root(self) -> "Cell":
        """The cell that stands for all that are the same as this one."""
        cell = self
        while cell._same is not None:
            cell = cell._same
        return cell

    @property
    def open(self) -> bool:
        """Whether it may still be given a name: nothing is known of it, or only how it came from such an axis."""
        origin = self.root.origin
        if isinstance(origin, Seen):
            return origin.label(self.root.size) is None
        return origin is None or (isinstance(origin, Affine | Primed) and origin.base.open)

    def label(self) -> str | None:
        """The name to show, or None where there is none."""
        root = self.root
        return None if root.origin is None else root.origin.label(root.size)

    def letters(self) -> Iterator[tuple[str, Any]]:
        """The letters its name is written with, and the size of each."""
        root = self.root
        if isinstance(root.origin, Letter):
            yield root.origin.name, root.size
        elif root.origin is not None:
            for part in root.origin.sources:
                yield from part.letters()

    def stem(self) -> "Letter | None":
        """The one letter its name is written with."""
        origin = self.root.origin
        if isinstance(origin, Affine | Primed):
            return origin.base.stem()
        if isinstance(origin, Seen):
            letter = origin.base.stem() if origin.label(self.root.size) is not None else None
            return letter and Letter(letter.name, origin.scope)
        return origin if isinstance(origin, Letter) else None

    def join(self, other: "Cell") -> None:
        """From now on this is `other`."""
        self.root._same = other.root


class Scope:
    """The letters of one circuit, or of the run outside any: in it each stands for one size.

    `reserved` are letters that only the outputs of the circuit have, whose sizes are known when it ends. Until then
    nobody is given one, but a prime may guess at it.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.cells: dict[int, list[Cell]] = {}
        self.sizes: dict[str, Any] = {}
        self.reserved = set(reserved)
        self._seen: dict[int, tuple[Cell, Cell]] = {}

    def admits(self, name: str, size: Any) -> bool:
        """Whether this letter can stand for this size here."""
        return same_size(self.sizes[name], size) if name in self.sizes else name not in self.reserved

    def name(self, cell: Cell, name: str) -> None:
        """Call an axis that has no name by this letter, if it can stand for its size."""
        if cell.open and self.admits(name, cell.root.size):
            cell.root.origin = self.letter(name, cell.root.size)

    def open_reserved(self) -> None:
        """From here on the reserved letters can be given; primes that guessed at them are guessed anew."""
        for name in self.reserved:
            self.sizes.pop(name, None)
        self.reserved = set()

    def rename(self, cell: Cell, name: str) -> None:
        """The same, also for an axis that bears a prime which nobody gave it."""
        if isinstance(cell.root.origin, Primed) and self.admits(name, cell.root.size):
            cell.root.origin = self.letter(name, cell.root.size)
        self.name(cell, name)

    def letter(self, name: str, size: Any) -> "Letter":
        """This letter, which from now on stands for this size."""
        if size is not None:
            self.sizes.setdefault(name, size)
        return Letter(name, self)

    def primed(self, name: str, size: Any, taken: Iterable[str] = ()) -> str:
        """The letter with the fewest primes that can stand for this size and is not taken."""
        word = f"{name}'"
        while word in taken or not same_size(self.sizes.get(word, size), size):
            word += "'"
        self.sizes.setdefault(word, size)
        return word

    def see(self, cell: Cell) -> Cell:
        """An axis of another scope as it looks from here: the same each time."""
        root = cell.root
        if id(root) not in self._seen:
            self._seen[id(root)] = (root, Cell(root.size, Seen(root, self)))
        return self._seen[id(root)][1]


# What a name is made of --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Letter:
    """A name somebody gave: by a signature, a pattern, or for a run's inputs."""

    name: str
    scope: Scope

    @property
    def sources(self) -> tuple[Cell, ...]:
        """The axes it is made of: none."""
        return ()

    def label(self, size: Any) -> str:
        """The name itself."""
        return self.name


@dataclass(frozen=True, eq=False)
class Group:
    """Several axes read as one, the last running fastest: `(h k)`, or `(h 16)` where one has no name."""

    sources: tuple[Cell, ...]

    def label(self, size: Any) -> str | None:
        """`(h k)`."""
        words = [part.label() or number(part.root.size) for part in self.sources]
        named = any(part.label() is not None for part in self.sources)
        return f"({' '.join([word for word in words if word])})" if named and all(words) else None


@dataclass(frozen=True, eq=False)
class Sum:
    """Several axes laid end to end: `2*c` for two of one name, `c+d` or `c+1` else."""

    sources: tuple[Cell, ...]

    def label(self, size: Any) -> str | None:
        """The names, each as often as it comes, then the numbers."""
        labels = [part.label() for part in self.sources]
        names = dict.fromkeys([label for label in labels if label is not None])
        rest = [part.root.size for part, label in zip(self.sources, labels, strict=True) if label is None]
        if not all(map(plain_letter, names)) or not all(isinstance(size, int) for size in rest) or not names:
            return None
        words = [name if labels.count(name) == 1 else f"{labels.count(name)}*{name}" for name in names]
        return "+".join(words + [str(sum(rest))] * bool(rest))


@dataclass(frozen=True, eq=False)
class Affine:
    """Arithmetic on an axis: `h/2`, `2*h`, `h-2`."""

    base: Cell
    ratio: Fraction
    offset: int

    @property
    def sources(self) -> tuple[Cell, ...]:
        """The axis it is reckoned from."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """The sum as it is written, where the axis it is reckoned from is a letter."""
        base = self.base.label()
        if base is None or not plain_letter(base):
            return None
        text = base if self.ratio.numerator == 1 else f"{self.ratio.numerator}*{base}"
        text += f"/{self.ratio.denominator}" if self.ratio.denominator != 1 else ""
        return text + (f"{self.offset:+d}" if self.offset else "")


@dataclass(frozen=True, eq=False)
class Primed:
    """Another axis beside one, or come from it in a way that no arithmetic tells: `h'`."""

    base: Cell

    @property
    def sources(self) -> tuple[Cell, ...]:
        """The axis beside which it stands."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """The letter with as many primes as it takes."""
        stem = self.base.stem()
        return None if stem is None else stem.scope.primed(stem.name.rstrip("'"), size)


@dataclass(frozen=True, eq=False)
class Seen:
    """An axis of an outer scope; its name is shown only where its letters mean nothing else inside."""

    base: Cell
    scope: Scope

    @property
    def sources(self) -> tuple[Cell, ...]:
        """The axis outside."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """The name outside, if it is right in here too."""
        fits = [self.scope.admits(name, size) for name, size in self.base.letters()]
        return self.base.label() if all(fits) else None


Origin = Letter | Group | Sum | Affine | Primed | Seen


def plain_letter(label: str) -> bool:
    """Whether a label is one letter, primes allowed: what arithmetic can be written with."""
    return label.rstrip("'").isidentifier()


def number(size: Any) -> str | None:
    """The text of a size that is a number."""
    return f"{size}" if isinstance(size, int) else None


def labels(cells: Sequence[Cell]) -> tuple[str | None, ...]:
    """The names to show for the axes of one value; of two different axes of one name the second bears a prime."""
    shown: dict[str, Cell] = {}
    words: list[str | None] = []
    for cell in cells:
        label = cell.label()
        if label is not None and shown.get(label, cell.root) is not cell.root:
            stem = cell.stem() if plain_letter(label) else None
            label = None if stem is None else stem.scope.primed(stem.name.rstrip("'"), cell.root.size, shown)
        if label is not None:
            shown[label] = cell.root
        words.append(label)
    return tuple(words)


# Sizes -------------------------------------------------------------------------------------------------------------


def quotient(a: Any, b: Any) -> Any:
    """`a / b`, a whole number if both are."""
    return a // b if isinstance(a, int) and isinstance(b, int) else a / b


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are one: numbers, or expressions alike once multiplied out. Of None nothing is known."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if a is None or b is None:
        return False
    return bool(a == b) or bool(sympy.expand(a) == sympy.expand(b))


# Joining and deriving ----------------------------------------------------------------------------------------------


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
    return Cell(size, Group(tuple([part for cell in cells for part in parts(cell, Group) or (cell.root,)])))


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
