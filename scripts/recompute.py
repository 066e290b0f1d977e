"""Activation checkpointing of chosen modules: they save only their inputs, and run again in the backward pass.

It trades time for memory (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost); gradients do not change.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> int:
    """Checkpoint each module of these classes (the outermost, if they are nested); return how many there are.

    The second run draws the same random numbers, and its changes to buffers (running statistics of norms) are
    discarded. Parameters keep their names.

    >>> model = nn.Sequential(nn.Sequential(nn.Linear(3, 5), nn.ReLU()), nn.Linear(5, 1))
    >>> recompute(model, (nn.Sequential,))
    1
    """
    found = 0
    for child in model.children():
        if isinstance(child, kinds):
            child.forward = partial(_forward, child, child.forward)
            found += 1
        else:
            found += recompute(child, kinds)
    return found


def _forward(module: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """The output of `forward`, of which autograd saves only the inputs."""
    if torch.compiler.is_compiling():  # a compiled step writes to a buffer once, whatever it computes twice
        return checkpoint(forward, *inputs, use_reentrant=False, **options)
    contexts = partial(_contexts, module)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)


def _contexts(module: nn.Module) -> tuple[Any, Any]:
    """The context managers of the first run and of the second run."""
    return nullcontext(), _on_copies(module)


@contextmanager
def _on_copies(module: nn.Module) -> Iterator[None]:
    """Replace every buffer of a module by a copy inside the `with`."""
    held = [(part, name, buffer) for part in module.modules() for name, buffer in part.named_buffers(recurse=False)]
    for part, name, buffer in held:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in held:
            setattr(part, name, buffer)
