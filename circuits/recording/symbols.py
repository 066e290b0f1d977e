"""Symbolic sizes: torch's symbols for the sizes of axes while a trace runs, and the user's axis names for them.

If the size of axis h must be a multiple of 16, the traced code receives 16 times a symbol, and this symbol is replaced
by h/16 in the diagram. Sizes inside a network are therefore shown as h/2, h/4.

Source: torch's ShapeEnv, which torch.export uses in the same way.
"""

import itertools
import re
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, free_unbacked_symbols
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod
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

    A condition that torch tests inside an operation is tested again when the operation is run again. Of these, only
    those that a size in the code may rest on become guards (`_may_fix_a_size`); the others have the value that they
    have for the hints, and torch concludes nothing from it, so that the user's own `if n == 2` is a guard also if an
    operation has tested the same before. Where a size does rest on one of them, a run of the diagram finds another size
    than the diagram states (see `circuits.diagram.interpreter.run`).

    Torch keeps shape environments in caches for the whole process, so the recorder is held by a weak reference.

    Args:
        recorder: What records the run.
        running: Returns the name of the operation that is running, or "", when it is called with `recorder`.

    Attributes:
        fixed_by: The call that fixed each symbol to a number or another expression, and its line as `model.py:12`.
        conditions: The recorded guards, in torch's symbols.
        numbers: Of these, each equation of an expression with a number that the code needed, as in `int(n * 0.5)`, and
            the call and the line that needed it. The number of parts of `chunk` is the user's.
    """

    def __init__(self, recorder: Any, running: Callable[[Any], str]) -> None:
        super().__init__(allow_dynamic_output_shape_ops=False)
        self._recorder, self._running = weakref.ref(recorder), running
        self.fixed_by: dict[sympy.Symbol, tuple[str, str]] = {}
        self.conditions: list[Any] = []
        self.numbers: dict[Any, tuple[str, str]] = {}

    def operation(self) -> str:
        """Return the name of the operation that is running, or ""."""
        recorder = self._recorder()
        return self._running(recorder) if recorder is not None else ""

    def _set_replacement(self, a: sympy.Symbol, tgt: sympy.Expr, msg: str) -> None:
        by, where = current_call()
        self.fixed_by.setdefault(a, (self.operation() or by, where))
        super()._set_replacement(a, tgt, msg)

    def evaluate_expr(self, orig_expr: Any, hint: Any = None, *args: Any, **kwargs: Any) -> Any:
        operation = self.operation()
        if operation and not _may_fix_a_size(operation, orig_expr, hint):
            return sympy.true if hint else sympy.false
        before = len(self.guards)
        result = super().evaluate_expr(orig_expr, hint, *args, **kwargs)
        new = [guard.expr for guard in self.guards[before:]]
        self.conditions += new
        if new and not isinstance(hint, bool) and not operation.endswith("chunk"):
            by, where = current_call()
            self.numbers[new[0]] = (operation or by, where)
        return result


_CLAMPING = re.compile(
    r"index$|slice|narrow|split|chunk|tensor_split|[hvd]split|diag|squeeze|(linalg_)?(svd|qr)|.*pool"
)
"""Operations whose sizes are the smaller or the larger of two numbers, or whose result has no axis of size 1.

`index` is `x[...]` as the recorder names it.
"""


def _may_fix_a_size(operation: str, condition: Any, hint: Any) -> bool:
    """Return whether a size may rest on a condition that is tested inside an operation; `hint` is its value.

    A number that an operation needs (how many parts has a split?) may be the number of its results. Torch replaces a
    symbol by an equation that can be solved for it, such as that of two sizes that are added, and simplifies by a
    divisor. Other equations are of strides: whether a tensor is contiguous.

    Inequalities matter to operations that compare sizes to choose one: elementwise operations compare strides, and a
    convolution chooses its algorithm by the batch size, but their sizes have one formula. That an axis has more than
    one element decides how two equal sizes broadcast, which makes no difference, but `squeeze` removes an axis of
    size 1.
    """
    if not isinstance(hint, bool):
        return True
    if isinstance(condition, sympy.Eq if hint else sympy.Ne):
        return _is_solvable(condition.lhs, condition.rhs)
    is_not_one = isinstance(condition, sympy.Eq if not hint else sympy.Ne) and sympy.S.One in condition.args
    return _CLAMPING.match(operation) is not None and (not is_not_one or operation.startswith("squeeze"))


def _is_solvable(left: Any, right: Any) -> bool:
    """Return whether torch can solve an equation for a symbol, or for the remainder of a division of symbols."""
    inner = left.atoms(FloorDiv, Mod, Max, Min) | right.atoms(FloorDiv, Mod, Max, Min)
    return not inner or (len(inner) == 1 and inner <= {left, right} and isinstance(left, Mod))


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

    def axes_of(self, sizes: Sequence[Any]) -> list[str]:
        """Return the names of the free axes that sizes depend on, each once."""
        found: dict[str, None] = {}
        for size in sizes:
            raw = self.raw(size)
            free: Any = raw.free_symbols if isinstance(raw, sympy.Basic) else ()
            found |= {f"{axis_symbol(self.expressions[each])}": None for each in free if each in self.expressions}
        return [name for name in self.sizes if name in found]

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
        """Return the text of a size, or of an expression in torch's symbols, for a message."""
        return size_text(self.size(size))

    def translate(self, text: str) -> str:
        """Return a message of torch with its symbols replaced by the user's axis names."""
        for symbol, expression in self.expressions.items():
            text = re.sub(rf"\b{symbol}\b", size_text(expression), text)
        return text

    def fixed(self) -> tuple[Fixed, ...]:
        """Return what the run fixed, with the code that fixed it.

        These are axes that became a number or a function of other axes, then expressions of free axes that the code
        needed as a number: `n//2`.
        """
        found = []
        for symbol, expression in self.expressions.items():
            target = self.env.replace(symbol)
            if target != symbol:
                by, where = self.env.fixed_by.get(symbol, ("", ""))
                found.append(
                    Fixed(str(axis_symbol(expression)), self.size(target * multiple_of(expression)), by, where)
                )
        for equation, (by, where) in self.env.numbers.items():
            expression = self.env.replace(equation.lhs)
            if not expression.is_number:
                number = equation.rhs if equation.rhs.is_Float else int(equation.rhs)
                found.append(Fixed(self.text(expression), number, by, where))
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
