"""Attention whose queries and keys are both split over ranks: blocks of keys and values travel round a ring.

Each rank keeps its queries. In each of n steps it attends to one block of keys and values while it sends the block to
the next rank; outputs are merged by an online softmax. In the reverse pass the blocks travel again, and with each the
gradients that the ranks add up. What positions hide is skipped.

Source: H. Liu, M. Zaharia and P. Abbeel, Ring Attention with Blockwise Transformers, arXiv 2310.01889.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from circuits import CircuitError

from .ring import Ring
from .ring_blocks import Sight, Span, attend_to_block, block_gradients, merged, precise


def ring_attention(query: Tensor, key: Tensor, value: Tensor, ring: Ring, sight: Sight) -> Tensor:
    """Return the attention of this rank's queries to the keys of all ranks; it has first derivatives in reverse mode.

    Args:
        query: The queries that this rank stores, `b h y k`.
        key, value: The keys and values that it stores, `b g x k`; g divides h.
        ring: The ranks, each of which stores as many queries, and as many keys.
        sight: Which keys a query may attend to.
    """
    return _RingAttention.apply(query, key, value, ring, sight)


class _RingAttention(torch.autograd.Function):
    """The forward and the reverse pass of ring attention."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, ring: Ring, sight: Sight) -> Tensor:
        """Attend to each block, and save the output and the logsumexp of all scores."""
        query, first = ring.balanced(query), torch.stack([ring.balanced(key), ring.balanced(value)])
        output = torch.zeros_like(query, dtype=precise(query.dtype))
        total = output.new_full(query.shape[:-1], -torch.inf)
        for source, block in _rounds(ring, first):
            for y, x, mask, causal in _pairs(ring, sight, query, block, source):
                key, value = block[:, :, :, x]
                found = attend_to_block(query[:, :, y], key, value, mask, causal)
                output[:, :, y], total[:, :, y] = merged(output[:, :, y], total[:, :, y], *found)
        output = output.to(query.dtype)
        ctx.save_for_backward(query, first, output, total)
        ctx.ring, ctx.sight = ring, sight
        return ring.parted(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Compute the weights of each block again; the gradients of a block are back after n sends."""
        if torch.is_grad_enabled():
            raise CircuitError(
                "attention with queries and keys split over ranks has first derivatives only, without create_graph; "
                "for others leave the sequence whole, and run the definition: with definitions(): ..."
            )
        ring: Ring = ctx.ring
        query, first, output, total = ctx.saved_tensors
        empty = total.isneginf()
        gradient, total = ring.balanced(gradient).masked_fill(empty[..., None], 0), total.masked_fill(empty, 0)
        of_query = torch.zeros_like(query, dtype=precise(query.dtype))
        arriving: Callable[[], Tensor] | None = None
        for source, block in _rounds(ring, first):
            of_block = torch.zeros_like(block, dtype=of_query.dtype)
            for y, x, mask, causal in _pairs(ring, ctx.sight, query, block, source):
                key, value = block[:, :, :, x]
                known = output[:, :, y], total[:, :, y]
                found = block_gradients(gradient[:, :, y], query[:, :, y], key, value, *known, mask, causal)
                of_query[:, :, y] += found[0]
                of_block[:, :, :, x] += torch.stack(found[1:])
            arriving = ring.send(of_block if arriving is None else arriving() + of_block)
        of_block = arriving() if arriving is not None else torch.zeros_like(first)
        return *[ring.parted(each.to(query.dtype)) for each in (of_query, *of_block)], None, None


def _rounds(ring: Ring, block: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the block of each rank, with the number of that rank, while it is sent on; the own block is the first."""
    for step in range(ring.ranks):
        arriving = ring.send(block) if step < ring.ranks - 1 else None
        yield (ring.rank - step) % ring.ranks, block
        block = block if arriving is None else arriving()


def _pairs(
    ring: Ring, sight: Sight, query: Tensor, block: Tensor, source: int
) -> Iterator[tuple[slice, slice, Tensor | None, bool]]:
    """Yield where the queries and the keys are that meet in this step, the mask, and whether they are causal."""
    for y, queries in _places(ring.spans(query.shape[-2], ring.rank)):
        for x, keys in _places(ring.spans(block.shape[-2], source)):
            if not sight.is_hidden(queries, keys):
                yield y, x, *sight.of(queries, keys)


def _places(spans: list[Span]) -> Iterator[tuple[slice, Span]]:
    """Yield each span of positions, and where it is in the tensor that consists of them."""
    place = 0
    for begin, end in spans:
        yield slice(place, place := place + end - begin), (begin, end)


__all__ = ["ring_attention"]
