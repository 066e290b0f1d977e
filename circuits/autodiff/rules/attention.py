"""What stands for operations that keep to themselves what their reverse needs: attention, dropout, cross-entropy.

Fused attention becomes its definition, two contractions around a softmax, whose weights are saved; the reverse has
four. A dropout keeps its mask.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 20.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.rules.registry import defines, reverses

# Attention ------------------------------------------------------------------------------------------------------------


@defines("scaled_dot_product_attention")
def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Each query mixes the values by how well their keys answer it."""
    if enable_gqa and query.ndim > 2:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    size = query.shape[-1]
    score = torch.einsum("...yk,...xk->...yx", query, key) * (size**-0.5 if scale is None else scale)
    if is_causal:
        rows = torch.arange(query.shape[-2], device=query.device).unsqueeze(-1)
        score = score.masked_fill(rows < torch.arange(key.shape[-2], device=query.device), float("-inf"))
    if attn_mask is not None:
        score = score.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype is torch.bool else score + attn_mask
    weights = score.softmax(-1)
    if attn_mask is not None:
        weights = weights.masked_fill((score == float("-inf")).all(-1, keepdim=True), 0)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return torch.einsum("...yx,...xk->...yk", weights, value)


# Dropout --------------------------------------------------------------------------------------------------------------


@defines("dropout")
def dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """With its mask, where there is one."""
    if not train or p == 0:
        return torch.ops.aten.alias.default(x)
    return torch.native_dropout(x, p, True)[0]


@reverses("native_dropout")
def masked(dy: Any, y: Any, p: float, train: Any) -> Tensor:
    """Through what was let through."""
    if train is False:
        return dy[0]
    return dy[0] * y[1] * (0.0 if p == 1 else 1 / (1 - p))


@defines("feature_dropout")
def feature_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """The same for whole channels."""
    if not train or p == 0:
        return torch.ops.aten.alias.default(x)
    noise = torch.empty([*x.shape[:2], *[1] * (x.ndim - 2)], dtype=x.dtype, device=x.device).bernoulli_(1 - p)
    return x * (noise / (1 - p) if p < 1 else noise)


@defines("alpha_dropout")
def alpha_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Towards the value that keeps mean and variance, where dropped."""
    return _alpha(x, x.shape, p, train)


@defines("feature_alpha_dropout")
def feature_alpha_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """The same for whole channels."""
    return _alpha(x, [*x.shape[:2], *[1] * (x.ndim - 2)], p, train)


def _alpha(x: Tensor, shape: Any, p: float, train: bool) -> Tensor:
    if not train or p == 0:
        return torch.ops.aten.alias.default(x)
    if p == 1:
        return x * 0
    low = 1.7580993408473766
    steep = 1 / ((low * low * p + 1) * (1 - p)) ** 0.5
    noise = torch.empty(list(shape), dtype=x.dtype, device=x.device).bernoulli_(1 - p)
    shift = (noise - 1) * (low * steep) + low * steep * p
    return x * (noise * steep) + shift


@defines("rrelu")
def rrelu(
    x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> Tensor:
    """A slope below 0 that is drawn anew each time."""
    if not training:
        return F.leaky_relu(x, (lower + upper) / 2)
    slope = torch.empty(x.shape, dtype=x.dtype, device=x.device).uniform_(lower, upper)
    return torch.where(x > 0, x, x * slope)


@defines("normal")
def normal(mean: Any, std: Any = 1.0, **options: Any) -> Tensor:
    """Drawn numbers: no gradient flows to what they are drawn around, as torch has it."""
    with torch.no_grad():
        return torch.normal(mean, std, **options)


@defines("_pad_circular")
def pad_circular(x: Tensor, pad: Any) -> Tensor:
    """Each end is continued by the other."""
    for step in range(len(pad) // 2):
        dim, before, after = x.ndim - 1 - step, pad[2 * step], pad[2 * step + 1]
        size = x.shape[dim]
        middle = x.narrow(dim, max(0, -before), size + min(0, before) + min(0, after))
        parts = [x.narrow(dim, size - before, before)] * (before > 0) + [middle]
        x = torch.cat([*parts, *[x.narrow(dim, 0, after)] * (after > 0)], dim)
    return x


# Cells of recurrent networks, which torch writes in place -------------------------------------------------------------


@defines("lstm_cell")
def lstm_cell(x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Any:
    """A step of a long short-term memory."""
    state, memory = hx
    enter, forget, new, leave = (F.linear(x, w_ih, b_ih) + F.linear(state, w_hh, b_hh)).chunk(4, 1)
    memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * memory.tanh(), memory


@defines("gru_cell")
def gru_cell(x: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """A step of a gated recurrent unit."""
    (reset, keep, new), (reset_, keep_, new_) = [
        found.chunk(3, 1) for found in (F.linear(x, w_ih, b_ih), F.linear(hx, w_hh, b_hh))
    ]
    new = (new + (reset + reset_).sigmoid() * new_).tanh()
    return (hx - new) * (keep + keep_).sigmoid() + new


@defines("bilinear")
def bilinear(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A form in two vectors for each number that comes out."""
    found = torch.einsum("...i,oij,...j->...o", x, weight, other)
    return found if bias is None else found + bias


# Losses ---------------------------------------------------------------------------------------------------------------


@defines("cross_entropy_loss")
def cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = 1, ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """The log of the softmax, read at the target."""
    dim = 0 if x.ndim == 1 else 1
    logs = x.log_softmax(dim)
    if target.is_floating_point():
        return _soft(logs, target, weight, reduction, label_smoothing, dim)
    hard = torch.ops.aten.nll_loss_nd.default(logs, target, weight, reduction, ignore_index)
    if not label_smoothing:
        return hard
    ignored = target == ignore_index
    many = x.shape[dim]
    smooth = -(logs if weight is None else logs * _along(weight, x, dim)).sum(dim)
    smooth = smooth.masked_fill(ignored, 0)
    if reduction == 1:
        if weight is None:
            total: Any = (~ignored).sum()
        else:
            total = weight[target.masked_fill(ignored, 0)].masked_fill(ignored, 0).sum()
        smooth = smooth.sum() / total
    elif reduction == 2:
        smooth = smooth.sum()
    return hard * (1 - label_smoothing) + smooth * (label_smoothing / many)


def _soft(logs: Tensor, target: Tensor, weight: Any, reduction: int, smoothing: float, dim: int) -> Tensor:
    """By how likely each class is to be the right one."""
    if smoothing:
        target = target * (1 - smoothing) + smoothing / logs.shape[dim]
    found = -(logs * target if weight is None else logs * target * _along(weight, logs, dim)).sum(dim)
    if reduction == 1:
        many: Any = 1
        for size in found.shape:
            many = many * size
        return found.sum() / many
    return found.sum() if reduction == 2 else found


def _along(weight: Tensor, x: Tensor, dim: int) -> Tensor:
    return weight.reshape([-1 if d == dim else 1 for d in range(x.ndim)])
