"""Losses: the definition of cross-entropy, and the reverse rules of squared error and negative log-likelihood.

`reduction` is ATen's code: 0 for none, 1 for the mean, 2 for the sum.
"""

from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import defines, product, reverses, unbroadcast, zeros


@defines("cross_entropy_loss")
def cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = 1, ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Return the cross-entropy with classes or class probabilities; the arguments are those of `cross_entropy_loss`."""
    dim = 0 if x.ndim == 1 else 1
    logs = x.log_softmax(dim)
    if target.is_floating_point():
        return _cross_entropy_of_probabilities(logs, target, weight, reduction, label_smoothing, dim)
    hard = torch.ops.aten.nll_loss_nd.default(logs, target, weight, reduction, ignore_index)
    if not label_smoothing:
        return hard
    ignored = target == ignore_index
    count = x.shape[dim]
    smooth = -(logs if weight is None else logs * _along(weight, x, dim)).sum(dim)
    smooth = smooth.masked_fill(ignored, 0)
    if reduction == 1:
        if weight is None:
            total: Any = (~ignored).sum()
        else:
            total = weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0).sum()
        smooth = smooth.sum() / total
    elif reduction == 2:
        smooth = smooth.sum()
    return hard * (1 - label_smoothing) + smooth * (label_smoothing / count)


def _cross_entropy_of_probabilities(
    logs: Tensor, target: Tensor, weight: Any, reduction: int, smoothing: float, dim: int
) -> Tensor:
    """Return the cross-entropy with a target that contains the probability of each class."""
    if smoothing:
        target = target * (1 - smoothing) + smoothing / logs.shape[dim]
    found = -(logs * target if weight is None else logs * target * _along(weight, logs, dim)).sum(dim)
    if reduction == 1:
        return found.sum() / product(found.shape)
    return found.sum() if reduction == 2 else found


def _along(weight: Tensor, x: Tensor, dim: int) -> Tensor:
    """Return a vector, reshaped to broadcast with `x` along dimension `dim`."""
    return weight.reshape([-1 if d == dim else 1 for d in range(x.ndim)])


@reverses("mse_loss")
def mse_loss(dy: Tensor, x: Tensor, target: Tensor, reduction: int) -> Any:
    """dx = 2 dy (x - target), divided by the number of elements if the mean was taken; dtarget = -dx."""
    slope = (x - target) * 2
    dx = dy * (slope / product(slope.shape) if reduction == 1 else slope)
    return {"x": unbroadcast(dx, x), "target": unbroadcast(-dx, target)}


@reverses("nll_loss nll_loss_nd nll_loss2d nll_loss_forward nll_loss2d_forward")
def nll_loss(dy: Any, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: Any) -> Tensor:
    """dx = -dy w at the target class, 0 elsewhere; divided by the sum of the weights w if the mean was taken."""
    dy = dy[0] if isinstance(dy, tuple) else dy
    dim = 0 if x.ndim == 1 else 1
    ignored = target == ignore_index
    safe = target.masked_fill(ignored, 0)
    share = torch.ones(target.shape, dtype=x.dtype, device=x.device) if weight is None else weight.index_select(
        0, safe.reshape(-1)
    ).reshape(target.shape)  # fmt: skip
    share = share.masked_fill(ignored, 0)
    selected = -dy * (share / share.sum() if reduction == 1 else share)
    return zeros(x).scatter_add(dim, safe.unsqueeze(dim), selected.unsqueeze(dim))
