"""Functions that run several times while a backward circuit is made, each time from the same state of their objects.

A box that contains others but runs by one call (a module with `torch.vmap` in its `forward`) is run on fake tensors to
find its results, and again to record its operations. Its code may count its calls, or keep a list.
"""

from collections.abc import Callable
from typing import Any

from circuits.recording import Snapshot


class RepeatedRuns:
    """Wraps functions, so that each run begins with the state before the first; `end` restores all states."""

    def __init__(self) -> None:
        self._states: list[Snapshot] = []

    def repeatable(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls `function`; before all but the first call it restores the first one's state."""
        state = Snapshot()

        def run(*args: Any, **kwargs: Any) -> Any:
            if state in self._states:
                _restore(state)
            else:
                state.add(function, "")
                state.add((args, kwargs), "")
                self._states.append(state)
            return function(*args, **kwargs)

        return run

    def end(self) -> None:
        """Restore the state before the first run of each function, that of the last function first."""
        while self._states:
            _restore(self._states.pop())


def _restore(state: Snapshot) -> None:
    state.put_back(lambda _: False)
    state.restore_generators()
