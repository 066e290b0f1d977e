"""Copies of circuits that a law may do with as it likes, and random numbers that nobody else is the poorer for."""

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
    """Random numbers from a seed inside the `with`; the caller's go on as if nothing had been drawn."""
    if torch.cuda.is_initialized():
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
        return
    before = torch.get_rng_state()  # torch.manual_seed asks every kind of device, which takes milliseconds
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def owner_of(f: Any) -> Any:
    """The module that a circuit belongs to, if any."""
    owner = f if isinstance(f, nn.Module) else getattr(f, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def copied(f: Any, law: str, seed: int) -> Any:
    """A copy with no parameter or statistic where it began; a plain function is itself."""
    owner = owner_of(f)
    if owner is None:
        return f
    try:
        other = method_of_copy(f)
    except Exception as error:
        raise CircuitError(
            f"laws.{law} works on a copy, and {type(owner).__name__} cannot be copied: {error}"
        ) from error
    with torch.no_grad(), seeded(seed):
        for parameter in owner_of(other).parameters():
            if parameter.is_floating_point() and not parameter.is_meta:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in owner_of(other).modules():
            if isinstance(module, _NormBase) and module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
    return other


def method_of_copy(f: Any) -> Any:
    """A copy of a module, or the same method of a copy of its module."""
    owner = owner_of(f)
    if owner is None or isinstance(f, nn.Module):
        return copy.deepcopy(f) if owner is not None else f
    return getattr(copy.deepcopy(owner), f.__name__)
