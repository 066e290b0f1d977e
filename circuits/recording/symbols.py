"""Symbolic sizes: torch's symbols for the sizes of axes while a trace runs, and the user's axis names for them.

If the size of axis h must be a multiple of 16, the traced code receives 16 times a symbol, and this symbol is replaced
by h/16 in the diagram. Sizes inside a network are therefore shown as h/2, h/4.

Source: torch's ShapeEnv, which torch.export uses in the same way.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, free_unbacked_symbols
from torch.utils._sympy.value_ranges import ValueRanges

from circuits.diagram import Fixed, Size, size_text
from circuits.recording.user_frames import current_call

HINTS = (
    (48, 80, 112, 176, 208, 272, 304, 368, 464, 496),
    (24, 20, 28, 40, 44, 36, 52, 56),
    (3, 4, 5, 6, 7, 9, 10, 11),
)
"""Example sizes of free axes (torch calls them hints), unlikely to be equal to a size in a model.

A run on the first ones can halve an axis four times. The others are for models with a largest size: `trace` takes them
in this order if a run on larger ones fails.
"""


class TracingShapeEnv(ShapeEnv):
    """A ShapeEnv that records the code that fixed each symbol, and the guards under which the trace is valid.

    A guard that arises inside a torch operation is recorded if a size may rest on it (`_may_fix_a_size`): `x[:32]` has
    32 rows if x has 32 or more, and the code may compute with this 32. The others arise again when the operation is
    run again.

    Args:
        operation: Returns the name of the operation that is running, or "".

    Attributes:
        fixed_by: The call that fixed each symbol to a number or another expression, and its line as `model.py:12`.
        conditions: The recorded guards, in torch's symbols.
    """

    def __init__(self, operation: Callable[[], str]) -> None:
        super().__init__(allow_dynamic_output_shape_ops=False)
        self.operation = operation
        self.fixed_by: dict[sympy.Symbol, tuple[str, str]] = {}
        self.conditions: list[Any] = []

    def _set_replacement(self, a: sympy.Symbol, tgt: sympy.Expr, msg: str) -> None:
        by, where = current_call()
        self.fixed_by.setdefault(a, (self.operation() or by, where))
        super()._set_replacement(a, tgt, msg)

    def evaluate_expr(self, *args: Any, **kwargs: Any) -> Any:
        before = len(self.guards)
        result = super().evaluate_expr(*args, **kwargs)
        for guard in self.guards[before:]:
            if _may_fix_a_size(self.operation(), guard.expr):
                self.conditions.append(guard.expr)
        return result


_CLAMPING = re.compile(
    r"index$|slice|narrow|split|chunk|tensor_split|[hvd]split|diag|squeeze|(linalg_)?(svd|qr)|.*pool"
)
"""Operations whose sizes are the smaller or the larger of two numbers, or whose result has no axis of size 1.

`index` is `x[...]` as the recorder names it.
"""


def _may_fix_a_size(operation: str, guard: Any) -> bool:
    """Return whether a size may rest on a guard that arose inside an operation; True outside operations.

    Torch replaces symbols by equalities, so these are always kept. Inequalities are kept for operations that compare
    sizes to choose one: elementwise operations compare strides, and a convolution chooses its algorithm by the batch
    size, but their sizes have one formula. That an axis has more than one element decides how two equal sizes
    broadcast, which makes no difference, but `squeeze` removes an axis of size 1.
    """
    if not operation or isinstance(guard, sympy.Eq):
        return True
    is_not_one = isinstance(guard, sympy.Ne) and sympy.S.One in guard.args
    return _CLAMPING.match(operation) is not None and (not is_not_one or operation.startswith("squeeze"))


@dataclass
class Symbols:
    """The free axes of a trace: torch's symbols for their sizes, and the user's names.

    Attributes:
        env: torch's shape environment.
        hints: The example sizes of free axes, one of `HINTS`.
        sizes: The symbolic size of each axis in the traced code, by name.
        expressions: The expression in axis names for each of torch's symbols: `h`, or `h/16` if 16 must divide h.
        used_hints: Numbers that are not used as a hint again: earlier hints, and sizes of the model's parameters.
    """

    env: TracingShapeEnv
    hints: Sequence[int] = HINTS[0]
    sizes: dict[str, Any] = field(default_factory=dict)
    expressions: dict[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    used_hints: set[int] = field(default_factory=set)

    def of(self, name: str, multiple: int = 1) -> Any:
        """Return the symbolic size of an axis, which is created at the first call; it is a multiple of `multiple`."""
        if name not in self.sizes:
            hints = [size for size in self.hints if size % multiple == 0 and size > multiple]
            later = range((max(hints, default=2 * multiple) // multiple + 1) * multiple, 10**9, multiple)
            hint = next(size for size in itertools.chain(hints, later) if size not in self.used_hints)
            self.used_hints.add(hint)
            source = ConstantSource(name)
            symbol: Any = self.env.create_symbol(hint // multiple, source=source, dynamic_dim=DimDynamic.DYNAMIC)
            if multiple > 1:
                self.env.var_to_range[symbol] = ValueRanges(1, self.env.var_to_range[symbol].upper)
            self.sizes[name] = multiple * self.env.create_symintnode(symbol, hint=hint // multiple, source=source)
            self.expressions[symbol] = sympy.Symbol(name, integer=True, positive=True) / multiple
        return self.sizes[name]

    def hints_text(self) -> str:
        """Return the example sizes of the free axes for a message: `b = 48, x = 80`."""
        return ", ".join([f"{name} = {size.node.hint}" for name, size in self.sizes.items()])

    def raw(self, size: Any) -> Any:
        """Return a number as an expression in torch's symbols without fixed symbols, or as an int if it is constant."""
        expression = size.node.expr if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) else size
        if not isinstance(expression, sympy.Basic):
            return expression
        expression = self.env.replace(expression)
        return int(expression) if expression.is_Integer else expression

    def size(self, size: Any) -> Size:
        """Return a size as an int or as an expression in the user's axis names."""
        raw = self.raw(size)
        return raw if not isinstance(raw, sympy.Basic) else _expanded(raw.xreplace(self.expressions))

    def is_data_dependent(self, size: Any) -> bool:
        """Return whether a size depends on the values of a tensor."""
        return isinstance(size, torch.SymInt) and bool(free_unbacked_symbols(size))

    def text(self, size: Any) -> str:
        """Return the text of a size for a message."""
        return size_text(self.size(size))

    def translate(self, text: str) -> str:
        """Return a message of torch with its symbols replaced by the user's axis names."""
        for symbol, expression in self.expressions.items():
            text = re.sub(rf"\b{symbol}\b", size_text(expression), text)
        return text

    def fixed(self) -> tuple[Fixed, ...]:
        """Return the axes that the run fixed to a number or a function of other axes, with the code that fixed them."""
        found = []
        for symbol, expression in self.expressions.items():
            target = self.env.replace(symbol)
            if target != symbol:
                by, where = self.env.fixed_by.get(symbol, ("", ""))
                found.append(
                    Fixed(str(axis_symbol(expression)), self.size(target * multiple_of(expression)), by, where)
                )
        return tuple(found)

    def guards(self) -> tuple[Any, ...]:
        """Return the conditions on free axes under which the code takes the recorded path, in the user's axis names.

        torch assumes that a free size is at least 2, because code may behave differently for sizes 0 and 1.
        """
        found: list[Any] = []
        for symbol, expression in self.expressions.items():
            if self.env.replace(symbol) == symbol:
                axis, multiple = axis_symbol(expression), multiple_of(expression)
                found.append(sympy.Ge(axis, 2) if multiple == 1 else sympy.Eq(sympy.Mod(axis, multiple), 0))
        for guard in self.env.conditions:
            condition: Any = self.env.replace(guard).xreplace(self.expressions)
            if isinstance(condition, sympy.Rel) and condition.lhs.could_extract_minus_sign():
                condition = condition.reversedsign
            if getattr(condition, "free_symbols", None) and condition not in found:
                found.append(condition)
        return tuple(found)


def axis_symbol(expression: sympy.Expr) -> Any:
    """Return the axis in a value of `Symbols.expressions`, as a sympy symbol: `h` for `h/16`."""
    return next(iter(expression.free_symbols))


def multiple_of(expression: sympy.Expr) -> Any:
    """Return the number that must divide the axis in a value of `Symbols.expressions`: 16 for `h/16`."""
    return sympy.sympify(axis_symbol(expression)) / expression


def _expanded(expression: Any) -> Size:
    """Return an expression with its products expanded, or an int if it is constant."""
    expanded = sympy.expand(expression)
    return int(expanded) if expanded.is_Integer else expanded
