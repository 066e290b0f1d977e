"""The layer of a decoder: an encoder's layer with causal attention, and cross-attention to a memory between its parts.

Masks and norms are as in `models.encoder_layer`: in a bool mask True means *may attend*.

Source: Vaswani et al. 2017, Attention Is All You Need, Figure 1; V. Abbott, Neural Circuit Diagrams, TMLR 2024, section
3.2.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self, Unpack

import torch
from torch import Tensor

from circuits import CircuitError, circuit

from .encoder_layer import TransformerLayer
from .parts.cache import DecoderCache, caching, refuse_not_appended
from .parts.masks import KEY_MASK, LAYER_HINT, MASK_HINT, refuse_input_as_mask
from .parts.unseen import clear_padding
from .weights.files import savable
from .weights.sources import Weights
from .weights.torch_conversions import DECODER_LAYER, LayerSettings, converted

DECODER_MASKS: dict[str, Any] = {
    "optional": {"mask": "... y y'", "memory_mask": "... y x", "key_mask": "... y'", "memory_key_mask": "... x"},
    "dtypes": {"memory_key_mask": torch.bool, **KEY_MASK},
    "hints": {"mask": MASK_HINT.format("key_mask"), "memory_mask": MASK_HINT.format("memory_key_mask")},
}
"""The masks of a DecoderLayer, and of a Decoder: options of their circuits."""


@savable
class DecoderLayer(TransformerLayer):
    """Causal self-attention among y vectors, cross-attention to the x vectors of a memory, then a feed-forward network.

    Weights are initialized as in EncoderLayer. Parameters: 8mhk + 2mf + 6hk + f + 9m; without bias 8mhk + 2mf + 3m.
    With groups=g, 8mhk becomes 4mhk + 4mgk, and 6hk becomes 2(h + 2g)k.

    Args:
        m, k, h, f, activation, norm_first, parallel, norm, feed_forward: As in EncoderLayer; errors are too.
        bias, qkv_bias, dropout, eps, device, dtype: As in EncoderLayer.
        groups: As in EncoderLayer, for self-attention and cross-attention.
        rotary, window: As in EncoderLayer, only for the self-attention.

    >>> layer = DecoderLayer(m=128, k=16, h=8, f=512)
    >>> layer(torch.rand(5, 20, 128), torch.rand(5, 22, 128)).shape
    torch.Size([5, 20, 128])
    """

    _has_memory = True

    @circuit("... y m, ... x m -> ... y m", fixed="m", **DECODER_MASKS)
    def forward(
        self,
        target: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        key_mask: Tensor | None = None,
        memory_key_mask: Tensor | None = None,
        causal: bool = True,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        """Return the layer's output `... y m`, for each target vector; in a bool mask True means *may attend*.

        Args:
            target: The decoder's vectors, `... y m`.
            memory: The encoder's vectors, to which cross-attention attends, `... x m`.
            mask: Mask of the self-attention, `... y y'`, bool or floating; combined with `causal`. A mask of two axes
                is always `y y'`, shared by the batch.
            memory_mask: Mask of the cross-attention, `... y x`, bool or floating; of two axes always `y x`.
            key_mask: Bool, `... y'`: False for padding in the target, to which no target vector attends, as in
                EncoderLayer, also if it holds NaN.
            memory_key_mask: Bool, `... x`: False for padding in the memory.
            causal: Whether a target vector may attend only to target vectors at its own position and before; torch's
                layer without a mask is as `causal=False`.
            cache: Keys and values of earlier calls, made by `cache`. The target follows the target vectors of these
                calls, and the size of the mask's axis y' is the number of all; without a cache, y' is y.

        Raises:
            ShapeError: if axes have different sizes.
            CircuitError: if a mask is neither bool nor floating or is an input, or if the cache is full or made for
                another memory.
        """
        inputs = {"target": target, "memory": memory}
        refuse_input_as_mask(self, inputs, LAYER_HINT, mask=mask, memory_mask=memory_mask)
        own_cache, length = (None, 0) if cache is None else (cache.own, cache.own.length)
        attend = partial(self.attention, mask=mask, key_mask=key_mask, causal=causal, cache=own_cache)
        memory_masks: dict[str, Any] = {"mask": memory_mask, "key_mask": memory_key_mask}
        if cache is None:
            target = clear_padding(target, key_mask)
        if self.norm_first:
            normed = self.attention_norm(target)
            target = target + self._drop(attend(normed, normed))
            output = self._attend_to_memory(self.memory_attention_norm(target), memory, memory_masks, cache)
            target = target + self._drop(output)
        else:
            target = self.attention_norm(target + self._drop(attend(target, target)))
            output = self._attend_to_memory(target, memory, memory_masks, cache)
            target = self.memory_attention_norm(target + self._drop(output))
        refuse_not_appended(self.attention, own_cache, length + target.shape[-2])
        return self._feed_forward(target)

    def _attend_to_memory(
        self, target: Tensor, memory: Tensor, masks: dict[str, Any], cache: DecoderCache | None
    ) -> Tensor:
        """Return cross-attention to the memory, whose keys and values are taken from the cache if there is one."""
        if cache is None:
            return self.memory_attention(target, memory, **masks)
        if cache.memory is not memory:
            raise CircuitError("DecoderLayer: the cache was made for another memory; make one by `cache(memory, y)`")
        if cache.remembered is None:
            return self.memory_attention(target, memory, **masks)
        return self.memory_attention.recall(target, *cache.remembered, **masks)

    def cache(self, memory: Tensor, y: int) -> DecoderCache:
        """Return a cache for up to y target vectors, with the keys and values of `memory`, which are computed here."""
        empty = caching(self.attention, "attention of this DecoderLayer").cache(y, memory.shape[:-2])
        wrapped = not hasattr(type(self.memory_attention), "remember")
        return DecoderCache(empty, memory, None if wrapped else self.memory_attention.remember(memory))

    @classmethod
    def from_torch(cls, weights: Weights, *, prefix: str = "", **settings: Unpack[LayerSettings]) -> Self:
        """Return a copy of torch's layer, with equal outputs if torch's layer is called with a causal `tgt_mask`.

        Arguments, shapes, masks and errors are as in EncoderLayer.from_torch.
        """
        return converted(cls, DECODER_LAYER, weights, prefix, settings)


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "DecoderLayer": {"order": "y x ... h"},
}
"""The options with which `circuits.draw` orders axes as the paper does."""
