"""The memory of a run on tensors without data: which storages are live, and the most bytes at once.

A tensor and its views share one storage, which is counted once, from the operation that makes it until no tensor refers
to it. Parameters, buffers and constants exist before the run and are not counted; inputs are.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from circuits.cost.sizes import Largest, Sum
from circuits.diagram import Size


class Memory:
    """The storages of a run, and the largest sum of their bytes in the whole run and in each open box.

    `size` converts torch's symbolic numbers to formulas in axes.
    """

    def __init__(self, size: Callable[[Any], Size]) -> None:
        self.size = size
        self.live = Sum()
        self.peaks: list[Largest] = []
        self._known: dict[int, Any] = {}

    def open(self) -> Largest:
        """Begin a box; return its peak, which is updated until `close`."""
        found = Largest()
        found.note(self.live.terms)
        self.peaks.append(found)
        return found

    def close(self) -> None:
        """End the box that was begun last."""
        self.peaks.pop()

    def exclude(self, tensors: Iterable[Tensor]) -> None:
        """Never count the storages of these tensors, which exist before the run."""
        for tensor in tensors:
            self._known[key(tensor)] = None

    def note(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Count the storages of tensors that an operation returned; return the tensors whose storage is new."""
        found = []
        for tensor in tensors:
            if key(tensor) not in self._known:
                self._add(tensor)
                found.append(tensor)
        if found:
            for peak in self.peaks:
                peak.note(self.live.terms)
        return found

    def _add(self, tensor: Tensor) -> None:
        number, size = key(tensor), storage_bytes(tensor, self.size)
        self.live.add(size)
        self._known[number] = weakref.finalize(_owner(tensor), self._remove, number, size)

    def _remove(self, number: int, size: Size) -> None:
        self.live.add(size, -1)
        del self._known[number]

    def end(self) -> None:
        """Forget all storages, those that live on too."""
        for finalizer in self._known.values():
            if finalizer is not None:
                finalizer.detach()
        self._known.clear()


def _owner(tensor: Tensor) -> Any:
    """Return the object that lives as long as the memory of a tensor."""
    return tensor.untyped_storage() if has_storage(tensor) else tensor


def has_storage(tensor: Tensor) -> bool:
    """Return whether a tensor has a storage that views share; sparse and other tensors have none."""
    try:
        tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return False
    return True


def key(tensor: Tensor) -> int:
    """Return the number of a tensor's storage, which its views share."""
    return tensor.untyped_storage()._cdata if has_storage(tensor) else id(tensor)


def storage_bytes(tensor: Tensor, size: Callable[[Any], Size]) -> Size:
    """Return the bytes of a tensor's storage."""
    if has_storage(tensor):
        return size(tensor.untyped_storage().nbytes())
    return size(tensor.numel()) * tensor.dtype.itemsize


__all__ = ["Memory", "key", "storage_bytes"]
