"""The kernel of attention: torch's fused operator, with the care that it needs to be fast and free of NaN.

Its fused forms want four axes, the last of each tensor contiguous, and no mask where `is_causal` says as much. With
fewer axes (one example, as under torch.vmap) it takes its plain form, which has every derivative: such tensors get the
missing axes only where no derivative can be asked for and nothing is mapped. The fused forms have first derivatives in
reverse only, and torch.vmap runs them in a loop: for other derivatives of a batch, and for many models at once, run the
definition (`with definitions():`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

from circuits import einsum, repeat

from .masks import band, barred, both, is_bool, refuse_reach

STORED = 512
"""Up to so many keys a bfloat16 model trains faster on CPU with its weights stored."""


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    window: int | None,
    start: int,
    dropout: float,
    **heads: bool,
) -> Tensor:
    """F.scaled_dot_product_attention of `... y k`, `... x k` and `... x k`; `heads` are options that go to it."""
    if query.ndim > 4:
        lead = query.shape[:-3]
        query, key, value = (each.flatten(0, -4) for each in (query, key, value))
        if mask is not None and mask.ndim > 2:
            mask = mask.expand(*lead, *mask.shape[-3:]).flatten(0, -4)
        return fused_attention(
            query, key, value, mask, causal=causal, window=window, start=start, dropout=dropout, **heads
        ).unflatten(0, lead)
    if query.ndim < 4 and _is_final(query, key, value, mask):
        missing = 4 - query.ndim
        query, key, value = (each[(None,) * missing] for each in (query, key, value))
        return fused_attention(
            query, key, value, mask, causal=causal, window=window, start=start, dropout=dropout, **heads
        ).flatten(0, missing)
    refuse_reach(window, start)
    if window is not None and start >= window:  # no query sees the keys before these
        first = start - window + 1
        key, value, start = key[..., first:, :], value[..., first:, :], window - 1
        mask = None if mask is None else mask[..., first:]
    query, key, value = (each if each.stride(-1) == 1 else each.contiguous() for each in (query, key, value))
    attend = _stored if _trains_stored(query, key, value) else F.scaled_dot_product_attention
    if mask is None and window is None and start == 0:
        return attend(query, key, value, None, dropout, causal, **heads)
    y, x = query.shape[-2], key.shape[-2]
    latest = causal and start > 0 and y == 1 and x <= start + 1  # one query after all keys, in decoding: it sees all
    seen = None if latest else band(y, x, causal=causal, window=window, start=start, device=query.device)
    mask = seen if mask is None else _joined(mask, seen, query)
    if mask is None:
        return attend(query, key, value, None, dropout, **heads)
    alone = barred(mask).all(-1, keepdim=True)
    mask = mask.masked_fill(alone, 1)  # 1 lets a row through, as True or as a number; its answer is replaced below
    if mask.ndim == 3 < query.ndim:
        mask = mask[None]
    return attend(query, key, value, mask, dropout, **heads).masked_fill(alone, 0)


def _is_final(*tensors: Tensor | None) -> bool:
    """Whether no transform is under way: no gradient is recorded, nothing is mapped, no tangent is carried along.

    torch.compile cannot see what is mapped, and keeps the plain form.
    """
    if torch.compiler.is_compiling():
        return False
    given = [each for each in tensors if each is not None]
    if torch.is_grad_enabled() and any(each.requires_grad for each in given):
        return False
    mapped = any(functorch.is_functorch_wrapped_tensor(each) for each in given)
    return not mapped and all(forward_ad.unpack_dual(each).tangent is None for each in given)


def _joined(mask: Tensor, seen: Tensor | None, query: Tensor) -> Tensor:
    """The mask in the query's dtype, once where it was repeated over heads, and what positions bar barred in it."""
    mask = mask if is_bool(mask) else mask.to(query.dtype)
    if mask.ndim > 2 and mask.stride(-3) == 0 and is_bool(mask):
        mask = mask[..., :1, :, :]  # without gradients one is enough
    return mask if seen is None else both(mask, seen)


def _trains_stored(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether gradients are asked for where the fused operator's are slow."""
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    asked = query.requires_grad or key.requires_grad or value.requires_grad
    return asked and not torch.compiler.is_exporting() and key.shape[-2] <= STORED


def _stored(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    causal: bool = False,
    *,
    enable_gqa: bool = False,
) -> Tensor:
    """What F.scaled_dot_product_attention gives, by two products; the queries are scaled, since scores are more."""
    if enable_gqa:
        n = query.shape[-3] // key.shape[-3]
        key, value = (repeat(each, "... g x k -> ... (g n) x k", n=n) for each in (key, value))
    score = einsum(query * query.shape[-1] ** -0.5, key, "... y k, ... x k -> ... y x")
    if causal:
        mask = band(*score.shape[-2:], causal=True, window=None, start=0, device=score.device)
    weight = (score if mask is None else both(score, mask)).softmax(-1)
    return einsum(F.dropout(weight, dropout) if dropout else weight, value, "... y x, ... x k -> ... y k")
