"""Visual attention: attention between two images, window by window, where convolutions make queries, keys and values.

Windows are `kernel` by `kernel` and begin every `stride` rows and columns, from the first. Where the last one runs over
the edge it sees zeros there, and what it would write there is dropped: every place of an image is in some window, asks
and answers, and gets an answer back, whatever the size. One image is attended to by another, or by itself.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 28.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit, rearrange, repeat

from .attention import attention
from .layers import channels_first, channels_last
from .weights.files import savable


@savable
class VisualAttention(nn.Module):
    """What each window of an image finds in the windows of another, in h heads at once (Figure 28).

    The target, i by j, asks; the source, u by v, answers. `Cq`, `Ck` and `Cv` are the figure's learned convolutions;
    `Co` is the transposed one, which adds up what overlapping windows write. Heads are stored one after another,
    `(h k)`. With kernel 1 and stride 1 this is MultiHeadAttention over the places of the images, with the same weights.
    In training `dropout` is the probability that a query overlooks a key. Weights, and biases if any, begin as those of
    nn.Conv2d and nn.ConvTranspose2d do: uniform within ±(ckk)^-½ for windows k by k, in all four boxes.

    Parameters: 4chkww for windows w by w; biases are 3hk + c more. Raises CircuitError where windows would leave gaps
    between them (a stride above the kernel), and where a number that must be at least 1 is not.

    >>> attend = VisualAttention(c=33, k=8, heads=4, kernel=3, stride=3)
    >>> attend(torch.rand(1, 33, 16, 16), torch.rand(1, 33, 12, 20)).shape
    torch.Size([1, 33, 16, 16])
    """

    def __init__(
        self,
        c: int,
        k: int,
        heads: int = 1,
        kernel: int = 1,
        stride: int = 1,
        *,
        bias: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"c": c, "k": k, "heads": heads, "kernel": kernel, "stride": stride}
        for name, size in sizes.items():
            if size < 1:
                raise CircuitError(f"VisualAttention: {name} is {size}; it may be 1 or more")
        if stride > kernel:
            raise CircuitError(
                f"VisualAttention: windows of {kernel} leave gaps at a stride of {stride}; it may be 1 to {kernel}"
            )
        self.c, self.k, self.h, self.w, self.s = c, k, heads, kernel, stride
        self.dropout = dropout
        self.Cq = nn.Conv2d(c, heads * k, kernel, stride, bias=bias, device=device, dtype=dtype)
        self.Ck = nn.Conv2d(c, heads * k, kernel, stride, bias=bias, device=device, dtype=dtype)
        self.Cv = nn.Conv2d(c, heads * k, kernel, stride, bias=bias, device=device, dtype=dtype)
        self.Co = nn.ConvTranspose2d(heads * k, c, kernel, stride, bias=bias, device=device, dtype=dtype)

    @circuit("b c i j, b c u v -> b c i j", fixed="c", optional={"mask": "b i' j' u' v'"})
    def forward(self, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """The target's image of what its windows find in the source.

        `mask` says which window (i', j') of the target may attend to which window (u', v') of the source; the windows
        of i rows are (i - kernel) / stride + 1, rounded up. Raises ShapeError where axes clash, and CircuitError for an
        image smaller than a window and for a mask of integers.
        """
        query = self.Cq(self._whole(target, "target"))
        source = self._whole(source, "source")
        mixed = attention(
            rearrange(query, "b (h k) i j -> b h (i j) k", k=self.k),
            rearrange(self.Ck(source), "b (h k) u v -> b h (u v) k", k=self.k),
            rearrange(self.Cv(source), "b (h k) u v -> b h (u v) k", k=self.k),
            None if mask is None else repeat(mask, "b i j u v -> b h (i j) (u v)", h=self.h),
            dropout=self.dropout if self.training else 0.0,
        )
        answer = self.Co(rearrange(mixed, "b h (i j) k -> b (h k) i j", i=query.shape[-2]))
        if self.s > 1:
            answer = answer[..., : target.shape[-2], : target.shape[-1]]
        return channels_first(answer)

    def _whole(self, image: Tensor, name: str) -> Tensor:
        """The image with zeros below and to the right, until it is a whole number of strides longer than a window."""
        rows, columns = image.shape[-2:]
        if rows < self.w or columns < self.w:
            raise CircuitError(
                f"VisualAttention: {name} is {rows} by {columns}, and windows are {self.w} by {self.w};"
                f" an image may be {self.w} by {self.w} or larger"
            )
        if self.s == 1:
            return channels_last(image)
        below, right = (self.w + self.s * ((size - self.w + self.s - 1) // self.s) - size for size in (rows, columns))
        return channels_last(F.pad(image, (0, right, 0, below)))
