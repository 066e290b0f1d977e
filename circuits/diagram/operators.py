"""Operators of torch that take functions: `torch.cond`, `while_loop`, `scan`, `flex_attention`.

The functions may use tensors of the run, by their closures (`lambda: x * 2`) or as methods of the model. So the call is
recorded with a `Closure` or `Partial` in place of each function: its code, and the values that it uses. A diagram makes
the function again from the values of its own run.
"""

import functools
import types
from dataclasses import dataclass
from typing import Any

from torch._ops import HigherOrderOperator

DATA_DEPENDENT_OPERATORS = frozenset({"cond", "while_loop", "while_loop_stack_output"})
"""The operators that choose by data which of their functions run, and how often."""


@dataclass(frozen=True)
class Closure:
    """A function as data: its code with empty cells, the values of the cells, and the defaults of its parameters."""

    code: Any
    cells: tuple[Any, ...]
    defaults: tuple[Any, ...] | None
    keyword_defaults: dict[str, Any] | None


@dataclass(frozen=True)
class Partial:
    """A method or partial function as data: the function, and the arguments that are given already."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Operator:
    """An operator, called with closures in place of functions.

    Attributes:
        operator: torch's operator.
    """

    operator: HigherOrderOperator

    @property
    def __name__(self) -> str:
        """The name of the operator, which is that of the box."""
        return self.operator.name()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the operator."""
        return self.operator(*closed(args), **closed(kwargs))


def opened(value: Any, around: tuple[Any, ...] = ()) -> Any:
    """Return the arguments of an operator with a `Closure` or `Partial` in place of each function.

    `around` are the functions that are being opened; a function that calls itself is in its own closure.
    """
    if type(value) in (tuple, list):
        return type(value)([opened(part, around) for part in value])
    if type(value) is dict:
        return {key: opened(part, around) for key, part in value.items()}
    if isinstance(value, functools.partial):
        return Partial(opened(value.func, around), opened(value.args, around), opened(value.keywords, around))
    if isinstance(value, types.MethodType):
        return Partial(opened(value.__func__, around), (value.__self__,), {})
    if isinstance(value, types.FunctionType) and value not in around:
        around = (*around, value)
        empty = tuple([types.CellType() for _ in value.__closure__ or ()])
        code = types.FunctionType(value.__code__, value.__globals__, value.__name__, None, empty)
        cells = tuple([opened(cell.cell_contents, around) for cell in value.__closure__ or ()])
        return Closure(code, cells, opened(value.__defaults__, around), opened(value.__kwdefaults__, around))
    return value


def closed(value: Any) -> Any:
    """Return arguments of an operator with a function in place of each `Closure` and `Partial`."""
    if type(value) in (tuple, list):
        return type(value)([closed(part) for part in value])
    if type(value) is dict:
        return {key: closed(part) for key, part in value.items()}
    if isinstance(value, Partial):
        return functools.partial(closed(value.function), *closed(value.args), **closed(value.kwargs))
    if isinstance(value, Closure):
        code, cells = value.code, tuple([types.CellType(closed(cell)) for cell in value.cells])
        function = types.FunctionType(code.__code__, code.__globals__, code.__name__, closed(value.defaults), cells)
        function.__kwdefaults__ = closed(value.keyword_defaults)
        return function
    return value


__all__ = ["DATA_DEPENDENT_OPERATORS", "Operator", "opened"]
