"""Readings: the places of a run where Python read a number of the data of a tensor, by `item`, `tolist` or `if`.

The code may do anything with such a number, and a diagram contains only what it did with the recorded one. So a diagram
reads the number again when it runs, and refuses to continue if it is another one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch._subclasses.fake_tensor import FakeTensor

from circuits.diagram.operations import operation_name
from circuits.diagram.structure import PLAIN_TYPES, tensors
from circuits.errors import CircuitError


@dataclass(frozen=True, eq=False)
class Reading:
    """A function that reads numbers of data, with what it returned in the recorded run.

    Calling it reads again, and compares. A result other than numbers and lists of numbers, such as a numpy array, is
    not kept, and is refused at every call.

    Attributes:
        function: The function: `Tensor.item`, `Tensor.__bool__`, `torch.equal`.
        found: What it returned in the recorded run.
        where: The line of user code that called it, `model.py:12`; empty if unknown.
    """

    function: Callable[..., Any]
    found: Any
    where: str

    @property
    def __name__(self) -> str:
        """The name of the function, which is that of the box."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def note(self) -> str:
        """What was read, for the table: `read 2.0`."""
        return f"read {_text(self.found)}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function reads.

        Raises:
            CircuitError: It is not what the function read in the recorded run, or the tensors have no data, because
                the diagram itself is traced or differentiated.
        """
        at = f" at {self.where}" if self.where else ""
        run = f"the recorded run read {_text(self.found)} from data, by {operation_name(self)}{at}"
        if any(isinstance(each, FakeTensor) for each in tensors((args, kwargs))):
            raise CircuitError(f"{run}, so its diagram can be run on data, but not traced or differentiated")
        found = self.function(*args, **kwargs)
        if not _is_same(self.found, found):
            raise CircuitError(
                f"{run}, and now it is {_text(found)}; the diagram has only what the code does with the recorded "
                "number. Record it again with this data, or compute without reading data (torch.where)"
            )
        return found


def reading(function: Callable[..., Any], found: Any, where: str) -> Reading:
    """Return the reading of a call; what it returned is kept if it consists of numbers, and else only its type."""
    return Reading(function, found if _is_comparable(found) else type(found), where)


def _is_comparable(found: Any) -> bool:
    """Return whether a value is a number or another plain value, or a list or tuple of them."""
    return all(map(_is_comparable, found)) if type(found) in (list, tuple) else type(found) in PLAIN_TYPES


def _is_same(before: Any, now: Any) -> bool:
    """Return whether two results are the same numbers of the same types; NaN is the same as NaN."""
    if type(before) is not type(now) or isinstance(before, type):
        return False
    if isinstance(before, (list, tuple)):
        return len(before) == len(now) and all(map(_is_same, before, now))
    if isinstance(before, float) and math.isnan(before):
        return math.isnan(now)
    return bool(before == now)


def _text(found: Any) -> str:
    """Return a result as a short text."""
    if isinstance(found, type):
        return f"a value of type {found.__name__}"
    text = repr(found) if _is_comparable(found) else f"a value of type {type(found).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."


__all__ = ["Reading", "reading"]
