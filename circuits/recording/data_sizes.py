"""The values of a run on data whose sizes depend on the data, and where the code read these sizes.

The code may do anything with a size, as with any number that it reads from data. So the first time it reads a size of
such a value (`len(y)`, `y.shape`), a `Reading` of the shape is recorded: the diagram compares it with the recorded one.
Where no size is read, the diagram runs with any.
"""

from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from circuits import errors
from circuits.diagram import (
    makes_sparse,
    operation_name,
    reading,
    returns_parts,
    shape_of,
    size_rule,
    tensors,
    wires,
    wires_in,
)
from circuits.recording.events import Call, Enter, Event
from circuits.recording.user_frames import user_line
from circuits.recording.values import Values

_OWN_FOLDER = f"{errors.__file__}".rpartition("/")[0]


class DataSizes:
    """The values of one run whose sizes depend on data, until the code reads the sizes.

    A result has such sizes if the rule of its operation says so (`size_rule`), or if an input has such sizes and the
    result has axes. Sizes that this package reads, in checks and to record, are not read by the code.

    Args:
        values: The wires of the tensors of the run.
        emit: Called with the event of each reading and with what was read.
        with_data: Whether the run has data. Under `trace` it has none: torch itself refuses sizes that depend on data,
            except those of sparse tensors, which are refused here where the code reads one.

    Attributes:
        numbers: The values whose sizes depend on data, by number.
        ranks: Those of them whose number of axes does, because `squeeze` removes axes of size 1.
        axes: The values with an axis whose size was read, each with the axis.
        is_used: Whether there have been such values in the run.
    """

    def __init__(self, values: Values, emit: Callable[[Event, Any], None], with_data: bool) -> None:
        self.values = values
        self.emit = emit
        self.with_data = with_data
        self.numbers: set[int] = set()
        self.ranks: set[int] = set()
        self.axes: set[tuple[int, Any]] = set()
        self.is_used = False

    def note(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add the results of a call whose sizes depend on data; a function that returns one part for each index reads.

        `args` and `kwargs` are the arguments, which the call describes.
        """
        rule = size_rule(call.function) if self.with_data or makes_sparse(call.function) else None
        if rule is None and not self.numbers:
            return
        inputs = wires_in((*call.args, *call.kwargs.values()))
        if returns_parts(call.function):
            for tensor in tensors((args, kwargs)):
                self.read(tensor, Tensor.size)
        if (rule is not None and rule(args, kwargs)) or not self.numbers.isdisjoint(inputs):
            squeezed = operation_name(call.function) in ("squeeze", "squeeze_") or not self.ranks.isdisjoint(inputs)
            self.add(call.result, squeezed)

    def add(self, result: Any, squeezed: bool = False) -> None:
        """Add the values of a described result that have axes; if an axis may have been removed, all values."""
        self.is_used: bool = True
        for number in wires(result):
            if squeezed or self.values.record.values[number][0]:
                self.numbers.add(number)
            if squeezed:
                self.ranks.add(number)

    def leave(self, box: Enter, result: Any) -> None:
        """Add the values that a box returns if the diagram runs the box without the readings inside it, as a whole."""
        if self.is_used and (box.whole or box.kind == "transform"):
            self.add(result)

    def read(self, tensor: Any, function: Any, dim: Any = None, frame: FrameType | None = None) -> None:
        """Record that the code in `frame` reads sizes of a tensor by `function`, if they depend on data.

        `dim` is the axis whose size is read, None for the whole shape. A size is recorded once for each value.
        """
        wire = self.values.known(tensor) if isinstance(tensor, Tensor) else None
        if wire is None or wire.number not in self.numbers or (wire.number, dim) in self.axes:
            return
        if operation_name(function) in _RANK and wire.number not in self.ranks:
            return
        if frame is not None and frame.f_code.co_filename.startswith((_OWN_FOLDER, "<circuit ")):
            return
        if not self.with_data:
            raise DataDependentOutputException(function)
        if dim is None:
            self.numbers.discard(wire.number)
            self.ranks.discard(wire.number)
        self.axes.add((wire.number, dim))
        where, found = user_line(), shape_of(tensor, dim)
        self.emit(Call(reading(shape_of, found, where), (wire, dim), {}, "", where), found)


_RANK = frozenset(("dim", "ndim", "ndimension"))
