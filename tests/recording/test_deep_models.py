"""Models nested so deeply that they just run by themselves are traced and tracked; Python's recursion limit is kept."""

import sys
import threading

import pytest
import torch
from torch import Tensor, nn

from circuits import trace, track
from circuits.recording.recursion import more_frames

X = torch.rand(1, 2)


class Deep(nn.Module):
    """A linear layer inside `depth` modules."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.inner = Deep(depth - 1) if depth else nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 1


class Endless(nn.Module):
    """A module that calls itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self(x)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [90, pytest.param(200, marks=pytest.mark.slow)])
def test_a_deep_model_is_recorded(depth: int) -> None:
    limit, model = sys.getrecursionlimit(), Deep(depth).requires_grad_(False)
    expected = model(X)
    with track(model, to=None) as seen:
        assert torch.equal(model(X), expected)
    assert sys.getrecursionlimit() == limit
    for diagram in (seen.diagram, trace(model, X)):
        assert torch.equal(diagram(X), expected)
        assert torch.equal(diagram.function()(X), expected)
        assert len(diagram.table(depth=None).splitlines()) > 2 * depth
        assert len(str(diagram).splitlines()) < 50
        assert len(diagram.to_dict()) > 1
    assert sys.getrecursionlimit() == limit


@pytest.mark.slow
def test_a_model_without_end_fails_as_by_itself() -> None:
    def run() -> None:
        for record in (lambda: trace(Endless(), X), lambda: tracked(Endless())):
            with pytest.raises(RecursionError):
                record()
            errors.append(sys.getrecursionlimit())

    limit, errors = sys.getrecursionlimit(), list[int]()
    run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == [limit] * 4


def tracked(model: nn.Module) -> None:
    with track(model, to=None):
        model(X)


def test_a_limit_that_the_code_sets_is_kept() -> None:
    limit = sys.getrecursionlimit()
    try:
        with track(nn.ReLU(), to=None):
            sys.setrecursionlimit(limit + 5)
        assert sys.getrecursionlimit() == limit + 5
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.slow
def test_the_limit_is_that_of_before_whatever_blocks_threads_open_and_end() -> None:
    limit, interval = sys.getrecursionlimit(), sys.getswitchinterval()

    def opens_and_ends() -> None:
        for _ in range(3000):
            with more_frames():
                pass

    threads = [threading.Thread(target=opens_and_ends) for _ in range(8)]
    try:
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sys.getrecursionlimit() == limit
    finally:
        sys.setswitchinterval(interval)
        sys.setrecursionlimit(limit)
