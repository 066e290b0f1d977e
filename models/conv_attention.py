"""Convolution, attention, a linear map and a squared error: a network small enough to differentiate on paper.

An image of one channel is convolved with one kernel; the rows of the result attend to each other; a linear map of their
joined outputs is the prediction, which is compared with a target. As in the example, and unlike in Figure 20, scores
are not scaled, and the softmax is over the queries: axis 0 of the example's scores `y x`, the last axis of the scores
`x y` here.

Source: a worked example of backpropagation, whose numbers are in tests/models/test_conv_attention.py; for attention in
general, V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 20.
"""

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit, einsum, rearrange

from .parts.sizes import refuse_sizes_below_one
from .weights.files import savable


@circuit("... y k, ... x k, ... x v -> ... y v")
def shared_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention with softmax over the queries: each of x values is distributed among the y queries.

    The weights of one value sum to 1 over the queries; those of one query need not. In standard attention the weights
    of one query sum to 1 over the values.
    """
    score = einsum(query, key, "... y k, ... x k -> ... x y")
    return einsum(score.softmax(-1), value, "... x y, ... x v -> ... y v")


@circuit("... n, ... n -> ...")
def squared_error(answer: Tensor, right: Tensor) -> Tensor:
    """Return half the squared distance between a prediction (`answer`) and its target (`right`)."""
    error = answer - right
    return einsum(error, error, "... n, ... n -> ...") / 2


@savable
class ConvAttention(nn.Module):
    """Half the squared error of n numbers predicted from an image of i by j; the default sizes are the example's.

    `forward` returns the loss, with which the example ends; `predict` returns the n numbers. `C` is the convolution,
    whose output has y = i - p + 1 rows and m = j - q + 1 columns; `Lq`, `Lk` and `Lv` map each row to a query, a key
    and a value, and `L` maps the y outputs of width v to the n numbers. The example multiplies by its weights from the
    right: its W_Q is the transpose of `Lq.weight`. With n = 10, `predict` returns the logits of ten classes. Weights,
    and the bias of `L`, are initialized as in nn.Conv2d and nn.Linear: uniform within ±(number of inputs)^-½.

    Parameters: pq + m(2k + v) + (yv + 1)n; 21 with the default sizes.

    Args:
        i: Rows of the image (`height`).
        j: Columns of the image (`width`).
        p: Rows of the convolution's kernel (`kernel_size[0]`).
        q: Columns of the convolution's kernel (`kernel_size[1]`).
        k: Width of queries and keys (`kdim`).
        v: Width of values (`vdim`).
        n: Number of predicted numbers (`out_features`).
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        CircuitError: if the kernel is larger than the image, or a size is below 1.

    >>> ConvAttention()(torch.rand(5, 3, 3), torch.rand(5, 1)).shape
    torch.Size([5])
    """

    i: int
    j: int
    p: int
    q: int
    k: int
    v: int
    n: int

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
        refuse_sizes_below_one("ConvAttention", i=i, j=j, p=p, q=q, k=k, v=v, n=n)
        if p > i or q > j:
            raise CircuitError(
                f"ConvAttention: a kernel of {p} by {q} does not fit in {i} by {j}; p may be up to {i}, and q up to {j}"
            )
        self.i, self.j, self.p, self.q, self.k, self.v, self.n = i, j, p, q, k, v, n
        y, m = i - p + 1, j - q + 1
        self.C = nn.Conv2d(1, 1, (p, q), bias=False, device=device, dtype=dtype)
        self.Lq: nn.Linear = nn.Linear(m, k, bias=False, device=device, dtype=dtype)
        self.Lk: nn.Linear = nn.Linear(m, k, bias=False, device=device, dtype=dtype)
        self.Lv: nn.Linear = nn.Linear(m, v, bias=False, device=device, dtype=dtype)
        self.L = nn.Linear(y * v, n, device=device, dtype=dtype)

    @circuit("... i j, ... n -> ...", fixed="i j n")
    def forward(self, image: Tensor, right: Tensor) -> Tensor:
        """Return half the squared error of the prediction, `...`: one number for each image.

        Args:
            image: The images, `... i j`.
            right: The targets of the prediction, `... n`.

        Raises:
            ShapeError: if the images are not i by j, or the number of targets is not n.
        """
        return squared_error(self.predict(image), right)

    @circuit("... i j -> ... n", fixed="i j n")
    def predict(self, image: Tensor) -> Tensor:
        """Return the n predicted numbers, `... n`: the example's single number, or the logits of n classes."""
        row = self.convolved(image)
        mixed = shared_out(self.Lq(row), self.Lk(row), self.Lv(row))
        return self.L(rearrange(mixed, "... y v -> ... (y v)"))

    @circuit("... i j -> ... y m", fixed="i j")
    def convolved(self, image: Tensor) -> Tensor:
        """Return the convolution of the image, `... y m`: a cross-correlation, since the kernel is not flipped."""
        output = self.C(image.reshape(-1, 1, self.i, self.j))
        return output.reshape(*image.shape[:-2], *output.shape[-2:])
