"""Scaled dot-product attention, for one head and for heads that share keys and values.

The definition of each function is written as its figure draws it; a call runs its kernel, torch's fused operator.

Masks: a bool mask is True where a query *may attend* to a key (the opposite of nn.MultiheadAttention's); a floating
mask is added to the scores. A mask of two axes is `y x`, shared by all batches and heads; `key_mask` is for padding:
True where a key may be attended to by any query. Key j is at position j, query i at position `start` + i, also where y
and x differ. With `causal` a query attends only to keys at its own position and before. With `window=w` it attends only
to keys fewer than w positions away: w keys, including the one at its own position, if causal (as in Mistral), otherwise
2w - 1 (Longformer's window of w/2 keys on either side is `window=w/2 + 1`). Masks, `causal` and `window` are combined.
A query that may attend to no key has zeros as its output and contributes no gradient. A key that no query may attend to
has no effect, whatever it and its value are, NaN and inf too; a key that is seen by one query may bring its NaN to all.
Everything else is as in F.scaled_dot_product_attention.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 20; for heads that share keys and values, Ainslie et al.
2023; for windows, Beltagy et al. 2020 and Jiang et al. 2023.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from circuits import circuit, einsum, repeat

from .parts.conditions import is_known
from .parts.fused_attention import fused_attention, fused_grouped_attention
from .parts.masks import (
    KEY_MASK,
    KEY_MASK_HINT,
    band,
    clear_unseen,
    combine,
    combine_all,
    masked_out,
    refuse_shared_by_heads,
    softmax_or_zeros,
    with_key_mask,
)
from .parts.ring_blocks import ring_sends


@circuit(
    "... y k, ... x k, ... x k -> ... y k",
    optional={"mask": "... y x", "key_mask": "... x"},
    dtypes=KEY_MASK,
    hints=KEY_MASK_HINT,
)
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    key_mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    start: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """Return softmax(query keyᵀ / √k) value, `... y k` (Figure 20); in a bool mask True means *may attend*.

    For each query it is a weighted sum of x values.

    Args:
        query: The queries, `... y k`.
        key: The keys, `... x k`.
        value: The values, `... x k`.
        mask: Bool (True: may attend) or floating (added to the scores), `... y x`; its leading axes are broadcast.
        key_mask: Bool, `... x`: True for a key, False for padding, to which no query attends. It has the axes of the
            keys without the last, and 1 where it is the same for all, as for heads: `b 1 x`.
        causal: Whether a query may attend only to keys at its own position and before.
        window: If given, a query may attend only to keys fewer than `window` positions away.
        start: Position of the first query; the first key is at position 0.
        dropout: Probability that an attention weight is set to 0; it is applied in training and in evaluation.

    Raises:
        ShapeError: if axes have different sizes, or the key mask is not bool.
        CircuitError: if the mask is neither bool nor floating, the key mask lacks an axis for the heads, `window` is
            below 1, or `start` is below 0.
    """
    y, x = query.shape[-2], key.shape[-2]
    refuse_shared_by_heads(key_mask, key)
    mask = with_key_mask(mask, key_mask, 1)
    allowed = combine_all(mask, band(y, x, causal=causal, window=window, start=start, device=query.device))
    may_hide = mask is not None or window is not None or (causal and not is_known(x <= start + y))
    if allowed is not None and may_hide:
        query, key, value = clear_unseen(allowed, query, key, value)
    score = einsum(query * query.shape[-1] ** -0.5, key, "... y k, ... x k -> ... y x")
    score = score if allowed is None else combine(score, allowed)
    weight = softmax_or_zeros(score) if may_hide else score.softmax(-1)
    mixed = einsum(F.dropout(weight, dropout) if dropout else weight, value, "... y x, ... x k -> ... y k")
    return mixed.masked_fill(masked_out(score).all(-1, keepdim=True), 0) if may_hide else mixed


attention.kernel(fused_attention, across="y x", sends=ring_sends)


@circuit(
    "... (g n) y k, ... g x k, ... g x k -> ... (g n) y k",
    optional={"mask": "... (g n) y x", "key_mask": "... x"},
    dtypes=KEY_MASK,
    hints=KEY_MASK_HINT,
)
def grouped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    key_mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    start: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """Return grouped-query attention, `... (g n) y k`; in a bool mask True means *may attend*.

    Each of g heads of keys and values is shared by n consecutive heads of queries. Arguments and errors are those of
    `attention`. Queries have the axes `... (g n) y k`, keys and values `... g x k`, the mask `... (g n) y x`, and the
    key mask, which is the same for all heads, `... x`.
    """
    n = query.shape[-3] // key.shape[-3]
    key = repeat(key, "... g x k -> ... (g n) x k", n=n)
    value = repeat(value, "... g x k -> ... (g n) x k", n=n)
    if key_mask is not None and key_mask.ndim > 1:
        key_mask = key_mask[..., None, :]
    options: Any = {"causal": causal, "window": window, "start": start, "dropout": dropout}
    return attention(query, key, value, mask, key_mask=key_mask, **options)


grouped_attention.kernel(fused_grouped_attention, across="y x", sends=ring_sends)
