"""Print boxes while a run goes on, and the sinks to which lines are written."""

import logging
import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils import _pytree

from circuits.diagram import box_row, row_line
from circuits.errors import CircuitError
from circuits.recording.builder import Builder
from circuits.recording.events import Call, Enter, Event, Leave
from circuits.recording.freezer import Draft

Sink = TextIO | logging.Logger | Callable[[str], object] | Literal["stdout"] | None
"""Where lines are written: "stdout" (`sys.stdout` as it is at each line), a stream, a logger (at INFO), a function that
is called with each line, or None for nowhere."""


class Printer:
    """Prints the boxes of a run from its events.

    An operation is printed when it has run, a box before its contents. A box that contains a single operation is
    printed as one line; therefore the line of a box that opens, and that of its first operation, are pending until the
    next event shows what the box contains.

    Args:
        write: Called with each line.
        depth: The deepest nesting level that is printed, 0 being the outermost box; None: all.
        values: Results with at most this many numbers are printed with their values; 0: none.

    Attributes:
        pending: The boxes that are not printed yet, each with its depth and its result.
        builder: The builder of the current run, which the printer feeds.
    """

    def __init__(self, write: Callable[[str], object], depth: int | None, values: int) -> None:
        self.write = write
        self.depth = depth
        self.values = values
        self.pending: list[tuple[Draft, int, Any]] = []
        self.builder: Builder

    def on_event(self, event: Event, result: Any) -> None:
        """Feed an event to the builder, and print what it completes. An `on_event` of a listener."""
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
        """Print a box that closes: in one line with its only operation, or with its error if it has one."""
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
        """Print a box, and the numbers of its small results; a box below `depth` only if it failed."""
        if self.depth is not None and depth > self.depth and not draft.event.error:
            return
        with torch._C.DisableTorchFunction():
            box = self.builder.freeze(draft)
            is_open = draft in self.builder.open or (not box.outputs and not box.error)
            self.write(row_line(box_row(box, depth), is_open))
            for tensor in small_tensors(result, self.values):
                self.write("\n".join(["  " * (depth + 1) + line for line in numbers_text(tensor).splitlines()]))


def small_tensors(result: Any, most: int) -> list[Tensor]:
    """Return the tensors in a result that have at most `most` numbers, and numbers at all (no fake or meta tensors)."""
    leaves = _pytree.tree_leaves(result) if most else []
    plain = [leaf for leaf in leaves if type(leaf) in (Tensor, nn.Parameter) and not leaf.is_meta]
    return [leaf for leaf in plain if leaf.numel() <= most and not functorch.is_functorch_wrapped_tensor(leaf)]


def numbers_text(tensor: Tensor) -> str:
    """Return the numbers of a tensor in rows and columns."""
    text = str(tensor.detach().cpu()).removeprefix("tensor(")
    return text.partition(", dtype")[0].removesuffix(")").replace("\n       ", "\n")


def writer(to: Any) -> Callable[[str], object]:
    """Return the function that writes a line to a sink other than None.

    Raises:
        CircuitError: `to` is not a `Sink`.
    """
    if to == "stdout":
        return lambda line: sys.stdout.write(f"{line}\n")
    if isinstance(to, logging.Logger):
        return to.info
    if hasattr(to, "write"):
        return lambda line: to.write(f"{line}\n")
    if callable(to):
        return to
    raise CircuitError(f"a tracker prints to a stream, a logger or a function of one line, not to {type(to).__name__}")
