"""Diagrams of random programs with views and in-place changes compute the same as the programs."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import trace, track
from tests.conftest import equal_numbers

STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "matmul": lambda a, b: a @ b.mT @ b,
    "softmax": lambda a, b: a.softmax(-1),
    "cat": lambda a, b: torch.cat([a, b], 0)[: a.shape[0]],
    "chunk": lambda a, b: torch.cat(a.chunk(2, -1)[::-1], -1),
    "where": lambda a, b: torch.where(a > b, a, b * 2),
    "index": lambda a, b: a[torch.arange(a.shape[0] - 1, -1, -1)],
    "reduce": lambda a, b: a - b.mean(0, keepdim=True),
    "noise": lambda a, b: a + torch.rand_like(b),
    "view": lambda a, b: a.view(-1)[: a.numel()].view(a.shape),
    "transpose": lambda a, b: (a.mT * b.mT).mT.clone(memory_format=torch.contiguous_format),
    "expand": lambda a, b: a[:1].expand_as(b) + b,
}
CHANGES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add_": lambda a, b: a.add_(b),
    "mul_": lambda a, b: a.__imul__(0.5),
    "row": lambda a, b: a.__setitem__(0, b[-1]),
    "column": lambda a, b: a[:, 1].copy_(b[:, 0]),
    "slice": lambda a, b: a.__setitem__((slice(None), slice(1, None)), b[:, 1:] * 2),
    "mask": lambda a, b: a.masked_fill_(b > 1, 0.25),
    "through a view": lambda a, b: a.view(-1)[::2].mul_(3),
    "through two": lambda a, b: a.t()[0].unsqueeze(0).sub_(1),
}


def build(plan: list[tuple[str, int, int]]) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """Return a program; each of its steps appends a tensor to a pool, or changes one of the pool in place.

    A step of `plan` is a key of STEPS or CHANGES with the indices in the pool of its two operands.
    """

    def program(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        pool = [x.clone(), y * 1]
        for step, first, second in plan:
            a, b = pool[first % len(pool)], pool[second % len(pool)]
            if step in STEPS:
                pool.append(STEPS[step](a, b))
            else:
                CHANGES[step](a, b.clone())
        return tuple(pool)

    return program


PLANS = st.lists(st.tuples(st.sampled_from([*STEPS, *CHANGES]), st.integers(0, 9), st.integers(0, 9)), max_size=6)


@settings(max_examples=25)
@given(PLANS, st.integers(2, 5), st.integers(2, 4))
def test_diagrams_of_random_programs_compute_the_same(plan: list[tuple[str, int, int]], rows: int, half: int) -> None:
    program, module = build(plan), _Module(build(plan))
    x, y = torch.randn(rows, 2 * half), torch.randn(rows, 2 * half)
    torch.manual_seed(5)
    expected = program(x, y)
    with track(module, to=None) as seen:
        torch.manual_seed(5)
        tracked = module(x, y)
    for run in (seen.diagram, trace(program, x, y), trace(program, axes="b 2*k, b 2*k")):
        torch.manual_seed(5)
        for one, two, three in zip(expected, tracked, run(x, y), strict=True):
            assert equal_numbers(one, two)
            assert equal_numbers(one, three)


class _Module(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)
