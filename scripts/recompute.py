"""Activation checkpointing from outside a model: chosen modules keep only their inputs, and run again for the gradient.

Memory for time (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost); the gradient stays what it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> int:
    """Let each module of these kinds, the outermost where they stand in each other, run twice; return their number.

    The second run draws the same random numbers, and what it does to buffers (the running statistics of norms) is
    forgotten. Parameters keep their names.

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
    """What `forward` gives, which stores nothing but its inputs."""
    if torch.compiler.is_compiling():  # a compiled step writes to a buffer once, whatever it computes twice
        return checkpoint(forward, *inputs, use_reentrant=False, **options)
    contexts = partial(_contexts, module)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)


def _contexts(module: nn.Module) -> tuple[Any, Any]:
    """What the first run stands in, and the second."""
    return nullcontext(), _on_copies(module)


@contextmanager
def _on_copies(module: nn.Module) -> Iterator[None]:
    """Inside, every buffer of a module is a copy."""
    held = [(part, name, buffer) for part in module.modules() for name, buffer in part.named_buffers(recurse=False)]
    for part, name, buffer in held:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in held:
            setattr(part, name, buffer)
