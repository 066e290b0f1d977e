"""Activations of other libraries, by their name in transformers or as their module, as what makes one here."""

from collections.abc import Callable
from functools import partial

from torch import nn

from circuits import CircuitError

from .configuration import ACTIVATIONS

_TANH = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate")
"""The names of GELU approximated by tanh."""

_BY_NAME: dict[str, Callable[[], nn.Module]] = {
    **dict.fromkeys(("gelu", "gelu_python"), nn.GELU),
    **dict.fromkeys(_TANH, partial(nn.GELU, approximate="tanh")),
    **dict.fromkeys(("silu", "swish"), nn.SiLU),
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def by_name(name: str) -> Callable[[], nn.Module]:
    """Return the activation of this name in transformers; raise CircuitError if there is none here."""
    if name not in _BY_NAME:
        raise CircuitError(f"the activation is {name}; here it may be {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def like(module: nn.Module) -> Callable[[], nn.Module]:
    """Return the activation that a module of torch.nn is; raise CircuitError for a module that is none.

    >>> like(nn.GELU("tanh"))()
    GELU(approximate='tanh')
    """
    if isinstance(module, nn.GELU):
        return nn.GELU if module.approximate == "none" else partial(nn.GELU, approximate=module.approximate)
    kind = type(module)
    known = kind.__name__ in ACTIVATIONS.split() and kind is getattr(nn, kind.__name__)
    if not known or f"{kind()}" != f"{module}".replace("inplace=True", ""):
        raise CircuitError(f"the activation is {module}; here it may be one of torch.nn with its default arguments")
    return kind
