"""Calls that are recorded for their effect, because they return no tensor: of autograd, hooks, and random state."""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from circuits.errors import CircuitError


def register_hook(tensor: Tensor, hook: Callable[..., Any]) -> None:
    """Register a hook on the gradient of a tensor, if it requires one.

    Raises:
        CircuitError: The hook may hold tensors of the recorded run.
    """
    if tensor.requires_grad:
        tensor.register_hook(without_values_of_run(hook))


def without_values_of_run(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook of autograd, which a diagram can use again.

    Raises:
        CircuitError: It is no plain function, or it has a closure or defaults, so it may hold tensors of the recorded
            run.
    """
    if isinstance(hook, FunctionType) and not (hook.__closure__ or hook.__defaults__ or hook.__kwdefaults__):
        return hook
    name = getattr(hook, "__qualname__", type(hook).__name__)
    raise CircuitError(
        f"the recorded run gave autograd the hook {name}, which may hold values of that run (it is no plain function, "
        "or has a closure), so the diagram runs only without gradients, under torch.no_grad()"
    )


def has_backward_hooks(module: nn.Module) -> bool:
    """Return whether autograd calls hooks of a module, its own or those of all modules."""
    held = vars(module)
    own = held["_backward_hooks"] or held["_backward_pre_hooks"]
    return bool(own or hooks._global_backward_hooks or hooks._global_backward_pre_hooks)


def retain_grad(tensor: Tensor) -> None:
    """Let autograd keep the gradient of a tensor, if it requires one."""
    if tensor.requires_grad:
        tensor.retain_grad()


SETS_RANDOM_STATE: tuple[Any, ...] = (torch.random.manual_seed, torch.random.seed, torch.random.set_rng_state)
"""The functions that set the state of the default random number generators."""

EFFECTS: Mapping[Any, Callable[..., Any]] = {
    Tensor.register_hook: register_hook,
    Tensor.retain_grad: retain_grad,
    Tensor.backward: Tensor.backward,
    torch.autograd.backward: torch.autograd.backward,
    **{function: function for function in SETS_RANDOM_STATE},
}
"""For each function, the one by which a diagram has the same effect."""
