"""Reverse rules of softmax, log-softmax and log-sum-exp.

`dx` is the cotangent of the input `x`, `dy` that of the output `y`.
"""

from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import positive_dim, restore_dims, reverses, unbroadcast


@reverses("softmax _softmax _safe_softmax")
def softmax(dy: Tensor, y: Tensor, dim: int) -> Tensor:
    """dx = y (dy - Σ dy y), where the sum is along the axis of the softmax."""
    weighted = dy * y
    return weighted - y * weighted.sum(dim, keepdim=True)


@reverses("log_softmax _log_softmax")
def log_softmax(dy: Tensor, y: Tensor, dim: int) -> Tensor:
    """dx = dy - exp(y) Σ dy, where the sum is along the axis of the softmax."""
    return dy - y.exp() * dy.sum(dim, keepdim=True)


@reverses("logsumexp")
def logsumexp(dy: Tensor, y: Tensor, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """dx = dy exp(x - y): the softmax of x times dy. It is NaN where x and y are infinite alike, as torch's."""
    return restore_dims(dy, x, dim, keepdim) * (x - restore_dims(y, x, dim, keepdim)).exp()


@reverses("logcumsumexp")
def logcumsumexp(dy: Tensor, y: Tensor, x: Tensor, dim: int) -> Tensor:
    """dx at index i is the sum of dy exp(x[i] - y) over index i and those after it."""
    if x.ndim == 0:
        return dy
    where, size = positive_dim(dim, x.ndim), x.shape[dim]
    rows = torch.arange(size, device=x.device)
    share = (x.movedim(where, -1).unsqueeze(-1) - y.movedim(where, -1).unsqueeze(-2)).exp()
    later = share.masked_fill(rows.unsqueeze(0) < rows.unsqueeze(1), 0)
    return (later * dy.movedim(where, -1).unsqueeze(-2)).sum(-1).movedim(-1, where)


@reverses("logaddexp")
def logaddexp(dy: Tensor, x: Tensor, other: Tensor) -> Any:
    """y = ln(eˣ + e^other): dx = dy σ(x - other), dother = dy σ(other - x)."""
    return {"x": unbroadcast(dy * (x - other).sigmoid(), x), "other": unbroadcast(dy * (other - x).sigmoid(), other)}
