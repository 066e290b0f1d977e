"""A higher recursion limit while a model is recorded, copied or made into a diagram.

Around each module call a recorder has frames of its own, some three times those of torch. So a nested model that runs
by itself runs while it is recorded, within a limit that is higher by as much.
"""

import os
import sys
import threading
from contextlib import AbstractContextManager

from circuits import switch

_FACTOR = 12
"""How many times more frames there may be: a deep copy and a recorded call have up to eleven for each module."""

_before: list[int] = []
"""Python's recursion limit before the first open block; empty if no block is open."""


def more_frames() -> AbstractContextManager[None]:
    """Return a context manager inside which Python's recursion limit, which all threads share, is higher."""
    return _blocks.set(None)


_lock = threading.RLock()  # a signal may be handled, and a block entered, while this thread holds it
# A fork waits until no thread is at work on the limit: its child, with one thread, has a lock that is not held.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def _update() -> None:
    with _lock:
        if _blocks.blocks and not _before:
            _before.append(sys.getrecursionlimit())
            sys.setrecursionlimit(_before[0] * _FACTOR)
        elif _before and not _blocks.blocks:
            if sys.getrecursionlimit() == _before[0] * _FACTOR:  # else other code has set it meanwhile
                sys.setrecursionlimit(_before[0])
            _before.clear()  # last: if an interrupt comes before, the next update sets the limit again


_blocks = switch.Switch(_update)
