"""`track`: record and print the real runs of a model or circuit inside a `with`, while they happen.

It runs the same code as an untracked call: a circuit's kernel, not its definition. Only `track` and `Tracker` print
anything in this library; their argument `to` chooses where lines are printed, if at all.
"""

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import nn

from circuits.checking import find_circuit
from circuits.errors import CircuitError, CircuitWarning, described, entry_point
from circuits.recording.builder import Builder
from circuits.recording.call_arguments import python_signature
from circuits.recording.finite import Finite, checked
from circuits.recording.intercepted_calls import uncompiled
from circuits.recording.interception import recorded_by
from circuits.recording.listener import Listener
from circuits.recording.printer import Printer
from circuits.recording.scopes import modules_of
from circuits.recording.seen import Seen
from circuits.recording.sinks import Sink, width_of, writer
from circuits.recording.tracker import Tracker, _into, _out

FORMERLY_HERE = (Tracker, _into, _out)
"""What older pickles refer to as attributes of this module."""


@entry_point
def track(
    target: Any,
    *,
    to: Sink = "stdout",
    depth: int | None = None,
    values: int = 0,
    fold: bool = True,
    finite: Finite = False,
) -> AbstractContextManager[Seen]:
    """Record and print the calls of a module or circuit in this thread inside the `with`, while they run on real data.

    An operation is printed after it has run, a box that contains others when it is entered. If a run fails, the box
    that failed is printed with its inputs and the error, and the exception propagates. Results and gradients are the
    same as without `track`, and nothing remains attached to the model. A run never fails because it is printed: an
    exception of `to` is logged as a warning, and the run continues.

    Args:
        target: The module or circuit; a compiled one runs as the code that it wraps.
        to: Where lines are printed: "stdout", a stream, a logger (at INFO), a function that is called with each line,
            or None to print nothing.
        depth: The deepest nesting level that is printed, 0 being the outermost box; None: all. A box that fails is
            always printed, and every box is recorded.
        values: Results with at most this many elements are printed with their values; 0: none.
        fold: Whether one line stands for those inside a module that repeats the one before it, `blocks.1` after
            `blocks.0`; they are printed when the module fails. With `values` all lines are printed.
        finite: True: the run stops at the first operation that makes a NaN or an infinity; "nan": at the first NaN.
            Each result is read for it, which is slow on a GPU. Results inside torch.func transforms are not read.

    Returns:
        A context manager; the value of `with ... as` is a `Seen`, to which each run is added when it ends. It keeps
        every run, with memory in proportion to the number of boxes; without `as`, no run is kept.

    Raises:
        CircuitError: `target` is neither a module nor a circuit, or `to` is none of the above. In the model: a number
            is not finite, with its box, index and axes.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> with track(model, to=None) as seen:
    ...     _ = model(torch.ones(2, 4))
    >>> print(seen)
    box         sizes       parameters
    Sequential  2 4 -> 2 3          15
      0 Linear  2 4 -> 2 3          15
      1 ReLU    2 3 -> 2 3
    <BLANKLINE>
    parameters   15 (60 B): all trained
    activations  12 (48 B)
    """
    target = uncompiled(target)
    found = None if isinstance(target, nn.Module) else find_circuit(target)
    if found is None and not isinstance(target, nn.Module):
        raise CircuitError(
            f"track records the calls of a module or circuit, not {described(target)}: {_instead(target)}"
        )
    named = found is not None or any(map(_has_signature, modules_of(target)))
    printer = None if to is None else Printer(writer(to), depth, values, fold, width_of(to), named)
    return _Tracking(partial(_recorded, target, found or target, printer, finite))


def _instead(target: Any) -> str:
    """Return what would work in place of a target that is neither a module nor a circuit."""
    if isinstance(target, type):
        return f"make a module first, model = {target.__name__}(...), then with track(model): model(x)"
    if callable(target):
        return 'decorate it, @circuit("y m -> y"), or use trace'
    return "with track(model): model(x)"


class NotEnteredError(CircuitError, AttributeError):
    """An attribute of what `track` returns was read that its value inside a `with` has."""


class _Tracking(AbstractContextManager[Seen]):
    """What `track` returns: it records inside a `with`, and says so where it is used without one."""

    _was_entered = True  # until `__init__` ends, which an interrupt may keep it from

    def __init__(self, recorded: Callable[[], AbstractContextManager[Seen]]) -> None:
        self._recorded = recorded
        self._open: list[AbstractContextManager[Seen]] = []
        self._was_entered: bool = False

    def __enter__(self) -> Seen:
        recorded = self._recorded()
        self._was_entered = True
        found = recorded.__enter__()
        self._open.append(recorded)
        return found

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.pop().__exit__(*error)

    @entry_point
    def __getattr__(self, name: str) -> Any:
        raise NotEnteredError(f"track records inside a `with`, whose value has .{name}: with track(model) as seen: ...")

    def __del__(self) -> None:
        if not self._was_entered:
            warnings.warn(
                "track records inside a `with`, and this one has recorded nothing: with track(model): model(x)",
                CircuitWarning,
                stacklevel=2,
            )


@contextmanager
def _recorded(target: Any, root: Any, printer: Printer | None, finite: Finite) -> Iterator[Seen]:
    """Record runs of `target`, whose calls begin with `root`, inside the `with`; see `track`."""
    runs = [Seen()]
    seen = weakref.ref(runs[0])
    listener = Listener(root)
    listener.is_kept = lambda: not runs and seen() is not None
    binder = python_signature(target)

    def start_run() -> None:
        listener.begin()
        if printer is not None:
            printer.start(Builder(listener.record, binder=binder))
            listener.on_event = printer.on_event
        if finite:
            listener.on_event = checked(listener, finite, binder, None if printer is None else printer.on_event)

    def finish_run() -> None:
        record, is_complete = listener.record, not listener.stack
        start_run()
        kept = seen()
        if is_complete and kept is not None:
            kept.add(record, binder)

    start_run()
    listener.on_finish = finish_run
    with recorded_by(listener, target):
        yield runs.pop()  # which the caller alone keeps


def _has_signature(module: nn.Module) -> bool:
    """Return whether axes of a module have names."""
    return find_circuit(module) is not None or (isinstance(module, Tracker) and module.signature is not None)
