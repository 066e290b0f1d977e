"""Tensors that are split over processes, on disk: by torch.distributed.checkpoint, in files of safetensors.

A slot is a folder with one file for each process. What one mesh has written another one reads, and so does a single
process. No pickle is written or read.
"""

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save


def write(slot: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup) -> "Future[Any]":
    """Copy tensors to memory of the CPU, then write them into a new folder while the caller goes on.

    All processes of the group call this with the same names. The result is complete once all processes have written and
    synchronized their files.
    """
    writer = HuggingFaceStorageWriter(f"{slot}", save_distributed=True)
    return cast("Future[Any]", async_save(dict(tensors), storage_writer=writer, process_group=group))


def shapes(slot: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """The shape and the dtype of every tensor in a slot, a folder or a file, by name."""
    with _as_folder(slot) as folder:
        found: Any = HuggingFaceStorageReader(f"{folder}").read_metadata().state_dict_metadata
    return {name: (each.size, each.properties.dtype) for name, each in found.items()}


def read(
    slot: Path, into: dict[str, Tensor] | None = None, group: dist.ProcessGroup | None = None
) -> dict[str, Tensor]:
    """The tensors of a slot, a folder or a file.

    Args:
        slot: The folder or file.
        into: Tensors to copy them into, split or not; otherwise whole tensors are made.
        group: The processes that read together; otherwise each reads for itself.

    Raises:
        ValueError: The slot has not the names or shapes of `into`, or cannot be read.
    """
    found = shapes(slot)
    if into is None:
        into = {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in found.items()}
    if into.keys() != found.keys():
        raise ValueError(f"other tensors are there, such as {min(into.keys() ^ found.keys())}")
    try:
        with _as_folder(slot) as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            reader = HuggingFaceStorageReader(f"{folder}")
            load(into, storage_reader=reader, process_group=group, no_dist=group is None)
    except CheckpointException as error:  # no Exception, and it prints the traceback of every process
        raise ValueError(f"{next(iter(error.failures.values()))[0]!r}") from error
    return into


@contextmanager
def _as_folder(slot: Path) -> Iterator[Path]:
    """A folder with the files of a slot; the reader takes folders alone."""
    if slot.is_dir():
        yield slot
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / slot.name).symlink_to(slot.absolute())
        yield Path(folder)


__all__ = ["read", "shapes", "write"]
