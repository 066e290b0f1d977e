"""Several processes that train one model, each on its own device: `torchrun -m scripts.train NAME --mesh data=2`.

Each process loads all examples, draws the same random numbers, and takes its part of every batch, so that the loss
curve is that of one process within float tolerance. Over other mesh axes than `data` all processes take the same part:
`tensor` splits the model, `sequence` each text. The model is split by `circuits.shard`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from circuits import shard
from scripts.processes import Files, Found, MeshError
from scripts.sharded_checkpoint import ShardedFiles


class Launched(Protocol):
    """What outlives the processes: see `scripts.launch.Launch`."""

    rank: int

    @property
    def has_saved(self) -> bool:
        """Whether these processes, before they were started again, have saved a checkpoint."""
        ...

    def note_saved(self) -> None:
        """Remember, over restarts, that there is a checkpoint."""
        ...


def axes_over(task: Any, sizes: Mapping[str, int]) -> dict[str, str]:
    """The mesh axis over which each axis of a task is split, on a mesh of such sizes by name.

    Raises MeshError if no axis is split over one of the mesh.
    """
    over = {axis: name for axis, name in task.split.items() if name in sizes}
    idle = [name for name in sizes if name not in over.values()]
    if idle:
        known = ", ".join(dict.fromkeys(task.split.values())) or "none: it trains on one process"
        raise MeshError(f"this task has no axis to split over {', '.join(idle)}; mesh axes that it uses: {known}")
    return over


class Group:
    """The processes of a run on a mesh, as `scripts.processes.Processes` describes them."""

    plain: nn.Module
    """What `unsplit` returned."""

    def __init__(self, mesh: DeviceMesh, launch: Launched) -> None:
        self.mesh, self.launch = mesh, launch
        self.sizes = dict(zip(mesh.mesh_dim_names or (), mesh.shape, strict=True))
        self.is_first = launch.rank == 0
        self.parts = self.sizes.get("data", 1)
        self.number = mesh.get_local_rank("data") if "data" in self.sizes else 0
        self.written: ShardedFiles | None = None

    @property
    def resumes(self) -> bool:
        """Whether these processes were started again, and had saved a checkpoint."""
        return self.agreed(self.launch.has_saved)

    def unsplit(self, model: nn.Module) -> nn.Module:
        """A copy, on the CPU, since `split` changes the model."""
        self.plain = deepcopy(model).cpu()
        return self.plain

    def split(self, task: Any, models: Sequence[nn.Module], arguments: tuple[Tensor, ...]) -> str:
        """Split models over the mesh by the axes that the task names, and return the plan.

        Raises:
            MeshError: No axis of the task is split over an axis of the mesh.
            CircuitError: The model cannot be split so.
        """
        over = axes_over(task, self.sizes)
        names = {name: axes for name, axes in task.names.items() if {*axes.split()} & {*over}}
        plans = [shard(model, self.mesh, over, *arguments, axes=task.axes, names=names) for model in models]
        return f"{plans[0]}"

    def files(self, plain: nn.Module) -> Files:
        """Checkpoints that all processes write."""
        self.written = ShardedFiles(self, plain, self.launch.note_saved)
        return self.written

    def wait(self) -> None:
        """Wait until all that was saved is on disk; all processes call this."""
        if self.written is not None:
            self.written.wait()

    def share(self, count: int) -> tuple[slice, int]:
        """The part of so many examples that is for this process, and its size; of size 0, the slice is that of all."""
        first, end = (count * each // self.parts for each in (self.number, self.number + 1))
        return slice(first, end) if end > first else slice(None), end - first

    def total(self, part: Tensor) -> Tensor:
        """The sum of a number over all parts."""
        if self.parts > 1:
            dist.all_reduce(part, group=self.mesh.get_group("data"))
        return part

    def joined(self, part: Tensor) -> Tensor:
        """Rows of all parts, one part after the other."""
        if self.parts == 1:
            return part
        found: list[Any] = [None] * self.parts
        dist.all_gather_object(found, part.cpu(), group=self.mesh.get_group("data"))
        return torch.cat(found).to(part.device)

    def agreed(self, value: Found) -> Found:
        """The value that the first process has."""
        shared = [value]
        dist.broadcast_object_list(shared)
        return shared[0]

    def on_first(self, function: Callable[[], Found]) -> Found:
        """The result of a function that the first process alone calls; what it raises, all raise."""
        result, error = None, None
        if self.is_first:
            try:
                result = function()
            except Exception as raised:
                error = raised
        result, error = self.agreed((result, error))
        if error is not None:
            raise error
        return result  # pyright: ignore[reportReturnType]

    @contextmanager
    def own_random_numbers(self, *place: int) -> Iterator[None]:
        """In the `with`, random numbers are those of a part and a place in the run; the generator is then as before."""
        if self.parts == 1:
            yield
            return
        state = torch.get_rng_state()
        torch.manual_seed(hash((*place, self.number)) % 2**63)
        try:
            yield
        finally:
            torch.set_rng_state(state)

    @contextmanager
    def evaluating(self, model: nn.Module, is_called_otherwise: bool) -> Iterator[nn.Module]:
        """The model to evaluate in the `with`, also by other methods than `forward` if that is said.

        For those all parameters are gathered; otherwise only those of the block that runs. Where more is split than the
        data, the other methods are those of a whole copy.
        """
        if is_called_otherwise and {*self.sizes} != {"data"}:
            yield self._whole_copy(model)
            return
        parts = [each for each in model.modules() if isinstance(each, FSDPModule)]
        if is_called_otherwise:
            for each in parts:
                each.set_reshard_after_forward(False, recurse=False)
                each.unshard()
        try:
            yield model
        finally:
            for each in parts:
                each.set_reshard_after_forward(each is not model, recurse=False)
                each.reshard()

    def _whole_copy(self, model: nn.Module) -> nn.Module:
        """A copy of a model as it was before `split`, with the present parameters; all processes make it."""
        parameters = model.state_dict()
        whole = {name: each.full_tensor() if isinstance(each, DTensor) else each for name, each in parameters.items()}
        copy = deepcopy(self.plain)
        copy.load_state_dict(whole)
        return copy.to(next(iter(whole.values())).device).train(model.training)

    def average_statistics(self, model: nn.Module) -> None:
        """Give the running statistics of a model, which each part has changed by its own examples, their mean."""
        for buffer in model.buffers():
            if self.parts > 1 and buffer.is_floating_point():
                local = buffer.to_local() if isinstance(buffer, DTensor) else buffer
                local.copy_(self.total(local.clone()) / self.parts)

    def clip(self, model: nn.Module, most: float) -> None:
        """Scale the gradients of a model so that their norm, of which all take that of the first, is at most `most`."""
        parameters = [*model.parameters()]
        norm: Any = nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        dist.broadcast(whole, 0)
        nn.utils.clip_grads_with_norm_(parameters, most, whole)


__all__ = ["Group", "axes_over"]
