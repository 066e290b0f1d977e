"""Convolution and correlation of two signals, full, same and valid: an inner product at every shift.

`a` is the signal, with any axes before; `b` slides along it. A convolution reads `b` backwards, a correlation does not.
*Full* has every shift at which they meet, *valid* those at which one lies within the other, and *same* the middle of
*full*, as long as the longer of the two. Sizes and middles are those of numpy's convolve and correlate.

Source: a derivation of backpropagation through conv1d, whose numbers stand in tests/test_signals.py.
"""

import torch.nn.functional as F
from torch import Tensor

from circuits import CircuitError, Window, circuit, einsum, unfold


@circuit("... a, b -> ... a+b-1")
def full_correlation(a: Tensor, b: Tensor) -> Tensor:
    """The inner product at every shift at which a and b meet; the gradient of `valid_convolution` is one.

    >>> import torch
    >>> full_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([1., 2., 3., 0.])
    """
    return slid(a, b, b.shape[-1] - 1, b.shape[-1] - 1)


@circuit("... a, b -> ... a+b-1")
def full_convolution(a: Tensor, b: Tensor) -> Tensor:
    """Every product of a number of a and one of b, added up where their places add up: so polynomials multiply.

    >>> import torch
    >>> full_convolution(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([0., 1., 2., 3.])
    """
    return full_correlation(a, b.flip(-1))


@circuit("... a, b -> ... c")
def valid_correlation(a: Tensor, b: Tensor) -> Tensor:
    """The inner product at every shift at which one lies within the other; c is their difference in length, plus 1.

    >>> import torch
    >>> valid_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([2., 3.])
    """
    longer = b.shape[-1] - a.shape[-1]
    border = longer if longer > 0 else 0
    return slid(a, b, border, border)


@circuit("... a, b -> ... c")
def valid_convolution(a: Tensor, b: Tensor) -> Tensor:
    """The same, b backwards; the gradient of `full_convolution` is one.

    >>> import torch
    >>> valid_convolution(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([1., 2.])
    """
    return valid_correlation(a, b.flip(-1))


@circuit("... a, b -> ... c")
def same_correlation(a: Tensor, b: Tensor) -> Tensor:
    """The middle of the full correlation, as long as the longer of a and b.

    Where there is no middle it begins at the later place: at the earlier one, seen from b, where b is longer.

    >>> import torch
    >>> same_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([1., 2., 3.])
    """
    if b.shape[-1] > a.shape[-1]:
        return _middle(a, b, a.shape[-1] // 2, b.shape[-1])
    return _middle(a, b, (b.shape[-1] - 1) // 2, a.shape[-1])


@circuit("... a, b -> ... c")
def same_convolution(a: Tensor, b: Tensor) -> Tensor:
    """The middle of the full convolution, as long as the longer of a and b.

    With a b of even length, its gradient by a is the other middle of a full one: not again `same_convolution`.

    >>> import torch
    >>> same_convolution(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([0., 1., 2.])
    """
    if b.shape[-1] > a.shape[-1]:
        return _middle(a, b.flip(-1), (a.shape[-1] - 1) // 2, b.shape[-1])
    return _middle(a, b.flip(-1), (b.shape[-1] - 1) // 2, a.shape[-1])


@circuit("... a, b -> ... c")
def slid(a: Tensor, b: Tensor, before: int, after: int) -> Tensor:
    """The inner product of b with every stretch of a, when zeros stand before and after a: a window, then a linear map.

    Raises CircuitError where a or b has no numbers.
    """
    _some(a, b)
    window = Window("a", "c", "b", b.shape[-1], before=before, after=after)
    return einsum(unfold(a, "... a -> ... c b", window), b, "... c b, b -> ... c")


@slid.kernel
def _(a: Tensor, b: Tensor, before: int, after: int) -> Tensor:
    """torch's convolution of one channel."""
    _some(a, b)
    padded = F.pad(a, (before, after))
    return F.conv1d(padded.reshape(-1, 1, padded.shape[-1]), b[None, None]).reshape(*a.shape[:-1], -1)


def _middle(a: Tensor, b: Tensor, start: int, length: int) -> Tensor:
    """A stretch of the full correlation of a and b."""
    whole = a.shape[-1] + b.shape[-1] - 1
    return slid(a, b, b.shape[-1] - 1 - start, b.shape[-1] - 1 - (whole - start - length))


def _some(a: Tensor, b: Tensor) -> None:
    if a.shape[-1] == 0 or b.shape[-1] == 0:
        raise CircuitError(f"signals have at least one number each, not {a.shape[-1]} and {b.shape[-1]}")
