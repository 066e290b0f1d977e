# This file uses private names of torch: its simulation of ranks by threads.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false
"""Ranks as threads of one process, whose collectives copy tensors, and the bytes that a rank sends.

Unlike in `LocalTensorMode` each rank runs by itself.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist
from torch._C import _distributed_c10d
from torch.testing._internal.distributed import multi_threaded_pg
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")
FLAGS = tuple([name for name in vars(_python_dispatch) if name.startswith("_is_in_")])
"""Globals that modes of torch set and restore, which threads do in any order."""


def on_ranks(world: int, work: Callable[[int], T]) -> list[T]:
    """Return what `work` returns on each rank, or raise the first error of a rank."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    store, hook = dist.HashStore(), sys.excepthook
    flags = {name: getattr(_python_dispatch, name) for name in FLAGS}

    def run(rank: int) -> None:
        dist.init_process_group("threaded", rank=rank, world_size=world, store=store)
        try:
            results[rank] = work(rank)
        except SystemExit:  # another rank failed
            pass
        except BaseException as error:
            errors.append(error)
            multi_threaded_pg.ProcessLocalGroup.exception_handle(error)
        finally:
            dist.destroy_process_group()

    multi_threaded_pg.ProcessLocalGroup.reset()
    multi_threaded_pg._install_threaded_pg()
    _distributed_c10d._set_thread_isolation_mode(True)
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        _distributed_c10d._set_thread_isolation_mode(False)
        multi_threaded_pg._uninstall_threaded_pg()
        sys.excepthook = hook
        for name, flag in flags.items():
            setattr(_python_dispatch, name, flag)
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(world)]


class Sent(TorchDispatchMode):
    """Notes the bytes that each collective sends from one rank."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if func.namespace == "_c10d_functional" and name in COLLECTIVES.values():
            self.bytes.append((name, args[0].numel() * args[0].element_size()))
        return func(*args, **(kwargs or {}))


COLLECTIVES = {
    "all-reduce": "all_reduce",
    "all-gather": "all_gather_into_tensor",
    "reduce-scatter": "reduce_scatter_tensor",
}
