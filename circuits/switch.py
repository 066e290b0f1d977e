"""Whether a diagram is being recorded, the recorder of each thread, and the kind of switch that both use.

Circuits and verbs test `active` on every call and do nothing more while it is 0. While it is not 0, `current()` returns
the recorder of this thread; threads without a recorder run as usual. The recorder is implemented in
`circuits.recording`. This module imports neither torch nor diagrams.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Block:
    """An open `with` block of a switch: the value that it sets, and the open blocks of the thread that entered it."""

    __slots__ = ("thread", "value")

    def __init__(self, value: Any, thread: "list[Block]") -> None:
        self.value: Any = value
        self.thread: list[Block] = thread


class _OfThread(threading.local):
    """The open blocks of one switch in each thread, in the order in which they were entered."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []


class Switch:
    """A setting that `with` blocks change: it is computed from the blocks that are open, in all threads.

    Blocks end in any order: a generator can hold one open, and tasks and threads enter and leave by turns. Therefore a
    block that ends removes itself, and restores no earlier value. It ends whatever exception is raised at whatever
    moment; if a KeyboardInterrupt is raised before the first instruction of `__exit__`, it ends when that exception is
    freed. In the child of a fork, which has no other threads, their blocks have ended.

    Args:
        update: Called after a block was entered or ended; it computes the setting. Several threads may call it at once.

    Attributes:
        blocks: The open blocks, in the order in which they were entered.
        of_thread: `of_thread.blocks` are those of this thread.
    """

    def __init__(self, update: Callable[[], None]) -> None:
        self.blocks: list[Block] = []
        self.of_thread: _OfThread = _OfThread()
        self._update = update
        os.register_at_fork(after_in_child=self._after_fork)

    @contextmanager
    def set(self, value: Any) -> Iterator[None]:
        """Open a block with a value until the end of the `with`."""
        block = Block(value, self.of_thread.blocks)
        try:
            try:
                self.blocks.append(block)
                block.thread.append(block)
                self._update()
                yield
            finally:
                self._end(block)
        finally:
            self._end(block)  # again, because an interrupt may have ended the first call

    def _end(self, block: Block) -> None:
        for blocks in (self.blocks, block.thread):
            if block in blocks:
                blocks.remove(block)
        self._update()

    def _after_fork(self) -> None:
        """End the blocks of the other threads, which the child of a fork does not have."""
        self.blocks[:] = self.of_thread.blocks
        self._update()


active: int = 0
"""How many `set_recorder` blocks are open in this process, over all threads; almost always 0."""


def _count() -> None:
    global active
    while active != len(_recorders.blocks):  # until no other thread has changed it
        active = len(_recorders.blocks)


_recorders = Switch(_count)


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
    blocks = _recorders.of_thread.blocks
    return blocks[-1].value if blocks else None


def outer(recorder: Recorder) -> Recorder | None:
    """Return the recorder of this thread under `recorder`: the one that was set before, of those not ended; or None."""
    found = None
    for block in _recorders.of_thread.blocks:
        if block.value is recorder:
            break
        found = block.value
    return found


def show(size: Any) -> str:
    """Return a size as text for a message: `recorder.show(size)` if this thread has a recorder, else the number."""
    if active:
        recorder = current()
        if recorder is not None:
            return recorder.show(size)
    return f"{size}"


def recorders() -> list[Any]:
    """Return the recorders of this thread, the innermost first; None where a block has set none."""
    blocks = _recorders.of_thread.blocks
    return [blocks[0].value] if len(blocks) == 1 else [block.value for block in reversed(blocks)]


def set_recorder(recorder: Recorder | None) -> AbstractContextManager[None]:
    """Set the recorder of this thread inside the `with`; None sets no recorder.

    At the end, the recorder of the thread is again the last one that was set, of those whose `with` has not ended.
    """
    return _recorders.set(recorder)
