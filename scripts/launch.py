"""A run that torchrun has started: its mesh, the output of its processes, and what is known after a restart."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from scripts.distributed import Group, axes_over
from scripts.processes import MeshError
from scripts.tasks import TASKS

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it gives up."""


def parse_mesh(text: str) -> dict[str, int]:
    """The size of each mesh axis by name, in the order of the text.

    Raises MeshError if it cannot be read.

    >>> parse_mesh("data=2,tensor=4")
    {'data': 2, 'tensor': 4}
    """
    sizes: dict[str, int] = {}
    for word in text.split(","):
        name, _, size = (part.strip() for part in word.partition("="))
        if not (name.isidentifier() and size.isdecimal() and int(size)) or name in sizes:
            raise MeshError(f"--mesh takes sizes by name, once each, such as data=2,tensor=2, not {text!r}")
        sizes[name] = int(size)
    return sizes


def _checked(mesh: str | None, count: int) -> dict[str, int]:
    """The sizes of a mesh of so many processes."""
    if mesh is None:
        raise MeshError(f"torchrun has started {count} processes; say what they share: --mesh data={count}")
    sizes = parse_mesh(mesh)
    if prod(sizes.values()) != count:
        raise MeshError(f"--mesh {mesh} has places for {prod(sizes.values())} processes; torchrun has started {count}")
    return sizes


def _refuse(asked: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Raise MeshError for options that a model on such a mesh cannot have, and for a task that cannot use the mesh."""
    axes_over(TASKS[asked["task"]], sizes)
    if asked["compile"]:
        raise MeshError("--compile is for one process: what processes send each other is not compiled")
    if asked["checkpointing"] and {*sizes} != {"data"}:
        raise MeshError(
            "--checkpointing goes with --mesh data=... alone: a block runs again without its communications"
        )


def _set_device(device: str) -> None:
    """Use the device of this process, by its number on the machine."""
    number, count = int(os.environ["LOCAL_RANK"]), torch.get_device_module(device).device_count()
    if number >= count:
        raise MeshError(f"there is no device {device}:{number} for this process; this machine has {count} of {device}")
    torch.get_device_module(device).set_device(number)


class Launch:
    """What torchrun says of a process, and the store that it keeps for all processes as long as it runs itself."""

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        self.store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=TIMEOUT
        )

    @property
    def has_saved(self) -> bool:
        """Whether these processes, before torchrun started them again, have saved a checkpoint."""
        return self.restarts > 0 and self.store.check(["scripts.train/saved"])

    def note_saved(self) -> None:
        """Remember, over restarts, that there is a checkpoint."""
        self.store.set("scripts.train/saved", "yes")

    @contextmanager
    def processes(self, mesh: str | None, asked: Mapping[str, Any]) -> Iterator[Group]:
        """The processes of the run inside the `with`.

        Args:
            mesh: The text of --mesh.
            asked: The other options, by name.

        Raises:
            MeshError: The mesh cannot be read or has not a place for each process, an option is not for several
                processes, or a device is missing.
        """
        sizes, device = _checked(mesh, self.count), asked["device"]
        _refuse(asked, sizes)
        if device != "cpu":
            _set_device(device)
        # Advice on speed, for tensors that are gathered or added up over two mesh axes, one after the other. The ranks
        # may then differ in the last digits of the norm of the gradient, of which `Group.clip` takes that of the first.
        logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
        # Torch's own use of the store would find the addresses of processes that were there before a restart.
        store = dist.PrefixStore(f"{self.restarts}", self.store)  # pyright: ignore[reportPrivateImportUsage]
        backend = "gloo" if device == "cpu" else None
        dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=self.rank, world_size=self.count)
        yield Group(init_device_mesh(device, (*sizes.values(),), mesh_dim_names=(*sizes,)), self)
        # After an error nothing is destroyed, so that the others notice it no earlier than it is reported.
        dist.destroy_process_group()

    @contextmanager
    def output_once(self) -> Iterator[None]:
        """In the `with`, the first process alone prints, and of errors only the first of all processes is let through.

        The other processes end without a word. If a process is lost, torch's error in the others becomes a MeshError.
        """
        try:
            with ExitStack() as stack:
                if self.rank:
                    stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
                    stack.enter_context(warnings.catch_warnings())
                    warnings.simplefilter("ignore")
                yield
        except Exception as error:
            try:
                is_first = self.store.add(f"scripts.train/failed/{self.restarts}", 1) == 1
            except dist.DistError:  # torchrun itself is gone
                is_first = self.rank == 0
            if not is_first:
                sys.exit(1)
            if _tells_of_a_loss(error):
                raise MeshError(f"a process of the run was lost, or waited for in vain for {TIMEOUT}") from error
            raise


def _tells_of_a_loss(error: Exception) -> bool:
    """Whether an error is torch's for a process that is lost."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in f"{error}")


__all__ = ["Launch", "parse_mesh"]
