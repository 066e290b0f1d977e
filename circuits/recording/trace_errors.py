"""Translate the exceptions of a traced run: name the axes, show the line of user code, suggest an alternative."""

import contextlib
import linecache
import logging
from collections.abc import Iterator
from typing import Any

from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from circuits.diagram import operation_name, wires
from circuits.errors import CircuitError
from circuits.recording.events import Call, Event
from circuits.recording.listener import Listener
from circuits.recording.symbols import Symbols
from circuits.recording.user_frames import is_user_file

_DATA_DEPENDENT = (
    "the run needs a value that depends on data: {by} at {where}\n"
    "trace runs the code once, without data: use track on a real run, or compute without that value (torch.where)"
)
_TRANSLATIONS = {
    "got FakeTensor": _DATA_DEPENDENT,
    "not FakeTensor": _DATA_DEPENDENT,
    ".numpy() is not supported for tensor subclasses": _DATA_DEPENDENT,
    "passed to FakeTensor.__format__": _DATA_DEPENDENT,
    "but its data is not allocated yet": _DATA_DEPENDENT,
    "unhashable type: non-nested SymInt": "the run hashes a free size, for example as a dict key: {by} at {where}\n"
    "give the axis a size, trace(..., sizes={{...}})",
}
"""Parts of torch's messages about fake tensors and free sizes, each with the message that replaces it."""

_NOT_SYMBOLIC = (
    "the run computes with a free size what torch's symbolic numbers do not support: {by} at {where} ({error})\n"
    "give the axis a size, trace(..., sizes={{...}}), or use + - * // % / ** (n // 3 and n % 3 for divmod(n, 3))"
)
_SYMBOLIC_NUMBERS = ("SymInt", "SymFloat", "SymBool", "numpy.object_")
"""Types of free sizes in messages of Python and numpy; numpy makes arrays of objects of them."""


def refuse_data_dependent_sizes(listener: Listener, symbols: Symbols, event: Event, _: Any) -> None:
    """Raise CircuitError if a call returned a tensor whose sizes depend on data; for use as `Listener.on_event`."""
    if not isinstance(event, Call):
        return
    for number in wires(event.result):
        if any(symbols.is_data_dependent(size) for size in listener.record.values[number][0]):
            by = f"the sizes of the result of {operation_name(event.function)}"
            raise CircuitError(_DATA_DEPENDENT.format(by=by, where=event.where))


@contextlib.contextmanager
def translated_errors(symbols: Symbols) -> Iterator[None]:
    """Translate the exceptions raised inside the `with`.

    An exception that was raised because the run needs data, or does with a free size what cannot be done with a
    symbolic number, is replaced by a CircuitError with the line of user code. In the messages of other exceptions,
    torch's symbols are replaced by the user's axis names. The log messages of torch about fake tensors are suppressed
    inside the `with`.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")
    try:
        log.addFilter(_suppress)
        yield
    except CircuitError:
        raise
    except (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException) as error:
        by, where = _user_line(error)
        raise CircuitError(_DATA_DEPENDENT.format(by=by, where=where)) from error
    except Exception as error:
        for text, message in _TRANSLATIONS.items():
            if text in str(error):
                by, where = _user_line(error)
                raise CircuitError(message.format(by=by, where=where)) from error
        if isinstance(error, (TypeError, AttributeError)) and any(kind in str(error) for kind in _SYMBOLIC_NUMBERS):
            by, where = _user_line(error)
            raise CircuitError(_NOT_SYMBOLIC.format(by=by, where=where, error=error)) from error
        error.args = tuple([symbols.translate(part) if isinstance(part, str) else part for part in error.args])
        raise
    finally:
        log.removeFilter(_suppress)


def _suppress(_: logging.LogRecord) -> bool:
    return False


def _user_line(error: BaseException) -> tuple[str, str]:
    """Return the innermost line of user code in a traceback: the source text in backticks, and `model.py:12`."""
    place = None
    frame = error.__traceback__
    while frame is not None:
        if is_user_file(frame.tb_frame.f_code.co_filename):
            place = frame
        frame = frame.tb_next
    if place is None:
        return "a value", "an unknown line"
    name, line = place.tb_frame.f_code.co_filename, place.tb_lineno
    return f"`{linecache.getline(name, line).strip()}`", f"{name}:{line}"
