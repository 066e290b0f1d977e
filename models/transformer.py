"""The transformer: an encoder of the source, and a decoder that asks what was encoded.

Both are stacks of the layers in `models.transformer_layers`, whose masks and places of dropout hold here too. Vectors
go in and come out; `models.sequence_to_sequence` has the tokens around them. Each stack ends in a norm, as
nn.Transformer's do: where norms stand after their boxes, `final_norm=False` is the paper to the letter.

Source: Vaswani et al. 2017, Attention Is All You Need, Figure 1; V. Abbott, Neural Circuit Diagrams, TMLR 2024, section
3.2; for the initialisation, Glorot and Bengio 2010, as nn.Transformer takes it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit

from .attention import MultiHeadAttention
from .transformer_layers import DecoderCache, DecoderLayer, EncoderLayer
from .weights.files import savable
from .weights.from_torch import refuse_unlike, stack_settings

__all__ = ["Decoder", "DecoderLayer", "Encoder", "EncoderLayer", "Transformer"]


@savable
class Encoder(nn.Module):
    """`depth` EncoderLayers, and a norm after the last.

    Parameters: depth times those of an EncoderLayer, and 2m of the norm, m without bias. Raises CircuitError for a
    depth below 1.

    >>> Encoder(m=128, k=16, h=8, f=512, depth=2)(torch.rand(5, 20, 128)).shape
    torch.Size([5, 20, 128])
    """

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
        _refuse_shallow("Encoder", depth)
        self.m = m
        self.layers = nn.ModuleList(
            EncoderLayer(
                m,
                k,
                h,
                f,
                activation,
                norm_first=norm_first,
                bias=bias,
                dropout=dropout,
                eps=eps,
                device=device,
                dtype=dtype,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype) if final_norm else None

    @circuit("... x m -> ... x m", fixed="m", optional={"mask": "... x x"})
    def forward(self, source: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Through every layer; the mask is for each of them."""
        for layer in self.layers:
            source = layer(source, mask, causal=causal)
        return source if self.norm is None else self.norm(source)

    @classmethod
    def from_torch(cls, theirs: nn.TransformerEncoder) -> Self:
        """A copy of torch's stack, which gives equal outputs; all else is as in EncoderLayer.from_torch."""
        return _stack_from_torch(cls, EncoderLayer, theirs)


@savable
class Decoder(nn.Module):
    """`depth` DecoderLayers, which all ask one memory, and a norm after the last.

    Parameters: depth times those of a DecoderLayer, and 2m of the norm, m without bias. Raises CircuitError for a depth
    below 1.

    >>> decoder = Decoder(m=128, k=16, h=8, f=512, depth=2)
    >>> decoder(torch.rand(5, 20, 128), torch.rand(5, 22, 128)).shape
    torch.Size([5, 20, 128])
    """

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
        _refuse_shallow("Decoder", depth)
        self.m = m
        self.layers = nn.ModuleList(
            DecoderLayer(
                m,
                k,
                h,
                f,
                activation,
                norm_first=norm_first,
                bias=bias,
                dropout=dropout,
                eps=eps,
                device=device,
                dtype=dtype,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype) if final_norm else None

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
        """Through every layer; both masks are for each of them, and each has its own of the caches, if any."""
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            target = layer(target, memory, mask, memory_mask, causal=causal, cache=cache)
        return target if self.norm is None else self.norm(target)

    def cache(self, memory: Tensor, y: int) -> list[DecoderCache]:
        """An empty cache for each layer, for up to y target vectors that ask this memory."""
        return [cast(DecoderLayer, layer).cache(memory, y) for layer in self.layers]

    @classmethod
    def from_torch(cls, theirs: nn.TransformerDecoder) -> Self:
        """A copy of torch's stack, which gives equal outputs; all else is as in DecoderLayer.from_torch."""
        return _stack_from_torch(cls, DecoderLayer, theirs)


@savable
class Transformer(nn.Module):
    """Each of y target vectors with what it finds before it and in all x source vectors: the paper's Figure 1, inside.

    As made without arguments it is the paper's base model. Weights begin uniform within ±(6 / (inputs + outputs))^½
    (Glorot), the three boxes `Lq`, `Lk` and `Lv` counted as one, as in nn.Transformer; biases at 0, norms as the
    identity.

    Parameters: those of an Encoder and a Decoder, 44,140,544 as made without arguments.

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
        self.encoder = Encoder(
            m,
            k,
            h,
            f,
            encoder_depth,
            activation,
            norm_first=norm_first,
            final_norm=final_norm,
            bias=bias,
            dropout=dropout,
            eps=eps,
            device=device,
            dtype=dtype,
        )
        self.decoder = Decoder(
            m,
            k,
            h,
            f,
            decoder_depth,
            activation,
            norm_first=norm_first,
            final_norm=final_norm,
            bias=bias,
            dropout=dropout,
            eps=eps,
            device=device,
            dtype=dtype,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight anew."""
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
        """What the decoder makes of the target, asking the encoded source.

        `source_mask` says which source vectors see which, `target_mask` the same of the target (and `causal` holds
        too), `memory_mask` which target vectors see which encoded ones. The order is nn.Transformer's.
        """
        return self.decoder(target, self.encoder(source, source_mask), target_mask, memory_mask, causal=causal)

    @classmethod
    def from_torch(cls, theirs: nn.Transformer) -> Self:
        """A copy of torch's model, which gives equal outputs where torch's is given a causal `tgt_mask`.

        Shapes and masks are as in EncoderLayer.from_torch. Raises CircuitError for a model whose parts were changed so
        that ours has no equal.
        """
        encoder, decoder = Encoder.from_torch(theirs.encoder), Decoder.from_torch(theirs.decoder)
        settings, others = (stack_settings(each) for each in (theirs.encoder, theirs.decoder))
        depths = {"encoder_depth": settings.pop("depth"), "decoder_depth": others.pop("depth")}
        refuse_unlike("from_torch: nn.Transformer with an encoder and a decoder", settings, others)
        settings |= depths | {"device": "meta"}
        ours = cls(**settings)
        ours.encoder, ours.decoder = encoder, decoder
        return ours.train(theirs.training)


def glorot_uniform(model: nn.Module) -> None:
    """Draw every weight of a model's linear boxes uniform within ±(6 / (inputs + outputs))^½; biases at 0.

    The boxes `Lq`, `Lk` and `Lv` of an attention count as one. Other modules begin as they begin by themselves.
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
            boxes = (module.Lq, module.Lk, module.Lv)
            bound = (6 / (module.m + sum(box.out_features for box in boxes))) ** 0.5
            for box in boxes:
                nn.init.uniform_(box.weight, -bound, bound)


def _refuse_shallow(name: str, depth: int) -> None:
    """Raise CircuitError for a stack of no layers."""
    if depth < 1:
        raise CircuitError(f"{name}: depth is {depth}; it may be 1 or more")


def _stack_from_torch(cls: Any, layer: Any, theirs: Any) -> Any:
    """The stack whose layers and norm are copies of torch's."""
    settings = stack_settings(theirs)
    ours = cls(**settings | {"device": "meta"})
    ours.layers = nn.ModuleList(layer.from_torch(each) for each in theirs.layers)
    if ours.norm is not None:
        ours.norm.to_empty(device=settings["device"]).load_state_dict(theirs.norm.state_dict())
    return ours.train(theirs.training)
