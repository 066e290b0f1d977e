"""Convolution, attention, a linear map and a squared error: a network small enough to differentiate by hand.

An image of one channel is convolved with one kernel; the rows of what comes out attend to each other; all that they
find goes through one linear map, whose answer is compared with the right one. Two things are as the example has them
and unlike Figure 20: scores are not scaled, and softmax runs over the queries, axis 0 of scores written `y x`. Here
they are written `x y`, and softmax runs over the axis that stands last.

Source: a worked example of backpropagation, whose numbers stand in tests/test_conv_attention.py; for attention as such,
V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 20.
"""

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit, einsum, rearrange

from .weights.files import savable


@circuit("... y k, ... x k, ... x v -> ... y v")
def shared_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Each of x values is shared out among the y queries, by how well they fit its key.

    Softmax runs over y: what a value gives adds up to the value, and what a query gets adds up to anything. In plain
    attention it is the other way round.
    """
    score = einsum(query, key, "... y k, ... x k -> ... x y")
    return einsum(score.softmax(-1), value, "... x y, ... x v -> ... y v")


@circuit("... n, ... n -> ...")
def squared_error(answer: Tensor, right: Tensor) -> Tensor:
    """Half the squared distance of an answer from the right one."""
    error = answer - right
    return einsum(error, error, "... n, ... n -> ...") / 2


@savable
class ConvAttention(nn.Module):
    """How far n numbers, read off an image of i by j, are from the right ones; the example's sizes are the defaults.

    `C` is the convolution. Its kernel has p rows and q columns, so y = i - p + 1 rows of m = j - q + 1 come out; `Lq`,
    `Lk` and `Lv` look at each row, and `L` reads the answer off y rows of v. The example multiplies by its weights from
    the right: its W_Q is the transpose of `Lq.weight`. With n = 10, `logits` is a classifier of ten classes. Weights,
    and the bias of `L`, begin as nn.Conv2d's and nn.Linear's do, uniform within ±(inputs of the box)^-½.

    Parameters: pq + m(2k + v) + (yv + 1)n; the example's 21. Raises CircuitError where the kernel is larger than the
    image, and where a number that must be at least 1 is not.

    >>> ConvAttention()(torch.rand(5, 3, 3), torch.rand(5, 1)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        i: int = 3,
        j: int = 3,
        p: int = 2,
        q: int = 2,
        k: int = 2,
        v: int = 2,
        n: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in {"i": i, "j": j, "p": p, "q": q, "k": k, "v": v, "n": n}.items():
            if size < 1:
                raise CircuitError(f"ConvAttention: {name} is {size}; it may be 1 or more")
        if p > i or q > j:
            raise CircuitError(
                f"ConvAttention: a kernel of {p} by {q} does not fit in {i} by {j}; p and q may be i and j"
            )
        self.i, self.j, self.p, self.q, self.k, self.v, self.n = i, j, p, q, k, v, n
        y, m = i - p + 1, j - q + 1
        self.C = nn.Conv2d(1, 1, (p, q), bias=False, device=device, dtype=dtype)
        self.Lq = nn.Linear(m, k, bias=False, device=device, dtype=dtype)
        self.Lk = nn.Linear(m, k, bias=False, device=device, dtype=dtype)
        self.Lv = nn.Linear(m, v, bias=False, device=device, dtype=dtype)
        self.L = nn.Linear(y * v, n, device=device, dtype=dtype)

    @circuit("... i j, ... n -> ...", fixed="i j n")
    def forward(self, image: Tensor, right: Tensor) -> Tensor:
        """The squared error of what is read off the image; raises ShapeError unless the image is i by j."""
        return squared_error(self.logits(image), right)

    @circuit("... i j -> ... n", fixed="i j n")
    def logits(self, image: Tensor) -> Tensor:
        """The n numbers read off the image: the example's one, or the logits of n classes."""
        row = self.convolved(image)
        found = shared_out(self.Lq(row), self.Lk(row), self.Lv(row))
        return self.L(rearrange(found, "... y v -> ... (y v)"))

    @circuit("... i j -> ... y m", fixed="i j")
    def convolved(self, image: Tensor) -> Tensor:
        """What the kernel sees in each of its windows, by row and column: a correlation, not flipped."""
        seen = self.C(image.reshape(-1, 1, self.i, self.j))
        return seen.reshape(*image.shape[:-2], *seen.shape[-2:])
