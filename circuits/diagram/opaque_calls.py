"""Calls of code that no recorder sees into: custom operators, `autograd.Function`, TorchScript.

Besides the tensors that it returns, such a call may return numbers that it read from data, and a custom operator may
write to any of its arguments.
"""

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

from circuits.diagram.operations import mutates, operation_name
from circuits.diagram.structure import tensors, wires, wires_in
from circuits.errors import CircuitError

OPERATORS = frozenset({OpOverload, OpOverloadPacket})
"""The types of torch's operators, and of custom ones."""


def is_opaque(function: Any) -> bool:
    """Return whether a function is the user's code: an `autograd.Function`, TorchScript, a custom operator."""
    if type(function) in OPERATORS:
        return f"{function}".partition(".")[0] not in ("aten", "prims")
    owner = getattr(function, "__self__", None) if isinstance(function, types.BuiltinMethodType) else None
    if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):  # Its `apply`, since torch 2.14.
        return True
    return isinstance(function, (types.MethodType, torch.jit.ScriptFunction, torch._C.ScriptMethod))


@dataclass(frozen=True, eq=False)
class OpaqueCall:
    """A call of such a function as a diagram makes it.

    Attributes:
        function: The function.
        written: The arguments that it writes to and does not return, by position or name; they are returned as well.
        numbers: The numbers among its results in the recorded run.
        where: The line of user code that called it, `model.py:12`; empty if unknown.
    """

    function: Callable[..., Any]
    written: tuple[int | str, ...]
    numbers: tuple[Any, ...]
    where: str

    @property
    def __name__(self) -> str:
        """The name of the function, which is that of the box."""
        return operation_name(self.function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the function, or a tuple of it and of the arguments that it writes to.

        Raises:
            CircuitError: A number among the results is another one than in the recorded run.
        """
        result = self.function(*args, **kwargs)
        found = tuple(_numbers(result))
        if found != self.numbers:
            at = f" at {self.where}" if self.where else ""
            raise CircuitError(
                f"{self.__name__}{at} returned the numbers {self.numbers} in the recorded run, and now {found}; the "
                "diagram has only what the code does with the recorded ones. Record it again with this data"
            )
        return (result, *_written(self.written, args, kwargs)) if self.written else result


def opaque_call(function: Any, result: Any, where: str) -> Any:
    """Return the function as a diagram calls it, if it returns numbers; else the function itself."""
    numbers = tuple(_numbers(result))
    if not numbers:
        return function
    if isinstance(function, OpaqueCall):
        return OpaqueCall(function.function, function.written, numbers, where)
    return OpaqueCall(function, (), numbers, where)


def writing_call(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> OpaqueCall | None:
    """Return the call of an operator as a diagram makes it, if it writes to an argument and does not return it."""
    overload = operator if isinstance(operator, OpOverload) else getattr(operator, "default", None)
    if overload is None or not overload._schema.is_mutable:
        return None
    returned = {id(tensor) for tensor in tensors(result)}
    written = []
    for position, argument in enumerate(overload._schema.arguments):
        name = position if position < len(args) else argument.name
        is_given = position < len(args) or name in kwargs
        if argument.alias_info is not None and argument.alias_info.is_write and is_given:
            written += [name for each in _written((name,), args, kwargs) if id(each) not in returned]
    return OpaqueCall(operator, tuple(written), (), "") if written else None


def overwritten(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """Return the numbers of the values that a recorded call overwrites, from the descriptions of its arguments."""
    if isinstance(function, OpaqueCall):
        return wires_in(tuple(_written(function.written, args, kwargs)))
    return wires(args[0])[:1] if args and mutates(function) else ()


def _written(names: tuple[int | str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [args[name] if isinstance(name, int) else kwargs[name] for name in names]


def _numbers(result: Any) -> Iterator[Any]:
    """Yield the numbers in the tuples and lists of a result."""
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from _numbers(part)
    elif isinstance(result, (int, float, complex)) and not isinstance(result, Tensor):
        yield result


__all__ = ["OPERATORS", "OpaqueCall", "is_opaque", "opaque_call", "overwritten", "writing_call"]
