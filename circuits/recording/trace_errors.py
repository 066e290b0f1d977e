"""Translate the exceptions of a traced run: name the axes, show the line of user code, suggest an alternative."""

import contextlib
import linecache
import logging
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
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
_NOT_WITHOUT_DATA = (
    "torch cannot run this without data: {by} at {where} ({error})\n"
    "trace runs the code once, without data: use track on a real run"
)
_TRANSLATIONS = {
    "got FakeTensor": _DATA_DEPENDENT,
    "not FakeTensor": _DATA_DEPENDENT,
    ".numpy() is not supported for tensor subclasses": _DATA_DEPENDENT,
    "passed to FakeTensor.__format__": _DATA_DEPENDENT,
    "but its data is not allocated yet": _DATA_DEPENDENT,
    **dict.fromkeys(
        (
            "quantized nyi in meta tensors",
            "Cannot access storage of OpaqueTensorImpl",
            "could not find kernel for aten",
            "There was no fake impl registered",
            "is not supported for tensor subclasses",
            "_share_fd_: only available on CPU",
            "Not available for 'meta' device type",
            "failed in the TorchScript interpreter",
        ),
        _NOT_WITHOUT_DATA,
    ),
    "unhashable type: non-nested SymInt": "the run hashes a free size, for example as a dict key: {by} at {where}\n"
    "give the axis a size, trace(..., {sizes})",
}
"""Parts of torch's messages about fake tensors and free sizes, each with the message that replaces it."""

_NOT_SYMBOLIC = (
    "the run computes with a free size what torch's symbolic numbers do not support: {by} at {where} ({error})\n"
    "give the axis a size, trace(..., {sizes}), or use + - * // % / ** (n // 3 and n % 3 for divmod(n, 3))"
)
_SYMBOLIC_NUMBERS = ("SymInt", "SymFloat", "SymBool", "numpy.object_")
"""Types of free sizes in messages of Python and numpy; numpy makes arrays of objects of them."""


_LAYERS = f"{nn.__file__}".rpartition("/")[0]
"""The folder of `torch.nn`."""


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
        message = _translation(error)
        if message:
            by, where = _user_line(error)
            given = sizes_to_give(error, symbols)
            raise CircuitError(message.format(by=by, where=where, error=_summary(error), sizes=given)) from error
        error.args = tuple([symbols.translate(part) if isinstance(part, str) else part for part in error.args])
        raise
    finally:
        log.removeFilter(_suppress)


def _translation(error: Exception) -> str:
    """Return the message that replaces that of an exception, or "" if none does."""
    for text, message in _TRANSLATIONS.items():
        if text in str(error):
            return message
    if isinstance(error, (UnsupportedFakeTensorException, UnsupportedOperatorException)):
        return _NOT_WITHOUT_DATA
    is_symbolic = isinstance(error, (TypeError, AttributeError))
    return _NOT_SYMBOLIC if is_symbolic and any(kind in str(error) for kind in _SYMBOLIC_NUMBERS) else ""


def _suppress(_: logging.LogRecord) -> bool:
    return False


def _summary(error: BaseException) -> str:
    """Return the first line of a message of torch; of TorchScript the last, before which is its own traceback."""
    lines = f"{error}".strip().splitlines() or [type(error).__name__]
    return lines[-1 if "TorchScript" in lines[0] else 0].strip()


def _user_line(error: BaseException) -> tuple[str, str]:
    """Return the innermost line of user code in a traceback: the source text in backticks, and `model.py:12`."""
    entry = _user_entry(error)
    if entry is None:
        return "a value", "an unknown line"
    name, line = entry.tb_frame.f_code.co_filename, entry.tb_lineno
    return f"`{linecache.getline(name, line).strip()}`", f"{name}:{line}"


def _user_entry(error: BaseException) -> TracebackType | None:
    """Return the innermost entry of user code in a traceback.

    Without user code, as where a layer of `torch.nn` is traced, it is the innermost entry of `torch.nn`.
    """
    places: dict[bool, TracebackType] = {}
    traceback = error.__traceback__
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if is_user_file(name) or name.startswith(_LAYERS):
            places[is_user_file(name)] = traceback
        traceback = traceback.tb_next
    return places[max(places)] if places else None


def sizes_to_give(error: BaseException, symbols: Symbols) -> str:
    """Return the argument `sizes={"h": …}` with the free axes that the failing line uses, or else with all of them."""
    return f"sizes={{{', '.join([f'{chr(34)}{name}{chr(34)}: …' for name in _free_axes_at(error, symbols)])}}}"


def _free_axes_at(error: BaseException, symbols: Symbols) -> list[str]:
    """Return the free axes of the sizes in the failing line: `x.shape[1]`, else of its numbers, else of its tensors."""
    entry = _user_entry(error)
    if entry is not None:
        frame, line = entry.tb_frame, linecache.getline(entry.tb_frame.f_code.co_filename, entry.tb_lineno)
        named = [value for name, value in frame.f_locals.items() if re.search(rf"\b{re.escape(name)}\b", line)]
        sizes: list[Any] = []
        for name, *dims in re.findall(r"\b(\w+)\.(?:shape\[(-?\d+)\]|size\((-?\d+)\))", line):
            tensor, dim = frame.f_locals.get(name), int("".join(dims))
            if isinstance(tensor, Tensor) and -tensor.ndim <= dim < tensor.ndim:
                sizes.append(tensor.shape[dim])
        numbers = [value for value in named if isinstance(value, torch.SymInt)]
        tensors = [size for value in named if isinstance(value, Tensor) for size in value.shape]
        for found in (sizes, numbers, tensors):
            axes = symbols.axes_of(found)
            if axes:
                return axes
    return [*symbols.sizes]


_NOT_OF_SIZES = re.compile(
    r"dtype|scalar type|same device|device type|required argument|unexpected keyword argument|positional arguments"
)
"""Messages of torch and Python about a call that fails at every size."""


def is_of_sizes(error: BaseException) -> bool:
    """Return whether other sizes may help: the message is not about a dtype, a device or missing arguments."""
    return _NOT_OF_SIZES.search(f"{error}") is None
