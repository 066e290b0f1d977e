"""Dropout and other random operations: definitions in which the random numbers are values, and the rule of dropout.

torch's operations do not return the mask that their derivative needs; in the definitions it is a separate tensor, which
is saved for backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.rules.registry import defines, reverses


@defines("dropout")
def dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Return the first output of `native_dropout`, whose second is the mask; an alias of x if nothing is dropped."""
    if not train or p == 0:
        return torch.ops.aten.alias.default(x)
    return torch.native_dropout(x, p, True)[0]


@reverses("native_dropout")
def native_dropout_rule(dy: Any, y: Any, p: float, train: Any) -> Tensor:
    """dx = dy mask / (1 - p), 0 if p is 1; dx = dy outside training."""
    if train is False:
        return dy[0]
    return dy[0] * y[1] * (0.0 if p == 1 else 1 / (1 - p))


@defines("feature_dropout")
def feature_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Return dropout of whole channels: one random number for each index of the first two axes."""
    if not train or p == 0:
        return torch.ops.aten.alias.default(x)
    noise = torch.empty([*x.shape[:2], *[1] * (x.ndim - 2)], dtype=x.dtype, device=x.device).bernoulli_(1 - p)
    return x * (noise / (1 - p) if p < 1 else noise)


@defines("alpha_dropout")
def alpha_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Return dropout that preserves mean and variance: dropped elements are set to a constant, then all are scaled."""
    return _alpha_dropout(x, x.shape, p, train)


@defines("feature_alpha_dropout")
def feature_alpha_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Return alpha dropout of whole channels: one random number for each index of the first two axes."""
    return _alpha_dropout(x, [*x.shape[:2], *[1] * (x.ndim - 2)], p, train)


def _alpha_dropout(x: Tensor, shape: Any, p: float, train: bool) -> Tensor:
    """Return alpha dropout with a mask of the given shape."""
    if not train or p == 0:
        return torch.ops.aten.alias.default(x)
    if p == 1:
        return x * 0
    alpha = 1.7580993408473766  # SELU tends to -alpha at minus infinity
    gain = 1 / ((alpha * alpha * p + 1) * (1 - p)) ** 0.5
    noise = torch.empty(list(shape), dtype=x.dtype, device=x.device).bernoulli_(1 - p)
    shift = (noise - 1) * (alpha * gain) + alpha * gain * p
    return x * (noise * gain) + shift


@defines("rrelu")
def rrelu(
    x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> Tensor:
    """Return x where x > 0, elsewhere x times a random negative slope; outside training, times the mean slope."""
    if not training:
        return F.leaky_relu(x, (lower + upper) / 2)
    slope = torch.empty(x.shape, dtype=x.dtype, device=x.device).uniform_(lower, upper)
    return torch.where(x > 0, x, x * slope)


@defines("normal")
def normal(mean: Any, std: Any = 1.0, **options: Any) -> Tensor:
    """Return normal random numbers; as in torch, no gradient flows to their mean and standard deviation."""
    with torch.no_grad():
        return torch.normal(mean, std, **options)
