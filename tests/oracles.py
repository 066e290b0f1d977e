# Modules are read by the names of their parts, which pyright knows as Tensor or Module.
# pyright: reportArgumentType=false, reportCallIssue=false
"""What every circuit of `models` means, written a second time: plain, slow, and with nothing of ours.

Each function of a module takes the module first, and reads its weights. Masks are bool (True: may attend) or floating.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- Parts ------------------------------------------------------------------------------------------------------------


def linear(box: Any, x: Tensor) -> Tensor:
    """Every output the sum of its weighted inputs, and the bias."""
    return (x[..., None, :] * box.weight).sum(-1) + (0 if box.bias is None else box.bias)


def normed(box: Any, x: Tensor) -> Tensor:
    """A vector less its mean, by its deviation."""
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    spread = (centred.square().sum(-1, keepdim=True) / x.shape[-1] + box.eps).sqrt()
    return centred / spread * box.weight + (0 if box.bias is None else box.bias)


def batch_normed(box: Any, x: Tensor) -> Tensor:
    """A channel less the mean it has learned, by its deviation."""
    by_channel = [each[:, None, None] for each in (box.running_mean, box.running_var, box.weight, box.bias)]
    mean, variance, weight, bias = by_channel
    return (x - mean) / (variance + box.eps).sqrt() * weight + bias


def softmax(score: Tensor) -> Tensor:
    """Exponentials by their sum; zeros where nothing is left."""
    gone = score.isneginf()
    largest = score.masked_fill(gone, -1e30).amax(-1, keepdim=True).detach()
    power = (score.masked_fill(gone, 0) - largest.clamp(min=-1e20)).clamp(max=50).exp().masked_fill(gone, 0)
    total = power.sum(-1, keepdim=True)
    return power / total.masked_fill(total == 0, 1)


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


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    start: int = 0,
) -> Tensor:
    """Figure 20, one product at a time."""
    score = (query[..., :, None, :] * key[..., None, :, :]).sum(-1) / math.sqrt(query.shape[-1])
    hidden = barred(query.shape[-2], key.shape[-2], causal, window, start)
    weight = softmax(masked(score.masked_fill(hidden, -math.inf), mask))
    return (weight[..., None] * value[..., None, :, :]).sum(-2)


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """Head by head, each with the keys of its group."""
    heads, groups = query.shape[-3], key.shape[-3]
    answers = []
    for head in range(heads):
        group = head // (heads // groups)
        own = None if mask is None else mask[..., head, :, :]
        answers.append(
            attention(query[..., head, :, :], key[..., group, :, :], value[..., group, :, :], own, **options)
        )
    return torch.stack(answers, -3)


def turned(module: Any, x: Tensor, start: int = 0) -> Tensor:
    """Entries i and i + k/2 as one complex number, turned by its angle."""
    half = module.k // 2
    angles = [[p * module.base ** (-2 * i / module.k) for i in range(half)] for p in range(start, start + x.shape[-2])]
    point = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * torch.tensor(angles, dtype=x.dtype))
    return torch.cat((point.real, point.imag), -1)


def heads(box: Any, x: Tensor, k: int, rotary: Any = None, start: int = 0) -> Tensor:
    """What a box makes of x, cut into heads, stacked before the vectors."""
    pieces = linear(box, x).split(k, -1)
    return torch.stack([each if rotary is None else turned(rotary, each, start) for each in pieces], -3)


def remember(module: Any, source: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
    """The keys and values of a source."""
    return heads(module.Lk, source, module.k, module.rotary, start), heads(module.Lv, source, module.k)


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
) -> Tensor:
    """What each target finds in keys and values."""
    query = heads(module.Lq, target, module.k, module.rotary, start)
    every = None if mask is None else torch.stack([mask] * module.h, -3)
    if head_mask is not None:
        shape = (*query.shape[:-1], keys.shape[-2])
        zero = torch.zeros(shape, dtype=query.dtype)
        every = masked(masked(zero, every), head_mask)
    mixed = grouped_attention(query, keys, values, every, causal=causal, window=module.window, start=start)
    return linear(module.Lo, torch.cat(list(mixed.unbind(-3)), -1))


def multi_head(module: Any, target: Tensor, source: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """Figure 21, head by head."""
    return recall(module, target, *remember(module, source), mask, **options)


def visual(module: Any, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """Figure 28: windows asked, answered and written."""

    def whole(image: Tensor) -> Tensor:
        sizes = list(image.shape[-2:])
        more = [
            next(n for n in range(99) if size + n >= module.w and (size + n - module.w) % module.s == 0)
            for size in sizes
        ]
        return F.pad(image, (0, more[1], 0, more[0]))

    query, key, value = (
        convolved(whole(image), box, module.s).unflatten(1, (module.h, module.k))
        for image, box in ((target, module.Cq), (source, module.Ck), (source, module.Cv))
    )
    i, j = query.shape[-2:]
    flat = [each.flatten(-2).mT for each in (query, key, value)]
    every = None if mask is None else mask.flatten(3).flatten(1, 2)[:, None]
    mixed = attention(*flat, every).mT.unflatten(-1, (i, j)).flatten(1, 2)
    return written(mixed, module.Co, module.s)[..., : target.shape[-2], : target.shape[-1]]


# --- Transformers -----------------------------------------------------------------------------------------------------


def activated(module: nn.Module, x: Tensor) -> Tensor:
    """ReLU and GELU by their formulas."""
    return x.clamp(min=0) if isinstance(module, nn.ReLU) else x * (1 + torch.erf(x / math.sqrt(2))) / 2


def feed_forward(module: Any, x: Tensor) -> Tensor:
    """Two maps and an activation."""
    return linear(module.L2, activated(module.activation, linear(module.L1, x)))


def encoder_layer(
    module: Any, x: Tensor, mask: Tensor | None = None, *, source: Tensor | None = None, **options: Any
) -> Tensor:
    """Both boxes with their norms before or after; the source, if it is another, is normed as the target is."""
    source = x if source is None else source
    if module.norm_first:
        asking, answering = normed(module.attention_norm, x), normed(module.attention_norm, source)
        x = x + multi_head(module.attention, asking, answering, mask, **options)
        return x + feed_forward(module.feed_forward, normed(module.feed_forward_norm, x))
    x = normed(module.attention_norm, x + multi_head(module.attention, x, source, mask, **options))
    return normed(module.feed_forward_norm, x + feed_forward(module.feed_forward, x))


def decoder_layer(
    module: Any,
    x: Tensor,
    memory: Tensor,
    mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    *,
    causal: bool = True,
) -> Tensor:
    """Three boxes with their norms before or after."""
    boxes = (
        (module.attention_norm, lambda x: multi_head(module.attention, x, x, mask, causal=causal)),
        (module.memory_attention_norm, lambda x: multi_head(module.memory_attention, x, memory, memory_mask)),
        (module.feed_forward_norm, lambda x: feed_forward(module.feed_forward, x)),
    )
    for norm, box in boxes:
        x = x + box(normed(norm, x)) if module.norm_first else normed(norm, x + box(x))
    return x


def encoder(module: Any, x: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Layer by layer, then the norm."""
    for layer in module.layers:
        x = encoder_layer(layer, x, mask, causal=causal)
    return x if module.norm is None else normed(module.norm, x)


def decoder(module: Any, x: Tensor, memory: Tensor, *masks: Any, **options: Any) -> Tensor:
    """Layer by layer, then the norm."""
    for layer in module.layers:
        x = decoder_layer(layer, x, memory, *masks, **options)
    return x if module.norm is None else normed(module.norm, x)


def transformer(
    module: Any,
    source: Tensor,
    target: Tensor,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    *,
    causal: bool = True,
) -> Tensor:
    """Vaswani et al.'s Figure 1, inside."""
    memory = encoder(module.encoder, source, source_mask)
    return decoder(module.decoder, target, memory, target_mask, memory_mask, causal=causal)


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


def language_logits(module: Any, tokens: Tensor) -> Tensor:
    """GPT-2, or with rotary positions."""
    x = module.embedding.weight[tokens]
    x = x if module.positions is None else learned(module.positions, x)
    for layer in module.layers:
        x = encoder_layer(layer, x, causal=True)
    x = normed(module.norm, x)
    head = module.embedding if module.head is None else module.head
    return (x[..., None, :] * head.weight).sum(-1)


def translated_logits(module: Any, source: Tensor, target: Tensor) -> Tensor:
    """Vaswani et al., with embeddings scaled and padding barred."""

    def embedded(tokens: Tensor) -> Tensor:
        return waves(module.embedding.weight[tokens] * math.sqrt(module.m))

    def mask(y: int) -> Tensor | None:
        return None if module.padding is None else torch.stack([source != module.padding] * y, -2)

    memory = encoder(module.transformer.encoder, embedded(source), mask(source.shape[-1]))
    x = decoder(module.transformer.decoder, embedded(target), memory, None, mask(target.shape[-1]))
    head = module.embedding if module.head is None else module.head
    return (x[..., None, :] * head.weight).sum(-1)


# --- Images -----------------------------------------------------------------------------------------------------------


def mlp_logits(module: Any, image: Tensor) -> Tensor:
    """Three maps."""
    x = image.flatten(-2)
    for place in (0, 2, 4):
        x = linear(module.linear_relu_stack[place], x)
        x = x.clamp(min=0) if place < 4 else x
    return x


def patches(module: Any, image: Tensor) -> Tensor:
    """Every patch cut out."""
    p = module.p
    starts = [range(0, size, p) for size in image.shape[-2:]]
    cut = [image[:, :, i : i + p, j : j + p].flatten(1) for i, j in product(*starts)]
    return torch.stack([linear(module.L, each) for each in cut], 1)


def vision_tokens(module: Any, image: Tensor) -> Tensor:
    """What goes into the first layer."""
    x = patches(module.patches, image)
    if module.class_token is not None:
        x = torch.cat((torch.stack([module.class_token] * len(x))[:, None], x), 1)
    return x + module.positions


def vision_encoded(module: Any, image: Tensor) -> Tensor:
    """What comes out of the last."""
    x = vision_tokens(module, image)
    for layer in module.layers:
        x = encoder_layer(layer, x)
    return x


def vision_features(module: Any, image: Tensor) -> Tensor:
    """The class token's vector, or the mean."""
    x = vision_encoded(module, image)
    return normed(module.norm, x.sum(1) / x.shape[1] if module.class_token is None else x[:, 0])


def vision_logits(module: Any, image: Tensor) -> Tensor:
    """The head's answer."""
    return linear(module.head, vision_features(module, image))


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


def block(module: Any, image: Tensor) -> Tensor:
    """Figure 26, below."""
    image = norm_activated(module.norm_activate, image)
    first = module.strided
    image = _in_turn(first.main, image, module.s) + convolved(image, first.connection, module.s)
    for unit in module.plain:
        image = image + _in_turn(unit.main, image)
    return image


def resnet_logits(module: Any, image: Tensor) -> Tensor:
    """Figure 26."""
    image = convolved(image, module.convolution, padding=1)
    for each in module.blocks:
        image = block(each, image)
    return linear(module.linear, norm_activated(module.norm_activate, image).flatten(2).mean(-1))


def double_convolution(module: Any, image: Tensor) -> Tensor:
    """Two convolutions, an activation after each."""
    image = convolved(image, module.first, padding=1)
    norm = getattr(module.first_activation, "norm", None)
    image = (image if norm is None else batch_normed(norm, image)).clamp(min=0)
    image = convolved(image, module.second, padding=1)
    norm = getattr(module.second_activation, "norm", None)
    return (image if norm is None else batch_normed(norm, image)).clamp(min=0)


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


def joined(module: Any, x: Tensor) -> Tensor:
    """The learned map of named axes, by its flat weight."""
    count = len(module.inputs)
    mapped = linear(module, x.reshape(*x.shape[: x.ndim - count], -1))
    return mapped.reshape(*mapped.shape[:-1], *[module.sizes[name] for name in module.outputs])
