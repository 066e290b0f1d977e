"""Axes by identity, as a union-find: an `AxisNode` is one axis; nodes found to be the same axis share a root.

The root holds the size of the axis and its origin: a stated name `h`, a group `(h k)`, a concatenation `c+d`,
arithmetic `h/2`, a distinct axis `h'`, or an axis of an enclosing scope. Labels are computed from origins on demand, so
a name that is stated later also appears in boxes recorded earlier. A label never states a wrong size: an origin is
recorded only if the sizes agree, and within a scope a name has one size. An axis whose name is uncertain has no label
and is shown by its size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from circuits.naming.sizes import same_size, size_text


class AxisNode:
    """One axis: a node of the union-find. `origin` determines its label; None if no name or derivation is recorded."""

    __slots__ = ("_parent", "origin", "size")

    def __init__(self, size: Any, origin: "Origin | None" = None) -> None:
        self.size: Any = size
        self.origin: Origin | None = origin
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

        True if it has no origin; if it is an `Affine` or `Primed` axis whose base is nameable; or if it is imported
        from an enclosing scope and has no label in the scope that imports it.
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
        """Yield the stated names that occur in the label, each with the size of its axis."""
        root = self.root
        if isinstance(root.origin, StatedName):
            yield root.origin.name, root.size
        elif root.origin is not None:
            for part in root.origin.sources:
                yield from part.stated_names()

    def base_name(self) -> "StatedName | None":
        """Return the only stated name in the label; None for groups, concatenations and axes without a label."""
        origin = self.root.origin
        if isinstance(origin, Affine | Primed):
            return origin.base.base_name()
        if isinstance(origin, Imported):
            stated = origin.base.base_name() if origin.label(self.root.size) is not None else None
            return stated and StatedName(stated.name, origin.scope)
        return origin if isinstance(origin, StatedName) else None


class Scope:
    """The axis names of one circuit, or of the run outside all circuits. In a scope each name has one size.

    `axes` holds the axes of every value used in the scope, by the value's number. `reserved` are the names that occur
    only in the outputs of the circuit. Their sizes are unknown until the circuit returns, so before that no axis is
    named by one of them; only a label with primes, `h'`, may be equal to a reserved name.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.axes: dict[int, list[AxisNode]] = {}
        self.sizes: dict[str, Any] = {}
        self.reserved: set[str] = set(reserved)
        self._imported: dict[int, tuple[AxisNode, AxisNode]] = {}

    def allows(self, name: str, size: Any) -> bool:
        """Return whether an axis of this size can have this name in the scope."""
        return same_size(self.sizes[name], size) if name in self.sizes else name not in self.reserved

    def name(self, axis: AxisNode, name: str) -> None:
        """Set the name of a nameable axis, if the scope allows that name for the size of the axis."""
        if axis.nameable and self.allows(name, axis.root.size):
            axis.root.origin = self.define(name, axis.root.size)

    def rename(self, axis: AxisNode, name: str) -> None:
        """Set the name of an axis as `name` does, and also replace a label with primes that was not stated."""
        if isinstance(axis.root.origin, Primed) and self.allows(name, axis.root.size):
            axis.root.origin = self.define(name, axis.root.size)
        self.name(axis, name)

    def release_reserved(self) -> None:
        """Allow the reserved names from now on; labels with primes that were equal to one of them are recomputed."""
        for name in self.reserved:
            self.sizes.pop(name, None)
        self.reserved = set()

    def define(self, name: str, size: Any) -> "StatedName":
        """Record `size` as the size of a name in the scope, unless the name has one; return the name as an origin."""
        if size is not None:
            self.sizes.setdefault(name, size)
        return StatedName(name, self)

    def primed_name(self, name: str, size: Any, taken: Iterable[str] = ()) -> str:
        """Return `name` with the fewest primes, at least one, such that it is not in `taken` and has no other size.

        The size is recorded as the size of the primed name.
        """
        primed = f"{name}'"
        while primed in taken or not same_size(self.sizes.get(primed, size), size):
            primed += "'"
        self.sizes.setdefault(primed, size)
        return primed

    def import_axis(self, axis: AxisNode) -> AxisNode:
        """Return the node in this scope of an axis of an enclosing scope; the same node on every call."""
        root = axis.root
        if id(root) not in self._imported:
            self._imported[id(root)] = (root, AxisNode(root.size, Imported(root, self)))
        return self._imported[id(root)][1]


# An origin determines the label of an axis: `sources` are the axes that it is derived from, and `label(size)` returns
# the text to show for an axis of this size, or None if there is none.


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
    """Several axes flattened into one, the last varying fastest: `(h k)`, or `(h 16)` if the second has no name."""

    sources: tuple[AxisNode, ...]

    def label(self, size: Any) -> str | None:
        """Return the parts in parentheses, each by its label, or by its size without one; nested groups are flattened.

        None if no part has a label, or if a part without a label has a symbolic or unknown size.
        """
        labels = [part.label() for part in self.sources]
        if not any(labels):
            return None
        words = [label or size_text(part.root.size) for label, part in zip(labels, self.sources, strict=True)]
        return f"({' '.join([word.strip('()') for word in words if word])})" if all(words) else None


@dataclass(frozen=True, eq=False)
class Concatenated:
    """Several axes concatenated: `2*c` for two of one name, else `c+d` or `c+1`."""

    sources: tuple[AxisNode, ...]

    def label(self, size: Any) -> str | None:
        """Return the names of the parts joined by `+`, a repeated name as a multiple, then the size of all other parts.

        None if no part has a label, if a label is not a single name, or if a part without a label has a symbolic or
        unknown size.
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
        """Return the arithmetic as text; None unless the label of the base is a single name."""
        base = self.base.label()
        if base is None or not is_plain_name(base):
            return None
        text = base if self.ratio.numerator == 1 else f"{self.ratio.numerator}*{base}"
        text += f"/{self.ratio.denominator}" if self.ratio.denominator != 1 else ""
        return text + (f"{self.offset:+d}" if self.offset else "")


@dataclass(frozen=True, eq=False)
class Primed:
    """A distinct axis that is shown by the name of another with primes, `h'`.

    It is a second axis of that name in one tensor, or an axis derived from the other by an unknown relation.
    """

    base: AxisNode

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """The base."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """Return the name of the base with the fewest primes for which no other size is recorded; None without one."""
        stated = self.base.base_name()
        return None if stated is None else stated.scope.primed_name(stated.name.rstrip("'"), size)


@dataclass(frozen=True, eq=False)
class Imported:
    """An axis of an enclosing scope. Its label is shown only if `scope` allows the names in it for its size."""

    base: AxisNode
    scope: Scope

    @property
    def sources(self) -> tuple[AxisNode, ...]:
        """The axis in the enclosing scope."""
        return (self.base,)

    def label(self, size: Any) -> str | None:
        """Return the label in the enclosing scope; None if `scope` does not allow a name in it."""
        fits = [self.scope.allows(name, size) for name, size in self.base.stated_names()]
        return self.base.label() if all(fits) else None


Origin = StatedName | Grouped | Concatenated | Affine | Primed | Imported


def is_plain_name(label: str) -> bool:
    """Return whether a label is a single name, primes allowed, to which arithmetic can be applied."""
    return label.rstrip("'").isidentifier()


def labels(axes: Sequence[AxisNode]) -> tuple[str | None, ...]:
    """Return the labels of the axes of one value.

    If two distinct axes have the same label, the second gets primes; or no label, if the label is not a single name.
    """
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
