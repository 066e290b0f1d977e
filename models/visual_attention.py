"""Visual attention: attention between windows of two images, with queries, keys and values from convolutions.

Windows are `kernel` by `kernel` and begin at every `stride`-th row and column, from the first. The image is padded with
zeros so that the last windows fit, and the output is cropped to the target's size: every pixel of both images is in at
least one window, whatever their sizes. The source may be the target itself (self-attention).

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 28.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit, rearrange, repeat

from .attention import attention
from .layers import channels_first, channels_last
from .parts.masks import masked_out
from .parts.sizes import refuse_no_probability, refuse_sizes_below_one
from .parts.unseen import in_windows, may_spoil_gradients
from .weights.files import savable


@savable
class VisualAttention(nn.Module):
    """Multi-head attention from the windows of a target image to the windows of a source image (Figure 28).

    Queries come from the target (i by j), keys and values from the source (u by v). `Cq`, `Ck` and `Cv` are the
    figure's learned convolutions; `Co` is the transposed convolution, which sums the outputs of overlapping windows.
    Heads are stored one after another, as the axis `(h k)`. With kernel 1 and stride 1 this equals MultiHeadAttention
    over the pixels of the images, with the same weights.

    Weights, and biases if any, are initialized as in nn.Conv2d and nn.ConvTranspose2d: uniform within ±(cww)^-½ for
    windows w by w, in all four convolutions.

    Parameters: 4chkww for windows w by w; biases add 3hk + c.

    Args:
        c: Number of channels of both images and of the output (`embed_dim`, `channels`).
        k: Width of a head (`head_dim`).
        heads: Number h of heads (`num_heads`).
        kernel: Rows and columns w of a window (`kernel_size`).
        stride: Distance between the first rows, and the first columns, of neighbouring windows.
        bias: Whether the four convolutions have a bias.
        dropout: Attention dropout: the probability that an attention weight is set to 0 in training.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        CircuitError: if `stride` is above `kernel`, which leaves gaps between windows, a size is below 1, or
            `dropout` is not from 0 to 1.

    >>> attend = VisualAttention(c=33, k=8, heads=4, kernel=3, stride=3)
    >>> attend(torch.rand(1, 33, 16, 16), torch.rand(1, 33, 12, 20)).shape
    torch.Size([1, 33, 16, 16])
    """

    c: int
    k: int
    h: int
    w: int
    s: int
    Co: nn.ConvTranspose2d

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
        refuse_sizes_below_one("VisualAttention", c=c, k=k, heads=heads, kernel=kernel, stride=stride)
        refuse_no_probability("VisualAttention", dropout=dropout)
        if stride > kernel:
            raise CircuitError(
                f"VisualAttention: windows of {kernel} leave gaps at a stride of {stride}; it may be 1 to {kernel}"
            )
        self.c, self.k, self.h, self.w, self.s = c, k, heads, kernel, stride
        self.dropout = dropout
        self.Cq: nn.Conv2d = nn.Conv2d(c, heads * k, kernel, stride, bias=bias, device=device, dtype=dtype)
        self.Ck: nn.Conv2d = nn.Conv2d(c, heads * k, kernel, stride, bias=bias, device=device, dtype=dtype)
        self.Cv: nn.Conv2d = nn.Conv2d(c, heads * k, kernel, stride, bias=bias, device=device, dtype=dtype)
        self.Co = nn.ConvTranspose2d(heads * k, c, kernel, stride, bias=bias, device=device, dtype=dtype)

    @circuit("b c i j, b c u v -> b c i j", fixed="c", optional={"mask": "b i' j' u' v'"})
    def forward(self, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the attention output as an image, `b c i j`; in a bool mask True means *may attend*.

        It has the target's size: each window of the target attends to the windows of the source.

        Args:
            target: The images from which the queries are computed, `b c i j`.
            source: The images from which the keys and values are computed, `b c u v`.
            mask: Bool (True: may attend) or floating (added to the scores), `b i' j' u' v'`, for window (i', j') of the
                target and window (u', v') of the source. In i rows there are (i - kernel) / stride + 1 windows, rounded
                up.

        Raises:
            ShapeError: if axes have different sizes.
            CircuitError: if an image is smaller than a window, or the mask is neither bool nor floating.
        """
        size = target.shape[-2:]
        target, source = self._padded(target, "target"), self._padded(source, "source")
        if mask is not None and may_spoil_gradients(target, source):
            hidden = masked_out(mask)
            target = in_windows(target, ~hidden.flatten(-2).all(-1), self.w, self.s)
            source = in_windows(source, ~hidden.flatten(1, 2).all(1), self.w, self.s)
        query = self.Cq(target)
        mixed = attention(
            rearrange(query, "b (h k) i j -> b h (i j) k", k=self.k),
            rearrange(self.Ck(source), "b (h k) u v -> b h (u v) k", k=self.k),
            rearrange(self.Cv(source), "b (h k) u v -> b h (u v) k", k=self.k),
            None if mask is None else repeat(mask, "b i j u v -> b h (i j) (u v)", h=self.h),
            dropout=self.dropout if self.training else 0.0,
        )
        output = self.Co(rearrange(mixed, "b h (i j) k -> b (h k) i j", i=query.shape[-2]))
        if self.s > 1:
            output = output[..., : size[0], : size[1]]
        return channels_first(output)

    def _padded(self, image: Tensor, name: str) -> Tensor:
        """Return the image with zeros below and to the right, so that windows at every stride cover it."""
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


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "VisualAttention": {"order": "i j u v ... h", "pairs": "y = i j, x = u v", "hide": "b"},
}
"""The options with which `circuits.draw` draws Figure 28 as the paper does."""
