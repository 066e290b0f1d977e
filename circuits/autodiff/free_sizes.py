"""The free sizes of a diagram: sympy expressions in its axis names, as symbolic numbers that torch computes with.

A workspace has a shape environment of its own, so each free axis of the diagram gets a new symbol there. `FreeSizes`
translates sizes and recorded numbers to the new symbols, and what is recorded with these back to the diagram's.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sympy

from circuits.diagram import Diagram, Fixed, Scalar, evaluate
from circuits.recording import Symbols, TracingShapeEnv, axis_symbol


class FreeSizes:
    """The symbols of a diagram's free axes in a new shape environment.

    `used` are the axes that occur in the sizes of the diagram's values: if several axes share one of torch's symbols,
    the new symbol is named after one of these. `running`, called with the workspace, returns the name of the operation
    that is running, for messages about fixed axes.
    """

    def __init__(self, diagram: Diagram, used: Iterable[Any], workspace: Any, running: Callable[[Any], str]) -> None:
        self.diagram = diagram
        self.symbols: Symbols = Symbols(TracingShapeEnv(workspace, running))
        self._to_workspace: dict[Any, Any] = {}
        self._to_diagram: dict[Any, Any] = {}
        self._hints: dict[Any, int] = {}
        self._make_symbols(set(used))

    def _make_symbols(self, used: set[Any]) -> None:
        """Make a new symbol for each torch symbol in the diagram, with the name and multiple of one of its axes."""
        axes = self.diagram.symbols.items()
        for axis, expression in sorted(axes, key=lambda item: item[0] not in used):
            old = next(iter(free_symbols(expression)), None)
            if old is None or old in self._to_workspace:
                continue
            multiple = int(sympy.sympify(expression) / old)
            size = self.symbols.of(str(axis), multiple)
            expressions = self.symbols.expressions.items()
            new = next(symbol for symbol, in_axis in expressions if axis_symbol(in_axis).name == str(axis))
            self._to_workspace[old], self._to_diagram[new] = new, old
            self._hints[new] = evaluate(new, {new: size.node.hint}) // multiple

    def size(self, size: Any) -> Any:
        """Return a size of the diagram, an int or an expression in its free axes, as an int or a SymInt."""
        if isinstance(size, int):
            return size
        symbols = {
            axis_symbol(in_axis): axis_symbol(in_axis) * symbol / in_axis
            for symbol, in_axis in self.symbols.expressions.items()
        }
        return self.number(size.xreplace(symbols))

    def read(self, numbers: Mapping[Any, Any]) -> None:
        """Translate further symbols of the diagram: numbers that the run has read from data, by symbol."""
        for old, number in numbers.items():
            new = self.symbols.raw(number)
            self._to_workspace[old] = new
            if isinstance(new, sympy.Symbol):
                self._to_diagram[new] = old

    def scalar(self, scalar: Scalar) -> Any:
        """Return a recorded number that depends on sizes as a plain or symbolic number."""
        expression = scalar.expression
        return (
            self.number(expression.xreplace(self._to_workspace)) if isinstance(expression, sympy.Basic) else expression
        )

    def number(self, expression: Any) -> Any:
        """Return an expression in the new symbols as a SymInt, SymFloat or SymBool; without symbols, as a number."""
        env = self.symbols.env
        if not set(free_symbols(expression)) <= self._hints.keys():
            return self._number_of_data(expression)
        hint = evaluate(expression, self._hints)
        if not free_symbols(expression):
            return hint
        if isinstance(hint, bool):
            return env.create_symboolnode(expression)
        if isinstance(hint, int):
            return env.create_symintnode(expression, hint=hint)
        return env.create_symfloatnode(expression, hint=float(hint))

    def _number_of_data(self, expression: Any) -> Any:
        """Return an expression in numbers that were read from data, which have no example value."""
        env = self.symbols.env
        if not isinstance(expression, sympy.Expr):
            return env.create_symboolnode(expression)
        if expression.is_integer:
            return env.create_symintnode(expression, hint=None)
        return env.create_symfloatnode(expression, hint=None)

    def expression(self, number: Any) -> Any:
        """Return a symbolic number as an expression in the symbols of the diagram."""
        found = self.symbols.raw(number)
        return found.xreplace(self._to_diagram) if isinstance(found, sympy.Basic) else found

    def fixed(self) -> tuple[Fixed, ...]:
        """Return what was fixed to a number since the diagram was recorded."""
        known = {each.axis for each in self.diagram.fixed}
        return tuple([each for each in self.symbols.fixed() if each.axis not in known])

    def guards(self) -> tuple[Any, ...]:
        """Return the conditions on sizes that the diagram does not have yet, and an equation for each fixed axis."""
        new = [condition for condition in self.symbols.guards() if condition not in self.diagram.guards]
        axes = [each for each in self.fixed() if each.axis in self.symbols.sizes]
        return (*new, *[sympy.Eq(sympy.Symbol(each.axis, integer=True, positive=True), each.size) for each in axes])


def free_symbols(size: Any) -> Iterable[Any]:
    """Return the symbols of an expression; none for a plain number."""
    return getattr(size, "free_symbols", ())
