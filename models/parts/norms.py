"""The norm of vectors, of any class: nn.LayerNorm, which may have a bias, and nn.RMSNorm, which has none."""

from collections.abc import Callable

import torch
from torch import nn

from circuits import CircuitError


def norm_of_vectors(
    kind: Callable[..., nn.Module],
    m: int,
    eps: float,
    *,
    bias: bool,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return a norm over vectors of width m, with a weight, and with a bias if its class has one and `bias` is true.

    Args:
        kind: nn.LayerNorm or nn.RMSNorm.
        m: Width of the vectors.
        eps: Number that the norm adds to the variance.
        bias: Whether an nn.LayerNorm has a bias.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: if `kind` is another class.

    >>> norm_of_vectors(nn.RMSNorm, 8, 1e-6, bias=True)
    RMSNorm((8,), eps=1e-06, elementwise_affine=True)
    """
    if kind is nn.LayerNorm:
        return nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype)
    if kind is nn.RMSNorm:
        return nn.RMSNorm(m, eps, device=device, dtype=dtype)
    raise CircuitError(f"norm is {kind!r}; it may be nn.LayerNorm or nn.RMSNorm")
