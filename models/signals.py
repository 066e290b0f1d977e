"""One-dimensional convolution and correlation of two signals, in the modes full, same and valid of numpy.

Each output number is the inner product of the signals at one shift. `a` is the signal, with any leading axes; `b` is
shifted along it, reversed in a convolution and not in a correlation. *full* has every shift at which the two overlap,
*valid* those at which one lies within the other, and *same* the middle of *full*, as long as the longer signal. Sizes
and middles are those of numpy's convolve and correlate.

Source: a derivation of backpropagation through conv1d, whose numbers are in tests/models/test_signals.py.
"""

import torch.nn.functional as F
from torch import Tensor

from circuits import CircuitError, Window, circuit, einsum, unfold


@circuit("... a, b -> ... a+b-1")
def full_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product at every shift at which a and b overlap.

    The gradient of `valid_convolution` with respect to the longer signal is a full correlation.

    >>> import torch
    >>> full_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([1., 2., 3., 0.])
    """
    return slid(a, b, b.shape[-1] - 1, b.shape[-1] - 1)


@circuit("... a, b -> ... a+b-1")
def full_convolution(a: Tensor, b: Tensor) -> Tensor:
    """Return the sums of a[i] b[j] over all i + j = n, for every n: the coefficients of a product of polynomials.

    >>> import torch
    >>> full_convolution(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([0., 1., 2., 3.])
    """
    return full_correlation(a, b.flip(-1))


@circuit("... a, b -> ... c")
def valid_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product at every shift at which one signal lies within the other; c is |a - b| + 1.

    >>> import torch
    >>> valid_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([2., 3.])
    """
    longer = b.shape[-1] - a.shape[-1]
    border = longer if longer > 0 else 0
    return slid(a, b, border, border)


@circuit("... a, b -> ... c")
def valid_convolution(a: Tensor, b: Tensor) -> Tensor:
    """Return the valid correlation of a with b reversed.

    The gradient of `full_convolution` with respect to either signal is a valid convolution.

    >>> import torch
    >>> valid_convolution(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([1., 2.])
    """
    return valid_correlation(a, b.flip(-1))


@circuit("... a, b -> ... c")
def same_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the middle of the full correlation, as long as the longer of a and b.

    If the shorter signal has even length, there are two middles: the result is the later one if b is longer than a, and
    the earlier one otherwise.

    >>> import torch
    >>> same_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([1., 2., 3.])
    """
    if b.shape[-1] > a.shape[-1]:
        return _middle(a, b, a.shape[-1] // 2, b.shape[-1])
    return _middle(a, b, (b.shape[-1] - 1) // 2, a.shape[-1])


@circuit("... a, b -> ... c")
def same_convolution(a: Tensor, b: Tensor) -> Tensor:
    """Return the middle of the full convolution, as long as the longer of a and b.

    If b has even length and is not longer than a, the gradient with respect to a is the other middle of a full
    convolution, not a `same_convolution`.

    >>> import torch
    >>> same_convolution(torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1]))
    tensor([0., 1., 2.])
    """
    if b.shape[-1] > a.shape[-1]:
        return _middle(a, b.flip(-1), (a.shape[-1] - 1) // 2, b.shape[-1])
    return _middle(a, b.flip(-1), (b.shape[-1] - 1) // 2, a.shape[-1])


@circuit("... a, b -> ... c")
def slid(a: Tensor, b: Tensor, before: int, after: int) -> Tensor:
    """Return the inner product of b with every window of a, after padding a with zeros: an unfold, then an einsum.

    Args:
        a: The signal.
        b: The signal that is shifted along it.
        before: The number of zeros before a.
        after: The number of zeros after a.

    Raises:
        CircuitError: If a or b is empty.
    """
    _refuse_empty(a, b)
    window = Window("a", "c", "b", b.shape[-1], before=before, after=after)
    return einsum(unfold(a, "... a -> ... c b", window), b, "... c b, b -> ... c")


@slid.kernel
def _(a: Tensor, b: Tensor, before: int, after: int) -> Tensor:
    """Call F.conv1d with one channel."""
    _refuse_empty(a, b)
    padded = F.pad(a, (before, after))
    return F.conv1d(padded.reshape(-1, 1, padded.shape[-1]), b[None, None]).reshape(*a.shape[:-1], -1)


def _middle(a: Tensor, b: Tensor, start: int, length: int) -> Tensor:
    """Return `length` numbers of the full correlation of a and b, from position `start` on."""
    whole = a.shape[-1] + b.shape[-1] - 1
    return slid(a, b, b.shape[-1] - 1 - start, b.shape[-1] - 1 - (whole - start - length))


def _refuse_empty(a: Tensor, b: Tensor) -> None:
    """Raise CircuitError if either signal is empty."""
    if a.shape[-1] == 0 or b.shape[-1] == 0:
        raise CircuitError(f"signals must not be empty, got lengths {a.shape[-1]} and {b.shape[-1]}")
