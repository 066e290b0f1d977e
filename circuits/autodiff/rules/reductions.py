"""Reductions back: what was summed is copied to all, what was chosen alone gets it, equals share as torch has it."""

from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import (
    numel_along,
    positive_dim,
    positive_dims,
    restore_dims,
    reverses,
    unbroadcast,
    zeros,
)

# Sums -----------------------------------------------------------------------------------------------------------------


@reverses("sum nansum")
def sum(dy: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Copied along what went."""
    return restore_dims(dy, x, dim, keepdim).expand(x.shape)


@reverses("mean")
def mean(dy: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The same, shared out."""
    return (restore_dims(dy, x, dim, keepdim) / numel_along(x, positive_dims(dim, x.ndim))).expand(x.shape)


@reverses("sum_to_size")
def sum_to_size(dy: Tensor, x: Tensor) -> Tensor:
    """Copied along what went."""
    return dy.expand(x.shape)


@reverses("cumsum")
def cumsum(dy: Tensor, dim: int) -> Tensor:
    """The sum of what comes after."""
    return dy.flip(dim).cumsum(dim).flip(dim)


@reverses("prod")
def prod(dy: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The product of the others: of those before and those after, so that zeros are right."""
    if dim is None:
        flat = x.reshape(-1)
        return (_others(flat, 0) * dy).reshape(x.shape)
    where = positive_dim(dim, x.ndim)
    return _others(x, where) * restore_dims(dy, x, dim, keepdim)


def _others(x: Tensor, dim: int) -> Tensor:
    if x.ndim == 0:
        return torch.ones(x.shape, dtype=x.dtype, device=x.device)
    size = x.shape[dim]
    one = torch.ones([1 if d == dim else n for d, n in enumerate(x.shape)], dtype=x.dtype, device=x.device)
    before = torch.cat([one, x.narrow(dim, 0, size - 1).cumprod(dim)], dim)
    after = torch.cat([x.narrow(dim, 1, size - 1).flip(dim).cumprod(dim).flip(dim), one], dim)
    return before * after


@reverses("cumprod")
def cumprod(dy: Tensor, x: Tensor, dim: int) -> Tensor:
    """Each number is in every product from its own on: the product of all up to there but itself, added up."""
    if x.ndim == 0:
        return dy
    where, size = positive_dim(dim, x.ndim), x.shape[dim]
    rows = torch.arange(size, device=x.device)
    wide = x.movedim(where, -1).unsqueeze(-2).expand([*[n for d, n in enumerate(x.shape) if d != where], size, size])
    others = wide.masked_fill(rows.unsqueeze(0) == rows.unsqueeze(1), 1).cumprod(-1)
    later = others.masked_fill(rows.unsqueeze(0) < rows.unsqueeze(1), 0)
    return (later * dy.movedim(where, -1).unsqueeze(-2)).sum(-1).movedim(-1, where)


@reverses("trace")
def trace(dy: Tensor, x: Tensor) -> Tensor:
    """Along the diagonal."""
    rows, columns = torch.arange(x.shape[0], device=x.device), torch.arange(x.shape[1], device=x.device)
    return dy.expand(x.shape).masked_fill(rows.unsqueeze(1) != columns, 0)


# Spread ---------------------------------------------------------------------------------------------------------------


def _less(x: Tensor, dim: Any, correction: Any) -> tuple[Tensor, Any]:
    """Each number less the mean, and what the squares are divided by."""
    dims = positive_dims(dim, x.ndim)
    correction = 1 if correction is None else correction
    return x - x.mean(dims, keepdim=True), numel_along(x, dims) - correction


@reverses("var")
def var(
    dy: Tensor, x: Tensor, dim: Any = None, correction: Any = 1, unbiased: Any = None, keepdim: bool = False
) -> Tensor:
    """2 (x - mean) / (n - 1)."""
    off, many = _less(x, dim, correction if unbiased is None else int(unbiased))
    return restore_dims(dy, x, dim, keepdim) * off * (2 / many)


@reverses("std")
def std(
    dy: Tensor, y: Tensor, x: Tensor, dim: Any = None, correction: Any = 1, unbiased: Any = None, keepdim: bool = False
) -> Tensor:
    """The same by the root: (x - mean) / ((n - 1) std), 0 where all are equal."""
    off, many = _less(x, dim, correction if unbiased is None else int(unbiased))
    flat = y == 0
    slope = (dy / y.masked_fill(flat, 1)).masked_fill(flat, 0)
    return restore_dims(slope, x, dim, keepdim) * off / many


@reverses("var_mean")
def var_mean(
    dy: Any, x: Tensor, dim: Any = None, correction: Any = 1, unbiased: Any = None, keepdim: bool = False
) -> Tensor:
    """Both."""
    return var(dy[0], x, dim, correction, unbiased, keepdim) + mean(dy[1], x, dim, keepdim)


@reverses("linalg_vector_norm norm")
def vector_norm(
    dy: Tensor, y: Tensor, x: Tensor, ord: Any = 2, p: Any = None, dim: Any = None, keepdim: bool = False
) -> Tensor:
    """x |x|^(p-2) / y^(p-1), 0 where the norm is 0."""
    power = 2 if p is None and ord is None else float(ord if p is None else p)
    wide, back = restore_dims(y, x, dim, keepdim), restore_dims(dy, x, dim, keepdim)
    if power == 0:
        return zeros(x)
    if power == 1:
        return back * x.sign()
    if power in (float("inf"), float("-inf")):
        most = (x.abs() == wide).to(dy.dtype)
        return back * x.sign() * (most / most.sum(positive_dims(dim, x.ndim), keepdim=True))
    flat = wide == 0
    scaled = back / wide.masked_fill(flat, 1).pow(power - 1)
    steep = x if power == 2 else x.sign() * x.abs().pow(power - 1)
    return (scaled * steep).masked_fill(flat, 0)


# Choices --------------------------------------------------------------------------------------------------------------


@reverses("amax amin")
def extremes(dy: Tensor, y: Tensor, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """To those that are it, in equal shares."""
    chosen = x == restore_dims(y, x, dim, keepdim)
    return chosen * (restore_dims(dy, x, dim, keepdim) / chosen.sum(positive_dims(dim, x.ndim), keepdim=True))


@reverses("max min")
def extreme(dy: Any, y: Any, x: Tensor, dim: Any = None, keepdim: bool = False, other: Any = None) -> Any:
    """Of an axis to the one that was taken; of all, and of two, in equal shares."""
    if other is not None:
        share = dy * 0.5
        mine, its = [torch.where(a == b, share, dy.masked_fill(a != y, 0)) for a, b in ((x, other), (other, x))]
        return {"x": unbroadcast(mine, x), "other": unbroadcast(its, other)}
    if dim is None:
        chosen = x == y
        return chosen * (dy / chosen.sum())
    return _placed(dy[0], x, dim, y[1], keepdim)


@reverses("median nanmedian mode")
def chosen(dy: Any, y: Any, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """To the one that was taken."""
    if dim is None:
        equal = x == y
        return equal * (dy / equal.sum())
    return _placed(dy[0], x, dim, y[1], keepdim)


@reverses("sort topk kthvalue cummax cummin")
def ordered(dy: Any, y: Any, x: Tensor, dim: Any = -1, keepdim: Any = True) -> Tensor:
    """Each to where it came from."""
    return _placed(dy[0], x, dim, y[1], keepdim)


def _placed(dy: Tensor, x: Tensor, dim: int, index: Tensor, keepdim: bool) -> Tensor:
    """The cotangent where the indices say."""
    if x.ndim == 0:
        return dy
    return zeros(x).scatter_add(dim, restore_dims(index, x, dim, keepdim), restore_dims(dy, x, dim, keepdim))


# Softmax --------------------------------------------------------------------------------------------------------------


@reverses("softmax _softmax _safe_softmax")
def softmax(dy: Tensor, y: Tensor, dim: int) -> Tensor:
    """y (dy - <dy, y>)."""
    weighted = dy * y
    return weighted - y * weighted.sum(dim, keepdim=True)


@reverses("log_softmax _log_softmax")
def log_softmax(dy: Tensor, y: Tensor, dim: int) -> Tensor:
    """dy - softmax · sum dy."""
    return dy - y.exp() * dy.sum(dim, keepdim=True)


@reverses("logsumexp")
def logsumexp(dy: Tensor, y: Tensor, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Shared out as softmax shares."""
    wide = restore_dims(y, x, dim, keepdim)
    shares = (x - wide.masked_fill(wide.abs() == float("inf"), 0)).exp()
    return restore_dims(dy, x, dim, keepdim) * shares


@reverses("logcumsumexp")
def logcumsumexp(dy: Tensor, y: Tensor, x: Tensor, dim: int) -> Tensor:
    """The shares in every sum from its own on."""
    if x.ndim == 0:
        return dy
    where, size = positive_dim(dim, x.ndim), x.shape[dim]
    rows = torch.arange(size, device=x.device)
    share = (x.movedim(where, -1).unsqueeze(-1) - y.movedim(where, -1).unsqueeze(-2)).exp()
    later = share.masked_fill(rows.unsqueeze(0) < rows.unsqueeze(1), 0)
    return (later * dy.movedim(where, -1).unsqueeze(-2)).sum(-1).movedim(-1, where)


@reverses("logaddexp")
def logaddexp(dy: Tensor, y: Tensor, x: Tensor, other: Tensor) -> Any:
    """Each by its share."""
    return {"x": unbroadcast(dy * (x - y).exp(), x), "other": unbroadcast(dy * (other - y).exp(), other)}


# Losses ---------------------------------------------------------------------------------------------------------------


@reverses("mse_loss")
def mse_loss(dy: Tensor, x: Tensor, target: Tensor, reduction: int) -> Any:
    """2 (x - target), shared out where the mean was taken."""
    off = (x - target) * 2
    found = dy * (off / _numbers(off) if reduction == 1 else off)
    return {"x": unbroadcast(found, x), "target": unbroadcast(-found, target)}


def _numbers(x: Tensor) -> Any:
    return numel_along(x, list(range(x.ndim)))


@reverses("nll_loss nll_loss_nd nll_loss2d nll_loss_forward nll_loss2d_forward")
def nll_loss(dy: Any, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: Any) -> Tensor:
    """-w at the target, shared out by the sum of the weights."""
    dy = dy[0] if isinstance(dy, tuple) else dy
    dim = 0 if x.ndim == 1 else 1
    ignored = target == ignore_index
    safe = target.masked_fill(ignored, 0)
    share = torch.ones(target.shape, dtype=x.dtype, device=x.device) if weight is None else weight.index_select(
        0, safe.reshape(-1)
    ).reshape(target.shape)  # fmt: skip
    share = share.masked_fill(ignored, 0)
    back = -dy * (share / share.sum() if reduction == 1 else share)
    return zeros(x).scatter_add(dim, safe.unsqueeze(dim), back.unsqueeze(dim))
