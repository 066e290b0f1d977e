"""Print the boxes of a run while it is running, and write lines to a stream, a logger or a function.

A run never fails because it is printed: an exception that is raised while a line is made or written is logged as a
warning, once for each writer and each run, and the run continues.
"""

import contextlib
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TextIO

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils import _pytree

from circuits.diagram import box_row, in_ascii, row_line
from circuits.errors import CircuitError
from circuits.recording.builder import Builder
from circuits.recording.events import Call, Enter, Event, Leave, Record
from circuits.recording.freezer import Draft

Sink = TextIO | logging.Logger | Callable[[str], object] | Literal["stdout"] | None
"""Where lines are written: "stdout" (`sys.stdout`, looked up at each write), a stream, a logger (at INFO), a function
that is called with each line, or None: no lines are written."""

_log = logging.getLogger(__name__)


class Printer:
    """Prints the boxes of a run from its events.

    An operation is printed after it has run, a box before its contents. A box that contains a single operation is
    printed as one line. Therefore a box that opens, and its first operation, are printed only at the next event, which
    shows whether the box contains more than that operation.

    Args:
        write: Called with each line.
        depth: The deepest nesting level that is printed, 0 being the outermost box; None: all.
        values: Results with at most this many elements are printed with their values; 0: none.

    Attributes:
        pending: The boxes that are not printed yet, each with its depth and its result.
        builder: The builder of the current run, to which the printer passes every event.
        failed: Whether a line of the current run could not be made; the rest of the run is then not printed.
    """

    def __init__(self, write: Callable[[str], object], depth: int | None, values: int) -> None:
        self.write = write
        self.depth = depth
        self.values = values
        self.pending: list[tuple[Draft, int, Any]] = []
        self.start(Builder(Record()))

    def start(self, builder: Builder) -> None:
        """Start to print a run, whose events the builder receives."""
        self.builder = builder
        self.pending.clear()
        self.failed = False

    def on_event(self, event: Event, result: Any) -> None:
        """Pass an event to the builder, and print the boxes that can be printed now; used as `Listener.on_event`."""
        if self.failed:
            return
        try:
            self._print(event, result)
        except Exception as error:
            self.failed = True
            _report("the rest of this run is not printed", error)

    def _print(self, event: Event, result: Any) -> None:
        """Pass an event to the builder, and print the boxes that can be printed now."""
        depth = len(self.builder.open)
        draft = self.builder.feed(event)
        if isinstance(event, Enter):
            if self.pending and self.pending[-1][0] is draft:
                return
            self._flush()
            self.pending.append((draft, depth, None))  # type: ignore[arg-type]
        elif isinstance(event, Leave):
            self._close(draft, result)  # type: ignore[arg-type]
        elif isinstance(event, Call):
            if len(self.pending) > 1 or event.error:
                self._flush()
            self.pending.append((draft, depth, result))  # type: ignore[arg-type]
            if len(self.pending) == 1 or event.error:
                self._flush()

    def _close(self, draft: Draft, result: Any) -> None:
        """At the end of a box, print it: as one line with its only operation, or with its error if it has one."""
        if [each for each, *_ in self.pending][:1] == [draft]:
            if draft.event.error:
                self._flush()
            else:
                self._line(draft, self.pending[0][1], result)
                self.pending.clear()
            return
        self._flush()
        if draft.event.error:
            self._line(draft, len(self.builder.open), None)

    def _flush(self) -> None:
        """Print the pending boxes."""
        for draft, depth, result in self.pending:
            self._line(draft, depth, result)
        self.pending.clear()

    def _line(self, draft: Draft, depth: int, result: Any) -> None:
        """Print a box and the values of its small results; skip a box deeper than `depth` unless it failed."""
        if self.depth is not None and depth > self.depth and not draft.event.error:
            return
        with torch._C.DisableTorchFunction():
            box = self.builder.freeze(draft)
            is_open = draft in self.builder.open or (not box.outputs and not box.error)
            self.write(row_line(box_row(box, depth), is_open))
            for tensor in small_tensors(result, self.values):
                self.write("\n".join(["  " * (depth + 1) + line for line in numbers_text(tensor).splitlines()]))


def small_tensors(result: Any, max_elements: int) -> list[Tensor]:
    """Return the tensors with at most `max_elements` elements in a result.

    Tensors whose data cannot be printed are left out: meta tensors, tensors wrapped by `torch.func`, and instances of
    Tensor subclasses other than Parameter, such as fake tensors.
    """
    leaves = _pytree.tree_leaves(result) if max_elements else []
    plain = [leaf for leaf in leaves if type(leaf) in (Tensor, nn.Parameter) and not leaf.is_meta]
    return [leaf for leaf in plain if leaf.numel() <= max_elements and not functorch.is_functorch_wrapped_tensor(leaf)]


def numbers_text(tensor: Tensor) -> str:
    """Return the elements of a tensor as text, in rows and columns."""
    text = str(tensor.detach().cpu()).removeprefix("tensor(")
    return text.partition(", dtype")[0].removesuffix(")").replace("\n       ", "\n")


def writer(to: Any) -> Callable[[str], object]:
    """Return the function that writes a line to a sink other than None.

    It never raises an `Exception`, so that no run fails because it is printed: the first exception of the sink is
    logged as a warning, and later lines are written again.

    Raises:
        CircuitError: `to` is not a `Sink`.
    """
    write_line, reported = _line_writer(to), False

    def write(line: str) -> None:
        nonlocal reported
        try:
            write_line(line)
        except Exception as error:
            if not reported:
                reported = True
                _report("a line could not be written", error)

    return write


def _report(what: str, error: Exception) -> None:
    """Log an exception that was raised while a run was printed; an exception of the log's own handlers is ignored."""
    with contextlib.suppress(Exception):
        _log.warning("%s: %s: %s", what, type(error).__name__, error)


def _line_writer(to: Any) -> Callable[[str], object]:
    """Return the function that writes a line to a sink, and raises the sink's exceptions; see `writer`."""
    if isinstance(to, str) and to == "stdout":
        return lambda line: _write_to_stream(sys.stdout, line)
    if isinstance(to, logging.Logger):
        return to.info
    if hasattr(to, "write"):
        return partial(_write_to_stream, to)
    if callable(to):
        return to
    raise CircuitError(
        f"lines can be printed to a stream, a logger or a function that takes a line, not to {type(to).__name__}"
    )


def _write_to_stream(stream: Any, line: str) -> None:
    """Write a line to a stream; a line that the stream's encoding cannot express is written in ASCII."""
    try:
        stream.write(f"{line}\n")
    except UnicodeEncodeError:
        stream.write(f"{in_ascii(line)}\n")
