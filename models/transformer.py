"""The transformer: an encoder, and a decoder with cross-attention to the encoder's output.

Both are stacks of the layers in `models.transformer_layers`, where masks and places of dropout are documented, of
vectors (`models.sequence_to_sequence` adds tokens). Each ends with a norm, as in nn.Transformer, not as in the paper.

Source: Vaswani et al. 2017, Figure 1; V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.2; for the
initialisation, Glorot and Bengio 2010, as nn.Transformer uses it.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from circuits import circuit

from .attention import MultiHeadAttention
from .parts.cache import for_each_layer
from .parts.sizes import refuse_sizes_below_one
from .transformer_layers import DecoderCache, DecoderLayer, EncoderLayer, LayerOptions
from .weights.files import savable
from .weights.from_torch import refuse_unlike, stack_settings

__all__ = ["Decoder", "DecoderLayer", "Encoder", "EncoderLayer", "Transformer"]

Stack = TypeVar("Stack", bound="_Stack")


class _Stack(nn.Module):
    """The constructor of Encoder and Decoder and their conversion from torch; `_layer` is the class of the layers."""

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

    @classmethod
    def _from_torch(cls, theirs: nn.TransformerEncoder | nn.TransformerDecoder) -> Self:
        """Return a stack whose layers and norm are copies of those in torch's stack."""
        settings: Any = stack_settings(theirs)
        copy = cls(**settings | {"device": "meta"})
        from_torch: Any = cls._layer.from_torch
        copy.layers = nn.ModuleList(from_torch(each) for each in theirs.layers)
        if copy.norm is not None and theirs.norm is not None:
            copy.norm.to_empty(device=settings["device"]).load_state_dict(theirs.norm.state_dict())
        return copy.train(theirs.training)


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

    @circuit("... x m -> ... x m", fixed="m", optional={"mask": "... x x"})
    def forward(self, source: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Return the last layer's output `... x m`, after the norm; in a bool mask True means *may attend*.

        Args:
            source: The vectors, `... x m`.
            mask: Bool (True: may attend) or floating (added to the scores), `... x x`, used in every layer.
            causal: Whether a vector may attend only to those at its own position and before.
        """
        for layer in self.layers:
            source = layer(source, mask, causal=causal)
        return source if self.norm is None else self.norm(source)

    @classmethod
    def from_torch(cls, theirs: nn.TransformerEncoder) -> Self:
        """Return a copy of torch's stack, with equal outputs; see EncoderLayer.from_torch."""
        return cls._from_torch(theirs)


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

    @circuit("... y m, ... x m -> ... y m", fixed="m", optional={"mask": "... y y'", "memory_mask": "... y x"})
    def forward(
        self,
        target: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        causal: bool = True,
        caches: Sequence[DecoderCache] = (),
    ) -> Tensor:
        """Return the last layer's output `... y m`, after the norm; in a bool mask True means *may attend*.

        Args:
            target: The decoder's input vectors, `... y m`.
            memory: The encoder's output vectors, to which cross-attention attends, `... x m`.
            mask: Mask of the self-attention in every layer, `... y y'`, combined with `causal`.
            memory_mask: Mask of the cross-attention in every layer, `... y x`.
            causal: Whether a target vector may attend only to target vectors at its own position and before.
            caches: A list returned by `cache`, with one cache for each layer; empty to decode without caches.
        """
        for layer, cache in zip(self.layers, for_each_layer("Decoder", caches, len(self.layers)), strict=True):
            target = layer(target, memory, mask, memory_mask, causal=causal, cache=cache)
        return target if self.norm is None else self.norm(target)

    def cache(self, memory: Tensor, y: int) -> list[DecoderCache]:
        """Return a list with one cache for each layer, each for this memory and up to y target vectors."""
        return [cast(DecoderLayer, layer).cache(memory, y) for layer in self.layers]

    @classmethod
    def from_torch(cls, theirs: nn.TransformerDecoder) -> Self:
        """Return a copy of torch's stack, with equal outputs; see DecoderLayer.from_torch."""
        return cls._from_torch(theirs)


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
        optional={"source_mask": "... x x", "target_mask": "... y y", "memory_mask": "... y x"},
    )
    def forward(
        self,
        source: Tensor,
        target: Tensor,
        source_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        causal: bool = True,
    ) -> Tensor:
        """Return the decoder's output `... y m` for the target, with cross-attention to the encoded source.

        In a bool mask True means *may attend*. The arguments come in the same order as in nn.Transformer.

        Args:
            source: The encoder's input vectors, `... x m`.
            target: The decoder's input vectors, `... y m`.
            source_mask: Mask of the encoder's self-attention, `... x x`: bool, or floating and added to the scores.
            target_mask: Mask of the decoder's self-attention, `... y y`, combined with `causal`.
            memory_mask: Mask of the cross-attention of target vectors to encoded source vectors, `... y x`.
            causal: Whether a target vector may attend only to target vectors at its own position and before.

        Raises:
            ShapeError: if axes have different sizes.
            CircuitError: if a mask is neither bool nor floating.
        """
        return self.decoder(target, self.encoder(source, source_mask), target_mask, memory_mask, causal=causal)

    @classmethod
    def from_torch(cls, theirs: nn.Transformer) -> Self:
        """Return a copy of torch's model, with equal outputs if torch's is called with a causal `tgt_mask`.

        Shapes and masks are as in EncoderLayer.from_torch.

        Args:
            theirs: The nn.Transformer to copy; its dropout, device, dtype and training mode are copied too.

        Raises:
            CircuitError: if a submodule or setting is not supported, or if the stacks differ in more than their depth.
        """
        encoder, decoder = Encoder.from_torch(theirs.encoder), Decoder.from_torch(theirs.decoder)
        settings, others = (stack_settings(each) for each in (theirs.encoder, theirs.decoder))
        depths = {"encoder_depth": settings.pop("depth"), "decoder_depth": others.pop("depth")}
        refuse_unlike("from_torch: nn.Transformer with an encoder and a decoder", settings, others)
        settings |= depths | {"device": "meta"}
        copy = cls(**settings)
        copy.encoder, copy.decoder = encoder, decoder
        return copy.train(theirs.training)


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
