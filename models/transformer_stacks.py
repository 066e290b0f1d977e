"""The two stacks of a transformer: an encoder, and a decoder with cross-attention to the encoder's output.

Both are stacks of layers, whose masks and places of dropout are documented in `models.encoder_layer`. Each ends with a
norm, as in nn.Transformer, not as in the paper. In a bool mask True means *may attend*.

Source: Vaswani et al. 2017, Figure 1; V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.2.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Self, Unpack

import torch
from torch import Tensor, nn

from circuits import circuit

from .decoder_layer import DECODER_MASKS, DecoderLayer
from .encoder_layer import EncoderLayer, LayerOptions
from .parts.cache import DecoderCache, caches_of, for_each_layer
from .parts.masks import KEY_MASK, KEY_MASK_HINT, MASK_HINT
from .parts.sizes import refuse_sizes_below_one
from .weights.files import savable
from .weights.sources import Weights
from .weights.torch_conversions import DECODER, ENCODER, LayerSettings, converted


class _Stack(nn.Module):
    """The constructor of Encoder and Decoder; `_layer` is the class of the layers."""

    _layer: ClassVar[type[EncoderLayer | DecoderLayer]]

    def __init__(
        self,
        m: int,
        k: int,
        h: int,
        f: int,
        depth: int = 6,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        norm_first: bool = False,
        final_norm: bool = True,
        bias: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_sizes_below_one(type(self).__name__, depth=depth)
        self.m = m
        options = LayerOptions(bias=bias, dropout=dropout, eps=eps, device=device, dtype=dtype)
        layers = (self._layer(m, k, h, f, activation, norm_first=norm_first, **options) for _ in range(depth))
        self.layers: nn.ModuleList = nn.ModuleList(layers)
        norm = nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype) if final_norm else None
        self.norm: nn.LayerNorm | None = norm


@savable
class Encoder(_Stack):
    """A stack of EncoderLayers, with a norm after the last.

    Parameters: depth times those of an EncoderLayer, plus 2m for the norm (m without bias).

    Args:
        m, k, h, f: Sizes of each layer, as in EncoderLayer.
        depth: Number of layers (`num_layers`).
        activation, norm_first, bias, dropout, eps, device, dtype: As in EncoderLayer, for each layer.
        final_norm: Whether a norm follows the last layer.

    Raises:
        CircuitError: if m, k, h, f or `depth` is below 1.

    >>> Encoder(m=128, k=16, h=8, f=512, depth=2)(torch.rand(5, 20, 128)).shape
    torch.Size([5, 20, 128])
    """

    _layer = EncoderLayer

    @circuit(
        "... x m -> ... x m",
        fixed="m",
        optional={"mask": "... x x", "key_mask": "... x"},
        dtypes=KEY_MASK,
        hints={"mask": MASK_HINT.format("key_mask"), **KEY_MASK_HINT},
    )
    def forward(
        self,
        source: Tensor,
        mask: Tensor | None = None,
        *,
        key_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Return the last layer's output `... x m`, after the norm; in a bool mask True means *may attend*.

        Args:
            source: The vectors, `... x m`.
            mask: Bool (True: may attend) or floating (added to the scores), `... x x`, used in every layer. A mask of
                two axes is always `x x`, shared by the batch.
            key_mask: Bool, `... x`: False for padding, to which no vector attends.
            causal: Whether a vector may attend only to those at its own position and before.
        """
        for layer in self.layers:
            source = layer(source, mask, key_mask=key_mask, causal=causal)
        return source if self.norm is None else self.norm(source)

    @classmethod
    def from_torch(cls, weights: Weights, *, prefix: str = "", **settings: Unpack[LayerSettings]) -> Self:
        """Return a copy of torch's stack, with equal outputs; arguments and errors are as in EncoderLayer.from_torch.

        Weights tell the number of layers, and whether a norm follows the last.
        """
        return converted(cls, ENCODER, weights, prefix, settings)


@savable
class Decoder(_Stack):
    """A stack of DecoderLayers, all with cross-attention to the same memory, with a norm after the last.

    Parameters: depth times those of a DecoderLayer, plus 2m for the norm (m without bias).

    Args:
        m, k, h, f, depth, activation, norm_first, final_norm, bias, dropout, eps, device, dtype: As in Encoder.

    >>> decoder = Decoder(m=128, k=16, h=8, f=512, depth=2)
    >>> decoder(torch.rand(5, 20, 128), torch.rand(5, 22, 128)).shape
    torch.Size([5, 20, 128])
    """

    _layer = DecoderLayer

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
        caches: Sequence[DecoderCache] = (),
    ) -> Tensor:
        """Return the last layer's output `... y m`, after the norm; in a bool mask True means *may attend*.

        Args:
            target: The decoder's input vectors, `... y m`.
            memory: The encoder's output vectors, to which cross-attention attends, `... x m`.
            mask: Mask of the self-attention in every layer, `... y y'`, combined with `causal`.
            memory_mask: Mask of the cross-attention in every layer, `... y x`.
            key_mask: Bool, `... y'`: False for padding in the target, to which no target vector attends.
            memory_key_mask: Bool, `... x`: False for padding in the memory.
            causal: Whether a target vector may attend only to target vectors at its own position and before.
            caches: A list returned by `cache`, with one cache for each layer; empty to decode without caches.
        """
        key_masks = {"key_mask": key_mask, "memory_key_mask": memory_key_mask}
        for layer, cache in zip(self.layers, for_each_layer("Decoder", caches, len(self.layers)), strict=True):
            target = layer(target, memory, mask, memory_mask, **key_masks, causal=causal, cache=cache)
        return target if self.norm is None else self.norm(target)

    def cache(self, memory: Tensor, y: int) -> list[DecoderCache]:
        """Return a list with one cache for each layer, each for this memory and up to y target vectors."""
        return caches_of("Decoder", self.layers, memory, y)

    @classmethod
    def from_torch(cls, weights: Weights, *, prefix: str = "", **settings: Unpack[LayerSettings]) -> Self:
        """Return a copy of torch's stack, with outputs as in DecoderLayer.from_torch, and arguments as in Encoder's."""
        return converted(cls, DECODER, weights, prefix, settings)
