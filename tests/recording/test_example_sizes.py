# Attributes of modules are Tensor or Module to pyright.
# pyright: reportIndexIssue=false, reportArgumentType=false
"""A free axis has an example size in a traced run: if a model has a largest size, a smaller example is found."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import ShapeError, trace


class Positions(nn.Module):
    """Adds an embedding of the position; there are `largest` of them."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest
        self.register_buffer("ids", torch.arange(largest)[None])
        self.table = nn.Embedding(largest, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(self.ids[:, : x.shape[1]])


class Narrowed(Positions):
    """The same by `narrow`, which raises where a slice would be shorter."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table.weight.narrow(0, 0, x.shape[1])


class Masked(Positions):
    """A causal mask of the largest size, of which a part is read, as in GPT-2."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(self.largest, self.largest, dtype=torch.bool).tril()
        scores = x @ x.mT
        return scores.masked_fill(~mask[: x.shape[1], : x.shape[1]], -1e9).softmax(-1) @ x


class Refusing(Positions):
    """Raises an error of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.largest:
            raise ValueError(f"{x.shape[1]} positions, there are {self.largest}")
        return super().forward(x)


@pytest.mark.every(8)
@pytest.mark.parametrize("make", [Positions, Narrowed, Masked, Refusing])
@pytest.mark.parametrize("largest", [32, 8])
def test_a_model_with_a_largest_size_is_traced(make: Callable[[int], Positions], largest: int) -> None:
    model = make(largest)
    diagram = trace(model, axes="b x 3")
    assert diagram.fixed == ()
    for size in (2, largest - 1, largest):
        x = torch.randn(2, size, 3)
        torch.testing.assert_close(diagram(x), model(x))


@pytest.mark.every(3)
@pytest.mark.parametrize("make", [Positions, Narrowed, Masked, Refusing])
def test_sizes_above_the_largest_are_refused(make: Callable[[int], Positions]) -> None:
    diagram, x = trace(make(32), axes="b x 3"), torch.randn(2, 33, 3)
    with pytest.raises((ShapeError, RuntimeError)):
        diagram(x)


@pytest.mark.slow
def test_a_size_that_does_not_fit_any_example_is_refused_with_the_sizes_tried() -> None:
    with pytest.raises(RuntimeError) as caught:
        trace(Positions(2), axes="b x 3")
    assert caught.value.__notes__[-1] == (
        "the free axes had the sizes b = 48, x = 80, then b = 24, x = 20, then b = 4, x = 5; "
        'trace(..., sizes={"x": …}) gives others'
    )
    assert trace(Positions(2), axes="b x 3", sizes={"x": 2}).outputs[0].sizes[1:] == (2, 3)


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("function", "axes"),
    [
        (lambda x: x.view(x.shape[0], 4, 5), "b m"),
        (lambda x: x + torch.zeros(24), "b m"),
        (lambda x: x @ torch.ones(4, 3), "b m"),
    ],
)
def test_a_size_that_the_code_needs_is_not_found_by_trying(function: Any, axes: str) -> None:
    """An example size that happens to fit would fix the axis, which was to be free."""
    with pytest.raises((RuntimeError, ShapeError)):
        trace(function, axes=axes)


def test_a_run_that_needs_data_is_not_repeated() -> None:
    calls = itertools.count()

    def reads(x: Tensor) -> Tensor:
        next(calls)
        return x if x.sum() > 0 else -x

    with pytest.raises(Exception, match="depends on data"):
        trace(reads, axes="b")
    assert next(calls) == 1
