"""Backward circuits written out step by step: four layers, three convolutions of signals, and a whole network.

Each circuit has a custom gradient, registered with `@f.backward`: `backward(f)` runs it, and `laws.backward_rule(f)`
compares it with autograd. The steps are those of three worked examples. Some formulas of the examples hold only for
symmetric matrices, for a signal longer than the one shifted along it, or for kernels of odd length; the circuits here
have no such restriction, and their inputs may have any sizes.

Source: three worked examples of backpropagation, whose numbers are in tests/autodiff/test_seeds.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import Window, circuit, einsum, fold, rearrange, reduce, unfold

from .signals import full_convolution, same_convolution, valid_convolution

# Four layers ----------------------------------------------------------------------------------------------------------


@circuit("m n, n p -> m p")
def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Return the product of two matrices, Z = XY.

    >>> matmul(torch.ones(2, 3), torch.ones(3, 1))
    tensor([[3.],
            [3.]])
    """
    return einsum(x, y, "m n, n p -> m p")


@matmul.backward
@circuit("m n, n p, m p -> m n, n p")
def matmul_gradient(x: Tensor, y: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
    """Return dX = dZ Yᵀ and dY = Xᵀ dZ."""
    return einsum(dz, y, "m p, n p -> m n"), einsum(x, dz, "m n, m p -> n p")


@circuit("i j k, j -> i j k")
def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Return a tensor of three axes plus a bias for each j, Z[i,j,k] = X[i,j,k] + b[j]."""
    return x + rearrange(bias, "j -> j 1")


@add_bias.backward
@circuit("i j k, j, i j k -> i j k, j")
def add_bias_gradient(x: Tensor, bias: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
    """Return dX = dZ and db[j] = Σ dZ[i,j,k] over i and k, the axes over which the bias is broadcast."""
    return dz, reduce(dz, "i j k -> j", "sum")


@circuit("n p, k p, k -> n k")
def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a linear map from p inputs to k outputs, Y = XWᵀ + b."""
    return einsum(x, weight, "n p, k p -> n k") + bias


@linear.backward
@circuit("n p, k p, k, n k -> n p, k p, k")
def linear_gradient(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return dX = dY W, dW = dYᵀX, and db, the sums of the columns of dY."""
    return einsum(dy, weight, "n k, k p -> n p"), einsum(dy, x, "n k, n p -> k p"), reduce(dy, "n k -> k", "sum")


@circuit("... ->")
def total(x: Tensor) -> Tensor:
    """Return the sum of all elements."""
    return x.sum()


@total.backward
@circuit("..., -> ...")
def total_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """Return dX = dy at every position."""
    return dy * torch.ones_like(x)


# Three convolutions of signals ----------------------------------------------------------------------------------------


@circuit("a, b -> a+b-1")
def full(a: Tensor, b: Tensor) -> Tensor:
    """Return the full convolution of two signals."""
    return full_convolution(a, b)


@full.backward
@circuit("a, b, a+b-1 -> a, b")
def full_gradient(a: Tensor, b: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cotangents of both signals: each is the valid convolution of dc with the other signal reversed."""
    return valid_convolution(dc, b.flip(-1)), valid_convolution(dc, a.flip(-1))


@circuit("a, b -> c")
def valid(a: Tensor, b: Tensor) -> Tensor:
    """Return the valid convolution of two signals, of which either may be the longer."""
    return valid_convolution(a, b)


@valid.backward
@circuit("a, b, c -> a, b")
def valid_gradient(a: Tensor, b: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cotangents of both signals.

    The cotangent of the longer signal is the full convolution of dc with the shorter signal reversed. The cotangent of
    the shorter signal is the valid convolution of the longer signal with dc reversed; its result is reversed too.
    """
    if b.shape[-1] > a.shape[-1]:
        db, da = valid_gradient(b, a, dc)
        return da, db
    return full_convolution(dc, b.flip(-1)), valid_convolution(a, dc.flip(-1)).flip(-1)


@circuit("a, b -> c")
def same(a: Tensor, b: Tensor) -> Tensor:
    """Return the middle of the full convolution, as long as the longer signal."""
    return same_convolution(a, b)


@same.backward
@circuit("a, b, c -> a, b")
def same_gradient(a: Tensor, b: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the full convolution at dc, padded with zeros for the numbers that `same` drops.

    If b is the shorter signal and has odd length, the cotangent of a is the same convolution with b reversed.
    """
    shorter = min(a.shape[-1], b.shape[-1])
    before = (shorter - 1) // 2
    return full_gradient(a, b, F.pad(dc, (before, shorter - 1 - before)))


# A whole network ------------------------------------------------------------------------------------------------------


@circuit("i j, p q -> y m")
def correlated(image: Tensor, kernel: Tensor) -> Tensor:
    """Return the inner product of a kernel with every window of an image: y = i - p + 1 rows, m = j - q + 1 columns."""
    return einsum(unfold(image, "i j -> y m p q", *_windows(kernel)), kernel, "y m p q, p q -> y m")


@correlated.backward
@circuit("i j, p q, y m -> i j, p q")
def correlated_gradient(image: Tensor, kernel: Tensor, dseen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cotangents of the image and the kernel.

    That of the image is the fold of dseen times the kernel over all windows; that of the kernel is the correlation of
    the image with dseen.
    """
    dwindows = einsum(dseen, kernel, "y m, p q -> y m p q")
    dimage = fold(dwindows, "y m p q -> i j", *_windows(kernel), i=image.shape[0], j=image.shape[1])
    return dimage, correlated(image, dseen)


@circuit("y k, x k, x v -> y v")
def shared(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return unscaled attention whose softmax is over the y queries: the weights of each of x values add up to 1."""
    return einsum(_shares(query, key), value, "y x, x v -> y v")


@shared.backward
@circuit("y k, x k, x v, y v -> y k, x k, x v")
def shared_gradient(query: Tensor, key: Tensor, value: Tensor, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return dQ = dS K, dK = dSᵀQ and dV = PᵀdO, where dP = dO Vᵀ and dS = P∘(dP - the column sums of P∘dP).

    The worked example has P dO instead of PᵀdO: its P is symmetric.
    """
    share = _shares(query, key)
    dshare = einsum(dout, value, "y v, x v -> y x")
    dscore = share * (dshare - einsum(share, dshare, "y x, y x -> x"))
    dquery, dkey = einsum(dscore, key, "y x, x k -> y k"), einsum(dscore, query, "y x, y k -> x k")
    return dquery, dkey, einsum(share, dout, "y x, y v -> x v")


@circuit("i j, p q, m k, m k, m v, n (y v), n, n ->")
def network(
    image: Tensor,
    kernel: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor,
    bias: Tensor,
    right: Tensor,
) -> Tensor:
    """Return half the squared error of n numbers predicted from an image: ConvAttention, with all weights as arguments.

    The weights of the three projections have shape (inputs, outputs), as in the worked example; they are the transposes
    of the weights of the ConvAttention module.

    Args:
        image: The image.
        kernel: The kernel of the convolution.
        query: The weight of the query projection.
        key: The weight of the key projection.
        value: The weight of the value projection.
        weight: The weight of the last linear map, whose inputs are all numbers of the attention output.
        bias: The bias of the last linear map.
        right: The target numbers.
    """
    seen = correlated(image, kernel)
    mixed = shared(matmul(seen, query), matmul(seen, key), matmul(seen, value))
    error = einsum(weight, rearrange(mixed, "y v -> (y v)"), "n f, f -> n") + bias - right
    return einsum(error, error, "n, n ->") / 2


@network.backward
@circuit("i j, p q, m k, m k, m v, n (y v), n, n, -> i j, p q, m k, m k, m v, n (y v), n, n")
def network_gradient(
    image: Tensor,
    kernel: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor,
    bias: Tensor,
    right: Tensor,
    dloss: Tensor,
) -> tuple[Tensor, ...]:
    """Return the cotangents of all eight inputs: the forward pass, then the reverse pass in five steps.

    The steps are the error, the linear map, attention, its three projections, and the convolution. The worked example
    computes the cotangents of the weights of the projections as seen @ dV and so on, not seenᵀ @ dV: its matrix `seen`,
    the output of the convolution, is symmetric.
    """
    seen = correlated(image, kernel)
    projected = matmul(seen, query), matmul(seen, key), matmul(seen, value)
    flat = rearrange(shared(*projected), "y v -> (y v)")

    derror = dloss * (einsum(weight, flat, "n f, f -> n") + bias - right)
    dweight, dflat = einsum(derror, flat, "n, f -> n f"), einsum(derror, weight, "n, n f -> f")
    dprojected = shared_gradient(*projected, rearrange(dflat, "(y v) -> y v", v=value.shape[1]))
    dseen, dweights = zip(*map(matmul_gradient, (seen,) * 3, (query, key, value), dprojected), strict=True)
    dimage, dkernel = correlated_gradient(image, kernel, dseen[0] + dseen[1] + dseen[2])
    return dimage, dkernel, *dweights, dweight, derror, -derror


def _windows(kernel: Tensor) -> tuple[Window, Window]:
    """Return the windows of a kernel on the rows and the columns of an image."""
    return Window("i", "y", "p", kernel.shape[0]), Window("j", "m", "q", kernel.shape[1])


def _shares(query: Tensor, key: Tensor) -> Tensor:
    """Return the attention weights (y, x): the softmax of the scores over the queries y."""
    return einsum(query, key, "y k, x k -> y x").softmax(0)
