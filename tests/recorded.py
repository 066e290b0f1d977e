"""The diagram of a function by `track`, which records modules."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from circuits import Diagram, track


class Runs(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def tracked(function: Callable[..., Any], *inputs: Tensor) -> Diagram:
    """Return the diagram of a module's tracked run, or of the module that calls a function."""
    model = function if isinstance(function, nn.Module) else Runs(function)
    with track(model, to=None) as seen:
        model(*inputs)
    return seen.diagram
