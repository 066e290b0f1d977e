"""Whether a diagram is being recorded, and which recorder this thread has.

Circuits and verbs test `active` on every call and do nothing more while it is 0. While it is not 0, `current()` returns
the recorder of this thread; threads without a recorder run as usual. What a recorder does with the calls it receives is
in `circuits.recording`; this module depends on neither tensors nor diagrams.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

active: int = 0
"""How many `set_recorder` blocks are open in this process, over all threads; almost always 0."""

_lock = threading.Lock()
_thread = threading.local()


class Recorder(Protocol):
    """The methods by which circuits, verbs and messages call the recorder of their thread."""

    def circuit(
        self,
        circuit: Any,
        owner: object | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run: Callable[[bool], Any],
    ) -> Any:
        """Record a call of a circuit and return its result.

        Args:
            circuit: The declaration, a `circuits.Circuit`.
            owner: `self` (or `cls`) where the circuit is a method, else None.
            args: The other positional arguments.
            kwargs: The keyword arguments.
            run: Runs the call, checked if checks are on, and returns the result: `run(True)` runs the definition,
                `run(False)` the function that runs by default: the kernel where one is registered.
        """
        ...

    def verb(
        self, function: Any, pattern: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        """Record a call of an einops verb with its pattern and return its result, which `run()` computes."""
        ...

    def show(self, size: Any) -> str:
        """Return a size as its user would write it: `20`, `y`, `h/2`; never a symbol that torch generated."""
        ...


def current() -> Recorder | None:
    """Return the recorder of this thread, or None."""
    return getattr(_thread, "recorder", None)


def show(size: Any) -> str:
    """Return the text of a size for a message: by the recorder of this thread if there is one, else the number."""
    if active:
        recorder = current()
        if recorder is not None:
            return recorder.show(size)
    return f"{size}"


@contextmanager
def set_recorder(recorder: Recorder | None) -> Iterator[None]:
    """Set the recorder of this thread inside the `with`, or none; the previous one is restored, also after an error."""
    global active
    before = current()
    with _lock:
        active += 1
    _thread.recorder = recorder
    try:
        yield
    finally:
        _thread.recorder = before
        with _lock:
            active -= 1
