"""Print the boxes of a run while it is running.

A run never fails because it is printed: an exception that is raised while a line is made or written is logged as a
warning, once for each writer and each run, and the run continues.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.nn.parameter import is_lazy
from torch.utils import _pytree

from circuits.diagram import Wire, box_line, heading_line, is_bookkeeping
from circuits.recording.builder import Builder
from circuits.recording.drafts import Draft
from circuits.recording.events import Call, Enter, Event, Leave, Record
from circuits.recording.repeated_runs import Fold
from circuits.recording.scopes import modules_of
from circuits.recording.sinks import report


class Printer:
    """Prints the boxes of a run from its events.

    An operation is printed after it has run, a box before its contents. A box that contains a single operation is
    printed as one line. Therefore a box that opens, and its first operation, are printed only at the next event, which
    shows whether the box contains more than that operation. The lines inside a module that repeats the one before it
    are held back until it ends, and then one line stands for them.

    Args:
        write: Called with each line.
        depth: The deepest nesting level that is printed, 0 being the outermost box; None: all.
        values: Results with at most this many elements are printed with their values; 0: none.
        fold: Whether one line stands for those inside a module that repeats the one before it.
        width: How wide a line may be.
        named: Whether axes have a column beside that of sizes.

    Attributes:
        pending: The boxes that are not printed yet, each with its depth and its result.
        builder: The builder of the current run, to which the printer passes every event.
        failed: Whether a line of the current run could not be made; the rest of the run is then not printed.
    """

    def __init__(
        self, write: Callable[[str], object], depth: int | None, values: int, fold: bool, width: int, named: bool
    ) -> None:
        self.write = write
        self.depth = depth
        self.values = values
        self.fold = fold and not values
        self.width, self.named = width, named
        self.has_heading = False
        self.pending: list[tuple[Draft, int, Any]] = []
        self.start(Builder(Record()))

    def start(self, builder: Builder) -> None:
        """Start to print a run, whose events the builder receives."""
        self.builder = builder
        self.pending.clear()
        self.failed = False
        self.folding = Fold(builder) if self.fold else None

    def on_event(self, event: Event, result: Any) -> None:
        """Pass an event to the builder, and print the boxes that can be printed now; used as `Listener.on_event`."""
        if self.failed:
            return
        try:
            self._print(event, result)
        except Exception as error:
            self.failed: bool = True
            report("the rest of this run is not printed", error)

    def _print(self, event: Event, result: Any) -> None:
        """Pass an event to the builder, and print the boxes that can be printed now."""
        depth = len(self.builder.open)
        draft = self.builder.feed(event)
        if draft is None:
            return
        if type(event) is Enter:
            if self.pending and self.pending[-1][0] is draft:
                return
            self._flush()
            self.pending.append((draft, depth, None))
        elif type(event) is Leave:
            self._close(draft, result)
        elif type(event) is Call:
            if _counts_runs(self.builder, draft):
                return
            if len(self.pending) > 1 or event.error:
                self._flush()
            self.pending.append((draft, depth, result))
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
        if self.folding is not None:
            for line in self.folding.close(draft, len(self.builder.open)):
                self._write(*line) if isinstance(line, tuple) else self.write(line)
        if draft.event.error:
            self._line(draft, len(self.builder.open), None)

    def _flush(self) -> None:
        """Print the pending boxes."""
        for draft, depth, result in self.pending:
            self._line(draft, depth, result)
            if self.folding is not None and type(draft.event) is Enter:
                self.folding.open(draft)
        self.pending.clear()

    def _line(self, draft: Draft, depth: int, result: Any) -> None:
        """Print a box and the values of its small results; skip a box deeper than `depth` unless it failed."""
        if self.depth is not None and depth > self.depth and not draft.event.error:
            return
        is_open = draft in self.builder.open
        if self.folding is None or not self.folding.hold(draft, depth, is_open):
            self._write(draft, depth, is_open, result)

    def _write(self, draft: Draft, depth: int, is_open: bool, result: Any = None) -> None:
        """Write the line of a box, and the headings before the first one."""
        with torch._C.DisableTorchFunction():
            box = self.builder.freeze(draft)
            if not self.has_heading:
                self.has_heading = True
                self.write(heading_line(self.width, self.named))
            runs = is_open or (not box.outputs and not box.error)
            self.write(box_line(box, depth, runs, self.width, self.named, _parameter_count(draft)))
            for tensor in small_tensors(result, self.values):
                self.write("\n".join(["  " * (depth + 1) + line for line in numbers_text(tensor).splitlines()]))


def _parameter_count(draft: Draft) -> int | None:
    """Return the number of elements of the parameters of a module; None for any other box."""
    event = draft.event
    if not isinstance(event, Enter) or event.kind != "module" or not isinstance(event.module, nn.Module):
        return None
    found = {  # not by `module.parameters()`, for speed: it yields each name through a generator for each level
        id(parameter): parameter
        for module in modules_of(event.module)
        if module._parameters
        for parameter in module._parameters.values()
        if type(parameter) is nn.Parameter or (parameter is not None and not is_lazy(parameter))
    }
    return sum([parameter.numel() for parameter in found.values()])


def _counts_runs(builder: Builder, draft: Draft) -> bool:
    """Return whether an operation only counts runs, as BatchNorm's does; it has no line."""
    first, values = draft.event.args[:1], builder.record.values
    may_count = not draft.event.error and first and type(first[0]) is Wire and values[first[0].number][2] == "buffer"
    return bool(may_count) and is_bookkeeping(builder.freeze(draft))


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
