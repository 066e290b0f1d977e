"""What the training loop needs of the processes that it is on, `Processes`, and that of one process, `OneProcess`.

`scripts.distributed` has that of several processes, which takes longer to import.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from scripts import checkpoint
from scripts.checkpoint import Record

Found = TypeVar("Found")


class MeshError(ValueError):
    """The processes of a run and what they are to do do not fit each other, or one of them was lost."""


class Files(Protocol):
    """The folder of a run: `scripts.checkpoint`, or `scripts.sharded_checkpoint` for several processes."""

    def save(self, folder: Path, record: Record, held: Any, optimizer: Any, device: Any, /) -> None:
        """Write the whole state of a run."""
        ...

    def publish(self, folder: Path, record: Record, held: Any, /) -> None:
        """Write what is for users."""
        ...

    def restore(self, folder: Path, held: Any, optimizer: Any, /) -> None:
        """Load the whole state of a run."""
        ...


class Processes(Protocol):
    """The processes of a run, as one of them sees them."""

    is_first: bool
    """Whether this is the process that prints and writes files for users."""
    parts: int
    """The number of parts of every batch, each of which some processes compute."""

    @property
    def resumes(self) -> bool:
        """Whether the run was interrupted and goes on from its checkpoint by itself."""
        ...

    def unsplit(self, model: nn.Module) -> nn.Module:
        """The model as it is before `split`, which may change it."""
        ...

    def split(self, task: Any, models: Sequence[nn.Module], arguments: tuple[Tensor, ...]) -> str | None:
        """Split models over the processes, and return what is to be said of it; `arguments` are some of `forward`."""
        ...

    def files(self, plain: nn.Module) -> Files:
        """What writes the folder of the run; `plain` is what `unsplit` returned."""
        ...

    def share(self, count: int) -> tuple[slice, int]:
        """The part of so many examples that is for this process, and its size; of size 0, the slice is that of all."""
        ...

    def total(self, part: Tensor) -> Tensor:
        """The sum of a number over all parts."""
        ...

    def joined(self, part: Tensor) -> Tensor:
        """Rows of all parts, together."""
        ...

    def agreed(self, value: Found) -> Found:
        """The value that the first process has."""
        ...

    def on_first(self, function: Callable[[], Found]) -> Found:
        """The result of a function that the first process alone calls; what it raises, all raise."""
        ...

    def own_random_numbers(self, *place: int) -> AbstractContextManager[Any]:
        """In the `with`, random numbers are those of a part and a place in the run; the generator is then as before."""
        ...

    def evaluating(self, model: nn.Module, is_called_otherwise: bool) -> AbstractContextManager[nn.Module]:
        """The model to evaluate in the `with`, also by other methods than `forward` if that is said."""
        ...

    def average_statistics(self, model: nn.Module) -> None:
        """Give the running statistics of a model, which each part has changed by its own examples, their mean."""
        ...

    def clip(self, model: nn.Module, most: float) -> None:
        """Scale the gradients of a model so that their norm is at most `most`."""
        ...

    def wait(self) -> None:
        """Wait until all that was saved is on disk."""
        ...


class OneProcess:
    """One process, which computes with whole batches."""

    is_first, parts, resumes = True, 1, False

    def unsplit(self, model: nn.Module) -> nn.Module:
        """The model."""
        return model

    def split(self, task: Any, models: Sequence[nn.Module], arguments: tuple[Tensor, ...]) -> str | None:
        """Leave the models whole."""

    def files(self, plain: nn.Module) -> Files:
        """`scripts.checkpoint`."""
        return checkpoint

    def share(self, count: int) -> tuple[slice, int]:
        """All examples."""
        return slice(None), count

    def total(self, part: Tensor) -> Tensor:
        """The number."""
        return part

    def joined(self, part: Tensor) -> Tensor:
        """The rows."""
        return part

    def agreed(self, value: Found) -> Found:
        """The value."""
        return value

    def on_first(self, function: Callable[[], Found]) -> Found:
        """The result."""
        return function()

    def own_random_numbers(self, *place: int) -> AbstractContextManager[Any]:
        """The generator goes on."""
        return nullcontext()

    def evaluating(self, model: nn.Module, is_called_otherwise: bool) -> AbstractContextManager[nn.Module]:
        """The model."""
        return nullcontext(model)

    def average_statistics(self, model: nn.Module) -> None:
        """There is one part."""

    def clip(self, model: nn.Module, most: float) -> None:
        """By torch's own function."""
        nn.utils.clip_grad_norm_(model.parameters(), most)

    def wait(self) -> None:
        """All is on disk."""


__all__ = ["Files", "MeshError", "OneProcess", "Processes"]
