"""Axes by identity, as a union-find: an `AxisNode` is one axis; nodes found to be the same axis share a root.

The root holds the size of the axis and its origin: a stated name `h`, a group `(h k)`, axes concatenated `c+d`,
arithmetic `h/2`, a distinct axis `h'`, or an axis of an enclosing scope. Labels are computed from origins on demand, so
a name learned late also appears in the boxes recorded before. A label never states a wrong size: an origin is recorded
only if the sizes agree, and within a scope a name stands for one size. An axis whose name is uncertain has no label
and is shown by its size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from circuits.naming.sizes import same_size, size_text


class AxisNode:
    """One axis: a node of the union-find. `origin` determines its label; None while nothing is known of its name."""

    __slots__ = ("_parent", "origin", "size")

    def __init__(self, size: Any, origin: "Origin | None" = None) -> None:
        self.size = size
        self.origin = origin
        self._parent: AxisNode | None = None

    @property
    def root(self) -> "AxisNode":
        """The node that represents this axis and all nodes merged with it (the "find" of the union-find)."""
        node = self
        while node._parent is not None:
            node = node._parent
        return node

    def merge_into(self, other: "AxisNode") -> None:
        """Record that this axis is the same as `other`, whose size and origin are kept (the "union")."""
        self.root._parent = other.root

    @property
    def nameable(self) -> bool:
        """Whether the axis can still be given a name.

        True without an origin, for arithmetic on a nameable axis or an axis distinct from one, and for an axis of an
        enclosing scope whose label is hidden here.
        """
        origin = self.root.origin
        if isinstance(origin, Imported):
            return origin.label(self.root.size) is None
        return origin is None or (isinstance(origin, Affine | Primed) and origin.base.nameable)

    def label(self) -> str | None:
        """Return the name to show, or None if there is none."""
        root = self.root
        return None if root.origin is None else root.origin.label(root.size)

    def stated_names(self) -> Iterator[tuple[str, Any]]:
        """Yield the stated names that the label is composed of, each with its size."""
        root = self.root
        if isinstance(root.origin, StatedName):
            yield root.origin.name, root.size
        elif root.origin is not None:
            for part in root.origin.sources:
                yield from part.stated_names()

    def base_name(self) -> "StatedName | None":
        """Return the one stated name that the label is composed of; None for groups, sums and axes without a label."""
        origin = self.root.origin
        if isinstance(origin, Affine | Primed):
            return origin.base.base_name()
        if isinstance(origin, Imported):
            stated = origin.base.base_name() if origin.label(self.root.size) is not None else None
            return stated and StatedName(stated.name, origin.scope)
        return origin if isinstance(origin, StatedName) else None


class Scope:
    """The axis names of one circuit, or of the run outside all circuits. In a scope each name stands for one size.

    `axes` holds the axes of every value seen in the scope, by the value's number. `reserved` are the names that occur
    only in the outputs of the circuit; their sizes are known when the circuit returns, and until then no axis is given
    one of them, though a label with primes may coincide with one.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.axes: dict[int, list[AxisNode]] = {}
        self.sizes: dict[str, Any] = {}
        self.reserved = set(reserved)
        self._imported: dict[int, tuple[AxisNode, AxisNode]] = {}

    def allows(self, name: str, size: Any) -> bool:
        """Return whether an axis of this size may have this name in the scope."""
        return same_size(self.sizes[name], size) if name in self.sizes else name not in self.reserved

    def name(self, axis: AxisNode, name: str) -> None:
        """Give a nameable axis this name, if the scope allows it for the axis's size."""
        if axis.nameable and self.allows(name, axis.root.size):
            axis.root.origin = self.define(name, axis.root.size)

    def rename(self, axis: AxisNode, name: str) -> None:
        """Give the axis this name as `name` does, also if its label so far is a primed one that was never stated."""
        if isinstance(axis.root.origin, Primed) and self.allows(name, axis.root.size):
            axis.root.origin = self.define(name, axis.root.size)
        self.name(axis, name)

    def release_reserved(self) -> None:
        """Allow the reserved names from now on; primed labels that coincided with one of them are recomputed."""
        for name in self.reserved:
            self.sizes.pop(name, None)
        self.reserved = set()

    def define(self, name: str, size: Any) -> "StatedName":
        """Return the name as an origin; from now on it stands for `size` in the scope, unless it had a size before."""
        if size is not None:
            self.sizes.setdefault(name, size)
        return StatedName(name, self)

    def primed_name(self, name: str, size: Any, taken: Iterable[str] = ()) -> str:
        """Return `name` with the fewest primes, at least one, that can stand for `size` and is not in `taken`."""
        word = f"{name}'"
        while word in taken or not same_size(self.sizes.get(word, size), size):
            word += "'"
        self.sizes.setdefault(word, size)
        return word

    def import_axis(self, axis: AxisNode) -> AxisNode:
        """Return the node that represents an axis of an enclosing scope in this one; the same node on every call."""
        root = axis.root
        if id(root) not in self._imported:
            self._imported[id(root)] = (root, AxisNode(root.size, Imported(root, self)))
        return self._imported[id(root)][1]


# Origins say how the label of an axis is composed: `sources` are the axes that it is composed of, and `label(size)`
# returns the text to show for an axis of this size, or None if there is none.


@dataclass(frozen=True, eq=False)
class StatedName:
    """A name stated by a signature, a pattern or the caller: `h`."""

    name: str
    scope: Scope

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """Always empty."""
        return ()

    def label(self, size: Any) -> str:
        """Return the name itself."""
        return self.name


@dataclass(frozen=True, eq=False)
class Grouped:
    """Several axes flattened into one, the last varying fastest: `(h k)`, or `(h 16)` if one has no name."""

    sources: tuple[AxisNode, ...]

    def label(self, size: Any) -> str | None:
        """Return the labels of the parts in parentheses, nested groups flattened; None if no part has a label."""
        words = [part.label() or size_text(part.root.size) for part in self.sources]
        words = [word and word.strip("()") for word in words]
        named = any(part.label() is not None for part in self.sources)
        return f"({' '.join([word for word in words if word])})" if named and all(words) else None


@dataclass(frozen=True, eq=False)
class Concatenated:
    """Several axes concatenated: `2*c` for two of one name, else `c+d` or `c+1`."""

    sources: tuple[AxisNode, ...]

    def label(self, size: Any) -> str | None:
        """Return the sum of the names, equal ones counted, then of the sizes without a name.

        None if no part has a label, if a label is more than a name, or if a size without a name is symbolic.
        """
        labels = [part.label() for part in self.sources]
        names = dict.fromkeys([label for label in labels if label is not None])
        rest = [part.root.size for part, label in zip(self.sources, labels, strict=True) if label is None]
        if not all(map(is_plain_name, names)) or not all(isinstance(size, int) for size in rest) or not names:
            return None
        words = [name if labels.count(name) == 1 else f"{labels.count(name)}*{name}" for name in names]
        return "+".join(words + [str(sum(rest))] * bool(rest))


@dataclass(frozen=True, eq=False)
class Affine:
    """An axis whose size is `ratio` times that of `base`, plus `offset`: `h/2`, `2*h`, `h-2`."""

    base: AxisNode
    ratio: Fraction
    offset: int

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """The base."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """Return the arithmetic as text; None unless the label of the base is a name."""
        base = self.base.label()
        if base is None or not is_plain_name(base):
            return None
        text = base if self.ratio.numerator == 1 else f"{self.ratio.numerator}*{base}"
        text += f"/{self.ratio.denominator}" if self.ratio.denominator != 1 else ""
        return text + (f"{self.offset:+d}" if self.offset else "")


@dataclass(frozen=True, eq=False)
class Primed:
    """A distinct axis named after another, beside it in one tensor or derived by an unknown relation: `h'`."""

    base: AxisNode

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """The base."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """Return the base's name with as many primes as make it stand for `size`; None if the base has no name."""
        stated = self.base.base_name()
        return None if stated is None else stated.scope.primed_name(stated.name.rstrip("'"), size)


@dataclass(frozen=True, eq=False)
class Imported:
    """An axis of an enclosing scope. Its label is shown only if the names in it stand for nothing else in `scope`."""

    base: AxisNode
    scope: Scope

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """The axis in the enclosing scope."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """Return the label in the enclosing scope; None if a name in it stands for another size in `scope`."""
        fits = [self.scope.allows(name, size) for name, size in self.base.stated_names()]
        return self.base.label() if all(fits) else None


Origin = StatedName | Grouped | Concatenated | Affine | Primed | Imported


def is_plain_name(label: str) -> bool:
    """Return whether a label is a single name, primes allowed, to which arithmetic can be applied."""
    return label.rstrip("'").isidentifier()


def labels(axes: Sequence[AxisNode]) -> tuple[str | None, ...]:
    """Return the labels of the axes of one value; if two distinct axes share a name, the second gets a prime."""
    shown: dict[str, AxisNode] = {}
    words: list[str | None] = []
    for axis in axes:
        label = axis.label()
        if label is not None and shown.get(label, axis.root) is not axis.root:
            stated = axis.base_name() if is_plain_name(label) else None
            label = stated and stated.scope.primed_name(stated.name.rstrip("'"), axis.root.size, taken=shown)
        if label is not None:
            shown[label] = axis.root
        words.append(label)
    return tuple(words)
