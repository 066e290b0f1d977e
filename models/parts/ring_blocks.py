"""Attention of a block of queries to a block of keys, with the logsumexp of the scores by which blocks are merged.

The streaming form of attention: the outputs of two blocks of keys are averaged with weights in proportion to the sums
of their exponentials (online softmax). From the logsumexp over all keys the reverse pass computes the weights of a
block again, so that none are stored. On a CPU a block runs torch's fused operator, elsewhere two matrix products.

Source: M. Milakov and N. Gimelshein, arXiv 1805.02867, for the online softmax; T. Dao et al., arXiv 2205.14135.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .masks import clear_unseen, combine, combine_all, is_bool, masked_out, within

Span = tuple[int, int]
"""The first position of consecutive queries or keys, and the end."""


@dataclass(frozen=True)
class Sight:
    """Which keys the queries of a call may attend to; positions are those of whole tensors.

    Attributes:
        causal, window, start: As in `attention`.
        mask: None, or bool or floating, with four axes `b h y x`, of which those but x may have size 1.
        key_mask: None, or bool, with four axes in the same way.
        device: The device of the queries.
    """

    causal: bool
    window: int | None
    start: int
    mask: Tensor | None
    key_mask: Tensor | None
    device: torch.device

    def distances(self, queries: Span, keys: Span) -> Span:
        """Return the least and the largest distance of a query from a key before it."""
        return self.start + queries[0] - keys[1] + 1, self.start + queries[1] - 1 - keys[0]

    def is_hidden(self, queries: Span, keys: Span) -> bool:
        """Return whether positions let none of the queries attend to any of the keys."""
        least, largest = self.distances(queries, keys)
        before, after = self.window or largest + 1, 0 if self.causal else (self.window or 1 - least) - 1
        return largest < -after or least >= before

    def is_seen(self, queries: Span, keys: Span) -> bool:
        """Return whether positions let each of the queries attend to all keys."""
        least, largest = self.distances(queries, keys)
        before, after = self.window or largest + 1, 0 if self.causal else (self.window or 1 - least) - 1
        return least >= -after and largest < before

    def of(self, queries: Span, keys: Span) -> tuple[Tensor | None, bool]:
        """Return the mask of a block, None if there is none, and whether the block is causal beside it."""
        masks = [_part(self.mask, queries, keys), _part(self.key_mask, queries, keys)]
        if self.is_seen(queries, keys):
            return combine_all(*masks), False
        _, largest = self.distances(queries, keys)
        near = self.causal and (self.window is None or largest < self.window)
        if near and self.start + queries[0] == keys[0] and self.mask is None and self.key_mask is None:
            return None, True
        rows, columns = (torch.arange(*span, device=self.device) for span in (queries, keys))
        positions = within(self.start + rows[:, None] - columns, self.causal, self.window)[None, None]
        return combine_all(*masks, positions), False


def _part(mask: Tensor | None, queries: Span, keys: Span) -> Tensor | None:
    """Return the part of a mask for some queries and keys."""
    if mask is None:
        return None
    return (mask if mask.shape[-2] == 1 else mask[..., slice(*queries), :])[..., slice(*keys)]


def precise(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which blocks are added up: float64, or float32 for every smaller one."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def ring_sends(
    ranks: int, dtype: torch.dtype, *, causal: bool = False, **options: Any
) -> Iterator[tuple[str, str, str, tuple[int, ...], str]]:
    """Yield what a rank sends in `ring_attention` of queries, keys, values and output, as `kernel` takes `sends`."""
    again = ranks * precise(dtype).itemsize // dtype.itemsize
    exchange = "equal work"
    if causal:
        yield "split", "halves", "forward", (1, 1, 1, 0), exchange
        yield "halves", "split", "backward", (1, 1, 1, 0), exchange
    yield "split", "split", "forward", (0, ranks - 1, ranks - 1, 0), "keys of all ranks"
    why = "queries of all ranks"
    yield "split", "split", "backward", (0, ranks - 1 + again, ranks - 1 + again, 0), why
    if causal:
        yield "halves", "split", "forward", (0, 0, 0, 1), exchange
        yield "split", "halves", "backward", (0, 0, 0, 1), exchange


def merged(output: Tensor, total: Tensor, other: Tensor, other_total: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention to two blocks of keys, from that to each: outputs `b h y k` and logsumexps `b h y`."""
    both = torch.logaddexp(total, other_total)
    finite = both.masked_fill(both.isneginf(), 0)[..., None]  # a query that has seen no key keeps zeros
    return output * (total[..., None] - finite).exp() + other * (other_total[..., None] - finite).exp(), both


def attend_to_block(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Return the output `b h y k` and the logsumexp `b h y` of the scores, in the dtype of `precise`.

    Args:
        query: The queries, `b h y k`.
        key, value: The keys and values, `b g x k`; g divides h.
        mask: The mask of the block, or None.
        causal: Whether query i may attend only to the keys up to i of the block; then there is no mask.
    """
    query, key, value, mask = _prepared(query, key, value, mask)
    high = precise(query.dtype)
    if _is_fused(query):
        output, total = _FUSED(query, key, value, 0.0, causal, attn_mask=mask)
        output, total = output.to(high), total.to(high)
    else:
        score = _scores(query, key, mask, causal)
        total = score.logsumexp(-1)
        output = (score - total.masked_fill(total.isneginf(), 0)[..., None]).exp() @ value.to(high)
    if mask is not None:
        total = total.masked_fill(masked_out(mask).all(-1), -torch.inf)  # the operator returns 0 there
    return output, total


def block_gradients(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    total: Tensor,
    mask: Tensor | None,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values of a block, in the dtype of `precise`.

    Args:
        gradient: That of the output, `b h y k`, 0 for queries that see no key.
        query, key, value: As in `attend_to_block`.
        output: The output for all keys, `b h y k`.
        total: The logsumexp over all keys, `b h y`, a finite number for queries that see none.
        mask, causal: As in `attend_to_block`.
    """
    groups, high = key.shape[1], precise(query.dtype)
    query, key, value, mask = _prepared(query, key, value, mask)
    if _is_fused(query):
        total = total.to(high)
        given = (gradient, query, key, value, output, total)
        found = _FUSED_BACKWARD(*given, 0.0, causal, attn_mask=mask)
    else:
        gradient, output = gradient.to(high), output.to(high)
        weight = (_scores(query, key, mask, causal) - total[..., None]).exp()
        slope = weight * (gradient @ value.to(high).mT - (gradient * output).sum(-1, keepdim=True))
        scale = query.shape[-1] ** -0.5
        found = slope @ key.to(high) * scale, slope.mT @ query.to(high) * scale, weight.mT @ gradient
    of_query, *others = (each.to(high) for each in found)
    of_key, of_value = (each.unflatten(1, (groups, -1)).sum(2) for each in others)
    return of_query, of_key, of_value


_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def _is_fused(query: Tensor) -> bool:
    """Return whether torch's fused operator that returns the logsumexp is run."""
    return query.device.type == "cpu"


def _prepared(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return a block with keys and values for every head, a floating mask, and zeros for what the mask hides."""
    n = query.shape[1] // key.shape[1]
    if mask is not None:
        query, key, value = clear_unseen(mask, query, key, value, n)
        zeros = torch.zeros((), dtype=query.dtype, device=query.device)
        mask = combine(zeros.expand(mask.shape), mask) if is_bool(mask) else mask.to(query.dtype)
    if n > 1:
        key, value = (each.repeat_interleave(n, 1) for each in (key, value))
    return query, key, value, mask


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Return the scores, `b h y x`, in the dtype of `precise`; -inf where a key is masked out."""
    high = precise(query.dtype)
    score = (query * query.shape[-1] ** -0.5).to(high) @ key.to(high).mT
    if causal:
        hidden = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).triu(1)
        return score.masked_fill(hidden, -torch.inf)
    return score if mask is None else score + mask.to(high)


__all__ = ["Sight", "Span", "attend_to_block", "block_gradients", "merged", "precise", "ring_sends"]
