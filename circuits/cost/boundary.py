"""`Boundary`: what a box reads of tensors from outside, and what it writes of its results, in bytes.

These bytes are moved by any implementation of the box that begins with its inputs in memory and ends with its results
there, even if all of its operations are one kernel; what they pass to each other may stay in registers and caches.

No byte is counted that an implementation could do without: of a tensor that several operations read, the largest such
read counts, and of results only what is used later. What look-ups read depends on data, and what windows that overlap
read is in part the same, so neither counts; nor do reads of a tensor that the box has written to.
"""

from collections.abc import Iterable

from circuits.cost.sizes import Largest, simplified, terms_of
from circuits.diagram import Size


class Boundary:
    """The reads and writes of an open box, by the number of the storage: the largest of each."""

    def __init__(self) -> None:
        self._reads: dict[int, Largest] = {}
        self._writes: dict[int, Largest] = {}
        self._inside: set[int] = set()
        self._written: set[int] = set()

    def read(self, storage: int, size: Size) -> None:
        """Note that an operation reads bytes of a storage."""
        if storage not in self._inside:
            self._reads.setdefault(storage, Largest()).note(terms_of(size))

    def change(self, storage: int, size: Size) -> None:
        """Note that an operation writes to a storage in place."""
        if storage not in self._inside:
            self._writes.setdefault(storage, Largest()).note(terms_of(size))
            self._inside.add(storage)
        self._written.add(storage)

    def make(self, storage: int, written: bool) -> None:
        """Note that an operation makes a storage, which it writes to or not."""
        self._inside.add(storage)
        (self._written.add if written else self._written.discard)(storage)

    def close(self, results: Iterable[tuple[int, Size]]) -> Size:
        """Return the bytes that cross the boundary; `results` are the storages and bytes of what the box returns."""
        for storage, size in results:
            if storage in self._inside & self._written:
                self._writes.setdefault(storage, Largest()).note(terms_of(size))
        return simplified(sum([each.size for part in (self._reads, self._writes) for each in part.values()]))


__all__ = ["Boundary"]
