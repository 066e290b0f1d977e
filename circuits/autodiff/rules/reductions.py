"""Reverse rules of reductions: sums, products, variances, norms, and selections by order (maximum, median, sort).

The cotangent of a sum is copied to all its terms; the cotangent of a selection goes to the selected element, or is
divided among equal elements where torch divides it. `dx` is the cotangent of the input `x`; `dy` is that of the output
`y`, broadcast over the reduced axes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

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


@reverses("sum")
def sum(dy: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """dx = dy, copied along the reduced axes."""
    return restore_dims(dy, x, dim, keepdim).expand(x.shape)


@reverses("nansum")
def nansum(dy: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """dx = dy, copied along the reduced axes, 0 where x is NaN."""
    return sum(dy, x, dim, keepdim).masked_fill(x.isnan(), 0)


@reverses("mean")
def mean(dy: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """dx = dy / n, copied along the reduced axes; n is the number of elements of each mean."""
    return (restore_dims(dy, x, dim, keepdim) / numel_along(x, positive_dims(dim, x.ndim))).expand(x.shape)


@reverses("sum_to_size")
def sum_to_size(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy, copied along the axes that were summed."""
    return dy.expand(x.shape)


@reverses("cumsum")
def cumsum(dy: Tensor, dim: int) -> Tensor:
    """dx at index i is the sum of dy over index i and those after it."""
    return dy.flip(dim).cumsum(dim).flip(dim)


@reverses("prod")
def prod(dy: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """dx = dy times the product of the other elements.

    That product is the product of all elements before times that of all elements after, not y / x, so that zeros are
    correct.
    """
    if dim is None:
        flat = x.reshape(-1)
        return (_products_of_others(flat, 0) * dy).reshape(x.shape)
    where = positive_dim(dim, x.ndim)
    return _products_of_others(x, where) * restore_dims(dy, x, dim, keepdim)


def _products_of_others(x: Tensor, dim: int) -> Tensor:
    """Return, for each element, the product of all other elements along an axis."""
    if x.ndim == 0 or statically_known_true(x.shape[dim] == 0):
        return torch.ones(x.shape, dtype=x.dtype, device=x.device)
    size = x.shape[dim]
    one = torch.ones([1 if d == dim else n for d, n in enumerate(x.shape)], dtype=x.dtype, device=x.device)
    before = torch.cat([one, x.narrow(dim, 0, size - 1).cumprod(dim)], dim)
    after = torch.cat([x.narrow(dim, 1, size - 1).flip(dim).cumprod(dim).flip(dim), one], dim)
    return before * after


@reverses("cumprod")
def cumprod(dy: Tensor, x: Tensor, dim: int) -> Tensor:
    """dx at index i is the sum of dy times the product without element i, over index i and those after it."""
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
    """dx = dy on the main diagonal, 0 elsewhere."""
    rows, columns = torch.arange(x.shape[0], device=x.device), torch.arange(x.shape[1], device=x.device)
    return dy.expand(x.shape).masked_fill(rows.unsqueeze(1) != columns, 0)


# Variance and norms ---------------------------------------------------------------------------------------------------


def _centred(x: Tensor, dim: Any, correction: Any) -> tuple[Tensor, Any]:
    """Return `x` minus its mean over `dim`, and the divisor n - correction of the variance."""
    dims = positive_dims(dim, x.ndim)
    correction = 1 if correction is None else correction
    return x - x.mean(dims, keepdim=True), numel_along(x, dims) - correction


@reverses("var")
def var(
    dy: Tensor, x: Tensor, dim: Any = None, correction: Any = 1, unbiased: Any = None, keepdim: bool = False
) -> Tensor:
    """dx = 2 dy (x - mean) / (n - correction), NaN for a single element and correction 1, as torch's.

    A tensor is divided, not the number 2: n - correction may be 0. Over all axes and with n - correction of 0 or less,
    dx is dy times infinity, or NaN where x is the mean, as torch's.
    """
    centred, divisor = _centred(x, dim, correction if unbiased is None else int(unbiased))
    if (dim is None or x.ndim == 0) and statically_known_true(divisor <= 0):
        infinite = torch.full(x.shape, torch.inf, dtype=x.dtype, device=x.device)
        return restore_dims(dy, x, dim, keepdim) * infinite.masked_fill(centred == 0, torch.nan)
    return restore_dims(dy, x, dim, keepdim) * 2 / divisor * centred


@reverses("std")
def std(
    dy: Tensor, y: Tensor, x: Tensor, dim: Any = None, correction: Any = 1, unbiased: Any = None, keepdim: bool = False
) -> Tensor:
    """dx = dy (x - mean) / ((n - correction) y), 0 where y = 0."""
    centred, divisor = _centred(x, dim, correction if unbiased is None else int(unbiased))
    at_zero = y == 0
    slope = (dy / y.masked_fill(at_zero, 1)).masked_fill(at_zero, 0)
    return restore_dims(slope, x, dim, keepdim) * centred / divisor


@reverses("var_mean")
def var_mean(
    dy: Any, x: Tensor, dim: Any = None, correction: Any = 1, unbiased: Any = None, keepdim: bool = False
) -> Tensor:
    """dx is the sum of the cotangents of the variance and of the mean."""
    return var(dy[0], x, dim, correction, unbiased, keepdim) + mean(dy[1], x, dim, keepdim)


@reverses("std_mean")
def std_mean(
    dy: Any, y: Any, x: Tensor, dim: Any = None, correction: Any = 1, unbiased: Any = None, keepdim: bool = False
) -> Tensor:
    """dx is the sum of the cotangents of the standard deviation and of the mean."""
    return std(dy[0], y[0], x, dim, correction, unbiased, keepdim) + mean(dy[1], x, dim, keepdim)


@reverses("linalg_vector_norm norm")
def vector_norm(
    dy: Tensor, y: Tensor, x: Tensor, ord: Any = 2, p: Any = None, dim: Any = None, keepdim: bool = False
) -> Tensor:
    """y = (Σ |x|^p)^(1/p): dx = dy sign(x) |x|^(p-1) / y^(p-1), 0 where y = 0 and, for p < 1, where x = 0.

    For p = ±∞, as for `amax`.
    """
    power = 2 if p is None and ord is None else float(ord if p is None else p)
    wide, dwide = restore_dims(y, x, dim, keepdim), restore_dims(dy, x, dim, keepdim)
    if power == 0:
        return zeros(x)
    if power == 1:
        return dwide * x.sign()
    if power in (float("inf"), float("-inf")):
        extreme = (x.abs() == wide).to(dy.dtype)
        return dwide * x.sign() * (extreme / extreme.sum(positive_dims(dim, x.ndim), keepdim=True))
    at_zero = wide == 0
    scaled = dwide / wide.masked_fill(at_zero, 1).pow(power - 1)
    size = x.abs().masked_fill(x == 0, 1) if power < 1 else x.abs()
    power_slope = x if power == 2 else x.sign() * size.pow(power - 1)
    return (scaled * power_slope).masked_fill(at_zero, 0)


@reverses("_euclidean_dist")
def euclidean_dist(dy: Tensor, y: Tensor, x1: Tensor, x2: Tensor) -> Any:
    """y = |x1 - x2| for each pair of rows: dx1 = Σ dy (x1 - x2) / y over the rows of x2; 0 where y = 0."""
    at_zero = y == 0
    ratio = (dy / y.masked_fill(at_zero, 1)).masked_fill(at_zero, 0)
    dx1 = x1 * ratio.sum(-1, keepdim=True) - ratio.matmul(x2)
    dx2 = x2 * ratio.mT.sum(-1, keepdim=True) - ratio.mT.matmul(x1)
    return {"x1": dx1, "x2": dx2}


# Selections -----------------------------------------------------------------------------------------------------------


@reverses("amax amin")
def amax_amin(dy: Tensor, y: Tensor, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """dx = dy at the largest or smallest element, divided equally among equal elements; 0 elsewhere."""
    selected = x == restore_dims(y, x, dim, keepdim)
    return selected * (restore_dims(dy, x, dim, keepdim) / selected.sum(positive_dims(dim, x.ndim), keepdim=True))


@reverses("max min")
def max_min(dy: Any, y: Any, x: Tensor, dim: Any = None, keepdim: bool = False, other: Any = None) -> Any:
    """dx = dy at the selected index of an axis, 0 elsewhere.

    For the maximum of a whole tensor, and of two tensors elementwise, dy is divided equally among equal elements.
    """
    if other is not None:
        share = dy * 0.5
        dx, dother = [torch.where(a == b, share, dy.masked_fill(a != y, 0)) for a, b in ((x, other), (other, x))]
        return {"x": unbroadcast(dx, x), "other": unbroadcast(dother, other)}
    if dim is None:
        selected = x == y
        return selected * (dy / selected.sum())
    return _scattered(dy[0], x, dim, y[1], keepdim)


@reverses("median nanmedian mode")
def median_mode(dy: Any, y: Any, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """dx = dy at the selected index, 0 elsewhere; for a whole tensor, dy is divided among equal elements."""
    if dim is None:
        equal = x == y
        return equal * (dy / equal.sum())
    return _scattered(dy[0], x, dim, y[1], keepdim)


@reverses("sort topk kthvalue cummax cummin")
def from_index(dy: Any, y: Any, x: Tensor, dim: Any = -1, keepdim: Any = True) -> Tensor:
    """dx: each element of dy is added at its index in x, which is the operation's second output."""
    return _scattered(dy[0], x, dim, y[1], keepdim)


def _scattered(dy: Tensor, x: Tensor, dim: int, index: Tensor, keepdim: bool) -> Tensor:
    """Return zeros like `x` with `dy` added at the indices `index` along `dim`."""
    if x.ndim == 0:
        return dy
    return zeros(x).scatter_add(dim, restore_dims(index, x, dim, keepdim), restore_dims(dy, x, dim, keepdim))
