# Modules are read by the names of their parts, which pyright knows as Tensor or Module.
# pyright: reportArgumentType=false, reportCallIssue=false
"""What every circuit of `models` means, written a second time: plain, slow, and with nothing of ours.

Each function of a module takes the module first, and reads its weights. All else that a module was made with it is
told, and does not ask the module, which may have kept something else. Masks are bool (True: may attend) or floating.
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
    """Every output the sum of its weighted inputs, and the bias."""
    return (x[..., None, :] * box.weight).sum(-1) + (0 if box.bias is None else box.bias)


def normed(box: Any, x: Tensor, eps: float) -> Tensor:
    """A vector less its mean, by its deviation."""
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    spread = (centred.square().sum(-1, keepdim=True) / x.shape[-1] + eps).sqrt()
    return centred / spread * box.weight + (0 if box.bias is None else box.bias)


def batch_normed(box: Any, x: Tensor) -> Tensor:
    """A channel less the mean it has learned, by its deviation."""
    by_channel = [each[:, None, None] for each in (box.running_mean, box.running_var, box.weight, box.bias)]
    mean, variance, weight, bias = by_channel
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def softmax(score: Tensor) -> Tensor:
    """Exponentials by their sum; zeros where nothing is left."""
    gone = score.isneginf()
    largest = score.masked_fill(gone, -1e30).amax(-1, keepdim=True).detach()
    power = (score.masked_fill(gone, 0) - largest.clamp(min=-1e20)).clamp(max=50).exp().masked_fill(gone, 0)
    total = power.sum(-1, keepdim=True)
    return power / total.masked_fill(total == 0, 1)


def relu(x: Tensor) -> Tensor:
    """Each number, but not below 0."""
    return x.clamp(min=0)


def gelu(x: Tensor) -> Tensor:
    """Each number by the probability that a normal one is less."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def dropped(x: Tensor, probability: float) -> Tensor:
    """Some numbers left out, the others as much larger: the same ones wherever the draws are the same."""
    return x if probability == 0 else x * (torch.empty_like(x).bernoulli_(1 - probability) / (1 - probability))


def convolved(image: Tensor, box: Any, stride: int = 1, padding: int = 0) -> Tensor:
    """Every window met with the weight, one window at a time."""
    image = F.pad(image, [padding] * 4)
    rows, columns = box.weight.shape[-2:]
    starts = [
        range(0, size - window + 1, stride) for size, window in zip(image.shape[-2:], (rows, columns), strict=True)
    ]
    seen = [
        (image[:, None, :, i : i + rows, j : j + columns] * box.weight).sum((-3, -2, -1)) for i, j in product(*starts)
    ]
    answer = torch.stack(seen, -1).unflatten(-1, (len(starts[0]), len(starts[1])))
    return answer + (0 if box.bias is None else box.bias[:, None, None])


def written(image: Tensor, box: Any, stride: int) -> Tensor:
    """Every place writes a window; what windows write is added up."""
    (h, w), (rows, columns) = image.shape[-2:], box.weight.shape[-2:]
    canvas = [[0.0] * (stride * (w - 1) + columns) for _ in range(stride * (h - 1) + rows)]
    for i, j, a, b in product(range(h), range(w), range(rows), range(columns)):
        value = (image[:, :, i, j, None] * box.weight[:, :, a, b]).sum(1)
        canvas[stride * i + a][stride * j + b] = canvas[stride * i + a][stride * j + b] + value
    zero = image.new_zeros(len(image), box.weight.shape[1])
    stacked = torch.stack([torch.stack([zero + each for each in row], -1) for row in canvas], -2)
    return stacked + (0 if box.bias is None else box.bias[:, None, None])


# --- Attention --------------------------------------------------------------------------------------------------------


def barred(y: int, x: int, causal: bool, window: int | None, start: int) -> Tensor:
    """Which keys a query may not see, one after another."""
    rows = []
    for query in range(start, start + y):
        near = [window is None or abs(query - key) < window for key in range(x)]
        rows.append([not (near[key] and not (causal and key > query)) for key in range(x)])
    return torch.tensor(rows)


def masked(score: Tensor, mask: Tensor | None) -> Tensor:
    """Scores that a mask bars or adds to."""
    if mask is None:
        return score
    return score.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else score + mask


def weights(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool = False, window: int | None = None, start: int = 0
) -> Tensor:
    """How much each query takes of each key, one product at a time."""
    score = (query[..., :, None, :] * key[..., None, :, :]).sum(-1) / math.sqrt(query.shape[-1])
    hidden = barred(query.shape[-2], key.shape[-2], causal, window, start)
    return softmax(masked(score.masked_fill(hidden, -math.inf), mask))


def mixed(weight: Tensor, value: Tensor) -> Tensor:
    """The values by their weights."""
    return (weight[..., None] * value[..., None, :, :]).sum(-2)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0, **options: Any
) -> Tensor:
    """Figure 20."""
    return mixed(dropped(weights(query, key, mask, **options), dropout), value)


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0, **options: Any
) -> Tensor:
    """Head by head, each with the keys of its group."""
    shared = query.shape[-3] // key.shape[-3]
    heads = range(query.shape[-3])
    found = [
        weights(
            query[..., head, :, :],
            key[..., head // shared, :, :],
            None if mask is None else mask[..., head, :, :],
            **options,
        )
        for head in heads
    ]
    weight = dropped(torch.stack(found, -3), dropout)
    return torch.stack([mixed(weight[..., head, :, :], value[..., head // shared, :, :]) for head in heads], -3)


@dataclass(frozen=True)
class Asked:
    """What a layer with attention is made with, but for its weights; `base` is that of rotary positions, if any."""

    k: int = 4
    window: int | None = None
    base: float | None = None
    norm_first: bool = False
    final_norm: bool = True
    activation: Callable[[Tensor], Tensor] = relu
    eps: float = 1e-5
    dropout: float = 0.0


PLAIN = Asked()
GPT = Asked(norm_first=True, activation=gelu, base=10000.0)
VIT = Asked(norm_first=True, activation=gelu, eps=1e-6)


def turned(x: Tensor, start: int = 0, base: float = 10000.0) -> Tensor:
    """Entries i and i + k/2 as one complex number, turned by its angle."""
    k = x.shape[-1]
    angles = [[p * base ** (-2 * i / k) for i in range(k // 2)] for p in range(start, start + x.shape[-2])]
    point = torch.complex(x[..., : k // 2], x[..., k // 2 :]) * torch.exp(1j * torch.tensor(angles, dtype=x.dtype))
    return torch.cat((point.real, point.imag), -1)


def heads(box: Any, x: Tensor, k: int, base: float | None = None, start: int = 0) -> Tensor:
    """What a box makes of x, cut into heads, stacked before the vectors."""
    pieces = linear(box, x).split(k, -1)
    return torch.stack([each if base is None else turned(each, start, base) for each in pieces], -3)


def remember(module: Any, source: Tensor, start: int = 0, *, asked: Asked = PLAIN) -> tuple[Tensor, Tensor]:
    """The keys and values of a source."""
    return heads(module.Lk, source, asked.k, asked.base, start), heads(module.Lv, source, asked.k)


def recall(
    module: Any,
    target: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    head_mask: Tensor | None = None,
    causal: bool = False,
    start: int = 0,
    asked: Asked = PLAIN,
) -> Tensor:
    """What each target finds in keys and values."""
    query = heads(module.Lq, target, asked.k, asked.base, start)
    every = None if mask is None else torch.stack([mask] * query.shape[-3], -3)
    if head_mask is not None:
        zero = torch.zeros((*query.shape[:-1], keys.shape[-2]), dtype=query.dtype)
        every = masked(masked(zero, every), head_mask)
    options: dict[str, Any] = {"causal": causal, "window": asked.window, "start": start, "dropout": asked.dropout}
    found = grouped_attention(query, keys, values, every, **options)
    return linear(module.Lo, torch.cat(list(found.unbind(-3)), -1))


def multi_head(
    module: Any, target: Tensor, source: Tensor, mask: Tensor | None = None, *, asked: Asked = PLAIN, **options: Any
) -> Tensor:
    """Figure 21, head by head."""
    return recall(module, target, *remember(module, source, asked=asked), mask, asked=asked, **options)


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
    """Figure 28: windows asked, answered and written."""

    def whole(image: Tensor) -> Tensor:
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
    return written(found, module.Co, stride)[..., : target.shape[-2], : target.shape[-1]]


# --- Transformers -----------------------------------------------------------------------------------------------------


def feed_forward(module: Any, x: Tensor, *, asked: Asked = PLAIN) -> Tensor:
    """Two maps and an activation."""
    return linear(module.L2, dropped(asked.activation(linear(module.L1, x)), asked.dropout))


def _on_residuals(x: Tensor, boxes: Sequence[tuple[Any, Callable[[Tensor], Tensor]]], asked: Asked) -> Tensor:
    """Each box on a residual, with its norm before or after."""
    for norm, box in boxes:
        if asked.norm_first:
            x = x + dropped(box(normed(norm, x, asked.eps)), asked.dropout)
        else:
            x = normed(norm, x + dropped(box(x), asked.dropout), asked.eps)
    return x


def encoder_layer(
    module: Any,
    x: Tensor,
    mask: Tensor | None = None,
    *,
    source: Tensor | None = None,
    asked: Asked = PLAIN,
    **options: Any,
) -> Tensor:
    """Two boxes with their norms before or after; the source, if it is another, is normed as the target is."""

    def answering(x: Tensor) -> Tensor:
        if source is None:
            return x
        return normed(module.attention_norm, source, asked.eps) if asked.norm_first else source

    boxes = (
        (module.attention_norm, lambda x: multi_head(module.attention, x, answering(x), mask, asked=asked, **options)),
        (module.feed_forward_norm, lambda x: feed_forward(module.feed_forward, x, asked=asked)),
    )
    return _on_residuals(x, boxes, asked)


def decoder_layer(
    module: Any,
    x: Tensor,
    memory: Tensor,
    mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    *,
    causal: bool = True,
    asked: Asked = PLAIN,
) -> Tensor:
    """Three boxes with their norms before or after; neither a window nor positions stand between target and memory."""
    plain = replace(asked, window=None, base=None)
    boxes = (
        (module.attention_norm, lambda x: multi_head(module.attention, x, x, mask, causal=causal, asked=asked)),
        (
            module.memory_attention_norm,
            lambda x: multi_head(module.memory_attention, x, memory, memory_mask, asked=plain),
        ),
        (module.feed_forward_norm, lambda x: feed_forward(module.feed_forward, x, asked=asked)),
    )
    return _on_residuals(x, boxes, asked)


def encoder(
    module: Any, x: Tensor, mask: Tensor | None = None, *, causal: bool = False, asked: Asked = PLAIN
) -> Tensor:
    """Layer by layer, then the norm."""
    for layer in module.layers:
        x = encoder_layer(layer, x, mask, causal=causal, asked=asked)
    return normed(module.norm, x, asked.eps) if asked.final_norm else x


def decoder(module: Any, x: Tensor, memory: Tensor, *masks: Any, asked: Asked = PLAIN, **options: Any) -> Tensor:
    """Layer by layer, then the norm."""
    for layer in module.layers:
        x = decoder_layer(layer, x, memory, *masks, asked=asked, **options)
    return normed(module.norm, x, asked.eps) if asked.final_norm else x


def transformer(
    module: Any,
    source: Tensor,
    target: Tensor,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    *,
    causal: bool = True,
    asked: Asked = PLAIN,
) -> Tensor:
    """Vaswani et al.'s Figure 1, inside."""
    memory = encoder(module.encoder, source, source_mask, asked=asked)
    return decoder(module.decoder, target, memory, target_mask, memory_mask, causal=causal, asked=asked)


def waves(x: Tensor, start: int = 0) -> Tensor:
    """Sines and cosines of the position, one by one."""
    m = x.shape[-1]
    rows = []
    for p in range(start, start + x.shape[-2]):
        angles = [p / 10000 ** (2 * (i // 2) / m) for i in range(m)]
        rows.append([math.cos(angle) if i % 2 else math.sin(angle) for i, angle in enumerate(angles)])
    return x + torch.tensor(rows, dtype=x.dtype)


def learned(module: Any, x: Tensor, start: int = 0) -> Tensor:
    """A learned vector for each position."""
    return torch.stack([each + module.weight[start + p] for p, each in enumerate(x.unbind(-2))], -2)


def scored(module: Any, x: Tensor, tied: bool) -> Tensor:
    """How well each token answers, by the embeddings or by a weight of its own."""
    return (x[..., None, :] * (module.embedding if tied else module.head).weight).sum(-1)


def language_logits(module: Any, tokens: Tensor, *, asked: Asked = GPT, tied: bool = True) -> Tensor:
    """GPT-2, or with rotary positions."""
    x = module.embedding.weight[tokens]
    x = dropped(learned(module.positions, x) if asked.base is None else x, asked.dropout)
    for layer in module.layers:
        x = encoder_layer(layer, x, causal=True, asked=asked)
    return scored(module, normed(module.norm, x, asked.eps), tied)


def translated_logits(
    module: Any,
    source: Tensor,
    target: Tensor,
    *,
    asked: Asked = PLAIN,
    padding: int | None = None,
    tied: bool = True,
) -> Tensor:
    """Vaswani et al., with embeddings scaled and padding barred."""

    def embedded(tokens: Tensor) -> Tensor:
        vectors = module.embedding.weight[tokens]
        return dropped(waves(vectors * math.sqrt(vectors.shape[-1])), asked.dropout)

    def mask(y: int) -> Tensor | None:
        return None if padding is None else torch.stack([source != padding] * y, -2)

    memory = encoder(module.transformer.encoder, embedded(source), mask(source.shape[-1]), asked=asked)
    x = decoder(module.transformer.decoder, embedded(target), memory, None, mask(target.shape[-1]), asked=asked)
    return scored(module, x, tied)


# --- Images -----------------------------------------------------------------------------------------------------------


def mlp_logits(module: Any, image: Tensor) -> Tensor:
    """Three maps."""
    x = image.flatten(-2)
    for place in (0, 2, 4):
        x = linear(module.linear_relu_stack[place], x)
        x = x.clamp(min=0) if place < 4 else x
    return x


def patches(module: Any, image: Tensor, *, p: int = 2) -> Tensor:
    """Every patch cut out."""
    starts = [range(0, size, p) for size in image.shape[-2:]]
    cut = [image[:, :, i : i + p, j : j + p].flatten(1) for i, j in product(*starts)]
    return torch.stack([linear(module.L, each) for each in cut], 1)


def vision_tokens(module: Any, image: Tensor, *, class_token: bool = True, asked: Asked = VIT) -> Tensor:
    """What goes into the first layer."""
    x = patches(module.patches, image)
    if class_token:
        x = torch.cat((torch.stack([module.class_token] * len(x))[:, None], x), 1)
    return dropped(x + module.positions, asked.dropout)


def vision_encoded(module: Any, image: Tensor, *, class_token: bool = True, asked: Asked = VIT) -> Tensor:
    """What comes out of the last."""
    x = vision_tokens(module, image, class_token=class_token, asked=asked)
    for layer in module.layers:
        x = encoder_layer(layer, x, asked=asked)
    return x


def vision_features(module: Any, image: Tensor, *, class_token: bool = True, asked: Asked = VIT) -> Tensor:
    """The class token's vector, or the mean."""
    x = vision_encoded(module, image, class_token=class_token, asked=asked)
    return normed(module.norm, x[:, 0] if class_token else x.sum(1) / x.shape[1], asked.eps)


def vision_logits(module: Any, image: Tensor, **options: Any) -> Tensor:
    """The head's answer."""
    return linear(module.head, vision_features(module, image, **options))


def norm_activated(module: Any, image: Tensor) -> Tensor:
    """Normed, then activated."""
    return batch_normed(module.norm, image).clamp(min=0)


def _in_turn(parts: Sequence[Any], image: Tensor, stride: int = 1) -> Tensor:
    """Norms and convolutions one after another; the first convolution strides."""
    for part in parts:
        if isinstance(part, nn.Conv2d):
            image, stride = convolved(image, part, stride, part.weight.shape[-1] // 2), 1
        else:
            image = norm_activated(part, image)
    return image


def block(module: Any, image: Tensor, *, s: int) -> Tensor:
    """Figure 26, below."""
    image = norm_activated(module.norm_activate, image)
    first = module.strided
    image = _in_turn(first.main, image, s) + convolved(image, first.connection, s)
    for unit in module.plain:
        image = image + _in_turn(unit.main, image)
    return image


def resnet_logits(module: Any, image: Tensor) -> Tensor:
    """Figure 26."""
    image = convolved(image, module.convolution, padding=1)
    for each, s in zip(module.blocks, (1, 2, 2), strict=True):
        image = block(each, image, s=s)
    return linear(module.linear, norm_activated(module.norm_activate, image).flatten(2).mean(-1))


def double_convolution(
    module: Any, image: Tensor, *, norm: bool = False, activation: Callable[[Tensor], Tensor] = relu
) -> Tensor:
    """Two convolutions, an activation after each."""
    for box, activated in ((module.first, module.first_activation), (module.second, module.second_activation)):
        image = convolved(image, box, padding=1)
        image = activation(batch_normed(activated.norm, image) if norm else image)
    return image


def down(module: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    """Half the size, and what is saved."""
    saved = double_convolution(module.double_convolution, image)
    h, w = saved.shape[-2:]
    return saved.reshape(*saved.shape[:2], h // 2, 2, w // 2, 2).amax((3, 5)), saved


def up(module: Any, image: Tensor, saved: Tensor) -> Tensor:
    """Twice the size."""
    return spread(module.upscale, double_convolution(module.double_convolution, torch.cat((image, saved), 1)))


def spread(box: Any, image: Tensor) -> Tensor:
    """Each pixel becomes 2 by 2 pixels."""
    b, _, h, w = image.shape
    grown = torch.einsum("bchw,cdij->bdhiwj", image, box.weight)
    return grown.reshape(b, -1, 2 * h, 2 * w) + box.bias[:, None, None]


def unet_logits(module: Any, image: Tensor) -> Tensor:
    """Figure 27."""
    memory = []
    for each in module.down:
        image, saved = down(each, image)
        memory.append(saved)
    image = spread(module.middle_upscale, double_convolution(module.middle, image))
    for each, saved in zip(module.up, memory[:0:-1], strict=True):
        image = up(each, image, saved)
    if module.top is not None:
        image = double_convolution(module.top, torch.cat((image, memory[0]), 1))
    return convolved(image, module.convolution)


# --- The worked example, signals, tokens ------------------------------------------------------------------------------


def shared_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every value shared out among the queries."""
    weight = softmax((key[..., :, None, :] * query[..., None, :, :]).sum(-1))
    return (weight[..., None] * value[..., :, None, :]).sum(-3)


def squared_error(answer: Tensor, right: Tensor) -> Tensor:
    """Half the squared distance."""
    return (answer - right).square().sum(-1) / 2


def example_rows(module: Any, image: Tensor) -> Tensor:
    """The example's convolution."""
    flat = convolved(image.reshape(-1, 1, *image.shape[-2:]), module.C)
    return flat.reshape(*image.shape[:-2], *flat.shape[-2:])


def example_logits(module: Any, image: Tensor) -> Tensor:
    """The example up to its answer."""
    row = example_rows(module, image)
    found = shared_out(linear(module.Lq, row), linear(module.Lk, row), linear(module.Lv, row))
    return linear(module.L, found.flatten(-2))


def slid(a: Tensor, b: Tensor, before: int, after: int) -> Tensor:
    """An inner product at every shift."""
    padded = F.pad(a, (before, after))
    shifts = range(padded.shape[-1] - b.shape[-1] + 1)
    return torch.stack([(padded[..., i : i + b.shape[-1]] * b).sum(-1) for i in shifts], -1)


def signals(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """numpy.convolve, by polynomials: every product added where its places add up."""
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
    """numpy.correlate: convolution with b backwards, whose middle, where b is longer, is counted from its other end."""
    if mode == "same" and b.shape[-1] > a.shape[-1]:
        return signals(a.flip(-1), b, mode).flip(-1)
    return signals(a, b.flip(-1), mode)


def joined(module: Any, x: Tensor, *, inputs: int, outputs: Sequence[int]) -> Tensor:
    """The learned map of so many named axes, by its flat weight."""
    mapped = linear(module, x.reshape(*x.shape[: x.ndim - inputs], -1))
    return mapped.reshape(*mapped.shape[:-1], *outputs)


def drawn(logits: Tensor, temperature: float, top_k: int | None = None) -> Tensor:
    """A token by the probabilities of the likeliest, one of them after another."""
    order = logits.argsort(-1, descending=True)[..., :top_k]
    power = (torch.gather(logits, -1, order) / temperature).exp()
    share = power / power.sum(-1, keepdim=True)
    place = torch.multinomial(share.reshape(-1, share.shape[-1]), 1).reshape(logits.shape[:-1])
    return torch.gather(order, -1, place[..., None])[..., 0]


def longer(
    tokens: Tensor,
    count: int,
    logits: Callable[[Tensor], Tensor],
    stop: int | None = None,
    **choice: Any,
) -> Tensor:
    """Tokens one after another, all computed anew each time; a sequence that stops repeats it until all have."""
    given, ended = tokens.shape[-1], torch.zeros(tokens.shape[:-1], dtype=torch.bool)
    while tokens.shape[-1] < given + count and not ended.all():
        score = logits(tokens)[..., -1, :]
        token = drawn(score, **choice) if choice else score.argmax(-1)
        if stop is not None:
            token = torch.where(ended, stop, token)
            ended = token == stop
        tokens = torch.cat((tokens, token[..., None]), -1)
    return tokens
