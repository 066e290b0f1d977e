# Modules are read by the names of their parts, which pyright knows as Tensor or Module.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Every circuit of `models`, with what its author claims of it beyond its signature: a new circuit is a line here.

A claim is a law with its arguments. `reference` is the circuit written a second time, in `oracles`, and is told here
what a module was made with. Options are seldom what they would be unsaid, so that one that gets lost is missed.
test_laws runs them all; test_mutants asks whether they see it when something in the source is changed.
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
    layers,
    resnet,
    signals,
    transformer,
    unet,
    vision_transformer,
)
from models.parts import convolve, generation, pooling, positions
from tests.laws import claims, oracles
from tests.laws.oracles import GPT, PLAIN, VIT, Asked

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
    offers: str = ""
    parameters: int | None = None
    slow: bool = False

    @property
    def also(self) -> tuple[Law, ...]:
        """The claims; and those of reference, parameters (by the docstring's formula), optional tensors and device."""
        same = [partial(laws.equals, reference=self.reference)] if self.reference else []
        counts = [partial(claims.counted, number=self.parameters)] if self.parameters is not None else []
        offers = [partial(claims.offers, names=self.offers)] if self.offers else []
        made = isinstance(self.make, Made) and claims.takes_device(self.make.kind)
        placed = [partial(claims.placed, make=self.make)] if made else []
        return (*self.claims, *same, *counts, *offers, *placed)

    @property
    def told(self) -> dict[str, Any]:
        """What goes to every law."""
        return {"sizes": self.sizes, "inputs": self.inputs, **self.options}


def softened(logits: Callable[..., Tensor], place: int = -1) -> Callable[..., Tensor]:
    """The reference of a classifier: its logits, then softmax."""
    return lambda module, *inputs: oracles.softmax(logits(module, *inputs).movedim(place, -1)).movedim(-1, place)


@dataclass(frozen=True)
class Made:
    """Makes a module, to be used or to be trained; with more options, if it is told more."""

    kind: Callable[..., Any]
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    training: bool = False

    def __call__(self, **more: Any) -> Any:
        """The module."""
        return self.kind(*self.args, **self.options, **more).train(self.training)


def of(kind: Callable[..., Any], *args: Any, **options: Any) -> Made:
    """Makes a module in evaluation."""
    return Made(kind, args, options)


def training(kind: Callable[..., Any], *args: Any, **options: Any) -> Made:
    """Makes a module in training."""
    return Made(kind, args, options, training=True)


def method(make: Callable[[], Any], name: str) -> Callable[[], Any]:
    """Makes one of a module's circuits."""
    return lambda: getattr(make(), name)


same = partial(laws.equivariant)
BOOL = {"mask": torch.bool}
causal_over = partial(partial, laws.causal)
images = {"b": 2, "h": 4, "w": 8}
half = partial(laws.kernel, dtypes=[torch.bfloat16])
batch = partial(laws.independent, axis="b")


def loud(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Makes the same module with large weights, so that the likeliest token hangs on all before it in its text."""

    def made() -> nn.Module:
        module = make()
        with torch.no_grad():
            for name, each in module.named_parameters():
                each.mul_(6 if each.ndim > 1 and "memory" not in name else 1)
        return module

    return made


class Within(nn.Module):
    """What asks another module."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.m = inner, inner.m


class Steps(Within):
    """Attention that is asked one vector at a time, and remembers."""

    @circuit("... x m -> ... x m", fixed="m")
    @torch.no_grad()
    def forward(self, source: Tensor) -> Tensor:
        """All that was said so far answers."""
        cache = self.inner.cache(source.shape[-2], source.shape[:-2])
        pieces = source.split([2, 1, *[1] * (source.shape[-2] - 3)], -2)
        return torch.cat([self.inner(each, each, causal=True, cache=cache) for each in pieces], -2)


class Masked(Within):
    """A layer, or layers, asked one vector at a time, and told which of those before it each may see."""

    @circuit("... y m, ... x m -> ... y m", fixed="m", optional={"mask": "... y y'"})
    @torch.no_grad()
    def forward(self, target: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Each row of the mask in its turn."""
        cache, answers = self.inner.cache(memory, target.shape[-2]), []
        for place, each in enumerate(target.split(1, -2)):
            row = None if mask is None else mask[..., place : place + 1, : place + 1]
            held = {"caches" if isinstance(cache, list) else "cache": cache}
            answers.append(self.inner(each, memory, row, **held))
        return torch.cat(answers, -2)


class MaskedHeads(Within):
    """The same of attention, or of a layer with it, and with a mask for each head."""

    @circuit("... x m -> ... x m", fixed="m", optional={"mask": "... x x'", "head_mask": "... 4 x x'"})
    @torch.no_grad()
    def forward(self, source: Tensor, mask: Tensor | None = None, *, head_mask: Tensor | None = None) -> Tensor:
        """Each row of the masks in its turn."""
        attend, answers = getattr(self.inner, "attention", self.inner), []
        cache = attend.cache(source.shape[-2], source.shape[:-2])
        for place, each in enumerate(source.split(1, -2)):
            row, rows = (None if one is None else one[..., place : place + 1, : place + 1] for one in (mask, head_mask))
            asked = (each, each) if attend is self.inner else (each,)
            answers.append(self.inner(*asked, row, head_mask=rows, causal=True, cache=cache))
        return torch.cat(answers, -2)


class Again(Within):
    """The same, but every step is taken back once, and taken again."""

    @circuit("... x m -> ... x m", fixed="m")
    @torch.no_grad()
    def forward(self, source: Tensor) -> Tensor:
        """What a cache forgets it never had."""
        cache, answers = self.inner.cache(source.shape[-2], source.shape[:-2]), []
        for place, each in enumerate(source.split(1, -2)):
            self.inner(-each, -each, causal=True, cache=cache)
            cache.truncate(place)
            answers.append(self.inner(each, each, causal=True, cache=cache))
        return torch.cat(answers, -2)


def spoken(module: Any, tokens: Tensor, count: int, *, asked: Asked = GPT, **choice: Any) -> Tensor:
    """The reference of a language model that generates."""
    return oracles.longer(tokens, count, partial(oracles.language_logits, module, asked=asked), **choice)


def translated(
    module: Any,
    source: Tensor,
    target: Tensor,
    count: int,
    *,
    asked: Asked = PLAIN,
    padding: int | None = None,
    **choice: Any,
) -> Tensor:
    """The reference of one that translates."""

    def logits(grown: Tensor) -> Tensor:
        return oracles.translated_logits(module, source, grown, asked=asked, padding=padding)

    return oracles.longer(target, count, logits, **choice)


def transposed(module: Any, image: Tensor, **options: Any) -> Tensor:
    """torch's own transposed convolution."""
    run = (torch.nn.functional.conv_transpose1d, torch.nn.functional.conv_transpose2d)[module.weight.ndim - 3]
    return run(image, module.weight, module.bias, **options)


def forward(module: Any, image: Tensor, border: tuple[int, ...] = (), mode: str = "constant", **options: Any) -> Tensor:
    """torch's own convolution, of an image that is padded before."""
    run = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)[module.weight.ndim - 3]
    return run(torch.nn.functional.pad(image, border, mode), module.weight, module.bias, **options)


def separable(module: Any, image: Tensor, **options: Any) -> Tensor:
    """torch's own convolutions, channel by channel and then place by place."""
    return forward(module.pointwise, forward(module.depthwise, image, **options))


def circular(module: Any, image: Tensor) -> Tensor:
    """A transposed convolution of a circular one with three places and two of padding: the sum it is a gradient of."""
    start = image.new_zeros(*image.shape[:-2], module.weight.shape[1], image.shape[-1] - 2, requires_grad=True)
    padded = torch.nn.functional.pad(start, (2, 2), "circular")
    answer = torch.nn.functional.conv1d(padded, module.weight)
    (found,) = torch.autograd.grad(answer, start, image, create_graph=True)
    return found + module.bias[:, None]


def glorot(module: nn.Module) -> Mapping[str, float]:
    """Bounds of a transformer's weights, those of queries, keys and values as of one; norms begin otherwise."""
    bounds = {}
    for name, each in module.named_parameters():
        if each.ndim == 2 and "embedding" not in name:
            boxes = 3 if name.endswith(("Lq.weight", "Lk.weight", "Lv.weight")) else 1
            bounds[name] = (6 / (each.shape[1] + boxes * each.shape[0])) ** 0.5
        elif name.endswith("bias"):
            bounds[name] = 0.0
    return bounds


def turning(**options: Any) -> nn.Module:
    """Attention with groups, rotary positions of another base, and a window."""
    return mha(groups=2, rotary=positions.RotaryPositions(4, base=50.0), window=3, **options)


def turning_layer(kind: Callable[..., nn.Module] = transformer.EncoderLayer, **options: Any) -> nn.Module:
    """A layer with the same."""
    return kind(**small, groups=1, rotary=positions.RotaryPositions(4, base=50.0), window=3, **options)


mha = partial(models.MultiHeadAttention, m=6, k=4, h=4, bias=True)
rotary = partial(positions.RotaryPositions, 4)
small = {"m": 6, "k": 4, "h": 2, "f": 5}
unlike = {"norm_first": True, "activation": nn.GELU, "bias": False, "eps": 0.1}
UNLIKE = Asked(norm_first=True, activation=oracles.gelu, eps=0.1)
TURNING = Asked(base=50.0, window=3)
tokens = {"tokens": range(7)}
pair = {"source": range(7), "target": range(7)}
windows = {"i'": 3, "j'": 5, "u'": 2, "v'": 3}
VISUAL = {"b": 2, "i": 6, "j": 11, "u": 4, "v": 7, **windows}
DRAWN = {"broadcasting": "every call draws anew"}
UNTIL = {"shapes": "numbers say when to stop"} | dict.fromkeys(
    ("broadcasting", "independent"), "a sequence goes on until the last has stopped"
)

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
            claims.untouched,
            half,
        ),
        offers="mask",
    ),
    "attention, bool mask": Entry(lambda: attention.attention, oracles.attention, (half,), inputs=BOOL),
    "attention, one of each": Entry(
        lambda: attention.attention, oracles.attention, sizes={"y": 1, "x": 1, "k": 1, "...": (1, 1)}
    ),
    "attention, of one example": Entry(
        lambda: attention.attention, oracles.attention, (claims.mapped,), sizes={"...": ()}, options={"causal": True}
    ),
    "attention, dropping": Entry(
        lambda: attention.attention,
        oracles.attention,
        sizes={"...": (2, 3)},
        options={"dropout": 0.4},
        claims=(half,),
        without=DRAWN,
    ),
    "attention, causal": Entry(
        lambda: attention.attention,
        oracles.attention,
        (partial(laws.causal, axis="y", of="x"), half),
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
    **{
        f"attention, a mask of {axes} axes for many": Entry(
            lambda: attention.attention,
            oracles.attention,
            sizes={"...": (2, 3, 2)},
            inputs={"mask": lambda shape, axes=axes: torch.rand(tuple(shape)[-axes:]) < 0.5},
            without={"independent": "one mask is for many"},
        )
        for axes in (2, 3)
    },
    "attention, one early query": Entry(
        lambda: attention.attention, oracles.attention, sizes={"y": 1, "x": 5}, options={"causal": True, "start": 1}
    ),
    "attention, start beyond a window": Entry(
        lambda: attention.attention,
        oracles.attention,
        sizes={"y": 2, "x": 7},
        options={"causal": True, "window": 2, "start": 4},
    ),
    "attention, start beyond a window, few keys": Entry(
        lambda: attention.attention,
        oracles.attention,
        sizes={"y": 2, "x": 5},
        options={"causal": True, "window": 2, "start": 4},
    ),
    "attention, start at a window": Entry(
        lambda: attention.attention, oracles.attention, sizes={"y": 3, "x": 7}, options={"window": 2, "start": 2}
    ),
    "grouped attention": Entry(
        lambda: attention.grouped_attention, oracles.grouped_attention, (partial(same, axis="x"), half), offers="mask"
    ),
    "grouped attention, many axes": Entry(
        lambda: attention.grouped_attention, oracles.grouped_attention, sizes={"...": (2, 3)}, options={"causal": True}
    ),
    "grouped attention, dropping": Entry(
        lambda: attention.grouped_attention,
        oracles.grouped_attention,
        options={"dropout": 0.4, "window": 2, "start": 1, "causal": True},
        without=DRAWN,
    ),
    "multi-head": Entry(
        of(mha), oracles.multi_head, (partial(same, axis="y"), partial(same, axis="x")), offers="mask head_mask"
    ),
    "multi-head, groups, bool masks": Entry(
        of(mha, groups=2, dropout=0.4), oracles.multi_head, inputs={"mask": torch.bool, "head_mask": torch.bool}
    ),
    "multi-head, dropping": Entry(
        training(mha, dropout=0.4), partial(oracles.multi_head, asked=Asked(dropout=0.4)), without=DRAWN
    ),
    "multi-head, rotary, window": Entry(
        lambda: mha(rotary=rotary(), window=3),
        partial(oracles.multi_head, asked=Asked(base=10000.0, window=3)),
        (partial(laws.causal, axis="y", of="x", reach=3),),
        sizes={"y": 5, "x": 7},
        options={"causal": True},
    ),
    "multi-head, grouped, rotary, window": Entry(
        of(turning),
        partial(oracles.multi_head, asked=TURNING),
        sizes={"y": 5, "x": 7},
        inputs={"head_mask": torch.bool},
        options={"causal": True},
    ),
    "remember": Entry(method(turning, "remember"), partial(oracles.remember, asked=TURNING), options={"start": 2}),
    "recall": Entry(
        method(turning, "recall"),
        partial(oracles.recall, asked=TURNING),
        options={"start": 2, "causal": True},
        offers="mask head_mask",
    ),
    "steps": Entry(
        lambda: Steps(mha(groups=2, rotary=rotary(), window=4)),
        lambda module, x: oracles.multi_head(module.inner, x, x, causal=True, asked=Asked(base=10000.0, window=4)),
        (partial(laws.causal, axis="x", reach=4), claims.cached),
        sizes={"x": 7},
    ),
    "steps taken back": Entry(
        lambda: Again(mha()), lambda module, x: oracles.multi_head(module.inner, x, x, causal=True), sizes={"x": 4}
    ),
    "steps, masked": Entry(
        lambda: MaskedHeads(mha()),
        lambda module, x, mask=None, **masks: oracles.multi_head(module.inner, x, x, mask, causal=True, **masks),
        sizes={"x": 4},
    ),
    # transformers
    "feed-forward": Entry(of(layers.FeedForward, 6, 5), oracles.feed_forward, (partial(same, axis="..."),)),
    "feed-forward, GELU, dropping": Entry(
        training(layers.FeedForward, 6, 5, nn.GELU, dropout=0.4, bias=False),
        partial(oracles.feed_forward, asked=Asked(activation=oracles.gelu, dropout=0.4)),
        without=DRAWN,
    ),
    "encoder layer": Entry(
        of(transformer.EncoderLayer, **small),
        oracles.encoder_layer,
        (partial(same, axis="x"),),
        inputs=BOOL,
        offers="mask head_mask source",
    ),
    "encoder layer, norm first": Entry(
        of(turning_layer, norm_first=True, dropout=0.4),
        partial(oracles.encoder_layer, asked=replace(TURNING, norm_first=True)),
        sizes={"x": 5},
        inputs={"source": None},
        options={"causal": True},
        claims=(partial(laws.causal, axis="x", reach=3),),
    ),
    "encoder layer, norm first, its own source": Entry(
        of(transformer.EncoderLayer, **small, **unlike), partial(oracles.encoder_layer, asked=UNLIKE)
    ),
    **{
        f"{name}, dropping{', norm first' * first}": Entry(
            training(kind, **small, norm_first=first, dropout=0.4),
            partial(reference, asked=Asked(norm_first=first, dropout=0.4)),
            inputs={"source": None} if name == "encoder layer" else {},
            without=DRAWN,
        )
        for name, kind, reference in (
            ("encoder layer", transformer.EncoderLayer, oracles.encoder_layer),
            ("decoder layer", transformer.DecoderLayer, oracles.decoder_layer),
        )
        for first in (False, True)
    },
    "encoder layer, steps, masked": Entry(
        lambda: MaskedHeads(transformer.EncoderLayer(m=6, k=4, h=4, f=5)),
        lambda module, x, mask=None, **masks: oracles.encoder_layer(module.inner, x, mask, causal=True, **masks),
        sizes={"x": 4},
    ),
    "encoder": Entry(
        of(transformer.Encoder, **small, depth=2), oracles.encoder, (partial(same, axis="x"),), offers="mask"
    ),
    "encoder, no last norm": Entry(
        of(transformer.Encoder, **small, **unlike, depth=1, final_norm=False),
        partial(oracles.encoder, asked=replace(UNLIKE, final_norm=False)),
        (partial(laws.causal, axis="x"),),
        options={"causal": True},
    ),
    "encoder, unlike, dropping": Entry(
        training(transformer.Encoder, **small, **unlike, depth=1, dropout=0.4),
        partial(oracles.encoder, asked=replace(UNLIKE, dropout=0.4)),
        without=DRAWN,
    ),
    "decoder layer": Entry(
        of(transformer.DecoderLayer, **small),
        oracles.decoder_layer,
        (partial(laws.causal, axis="y"), partial(same, axis="x")),
        offers="mask memory_mask",
    ),
    "decoder layer, norm first": Entry(
        of(transformer.DecoderLayer, **small, **unlike, dropout=0.4),
        partial(oracles.decoder_layer, asked=UNLIKE),
        options={"causal": False},
        inputs={"mask": torch.bool, "memory_mask": torch.bool},
    ),
    "decoder layer, rotary, window": Entry(
        of(turning_layer, transformer.DecoderLayer),
        partial(oracles.decoder_layer, asked=TURNING),
        sizes={"y": 5, "x": 7},
        inputs={"mask": None, "memory_mask": None},
    ),
    **{
        f"decoder layer, steps, masked{', norm first' * first}": Entry(
            lambda first=first: Masked(transformer.DecoderLayer(**small, norm_first=first)),
            lambda module, target, memory, mask=None, first=first: oracles.decoder_layer(
                module.inner, target, memory, mask, asked=Asked(norm_first=first)
            ),
            sizes={"y": 4, "x": 3},
            slow=first,
        )
        for first in (False, True)
    },
    "decoder, steps, masked": Entry(
        lambda: Masked(transformer.Decoder(**small, depth=2)),
        lambda module, target, memory, mask=None: oracles.decoder(module.inner, target, memory, mask, None),
        sizes={"y": 4, "x": 3},
        slow=True,
    ),
    "decoder": Entry(
        of(transformer.Decoder, **small, depth=2),
        oracles.decoder,
        (partial(laws.causal, axis="y"),),
        offers="mask memory_mask",
    ),
    "decoder, no last norm": Entry(
        of(transformer.Decoder, **small, **unlike, depth=1, final_norm=False),
        partial(oracles.decoder, asked=replace(UNLIKE, final_norm=False)),
        options={"causal": False},
    ),
    "decoder, unlike, dropping": Entry(
        training(transformer.Decoder, **small, **unlike, depth=1, dropout=0.4),
        partial(oracles.decoder, asked=replace(UNLIKE, dropout=0.4)),
        inputs={"mask": None, "memory_mask": None},
        without=DRAWN,
    ),
    "transformer": Entry(
        of(models.Transformer, **small, encoder_depth=1, decoder_depth=2),
        oracles.transformer,
        (partial(laws.causal, axis="y"), partial(claims.begins, uniform=glorot)),
        offers="source_mask target_mask memory_mask",
    ),
    "transformer, norm first": Entry(
        of(models.Transformer, **small, **unlike, encoder_depth=2, decoder_depth=1, final_norm=False),
        partial(oracles.transformer, asked=replace(UNLIKE, final_norm=False)),
        options={"causal": False},
    ),
    "transformer, unlike, dropping": Entry(
        training(models.Transformer, **small, **unlike, encoder_depth=1, decoder_depth=1, dropout=0.4),
        partial(oracles.transformer, asked=replace(UNLIKE, dropout=0.4)),
        inputs={"source_mask": None, "target_mask": None, "memory_mask": None},
        without=DRAWN,
        slow=True,
    ),
    "sines": Entry(
        of(positions.SinusoidalPositions, 5), lambda module, x, start: oracles.waves(x, start), options={"start": 3}
    ),
    "learned positions": Entry(of(positions.LearnedPositions, 9, m=4), oracles.learned, options={"start": 2}),
    "rotary positions": Entry(
        of(positions.RotaryPositions, 4, base=50.0),
        partial(oracles.turned, base=50.0),
        (partial(laws.linear, argument="input"),),
        options={"start": 2},
    ),
    "language model": Entry(
        of(models.LanguageModel, 7, **small, depth=2, dropout=0.4),
        softened(oracles.language_logits),
        (partial(laws.causal, axis="x"), claims.whole),
        sizes={"x": 5},
        inputs=tokens,
    ),
    "language model, logits, untied": Entry(
        method(
            of(
                models.LanguageModel,
                7,
                **small,
                depth=1,
                activation=nn.ReLU,
                groups=1,
                window=3,
                learned_positions=9,
                tied=False,
                bias=False,
                eps=0.1,
            ),
            "logits",
        ),
        partial(
            oracles.language_logits,
            asked=replace(GPT, activation=oracles.relu, base=None, window=3, eps=0.1),
            tied=False,
        ),
        (claims.whole,),
        sizes={"x": 5},
        inputs=tokens,
    ),
    "language model, logits, dropping": Entry(
        method(training(models.LanguageModel, 7, **small, depth=1, dropout=0.4), "logits"),
        partial(oracles.language_logits, asked=replace(GPT, dropout=0.4)),
        sizes={"x": 5},
        inputs=tokens,
        without=DRAWN,
    ),
    "language model, generating": Entry(
        method(loud(of(models.LanguageModel, 7, **small, depth=1, groups=1, window=4)), "generate"),
        partial(spoken, asked=replace(GPT, window=4)),
        (claims.whole,),
        sizes={"x": 3},
        inputs=tokens,
        options={"count": 4},
    ),
    "language model, generating, learned": Entry(
        method(loud(of(models.LanguageModel, 7, **small, depth=1, learned_positions=9)), "generate"),
        partial(spoken, asked=replace(GPT, base=None)),
        sizes={"x": 3},
        inputs=tokens,
        options={"count": 4},
    ),
    "language model, stopping": Entry(
        method(loud(of(models.LanguageModel, 3, **small, depth=1)), "generate"),
        spoken,
        sizes={"x": 2, "...": (5, 2)},
        inputs={"tokens": range(3)},
        options={"count": 6, "stop": 1},
        without=UNTIL,
    ),
    "language model, drawing": Entry(
        method(loud(of(models.LanguageModel, 7, **small, depth=1)), "generate"),
        spoken,
        (claims.drawn_by,),
        sizes={"x": 2, "...": (5,)},
        inputs=tokens,
        options={"count": 9, "temperature": 5.0, "top_k": 5},
        without=DRAWN,
        slow=True,
    ),
    "sequence to sequence": Entry(
        of(
            models.SequenceToSequence,
            7,
            **small,
            encoder_depth=1,
            decoder_depth=1,
            padding=2,
        ),
        softened(partial(oracles.translated_logits, padding=2)),
        (partial(laws.causal, axis="y"), claims.whole, partial(claims.begins, uniform=glorot)),
        sizes={"x": 5, "y": 3},
        inputs=pair,
    ),
    "sequence to sequence, logits, untied": Entry(
        method(
            of(
                models.SequenceToSequence,
                7,
                **small,
                **unlike,
                encoder_depth=2,
                decoder_depth=1,
                final_norm=False,
                tied=False,
            ),
            "logits",
        ),
        partial(oracles.translated_logits, asked=replace(UNLIKE, final_norm=False), tied=False),
        (claims.whole,),
        sizes={"x": 5, "y": 3},
        inputs=pair,
    ),
    "sequence to sequence, logits, dropping": Entry(
        method(
            training(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1, dropout=0.4),
            "logits",
        ),
        partial(oracles.translated_logits, asked=Asked(dropout=0.4)),
        sizes={"x": 5, "y": 3},
        inputs=pair,
        without=DRAWN,
        slow=True,
    ),
    "sequence to sequence, generating": Entry(
        method(
            loud(of(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1, padding=2)), "generate"
        ),
        partial(translated, padding=2),
        (claims.whole,),
        sizes={"x": 5, "y": 2, "...": (12,)},
        inputs=pair,
        options={"count": 4},
    ),
    "sequence to sequence, stopping": Entry(
        method(loud(of(models.SequenceToSequence, 3, **small, **unlike, encoder_depth=1, decoder_depth=2)), "generate"),
        partial(translated, asked=UNLIKE),
        sizes={"x": 5, "y": 2, "...": (12,)},
        inputs={"source": range(3), "target": range(3)},
        options={"count": 5, "stop": 1},
        without=UNTIL,
    ),
    "sequence to sequence, drawing": Entry(
        method(loud(of(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1)), "generate"),
        translated,
        (claims.drawn_by,),
        sizes={"x": 5, "y": 2, "...": (12,)},
        inputs=pair,
        options={"count": 9, "temperature": 5.0, "top_k": 5},
        without=DRAWN,
        slow=True,
    ),
    "choose": Entry(lambda: generation.choose, lambda logits: logits.argmax(-1), (partial(same, axis="..."),)),
    "choose from one": Entry(
        lambda: generation.choose,
        lambda logits, temperature, top_k: logits.argmax(-1),
        options={"temperature": 0.5, "top_k": 1},
    ),
    "choose, cold": Entry(
        lambda: generation.choose, lambda logits, temperature: logits.argmax(-1), options={"temperature": 1e-308}
    ),
    "choose, drawing": Entry(
        lambda: generation.choose,
        oracles.drawn,
        (claims.drawn_by,),
        sizes={"v": 7, "...": (30, 2)},
        options={"temperature": 0.7},
        without=DRAWN,
    ),
    "choose, drawing from some": Entry(
        lambda: generation.choose,
        oracles.drawn,
        sizes={"v": 7, "...": (30, 2)},
        options={"temperature": 2.0, "top_k": 3},
        without=DRAWN,
    ),
    # images
    "mlp": Entry(of(models.MLP, 4, 6, 7, 8), softened(oracles.mlp_logits)),
    "mlp, logits": Entry(method(of(models.MLP, 4, 6, 7, 8), "logits"), oracles.mlp_logits),
    "visual attention": Entry(
        of(models.VisualAttention, c=3, k=5, heads=2, kernel=3, stride=2, bias=True, dropout=0.4),
        partial(oracles.visual, k=5, kernel=3, stride=2),
        (batch, claims.laid_out),
        sizes=VISUAL,
        offers="mask",
    ),
    "visual attention, dropping": Entry(
        training(models.VisualAttention, c=3, k=5, heads=2, kernel=3, stride=2, dropout=0.4),
        partial(oracles.visual, k=5, kernel=3, stride=2, dropout=0.4),
        sizes=VISUAL,
        without=DRAWN,
    ),
    "visual attention, bool mask": Entry(
        of(models.VisualAttention, c=2, k=3, heads=2, kernel=2, stride=1),
        partial(oracles.visual, k=3, kernel=2, stride=1),
        (claims.laid_out,),
        sizes={"b": 2, "i": 3, "j": 5, "u": 4, "v": 2, "i'": 2, "j'": 4, "u'": 3, "v'": 1},
        inputs=BOOL,
    ),
    "visual attention, no larger than a window": Entry(
        of(models.VisualAttention, c=3, k=5, heads=2, kernel=3, stride=3),
        partial(oracles.visual, k=5, kernel=3, stride=3),
        sizes={"b": 1, "i": 3, "j": 3, "u": 3, "v": 4, "i'": 1, "j'": 1, "u'": 1, "v'": 2},
    ),
    "patches": Entry(
        of(vision_transformer.Patches, p=3, m=5, c=4),
        partial(oracles.patches, p=3),
        (batch,),
        sizes={"b": 2, "i": 1, "j": 5},
    ),
    "vision transformer": Entry(
        of(models.VisionTransformer, (4, 6), 2, **small, depth=2, classes=5, in_channels=2, dropout=0.4),
        softened(oracles.vision_logits),
        (batch,),
    ),
    "vision transformer, mean, logits": Entry(
        method(
            of(
                models.VisionTransformer,
                4,
                2,
                **small,
                depth=1,
                classes=5,
                class_token=False,
                activation=nn.ReLU,
                eps=0.1,
            ),
            "logits",
        ),
        partial(
            oracles.vision_logits, class_token=False, asked=Asked(norm_first=True, activation=oracles.relu, eps=0.1)
        ),
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
    "vision transformer, encoding, dropping": Entry(
        method(training(models.VisionTransformer, 4, 2, **small, depth=1, classes=5, dropout=0.4), "encode"),
        partial(oracles.vision_encoded, asked=replace(VIT, dropout=0.4)),
        without=DRAWN,
    ),
    "norm and activation": Entry(of(layers.NormActivate, 3), oracles.norm_activated, (batch, claims.untouched)),
    "no norm, and activation": Entry(
        lambda: layers.NormActivate(3, lambda n: nn.Identity()), lambda image: oracles.relu(image), (claims.untouched,)
    ),
    "double convolution": Entry(of(layers.DoubleConvolution, 2, 3), oracles.double_convolution, (batch,)),
    "double convolution, GELU": Entry(
        of(layers.DoubleConvolution, 2, 3, nn.GELU), partial(oracles.double_convolution, activation=oracles.gelu)
    ),
    "double convolution, normed": Entry(
        of(layers.DoubleConvolution, 2, 3, nn.GELU, norm=nn.BatchNorm2d),
        partial(oracles.double_convolution, norm=True, activation=oracles.gelu),
        (batch,),
    ),
    "block": Entry(of(resnet.Block, 2, 3, 3, 8), partial(oracles.block, s=2), (batch,), sizes=images),
    "block, biased": Entry(
        of(resnet.Block, 3, 2, 3, 4, bias=True), partial(oracles.block, s=3), sizes={"b": 2, "h": 6, "w": 9}
    ),
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
    "up, from many channels": Entry(
        of(unet.UpScaleBlock, 12, 16),
        oracles.up,
        (
            partial(
                claims.begins_normal,
                deviations={
                    "upscale.weight": (2 / 12) ** 0.5,
                    "double_convolution.first.weight": (2 / (9 * 24)) ** 0.5,
                    "double_convolution.second.weight": (2 / (9 * 12)) ** 0.5,
                },
            ),
        ),
        sizes={"b": 1, "h": 1, "w": 2},
    ),
    "unet": Entry(
        of(models.UNet, classes=3, channels=2, in_channels=3),
        softened(oracles.unet_logits, -3),
        (batch,),
        sizes={"b": 2, "h": 16, "w": 32},
        slow=True,
    ),
    "unet as drawn, logits": Entry(
        method(of(models.UNet.as_drawn, classes=4, channels=1, in_channels=3), "logits"),
        oracles.unet_logits,
        (claims.laid_out,),
        sizes={"b": 2, "h": 16, "w": 32},
        slow=True,
    ),
    "channels last": Entry(lambda: layers.channels_last, lambda image: image, (laws.multilinear, claims.laid_out_last)),
    "channels first": Entry(lambda: layers.channels_first, lambda image: image, (laws.multilinear, claims.laid_out)),
    # linear maps and windows
    "linear": Entry(
        of(layers.Linear, "m a -> h k", m=3, a=2, h=5, k=7), partial(oracles.joined, inputs=2, outputs=(5, 7))
    ),
    "linear, no bias": Entry(
        of(layers.Linear, "... m -> ... k", m=3, k=5, bias=False),
        partial(oracles.joined, inputs=1, outputs=(5,)),
        (laws.multilinear,),
    ),
    "linear, from and to one number": Entry(
        of(layers.Linear, "a ->", a=3), partial(oracles.joined, inputs=1, outputs=())
    ),
    **{
        f"convolution {n}d": Entry(
            lambda n=n: convolve.convolution_over(n),
            None,
            (
                claims.pickled,
                *((partial(laws.linear, argument="image"), partial(laws.linear, argument="weight")) if n == 2 else ()),
            ),
            sizes=dict(zip("dhwlij", (5, 6, 7, 2, 3, 2), strict=True))
            if n == 3
            else {"h": 7, "w": 9, "i": 2, "j": 3}
            if n == 2
            else {"w": 9, "j": 3},
            inputs={"bias": None} if n == 2 else {},
            options={"stride": 2, "padding": 1, "dilation": 1 if n == 3 else (1, 2) if n == 2 else 2},
            offers="" if n == 2 else "bias",
        )
        for n in (1, 2, 3)
    },
    "convolution, as torch's": Entry(
        lambda: convolve.convolution_over(2),
        lambda image, weight, bias=None, **options: torch.nn.functional.conv2d(image, weight, bias, **options),
        sizes={"h": 7, "w": 9, "i": 2, "j": 3, "...": (2,)},
        options={"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
    ),
    "convolution, reflected": Entry(
        lambda: convolve.convolution_over(2),
        sizes={"h": 7, "w": 9, "i": 2, "j": 3},
        options={"padding": (1, (2, 0)), "mode": "reflect"},
    ),
    "convolution, uneven": Entry(
        lambda: convolve.convolution_over(1),
        claims=(partial(laws.shifting, axis="w", to="w'", by=2, border=1),),
        sizes={"w": 11, "j": 3, "...": (2, 3)},
        options={"padding": ((1, 2),), "stride": 2},
    ),
    "convolution, circular": Entry(
        lambda: convolve.convolution_over(1),
        sizes={"w": 7, "j": 3},
        options={"padding": 1, "mode": "circular"},
    ),
    "convolution, of one place": Entry(
        lambda: convolve.convolution_over(1), sizes={"w": 1, "j": 1, "c": 1, "k": 1, "...": ()}
    ),
    "grouped convolution": Entry(
        lambda: convolve.grouped_convolution_over(2),
        lambda image, weight, bias=None, **options: torch.nn.functional.conv2d(
            image, weight.flatten(0, 1), bias, groups=2, **options
        ),
        (claims.pickled,),
        sizes={"g": 2, "c": 3, "k": 5, "h": 7, "w": 9, "i": 2, "j": 3},
        options={"stride": (1, 2), "padding": 1},
        offers="bias",
    ),
    "grouped convolution, replicated": Entry(
        lambda: convolve.grouped_convolution_over(1),
        sizes={"g": 2, "c": 3, "k": 5, "w": 9, "j": 3, "...": (2, 2)},
        options={"stride": 2, "padding": ((0, 2),), "mode": "replicate", "dilation": 2},
    ),
    "convolution 4d": Entry(
        lambda: convolve.convolution_over(4),
        sizes={"c": 2, "k": 3, "x0": 2, "x1": 3, "x2": 2, "x3": 3, "i0": 1, "i1": 2, "i2": 2, "i3": 2, "...": ()},
        claims=(partial(laws.linear, argument="image"), claims.pickled),
        inputs={"bias": None},
    ),
    "transposed convolution 1d": Entry(
        lambda: convolve.transposed_convolution_over(1),
        lambda image, weight, bias=None, **options: torch.nn.functional.conv_transpose1d(
            image, weight, bias, **options
        ),
        (claims.pickled,),
        sizes={"w'": 5, "j": 3, "...": (2,)},
        options={"stride": 2, "padding": 1, "output_padding": 1, "dilation": 2},
        offers="bias",
    ),
    "transposed convolution 2d": Entry(
        lambda: convolve.transposed_convolution_over(2),
        sizes={"h'": 3, "w'": 5, "i": 3, "j": 2},
        options={"stride": (2, 1), "output_padding": (1, 0)},
    ),
    "transposed convolution, uneven": Entry(
        lambda: convolve.transposed_convolution_over(1),
        sizes={"w'": 5, "j": 3},
        options={"stride": 2, "padding": ((1, 2),), "dilation": 2},
    ),
    "transposed convolution, reflected": Entry(
        lambda: convolve.transposed_convolution_over(2),
        sizes={"h'": 6, "w'": 5, "i": 3, "j": 2},
        options={"padding": (1, (0, 1)), "mode": "reflect"},
    ),
    "transposed convolution, circular, far": Entry(
        lambda: convolve.transposed_convolution_over(1),
        sizes={"w'": 5, "j": 3},
        options={"padding": 2, "mode": "circular", "stride": 2, "output_padding": 1, "dilation": 2},
    ),
    "grouped transposed convolution": Entry(
        lambda: convolve.grouped_transposed_convolution_over(1),
        lambda image, weight, bias=None, **options: torch.nn.functional.conv_transpose1d(
            image, weight.flatten(0, 1), bias, groups=2, **options
        ),
        (claims.pickled,),
        sizes={"g": 2, "c": 3, "k": 5, "w'": 5, "j": 3, "...": (2,)},
        options={"stride": 2, "output_padding": 1},
        offers="bias",
    ),
    "Convolution": Entry(
        of(convolution.Convolution, "c h w -> k h' w'", c=4, k=6, kernel=(3, 2), stride=2, padding=1, groups=2),
        partial(forward, stride=2, padding=1, groups=2),
        sizes={"h": 7, "w": 9, "...": (2,)},
    ),
    "Convolution, same": Entry(
        of(convolution.Convolution, "c w -> k w", c=4, k=3, kernel=3, padding="same", dilation=2, bias=False),
        partial(forward, padding=2, dilation=2),
        sizes={"w": 7, "...": (2,)},
    ),
    "Convolution, same, even": Entry(
        of(convolution.Convolution, "c w -> k w", c=4, k=3, kernel=4, padding="same", mode="circular"),
        partial(forward, border=(1, 2), mode="circular"),
        sizes={"w": 7, "...": (2,)},
    ),
    "Convolution, settled": Entry(
        of(
            convolution.Convolution,
            "c h w -> k h' w'",
            c=4,
            k=6,
            kernel=[3, 2],
            stride=[2, 1],
            padding=[[1, 0], 2],
            dilation=[1, 2],
            mode="reflect",
        ),
        partial(forward, border=(2, 2, 1, 0), mode="reflect", stride=(2, 1), dilation=(1, 2)),
        sizes={"h": 7, "w": 9, "...": (2,)},
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
        partial(transposed, stride=2, padding=1, groups=2, output_padding=1),
        sizes={"h'": 3, "w'": 5, "...": (2,)},
    ),
    "TransposedConvolution, settled": Entry(
        of(
            convolution.TransposedConvolution,
            "k h' w' -> c h w",
            c=4,
            k=6,
            kernel=[3, 2],
            stride=[2, 1],
            padding=[1, 0],
            output_padding=[1, 0],
            dilation=[1, 2],
            bias=False,
        ),
        partial(transposed, stride=(2, 1), padding=(1, 0), output_padding=(1, 0), dilation=(1, 2)),
        sizes={"h'": 3, "w'": 5, "...": (2,)},
    ),
    "TransposedConvolution, circular": Entry(
        of(convolution.TransposedConvolution, "k w' -> c w", c=4, k=3, kernel=3, padding=2, mode="circular"),
        circular,
        sizes={"w'": 8, "...": (2,)},
    ),
    "TransposedConvolution, to a size": Entry(
        of(convolution.TransposedConvolution, "k w' -> c w", c=4, k=3, kernel=3, stride=3),
        lambda module, image, size: transposed(module, image, stride=3, output_padding=size[0] - 15),
        sizes={"w'": 5, "...": (2,)},
        options={"size": (16,)},
    ),
    "SeparableConvolution": Entry(
        of(convolution.SeparableConvolution, "c h w -> k h' w'", c=4, k=6, kernel=3, stride=2, padding=1),
        partial(separable, stride=2, padding=1, groups=4),
        sizes={"h": 7, "w": 9, "...": (2,)},
    ),
    "SeparableConvolution, unlike": Entry(
        of(
            convolution.SeparableConvolution,
            "c w -> k w'",
            c=4,
            k=6,
            kernel=3,
            padding=((1, 2),),
            dilation=2,
            mode="replicate",
            bias=False,
        ),
        partial(separable, border=(1, 2), mode="replicate", dilation=2, groups=4),
        sizes={"w": 9, "...": (2,)},
    ),
    **{
        f"{kind} pool {n}d": Entry(
            lambda kind=kind, n=n: getattr(pooling, f"{kind}_pool_over")(n),
            claims=(claims.pickled,),
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
    "max pool 4d": Entry(
        lambda: pooling.max_pool_over(4),
        claims=(partial(laws.shifting, axis="x3", to="x3'", by=2, border=1),),
        sizes={"x0": 2, "x1": 3, "x2": 4, "x3": 9, "...": (2,)},
        options={"size": (1, 2, 2, 3), "stride": (1, 1, 2, 2), "padding": (0, 0, 0, 1)},
    ),
    "mean pool 4d": Entry(
        lambda: pooling.mean_pool_over(4),
        claims=(laws.multilinear,),
        sizes={"x0": 2, "x1": 3, "x2": 4, "x3": 5, "...": (2,)},
        options={"size": 2, "padding": 1},
    ),
    "max pool, uneven": Entry(
        lambda: pooling.max_pool_over(1),
        sizes={"w": 7, "...": ()},
        options={"size": 2, "padding": ((0, 1),), "stride": 2},
    ),
    "max pool, one by one": Entry(
        lambda: pooling.max_pool_over(2),
        lambda image, size, **options: torch.nn.functional.max_pool2d(image, size, **options),
        sizes={"h": 7, "w": 9, "...": (3,)},
        options={"size": (3, 2), "padding": (1, 0), "dilation": (2, 1)},
    ),
    "max pool, far padding": Entry(
        lambda: pooling.max_pool_over(2), sizes={"h": 5, "w": 7}, options={"size": 3, "padding": (0, 2), "dilation": 2}
    ),
    "mean pool, one by one": Entry(
        lambda: pooling.mean_pool_over(2),
        lambda image, size, **options: torch.nn.functional.avg_pool2d(image, size, **options),
        sizes={"h": 7, "w": 9, "...": (3,)},
        options={"size": (3, 2), "padding": (1, 0), "stride": (1, 2)},
    ),
    "mean pool, far padding": Entry(
        lambda: pooling.mean_pool_over(2), sizes={"h": 5, "w": 7}, options={"size": 2, "padding": (2, 1)}
    ),
    **{
        f"{kind} pool, of one place, far{', in a tuple' * several}": Entry(
            lambda kind=kind: getattr(pooling, f"{kind}_pool_over")(1),
            sizes={"w": 5, "...": (2,)},
            options={"size": (1,), "padding": (2,), "stride": 3} if several else {"size": 1, "padding": 2, "stride": 3},
            without={"gradcheck": "the largest number of a border is minus infinity"} if kind == "max" else {},
        )
        for kind in ("max", "mean")
        for several in (False, True)
    },
    "mean pool, padding all around": Entry(
        lambda: pooling.mean_pool_over(1), sizes={"w": 5, "...": ()}, options={"size": (3,), "padding": 2, "stride": 1}
    ),
    # signals and the worked example
    **{
        f"{mode} {kind} of {a} and {b}": Entry(
            lambda kind=kind, mode=mode: getattr(signals, f"{mode}_{kind}"),
            partial(oracles.signals if kind == "convolution" else oracles.correlated, mode=mode),
            (laws.multilinear,),
            sizes={"a": a, "b": b},
        )
        for mode in ("full", "same", "valid")
        for kind in ("convolution", "correlation")
        for a, b in ((7, 4), (4, 7), (8, 3), (3, 8))
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
    "multi-head, dropping": 438,
    "multi-head, rotary, window": 438,
    "multi-head, grouped, rotary, window": 326,
    "remember": 326,
    "recall": 326,
    "steps": 326,
    "steps taken back": 438,
    "feed-forward": 71,
    "feed-forward, GELU, dropping": 60,
    "encoder layer": 317,
    "encoder layer, norm first": 261,
    "encoder layer, norm first, its own source": 264,
    "encoder layer, dropping": 317,
    "encoder layer, dropping, norm first": 317,
    "encoder": 646,
    "encoder, no last norm": 264,
    "encoder, unlike, dropping": 270,
    "decoder layer": 551,
    "decoder layer, norm first": 462,
    "decoder layer, rotary, window": 439,
    "decoder layer, dropping": 551,
    "decoder layer, dropping, norm first": 551,
    "decoder": 1114,
    "decoder, no last norm": 462,
    "decoder, unlike, dropping": 468,
    "transformer": 1443,
    "transformer, norm first": 990,
    "transformer, unlike, dropping": 738,
    "sines": 0,
    "learned positions": 36,
    "rotary positions": 0,
    "language model": 688,
    "language model, logits, untied": 360,
    "language model, logits, dropping": 371,
    "language model, generating": 315,
    "language model, generating, learned": 425,
    "language model, stopping": 347,
    "language model, drawing": 371,
    "sequence to sequence": 934,
    "sequence to sequence, logits, untied": 1074,
    "sequence to sequence, logits, dropping": 934,
    "sequence to sequence, generating": 934,
    "sequence to sequence, stopping": 1218,
    "sequence to sequence, drawing": 934,
    "mlp": 295,
    "mlp, logits": 295,
    "visual attention": 1113,
    "visual attention, dropping": 1080,
    "visual attention, bool mask": 192,
    "visual attention, no larger than a window": 1080,
    "patches": 185,
    "vision transformer": 783,
    "vision transformer, mean, logits": 466,
    "vision transformer, features": 478,
    "vision transformer, embedding": 490,
    "vision transformer, encoding": 490,
    "vision transformer, encoding, dropping": 478,
    "norm and activation": 6,
    "no norm, and activation": 0,
    "double convolution": 141,
    "double convolution, GELU": 141,
    "double convolution, normed": 147,
    "block": 280,
    "block, biased": 83,
    "resnet": 1621,
    "resnet, logits, biased": 617,
    "down": 141,
    "up": 275,
    "up, from many channels": 4696,
    "unet": 30573,
    "unet as drawn, logits": 30464,
    "linear": 245,
    "linear, no bias": 15,
    "linear, from and to one number": 4,
    "Convolution": 78,
    "Convolution, same": 36,
    "Convolution, same, even": 51,
    "Convolution, settled": 150,
    "TransposedConvolution": 76,
    "TransposedConvolution, settled": 144,
    "TransposedConvolution, circular": 40,
    "TransposedConvolution, to a size": 40,
    "SeparableConvolution": 70,
    "SeparableConvolution, unlike": 36,
    "conv attention": 339,
    "conv attention, logits": 339,
    "conv attention, convolved": 339,
}
"""How many parameters each module has, by the formula in its docstring."""

CIRCUITS = {name: replace(entry, parameters=PARAMETERS.get(name)) for name, entry in CIRCUITS.items()}
