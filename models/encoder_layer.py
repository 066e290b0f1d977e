"""The layer of an encoder: attention and a feed-forward network, each with a residual connection and a norm.

The norm follows the sum of the residual connection (post-norm), as in Vaswani et al., or precedes attention and
feed-forward network (pre-norm, `norm_first`), as in most later models. Masks are as in `models.attention`: in a bool
mask True means *may attend*, the opposite of torch's layers. `TransformerLayer` is what the decoder's layer shares.

Source: Vaswani et al. 2017, Attention Is All You Need, Figure 1, and section 5.4 for the places of dropout; Xiong et
al. 2020, On Layer Normalization in the Transformer Architecture, for pre-norm; V. Abbott, Neural Circuit Diagrams, TMLR
2024, section 3.2.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit

from .attention import MultiHeadAttention
from .layers import FeedForward
from .parts.cache import KeyValueCache, refuse_not_appended
from .parts.masks import KEY_MASK, KEY_MASK_HINT, LAYER_HINT, MASK_HINT, refuse_input_as_mask
from .parts.norms import norm_of_vectors
from .parts.positions import RotaryPositions
from .parts.unseen import clear_padding
from .weights.files import savable
from .weights.sources import Weights
from .weights.torch_conversions import ENCODER_LAYER, LayerSettings, converted


class LayerOptions(TypedDict):
    """Keyword arguments of a layer that a model with many layers passes to each of them unchanged."""

    bias: bool
    dropout: float
    eps: float
    device: torch.device | str | None
    dtype: torch.dtype | None


class TransformerLayer(nn.Module):
    """The constructor of EncoderLayer and DecoderLayer, and their feed-forward part.

    Args:
        m, k, h, f, activation, norm_first, parallel, groups, rotary, window: As in EncoderLayer.
        norm, feed_forward, bias, qkv_bias, dropout, eps, device, dtype: As in EncoderLayer.

    Raises:
        CircuitError: as in EncoderLayer.
    """

    parallel = False
    """Also of layers that were pickled before there was this option."""

    _has_memory: ClassVar[bool]
    """Whether cross-attention to a memory follows the self-attention."""

    def __init__(
        self,
        m: int,
        k: int,
        h: int,
        f: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        norm_first: bool = False,
        parallel: bool = False,
        groups: int | None = None,
        rotary: RotaryPositions | None = None,
        window: int | None = None,
        norm: Callable[..., nn.Module] = nn.LayerNorm,
        feed_forward: Callable[..., nn.Module] = FeedForward,
        bias: bool = True,
        qkv_bias: bool | None = None,
        dropout: float = 0.0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.m, self.h, self.norm_first, self.parallel, self.dropout = m, h, norm_first, parallel, dropout
        if parallel and (self._has_memory or not norm_first):
            raise CircuitError("parallel=True is for an EncoderLayer with norm_first=True")
        norm = partial(norm_of_vectors, norm, m, eps, bias=bias, device=device, dtype=dtype)
        options = {"bias": bias, "dropout": dropout, "device": device, "dtype": dtype}
        attention = partial(MultiHeadAttention, m, k, h, groups=groups, qkv_bias=qkv_bias, **options)
        self.attention, self.attention_norm = attention(rotary=rotary, window=window), norm()
        if self._has_memory:
            self.memory_attention, self.memory_attention_norm = attention(), norm()
        self.feed_forward: nn.Module = feed_forward(m, f, activation, **options)
        self.feed_forward_norm: nn.Module = norm()

    def _drop(self, output: Tensor) -> Tensor:
        """Apply dropout, in training, to the output of attention or of the feed-forward network."""
        return F.dropout(output, self.dropout) if self.dropout and self.training else output

    def _feed_forward(self, target: Tensor) -> Tensor:
        """Return the layer's output: apply the feed-forward network with its residual connection and norm."""
        if self.norm_first:
            return target + self._drop(self.feed_forward(self.feed_forward_norm(target)))
        return self.feed_forward_norm(target + self._drop(self.feed_forward(target)))


@savable
class EncoderLayer(TransformerLayer):
    """Self-attention among x vectors, then a feed-forward network on each of them.

    Weights are initialized as in MultiHeadAttention and FeedForward, norms as the identity.

    Parameters: 4mhk + 2mf + 3hk + f + 6m; without bias 4mhk + 2mf + 2m. With groups=g, 4mhk becomes 2mhk + 2mgk, and
    3hk becomes (h + 2g)k.

    Args:
        m: Width of the vectors (`d_model`, `embed_dim`, `hidden_size`).
        k: Width of a head (`head_dim`).
        h: Number of heads (`nhead`, `num_heads`).
        f: Number of hidden units of the feed-forward network (`dim_feedforward`, `intermediate_size`).
        activation: Called without arguments, returns the activation of the feed-forward network, as its class does.
        norm_first: Whether norms precede attention and feed-forward network (pre-norm) or follow the sums (post-norm).
        parallel: Whether attention and feed-forward network have the same input, as in GPT-NeoX; with `norm_first`.
        groups: Number of heads of keys and values (`num_key_value_heads`), as in MultiHeadAttention.
        rotary: Rotary position embeddings (RoPE), as in MultiHeadAttention.
        window: Sliding window of the attention, as in MultiHeadAttention.
        norm: Class of the norms: nn.LayerNorm or nn.RMSNorm, which has no bias.
        feed_forward: Class of the feed-forward network: FeedForward or GatedFeedForward.
        bias: Whether linear maps and norms have a bias.
        qkv_bias: Whether the maps to queries, keys and values have a bias; as `bias` unless given.
        dropout: In training, the probability that an attention weight, a hidden unit, or an entry in the output of
            attention or feed-forward network is set to 0.
        eps: Number that the norms add to the variance.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: if a size is below 1, `groups` does not divide h, the width of `rotary` is not k, or an option is
            not supported.

    >>> EncoderLayer(m=128, k=16, h=8, f=512)(torch.rand(5, 20, 128)).shape
    torch.Size([5, 20, 128])
    """

    _has_memory = False

    @circuit(
        "... x m -> ... x m",
        fixed="m h",
        optional={"mask": "... x x'", "head_mask": "... h x x'", "key_mask": "... x'", "source": "... x'' m"},
        dtypes=KEY_MASK,
        hints={"mask": MASK_HINT.format("key_mask"), **KEY_MASK_HINT},
    )
    def forward(
        self,
        target: Tensor,
        mask: Tensor | None = None,
        *,
        source: Tensor | None = None,
        head_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the layer's output `... x m`, for each target vector; in a bool mask True means *may attend*.

        Args:
            target: The vectors, `... x m`.
            mask: Bool (True: may attend) or floating (added to the scores), `... x x'`, as in MultiHeadAttention. A
                mask of two axes is always `x x'`, shared by the batch.
            source: The vectors to attend to, `... x'' m`; `target` unless given. If the outputs of only a few vectors
                are needed, pass those as `target` and all vectors as `source`.
            head_mask: One such mask for each head, `... h x x'`.
            key_mask: Bool, `... x'`: False for padding, to which no vector attends, as in MultiHeadAttention. NaN and
                inf in padding are taken for 0: they reach no output of a real vector and no gradient. With `mask` alone
                a vector that is hidden from all others still has an output of its own, and NaN there.
            causal: Whether a vector may attend only to those at its own position and before.
            cache: Keys and values of earlier calls, as in MultiHeadAttention.

        Raises:
            ShapeError: if axes have different sizes.
            CircuitError: if a mask is neither bool nor floating or is the target, or if the cache cannot append.
        """
        refuse_input_as_mask(self, {"target": target}, LAYER_HINT, mask=mask)
        masks = {"mask": mask, "head_mask": head_mask, "key_mask": key_mask}
        attend = partial(self.attention, **masks, causal=causal, cache=cache)
        length = (0 if cache is None else cache.length) + (target if source is None else source).shape[-2]
        if cache is None and source is None:
            target = clear_padding(target, key_mask)
        elif source is not None:
            source = source if cache is not None else clear_padding(source, key_mask)
            source = source.expand(*target.shape[:-2], -1, -1)  # a source without batch axes is shared by the batch
        if self.norm_first:
            normed = self.attention_norm(target)
            attended = self._drop(attend(normed, normed if source is None else self.attention_norm(source)))
            refuse_not_appended(self.attention, cache, length)
            if self.parallel:
                return attended + self._feed_forward(target)
            target = target + attended
        else:
            target = self.attention_norm(target + self._drop(attend(target, target if source is None else source)))
            refuse_not_appended(self.attention, cache, length)
        return self._feed_forward(target)

    @classmethod
    def from_torch(cls, weights: Weights, *, prefix: str = "", **settings: Unpack[LayerSettings]) -> Self:
        """Return a copy of torch's layer, with equal outputs.

        The copy takes `... x m`, whatever `batch_first` is there, and in its bool masks True means *may attend*.

        Args:
            weights: The layer to copy, whose dropout, device, dtype and training mode are copied too, or its state
                dict, or the path of a safetensors file. (A state dict does not tell `add_zero_attn`.)
            prefix: Text with which every name begins, such as "_orig_mod.", and which is removed.
            **settings: What a state dict does not tell: `h`, `activation`, `norm_first`, `eps` and `dropout`, as in
                the constructor. A module tells them, and they may be left out.

        Raises:
            WeightsError: if weights are missing or unexpected, or have other axes; the reason is named if known.
            CircuitError: if a setting is missing or contradicts the weights or the module, or if the layer has
                submodules or settings that are not supported here.
        """
        return converted(cls, ENCODER_LAYER, weights, prefix, settings)


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "EncoderLayer": {"order": "y x ... h"},
}
"""The options with which `circuits.draw` orders axes as the paper does."""
