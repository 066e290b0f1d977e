"""Which name each axis of each value bears: axes by value, in scopes, and what patterns and signatures say of them.

A circuit's signature opens a scope with letters of its own. Inside, what comes from outside is seen under an outer
name only where no letter of the circuit means something else; leaving it, the outer names come back. What a letter
tells of an axis that had no name outside is told outside too. The rules, one per kind of operation, are in `rules`.
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from circuits.naming.axes import Affine, AxisNode, Grouped, Scope, StatedName, labels, quotient, same_size
from circuits.naming.derivation import group, group_of, parts, prime, scaled, unify
from circuits.signature import Axes, Axis, Derived, Group, Number, Rest, Signature, Term, parse_axes, solve

Shape = tuple[Any, ...]


class Names:
    """The axes of every value, in scopes: a circuit's inside has names of its own."""

    def __init__(self) -> None:
        self.shapes: dict[int, Shape] = {}
        self.booleans: set[int] = set()
        self.levels: dict[int, AxisNode] = {}
        self.scopes: list[Scope] = [Scope()]

    @property
    def scope(self) -> Scope:
        """Where we are."""
        return self.scopes[-1]

    def of(self, number: int) -> list[AxisNode]:
        """The axes of a value as seen from here; new ones if nobody knows it."""
        for scope in reversed(self.scopes):
            if number in scope.axes:
                axes = scope.axes[number]
                return axes if scope is self.scope else self.put(number, map(self.scope.imported, axes))
        return self.put(number, self.fresh(self.shapes[number]))

    def put(self, number: int, axes: Iterable[AxisNode]) -> list[AxisNode]:
        """Set the axes of a value in this scope; a size that does not fit gets a axis of its own, a rank no name."""
        shape, given = self.shapes[number], list(axes)
        if len(given) != len(shape):
            given = self.fresh(shape)
        fitting = [
            axis if same_size(axis.root.size, size) else AxisNode(size) for axis, size in zip(given, shape, strict=True)
        ]
        self.scope.axes[number] = fitting
        return fitting

    def fresh(self, shape: Iterable[Any]) -> list[AxisNode]:
        """Cells without names."""
        return [AxisNode(size) for size in shape]

    def matcher(self, signature: Signature | None = None, others: Iterable[Axes] = ()) -> "Matcher":
        """A pattern or a caller's terms meet what is here; a signature also opens a scope, once it is entered."""
        if signature is None:
            return Matcher(self.scope)
        known = {name for terms in (*signature.inputs, *others) for term in terms for name in term.names}
        written = {name for terms in signature.outputs for term in terms for name in term.names}
        return Matcher(self.scope, Scope(written - known))

    def enter(self, matcher: "Matcher", inside: dict[int, list[AxisNode]]) -> None:
        """Go into the scope of a signature; `inside` has the axes that its tensors have there."""
        if matcher.inside is not None:
            self.scopes.append(matcher.inside)
            for number, axes in inside.items():
                self.put(number, axes)

    def leave(self, matcher: "Matcher", outputs: Iterable[tuple[Axes, int]]) -> None:
        """Come out of it again; the outputs are named by the signature inside, by what the letters meant outside."""
        outside = {number: matcher.match_output(terms, self.of(number)) for terms, number in outputs}
        self.scopes.pop()
        for number, axes in outside.items():
            self.put(number, axes)


class Matcher:
    """The letters of one pattern or signature, and the axes they stand for: outside, and inside if it has a scope."""

    def __init__(self, scope: Scope, inside: Scope | None = None, sizes: dict[str, Any] | None = None) -> None:
        self.scope = scope
        self.inside = inside
        self.axes: dict[str, AxisNode] = {}
        self.inner: dict[str, AxisNode] = {}
        self.sizes = dict(sizes or {})
        self.rest: list[AxisNode] = []
        self.first = not scope.sizes
        self.name = scope.name

    # Tensors that come in

    def match_input(self, terms: Axes, axes: Sequence[AxisNode], keep_rest: bool = True) -> list[AxisNode]:
        """Match the terms of a tensor with its axes; the axes it has inside. Of a wrong number nothing is said."""
        spare = len(axes) - sum([not isinstance(term, Rest) for term in terms])
        if spare < 0 or (spare > 0 and not any(isinstance(term, Rest) for term in terms)):
            return [AxisNode(axis.root.size) for axis in axes]
        left, found = list(axes), []
        for term in terms:
            if isinstance(term, Rest):
                rest, left = left[:spare], left[spare:]
                found += self._rest(rest, keep_rest)
            else:
                found.append(self._read(term, left.pop(0)))
        return found

    def _rest(self, axes: list[AxisNode], keep: bool) -> list[AxisNode]:
        """The terms that `...` stands for; those of several tensors are the same, counted from the right."""
        for here, there in zip(reversed(axes), reversed(self.rest), strict=False):
            unify(here, there)
        if keep and len(self.rest) < len(axes):
            self.rest = axes
        return axes if self.inside is None else [self.inside.imported(axis) for axis in axes]

    def _read(self, term: Term, axis: AxisNode) -> AxisNode:
        if isinstance(term, Axis):
            return self._letter(term.name, axis)
        if isinstance(term, Group):
            return self._group(term, axis)
        if isinstance(term, Derived):
            return self._derived(term, axis)
        return axis if self.inside is None else AxisNode(axis.root.size)

    def _letter(self, name: str, axis: AxisNode) -> AxisNode:
        """What a letter stands for here; it names an axis that nobody named, and joins what it stood for before."""
        known = self.axes.setdefault(name, axis)
        unify(known, axis)
        self.name(axis, name)
        return self._inside(name, axis.root.size)

    def _inside(self, name: str, size: Any) -> AxisNode:
        """The axis of a letter in the scope inside; without such a scope the one outside."""
        if self.inside is None:
            return self.axes[name]
        known = self.inner.get(name)
        if known is None:
            known = self.inner[name] = AxisNode(size, self.inside.stated(name, size))
        return known if size is None or same_size(known.size, size) else AxisNode(size)

    def _group(self, term: Group, axis: AxisNode) -> AxisNode:
        pieces = parts(axis, Grouped)
        if len(pieces) != len(term.terms):
            pieces = self._split(term, axis.root.size)
            if axis.nameable and pieces:
                axis.root.origin = group_of(pieces)
        inside = [self._read(part, piece) for part, piece in zip(term.terms, pieces, strict=bool(pieces))]
        if self.inside is None:
            return axis
        inside = inside or [AxisNode(None, StatedName(str(part), self.inside)) for part in term.terms]
        return group(inside, axis.root.size)

    def _split(self, term: Group, size: Any) -> tuple[AxisNode, ...]:
        """Cells for the parts of a group, sizes solved where all but one are known; none where more are not.

        Parts that have all been read are themselves, also where how long each is was never told.
        """
        known = [self._known(part) for part in term.terms]
        missing = [place for place, each in enumerate(known) if each is None]
        if len(missing) > 1:
            read = [self.axes[str(part)] for part in term.terms if str(part) in self.axes]
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
        known = self.axes.get(str(term))
        return known.root.size if known is not None else self.sizes.get(str(term))

    def _part(self, term: Term, size: Any) -> AxisNode:
        known = self.axes.get(str(term))
        return known if known is not None and same_size(known.root.size, size) else AxisNode(size)

    def _derived(self, term: Derived, axis: AxisNode) -> AxisNode:
        """An axis written as arithmetic; its letter may have been read before."""
        size = axis.root.size
        base = self._base(term, size)
        if axis.nameable:
            axis.root.origin = base and _reckoned(term, base, size)
        if self.inside is None:
            return axis
        within = base and _reckoned(term, self._inside(term.names[0], base.root.size), size)
        return AxisNode(size, within or StatedName(str(term), self.inside))

    def _base(self, term: Derived, size: Any) -> AxisNode | None:
        """The axis whose letter a term is written with, made if the letter was not read before."""
        if len(set(term.names)) != 1:
            return None
        name = term.names[0]
        if name not in self.axes:
            axis = self.axes[name] = AxisNode(solve(term, size, {}, quotient))
            self.scope.name(axis, name)
        return self.axes[name]

    # Tensors that go out

    def match_output(self, terms: Axes, axes: Sequence[AxisNode]) -> list[AxisNode]:
        """Name the axes of an output inside, as far as they have no name; its axes outside."""
        if self.inside is not None:
            self.inside.release_reserved()
            within = Matcher(self.inside)
            within.name = self.inside.rename
            within.axes, within.rest = self.inner, [self.inside.imported(axis) for axis in self.rest]
            within.match_input(terms, axes)
        return self.axes_for(terms, [axis.root.size for axis in axes])

    def axes_for(self, terms: Axes, shape: Sequence[Any]) -> list[AxisNode]:
        """The axes outside of a tensor with these terms; a letter not read before is a new axis."""
        spare = len(shape) - sum([not isinstance(term, Rest) for term in terms])
        found: list[AxisNode] = []
        letters: dict[str, AxisNode] = {}
        for term in terms:
            if isinstance(term, Rest):
                found += self.rest[len(self.rest) - spare :] if 0 < spare <= len(self.rest) else []
            elif len(found) < len(shape):
                axis = self._write(term, shape[len(found)])
                if isinstance(term, Axis):
                    twice = any(axis.root is each.root for name, each in letters.items() if name != term.name)
                    axis = letters[term.name] = prime(axis) if twice and term.name not in letters else axis
                found.append(axis)
        return found

    def _write(self, term: Term, size: Any) -> AxisNode:
        if isinstance(term, Axis):
            known = self.axes.get(term.name)
            if known is None or not same_size(known.root.size, size):
                known = self.axes[term.name] = self._new(term.name, size)
            return known
        if isinstance(term, Group):
            pieces = self._split(term, size)
            for part, axis in zip(term.terms, pieces, strict=bool(pieces)):
                if isinstance(part, Axis) and self.axes.setdefault(part.name, axis) is axis:
                    self.scope.name(axis, part.name)
            return group(pieces, size) if pieces else AxisNode(size)
        if isinstance(term, Derived):
            base = self._base(term, size)
            return AxisNode(size, base and _reckoned(term, base, size))
        return AxisNode(size)

    def _new(self, name: str, size: Any) -> AxisNode:
        """An axis that comes out under a letter that did not go in; `h'` is reckoned from `h` where it can be."""
        stem = self.axes.get(name.rstrip("'"))
        if stem is not None and self.inside is not None and not self.first:
            return scaled(stem, size)
        axis = AxisNode(size)
        self.scope.name(axis, name)
        return axis


def _reckoned(term: Derived, axis: AxisNode, size: Any) -> Affine | None:
    """The arithmetic of a term on its one letter, if the sizes bear it out."""
    offset, once, twice = [term.size({term.names[0]: Fraction(x)}, lambda a, b: a / Fraction(b)) for x in (0, 1, 2)]
    base, ratio = axis.root, Fraction(once - offset)
    whole = offset + ratio * 2 == twice and Fraction(offset).denominator == 1
    fits = whole and same_size(size * ratio.denominator, base.size * ratio.numerator + int(offset) * ratio.denominator)
    return Affine(base, ratio, int(offset)) if fits else None


_WORD = re.compile(r"\([^)]*\)|[^\s()]+")


def read_axes(text: str) -> Axes:
    """The terms of one tensor of an einops pattern: `...` may stand anywhere, `()` is 1."""
    return tuple([term for word in _WORD.findall(text) for term in parse_axes("1" if word == "()" else word)])


def name_by_pattern(
    pattern: str, inputs: Sequence[int], sizes: dict[str, Any], outputs: Sequence[int], names: Names
) -> None:
    """An einops pattern: its letters name what nobody has named, and join what the letters join.

    What stands behind a colon, the maps of windows, tells no names. ValueError where the pattern is written in a way
    that is not known here; then nothing is named.
    """
    left, right = pattern.partition(":")[0].split("->")
    matcher = Matcher(names.scope, sizes=sizes)
    sides = [read_axes(terms) for terms in left.split(",")]
    result = read_axes(right)
    if any(term.names[:1] == ("_",) for terms in (*sides, result) for term in terms):
        raise ValueError("an anonymous axis")
    if len(sides) == 1 and len(inputs) > 1:
        count = AxisNode(len(inputs))
        for number in inputs:
            matcher.match_input(sides[0], [count, *names.of(number)])
    else:
        for terms, number in zip(sides, inputs, strict=True):
            matcher.match_input(terms, names.of(number))
    for number in outputs:
        names.put(number, matcher.axes_for(result, names.shapes[number]))


__all__ = ["AxisNode", "Matcher", "Names", "Scope", "Shape", "labels", "name_by_pattern", "parse_axes", "read_axes"]
