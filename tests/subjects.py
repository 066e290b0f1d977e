# Modules are read by the names of their parts, which pyright knows as Tensor or Module.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Every circuit of `models`, with what its author claims of it beyond its signature: a new circuit is a line here.

A claim is a law with its arguments. `reference` is the circuit written a second time, in `oracles`. test_laws runs
them all; test_mutants asks whether they see it when something in the source is changed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import models
from circuits import circuit, laws
from models import (
    attention,
    conv_attention,
    convolution,
    convolving,
    generation,
    layers,
    pooling,
    positions,
    resnet,
    signals,
    transformer,
    unet,
    vision_transformer,
)
from tests import oracles

Law = Callable[..., None]


@dataclass(frozen=True)
class Entry:
    """How to make a circuit, what it means, what is claimed of it, and what laws are told."""

    make: Callable[[], Any]
    reference: Callable[..., Any] | None = None
    claims: tuple[Law, ...] = ()
    sizes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    parameters: int | None = None
    slow: bool = False

    @property
    def also(self) -> tuple[Law, ...]:
        """The claims, equality with the reference, and the number of parameters that the docstring's formula gives."""
        same = [partial(laws.equals, reference=self.reference)] if self.reference else []
        counts = [partial(counted, number=self.parameters)] if self.parameters is not None else []
        return (*self.claims, *same, *counts)

    @property
    def told(self) -> dict[str, Any]:
        """What goes to every law."""
        return {"sizes": self.sizes, "inputs": self.inputs, **self.options}


def counted(f: Any, /, number: int, **_: Any) -> None:
    """A law of this table's own: the module of a circuit has so many parameters, and not one more."""
    found = sum(each.numel() for each in getattr(f, "__self__", f).parameters())
    assert found == number, f"{found} parameters, and its formula gives {number}"


def softened(logits: Callable[..., Tensor], place: int = -1) -> Callable[..., Tensor]:
    """The reference of a classifier: its logits, then softmax."""
    return lambda module, *inputs: oracles.softmax(logits(module, *inputs).movedim(place, -1)).movedim(-1, place)


def of(kind: Callable[..., Any], *args: Any, mode: bool = False, **options: Any) -> Callable[[], Any]:
    """Makes a module, in evaluation unless said."""
    return lambda: kind(*args, **options).train(mode)


def method(make: Callable[[], Any], name: str) -> Callable[[], Any]:
    """Makes one of a module's circuits."""
    return lambda: getattr(make(), name)


same = partial(laws.equivariant)
BOOL = {"mask": torch.bool}
causal_over = partial(partial, laws.causal)
images = {"b": 2, "h": 4, "w": 8}
batch = partial(laws.independent, axis="b")


class Steps(nn.Module):
    """Attention that is asked one vector at a time, and remembers."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.m = inner, inner.m

    @circuit("... x m -> ... x m", fixed="m")
    @torch.no_grad()
    def forward(self, source: Tensor) -> Tensor:
        """All that was said so far answers."""
        cache = self.inner.cache(source.shape[-2], source.shape[:-2])
        pieces = source.split([2, 1, *[1] * (source.shape[-2] - 3)], -2)
        return torch.cat([self.inner(each, each, causal=True, cache=cache) for each in pieces], -2)


def longer(tokens: Tensor, count: int, logits: Callable[[Tensor], Tensor]) -> Tensor:
    """The likeliest token, `count` times, all computed anew each time."""
    for _ in range(count):
        tokens = torch.cat((tokens, logits(tokens)[..., -1:, :].argmax(-1)), -1)
    return tokens


def transposed(module: Any, image: Tensor, n: int) -> Tensor:
    """torch's own transposed convolution."""
    run = (torch.nn.functional.conv_transpose1d, torch.nn.functional.conv_transpose2d)[n - 1]
    return run(
        image,
        module.weight,
        module.bias,
        module.stride,
        module.padding,
        module.output_padding,
        module.groups,
        module.dilation,
    )


def forward(module: Any, image: Tensor, n: int) -> Tensor:
    """torch's own convolution."""
    run = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)[n - 1]
    return run(image, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups)


mha = partial(models.MultiHeadAttention, m=6, k=4, h=4, bias=True)
rotary = partial(positions.RotaryPositions, 4)
layer = partial(transformer.EncoderLayer, m=6, k=4, h=2, f=5)
small = {"m": 6, "k": 4, "h": 2, "f": 5}
tokens = {"tokens": range(7)}
pair = {"source": range(7), "target": range(7)}
windows = {"i'": 3, "j'": 5, "u'": 2, "v'": 3}
VISUAL = {"b": 2, "i": 6, "j": 11, "u": 4, "v": 7, **windows}

CIRCUITS: dict[str, Entry] = {
    # attention
    "attention": Entry(
        lambda: attention.attention,
        oracles.attention,
        (
            partial(laws.linear, argument="value"),
            partial(same, axis="x"),
            partial(same, axis="y"),
            partial(same, axis="k"),
            partial(laws.independent, axis="y"),
        ),
    ),
    "attention, bool mask": Entry(lambda: attention.attention, oracles.attention, inputs=BOOL),
    "attention, causal": Entry(
        lambda: attention.attention,
        oracles.attention,
        (partial(laws.causal, axis="y", of="x"),),
        options={"causal": True},
    ),
    "attention, causal window": Entry(
        lambda: attention.attention,
        oracles.attention,
        (partial(laws.causal, axis="y", of="x", reach=2),),
        sizes={"y": 5},
        options={"causal": True, "window": 2},
    ),
    "attention, window and start": Entry(
        lambda: attention.attention, oracles.attention, sizes={"y": 5, "...": (2, 3)}, options={"window": 2, "start": 1}
    ),
    "attention, late and causal": Entry(
        lambda: attention.attention,
        oracles.attention,
        inputs=BOOL,
        sizes={"y": 1, "x": 4, "...": (2, 3, 2)},
        options={"causal": True, "start": 3},
    ),
    "attention, start beyond a window": Entry(
        lambda: attention.attention,
        oracles.attention,
        sizes={"y": 2, "x": 7},
        options={"causal": True, "window": 2, "start": 4},
    ),
    "grouped attention": Entry(
        lambda: attention.grouped_attention, oracles.grouped_attention, (partial(same, axis="x"),)
    ),
    "grouped attention, many axes": Entry(
        lambda: attention.grouped_attention, oracles.grouped_attention, sizes={"...": (2, 3)}, options={"causal": True}
    ),
    "multi-head": Entry(of(mha), oracles.multi_head, (partial(same, axis="y"), partial(same, axis="x"))),
    "multi-head, groups, bool masks": Entry(
        of(mha, groups=2), oracles.multi_head, inputs={"mask": torch.bool, "head_mask": torch.bool}
    ),
    "multi-head, rotary, window": Entry(
        lambda: mha(rotary=rotary(), window=3),
        oracles.multi_head,
        (partial(laws.causal, axis="y", of="x", reach=3),),
        sizes={"y": 5, "x": 7},
        options={"causal": True},
    ),
    "multi-head, grouped, rotary, window": Entry(
        lambda: mha(groups=2, rotary=rotary(), window=3),
        oracles.multi_head,
        sizes={"y": 5, "x": 7},
        inputs={"head_mask": torch.bool},
        options={"causal": True},
    ),
    "remember": Entry(lambda: mha(groups=2, rotary=rotary()).remember, oracles.remember, options={"start": 2}),
    "recall": Entry(
        lambda: mha(groups=2, rotary=rotary()).recall, oracles.recall, options={"start": 2, "causal": True}
    ),
    "steps": Entry(
        lambda: Steps(mha(groups=2, rotary=rotary(), window=4)),
        lambda module, x: oracles.multi_head(module.inner, x, x, causal=True),
        (partial(laws.causal, axis="x", reach=4),),
        sizes={"x": 7},
    ),
    # transformers
    "feed-forward": Entry(of(layers.FeedForward, 6, 5), oracles.feed_forward, (partial(same, axis="..."),)),
    "encoder layer": Entry(of(layer), oracles.encoder_layer, (partial(same, axis="x"),)),
    "encoder layer, norm first": Entry(
        lambda: layer(norm_first=True, groups=1, rotary=rotary(), window=3).eval(),
        oracles.encoder_layer,
        sizes={"x": 5},
        inputs={"source": None},
        options={"causal": True},
        claims=(partial(laws.causal, axis="x", reach=3),),
    ),
    "encoder": Entry(of(transformer.Encoder, **small, depth=2), oracles.encoder, (partial(same, axis="x"),)),
    "encoder, no last norm": Entry(
        of(transformer.Encoder, **small, depth=1, norm_first=True, final_norm=False, bias=False),
        oracles.encoder,
        (partial(laws.causal, axis="x"),),
        options={"causal": True},
    ),
    "decoder layer": Entry(
        of(transformer.DecoderLayer, **small),
        oracles.decoder_layer,
        (partial(laws.causal, axis="y"), partial(same, axis="x")),
    ),
    "decoder layer, norm first": Entry(
        of(transformer.DecoderLayer, **small, norm_first=True),
        oracles.decoder_layer,
        options={"causal": False},
        inputs={"mask": torch.bool, "memory_mask": torch.bool},
    ),
    "decoder": Entry(of(transformer.Decoder, **small, depth=2), oracles.decoder, (partial(laws.causal, axis="y"),)),
    "decoder, no last norm": Entry(
        of(transformer.Decoder, **small, depth=1, norm_first=True, final_norm=False), oracles.decoder
    ),
    "transformer": Entry(
        of(models.Transformer, **small, encoder_depth=1, decoder_depth=2),
        oracles.transformer,
        (partial(laws.causal, axis="y"),),
    ),
    "transformer, norm first": Entry(
        of(
            models.Transformer,
            **small,
            encoder_depth=2,
            decoder_depth=1,
            norm_first=True,
            activation=nn.GELU,
            final_norm=False,
        ),
        oracles.transformer,
        options={"causal": False},
    ),
    "sines": Entry(
        of(positions.SinusoidalPositions, 5), lambda module, x, start: oracles.waves(x, start), options={"start": 3}
    ),
    "learned positions": Entry(of(positions.LearnedPositions, 9, m=4), oracles.learned, options={"start": 2}),
    "rotary positions": Entry(
        of(rotary), oracles.turned, (partial(laws.linear, argument="input"),), options={"start": 2}
    ),
    "language model": Entry(
        of(models.LanguageModel, 7, **small, depth=2),
        softened(oracles.language_logits),
        (partial(laws.causal, axis="x"),),
        sizes={"x": 5},
        inputs=tokens,
    ),
    "language model, logits, untied": Entry(
        method(of(models.LanguageModel, 7, **small, depth=1, learned_positions=9, tied=False), "logits"),
        oracles.language_logits,
        sizes={"x": 5},
        inputs=tokens,
    ),
    "language model, generating": Entry(
        method(of(models.LanguageModel, 7, **small, depth=1, groups=1, window=4), "generate"),
        lambda module, tokens, count: longer(tokens, count, partial(oracles.language_logits, module)),
        sizes={"x": 3},
        inputs=tokens,
        options={"count": 4},
    ),
    "language model, generating, learned": Entry(
        method(of(models.LanguageModel, 7, **small, depth=1, learned_positions=9), "generate"),
        lambda module, tokens, count: longer(tokens, count, partial(oracles.language_logits, module)),
        sizes={"x": 3},
        inputs=tokens,
        options={"count": 4},
    ),
    "sequence to sequence": Entry(
        of(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1, padding=2),
        softened(oracles.translated_logits),
        (partial(laws.causal, axis="y"),),
        sizes={"x": 5, "y": 3},
        inputs=pair,
    ),
    "sequence to sequence, logits, untied": Entry(
        method(
            of(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1, norm_first=True, tied=False),
            "logits",
        ),
        oracles.translated_logits,
        sizes={"x": 5, "y": 3},
        inputs=pair,
    ),
    "sequence to sequence, generating": Entry(
        method(of(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1, padding=2), "generate"),
        lambda module, source, target, count: longer(
            target, count, lambda grown: oracles.translated_logits(module, source, grown)
        ),
        sizes={"x": 5, "y": 2},
        inputs=pair,
        options={"count": 4},
    ),
    "choose": Entry(lambda: generation.choose, lambda logits: logits.argmax(-1), (partial(same, axis="..."),)),
    "choose from one": Entry(
        lambda: generation.choose,
        lambda logits, temperature, top_k: logits.argmax(-1),
        options={"temperature": 0.5, "top_k": 1},
    ),
    "choose, cold": Entry(
        lambda: generation.choose, lambda logits, temperature: logits.argmax(-1), options={"temperature": 1e-9}
    ),
    # images
    "mlp": Entry(of(models.MLP, 4, 6, 7, 8), softened(oracles.mlp_logits)),
    "mlp, logits": Entry(method(of(models.MLP, 4, 6, 7, 8), "logits"), oracles.mlp_logits),
    "visual attention": Entry(
        of(models.VisualAttention, c=3, k=5, heads=2, kernel=3, stride=2, bias=True),
        oracles.visual,
        (batch,),
        sizes=VISUAL,
    ),
    "visual attention, bool mask": Entry(
        of(models.VisualAttention, c=2, k=3, heads=2, kernel=2, stride=1),
        oracles.visual,
        sizes={"b": 2, "i": 3, "j": 5, "u": 4, "v": 2, "i'": 2, "j'": 4, "u'": 3, "v'": 1},
        inputs=BOOL,
    ),
    "patches": Entry(of(vision_transformer.Patches, p=2, m=5, c=3), oracles.patches, (batch,)),
    "vision transformer": Entry(
        of(models.VisionTransformer, (4, 6), 2, **small, depth=2, classes=5, in_channels=2),
        softened(oracles.vision_logits),
        (batch,),
    ),
    "vision transformer, mean, logits": Entry(
        method(of(models.VisionTransformer, 4, 2, **small, depth=1, classes=5, class_token=False), "logits"),
        oracles.vision_logits,
    ),
    "vision transformer, features": Entry(
        method(of(models.VisionTransformer, 4, 2, **small, depth=1, classes=5), "features"), oracles.vision_features
    ),
    "vision transformer, embedding": Entry(
        method(of(models.VisionTransformer, (4, 6), 2, **small, depth=1, classes=5), "embed"), oracles.vision_tokens
    ),
    "vision transformer, encoding": Entry(
        method(of(models.VisionTransformer, (4, 6), 2, **small, depth=1, classes=5), "encode"), oracles.vision_encoded
    ),
    "norm and activation": Entry(of(layers.NormActivate, 3), oracles.norm_activated, (batch,)),
    "double convolution": Entry(of(layers.DoubleConvolution, 2, 3), oracles.double_convolution, (batch,)),
    "double convolution, normed": Entry(
        of(layers.DoubleConvolution, 2, 3, norm=nn.BatchNorm2d), oracles.double_convolution, (batch,)
    ),
    "block": Entry(of(resnet.Block, 2, 3, 3, 8), oracles.block, (batch,), sizes=images),
    "block, biased": Entry(of(resnet.Block, 3, 2, 3, 4, bias=True), oracles.block, sizes={"b": 2, "h": 6, "w": 9}),
    "resnet": Entry(
        of(models.IdentityResNet, 2, (3, 8, 12, 16), classes=5, in_channels=2),
        softened(oracles.resnet_logits),
        (batch,),
        sizes=images,
    ),
    "resnet, logits, biased": Entry(
        method(of(models.IdentityResNet, 1, (3, 4, 8, 12), classes=5, in_channels=2, bias=True), "logits"),
        oracles.resnet_logits,
        sizes=images,
    ),
    "down": Entry(of(unet.DownScaleBlock, 2, 3), oracles.down, (batch,), sizes=images),
    "up": Entry(of(unet.UpScaleBlock, 3, 2), oracles.up, (batch,), sizes={"b": 2, "h": 3, "w": 4}),
    "unet": Entry(
        of(models.UNet, classes=3, channels=2, in_channels=2),
        softened(oracles.unet_logits, -3),
        (batch,),
        sizes={"b": 2, "h": 16, "w": 32},
        slow=True,
    ),
    "unet as drawn, logits": Entry(
        method(of(models.UNet.as_drawn, classes=3, channels=1, in_channels=2), "logits"),
        oracles.unet_logits,
        sizes={"b": 2, "h": 16, "w": 32},
        slow=True,
    ),
    "channels last": Entry(lambda: layers.channels_last, lambda image: image, (laws.multilinear,)),
    "channels first": Entry(lambda: layers.channels_first, lambda image: image, (laws.multilinear,)),
    # linear maps and windows
    "linear": Entry(of(layers.Linear, "m a -> h k", m=3, a=2, h=5, k=7), oracles.joined),
    "linear, no bias": Entry(of(layers.Linear, "m -> k", m=3, k=5, bias=False), oracles.joined, (laws.multilinear,)),
    **{
        f"convolution {n}d": Entry(
            lambda n=n: convolving.convolution_over(n),
            None,
            (partial(laws.linear, argument="image"), partial(laws.linear, argument="weight")) if n == 2 else (),
            sizes=dict(zip("dhwlij", (5, 6, 7, 2, 3, 2), strict=True))
            if n == 3
            else {"h": 7, "w": 9, "i": 2, "j": 3}
            if n == 2
            else {"w": 9, "j": 3},
            inputs={"bias": None} if n == 2 else {},
            options={"stride": 2, "padding": 1, "dilation": 1 if n == 3 else (1, 2) if n == 2 else 2},
        )
        for n in (1, 2, 3)
    },
    "convolution, reflected": Entry(
        lambda: convolving.convolution_over(2),
        sizes={"h": 7, "w": 9, "i": 2, "j": 3},
        options={"padding": (1, (2, 0)), "mode": "reflect"},
    ),
    "convolution, uneven": Entry(
        lambda: convolving.convolution_over(1),
        claims=(partial(laws.shifting, axis="w", to="w'", by=2, border=1),),
        sizes={"w": 11, "j": 3, "...": (2, 3)},
        options={"padding": ((1, 2),), "stride": 2},
    ),
    "convolution, circular": Entry(
        lambda: convolving.convolution_over(1),
        sizes={"w": 7, "j": 3},
        options={"padding": 1, "mode": "circular"},
    ),
    "grouped convolution": Entry(
        lambda: convolving.grouped_convolution_over(2),
        sizes={"g": 2, "c": 3, "k": 5, "h": 7, "w": 9, "i": 2, "j": 3},
        options={"stride": (1, 2), "padding": 1},
    ),
    "convolution 4d": Entry(
        lambda: convolving.convolution_over(4),
        sizes={"c": 2, "k": 3, "x0": 2, "x1": 3, "x2": 2, "x3": 3, "i0": 1, "i1": 2, "i2": 2, "i3": 2, "...": ()},
        claims=(partial(laws.linear, argument="image"),),
        inputs={"bias": None},
    ),
    "transposed convolution 1d": Entry(
        lambda: convolving.transposed_convolution_over(1),
        sizes={"w'": 5, "j": 3},
        options={"stride": 2, "padding": 1, "output_padding": 1, "dilation": 2},
    ),
    "transposed convolution 2d": Entry(
        lambda: convolving.transposed_convolution_over(2),
        sizes={"h'": 3, "w'": 5, "i": 3, "j": 2},
        options={"stride": (2, 1)},
    ),
    "transposed convolution, reflected": Entry(
        lambda: convolving.transposed_convolution_over(2),
        sizes={"h'": 6, "w'": 5, "i": 3, "j": 2},
        options={"padding": (1, (0, 1)), "mode": "reflect"},
    ),
    "grouped transposed convolution": Entry(
        lambda: convolving.grouped_transposed_convolution_over(1),
        sizes={"g": 2, "c": 3, "k": 5, "w'": 5, "j": 3},
        options={"stride": 2, "output_padding": 1},
    ),
    "Convolution": Entry(
        of(convolution.Convolution, "c h w -> k h' w'", c=4, k=6, kernel=(3, 2), stride=2, padding=1, groups=2),
        partial(forward, n=2),
        sizes={"h": 7, "w": 9, "...": (2,)},
    ),
    "Convolution, same": Entry(
        of(convolution.Convolution, "c w -> k w", c=2, k=3, kernel=3, padding="same", dilation=2),
        lambda module, image: torch.nn.functional.conv1d(image, module.weight, module.bias, padding=2, dilation=2),
        sizes={"w": 7, "...": (2,)},
    ),
    "Convolution, same, even": Entry(
        of(convolution.Convolution, "c w -> k w", c=2, k=3, kernel=4, padding="same"),
        lambda module, image: torch.nn.functional.conv1d(
            torch.nn.functional.pad(image, (1, 2)), module.weight, module.bias
        ),
        sizes={"w": 7, "...": (2,)},
    ),
    "TransposedConvolution": Entry(
        of(
            convolution.TransposedConvolution,
            "k h' w' -> c h w",
            c=4,
            k=6,
            kernel=(3, 2),
            stride=2,
            padding=1,
            groups=2,
            output_padding=1,
        ),
        partial(transposed, n=2),
        sizes={"h'": 3, "w'": 5, "...": (2,)},
    ),
    "TransposedConvolution, to a size": Entry(
        of(convolution.TransposedConvolution, "k w' -> c w", c=2, k=3, kernel=3, stride=3),
        lambda module, image, size: torch.nn.functional.conv_transpose1d(
            image, module.weight, module.bias, 3, output_padding=size[0] - 15
        ),
        sizes={"w'": 5, "...": (2,)},
        options={"size": (16,)},
    ),
    "SeparableConvolution": Entry(
        of(convolution.SeparableConvolution, "c h w -> k h' w'", c=3, k=4, kernel=3, stride=2, padding=1),
        lambda module, image: forward(module.pointwise, forward(module.depthwise, image, 2), 2),
        sizes={"h": 7, "w": 9, "...": (2,)},
    ),
    **{
        f"{kind} pool {n}d": Entry(
            lambda kind=kind, n=n: getattr(pooling, f"{kind}_pool_over")(n),
            sizes={"d": 5, "h": 7, "w": 8, "...": (2,)}
            if n == 3
            else {"h": 7, "w": 9}
            if n == 2
            else {"w": 9, "...": (2, 3)},
            options={
                "size": 3,
                "padding": 1,
                **({"stride": 2} if n > 1 else {}),
                **({"dilation": 2} if kind == "max" and n == 1 else {}),
            },
        )
        for kind in ("max", "mean")
        for n in (1, 2, 3)
    },
    "max pool, uneven": Entry(
        lambda: pooling.max_pool_over(1),
        sizes={"w": 7, "...": ()},
        options={"size": 2, "padding": ((0, 1),), "stride": 2},
    ),
    "mean pool, far padding": Entry(
        lambda: pooling.mean_pool_over(2), sizes={"h": 5, "w": 7}, options={"size": 2, "padding": (2, 1)}
    ),
    # signals and the worked example
    **{
        f"{mode} {kind}{', b longer' * longer}": Entry(
            lambda kind=kind, mode=mode: getattr(signals, f"{mode}_{kind}"),
            partial(oracles.signals if kind == "convolution" else oracles.correlated, mode=mode),
            (laws.multilinear,),
            sizes={"a": 4, "b": 7} if longer else {"a": 7, "b": 4},
        )
        for mode in ("full", "same", "valid")
        for kind in ("convolution", "correlation")
        for longer in (False, True)
    },
    "slid": Entry(
        lambda: signals.slid,
        oracles.slid,
        (laws.multilinear, partial(laws.shifting, axis="a", to="c", by=1, border=2)),
        sizes={"a": 9, "b": 3},
        options={"before": 1, "after": 2},
    ),
    "shared out": Entry(
        lambda: conv_attention.shared_out,
        oracles.shared_out,
        (partial(laws.linear, argument="value"), partial(same, axis="x"), partial(same, axis="y")),
    ),
    "squared error": Entry(lambda: conv_attention.squared_error, oracles.squared_error, (partial(same, axis="n"),)),
    "conv attention": Entry(
        of(models.ConvAttention, 6, 8, 2, 3, 10, 4, 9),
        lambda module, image, right: oracles.squared_error(oracles.example_logits(module, image), right),
    ),
    "conv attention, logits": Entry(
        method(of(models.ConvAttention, 6, 8, 2, 3, 10, 4, 9), "logits"), oracles.example_logits
    ),
    "conv attention, convolved": Entry(
        method(of(models.ConvAttention, 6, 8, 2, 3, 10, 4, 9), "convolved"), oracles.example_rows
    ),
}

PARAMETERS = {
    "multi-head": 438,
    "multi-head, groups, bool masks": 326,
    "multi-head, rotary, window": 438,
    "multi-head, grouped, rotary, window": 326,
    "remember": 326,
    "recall": 326,
    "steps": 326,
    "feed-forward": 71,
    "encoder layer": 317,
    "encoder layer, norm first": 261,
    "encoder": 646,
    "encoder, no last norm": 264,
    "decoder layer": 551,
    "decoder layer, norm first": 551,
    "decoder": 1114,
    "decoder, no last norm": 551,
    "transformer": 1443,
    "transformer, norm first": 1185,
    "sines": 0,
    "learned positions": 36,
    "rotary positions": 0,
    "language model": 688,
    "language model, logits, untied": 467,
    "language model, generating": 315,
    "language model, generating, learned": 425,
    "sequence to sequence": 934,
    "sequence to sequence, logits, untied": 976,
    "sequence to sequence, generating": 934,
    "mlp": 295,
    "mlp, logits": 295,
    "visual attention": 1113,
    "visual attention, bool mask": 192,
    "patches": 65,
    "vision transformer": 783,
    "vision transformer, mean, logits": 466,
    "vision transformer, features": 478,
    "vision transformer, embedding": 490,
    "vision transformer, encoding": 490,
    "norm and activation": 6,
    "double convolution": 141,
    "double convolution, normed": 147,
    "block": 280,
    "block, biased": 83,
    "resnet": 1621,
    "resnet, logits, biased": 617,
    "down": 141,
    "up": 275,
    "unet": 30555,
    "unet as drawn, logits": 30443,
    "linear": 245,
    "linear, no bias": 15,
    "Convolution": 78,
    "Convolution, same": 21,
    "Convolution, same, even": 27,
    "TransposedConvolution": 76,
    "TransposedConvolution, to a size": 20,
    "SeparableConvolution": 46,
    "conv attention": 339,
    "conv attention, logits": 339,
    "conv attention, convolved": 339,
}
"""How many parameters each module has, by the formula in its docstring."""

CIRCUITS = {name: replace(entry, parameters=PARAMETERS.get(name)) for name, entry in CIRCUITS.items()}
