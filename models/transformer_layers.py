"""The two layers of a transformer: boxes of attention and a feed-forward box, each on a residual with a norm.

A norm stands after each sum, as Vaswani et al. draw it, or before each box (`norm_first`), as most draw it since. Masks
are those of `models.attention`: in a bool mask True means *may attend*, by which torch's layers mean the opposite.

Source: Vaswani et al. 2017, Attention Is All You Need, Figure 1, and section 5.4 for the places of dropout; Xiong et
al. 2020, On Layer Normalization in the Transformer Architecture, for norms before; V. Abbott, Neural Circuit Diagrams,
TMLR 2024, section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit

from .attention import MultiHeadAttention
from .layers import FeedForward
from .parts.cache import KeyValueCache
from .parts.positions import RotaryPositions
from .weights.files import savable
from .weights.from_torch import layer_settings


@savable
class EncoderLayer(nn.Module):
    """Each of x vectors asks all of them, then goes by itself through the feed-forward box.

    `groups`, `rotary` and `window` are those of MultiHeadAttention. In training `dropout` is the probability that a
    query overlooks a key, that one of the f units is left out, and that a number of either box's answer is. Weights
    begin as in MultiHeadAttention and FeedForward, norms as the identity.

    Parameters: 4mhk + 2mf, with bias 3hk + f + 6m more, without it 2m more. With groups=g, 4mhk is 2mhk + 2mgk, and 3hk
    is (h + 2g)k.

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
        rotary: RotaryPositions | None = None,
        window: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.m, self.h, self.norm_first, self.dropout = m, h, norm_first, dropout
        self.attention = MultiHeadAttention(
            m,
            k,
            h,
            groups=groups,
            rotary=rotary,
            window=window,
            bias=bias,
            dropout=dropout,
            device=device,
            dtype=dtype,
        )
        self.attention_norm = nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype)
        self.feed_forward = FeedForward(m, f, activation, bias=bias, dropout=dropout, device=device, dtype=dtype)
        self.feed_forward_norm = nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype)

    @circuit(
        "... x m -> ... x m",
        fixed="m h",
        optional={"mask": "... x x'", "head_mask": "... h x x'", "source": "... x'' m"},
    )
    def forward(
        self,
        target: Tensor,
        mask: Tensor | None = None,
        *,
        source: Tensor | None = None,
        head_mask: Tensor | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The vectors, each with what it finds in the others; masks and cache as in MultiHeadAttention.

        With a `source` they ask that in their own place: where only some vectors of a layer are read, those alone need
        be its target.
        """
        if source is not None:
            source = source.expand(*target.shape[:-2], -1, -1)  # one for a whole batch is as good as one for each
        if self.norm_first:
            normed = self.attention_norm(target)
            asked = normed if source is None else self.attention_norm(source)
            found = self.attention(normed, asked, mask, head_mask=head_mask, causal=causal, cache=cache)
            target = target + _some(found, self)
            return target + _some(self.feed_forward(self.feed_forward_norm(target)), self)
        asked = target if source is None else source
        found = self.attention(target, asked, mask, head_mask=head_mask, causal=causal, cache=cache)
        target = self.attention_norm(target + _some(found, self))
        return self.feed_forward_norm(target + _some(self.feed_forward(target), self))

    @classmethod
    def from_torch(cls, theirs: nn.TransformerEncoderLayer) -> Self:
        """A copy of torch's layer, which gives equal outputs.

        Ours always takes `... x m`, whatever `batch_first` says of theirs, and a bool mask with the opposite meaning.
        Raises CircuitError for a layer whose parts were changed so that ours has no equal.
        """
        ours = cls(**layer_settings(theirs))
        ours.attention = MultiHeadAttention.from_torch(theirs.self_attn)
        ours.attention_norm.load_state_dict(theirs.norm1.state_dict())
        ours.feed_forward.L1.load_state_dict(theirs.linear1.state_dict())
        ours.feed_forward.L2.load_state_dict(theirs.linear2.state_dict())
        ours.feed_forward_norm.load_state_dict(theirs.norm2.state_dict())
        return ours.train(theirs.training)


@dataclass
class DecoderCache:
    """What a DecoderLayer keeps from step to step: its own keys and values, and those of the memory, made once."""

    own: KeyValueCache
    memory: Tensor
    remembered: tuple[Tensor, Tensor]


@savable
class DecoderLayer(nn.Module):
    """Each of y vectors asks itself and those before it, then the memory's x, then goes through the feed-forward box.

    `groups` is that of both attentions, `rotary` and `window` those of the first. In training `dropout` does what it
    does in EncoderLayer, and weights begin as they do there.

    Parameters: 8mhk + 2mf, with bias 6hk + f + 9m more, without it 3m more. With groups=g, 8mhk is 4mhk + 4mgk, and 6hk
    is 2(h + 2g)k.

    >>> layer = DecoderLayer(m=128, k=16, h=8, f=512)
    >>> layer(torch.rand(5, 20, 128), torch.rand(5, 22, 128)).shape
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
        rotary: RotaryPositions | None = None,
        window: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.m, self.norm_first, self.dropout = m, norm_first, dropout

        def attention(rotary: RotaryPositions | None = None, window: int | None = None) -> MultiHeadAttention:
            return MultiHeadAttention(
                m,
                k,
                h,
                groups=groups,
                rotary=rotary,
                window=window,
                bias=bias,
                dropout=dropout,
                device=device,
                dtype=dtype,
            )

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype)

        self.attention, self.attention_norm = attention(rotary, window), norm()
        self.memory_attention, self.memory_attention_norm = attention(), norm()
        self.feed_forward = FeedForward(m, f, activation, bias=bias, dropout=dropout, device=device, dtype=dtype)
        self.feed_forward_norm = norm()

    @circuit("... y m, ... x m -> ... y m", fixed="m", optional={"mask": "... y y'", "memory_mask": "... y x"})
    def forward(
        self,
        target: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        causal: bool = True,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        """The target's vectors, each with what it finds before it and in the memory; masks as in MultiHeadAttention.

        Without `causal` they see those after them too, as in torch's layer without a mask. With a cache the target goes
        on where it ends, and a mask's y' is all that it then has; without, y' is y. Raises CircuitError for a cache
        that was made of another memory.
        """
        own = None if cache is None else cache.own
        if self.norm_first:
            normed = self.attention_norm(target)
            target = target + _some(self.attention(normed, normed, mask, causal=causal, cache=own), self)
            found = self._ask_memory(self.memory_attention_norm(target), memory, memory_mask, cache)
            target = target + _some(found, self)
            return target + _some(self.feed_forward(self.feed_forward_norm(target)), self)
        found = self.attention(target, target, mask, causal=causal, cache=own)
        target = self.attention_norm(target + _some(found, self))
        found = self._ask_memory(target, memory, memory_mask, cache)
        target = self.memory_attention_norm(target + _some(found, self))
        return self.feed_forward_norm(target + _some(self.feed_forward(target), self))

    def _ask_memory(self, target: Tensor, memory: Tensor, mask: Tensor | None, cache: DecoderCache | None) -> Tensor:
        """What each target vector finds in the memory, or in the keys and values that were made of it."""
        if cache is None:
            return self.memory_attention(target, memory, mask)
        if cache.memory is not memory:
            raise CircuitError(
                "DecoderLayer: the cache was made of another memory; make one of this, `cache(memory, y)`"
            )
        return self.memory_attention.recall(target, *cache.remembered, mask)

    def cache(self, memory: Tensor, y: int) -> DecoderCache:
        """An empty cache for up to y target vectors that ask this memory."""
        own = self.attention.cache(y, memory.shape[:-2])
        return DecoderCache(own, memory, self.memory_attention.remember(memory))

    @classmethod
    def from_torch(cls, theirs: nn.TransformerDecoderLayer) -> Self:
        """A copy of torch's layer, which gives equal outputs where torch's is given a causal `tgt_mask`.

        Shapes, masks and errors are as in EncoderLayer.from_torch.
        """
        ours = cls(**layer_settings(theirs))
        ours.attention = MultiHeadAttention.from_torch(theirs.self_attn)
        ours.memory_attention = MultiHeadAttention.from_torch(theirs.multihead_attn)
        ours.attention_norm.load_state_dict(theirs.norm1.state_dict())
        ours.memory_attention_norm.load_state_dict(theirs.norm2.state_dict())
        ours.feed_forward.L1.load_state_dict(theirs.linear1.state_dict())
        ours.feed_forward.L2.load_state_dict(theirs.linear2.state_dict())
        ours.feed_forward_norm.load_state_dict(theirs.norm3.state_dict())
        return ours.train(theirs.training)


def _some(found: Tensor, layer: EncoderLayer | DecoderLayer) -> Tensor:
    """What a box answers; in training, without some of its numbers."""
    return F.dropout(found, layer.dropout) if layer.dropout and layer.training else found
