"""Match the terms of a signature or einops pattern with the axes of tensors, and record the names that they state."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from circuits.naming.axes import Affine, AxisNode, Grouped, Scope, StatedName
from circuits.naming.derivation import group, group_origin, parts, prime, scaled, unify
from circuits.naming.sizes import quotient, same_size
from circuits.signature import Axes, Axis, Derived, Group, Number, Rest, Term, solve


class Matcher:
    """The names in one pattern or signature, each with its axis.

    A pattern states names in one scope, `outer`. A signature states the names of the scope of its circuit, `inner`; an
    axis that has no name in the outer scope is given the signature's name there too. Call `match_input` for each input,
    then `match_output` (signatures) or `axes_for` (patterns) for each output.

    `outer_axes` and `inner_axes` hold the axes in each scope by name, and `rest` the axes of `...` in the outer scope.

    Args:
        outer: The scope in which the pattern is applied or the circuit is called.
        inner: The scope of the circuit; None for a pattern.
        sizes: The sizes passed with a pattern, by name.
    """

    def __init__(self, outer: Scope, inner: Scope | None = None, sizes: dict[str, Any] | None = None) -> None:
        self.outer = outer
        self.inner = inner
        self.outer_axes: dict[str, AxisNode] = {}
        self.inner_axes: dict[str, AxisNode] = {}
        self.sizes: dict[str, Any] = dict(sizes or {})
        self.rest: list[AxisNode] = []
        self.outer_was_empty: bool = not outer.sizes
        self.give_name: Any = outer.name

    def match_input(self, terms: Axes, axes: Sequence[AxisNode], keep_rest: bool = True) -> list[AxisNode]:
        """Match the terms of a tensor with its axes in the outer scope.

        Args:
            terms: The terms of the tensor.
            axes: The axes of the tensor in the outer scope.
            keep_rest: Whether later tensors match their `...` with that of this tensor, if it has more axes than
                those before; False for keyword tensors.

        Returns:
            The axes of the tensor in the inner scope, or in the outer scope if there is no inner one. If the number of
            axes does not fit the terms, nothing is recorded and the axes are new ones without names.
        """
        spare = len(axes) - sum([not isinstance(term, Rest) for term in terms])
        if spare < 0 or (spare > 0 and not any(isinstance(term, Rest) for term in terms)):
            return [AxisNode(axis.root.size) for axis in axes]
        left, found = list(axes), []
        for term in terms:
            if isinstance(term, Rest):
                rest, left = left[:spare], left[spare:]
                found += self._match_rest(rest, keep_rest)
            else:
                found.append(self._match(term, left.pop(0)))
        return found

    def _match_rest(self, axes: list[AxisNode], keep: bool) -> list[AxisNode]:
        """Unify the axes of `...` with those of earlier tensors, from the right; return them in the inner scope."""
        for here, there in zip(reversed(axes), reversed(self.rest), strict=False):
            unify(here, there)
        if keep and len(self.rest) < len(axes):
            self.rest = axes
        return axes if self.inner is None else [self.inner.import_axis(axis) for axis in axes]

    def _match(self, term: Term, axis: AxisNode) -> AxisNode:
        """Match one term with an axis of the outer scope; return its axis in the inner scope."""
        if isinstance(term, Axis):
            return self._match_name(term.name, axis)
        if isinstance(term, Group):
            return self._match_group(term, axis)
        if isinstance(term, Derived):
            return self._match_derived(term, axis)
        return axis if self.inner is None else AxisNode(axis.root.size)

    def _match_name(self, name: str, axis: AxisNode) -> AxisNode:
        """Unify an axis with the axis matched with this name before, and name it if it has no name."""
        known = self.outer_axes.setdefault(name, axis)
        unify(known, axis)
        self.give_name(axis, name)
        return self._inner_axis(name, axis.root.size)

    def _inner_axis(self, name: str, size: Any) -> AxisNode:
        """Return the axis of a name in the inner scope, or in the outer scope if there is no inner one."""
        if self.inner is None:
            return self.outer_axes[name]
        known = self.inner_axes.get(name)
        if known is None:
            known = self.inner_axes[name] = AxisNode(size, self.inner.define(name, size))
        return known if size is None or same_size(known.size, size) else AxisNode(size)

    def _match_group(self, term: Group, axis: AxisNode) -> AxisNode:
        """Match a group `(h k)` with an axis, and the terms in it with the parts of the axis; return the inner axis.

        If the axis is nameable and not a group of as many parts, it becomes a group of one axis per term, unless the
        sizes of the terms are unknown.
        """
        pieces = parts(axis, Grouped)
        if len(pieces) != len(term.terms):
            pieces = self._group_parts(term, axis.root.size)
            if axis.nameable and pieces:
                axis.root.origin = group_origin(pieces)
        inside = [self._match(part, piece) for part, piece in zip(term.terms, pieces, strict=bool(pieces))]
        if self.inner is None:
            return axis
        inside = inside or [AxisNode(None, StatedName(str(part), self.inner)) for part in term.terms]
        return group(inside, axis.root.size)

    def _group_parts(self, term: Group, size: Any) -> tuple[AxisNode, ...]:
        """Return an axis for each part of a group of this size; if one size is unknown, it is solved from the others.

        If more sizes are unknown, return the axes that the parts were matched with before; empty unless all were.
        """
        known = [_known_size(part, self.outer_axes.get(str(part)), self.sizes) for part in term.terms]
        missing = [position for position, each in enumerate(known) if each is None]
        if len(missing) > 1:
            matched = [self.outer_axes[str(part)] for part in term.terms if str(part) in self.outer_axes]
            return tuple(matched) if len(matched) == len(term.terms) else ()
        if missing:
            product: Any = 1
            for each in known:
                product = product * each if each is not None else product
            known[missing[0]] = quotient(size, product)
        return tuple(
            [_part(self.outer_axes.get(str(part)), each) for part, each in zip(term.terms, known, strict=True)]
        )

    def _match_derived(self, term: Derived, axis: AxisNode) -> AxisNode:
        """Match arithmetic such as `h/2` with an axis; return its axis in the inner scope."""
        size = axis.root.size
        base = self._base_axis(term, size)
        if axis.nameable:
            axis.root.origin = base and _affine_origin(term, base, size)
        if self.inner is None:
            return axis
        within = base and _affine_origin(term, self._inner_axis(term.names[0], base.root.size), size)
        return AxisNode(size, within or StatedName(str(term), self.inner))

    def _base_axis(self, term: Derived, size: Any) -> AxisNode | None:
        """Return the axis of the only name in the term, a new axis if it was not matched before; None for two names."""
        if len(set(term.names)) != 1:
            return None
        name = term.names[0]
        if name not in self.outer_axes:
            axis = self.outer_axes[name] = AxisNode(solve(term, size, {}, quotient))
            self.outer.name(axis, name)
        return self.outer_axes[name]

    def match_output(self, terms: Axes, axes: Sequence[AxisNode]) -> list[AxisNode]:
        """Name the unnamed axes of an output in the inner scope; return its axes in the outer scope."""
        if self.inner is not None:
            self.inner.release_reserved()
            within = Matcher(self.inner)
            within.give_name = self.inner.rename
            within.outer_axes, within.rest = self.inner_axes, [self.inner.import_axis(axis) for axis in self.rest]
            within.match_input(terms, axes)
        return self.axes_for(terms, [axis.root.size for axis in axes])

    def axes_for(self, terms: Axes, shape: Sequence[Any]) -> list[AxisNode]:
        """Return the axes in the outer scope of a tensor with these terms and this shape.

        A name that was not matched before is a new axis. If two names of the tensor have the same axis, the second is
        shown with a prime.
        """
        spare = len(shape) - sum([not isinstance(term, Rest) for term in terms])
        found: list[AxisNode] = []
        by_name: dict[str, AxisNode] = {}
        for term in terms:
            if isinstance(term, Rest):
                found += self.rest[len(self.rest) - spare :] if 0 < spare <= len(self.rest) else []
            elif len(found) < len(shape):
                axis = self._axis_for(term, shape[len(found)])
                if isinstance(term, Axis):
                    twice = any(axis.root is each.root for name, each in by_name.items() if name != term.name)
                    axis = by_name[term.name] = prime(axis) if twice and term.name not in by_name else axis
                found.append(axis)
        return found

    def _axis_for(self, term: Term, size: Any) -> AxisNode:
        """Return the axis in the outer scope of one term of an output."""
        if isinstance(term, Axis):
            known = self.outer_axes.get(term.name)
            if known is None or not same_size(known.root.size, size):
                known = self.outer_axes[term.name] = self._new_axis(term.name, size)
            return known
        if isinstance(term, Group):
            pieces = self._group_parts(term, size)
            for part, axis in zip(term.terms, pieces, strict=bool(pieces)):
                if isinstance(part, Axis) and self.outer_axes.setdefault(part.name, axis) is axis:
                    self.outer.name(axis, part.name)
            return group(pieces, size) if pieces else AxisNode(size)
        if isinstance(term, Derived):
            base = self._base_axis(term, size)
            return AxisNode(size, base and _affine_origin(term, base, size))
        return AxisNode(size)

    def _new_axis(self, name: str, size: Any) -> AxisNode:
        """Return the axis of a name that no input has.

        If it is `h'` in a signature whose inputs have `h`, it is derived from `h`, unless no outer axis had a name.
        """
        base = self.outer_axes.get(name.rstrip("'"))
        if base is not None and self.inner is not None and not self.outer_was_empty:
            return scaled(base, size)
        axis = AxisNode(size)
        self.outer.name(axis, name)
        return axis


def _known_size(term: Term, axis: AxisNode | None, sizes: dict[str, Any]) -> Any:
    """Return the size of a part of a group: a number, that of its axis, or a size passed; None if it is unknown."""
    if isinstance(term, Number):
        return term.value
    return axis.root.size if axis is not None else sizes.get(str(term))


def _part(axis: AxisNode | None, size: Any) -> AxisNode:
    """Return the axis that a part of a group was matched with before, if it has this size; else a new axis."""
    return axis if axis is not None and same_size(axis.root.size, size) else AxisNode(size)


def _affine_origin(term: Derived, axis: AxisNode, size: Any) -> Affine | None:
    """Return the arithmetic of a term on the axis of its only name; None if it is not affine or the sizes disagree."""
    offset, once, twice = [term.size({term.names[0]: Fraction(x)}, lambda a, b: a / Fraction(b)) for x in (0, 1, 2)]
    base, ratio = axis.root, Fraction(once - offset)
    whole = offset + ratio * 2 == twice and Fraction(offset).denominator == 1
    fits = whole and same_size(size * ratio.denominator, base.size * ratio.numerator + int(offset) * ratio.denominator)
    return Affine(base, ratio, int(offset)) if fits else None
