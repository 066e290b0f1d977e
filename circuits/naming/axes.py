"""One axis, by identity, and what is known of it: a letter, a group `(h k)`, arithmetic `h/2`, another axis `h'`.

All axes known to be one and the same share a `AxisNode`, so a name learned late reaches back to the boxes that came
before. What a name says of a size is true by construction: an origin is given only where the sizes bear it out, and
in one scope a letter stands for one size. Where nothing is sure the axis has no name and shows its size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy


class AxisNode:
    """One axis of known size; `origin` says what it is called, None while nobody knows."""

    __slots__ = ("_parent", "origin", "size")

    def __init__(self, size: Any, origin: "Origin | None" = None) -> None:
        self.size = size
        self.origin = origin
        self._parent: AxisNode | None = None

    @property
    def root(self) -> "AxisNode":
        """The axis that stands for all that are the same as this one."""
        axis = self
        while axis._parent is not None:
            axis = axis._parent
        return axis

    @property
    def nameable(self) -> bool:
        """Whether it may still be given a name: nothing is known of it, or only how it came from such an axis."""
        origin = self.root.origin
        if isinstance(origin, Imported):
            return origin.label(self.root.size) is None
        return origin is None or (isinstance(origin, Affine | Primed) and origin.base.nameable)

    def label(self) -> str | None:
        """The name to show, or None where there is none."""
        root = self.root
        return None if root.origin is None else root.origin.label(root.size)

    def stated_names(self) -> Iterator[tuple[str, Any]]:
        """The letters its name is written with, and the size of each."""
        root = self.root
        if isinstance(root.origin, StatedName):
            yield root.origin.name, root.size
        elif root.origin is not None:
            for part in root.origin.sources:
                yield from part.stated_names()

    def base_name(self) -> "StatedName | None":
        """The one letter its name is written with."""
        origin = self.root.origin
        if isinstance(origin, Affine | Primed):
            return origin.base.base_name()
        if isinstance(origin, Imported):
            letter = origin.base.base_name() if origin.label(self.root.size) is not None else None
            return letter and StatedName(letter.name, origin.scope)
        return origin if isinstance(origin, StatedName) else None

    def merge_into(self, other: "AxisNode") -> None:
        """From now on this is `other`."""
        self.root._parent = other.root


class Scope:
    """The letters of one circuit, or of the run outside any: in it each stands for one size.

    `reserved` are letters that only the outputs of the circuit have, whose sizes are known when it ends. Until then
    nobody is given one, but a prime may guess at it.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.axes: dict[int, list[AxisNode]] = {}
        self.sizes: dict[str, Any] = {}
        self.reserved = set(reserved)
        self._imported: dict[int, tuple[AxisNode, AxisNode]] = {}

    def allows(self, name: str, size: Any) -> bool:
        """Whether this letter can stand for this size here."""
        return same_size(self.sizes[name], size) if name in self.sizes else name not in self.reserved

    def name(self, axis: AxisNode, name: str) -> None:
        """Call an axis that has no name by this letter, if it can stand for its size."""
        if axis.nameable and self.allows(name, axis.root.size):
            axis.root.origin = self.stated(name, axis.root.size)

    def release_reserved(self) -> None:
        """From here on the reserved letters can be given; primes that guessed at them are guessed anew."""
        for name in self.reserved:
            self.sizes.pop(name, None)
        self.reserved = set()

    def rename(self, axis: AxisNode, name: str) -> None:
        """The same, also for an axis that bears a prime which nobody gave it."""
        if isinstance(axis.root.origin, Primed) and self.allows(name, axis.root.size):
            axis.root.origin = self.stated(name, axis.root.size)
        self.name(axis, name)

    def stated(self, name: str, size: Any) -> "StatedName":
        """This letter, which from now on stands for this size."""
        if size is not None:
            self.sizes.setdefault(name, size)
        return StatedName(name, self)

    def primed(self, name: str, size: Any, taken: Iterable[str] = ()) -> str:
        """The letter with the fewest primes that can stand for this size and is not taken."""
        word = f"{name}'"
        while word in taken or not same_size(self.sizes.get(word, size), size):
            word += "'"
        self.sizes.setdefault(word, size)
        return word

    def imported(self, axis: AxisNode) -> AxisNode:
        """An axis of another scope as it looks from here: the same each time."""
        root = axis.root
        if id(root) not in self._imported:
            self._imported[id(root)] = (root, AxisNode(root.size, Imported(root, self)))
        return self._imported[id(root)][1]


# What a name is made of --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StatedName:
    """A name somebody gave: by a signature, a pattern, or for a run's inputs."""

    name: str
    scope: Scope

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """The axes it is made of: none."""
        return ()

    def label(self, size: Any) -> str:
        """The name itself."""
        return self.name


@dataclass(frozen=True, eq=False)
class Grouped:
    """Several axes read as one, the last running fastest: `(h k)`, or `(h 16)` where one has no name."""

    sources: tuple[AxisNode, ...]

    def label(self, size: Any) -> str | None:
        """`(h k)`; of a part that is known to be a group itself by now, its parts."""
        words = [part.label() or number(part.root.size) for part in self.sources]
        words = [word and word.strip("()") for word in words]
        named = any(part.label() is not None for part in self.sources)
        return f"({' '.join([word for word in words if word])})" if named and all(words) else None


@dataclass(frozen=True, eq=False)
class Concatenated:
    """Several axes laid end to end: `2*c` for two of one name, `c+d` or `c+1` else."""

    sources: tuple[AxisNode, ...]

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

    base: AxisNode
    ratio: Fraction
    offset: int

    @property
    def sources(self) -> tuple[AxisNode, ...]:
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

    base: AxisNode

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """The axis beside which it stands."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """The letter with as many primes as it takes."""
        stem = self.base.base_name()
        return None if stem is None else stem.scope.primed(stem.name.rstrip("'"), size)


@dataclass(frozen=True, eq=False)
class Imported:
    """An axis of an outer scope; its name is shown only where its letters mean nothing else inside."""

    base: AxisNode
    scope: Scope

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """The axis outside."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """The name outside, if it is right in here too."""
        fits = [self.scope.allows(name, size) for name, size in self.base.stated_names()]
        return self.base.label() if all(fits) else None


Origin = StatedName | Grouped | Concatenated | Affine | Primed | Imported


def plain_letter(label: str) -> bool:
    """Whether a label is one letter, primes allowed: what arithmetic can be written with."""
    return label.rstrip("'").isidentifier()


def number(size: Any) -> str | None:
    """The text of a size that is a number."""
    return f"{size}" if isinstance(size, int) else None


def labels(axes: Sequence[AxisNode]) -> tuple[str | None, ...]:
    """The names to show for the axes of one value; of two different axes of one name the second bears a prime."""
    shown: dict[str, AxisNode] = {}
    words: list[str | None] = []
    for axis in axes:
        label = axis.label()
        if label is not None and shown.get(label, axis.root) is not axis.root:
            stem = axis.base_name() if plain_letter(label) else None
            label = None if stem is None else stem.scope.primed(stem.name.rstrip("'"), axis.root.size, shown)
        if label is not None:
            shown[label] = axis.root
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
