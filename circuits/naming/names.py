"""The axes of every value of one recording, in nested scopes: one for the run, and one for each circuit being called.

A circuit's signature opens a scope with axis names of its own. Inside it, an axis from outside is shown by its outer
name only if the names in it stand for nothing else in the circuit; after the circuit returns, outer names are shown
again. A name of the signature is also given to an outer axis that had none. `rules` names the outputs of operations.
"""

from collections.abc import Iterable
from typing import Any

from circuits.naming.axes import AxisNode, Scope
from circuits.naming.matching import Matcher
from circuits.naming.sizes import same_size
from circuits.signature import Axes, Signature

Shape = tuple[Any, ...]


class Names:
    """The axes of every value, by the value's number, in the innermost of the open scopes.

    `shapes` holds the shape of every value and must be set before its axes are read; `booleans` the numbers of the
    boolean values; `levels` the axis that each level of vmap maps over.
    """

    def __init__(self) -> None:
        self.shapes: dict[int, Shape] = {}
        self.booleans: set[int] = set()
        self.levels: dict[int, AxisNode] = {}
        self.scopes: list[Scope] = [Scope()]

    @property
    def scope(self) -> Scope:
        """The innermost open scope."""
        return self.scopes[-1]

    def of(self, number: int) -> list[AxisNode]:
        """Return the axes of a value in the innermost scope; new axes without names if it has none in any scope."""
        for scope in reversed(self.scopes):
            if number in scope.axes:
                axes = scope.axes[number]
                return axes if scope is self.scope else self.put(number, map(self.scope.import_axis, axes))
        return self.put(number, self.fresh(self.shapes[number]))

    def put(self, number: int, axes: Iterable[AxisNode]) -> list[AxisNode]:
        """Set the axes of a value in the innermost scope, and return them.

        An axis whose size differs from the value's is replaced by one without a name; all are if their number differs
        from the value's rank.
        """
        shape, given = self.shapes[number], list(axes)
        if len(given) != len(shape):
            given = self.fresh(shape)
        fitting = [
            axis if same_size(axis.root.size, size) else AxisNode(size) for axis, size in zip(given, shape, strict=True)
        ]
        self.scope.axes[number] = fitting
        return fitting

    def fresh(self, shape: Iterable[Any]) -> list[AxisNode]:
        """Return new axes without names."""
        return [AxisNode(size) for size in shape]

    def matcher(self, signature: Signature | None = None, others: Iterable[Axes] = ()) -> Matcher:
        """Return a matcher of terms with the axes of the innermost scope.

        With a signature it has an inner scope, which `enter` opens; `others` are the axes of its keyword tensors.
        """
        if signature is None:
            return Matcher(self.scope)
        known = {name for terms in (*signature.inputs, *others) for term in terms for name in term.names}
        written = {name for terms in signature.outputs for term in terms for name in term.names}
        return Matcher(self.scope, Scope(written - known))

    def enter(self, matcher: Matcher, inside: dict[int, list[AxisNode]]) -> None:
        """Open the inner scope of a matcher; `inside` holds the axes of its input tensors there, by number."""
        if matcher.inner is not None:
            self.scopes.append(matcher.inner)
            for number, axes in inside.items():
                self.put(number, axes)

    def leave(self, matcher: Matcher, outputs: Iterable[tuple[Axes, int]]) -> None:
        """Close the scope of a matcher: name its outputs inside by the signature, outside by the axes matched there."""
        outside = {number: matcher.match_output(terms, self.of(number)) for terms, number in outputs}
        self.scopes.pop()
        for number, axes in outside.items():
            self.put(number, axes)
