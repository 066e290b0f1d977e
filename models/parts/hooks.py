"""Whether a module has hooks, which show its inputs, outputs or gradients: then no vector may be left out."""

from torch import nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""The attributes of a module that hold its hooks."""


def is_hooked(module: nn.Module) -> bool:
    """Return whether the module or one inside it has a forward or backward hook.

    >>> layer = nn.Sequential(nn.Linear(2, 2))
    >>> handle = layer[0].register_forward_hook(lambda *_: None)
    >>> is_hooked(layer)
    True
    """
    return any(getattr(part, name) for part in module.modules() for name in _HOOKS)
