"""The one switch: is a diagram being recorded, and by whom.

Circuits and verbs test `active` on every call and do nothing more while it is zero. While it is not, `current()`
says who records in this thread; other threads go on undisturbed. What a recorder does with what it is told is
`tracing`'s business; this floor knows neither tensors nor diagrams.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

active: int = 0
"""How many recordings are under way in this process. Zero almost always."""

_lock = threading.Lock()
_here = threading.local()


class Recorder(Protocol):
    """What a circuit or a verb tells whoever records it."""

    def circuit(
        self,
        circuit: Any,
        owner: object | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run: Callable[[bool], Any],
    ) -> Any:
        """A circuit is called: `owner` is `self` for a method; `args` and `kwargs` are the other arguments.

        `run(True)` checks and runs the definition, `run(False)` what runs by default; its result is the answer.
        """
        ...

    def verb(
        self, function: Any, pattern: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        """An einops verb is called with a pattern; `run()` does it and its result is the answer."""
        ...

    def show(self, size: Any) -> str:
        """A size as its user would write it: `20`, `y`, `h/2`; never a name the machine made up."""
        ...


def current() -> Recorder | None:
    """Who records in this thread, if anyone."""
    return getattr(_here, "recorder", None)


def show(size: Any) -> str:
    """The text of a size in a message: the recorder's words if there is one, else the number."""
    if active:
        recorder = current()
        if recorder is not None:
            return recorder.show(size)
    return f"{size}"


@contextmanager
def by(recorder: Recorder | None) -> Iterator[None]:
    """Let `recorder` (or nobody) record this thread; what was there before comes back, also after an error."""
    global active
    before = current()
    with _lock:
        active += 1
    _here.recorder = recorder
    try:
        yield
    finally:
        _here.recorder = before
        with _lock:
            active -= 1
