"""Whether a diagram is being recorded, and the recorder of each thread.

Circuits and verbs test `active` on every call and do nothing more while it is 0. While it is not 0, `current()` returns
the recorder of this thread; threads without a recorder run as usual. The recorder is implemented in
`circuits.recording`. This module imports neither torch nor diagrams.
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
            run: Runs the call, checked if checks are on, and returns the result. `run(True)` runs the definition.
                `run(False)` runs the kernel if one is registered and `definitions` is not active, else the definition.
        """
        ...

    def verb(
        self, function: Any, pattern: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        """Record a call of an einops verb with its pattern and return its result, which `run()` computes."""
        ...

    def show(self, size: Any) -> str:
        """Return a size as a user would write it: `20`, `y`, `h/2`; never a symbol that torch generated."""
        ...


def current() -> Recorder | None:
    """Return the recorder of this thread, or None."""
    return getattr(_thread, "recorder", None)


def show(size: Any) -> str:
    """Return a size as text for a message: `recorder.show(size)` if this thread has a recorder, else the number."""
    if active:
        recorder = current()
        if recorder is not None:
            return recorder.show(size)
    return f"{size}"


@contextmanager
def set_recorder(recorder: Recorder | None) -> Iterator[None]:
    """Set the recorder of this thread inside the `with`; None sets no recorder.

    The previous recorder is restored at the end, also after an error.
    """
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
