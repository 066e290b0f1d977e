"""The transformer: an encoder, and a decoder with cross-attention to the encoder's output, of vectors.

The stacks are those of `models.transformer_stacks`, their layers those of `models.encoder_layer`, where masks and
places of dropout are documented (`models.sequence_to_sequence` adds tokens). In a bool mask True means *may attend*.

Source: Vaswani et al. 2017, Figure 1; V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.2; for the
initialisation, Glorot and Bengio 2010, as nn.Transformer uses it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar, Unpack

import torch
from torch import Tensor, nn

from circuits import circuit

from .attention import MultiHeadAttention
from .decoder_layer import DecoderLayer
from .encoder_layer import EncoderLayer, LayerOptions
from .parts.masks import MASK_HINT
from .transformer_stacks import Decoder, Encoder
from .weights.files import savable
from .weights.sources import Weights
from .weights.torch_conversions import TRANSFORMER, LayerSettings, converted

__all__ = ["Decoder", "DecoderLayer", "Encoder", "EncoderLayer", "Transformer"]

Stack = TypeVar("Stack", Encoder, Decoder)


@savable
class Transformer(nn.Module):
    """An encoder-decoder transformer, without embeddings and head: the inner part of the paper's Figure 1.

    The defaults are the paper's base model. Linear maps are initialized uniform within ±(6 / (inputs + outputs))^½
    (Glorot), where `Lq`, `Lk` and `Lv` count as one map, as in nn.Transformer; biases as 0, norms as the identity.

    Parameters: those of an Encoder and a Decoder; 44,140,544 with the default sizes.

    Args:
        m: Width of the vectors (`d_model`, `embed_dim`, `hidden_size`).
        k: Width of a head (`head_dim`).
        h: Number of heads (`nhead`, `num_heads`).
        f: Number of hidden units of the feed-forward networks (`dim_feedforward`, `intermediate_size`).
        encoder_depth, decoder_depth: Number of layers of each stack (`num_encoder_layers`, `num_decoder_layers`).
        activation: Called without arguments, returns the activation of a feed-forward network, as its class does.
        norm_first: Whether the layers are pre-norm.
        final_norm: Whether a norm follows the last layer of each stack.
        bias: Whether linear maps and norms have a bias.
        dropout: As in EncoderLayer.
        eps: Number that the norms add to the variance.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: if m, k, h, f or a depth is below 1.

    >>> model = Transformer(m=128, k=16, h=8, f=512, encoder_depth=2, decoder_depth=2)
    >>> model(torch.rand(5, 22, 128), torch.rand(5, 20, 128)).shape
    torch.Size([5, 20, 128])
    """

    def __init__(
        self,
        m: int = 512,
        k: int = 64,
        h: int = 8,
        f: int = 2048,
        encoder_depth: int = 6,
        decoder_depth: int = 6,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        norm_first: bool = False,
        final_norm: bool = True,
        bias: bool = True,
        dropout: float = 0.1,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.m = m
        options = LayerOptions(bias=bias, dropout=dropout, eps=eps, device=device, dtype=dtype)

        def stack(kind: type[Stack], depth: int) -> Stack:
            return kind(m, k, h, f, depth, activation, norm_first=norm_first, final_norm=final_norm, **options)

        self.encoder, self.decoder = stack(Encoder, encoder_depth), stack(Decoder, decoder_depth)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialize all parameters."""
        glorot_uniform(self)

    @circuit(
        "... x m, ... y m -> ... y m",
        fixed="m",
        optional={
            "source_mask": "... x x",
            "target_mask": "... y y",
            "memory_mask": "... y x",
            "source_key_mask": "... x",
            "target_key_mask": "... y",
        },
        dtypes={"source_key_mask": torch.bool, "target_key_mask": torch.bool},
        hints={
            "source_mask": MASK_HINT.format("source_key_mask"),
            "target_mask": MASK_HINT.format("target_key_mask"),
            "memory_mask": MASK_HINT.format("source_key_mask"),
        },
    )
    def forward(
        self,
        source: Tensor,
        target: Tensor,
        source_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        source_key_mask: Tensor | None = None,
        target_key_mask: Tensor | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Return the decoder's output `... y m` for source and target; in a bool mask True means *may attend*.

        The arguments come in the same order as in nn.Transformer, where the target is not causal without a mask. A mask
        of two axes is shared by the batch.

        Args:
            source: The encoder's input vectors, `... x m`.
            target: The decoder's input vectors, `... y m`.
            source_mask: Mask of the encoder's self-attention, `... x x`: bool, or floating and added to the scores.
            target_mask: Mask of the decoder's self-attention, `... y y`, combined with `causal`.
            memory_mask: Mask of the cross-attention of target vectors to encoded source vectors, `... y x`.
            source_key_mask: Bool, `... x`: False for padding in the source, which neither stack attends to.
            target_key_mask: Bool, `... y`: False for padding in the target, to which no target vector attends.
            causal: Whether a target vector may attend only to target vectors at its own position and before.

        Raises:
            ShapeError: if axes have different sizes, or a key mask is not bool.
            CircuitError: if a mask is neither bool nor floating.
        """
        memory = self.encoder(source, source_mask, key_mask=source_key_mask)
        key_masks = {"key_mask": target_key_mask, "memory_key_mask": source_key_mask}
        return self.decoder(target, memory, target_mask, memory_mask, **key_masks, causal=causal)

    @classmethod
    def from_torch(cls, weights: Weights, *, prefix: str = "", **settings: Unpack[LayerSettings]) -> Self:
        """Return a copy of torch's model, with equal outputs if torch's is called with a causal `tgt_mask`.

        Arguments, shapes and masks are as in EncoderLayer.from_torch; weights tell the number of layers.

        Raises:
            WeightsError: as EncoderLayer.from_torch does.
            CircuitError: as EncoderLayer.from_torch does, and if the stacks differ in more than their depth.
        """
        return converted(cls, TRANSFORMER, weights, prefix, settings)


def glorot_uniform(model: nn.Module) -> None:
    """Re-initialize a model: the weights of linear maps uniform within ±(6 / (inputs + outputs))^½, their biases as 0.

    `Lq`, `Lk` and `Lv` of an attention count as one map. Other modules without children call `reset_parameters`.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif not list(module.children()):
            reset: Any = getattr(module, "reset_parameters", lambda: None)
            reset()
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            maps = (module.Lq, module.Lk, module.Lv)
            bound = (6 / (module.m + sum(each.out_features for each in maps))) ** 0.5
            for each in maps:
                nn.init.uniform_(each.weight, -bound, bound)


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "Transformer": {"order": "y x ... h"},
}
"""The options with which `circuits.draw` orders axes as the paper does."""
