"""The folder of a run on several processes, as `scripts.checkpoint` has it, but for the tensors of the state.

All processes write their parts of the tensors into a slot, a folder, while the run goes on. Then the first process
writes the JSON that names the slot, and after it what is for users, from whole copies that were made with the others. A
run that is killed in between has the checkpoint of the epoch before.
"""

import copy
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from scripts import checkpoint, sharded_tensors
from scripts.checkpoint import SUFFIX, CheckpointError, Record
from scripts.processes import Processes


class ShardedFiles:
    """Writes and reads the folder of a run on several processes.

    Args:
        processes: The processes.
        plain: The model before it was split, of which the first process makes whole models.
        saved: Called on the first process after each checkpoint.
    """

    def __init__(self, processes: Processes, plain: nn.Module, saved: Callable[[], None]) -> None:
        self.processes, self.plain, self.saved = processes, plain, saved
        # Of their own, since what is written is agreed on while the run uses the others.
        self.group: Any = dist.new_group(backend="gloo")
        self.executor = ThreadPoolExecutor(1)
        self.pending: Future[Any] | None = None

    def save(
        self,
        folder: Path,
        record: Record,
        held: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        """Begin to write the whole state of a run, by the arguments of `scripts.checkpoint.save`, after the last one.

        Raises CheckpointError if the last one could not be written.
        """
        self.wait()
        slot = self.processes.on_first(lambda: _empty_slot(folder))
        whole = self._whole(held)
        written = sharded_tensors.write(folder / slot, checkpoint.tensors_of(held, optimizer), self.group)
        groups, random = optimizer.state_dict()["param_groups"], checkpoint.random_states(device)

        def commit() -> None:
            written.result()
            checkpoint.commit(folder, record, slot, groups, random)
            self.saved()
            self._publish(folder, record, whole)

        self.pending = self.executor.submit(commit) if self.processes.is_first else written

    def publish(self, folder: Path, record: Record, held: Mapping[str, nn.Module]) -> None:
        """Begin to write what is for users, as `scripts.checkpoint.publish` does."""
        self.wait()
        whole = self._whole(held)
        if self.processes.is_first:
            self.pending = self.executor.submit(self._publish, folder, record, whole)

    def wait(self) -> None:
        """Wait until all is written; raises CheckpointError if it cannot be."""
        pending, self.pending = self.pending, None
        try:
            if pending is not None:
                pending.result()
        except (OSError, CheckpointException) as error:
            reason = error if isinstance(error, OSError) else next(iter(error.failures.values()))[0]
            raise CheckpointError(f"the checkpoint cannot be written: {reason}") from error

    def restore(self, folder: Path, held: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        """Load the whole state of a run, which any number of processes has written."""
        checkpoint.load(folder, held, optimizer, lambda slot: self._read(slot, held, optimizer))
        self.processes.on_first(lambda: checkpoint.verify(folder))

    def _read(self, slot: Path, held: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """The tensors of a slot, split as those of this run are."""
        into = checkpoint.tensors_of(held, optimizer)
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for name, (size, dtype) in sharded_tensors.shapes(slot).items():
            kind, *rest = name.split(".")
            if kind == "optimizer" and name not in into:
                parameter = parameters[int(rest[0])].detach()
                if size not in (torch.Size(), parameter.shape):
                    raise ValueError("a tensor of the optimizer has the shape of another parameter")
                into[name] = torch.zeros_like(parameter) if size else torch.zeros((), dtype=dtype)
        return sharded_tensors.read(slot, into, self.group)

    def _whole(self, held: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
        """The whole weights of what is for users, as two state dicts, on the first process; all take part."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        models = {"best": held["best"], "model": held.get("average", held["model"])}
        gathered: dict[str, dict[str, Any]] = {
            name: get_model_state_dict(model, options=options) for name, model in models.items()
        }
        # A tensor that was whole already is still that of the model, which goes on.
        return {name: {key: each.clone() for key, each in weights.items()} for name, weights in gathered.items()}

    def _publish(self, folder: Path, record: Record, whole: Mapping[str, dict[str, Any]]) -> None:
        models = {name: _with_weights(self.plain, weights) for name, weights in whole.items()}
        checkpoint.publish(folder, record, models)


def _with_weights(model: nn.Module, weights: dict[str, Any]) -> nn.Module:
    """A copy of a model with other weights."""
    found = copy.deepcopy(model)
    found.load_state_dict(weights)
    return found


def _empty_slot(folder: Path) -> str:
    """The slot to write next, of which nothing is left in the folder, which is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    slot = checkpoint.next_slot(folder)
    (folder / f"{slot}{SUFFIX}").unlink(missing_ok=True)
    shutil.rmtree(folder / slot, ignore_errors=True)
    return slot


__all__ = ["ShardedFiles"]
