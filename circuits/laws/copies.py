"""Copies of circuits, and seeded random numbers that leave the caller's random state unchanged."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from circuits.errors import CircuitError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside the `with`, and restore the caller's random state afterwards."""
    if torch.cuda.is_initialized():
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
        return
    before = torch.get_rng_state()  # torch.manual_seed would initialize every kind of device, which takes milliseconds
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def owner_of(f: Any) -> Any:
    """Return the circuit itself if it is a module, or the module whose method it is; None for a plain function."""
    owner = f if isinstance(f, nn.Module) else getattr(f, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def randomized_copy(f: Any, law: str, seed: int) -> Any:
    """Return a copy of a circuit with noise added to every floating parameter and with random running statistics.

    A plain function is returned unchanged.

    Raises:
        CircuitError: The module cannot be copied.
    """
    owner = owner_of(f)
    if owner is None:
        return f
    try:
        duplicate = copy_of(f)
    except Exception as error:
        raise CircuitError(
            f"laws.{law} works on a copy of the module, and {type(owner).__name__} cannot be copied: {error}"
        ) from error
    with torch.no_grad(), seeded(seed):
        for parameter in owner_of(duplicate).parameters():
            if parameter.is_floating_point() and not parameter.is_meta:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in owner_of(duplicate).modules():
            if isinstance(module, _NormBase) and module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
    return duplicate


def copy_of(f: Any) -> Any:
    """Return a copy of a module, or the same method of a copy of its module; a plain function is returned unchanged."""
    owner = owner_of(f)
    if owner is None or isinstance(f, nn.Module):
        return copy.deepcopy(f) if owner is not None else f
    return getattr(copy.deepcopy(owner), f.__name__)
