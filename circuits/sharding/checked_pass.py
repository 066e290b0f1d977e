"""The check of backward passes: a communication that is not in the plan raises an error there too.

`leaving` is called with each output of a model, `entering` with each of its inputs. A backward pass, which goes through
them in the reverse order, is checked from an output on, and no longer from an input on: other models may be behind it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor._utils import ExplicitRedistributionContext


class _OnePass(ExplicitRedistributionContext):
    """Refuses communications that no code asks for, in the thread that enters it and in the backward pass that runs.

    It need not be left, and is not if that pass fails: it does nothing in another pass, or in none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.task = torch._C._current_graph_task_id()

    @property
    def _enable(self) -> bool:
        return self.task == torch._C._current_graph_task_id()

    @_enable.setter
    def _enable(self, value: bool) -> None:
        """Nothing: torch sets it once."""


def _active() -> Any:
    return getattr(ExplicitRedistributionContext._local, "_active", None)


class _Leaving(torch.autograd.Function):
    """A copy of an output, from whose gradient on the backward pass is checked."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return a copy: `fully_shard` wants no view."""
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Begin the check, unless one runs in this thread: ours, or the user's."""
        found = _active()
        if found is None or (isinstance(found, _OnePass) and not found._enable):
            _OnePass().__enter__()
        return gradient


class _Entering(torch.autograd.Function):
    """An input, until whose gradient the backward pass is checked."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """End the check."""
        if isinstance(_active(), _OnePass):
            ExplicitRedistributionContext._local._active = None
        return gradient


def leaving(tensor: Tensor) -> Tensor:
    """Return a copy of an output of a model, which is plain."""
    return _Leaving.apply(tensor)


def entering(tensor: Tensor) -> Tensor:
    """Return an input of a model, which is plain."""
    return _Entering.apply(tensor) if tensor.requires_grad else tensor


__all__ = ["entering", "leaving"]
