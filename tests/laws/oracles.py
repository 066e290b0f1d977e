# To pyright an attribute of a module is a Tensor or a Module, whichever it is.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Independent implementations of every circuit of `models`: plain, slow, and without any function of this library.

The reference of a module takes the module as its first argument and reads only its weights. The options of the module
are passed as arguments, because the module might store a wrong option. Masks are boolean (True where a query may attend
to a key) or floating (added to the scores).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- Parts ------------------------------------------------------------------------------------------------------------


def linear(box: Any, x: Tensor) -> Tensor:
    """The weighted sums of the inputs, plus the bias."""
    return (x[..., None, :] * box.weight).sum(-1) + (0 if box.bias is None else box.bias)


def layer_normed(box: Any, x: Tensor, eps: float) -> Tensor:
    """Layer normalization over the last axis."""
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    spread = (centred.square().sum(-1, keepdim=True) / x.shape[-1] + eps).sqrt()
    return centred / spread * box.weight + (0 if box.bias is None else box.bias)


def batch_normed(box: Any, x: Tensor) -> Tensor:
    """Batch normalization with the running mean and variance."""
    by_channel = [each[:, None, None] for each in (box.running_mean, box.running_var, box.weight, box.bias)]
    mean, variance, weight, bias = by_channel
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def softmax(score: Tensor) -> Tensor:
    """The exponentials divided by their sum over the last axis; zeros if all scores are minus infinity."""
    excluded = score.isneginf()
    largest = score.masked_fill(excluded, -1e30).amax(-1, keepdim=True).detach()
    power = (score.masked_fill(excluded, 0) - largest.clamp(min=-1e20)).clamp(max=50).exp().masked_fill(excluded, 0)
    total = power.sum(-1, keepdim=True)
    return power / total.masked_fill(total == 0, 1)


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return x.clamp(min=0)


def gelu(x: Tensor) -> Tensor:
    """x Φ(x) for the standard normal distribution Φ."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def dropped_out(x: Tensor, probability: float) -> Tensor:
    """Dropout; with the same random state the same elements are dropped."""
    return x if probability == 0 else x * (torch.empty_like(x).bernoulli_(1 - probability) / (1 - probability))


def convolved(image: Tensor, box: Any, stride: int = 1, padding: int = 0) -> Tensor:
    """The two-dimensional convolution, computed window by window."""
    image = F.pad(image, [padding] * 4)
    rows, columns = box.weight.shape[-2:]
    starts = [
        range(0, size - window + 1, stride) for size, window in zip(image.shape[-2:], (rows, columns), strict=True)
    ]
    seen = [
        (image[:, None, :, i : i + rows, j : j + columns] * box.weight).sum((-3, -2, -1)) for i, j in product(*starts)
    ]
    output = torch.stack(seen, -1).unflatten(-1, (len(starts[0]), len(starts[1])))
    return output + (0 if box.bias is None else box.bias[:, None, None])


def transposed_convolution(image: Tensor, box: Any, stride: int) -> Tensor:
    """The transposed convolution: every position adds its window to the output."""
    (h, w), (rows, columns) = image.shape[-2:], box.weight.shape[-2:]
    canvas = [[0.0] * (stride * (w - 1) + columns) for _ in range(stride * (h - 1) + rows)]
    for i, j, a, b in product(range(h), range(w), range(rows), range(columns)):
        value = (image[:, :, i, j, None] * box.weight[:, :, a, b]).sum(1)
        canvas[stride * i + a][stride * j + b] = canvas[stride * i + a][stride * j + b] + value
    zero = image.new_zeros(len(image), box.weight.shape[1])
    stacked = torch.stack([torch.stack([zero + each for each in row], -1) for row in canvas], -2)
    return stacked + (0 if box.bias is None else box.bias[:, None, None])


# --- Attention --------------------------------------------------------------------------------------------------------


def hidden_keys(y: int, x: int, causal: bool, window: int | None, start: int) -> Tensor:
    """A mask that is True where a query may not attend to a key, computed pair by pair."""
    rows = []
    for query in range(start, start + y):
        near = [window is None or abs(query - key) < window for key in range(x)]
        rows.append([not (near[key] and not (causal and key > query)) for key in range(x)])
    return torch.tensor(rows)


def masked(score: Tensor, mask: Tensor | None) -> Tensor:
    """The scores, minus infinity where a boolean mask is False; the sum of scores and mask if the mask is floating."""
    if mask is None:
        return score
    return score.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else score + mask


def weights(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool = False, window: int | None = None, start: int = 0
) -> Tensor:
    """The weights of the keys for each query: the softmax of the scaled and masked inner products."""
    score = (query[..., :, None, :] * key[..., None, :, :]).sum(-1) / math.sqrt(query.shape[-1])
    hidden = hidden_keys(query.shape[-2], key.shape[-2], causal, window, start)
    return softmax(masked(score.masked_fill(hidden, -math.inf), mask))


def with_keys(mask: Tensor | None, key_mask: Tensor | None, y: int) -> Tensor | None:
    """A mask combined with a key mask, row by row."""
    if key_mask is None:
        return mask
    every = torch.stack([key_mask] * y, -2)
    if mask is None:
        return every
    return mask & every if mask.dtype == torch.bool else torch.where(every, mask, -math.inf)


def mixed(weight: Tensor, value: Tensor) -> Tensor:
    """The weighted sums of the values."""
    return (weight[..., None] * value[..., None, :, :]).sum(-2)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> Tensor:
    """Attention, Figure 20."""
    mask = with_keys(mask, key_mask, query.shape[-2])
    return mixed(dropped_out(weights(query, key, mask, **options), dropout), value)


def grouped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> Tensor:
    """Attention head by head, each with the keys and values of its group."""
    shared = query.shape[-3] // key.shape[-3]
    heads = range(query.shape[-3])
    found = [
        weights(
            query[..., head, :, :],
            key[..., head // shared, :, :],
            with_keys(None if mask is None else mask[..., head, :, :], key_mask, query.shape[-2]),
            **options,
        )
        for head in heads
    ]
    weight = dropped_out(torch.stack(found, -3), dropout)
    return torch.stack([mixed(weight[..., head, :, :], value[..., head // shared, :, :]) for head in heads], -3)


@dataclass(frozen=True)
class LayerConfig:
    """The options of a layer with attention; `base` is the base of the rotary positions, None without them."""

    k: int = 4
    window: int | None = None
    base: float | None = None
    norm_first: bool = False
    final_norm: bool = True
    activation: Callable[[Tensor], Tensor] = relu
    eps: float = 1e-5
    dropout: float = 0.0


PLAIN = LayerConfig()
GPT = LayerConfig(norm_first=True, activation=gelu, base=10000.0)
VIT = LayerConfig(norm_first=True, activation=gelu, eps=1e-6)


def rotated(x: Tensor, start: int = 0, base: float = 10000.0) -> Tensor:
    """Rotary positions: elements i and i + k/2 are one complex number, multiplied by exp(1j p base^(-2i/k))."""
    k = x.shape[-1]
    angles = [[p * base ** (-2 * i / k) for i in range(k // 2)] for p in range(start, start + x.shape[-2])]
    point = torch.complex(x[..., : k // 2], x[..., k // 2 :]) * torch.exp(1j * torch.tensor(angles, dtype=x.dtype))
    return torch.cat((point.real, point.imag), -1)


def heads(box: Any, x: Tensor, k: int, base: float | None = None, start: int = 0) -> Tensor:
    """The outputs of a linear map, split into heads on an axis before the vectors; rotated if `base` is not None."""
    pieces = linear(box, x).split(k, -1)
    return torch.stack([each if base is None else rotated(each, start, base) for each in pieces], -3)


def keys_and_values(
    module: Any, source: Tensor, start: int = 0, *, config: LayerConfig = PLAIN
) -> tuple[Tensor, Tensor]:
    """The keys and values of a source, in heads."""
    return heads(module.Lk, source, config.k, config.base, start), heads(module.Lv, source, config.k)


def attend(
    module: Any,
    target: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    head_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    causal: bool = False,
    start: int = 0,
    config: LayerConfig = PLAIN,
) -> Tensor:
    """The attention of a target over keys and values, followed by the output map `Lo`."""
    query = heads(module.Lq, target, config.k, config.base, start)
    every = None if mask is None else torch.stack([mask] * query.shape[-3], -3)
    if head_mask is not None:
        zero = torch.zeros((*query.shape[:-1], keys.shape[-2]), dtype=query.dtype)
        every = masked(masked(zero, every), head_mask)
    options: dict[str, Any] = {"causal": causal, "window": config.window, "start": start, "dropout": config.dropout}
    found = grouped_attention(query, keys, values, every, key_mask=key_mask, **options)
    return linear(module.Lo, torch.cat(list(found.unbind(-3)), -1))


def multi_head(
    module: Any,
    target: Tensor,
    source: Tensor,
    mask: Tensor | None = None,
    *,
    config: LayerConfig = PLAIN,
    **options: Any,
) -> Tensor:
    """Multi-head attention, Figure 21, head by head."""
    return attend(module, target, *keys_and_values(module, source, config=config), mask, config=config, **options)


def visual(
    module: Any,
    target: Tensor,
    source: Tensor,
    mask: Tensor | None = None,
    *,
    k: int,
    kernel: int,
    stride: int,
    dropout: float = 0.0,
) -> Tensor:
    """Visual attention, Figure 28: queries, keys and values by convolution, then a transposed convolution."""

    def whole(image: Tensor) -> Tensor:
        """The image, padded at the end so that its windows cover it at the stride."""
        sizes = list(image.shape[-2:])
        more = [
            next(n for n in range(99) if size + n >= kernel and (size + n - kernel) % stride == 0) for size in sizes
        ]
        return F.pad(image, (0, more[1], 0, more[0]))

    query, key, value = (
        convolved(whole(image), box, stride).unflatten(1, (-1, k))
        for image, box in ((target, module.Cq), (source, module.Ck), (source, module.Cv))
    )
    i, j = query.shape[-2:]
    flat = [each.flatten(-2).mT for each in (query, key, value)]
    every = None if mask is None else mask.flatten(3).flatten(1, 2)[:, None]
    found = attention(*flat, every, dropout=dropout).mT.unflatten(-1, (i, j)).flatten(1, 2)
    return transposed_convolution(found, module.Co, stride)[..., : target.shape[-2], : target.shape[-1]]


# --- Transformers -----------------------------------------------------------------------------------------------------


def feed_forward(module: Any, x: Tensor, *, config: LayerConfig = PLAIN) -> Tensor:
    """Two linear maps with an activation between them."""
    return linear(module.L2, dropped_out(config.activation(linear(module.L1, x)), config.dropout))


def _on_residuals(x: Tensor, boxes: Sequence[tuple[Any, Callable[[Tensor], Tensor]]], config: LayerConfig) -> Tensor:
    """The sublayers one after another, each with a residual connection, and with its norm before or after it."""
    for norm, box in boxes:
        if config.norm_first:
            x = x + dropped_out(box(layer_normed(norm, x, config.eps)), config.dropout)
        else:
            x = layer_normed(norm, x + dropped_out(box(x), config.dropout), config.eps)
    return x


def encoder_layer(
    module: Any,
    x: Tensor,
    mask: Tensor | None = None,
    *,
    source: Tensor | None = None,
    config: LayerConfig = PLAIN,
    **options: Any,
) -> Tensor:
    """Attention and feed-forward, each with its norm before or after it.

    With `norm_first` a separate source is normalized by the norm of the attention, as the target is.
    """

    def source_of(x: Tensor) -> Tensor:
        """The source of the attention: the target `x` itself, unless a separate source is passed."""
        if source is None:
            return x
        return layer_normed(module.attention_norm, source, config.eps) if config.norm_first else source

    boxes = (
        (
            module.attention_norm,
            lambda x: multi_head(module.attention, x, source_of(x), mask, config=config, **options),
        ),
        (module.feed_forward_norm, lambda x: feed_forward(module.feed_forward, x, config=config)),
    )
    return _on_residuals(x, boxes, config)


def decoder_layer(
    module: Any,
    x: Tensor,
    memory: Tensor,
    mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    *,
    key_mask: Tensor | None = None,
    memory_key_mask: Tensor | None = None,
    causal: bool = True,
    config: LayerConfig = PLAIN,
) -> Tensor:
    """Three sublayers with norms before or after them; cross-attention has no window and no rotary positions."""
    plain = replace(config, window=None, base=None)
    boxes = (
        (
            module.attention_norm,
            lambda x: multi_head(module.attention, x, x, mask, key_mask=key_mask, causal=causal, config=config),
        ),
        (
            module.memory_attention_norm,
            lambda x: multi_head(
                module.memory_attention, x, memory, memory_mask, key_mask=memory_key_mask, config=plain
            ),
        ),
        (module.feed_forward_norm, lambda x: feed_forward(module.feed_forward, x, config=config)),
    )
    return _on_residuals(x, boxes, config)


def encoder(
    module: Any, x: Tensor, mask: Tensor | None = None, *, config: LayerConfig = PLAIN, **options: Any
) -> Tensor:
    """Layer by layer, then the final norm."""
    for layer in module.layers:
        x = encoder_layer(layer, x, mask, config=config, **options)
    return layer_normed(module.norm, x, config.eps) if config.final_norm else x


def decoder(module: Any, x: Tensor, memory: Tensor, *masks: Any, config: LayerConfig = PLAIN, **options: Any) -> Tensor:
    """Layer by layer, then the final norm."""
    for layer in module.layers:
        x = decoder_layer(layer, x, memory, *masks, config=config, **options)
    return layer_normed(module.norm, x, config.eps) if config.final_norm else x


def transformer(
    module: Any,
    source: Tensor,
    target: Tensor,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    *,
    source_key_mask: Tensor | None = None,
    target_key_mask: Tensor | None = None,
    causal: bool = True,
    config: LayerConfig = PLAIN,
) -> Tensor:
    """The encoder and decoder of Vaswani et al., Figure 1, without embeddings."""
    memory = encoder(module.encoder, source, source_mask, key_mask=source_key_mask, config=config)
    keys = {"key_mask": target_key_mask, "memory_key_mask": source_key_mask}
    return decoder(module.decoder, target, memory, target_mask, memory_mask, **keys, causal=causal, config=config)


def places(x: Tensor, start: int, padding: Tensor | None) -> list[list[int]]:
    """The position of each vector of each sequence, all leading axes flattened."""
    before = [0] * (x[..., 0, 0].numel()) if padding is None else padding.expand(x.shape[:-2]).flatten().tolist()
    return [[max(0, start + p - less) for p in range(x.shape[-2])] for less in before]


def sinusoidal(x: Tensor, start: int = 0, padding: Tensor | None = None) -> Tensor:
    """The vectors plus sines and cosines of their positions, computed element by element."""
    m = x.shape[-1]
    rows = []
    for p in [p for sequence in places(x, start, padding) for p in sequence]:
        angles = [p / 10000 ** (2 * (i // 2) / m) for i in range(m)]
        rows.append([math.cos(angle) if i % 2 else math.sin(angle) for i, angle in enumerate(angles)])
    return x + torch.tensor(rows, dtype=x.dtype).reshape(x.shape)


def learned(module: Any, x: Tensor, start: int = 0, padding: Tensor | None = None) -> Tensor:
    """The vectors plus a learned vector for each position."""
    rows = [module.weight[p] for sequence in places(x, start, padding) for p in sequence]
    return x + torch.stack(rows).reshape(x.shape)


def padding_before(key_mask: Tensor | None) -> Tensor | None:
    """The number of False before the first True of each sequence; 0 if there is none."""
    if key_mask is None:
        return None
    rows = key_mask.reshape(-1, key_mask.shape[-1]).tolist()
    return torch.tensor([row.index(True) if True in row else 0 for row in rows]).reshape(key_mask.shape[:-1])


def token_logits(module: Any, x: Tensor, tied: bool) -> Tensor:
    """The logits of the tokens, by the weight of the embedding if `tied`, otherwise of the head."""
    return (x[..., None, :] * (module.embedding if tied else module.head).weight).sum(-1)


def language_logits(
    module: Any,
    tokens: Tensor,
    *,
    key_mask: Tensor | None = None,
    config: LayerConfig = GPT,
    tied: bool = True,
) -> Tensor:
    """The logits of GPT-2, with learned or rotary positions."""
    x = module.embedding.weight[tokens]
    placed = learned(module.positions, x, padding=padding_before(key_mask)) if config.base is None else x
    x = dropped_out(placed, config.dropout)
    for layer in module.layers:
        x = encoder_layer(layer, x, key_mask=key_mask, causal=True, config=config)
    return token_logits(module, layer_normed(module.norm, x, config.eps), tied)


def translated_logits(
    module: Any,
    source: Tensor,
    target: Tensor,
    *,
    source_key_mask: Tensor | None = None,
    target_key_mask: Tensor | None = None,
    config: LayerConfig = PLAIN,
    padding: int | None = None,
    tied: bool = True,
) -> Tensor:
    """The logits of the model of Vaswani et al., with scaled embeddings and masked padding."""

    def embedded(tokens: Tensor, real: Tensor | None) -> Tensor:
        """The scaled embeddings with sinusoidal positions."""
        vectors = module.embedding.weight[tokens] * math.sqrt(module.embedding.weight.shape[-1])
        return dropped_out(sinusoidal(vectors, padding=padding_before(real)), config.dropout)

    real = source_key_mask
    if padding is not None:
        real = source != padding if real is None else (source != padding) & real
    memory = encoder(module.transformer.encoder, embedded(source, real), key_mask=real, config=config)
    keys = {"key_mask": target_key_mask, "memory_key_mask": real}
    x = decoder(module.transformer.decoder, embedded(target, target_key_mask), memory, **keys, config=config)
    return token_logits(module, x, tied)


# --- Images -----------------------------------------------------------------------------------------------------------


def mlp_logits(module: Any, image: Tensor) -> Tensor:
    """Three linear maps with ReLU between them."""
    x = image.flatten(-2)
    for place in (0, 2, 4):
        x = linear(module.linear_relu_stack[place], x)
        x = x.clamp(min=0) if place < 4 else x
    return x


def patches(module: Any, image: Tensor, *, p: int = 2) -> Tensor:
    """A linear map of every patch."""
    starts = [range(0, size, p) for size in image.shape[-2:]]
    cut = [image[:, :, i : i + p, j : j + p].flatten(1) for i, j in product(*starts)]
    return torch.stack([linear(module.L, each) for each in cut], 1)


def vision_tokens(module: Any, image: Tensor, *, class_token: bool = True, config: LayerConfig = VIT) -> Tensor:
    """The input of the first layer: patches, class token and positions."""
    x = patches(module.patches, image)
    if class_token:
        x = torch.cat((torch.stack([module.class_token] * len(x))[:, None], x), 1)
    return dropped_out(x + module.positions, config.dropout)


def vision_encoded(module: Any, image: Tensor, *, class_token: bool = True, config: LayerConfig = VIT) -> Tensor:
    """The output of the last layer."""
    x = vision_tokens(module, image, class_token=class_token, config=config)
    for layer in module.layers:
        x = encoder_layer(layer, x, config=config)
    return x


def vision_features(module: Any, image: Tensor, *, class_token: bool = True, config: LayerConfig = VIT) -> Tensor:
    """The normalized vector of the class token; without a class token, the normalized mean of all vectors."""
    x = vision_encoded(module, image, class_token=class_token, config=config)
    return layer_normed(module.norm, x[:, 0] if class_token else x.sum(1) / x.shape[1], config.eps)


def vision_logits(module: Any, image: Tensor, **options: Any) -> Tensor:
    """The output of the head."""
    return linear(module.head, vision_features(module, image, **options))


def norm_activated(module: Any, image: Tensor) -> Tensor:
    """Batch normalization, then ReLU."""
    return batch_normed(module.norm, image).clamp(min=0)


def _in_turn(parts: Sequence[Any], image: Tensor, stride: int = 1) -> Tensor:
    """Norms and convolutions one after another; the first convolution has the stride."""
    for part in parts:
        if isinstance(part, nn.Conv2d):
            image, stride = convolved(image, part, stride, part.weight.shape[-1] // 2), 1
        else:
            image = norm_activated(part, image)
    return image


def block(module: Any, image: Tensor, *, s: int) -> Tensor:
    """A block of the residual network, Figure 26, bottom."""
    image = norm_activated(module.norm_activate, image)
    first = module.strided
    image = _in_turn(first.main, image, s) + convolved(image, first.connection, s)
    for unit in module.plain:
        image = image + _in_turn(unit.main, image)
    return image


def resnet_logits(module: Any, image: Tensor) -> Tensor:
    """The residual network, Figure 26."""
    image = convolved(image, module.convolution, padding=1)
    for each, s in zip(module.blocks, (1, 2, 2), strict=True):
        image = block(each, image, s=s)
    return linear(module.linear, norm_activated(module.norm_activate, image).flatten(2).mean(-1))


def double_convolution(
    module: Any, image: Tensor, *, norm: bool = False, activation: Callable[[Tensor], Tensor] = relu
) -> Tensor:
    """Two convolutions, each with an activation after it."""
    for box, activated in ((module.first, module.first_activation), (module.second, module.second_activation)):
        image = convolved(image, box, padding=1)
        image = activation(batch_normed(activated.norm, image) if norm else image)
    return image


def down(module: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum pool of a double convolution, and the double convolution itself."""
    saved = double_convolution(module.double_convolution, image)
    h, w = saved.shape[-2:]
    return saved.reshape(*saved.shape[:2], h // 2, 2, w // 2, 2).amax((3, 5)), saved


def up(module: Any, image: Tensor, saved: Tensor) -> Tensor:
    """A double convolution of the image and the skip connection, then an image of twice the size."""
    return upscaled(module.upscale, double_convolution(module.double_convolution, torch.cat((image, saved), 1)))


def upscaled(box: Any, image: Tensor) -> Tensor:
    """The transposed convolution with kernel size 2 and stride 2."""
    b, _, h, w = image.shape
    grown = torch.einsum("bchw,cdij->bdhiwj", image, box.weight)
    return grown.reshape(b, -1, 2 * h, 2 * w) + box.bias[:, None, None]


def unet_logits(module: Any, image: Tensor) -> Tensor:
    """The U-Net, Figure 27."""
    memory = []
    for each in module.down:
        image, saved = down(each, image)
        memory.append(saved)
    image = upscaled(module.middle_upscale, double_convolution(module.middle, image))
    for each, saved in zip(module.up, memory[:0:-1], strict=True):
        image = up(each, image, saved)
    if module.top is not None:
        image = double_convolution(module.top, torch.cat((image, memory[0]), 1))
    return convolved(image, module.convolution)


# --- The worked example, signals, tokens ------------------------------------------------------------------------------


def shared_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The attention of the worked example, whose softmax is over the queries."""
    weight = softmax((key[..., :, None, :] * query[..., None, :, :]).sum(-1))
    return (weight[..., None] * value[..., :, None, :]).sum(-3)


def squared_error(output: Tensor, right: Tensor) -> Tensor:
    """Half the squared distance."""
    return (output - right).square().sum(-1) / 2


def example_rows(module: Any, image: Tensor) -> Tensor:
    """The convolution of the worked example."""
    flat = convolved(image.reshape(-1, 1, *image.shape[-2:]), module.C)
    return flat.reshape(*image.shape[:-2], *flat.shape[-2:])


def example_logits(module: Any, image: Tensor) -> Tensor:
    """The output of the worked example."""
    row = example_rows(module, image)
    found = shared_out(linear(module.Lq, row), linear(module.Lk, row), linear(module.Lv, row))
    return linear(module.L, found.flatten(-2))


def slid(a: Tensor, b: Tensor, before: int, after: int) -> Tensor:
    """The inner product at every shift."""
    padded = F.pad(a, (before, after))
    shifts = range(padded.shape[-1] - b.shape[-1] + 1)
    return torch.stack([(padded[..., i : i + b.shape[-1]] * b).sum(-1) for i in shifts], -1)


def signals(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """numpy.convolve, as a product of polynomials: element n is the sum of the products a[i] b[n - i]."""
    total = a.shape[-1] + b.shape[-1] - 1
    full = torch.stack(
        [sum(a[..., i] * b[n - i] for i in range(a.shape[-1]) if 0 <= n - i < b.shape[-1]) for n in range(total)], -1
    )
    longer, shorter = max(a.shape[-1], b.shape[-1]), min(a.shape[-1], b.shape[-1])
    start, length = {
        "full": (0, total),
        "same": ((shorter - 1) // 2, longer),
        "valid": (shorter - 1, longer - shorter + 1),
    }[mode]
    return full[..., start : start + length]


def correlated(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """numpy.correlate: convolution with b reversed; in mode "same" with a longer b, the start is rounded up."""
    if mode == "same" and b.shape[-1] > a.shape[-1]:
        return signals(a.flip(-1), b, mode).flip(-1)
    return signals(a, b.flip(-1), mode)


def joined(module: Any, x: Tensor, *, inputs: int, outputs: Sequence[int]) -> Tensor:
    """The linear map from `inputs` axes to axes of sizes `outputs`, by a matrix over the flattened axes."""
    mapped = linear(module, x.reshape(*x.shape[: x.ndim - inputs], -1))
    return mapped.reshape(*mapped.shape[:-1], *outputs)


def sampled(logits: Tensor, temperature: float, top_k: int | None = None) -> Tensor:
    """A token sampled from the softmax of the `top_k` largest logits, divided by the temperature."""
    order = logits.argsort(-1, descending=True)[..., :top_k]
    power = (torch.gather(logits, -1, order) / temperature).exp()
    share = power / power.sum(-1, keepdim=True)
    place = torch.multinomial(share.reshape(-1, share.shape[-1]), 1).reshape(logits.shape[:-1])
    return torch.gather(order, -1, place[..., None])[..., 0]


def extended(
    tokens: Tensor,
    count: int,
    logits: Callable[[Tensor], Tensor],
    stop: int | None = None,
    **choice: Any,
) -> Tensor:
    """Tokens generated one after another without a cache; a sequence that has ended is padded with `stop`."""
    given, ended = tokens.shape[-1], torch.zeros(tokens.shape[:-1], dtype=torch.bool)
    while tokens.shape[-1] < given + count and not ended.all():
        score = logits(tokens)[..., -1, :]
        token = sampled(score, **choice) if choice else score.argmax(-1)
        if stop is not None:
            token = torch.where(ended, stop, token)
            ended = token == stop
        tokens = torch.cat((tokens, token[..., None]), -1)
    return tokens
