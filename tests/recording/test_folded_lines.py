"""A printed run has one line for those inside a module that repeats the one before it."""

import pytest
import torch
from torch import Tensor, nn

from circuits import track


class Block(nn.Module):
    def __init__(self, m: int, f: int, fails: bool = False) -> None:
        super().__init__()
        self.up, self.down, self.fails = nn.Linear(m, f), nn.Linear(f, m), fails

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).relu()
        if self.fails:
            y = y @ y
        return x + self.down(y)


def lines_of(model: nn.Module, **options: bool) -> list[str]:
    lines: list[str] = []
    with track(model, to=lines.append, **options):
        model(torch.rand(2, 4))
    return [line.rstrip() for line in lines]


def names(lines: list[str]) -> list[str]:
    return [line[:40].rstrip() for line in lines[1:]]


INSIDE = ["    up Linear", "    relu", "    down Linear", "    add"]


def test_blocks_that_repeat_the_one_before_are_folded() -> None:
    model = nn.Sequential(*[Block(4, 8) for _ in range(3)])
    folded = [
        "Sequential",
        "  0 Block",
        *INSIDE,
        "  1 Block",
        "    … 4 lines as in 0",
        "  2 Block",
        "    … 4 lines as in 0",
    ]
    assert names(lines_of(model)) == folded
    assert names(lines_of(model, fold=False)) == [
        "Sequential",
        *[name for i in range(3) for name in (f"  {i} Block", *INSIDE)],
    ]


def test_a_block_of_other_sizes_or_operations_is_printed() -> None:
    model = nn.Sequential(Block(4, 8), Block(4, 6), Block(4, 6))
    assert names(lines_of(model))[6:] == ["  1 Block", *INSIDE, "  2 Block", "    … 4 lines as in 1"]


def test_a_block_that_fails_is_printed_up_to_where_it_failed() -> None:
    model, lines = nn.Sequential(Block(4, 8), Block(4, 8, fails=True)), []
    with pytest.raises(RuntimeError), track(model, to=lines.append):
        model(torch.rand(2, 4))
    assert names(lines)[6:9] == ["  1 Block", "    up Linear", "    relu"]
    assert "failed: RuntimeError" in lines[-1]
    assert lines[-1].startswith("    matmul")


def test_values_are_all_printed() -> None:
    model, lines = nn.Sequential(*[Block(4, 8) for _ in range(2)]), []
    with track(model, to=lines.append, values=100):
        model(torch.rand(2, 4))
    assert not any("lines as in" in line for line in lines)
