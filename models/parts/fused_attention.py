"""The kernels of attention: torch's fused operator, with its inputs prepared so that it is fast and free of NaN.

The fused implementations of F.scaled_dot_product_attention need four axes, a contiguous last axis of every tensor, and
no mask where `is_causal` is equivalent. With fewer axes (one example, as under torch.vmap) the operator runs its plain
implementation, which has derivatives of every order: missing axes are therefore added only where no derivative can be
requested and no tensor is mapped by torch.func. The fused implementations have first derivatives in reverse mode only:
for other derivatives of a batch, run the definition (`with definitions():`). Under torch.vmap (many models at once) the
implementations of CPU and MPS would run in a loop: there two matrix products, which store the scores, run in their
place.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

from circuits import einsum, repeat

from .conditions import is_known
from .distributed_attention import attend_to_parts, is_distributed
from .eager import all_finite, can_read
from .masks import (
    band,
    clear_unseen,
    combine,
    is_bool,
    masked_out,
    reach,
    refuse_shared_by_heads,
    refuse_window_and_start,
    with_key_mask,
)

MAX_UNFUSED_KEYS = 512
"""The largest number of keys for which training in bfloat16 on CPU is faster with the attention weights stored."""


def _fused_attention(
    enable_gqa: bool,
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
    """Return attention of queries `... y k` to keys and values `... x k`; in a bool mask True means *may attend*.

    With `enable_gqa` axis -3 of the keys and values divides that of the queries, as in torch's operator.
    """
    if is_distributed(query):
        kernel, options = partial(_fused_attention, enable_gqa), {"causal": causal, "window": window, "start": start}
        return attend_to_parts(kernel, enable_gqa, query, key, value, mask, key_mask, dropout=dropout, **options)
    if key_mask is not None:
        mask = _with_key_mask(mask, key_mask, key, enable_gqa)
    lead = query.shape[:-3]
    missing = 4 - query.ndim if query.ndim < 4 and _outside_transforms(query, key, value, mask) else 0
    if query.ndim > 4:
        query, key, value = (each.flatten(0, -4) for each in (query, key, value))
        if mask is not None and mask.ndim > 2:
            mask = mask.expand(*lead, *mask.shape[-3:]).flatten(0, -4)
    elif missing:
        query, key, value = (each[(None,) * missing] for each in (query, key, value))
    refuse_window_and_start(window, start)
    key, value, mask, start = _within_reach(query, key, value, mask, causal, window, start, dropout)
    y, x = query.shape[-2], key.shape[-2]
    may_hide = mask is not None or (window is not None and not is_known(start + y < x + window))
    if mask is not None or window is not None or start != 0:  # otherwise `is_causal` is enough
        mask, causal = _combined_mask(query, key, mask, causal, window, start), False
    if mask is None or not may_hide:
        output = _attend(query, key, value, mask, dropout, causal, enable_gqa)
    else:
        output = _attend_to_seen(query, key, value, mask, dropout, enable_gqa)
    if len(lead) > 1:
        return output.unflatten(0, lead)
    return output.flatten(0, missing) if missing else output


def _with_key_mask(mask: Tensor | None, key_mask: Tensor, key: Tensor, enable_gqa: bool) -> Tensor | None:
    """Return the mask combined with the key mask; alone, the key mask keeps size 1 for the queries and the heads."""
    if not enable_gqa:
        refuse_shared_by_heads(key_mask, key)
    return with_key_mask(None if mask is None else _once(mask), key_mask, 2 if enable_gqa else 1)


def _once(mask: Tensor) -> Tensor:
    """Return one copy of a bool mask that is repeated over the heads; it is enough, as no gradient is needed."""
    return mask[..., :1, :, :] if mask.ndim > 2 and mask.stride(-3) == 0 and is_bool(mask) else mask


def _attend_to_seen(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float, enable_gqa: bool
) -> Tensor:
    """Return attention on which unseen keys have no effect: they are cleared, unless all numbers are finite.

    Without gradients a finite output of the operator shows that they had none, and the operator returns zeros for a
    query that may attend to no key. So one query (decoding) costs little more than the operator alone. With dropout,
    running the operator twice would draw twice as many random numbers.
    """
    options = (mask, dropout, False, enable_gqa)
    if can_read(query, key, value):
        if torch.is_grad_enabled():
            if all_finite(query, key, value):
                return _attend(query, key, value, *options)
        elif not dropout and all_finite(output := _call_operator(query, key, value, *options)):
            return output
    n = query.shape[-3] // key.shape[-3] if enable_gqa else 1
    return _attend(*clear_unseen(mask, query, key, value, n), *options)


fused_attention: partial[Tensor] = partial(_fused_attention, False)
"""The kernel of `attention`: torch's fused operator, one pass over the keys without storing all scores."""

fused_grouped_attention: partial[Tensor] = partial(_fused_attention, True)
"""The kernel of `grouped_attention`: the same operator, without copies of the shared keys and values."""


def _outside_transforms(*tensors: Tensor | None) -> bool:
    """Return whether no tensor records a gradient, carries a forward-mode tangent, or is mapped by torch.func.

    torch.compile cannot see whether a tensor is mapped: False while it traces, so that axes are not added.
    """
    if torch.compiler.is_compiling():
        return False
    given = [each for each in tensors if each is not None]
    if torch.is_grad_enabled() and any(each.requires_grad for each in given):
        return False
    mapped = any(functorch.is_functorch_wrapped_tensor(each) for each in given)
    return not mapped and all(forward_ad.unpack_dual(each).tangent is None for each in given)


def _within_reach(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    window: int | None,
    start: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """Return keys, values, mask and `start` without the keys at both ends that are out of every query's reach.

    Those at the end are replaced by zeros where symbolic sizes decide whether there are any, and with dropout, which
    then draws as many numbers as in the definition.
    """
    x = key.shape[-2]
    first, end = reach(query.shape[-2], causal=causal, window=window, start=start)
    is_cut = first > 0
    if end is None or is_known(x <= end):
        end = x
    elif dropout or not is_known(x > end):
        beyond = torch.arange(x, device=key.device)[:, None] >= end
        key, value, end = key.where(~beyond, 0), value.where(~beyond, 0), x
    else:
        is_cut = True
    if is_cut:
        key, value = key[..., first:end, :], value[..., first:end, :]
        mask = None if mask is None else mask[..., first:end]
    return key, value, mask, start - first


def _combined_mask(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, window: int | None, start: int
) -> Tensor | None:
    """Return the mask combined with the band of positions, in the query's dtype if floating; None if all may attend."""
    y, x = query.shape[-2], key.shape[-2]
    latest = causal and start > 0 and y == 1 and x <= start + 1  # one query after all keys (decoding): none is masked
    positions = None if latest else band(y, x, causal=causal, window=window, start=start, device=query.device)
    if mask is None:
        return positions
    mask = _once(mask) if is_bool(mask) else mask.to(query.dtype)
    return mask if positions is None else combine(mask, positions)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    causal: bool,
    enable_gqa: bool,
) -> Tensor:
    """Call the operator; a query that may attend to no key gets zeros, and contributes no gradient."""
    if mask is None:
        return _call_operator(query, key, value, None, dropout, causal, enable_gqa)
    empty = masked_out(mask).all(-1, keepdim=True)
    mask = mask.masked_fill(empty, 1)  # 1 (or True) unmasks a row, so that softmax has no NaN; replaced by 0 below
    return _call_operator(query, key, value, mask, dropout, causal, enable_gqa).masked_fill(empty, 0)


def _call_operator(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    causal: bool,
    enable_gqa: bool,
) -> Tensor:
    """Call the operator on tensors laid out so that it is fast."""
    query, key, value = (each if each.stride(-1) == 1 else each.contiguous() for each in (query, key, value))
    unfused = _would_loop(query, key, value) or _trains_faster_unfused(query, key, value)
    attend = _unfused_attention if unfused else F.scaled_dot_product_attention
    attend = partial(attend, enable_gqa=True) if enable_gqa else attend
    if mask is not None and mask.ndim == 3 < query.ndim:
        mask = mask[None]
    return attend(query, key, value, mask, dropout, causal)


def _would_loop(*tensors: Tensor) -> bool:
    """Return whether torch.vmap maps one of the tensors and would run the fused operator for each index in a loop.

    Only the implementations of CUDA devices have a rule for mapped tensors (a "batching rule"). With fewer than four
    axes the operator runs its plain implementation, which needs none.
    """
    fused = tensors[0].ndim == 4 and not tensors[0].is_cuda
    if not fused or torch.compiler.is_compiling() or functorch.maybe_current_level() is None:
        return False
    return any(_is_mapped(each) for each in tensors)


def _is_mapped(tensor: Tensor) -> bool:
    """Return whether torch.vmap maps a tensor, inside any other transform of torch.func."""
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


def _trains_faster_unfused(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether gradients are needed that the fused operator computes slowly: in bfloat16 on CPU, for few keys."""
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    needed = query.requires_grad or key.requires_grad or value.requires_grad
    return needed and not torch.compiler.is_exporting() and key.shape[-2] <= MAX_UNFUSED_KEYS


def _unfused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    causal: bool = False,
    *,
    enable_gqa: bool = False,
) -> Tensor:
    """Return the result of F.scaled_dot_product_attention, computed by two matrix products; the weights are stored.

    The queries are scaled, not the scores, which have more entries if x is above k.
    """
    if enable_gqa:
        n = query.shape[-3] // key.shape[-3]
        key, value = (repeat(each, "... g x k -> ... (g n) x k", n=n) for each in (key, value))
    score = einsum(query * query.shape[-1] ** -0.5, key, "... y k, ... x k -> ... y x")
    if causal:
        mask = band(*score.shape[-2:], causal=True, window=None, start=0, device=score.device)
    weight = (score if mask is None else combine(score, mask)).softmax(-1)
    return einsum(F.dropout(weight, dropout) if dropout else weight, value, "... y x, ... x k -> ... y k")
