"""Raise CircuitError for operations and modules that torch.vmap cannot map; the message names them."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from circuits.errors import CircuitError

_NORM = (
    "is in train mode and keeps running statistics, which each index would update differently; "
    "call .eval() on it, or make it with track_running_stats=False"
)


def refuse_operation(name: str, error: RuntimeError) -> None:
    """Raise CircuitError if `error` is torch's error for an operation, in the circuit `name`, that vmap cannot map."""
    message = f"{error}"
    missing = re.search(r"Batching rule not implemented for aten::(\w+)", message)
    if missing:
        raise CircuitError(f"broadcast: {name} uses {missing[1]}, which torch.vmap cannot map") from error
    if message.startswith("Batch norm got a batched tensor"):
        raise CircuitError(f"broadcast: a batch norm in {name} {_NORM}") from error


def refuse_module(module: nn.Module) -> None:
    """Raise CircuitError if a module is or contains an nn.RNN, LSTM or GRU, or a norm that updates its statistics."""
    for path, part in module.named_modules():
        kind = type(part).__name__
        name = f"the {kind} at {path!r} of {type(module).__name__}" if path else kind
        if isinstance(part, nn.RNNBase):
            raise CircuitError(f"broadcast: torch.vmap cannot map {name}; use its own batch axis instead")
        if isinstance(part, _NormBase) and part.training and part.running_mean is not None:
            raise CircuitError(f"broadcast: {name} {_NORM}")
