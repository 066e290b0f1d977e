"""Guards on properties: what the code of a run read of a tensor besides its sizes and data, such as `x.dtype`.

The code may do anything with the property, and a diagram contains only what it did with the recorded one. So a diagram
reads it again when it runs, and refuses to continue if it is another one. A property that the code did not read may
differ: a diagram that was recorded in float32 runs in float64 if the code never read a dtype.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuits.diagram.boxes import Call
from circuits.diagram.structure import PLAIN_TYPES, wires
from circuits.errors import CircuitError

ABOUT_GRADIENTS = frozenset({"requires_grad", "is_leaf", "grad", "grad_fn", "retains_grad", "is_grad_enabled"})
"""Properties that depend on whether gradients are computed."""


@dataclass(frozen=True)
class PropertyGuard:
    """A property of a tensor that the code read; calling it reads the property again, and compares.

    Attributes:
        name: The name of the attribute or method of `Tensor`, or of a function of torch.
        is_call: Whether it is called: False for an attribute.
        where: The line of user code that read it, `model.py:12`; empty if unknown.
    """

    name: str
    is_call: bool
    where: str

    @property
    def __name__(self) -> str:
        """The name of the property, which is that of the call."""
        return self.name

    def __call__(self, recorded: Any, *args: Any, **kwargs: Any) -> None:
        """Compare a property with the recorded one.

        Args:
            recorded: The recorded property.
            args: The tensor, then the arguments of the method.
            kwargs: The keyword arguments of the method.

        Raises:
            CircuitError: The property of this tensor is another one.
        """
        found = comparable_value(self.name, self._read(*args, **kwargs))
        if found != recorded:
            raise CircuitError(
                f"the recorded run read {self.name}{self._at} as {_text(recorded)}, and now it is {_text(found)}; the "
                "diagram has only what the code does with the recorded value. Record it again in this case, or compute "
                "without reading it"
            )

    def _read(self, *args: Any, **kwargs: Any) -> Any:
        if not args or not hasattr(Tensor, self.name):
            return getattr(torch, self.name)(*args, **kwargs)
        found = getattr(args[0], self.name)
        return found(*args[1:], **kwargs) if self.is_call else found

    @property
    def _at(self) -> str:
        return f" at {self.where}" if self.where else ""


def comparable_value(name: str, found: Any) -> Any:
    """Return what is compared of a property: plain values and tuples of them, and the name of the type of an object.

    An address is never the same again, nor is a storage, of which code may read the address or the data.
    """
    if name in _NEVER_THE_SAME:
        return _Address()
    if type(found) is tuple:
        return tuple([comparable_value("", part) for part in found])
    plain = (*PLAIN_TYPES, torch.SymInt, torch.SymBool)
    return found if type(found) in plain else f"an object of type {type(found).__name__}"


_NEVER_THE_SAME = ("data_ptr", "storage", "untyped_storage")


@dataclass(frozen=True, eq=False)
class _Address:
    """The address of the data of a tensor, which differs from every other."""


def with_guards(calls: Iterable[Call], guards: Iterable[Call], *ready: Iterable[int]) -> list[Call]:
    """Return calls with each guard as soon as its tensors are there.

    Args:
        calls: The calls of a diagram, in order.
        guards: The guards, as calls.
        *ready: The numbers of the values that exist before the first call. A guard of a value that is neither among
            them nor made by a call is left out.
    """
    there, program = set(itertools.chain(*ready)), list[Call]()
    waiting = [(set(wires(guard.args)), guard) for guard in guards]
    for call in (None, *calls):
        if call is not None:
            program.append(call)
            there |= set(wires(call.result))
        program += [guard for needed, guard in waiting if needed <= there]
        waiting = [(needed, guard) for needed, guard in waiting if not needed <= there]
    return program


def _text(found: Any) -> str:
    return "an address" if isinstance(found, _Address) else f"{found}"
