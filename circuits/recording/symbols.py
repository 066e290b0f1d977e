"""Sizes that are not known: torch's symbols while a trace runs, and the user's names for them.

Where an axis must divide by 16, torch is given 16 times a symbol, and every size is written back with h/16 for it; so
sizes inside a network come out as h/2, h/4.

Source: torch's ShapeEnv, which torch.export uses in the same way.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, free_unbacked_symbols
from torch.utils._sympy.value_ranges import ValueRanges

from circuits.diagram import Fixed, Size, size_text
from circuits.recording.user_frames import asker

_HINTS = (48, 80, 112, 176, 208, 272, 304, 368, 464, 496)
"""Sizes that free axes have while nobody looks: all multiples of 16, all different, none likely in a model."""


class Sizes(ShapeEnv):
    """A ShapeEnv that remembers who made a symbol a number, and which guards the user's own code asked for.

    `inside` names the operation that is running, if one is. What torch asks itself inside an operation it asks again
    when the operation is run again; only equalities are kept of that, since sizes were rewritten by them.
    """

    def __init__(self, inside: Callable[[], str]) -> None:
        super().__init__(allow_dynamic_output_shape_ops=False)
        self.inside = inside
        self.asked: dict[sympy.Symbol, tuple[str, str]] = {}
        self.conditions: list[Any] = []

    def _set_replacement(self, a: sympy.Symbol, tgt: sympy.Expr, msg: str) -> None:
        by, where = asker()
        self.asked.setdefault(a, (self.inside() or by, where))
        super()._set_replacement(a, tgt, msg)

    def evaluate_expr(self, *args: Any, **kwargs: Any) -> Any:
        before = len(self.guards)
        answer = super().evaluate_expr(*args, **kwargs)
        for guard in self.guards[before:]:
            if not self.inside() or isinstance(guard.expr, sympy.Eq):
                self.conditions.append(guard.expr)
        return answer


@dataclass
class Symbols:
    """The free axes: their symbols in torch's hand, and in ours."""

    env: Sizes
    sizes: dict[str, Any] = field(default_factory=dict)
    ours: dict[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)

    def of(self, name: str, multiple: int = 1) -> Any:
        """The size of the axis of this name, a new symbol if there is none yet."""
        if name not in self.sizes:
            hints = _HINTS if 16 % multiple == 0 else ()
            later = range(max(512 if hints else 3 * multiple, multiple), 10**9, multiple)
            hint = next(size for size in itertools.chain(hints, later) if size not in self.taken)
            self.taken.add(hint)
            source = ConstantSource(name)
            symbol: Any = self.env.create_symbol(hint // multiple, source=source, dynamic_dim=DimDynamic.DYNAMIC)
            if multiple > 1:
                self.env.var_to_range[symbol] = ValueRanges(1, self.env.var_to_range[symbol].upper)
            self.sizes[name] = multiple * self.env.create_symintnode(symbol, hint=hint // multiple, source=source)
            self.ours[symbol] = sympy.Symbol(name, integer=True, positive=True) / multiple
        return self.sizes[name]

    def raw(self, size: Any) -> Any:
        """A torch number or expression in torch's own symbols, those that were fixed replaced."""
        expression = size.node.expr if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) else size
        if not isinstance(expression, sympy.Basic):
            return expression
        expression = self.env.replace(expression)
        return int(expression) if expression.is_Integer else expression

    def size(self, size: Any) -> Size:
        """The same in the user's names."""
        raw = self.raw(size)
        return raw if not isinstance(raw, sympy.Basic) else _tidy(raw.xreplace(self.ours))

    def unknown(self, size: Any) -> bool:
        """Whether a size depends on numbers that are in tensors."""
        return isinstance(size, torch.SymInt) and bool(free_unbacked_symbols(size))

    def text(self, size: Any) -> str:
        """A size for a message."""
        return size_text(self.size(size))

    def rename(self, text: str) -> str:
        """A message of torch's in the user's names."""
        for symbol, ours in self.ours.items():
            text = re.sub(rf"\b{symbol}\b", size_text(ours), text)
        return text

    def fixed(self) -> tuple[Fixed, ...]:
        """The axes that did not stay free."""
        found = []
        for symbol, ours in self.ours.items():
            target = self.env.replace(symbol)
            if target != symbol:
                by, where = self.env.asked.get(symbol, ("", ""))
                found.append(Fixed(str(name_of(ours)), self.size(target * multiple_of(ours)), by, where))
        return tuple(found)

    def guards(self) -> tuple[Any, ...]:
        """The conditions on free axes under which the run is the same, in the user's names.

        Torch takes a free size to be 2 or more, since code may do something else for 1.
        """
        found: list[Any] = []
        for symbol, ours in self.ours.items():
            if self.env.replace(symbol) == symbol:
                multiple = multiple_of(ours)
                found += (
                    [sympy.Ge(name_of(ours), 2)] if multiple == 1 else [sympy.Eq(sympy.Mod(name_of(ours), multiple), 0)]
                )
        for guard in self.env.conditions:
            condition = self.env.replace(guard).xreplace(self.ours)
            if getattr(condition, "free_symbols", None) and condition not in found:
                found.append(condition)
        return tuple(found)


def name_of(ours: sympy.Expr) -> Any:
    """The user's symbol in an expression of one axis."""
    return next(iter(ours.free_symbols))


def multiple_of(ours: sympy.Expr) -> Any:
    """What the axis must divide by."""
    return sympy.sympify(name_of(ours)) / ours


def _tidy(expression: Any) -> Size:
    expanded = sympy.expand(expression)
    return int(expanded) if expanded.is_Integer else expanded
