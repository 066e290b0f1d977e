"""Where lines are written: a stream, a logger or a function. A run never fails because a line cannot be written."""

import contextlib
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TextIO

from circuits.diagram import in_ascii, terminal_width
from circuits.errors import CircuitError

Sink = TextIO | logging.Logger | Callable[[str], object] | Literal["stdout"] | None
"""Where lines are written: "stdout" (`sys.stdout`, looked up at each write), a stream, a logger (at INFO), a function
that is called with each line, or None: no lines are written."""

_log = logging.getLogger(__name__)


def width_of(to: Any) -> int:
    """Return how wide the lines may be that are written to a sink: the terminal's width, or 120."""
    return terminal_width() if to == "stdout" or to is sys.stdout else 120


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
                report("a line could not be written", error)

    return write


def report(what: str, error: Exception) -> None:
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


__all__ = ["Sink", "report", "width_of", "writer"]
