"""The two layers of a transformer: attention and a feed-forward box, each on a residual with a norm.

A norm stands after each sum, as Vaswani et al. drew it, or before each box (`norm_first`), as most draw it since. Masks
are those of `models.attention`: True means *may attend*, where torch's layers mean the opposite by it.

Source: Vaswani et al. 2017, Attention Is All You Need, Figure 1 and section 5.4 for the places of dropout; Xiong et al.
2020, On Layer Normalization in the Transformer Architecture, for norms before; V. Abbott, Neural Circuit Diagrams, TMLR
2024, section 3.2.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import circuit
from models.attention import MultiHeadAttention
from models.layers import FeedForward


class EncoderLayer(nn.Module):
    """Each of x vectors asks all of them, then goes through the feed-forward box by itself.

    In training `dropout` is the probability that a query overlooks a key, that a number of either box's answer is left
    out, and that one of the f units is. Weights begin as those of MultiHeadAttention and FeedForward; norms as the
    identity.

    Parameters: 4mhk + 2mf of the weights, (h + 2h)k + 2m + f of the biases, 4m of the norms; with groups=g those of
    MultiHeadAttention. Without bias the norms have none either: 4mhk + 2mf + 2m.

    >>> EncoderLayer(m=128, k=16, h=8, f=512)(torch.rand(5, 20, 128)).shape
    torch.Size([5, 20, 128])
    """

    def __init__(
        self,
        m: int,
        k: int,
        h: int,
        f: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        norm_first: bool = False,
        groups: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.m, self.h, self.norm_first, self.dropout = m, h, norm_first, dropout
        self.attention = MultiHeadAttention(
            m, k, h, groups=groups, bias=bias, dropout=dropout, device=device, dtype=dtype
        )
        self.attention_norm = nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype)
        self.feed_forward = FeedForward(m, f, activation, bias=bias, dropout=dropout, device=device, dtype=dtype)
        self.feed_forward_norm = nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype)

    @circuit("... x m -> ... x m", fixed="m h", optional={"mask": "... x x", "head_mask": "... h x x"})
    def forward(
        self, source: Tensor, mask: Tensor | None = None, *, head_mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The vectors, each with what it found in the others; masks as in MultiHeadAttention."""
        if self.norm_first:
            normed = self.attention_norm(source)
            source = source + self._drop(self.attention(normed, normed, mask, head_mask=head_mask, causal=causal))
            return source + self._drop(self.feed_forward(self.feed_forward_norm(source)))
        found = self.attention(source, source, mask, head_mask=head_mask, causal=causal)
        source = self.attention_norm(source + self._drop(found))
        return self.feed_forward_norm(source + self._drop(self.feed_forward(source)))

    def _drop(self, found: Tensor) -> Tensor:
        """In training without some of its numbers."""
        return F.dropout(found, self.dropout, self.training) if self.dropout else found
