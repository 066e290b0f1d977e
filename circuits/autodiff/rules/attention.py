"""The definition of fused attention, which replaces it before it is differentiated.

The definition is a contraction, a softmax and a contraction. The weights, the result of the softmax, are saved for
backward; the reverse pass has four contractions.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 20.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.rules.registry import defines


@defines("scaled_dot_product_attention")
def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Return softmax(scale query keyᵀ) value, with the arguments of torch's `scaled_dot_product_attention`.

    A boolean mask is True where attention is allowed. A query without any allowed key has an output of zeros.
    """
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
