# To pyright an attribute of a module is a Tensor or a Module, whichever it is.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Every circuit of `models`, with the properties that it has beyond its signature; a new circuit gets an entry here.

Most options differ from the defaults, so that an option that is not passed on is detected. test_laws checks all
entries; test_mutants checks whether the entries detect changes of the source.
"""

from collections.abc import Callable, Mapping, Sequence
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
from tests.laws.oracles import GPT, PLAIN, VIT, LayerConfig

Law = Callable[..., None]


@dataclass(frozen=True)
class Entry:
    """A circuit, its properties, and the arguments of every law.

    Attributes:
        make: A function that makes the circuit.
        reference: An independent implementation of the circuit, most of them in `oracles`, with the same options.
        claims: The properties: laws, most of them partials with their arguments.
        sizes, inputs: As for every law, see `circuits.laws`.
        options: Keyword arguments of every call of the circuit.
        without: The laws that are not checked, with the reason for each.
        optional: The names of the optional tensors, separated by spaces.
        parameters: The number of parameters.
        slow: Whether the laws are checked only by the slow tests.
    """

    make: Callable[[], Any]
    reference: Callable[..., Any] | None = None
    claims: tuple[Law, ...] = ()
    sizes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    optional: str = ""
    parameters: int | None = None
    slow: bool = False

    @property
    def also(self) -> tuple[Law, ...]:
        """The claims, and the laws for the reference, the number of parameters, the optional tensors and the device."""
        equal = [partial(laws.equals, reference=self.reference)] if self.reference else []
        counts = [partial(claims.has_parameters, number=self.parameters)] if self.parameters is not None else []
        optional = [partial(claims.accepts_optional, names=self.optional)] if self.optional else []
        made = isinstance(self.make, ModuleFactory) and claims.takes_device(self.make.kind)
        created = [partial(claims.created_on_device, make=self.make)] if made else []
        return (*self.claims, *equal, *counts, *optional, *created)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of every law."""
        return {"sizes": self.sizes, "inputs": self.inputs, **self.options}


def with_softmax(logits: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the reference of `probabilities`: the softmax of `logits`."""
    return lambda module, *inputs, **options: oracles.softmax(logits(module, *inputs, **options))


@dataclass(frozen=True)
class ModuleFactory:
    """A function that makes a module in evaluation or training mode; each call may pass further options."""

    kind: Callable[..., Any]
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    training: bool = False

    def __call__(self, **more: Any) -> Any:
        """Return the module."""
        return self.kind(*self.args, **self.options, **more).train(self.training)


def of(kind: Callable[..., Any], *args: Any, **options: Any) -> ModuleFactory:
    """Return a function that makes a module in evaluation mode."""
    return ModuleFactory(kind, args, options)


def training(kind: Callable[..., Any], *args: Any, **options: Any) -> ModuleFactory:
    """Return a function that makes a module in training mode."""
    return ModuleFactory(kind, args, options, training=True)


def method(make: Callable[[], Any], name: str) -> Callable[[], Any]:
    """Return a function that makes a module and returns its method `name`, which is a circuit."""
    return lambda: getattr(make(), name)


equivariant = laws.equivariant
BOOL = {"mask": torch.bool}
images = {"b": 2, "h": 4, "w": 8}
bfloat16_kernel = partial(laws.kernel, dtypes=[torch.bfloat16])
independent_of_batch = partial(laws.independent, axis="b")


def with_large_weights(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a function that makes the module with large weights, so that the next token depends on all before it."""

    def made() -> nn.Module:
        """Return the module with large weights."""
        module = make()
        with torch.no_grad():
            for name, each in module.named_parameters():
                each.mul_(6 if each.ndim > 1 and "memory" not in name else 1)
        return module

    return made


class Wrapper(nn.Module):
    """A module that calls another module."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.m = inner, inner.m


class StepByStep(Wrapper):
    """Attention with a cache, called first with two vectors, then with one at a time."""

    @circuit("... x m -> ... x m", fixed="m")
    @torch.no_grad()
    def forward(self, source: Tensor) -> Tensor:
        """Return the outputs for all vectors."""
        cache = self.inner.cache(source.shape[-2], source.shape[:-2])
        pieces = source.split([2, 1, *[1] * (source.shape[-2] - 3)], -2)
        return torch.cat([self.inner(each, each, causal=True, cache=cache) for each in pieces], -2)


class StepByStepMask(Wrapper):
    """A layer or stack of layers with a cache, called with one vector and its row of the mask at a time."""

    @circuit("... y m, ... x m -> ... y m", fixed="m", optional={"mask": "... y y'"})
    @torch.no_grad()
    def forward(self, target: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs for all vectors."""
        cache, outputs = self.inner.cache(memory, target.shape[-2]), []
        for place, each in enumerate(target.split(1, -2)):
            row = None if mask is None else mask[..., place : place + 1, : place + 1]
            held = {"caches" if isinstance(cache, list) else "cache": cache}
            outputs.append(self.inner(each, memory, row, **held))
        return torch.cat(outputs, -2)


class StepByStepHeadMasks(Wrapper):
    """Attention, or a layer with attention, called with one vector at a time, a mask, and a mask for each head."""

    @circuit("... x m -> ... x m", fixed="m", optional={"mask": "... x x'", "head_mask": "... 4 x x'"})
    @torch.no_grad()
    def forward(self, source: Tensor, mask: Tensor | None = None, *, head_mask: Tensor | None = None) -> Tensor:
        """Return the outputs for all vectors."""
        attend, outputs = getattr(self.inner, "attention", self.inner), []
        cache = attend.cache(source.shape[-2], source.shape[:-2])
        for place, each in enumerate(source.split(1, -2)):
            row, rows = (None if one is None else one[..., place : place + 1, : place + 1] for one in (mask, head_mask))
            passed = (each, each) if attend is self.inner else (each,)
            outputs.append(self.inner(*passed, row, head_mask=rows, causal=True, cache=cache))
        return torch.cat(outputs, -2)


class StepByStepTruncated(Wrapper):
    """Attention with a cache: each step is first called with wrong values, truncated from the cache, and repeated."""

    @circuit("... x m -> ... x m", fixed="m")
    @torch.no_grad()
    def forward(self, source: Tensor) -> Tensor:
        """Return the outputs for all vectors, which do not depend on the truncated values."""
        cache, outputs = self.inner.cache(source.shape[-2], source.shape[:-2]), []
        for place, each in enumerate(source.split(1, -2)):
            self.inner(-each, -each, causal=True, cache=cache)
            cache.truncate(place)
            outputs.append(self.inner(each, each, causal=True, cache=cache))
        return torch.cat(outputs, -2)


def padded_somewhere(shape: Sequence[int]) -> Tensor:
    """Return a random key mask of texts with padding before and after them, each with a token at least."""
    places = torch.rand(*shape[:-1], 2).mul(shape[-1]).long().sort(-1).values
    return (torch.arange(shape[-1]) >= places[..., :1]) & (torch.arange(shape[-1]) <= places[..., 1:])


def generated(
    module: Any,
    tokens: Tensor,
    count: int,
    *,
    key_mask: Tensor | None = None,
    config: LayerConfig = GPT,
    **choice: Any,
) -> Tensor:
    """Return the tokens that a language model generates, by its reference; with a key mask each text by itself."""
    logits = partial(oracles.language_logits, module, config=config)
    if key_mask is None:
        return oracles.extended(tokens, count, logits, **choice)
    rows = zip(tokens.flatten(0, -2), key_mask.expand_as(tokens).flatten(0, -2), strict=True)
    new = [oracles.extended(row[real], count, logits, **choice)[-count:] for row, real in rows]
    return torch.cat((tokens, torch.stack(new).reshape(*tokens.shape[:-1], count)), -1)


def translated(
    module: Any,
    source: Tensor,
    target: Tensor,
    count: int,
    *,
    source_key_mask: Tensor | None = None,
    config: LayerConfig = PLAIN,
    padding: int | None = None,
    **choice: Any,
) -> Tensor:
    """Return the tokens that a sequence-to-sequence model generates, by its reference."""

    def logits(grown: Tensor) -> Tensor:
        """Return the logits for the target tokens generated so far."""
        keys = {"source_key_mask": source_key_mask}
        return oracles.translated_logits(module, source, grown, **keys, config=config, padding=padding)

    return oracles.extended(target, count, logits, **choice)


def transposed(module: Any, image: Tensor, **options: Any) -> Tensor:
    """Return torch's transposed convolution, over one or two axes."""
    run = (torch.nn.functional.conv_transpose1d, torch.nn.functional.conv_transpose2d)[module.weight.ndim - 3]
    return run(image, module.weight, module.bias, **options)


def forward(module: Any, image: Tensor, border: tuple[int, ...] = (), mode: str = "constant", **options: Any) -> Tensor:
    """Return torch's convolution, over one or two axes, of an image that is padded first."""
    run = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)[module.weight.ndim - 3]
    return run(torch.nn.functional.pad(image, border, mode), module.weight, module.bias, **options)


def separable(module: Any, image: Tensor, **options: Any) -> Tensor:
    """Return torch's depthwise convolution, then torch's pointwise convolution."""
    return forward(module.pointwise, forward(module.depthwise, image, **options))


def circular(module: Any, image: Tensor) -> Tensor:
    """Return a circular transposed convolution: the gradient of a convolution with padding 2, plus the bias."""
    start = image.new_zeros(*image.shape[:-2], module.weight.shape[1], image.shape[-1] - 2, requires_grad=True)
    padded = torch.nn.functional.pad(start, (2, 2), "circular")
    output = torch.nn.functional.conv1d(padded, module.weight)
    (found,) = torch.autograd.grad(output, start, image, create_graph=True)
    return found + module.bias[:, None]


def glorot(module: nn.Module) -> Mapping[str, float]:
    """Return the Glorot bounds of a transformer's weights and 0 for biases; queries, keys and values are one matrix."""
    bounds = {}
    for name, each in module.named_parameters():
        if each.ndim == 2 and "embedding" not in name:
            boxes = 3 if name.endswith(("Lq.weight", "Lk.weight", "Lv.weight")) else 1
            bounds[name] = (6 / (each.shape[1] + boxes * each.shape[0])) ** 0.5
        elif name.endswith("bias"):
            bounds[name] = 0.0
    return bounds


def rotary_attention(**options: Any) -> nn.Module:
    """Return attention with groups, rotary positions of another base, and a window."""
    return mha(groups=2, rotary=positions.RotaryPositions(4, base=50.0), window=3, **options)


def rotary_layer(kind: Callable[..., nn.Module] = transformer.EncoderLayer, **options: Any) -> nn.Module:
    """Return a layer with one group of keys, rotary positions of another base, and a window."""
    return kind(**small, groups=1, rotary=positions.RotaryPositions(4, base=50.0), window=3, **options)


mha = partial(models.MultiHeadAttention, m=6, k=4, h=4, bias=True)
rotary = partial(positions.RotaryPositions, 4)
small = {"m": 6, "k": 4, "h": 2, "f": 5}
other_options = {"norm_first": True, "activation": nn.GELU, "bias": False, "eps": 0.1}
OTHER_OPTIONS = LayerConfig(norm_first=True, activation=oracles.gelu, eps=0.1)
ROTARY_WINDOW = LayerConfig(base=50.0, window=3)
tokens = {"tokens": range(7)}
pair = {"source": range(7), "target": range(7)}
windows = {"i'": 3, "j'": 5, "u'": 2, "v'": 3}
VISUAL = {"b": 2, "i": 6, "j": 11, "u": 4, "v": 7, **windows}
RANDOM = {"broadcasting": "every call draws other random numbers"}
STOPPING = {"shapes": "the number of tokens depends on their values"} | dict.fromkeys(
    ("broadcasting", "independent"), "all sequences are extended until the last has ended"
)

CIRCUITS: dict[str, Entry] = {
    # attention
    "attention": Entry(
        lambda: attention.attention,
        oracles.attention,
        (
            partial(laws.linear, argument="value"),
            partial(equivariant, axis="x"),
            partial(equivariant, axis="y"),
            partial(equivariant, axis="k"),
            partial(laws.independent, axis="y"),
            claims.inputs_unchanged,
            bfloat16_kernel,
        ),
        optional="mask key_mask",
    ),
    "attention, bool mask": Entry(lambda: attention.attention, oracles.attention, (bfloat16_kernel,), inputs=BOOL),
    "attention, all sizes 1": Entry(
        lambda: attention.attention, oracles.attention, sizes={"y": 1, "x": 1, "k": 1, "...": (1, 1)}
    ),
    "attention, no leading axes": Entry(
        lambda: attention.attention,
        oracles.attention,
        (claims.has_tangents_and_vmap,),
        sizes={"...": ()},
        options={"causal": True},
    ),
    "attention, dropout": Entry(
        lambda: attention.attention,
        oracles.attention,
        sizes={"...": (2, 3)},
        options={"dropout": 0.4},
        claims=(bfloat16_kernel,),
        without=RANDOM,
    ),
    "attention, causal": Entry(
        lambda: attention.attention,
        oracles.attention,
        (partial(laws.causal, axis="y", of="x"), bfloat16_kernel),
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
    "attention, causal, start": Entry(
        lambda: attention.attention,
        oracles.attention,
        inputs=BOOL,
        sizes={"y": 1, "x": 4, "...": (2, 3, 2)},
        options={"causal": True, "start": 3},
    ),
    **{
        f"attention, broadcast mask of {axes} axes": Entry(
            lambda: attention.attention,
            oracles.attention,
            sizes={"...": (2, 3, 2)},
            inputs={"mask": lambda shape, axes=axes: torch.rand(tuple(shape)[-axes:]) < 0.5},
            without={"independent": "one mask is broadcast over many examples"},
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
        lambda: attention.grouped_attention,
        oracles.grouped_attention,
        (partial(equivariant, axis="x"), bfloat16_kernel),
        optional="mask key_mask",
    ),
    "grouped attention, many axes": Entry(
        lambda: attention.grouped_attention, oracles.grouped_attention, sizes={"...": (2, 3)}, options={"causal": True}
    ),
    "grouped attention, dropout": Entry(
        lambda: attention.grouped_attention,
        oracles.grouped_attention,
        options={"dropout": 0.4, "window": 2, "start": 1, "causal": True},
        without=RANDOM,
    ),
    "multi-head": Entry(
        of(mha),
        oracles.multi_head,
        (partial(equivariant, axis="y"), partial(equivariant, axis="x")),
        optional="mask head_mask key_mask",
    ),
    "multi-head, groups, bool masks": Entry(
        of(mha, groups=2, dropout=0.4), oracles.multi_head, inputs={"mask": torch.bool, "head_mask": torch.bool}
    ),
    "multi-head, dropout": Entry(
        training(mha, dropout=0.4), partial(oracles.multi_head, config=LayerConfig(dropout=0.4)), without=RANDOM
    ),
    "multi-head, rotary, window": Entry(
        lambda: mha(rotary=rotary(), window=3),
        partial(oracles.multi_head, config=LayerConfig(base=10000.0, window=3)),
        (partial(laws.causal, axis="y", of="x", reach=3),),
        sizes={"y": 5, "x": 7},
        options={"causal": True},
    ),
    "multi-head, grouped, rotary, window": Entry(
        of(rotary_attention),
        partial(oracles.multi_head, config=ROTARY_WINDOW),
        sizes={"y": 5, "x": 7},
        inputs={"head_mask": torch.bool},
        options={"causal": True},
    ),
    "remember": Entry(
        method(rotary_attention, "remember"),
        partial(oracles.keys_and_values, config=ROTARY_WINDOW),
        options={"start": 2},
    ),
    "recall": Entry(
        method(rotary_attention, "recall"),
        partial(oracles.attend, config=ROTARY_WINDOW),
        options={"start": 2, "causal": True},
        optional="mask head_mask key_mask",
    ),
    "steps": Entry(
        lambda: StepByStep(mha(groups=2, rotary=rotary(), window=4)),
        lambda module, x: oracles.multi_head(
            module.inner, x, x, causal=True, config=LayerConfig(base=10000.0, window=4)
        ),
        (partial(laws.causal, axis="x", reach=4), claims.cache_dtype_follows_autocast),
        sizes={"x": 7},
    ),
    "steps, truncated cache": Entry(
        lambda: StepByStepTruncated(mha()),
        lambda module, x: oracles.multi_head(module.inner, x, x, causal=True),
        sizes={"x": 4},
    ),
    "steps, masked": Entry(
        lambda: StepByStepHeadMasks(mha()),
        lambda module, x, mask=None, **masks: oracles.multi_head(module.inner, x, x, mask, causal=True, **masks),
        sizes={"x": 4},
    ),
    # transformers
    "feed-forward": Entry(of(layers.FeedForward, 6, 5), oracles.feed_forward, (partial(equivariant, axis="..."),)),
    "feed-forward, GELU, dropout": Entry(
        training(layers.FeedForward, 6, 5, nn.GELU, dropout=0.4, bias=False),
        partial(oracles.feed_forward, config=LayerConfig(activation=oracles.gelu, dropout=0.4)),
        without=RANDOM,
    ),
    "encoder layer": Entry(
        of(transformer.EncoderLayer, **small),
        oracles.encoder_layer,
        (partial(equivariant, axis="x"),),
        inputs=BOOL,
        optional="mask head_mask key_mask source",
    ),
    "encoder layer, norm first": Entry(
        of(rotary_layer, norm_first=True, dropout=0.4),
        partial(oracles.encoder_layer, config=replace(ROTARY_WINDOW, norm_first=True)),
        sizes={"x": 5},
        inputs={"source": None},
        options={"causal": True},
        claims=(partial(laws.causal, axis="x", reach=3),),
    ),
    "encoder layer, norm first, separate source": Entry(
        of(transformer.EncoderLayer, **small, **other_options), partial(oracles.encoder_layer, config=OTHER_OPTIONS)
    ),
    **{
        f"{name}, dropout{', norm first' * first}": Entry(
            training(kind, **small, norm_first=first, dropout=0.4),
            partial(reference, config=LayerConfig(norm_first=first, dropout=0.4)),
            inputs={"source": None} if name == "encoder layer" else {},
            without=RANDOM,
        )
        for name, kind, reference in (
            ("encoder layer", transformer.EncoderLayer, oracles.encoder_layer),
            ("decoder layer", transformer.DecoderLayer, oracles.decoder_layer),
        )
        for first in (False, True)
    },
    "encoder layer, steps, masked": Entry(
        lambda: StepByStepHeadMasks(transformer.EncoderLayer(m=6, k=4, h=4, f=5)),
        lambda module, x, mask=None, **masks: oracles.encoder_layer(module.inner, x, mask, causal=True, **masks),
        sizes={"x": 4},
    ),
    "encoder": Entry(
        of(transformer.Encoder, **small, depth=2),
        oracles.encoder,
        (partial(equivariant, axis="x"),),
        optional="mask key_mask",
    ),
    "encoder, no last norm": Entry(
        of(transformer.Encoder, **small, **other_options, depth=1, final_norm=False),
        partial(oracles.encoder, config=replace(OTHER_OPTIONS, final_norm=False)),
        (partial(laws.causal, axis="x"),),
        options={"causal": True},
    ),
    "encoder, other options, dropout": Entry(
        training(transformer.Encoder, **small, **other_options, depth=1, dropout=0.4),
        partial(oracles.encoder, config=replace(OTHER_OPTIONS, dropout=0.4)),
        without=RANDOM,
    ),
    "decoder layer": Entry(
        of(transformer.DecoderLayer, **small),
        oracles.decoder_layer,
        (partial(laws.causal, axis="y"), partial(equivariant, axis="x")),
        optional="mask memory_mask key_mask memory_key_mask",
    ),
    "decoder layer, norm first": Entry(
        of(transformer.DecoderLayer, **small, **other_options, dropout=0.4),
        partial(oracles.decoder_layer, config=OTHER_OPTIONS),
        options={"causal": False},
        inputs={"mask": torch.bool, "memory_mask": torch.bool},
    ),
    "decoder layer, rotary, window": Entry(
        of(rotary_layer, transformer.DecoderLayer),
        partial(oracles.decoder_layer, config=ROTARY_WINDOW),
        sizes={"y": 5, "x": 7},
        inputs={"mask": None, "memory_mask": None},
    ),
    **{
        f"decoder layer, steps, masked{', norm first' * first}": Entry(
            lambda first=first: StepByStepMask(transformer.DecoderLayer(**small, norm_first=first)),
            lambda module, target, memory, mask=None, first=first: oracles.decoder_layer(
                module.inner, target, memory, mask, config=LayerConfig(norm_first=first)
            ),
            sizes={"y": 4, "x": 3},
            slow=first,
        )
        for first in (False, True)
    },
    "decoder, steps, masked": Entry(
        lambda: StepByStepMask(transformer.Decoder(**small, depth=2)),
        lambda module, target, memory, mask=None: oracles.decoder(module.inner, target, memory, mask, None),
        sizes={"y": 4, "x": 3},
        slow=True,
    ),
    "decoder": Entry(
        of(transformer.Decoder, **small, depth=2),
        oracles.decoder,
        (partial(laws.causal, axis="y"),),
        optional="mask memory_mask key_mask memory_key_mask",
    ),
    "decoder, no last norm": Entry(
        of(transformer.Decoder, **small, **other_options, depth=1, final_norm=False),
        partial(oracles.decoder, config=replace(OTHER_OPTIONS, final_norm=False)),
        options={"causal": False},
    ),
    "decoder, other options, dropout": Entry(
        training(transformer.Decoder, **small, **other_options, depth=1, dropout=0.4),
        partial(oracles.decoder, config=replace(OTHER_OPTIONS, dropout=0.4)),
        inputs={"mask": None, "memory_mask": None},
        without=RANDOM,
    ),
    "transformer": Entry(
        of(models.Transformer, **small, encoder_depth=1, decoder_depth=2),
        oracles.transformer,
        (partial(laws.causal, axis="y"), partial(claims.initialized_uniform, uniform=glorot)),
        optional="source_mask target_mask memory_mask source_key_mask target_key_mask",
    ),
    "transformer, norm first": Entry(
        of(models.Transformer, **small, **other_options, encoder_depth=2, decoder_depth=1, final_norm=False),
        partial(oracles.transformer, config=replace(OTHER_OPTIONS, final_norm=False)),
        options={"causal": False},
    ),
    "transformer, other options, dropout": Entry(
        training(models.Transformer, **small, **other_options, encoder_depth=1, decoder_depth=1, dropout=0.4),
        partial(oracles.transformer, config=replace(OTHER_OPTIONS, dropout=0.4)),
        inputs={"source_mask": None, "target_mask": None, "memory_mask": None},
        without=RANDOM,
        slow=True,
    ),
    "sinusoidal positions": Entry(
        of(positions.SinusoidalPositions, 5),
        lambda module, x, **options: oracles.sinusoidal(x, **options),
        options={"start": 3},
        inputs={"padding": range(6)},
    ),
    "learned positions": Entry(
        of(positions.LearnedPositions, 9, m=4), oracles.learned, options={"start": 2}, inputs={"padding": range(6)}
    ),
    "rotary positions": Entry(
        of(positions.RotaryPositions, 4, base=50.0),
        partial(oracles.rotated, base=50.0),
        (partial(laws.linear, argument="input"),),
        options={"start": 2},
    ),
    "language model": Entry(
        of(models.LanguageModel, 7, **small, depth=2, dropout=0.4),
        oracles.language_logits,
        (partial(laws.causal, axis="x"), claims.takes_integers),
        sizes={"x": 5},
        inputs=tokens,
    ),
    "language model, probabilities": Entry(
        method(of(models.LanguageModel, 7, **small, depth=1), "probabilities"),
        with_softmax(oracles.language_logits),
        (partial(laws.causal, axis="x"), claims.takes_integers),
        sizes={"x": 5},
        inputs=tokens,
    ),
    "language model, untied": Entry(
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
        partial(
            oracles.language_logits,
            config=replace(GPT, activation=oracles.relu, base=None, window=3, eps=0.1),
            tied=False,
        ),
        (claims.takes_integers,),
        sizes={"x": 5},
        inputs=tokens,
    ),
    "language model, dropout": Entry(
        training(models.LanguageModel, 7, **small, depth=1, dropout=0.4),
        partial(oracles.language_logits, config=replace(GPT, dropout=0.4)),
        sizes={"x": 5},
        inputs=tokens,
        without=RANDOM,
    ),
    "language model, generating": Entry(
        method(with_large_weights(of(models.LanguageModel, 7, **small, depth=1, groups=1, window=4)), "generate"),
        partial(generated, config=replace(GPT, window=4)),
        (claims.takes_integers,),
        sizes={"x": 3},
        inputs={**tokens, "key_mask": None},
        options={"count": 4},
    ),
    "language model, generating, learned": Entry(
        method(with_large_weights(of(models.LanguageModel, 7, **small, depth=1, learned_positions=9)), "generate"),
        partial(generated, config=replace(GPT, base=None)),
        sizes={"x": 3},
        inputs={**tokens, "key_mask": None},
        options={"count": 4},
    ),
    "language model, generating, padded": Entry(
        method(with_large_weights(of(models.LanguageModel, 7, **small, depth=1, learned_positions=9)), "generate"),
        partial(generated, config=replace(GPT, base=None)),
        sizes={"x": 4},
        inputs={**tokens, "key_mask": padded_somewhere},
        options={"count": 3},
    ),
    "language model, stopping": Entry(
        method(with_large_weights(of(models.LanguageModel, 3, **small, depth=1)), "generate"),
        generated,
        sizes={"x": 2, "...": (5, 2)},
        inputs={"tokens": range(3), "key_mask": None},
        options={"count": 6, "stop": 1},
        without=STOPPING,
    ),
    "language model, sampling": Entry(
        method(with_large_weights(of(models.LanguageModel, 7, **small, depth=1)), "generate"),
        generated,
        (claims.draws_from_generator,),
        sizes={"x": 2, "...": (5,)},
        inputs={**tokens, "key_mask": None},
        options={"count": 9, "temperature": 5.0, "top_k": 5},
        without=RANDOM,
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
        partial(oracles.translated_logits, padding=2),
        (partial(laws.causal, axis="y"), claims.takes_integers, partial(claims.initialized_uniform, uniform=glorot)),
        sizes={"x": 5, "y": 3},
        inputs=pair,
    ),
    "sequence to sequence, probabilities": Entry(
        method(of(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1, padding=2), "probabilities"),
        with_softmax(partial(oracles.translated_logits, padding=2)),
        (partial(laws.causal, axis="y"), claims.takes_integers),
        sizes={"x": 5, "y": 3},
        inputs=pair,
    ),
    "sequence to sequence, untied": Entry(
        of(
            models.SequenceToSequence,
            7,
            **small,
            **other_options,
            encoder_depth=2,
            decoder_depth=1,
            final_norm=False,
            tied=False,
        ),
        partial(oracles.translated_logits, config=replace(OTHER_OPTIONS, final_norm=False), tied=False),
        (claims.takes_integers,),
        sizes={"x": 5, "y": 3},
        inputs=pair,
    ),
    "sequence to sequence, dropout": Entry(
        training(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1, dropout=0.4),
        partial(oracles.translated_logits, config=LayerConfig(dropout=0.4)),
        sizes={"x": 5, "y": 3},
        inputs=pair,
        without=RANDOM,
        slow=True,
    ),
    "sequence to sequence, generating": Entry(
        method(
            with_large_weights(of(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1, padding=2)),
            "generate",
        ),
        partial(translated, padding=2),
        (claims.takes_integers,),
        sizes={"x": 5, "y": 2, "...": (12,)},
        inputs={**pair, "target_key_mask": None},
        options={"count": 4},
    ),
    "sequence to sequence, stopping": Entry(
        method(
            with_large_weights(
                of(models.SequenceToSequence, 3, **small, **other_options, encoder_depth=1, decoder_depth=2)
            ),
            "generate",
        ),
        partial(translated, config=OTHER_OPTIONS),
        sizes={"x": 5, "y": 2, "...": (12,)},
        inputs={"source": range(3), "target": range(3), "target_key_mask": None},
        options={"count": 5, "stop": 1},
        without=STOPPING,
    ),
    "sequence to sequence, sampling": Entry(
        method(
            with_large_weights(of(models.SequenceToSequence, 7, **small, encoder_depth=1, decoder_depth=1)), "generate"
        ),
        translated,
        (claims.draws_from_generator,),
        sizes={"x": 5, "y": 2, "...": (12,)},
        inputs={**pair, "target_key_mask": None},
        options={"count": 9, "temperature": 5.0, "top_k": 5},
        without=RANDOM,
        slow=True,
    ),
    "choose": Entry(lambda: generation.choose, lambda logits: logits.argmax(-1), (partial(equivariant, axis="..."),)),
    "choose, top_k of 1": Entry(
        lambda: generation.choose,
        lambda logits, temperature, top_k: logits.argmax(-1),
        options={"temperature": 0.5, "top_k": 1},
    ),
    "choose, temperature near 0": Entry(
        lambda: generation.choose, lambda logits, temperature: logits.argmax(-1), options={"temperature": 1e-308}
    ),
    "choose, sampling": Entry(
        lambda: generation.choose,
        oracles.sampled,
        (claims.draws_from_generator,),
        sizes={"v": 7, "...": (30, 2)},
        options={"temperature": 0.7},
        without=RANDOM,
    ),
    "choose, sampling, top_k": Entry(
        lambda: generation.choose,
        oracles.sampled,
        sizes={"v": 7, "...": (30, 2)},
        options={"temperature": 2.0, "top_k": 3},
        without=RANDOM,
    ),
    # images
    "mlp": Entry(of(models.MLP, 4, 6, 7, 8), oracles.mlp_logits),
    "mlp, probabilities": Entry(method(of(models.MLP, 4, 6, 7, 8), "probabilities"), with_softmax(oracles.mlp_logits)),
    "visual attention": Entry(
        of(models.VisualAttention, c=3, k=5, heads=2, kernel=3, stride=2, bias=True, dropout=0.4),
        partial(oracles.visual, k=5, kernel=3, stride=2),
        (independent_of_batch, claims.contiguous_output),
        sizes=VISUAL,
        optional="mask",
    ),
    "visual attention, dropout": Entry(
        training(models.VisualAttention, c=3, k=5, heads=2, kernel=3, stride=2, dropout=0.4),
        partial(oracles.visual, k=5, kernel=3, stride=2, dropout=0.4),
        sizes=VISUAL,
        without=RANDOM,
    ),
    "visual attention, bool mask": Entry(
        of(models.VisualAttention, c=2, k=3, heads=2, kernel=2, stride=1),
        partial(oracles.visual, k=3, kernel=2, stride=1),
        (claims.contiguous_output,),
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
        (independent_of_batch,),
        sizes={"b": 2, "i": 1, "j": 5},
    ),
    "vision transformer": Entry(
        of(models.VisionTransformer, (4, 6), 2, **small, depth=2, classes=5, in_channels=2, dropout=0.4),
        oracles.vision_logits,
        (independent_of_batch,),
    ),
    "vision transformer, mean": Entry(
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
        partial(
            oracles.vision_logits,
            class_token=False,
            config=LayerConfig(norm_first=True, activation=oracles.relu, eps=0.1),
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
    "vision transformer, encoding, dropout": Entry(
        method(training(models.VisionTransformer, 4, 2, **small, depth=1, classes=5, dropout=0.4), "encode"),
        partial(oracles.vision_encoded, config=replace(VIT, dropout=0.4)),
        without=RANDOM,
    ),
    "norm and activation": Entry(
        of(layers.NormActivate, 3), oracles.norm_activated, (independent_of_batch, claims.inputs_unchanged)
    ),
    "no norm, and activation": Entry(
        lambda: layers.NormActivate(3, lambda n: nn.Identity()),
        lambda image: oracles.relu(image),
        (claims.inputs_unchanged,),
    ),
    "double convolution": Entry(
        of(layers.DoubleConvolution, 2, 3), oracles.double_convolution, (independent_of_batch,)
    ),
    "double convolution, GELU": Entry(
        of(layers.DoubleConvolution, 2, 3, nn.GELU), partial(oracles.double_convolution, activation=oracles.gelu)
    ),
    "double convolution, normed": Entry(
        of(layers.DoubleConvolution, 2, 3, nn.GELU, norm=nn.BatchNorm2d),
        partial(oracles.double_convolution, norm=True, activation=oracles.gelu),
        (independent_of_batch,),
    ),
    "block": Entry(of(resnet.Block, 2, 3, 3, 8), partial(oracles.block, s=2), (independent_of_batch,), sizes=images),
    "block, biased": Entry(
        of(resnet.Block, 3, 2, 3, 4, bias=True), partial(oracles.block, s=3), sizes={"b": 2, "h": 6, "w": 9}
    ),
    "resnet": Entry(
        of(models.IdentityResNet, 2, (3, 8, 12, 16), classes=5, in_channels=2),
        oracles.resnet_logits,
        (independent_of_batch,),
        sizes=images,
    ),
    "resnet, biased": Entry(
        of(models.IdentityResNet, 1, (3, 4, 8, 12), classes=5, in_channels=2, bias=True),
        oracles.resnet_logits,
        sizes=images,
    ),
    "resnet, probabilities": Entry(
        method(of(models.IdentityResNet, 1, (3, 4, 8, 12), classes=5, in_channels=2, bias=True), "probabilities"),
        with_softmax(oracles.resnet_logits),
        (independent_of_batch,),
        sizes=images,
    ),
    "down": Entry(of(unet.DownScaleBlock, 2, 3), oracles.down, (independent_of_batch,), sizes=images),
    "up": Entry(of(unet.UpScaleBlock, 3, 2), oracles.up, (independent_of_batch,), sizes={"b": 2, "h": 3, "w": 4}),
    "up, from many channels": Entry(
        of(unet.UpScaleBlock, 12, 16),
        oracles.up,
        (
            partial(
                claims.initialized_normal,
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
        oracles.unet_logits,
        (independent_of_batch,),
        sizes={"b": 2, "h": 16, "w": 32},
        slow=True,
    ),
    "unet as drawn": Entry(
        of(models.UNet.as_drawn, classes=4, channels=1, in_channels=3),
        oracles.unet_logits,
        (claims.contiguous_output,),
        sizes={"b": 2, "h": 16, "w": 32},
        slow=True,
    ),
    "channels last": Entry(
        lambda: layers.channels_last, lambda image: image, (laws.multilinear, claims.channels_last_output)
    ),
    "channels first": Entry(
        lambda: layers.channels_first, lambda image: image, (laws.multilinear, claims.contiguous_output)
    ),
    # linear maps and windows
    "linear": Entry(
        of(layers.Linear, "m a -> h k", m=3, a=2, h=5, k=7), partial(oracles.joined, inputs=2, outputs=(5, 7))
    ),
    "linear, no bias": Entry(
        of(layers.Linear, "... m -> ... k", m=3, k=5, bias=False),
        partial(oracles.joined, inputs=1, outputs=(5,)),
        (laws.multilinear,),
    ),
    "linear, scalar output": Entry(of(layers.Linear, "a ->", a=3), partial(oracles.joined, inputs=1, outputs=())),
    **{
        f"convolution {n}d": Entry(
            lambda n=n: convolve.convolution_over(n),
            None,
            (
                claims.pickles,
                *((partial(laws.linear, argument="image"), partial(laws.linear, argument="weight")) if n == 2 else ()),
            ),
            sizes=dict(zip("dhwlij", (5, 6, 7, 2, 3, 2), strict=True))
            if n == 3
            else {"h": 7, "w": 9, "i": 2, "j": 3}
            if n == 2
            else {"w": 9, "j": 3},
            inputs={"bias": None} if n == 2 else {},
            options={"stride": 2, "padding": 1, "dilation": 1 if n == 3 else (1, 2) if n == 2 else 2},
            optional="" if n == 2 else "bias",
        )
        for n in (1, 2, 3)
    },
    "convolution, compared with torch": Entry(
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
    "convolution, kernel size 1": Entry(
        lambda: convolve.convolution_over(1), sizes={"w": 1, "j": 1, "c": 1, "k": 1, "...": ()}
    ),
    "grouped convolution": Entry(
        lambda: convolve.grouped_convolution_over(2),
        lambda image, weight, bias=None, **options: torch.nn.functional.conv2d(
            image, weight.flatten(0, 1), bias, groups=2, **options
        ),
        (claims.pickles,),
        sizes={"g": 2, "c": 3, "k": 5, "h": 7, "w": 9, "i": 2, "j": 3},
        options={"stride": (1, 2), "padding": 1},
        optional="bias",
    ),
    "grouped convolution, replicated": Entry(
        lambda: convolve.grouped_convolution_over(1),
        sizes={"g": 2, "c": 3, "k": 5, "w": 9, "j": 3, "...": (2, 2)},
        options={"stride": 2, "padding": ((0, 2),), "mode": "replicate", "dilation": 2},
    ),
    "convolution 4d": Entry(
        lambda: convolve.convolution_over(4),
        sizes={"c": 2, "k": 3, "x0": 2, "x1": 3, "x2": 2, "x3": 3, "i0": 1, "i1": 2, "i2": 2, "i3": 2, "...": ()},
        claims=(partial(laws.linear, argument="image"), claims.pickles),
        inputs={"bias": None},
    ),
    "transposed convolution 1d": Entry(
        lambda: convolve.transposed_convolution_over(1),
        lambda image, weight, bias=None, **options: torch.nn.functional.conv_transpose1d(
            image, weight, bias, **options
        ),
        (claims.pickles,),
        sizes={"w'": 5, "j": 3, "...": (2,)},
        options={"stride": 2, "padding": 1, "output_padding": 1, "dilation": 2},
        optional="bias",
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
    "transposed convolution, circular, large padding": Entry(
        lambda: convolve.transposed_convolution_over(1),
        sizes={"w'": 5, "j": 3},
        options={"padding": 2, "mode": "circular", "stride": 2, "output_padding": 1, "dilation": 2},
    ),
    "grouped transposed convolution": Entry(
        lambda: convolve.grouped_transposed_convolution_over(1),
        lambda image, weight, bias=None, **options: torch.nn.functional.conv_transpose1d(
            image, weight.flatten(0, 1), bias, groups=2, **options
        ),
        (claims.pickles,),
        sizes={"g": 2, "c": 3, "k": 5, "w'": 5, "j": 3, "...": (2,)},
        options={"stride": 2, "output_padding": 1},
        optional="bias",
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
    "Convolution, options as lists": Entry(
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
    "TransposedConvolution, options as lists": Entry(
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
    "TransposedConvolution, output size": Entry(
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
    "SeparableConvolution, other options": Entry(
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
            claims=(claims.pickles,),
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
    "max pool, options per axis": Entry(
        lambda: pooling.max_pool_over(2),
        lambda image, size, **options: torch.nn.functional.max_pool2d(image, size, **options),
        sizes={"h": 7, "w": 9, "...": (3,)},
        options={"size": (3, 2), "padding": (1, 0), "dilation": (2, 1)},
    ),
    "max pool, large padding": Entry(
        lambda: pooling.max_pool_over(2), sizes={"h": 5, "w": 7}, options={"size": 3, "padding": (0, 2), "dilation": 2}
    ),
    "mean pool, padding too large for one axis": Entry(
        lambda: pooling.mean_pool_over(2), sizes={"h": 5, "w": 7}, options={"size": (4, 2), "padding": 2}
    ),
    "mean pool, options per axis": Entry(
        lambda: pooling.mean_pool_over(2),
        lambda image, size, **options: torch.nn.functional.avg_pool2d(image, size, **options),
        sizes={"h": 7, "w": 9, "...": (3,)},
        options={"size": (3, 2), "padding": (1, 0), "stride": (1, 2)},
    ),
    "mean pool, large padding": Entry(
        lambda: pooling.mean_pool_over(2), sizes={"h": 5, "w": 7}, options={"size": 2, "padding": (2, 1)}
    ),
    **{
        f"{kind} pool, size 1, large padding{', as tuples' * several}": Entry(
            lambda kind=kind: getattr(pooling, f"{kind}_pool_over")(1),
            sizes={"w": 5, "...": (2,)},
            options={"size": (1,), "padding": (2,), "stride": 3} if several else {"size": 1, "padding": 2, "stride": 3},
            without={"gradcheck": "the maximum of a window inside the padding is minus infinity"}
            if kind == "max"
            else {},
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
        (partial(laws.linear, argument="value"), partial(equivariant, axis="x"), partial(equivariant, axis="y")),
    ),
    "squared error": Entry(
        lambda: conv_attention.squared_error, oracles.squared_error, (partial(equivariant, axis="n"),)
    ),
    "conv attention": Entry(
        of(models.ConvAttention, 6, 8, 2, 3, 10, 4, 9),
        lambda module, image, right: oracles.squared_error(oracles.example_logits(module, image), right),
    ),
    "conv attention, predicting": Entry(
        method(of(models.ConvAttention, 6, 8, 2, 3, 10, 4, 9), "predict"), oracles.example_logits
    ),
    "conv attention, convolved": Entry(
        method(of(models.ConvAttention, 6, 8, 2, 3, 10, 4, 9), "convolved"), oracles.example_rows
    ),
}

PARAMETERS = {
    "multi-head": 438,
    "multi-head, groups, bool masks": 326,
    "multi-head, dropout": 438,
    "multi-head, rotary, window": 438,
    "multi-head, grouped, rotary, window": 326,
    "remember": 326,
    "recall": 326,
    "steps": 326,
    "steps, truncated cache": 438,
    "feed-forward": 71,
    "feed-forward, GELU, dropout": 60,
    "encoder layer": 317,
    "encoder layer, norm first": 261,
    "encoder layer, norm first, separate source": 264,
    "encoder layer, dropout": 317,
    "encoder layer, dropout, norm first": 317,
    "encoder": 646,
    "encoder, no last norm": 264,
    "encoder, other options, dropout": 270,
    "decoder layer": 551,
    "decoder layer, norm first": 462,
    "decoder layer, rotary, window": 439,
    "decoder layer, dropout": 551,
    "decoder layer, dropout, norm first": 551,
    "decoder": 1114,
    "decoder, no last norm": 462,
    "decoder, other options, dropout": 468,
    "transformer": 1443,
    "transformer, norm first": 990,
    "transformer, other options, dropout": 738,
    "sinusoidal positions": 0,
    "learned positions": 36,
    "rotary positions": 0,
    "language model": 688,
    "language model, probabilities": 371,
    "language model, untied": 360,
    "language model, dropout": 371,
    "language model, generating": 315,
    "language model, generating, learned": 425,
    "language model, generating, padded": 425,
    "language model, stopping": 347,
    "language model, sampling": 371,
    "sequence to sequence": 934,
    "sequence to sequence, probabilities": 934,
    "sequence to sequence, untied": 1074,
    "sequence to sequence, dropout": 934,
    "sequence to sequence, generating": 934,
    "sequence to sequence, stopping": 1218,
    "sequence to sequence, sampling": 934,
    "mlp": 295,
    "mlp, probabilities": 295,
    "visual attention": 1113,
    "visual attention, dropout": 1080,
    "visual attention, bool mask": 192,
    "visual attention, no larger than a window": 1080,
    "patches": 185,
    "vision transformer": 783,
    "vision transformer, mean": 466,
    "vision transformer, features": 478,
    "vision transformer, embedding": 490,
    "vision transformer, encoding": 490,
    "vision transformer, encoding, dropout": 478,
    "norm and activation": 6,
    "no norm, and activation": 0,
    "double convolution": 141,
    "double convolution, GELU": 141,
    "double convolution, normed": 147,
    "block": 280,
    "block, biased": 83,
    "resnet": 1621,
    "resnet, biased": 617,
    "resnet, probabilities": 617,
    "down": 141,
    "up": 275,
    "up, from many channels": 4696,
    "unet": 30573,
    "unet as drawn": 30464,
    "linear": 245,
    "linear, no bias": 15,
    "linear, scalar output": 4,
    "Convolution": 78,
    "Convolution, same": 36,
    "Convolution, same, even": 51,
    "Convolution, options as lists": 150,
    "TransposedConvolution": 76,
    "TransposedConvolution, options as lists": 144,
    "TransposedConvolution, circular": 40,
    "TransposedConvolution, output size": 40,
    "SeparableConvolution": 70,
    "SeparableConvolution, other options": 36,
    "conv attention": 339,
    "conv attention, predicting": 339,
    "conv attention, convolved": 339,
}
"""The number of parameters of each module, by the formula in its docstring."""

CIRCUITS = {name: replace(entry, parameters=PARAMETERS.get(name)) for name, entry in CIRCUITS.items()}
