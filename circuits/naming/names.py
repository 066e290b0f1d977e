"""The axes of every value of one recording, in nested scopes: one for the run, and one for each circuit being called.

A circuit's signature opens a scope with axis names of its own. Inside it, an axis of the outer scope is shown by its
outer name only if that name has no other size in the circuit and is not reserved for its outputs; after the circuit
returns, outer names are shown again. An outer axis without a name is given the name in the signature. `rules` names
the outputs of operations.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from circuits.naming.axes import AxisNode, Scope, labels
from circuits.naming.matching import Matcher
from circuits.naming.sizes import same_size
from circuits.signature import Axes, Signature

Shape = tuple[Any, ...]


class Names:
    """The axes of every value, by the value's number, in the innermost of the open scopes.

    `shapes` holds the shape of every value, by number, and must be set before the axes of the value are read or set.
    `booleans` holds the numbers of the boolean values, and `levels` the axis that each vmap level maps over.
    `are_stated` is whether a signature or pattern, which alone state names, has been matched.
    """

    def __init__(self, shapes: dict[int, Shape] | None = None, booleans: set[int] | None = None) -> None:
        self.shapes: dict[int, Shape] = {} if shapes is None else shapes
        self.booleans: set[int] = set() if booleans is None else booleans
        self.levels: dict[int, AxisNode] = {}
        self.scopes: list[Scope] = [Scope()]
        self.are_stated = False

    @property
    def scope(self) -> Scope:
        """The innermost open scope."""
        return self.scopes[-1]

    def of(self, number: int) -> list[AxisNode]:
        """Return the axes of a value in the innermost scope; new axes without names if it has none in any scope."""
        known = self.scopes[-1].axes.get(number)
        if known is not None:
            return known
        for scope in reversed(self.scopes):
            if number in scope.axes:
                return self.put(number, map(self.scope.import_axis, scope.axes[number]))
        axes = self.scope.axes[number] = self.fresh(self.shapes[number])
        return axes

    def put(self, number: int, axes: Iterable[AxisNode]) -> list[AxisNode]:
        """Set the axes of a value in the innermost scope, and return them.

        An axis whose size differs from that in the value's shape is replaced by an axis without a name. All axes are
        replaced if their number differs from the value's rank.
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

    def labels(self, axes: Sequence[AxisNode]) -> tuple[str | None, ...]:
        """Return the labels of the axes of one value; there are none, and none is looked for, if no name is stated."""
        return labels(axes) if self.are_stated else (None,) * len(axes)

    def matcher(
        self,
        signature: Signature | None = None,
        others: Iterable[Axes] = (),
        sizes: dict[str, Any] | None = None,
    ) -> Matcher:
        """Return a Matcher whose outer scope is the innermost open scope.

        Args:
            signature: The signature of the circuit that is called; the matcher then has an inner scope, in which the
                names that occur only in the outputs are reserved. Pass the matcher to `enter` to open that scope.
            others: The axes of the circuit's keyword tensors.
            sizes: The sizes passed with a pattern, by name.
        """
        self.are_stated: bool = True
        if signature is None:
            return Matcher(self.scope, sizes=sizes)
        known = {name for terms in (*signature.inputs, *others) for term in terms for name in term.names}
        written = {name for terms in signature.outputs for term in terms for name in term.names}
        return Matcher(self.scope, Scope(written - known))

    def enter(self, matcher: Matcher, inside: dict[int, list[AxisNode]]) -> None:
        """Open the inner scope of a matcher, if it has one; `inside` holds the axes of the inputs there, by number."""
        if matcher.inner is not None:
            self.scopes.append(matcher.inner)
            for number, axes in inside.items():
                self.put(number, axes)

    def leave(self, matcher: Matcher, outputs: Iterable[tuple[Axes, int]]) -> None:
        """Close the inner scope of a matcher, after the outputs are named in it; set their axes in the outer scope.

        Args:
            matcher: A matcher whose scope was opened by `enter`.
            outputs: The terms and the number of each output tensor.
        """
        outside = {number: matcher.match_output(terms, self.of(number)) for terms, number in outputs}
        self.scopes.pop()
        for number, axes in outside.items():
            self.put(number, axes)
