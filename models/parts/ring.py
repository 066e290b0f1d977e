"""The ranks of one axis of a mesh as a ring, along which sequences are split: who holds what, and what ranks send.

Each rank stores consecutive positions. With causal attention the last queries see the most keys, so that for the
computation the sequence is cut into 2n halves of parts, of which rank i computes with halves i and 2n - 1 - i: it has
as many pairs of query and key as every other rank, in each step.

Source: the order of halves is that of torch's context parallelism, and of zhuzilin's `ring-flash-attention`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .ring_blocks import Span

Halves = tuple[int, ...]


@dataclass(frozen=True)
class Ring:
    """The ranks of one axis of a mesh.

    Attributes:
        group: Their process group.
        rank: The number of this one.
        ranks: How many there are.
        by_halves: Whether each computes with two halves from both ends of the sequence, or with what it stores.
    """

    group: Any
    rank: int
    ranks: int
    by_halves: bool

    def spans(self, part: int, rank: int) -> list[Span]:
        """Return the positions with which a rank computes, if each rank stores `part` positions."""
        if not self.by_halves:
            return [(rank * part, (rank + 1) * part)]
        return [span for half in self._computed(rank) if (span := _span(part, half))[0] < span[1]]

    def balanced(self, tensor: Tensor) -> Tensor:
        """Return, from what each rank stores of a tensor `b h x k`, that with which this rank computes."""
        return self._exchange(tensor, self._stored, self._computed) if self.by_halves else tensor

    def parted(self, tensor: Tensor) -> Tensor:
        """Return what this rank stores of a tensor `b h x k`: the inverse of `balanced`."""
        return self._exchange(tensor, self._computed, self._stored) if self.by_halves else tensor

    def send(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Start to send a tensor to the next rank; return a function that waits for that of the rank before."""
        before, after = [[tensor.numel() if each == (self.rank + step) % self.ranks else 0
                          for each in range(self.ranks)] for step in (-1, 1)]  # fmt: skip
        wait = self._send_to_all(tensor.flatten(), before, after)
        return lambda: wait().view(tensor.shape)

    def _stored(self, rank: int) -> Halves:
        return 2 * rank, 2 * rank + 1

    def _computed(self, rank: int) -> Halves:
        return rank, 2 * self.ranks - 1 - rank

    def _exchange(self, tensor: Tensor, held: Callable[[int], Halves], wanted: Callable[[int], Halves]) -> Tensor:
        """Return the halves that a rank wants, from those that each rank holds."""
        *lead, part, k = tensor.shape
        before, after = held(self.rank), wanted(self.rank)
        length = {half: end - begin for half in (*before, *after) for begin, end in [_span(part, half)]}
        parts = dict(zip(before, tensor.split([length[half] for half in before], -2), strict=True))
        leaving = [[half for half in before if half in wanted(rank)] for rank in range(self.ranks)]
        arriving = [[half for half in after if half in held(rank)] for rank in range(self.ranks)]
        width = tensor.numel() // part
        sizes = [[sum([length[half] for half in halves]) * width for halves in each] for each in (arriving, leaving)]
        sent = torch.cat([parts[half].flatten() for halves in leaving for half in halves])
        order = [half for halves in arriving for half in halves]
        found = self._send_to_all(sent, *sizes)().split([length[half] * width for half in order])
        by_half = {half: each.view(*lead, length[half], k) for half, each in zip(order, found, strict=True)}
        return torch.cat([by_half[half] for half in after], -2)

    def _send_to_all(self, sent: Tensor, arriving: list[int], leaving: list[int]) -> Callable[[], Tensor]:
        """Start to send parts of these sizes to each rank; return a function that waits for what arrives."""
        found = sent.new_empty(sum(arriving))
        work: Any = dist.all_to_all_single(found, sent, arriving, leaving, group=self.group, async_op=True)

        def wait() -> Tensor:
            work.wait()
            return found

        return wait


def _span(part: int, half: int) -> Span:
    """Return the positions of one of the 2n halves; of each part the first half may be one larger."""
    begin = half // 2 * part
    middle = begin + part - part // 2
    return (middle, begin + part) if half % 2 else (begin, middle)


__all__ = ["Ring"]
