"""How a `Tracker` calls the module that it wraps, and what it prints of a call."""

import functools
from typing import Any

import torch

from circuits.checking import Options, checked, declare
from circuits.diagram import tensors


def plain_call(tracker: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the wrapped module of a tracker."""
    return tracker.module(*args, **kwargs)


@functools.lru_cache(maxsize=256)
def signed_call(signature: str, name: str, where: str) -> Any:
    """Return a circuit with this signature and name, made at this line, that calls the wrapped module of a tracker."""

    def forward(self: Any, *inputs: Any, **others: Any) -> Any:
        return self.module(*inputs, **others)

    return checked(declare(forward, signature, Options(), name, where or "a Tracker"))


def sizes_text(value: Any) -> str:
    """Return the sizes of the tensors in a value, also in its mappings and dataclasses: `2 3, 4`."""
    return ", ".join([" ".join([f"{size}" for size in tensor.shape]) for tensor in tensors(value)])


def process_rank() -> int:
    """Return the rank of this process in a distributed run, 0 outside one."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


__all__ = ["plain_call", "process_rank", "signed_call", "sizes_text"]
