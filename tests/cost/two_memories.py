"""Schedules written by hand for a machine with two memories, which counts what is moved and what is live.

XX
result.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Fast:
    """A fast memory: `moved` counts elements that are read from or written to slow memory, `peak` is the most live."""

    moved: int = 0
    live: int = 0
    peak: int = 0

    def hold(self, tensor: Tensor) -> Tensor:
        self.live += tensor.numel()
        self.peak = max(self.peak, self.live)
        return tensor

    def read(self, tensor: Tensor) -> Tensor:
        self.moved += tensor.numel()
        return self.hold(tensor.clone())

    def free(self, *tensors: Tensor) -> None:
        self.live -= sum([tensor.numel() for tensor in tensors])

    def write(self, slow: Tensor, tensor: Tensor) -> None:
        self.moved += tensor.numel()
        slow.copy_(tensor)
        self.free(tensor)


def matmul(fast: Fast, x: Tensor, y: Tensor, rows: int, columns: int, block: int) -> Tensor:
    """`a b, b c -> a c` in tiles of `rows` and `columns`, with b in blocks."""
    out = x.new_empty(len(x), y.shape[1])
    for at in range(0, out.shape[0], rows):
        for to in range(0, out.shape[1], columns):
            here = (slice(at, at + rows), slice(to, to + columns))
            total = fast.hold(torch.zeros_like(out[here]))
            for step in range(0, len(y), block):
                inner = slice(step, step + block)
                left, right = fast.read(x[here[0], inner]), fast.read(y[inner, here[1]])
                total += left @ right
                fast.free(left, right)
            fast.write(out[here], total)
    assert fast.live == 0
    return out


def attention(fast: Fast, q: Tensor, k: Tensor, v: Tensor, group: int, block: int) -> Tensor:
    """`y k, x k, x k -> y k` in groups of queries, with keys and values in blocks: online softmax."""
    out = torch.empty_like(q)
    for at in range(0, len(q), group):
        query = fast.read(q[at : at + group]).mul_(q.shape[1] ** -0.5)
        best = fast.hold(torch.full_like(query[:, :1], -torch.inf))
        total, mixed = fast.hold(torch.zeros_like(best)), fast.hold(torch.zeros_like(query))
        for step in range(0, len(k), block):
            key = fast.read(k[step : step + block])
            score = fast.hold(query @ key.T)
            fast.free(key)
            best, total, mixed = online(best, total, mixed, score, value := fast.read(v[step : step + block]))
            fast.free(score, value)
        fast.free(query, best, total)
        fast.write(out[at : at + group], mixed / total)
    assert fast.live == 0
    return out


def online(best: Tensor, total: Tensor, mixed: Tensor, score: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The running maximum, running sum and weighted sum after one more block of scores and values."""
    top = torch.maximum(best, score.amax(-1, keepdim=True))
    scale, weight = (best - top).exp(), (score - top).exp()
    return top, total * scale + weight.sum(-1, keepdim=True), mixed * scale + weight @ value


def mlp(fast: Fast, x: Tensor, first: Tensor, second: Tensor, group: int) -> Tensor:
    """`b m, f m, n f -> b n` with a ReLU between, in groups of b."""
    out = x.new_empty(len(x), len(second))
    for at in range(0, len(x), group):
        given, weight = fast.read(x[at : at + group]), fast.read(first)
        hidden = fast.hold(given @ weight.T).relu_()
        fast.free(given, weight)
        weight = fast.read(second)
        result = fast.hold(hidden @ weight.T)
        fast.free(hidden, weight)
        fast.write(out[at : at + group], result)
    assert fast.live == 0
    return out
