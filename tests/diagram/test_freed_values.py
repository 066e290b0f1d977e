"""A diagram frees each value after its last use, as the original does."""

import weakref
from typing import Any

import torch
from torch import Tensor

from circuits import trace
from circuits.diagram import Call, Struct, Wire
from circuits.diagram.interpreter import schedule


def test_a_value_is_freed_after_its_last_use() -> None:
    wire = [Wire(number) for number in range(4)]
    calls = [
        Call(torch.sin, Struct(tuple, (), (wire[place],)), Struct(dict, (), ()), wire[place + 1]) for place in range(3)
    ]
    assert [unused for _, unused in schedule(calls, wire[3], ())] == [(0,), (1,), (2,)]
    assert [unused for _, unused in schedule(calls, Struct(tuple, (), (wire[3], wire[1])), ())] == [(0,), (), (2,)]


class _Alive(weakref.WeakSet[Tensor]):
    """The tensors that are alive, and how many there were at most; a diagram does not look into such an object."""

    most = 0


def test_a_run_keeps_no_more_tensors_alive_than_the_circuit() -> None:
    alive: Any = _Alive()

    def note(x: Tensor) -> Tensor:
        made = x + 1
        alive.add(made)
        alive.most = max(alive.most, len(alive))
        return made

    def chain(x: Tensor) -> Tensor:
        for _ in range(10):
            x = torch.vmap(note)(x)
        return x

    diagram = trace(chain, torch.ones(3))
    alive.clear()
    alive.most = 0
    assert torch.equal(diagram(torch.ones(3)), torch.full((3,), 11.0))
    assert alive.most <= 2
