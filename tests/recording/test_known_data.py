"""Data that no input has a say in: trace computes it, reads the state of a model, and refuses what is not known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, trace

TABLE = torch.tensor([2, 3])


class Padded(nn.Module):
    """Pads by a number that is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("padding", torch.tensor(2))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, max(self.padding, 1)))  # type: ignore[arg-type, type-var]


class Split(nn.Module):
    """Splits by the sizes in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("lengths", torch.tensor([4, 5]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part * part.shape[0] for part in x.split(self.lengths.tolist())])  # type: ignore[operator]


class Overwritten(nn.Module):
    """Writes to a buffer, or to memory that is a buffer's, before it reads it."""

    def __init__(self, write: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.write = write
        self.register_buffer("level", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.write(self.level, x)  # type: ignore[arg-type]
        return x + 1 if self.level > 0 else x  # type: ignore[operator]


def _changed_through_a_view() -> Tensor:
    numbers = torch.zeros(3)
    numbers[1:] += 2
    return numbers


KNOWN = [
    lambda x: x[torch.ones(3, 3).triu().view(9).nonzero()[:, 0]],
    lambda x: x + 1 if torch.ones(3).any() else x,
    lambda x: x[torch.arange(5).tolist()],
    lambda x: x * torch.tensor([2, 3])[1].item(),
    lambda x: x[torch.unique(torch.tensor([3, 1, 3]))],
    lambda x: x + 1 if _changed_through_a_view().sum() == 4 else x,
    lambda x: torch.vmap(lambda each: each + 1 if torch.ones(3).any() else each)(x),
]


@pytest.mark.parametrize("function", KNOWN)
def test_constants_of_the_run_are_computed(function: Callable[[Tensor], Tensor]) -> None:
    """No reading is recorded, so the diagram can be differentiated."""
    x = torch.randn(9)
    diagram = trace(function, x)
    other = torch.randn(9)
    torch.testing.assert_close(diagram(other), function(other), rtol=0, atol=0)
    assert "read" not in str(diagram)


def _by_view(x: Tensor) -> Tensor:
    numbers = torch.zeros(3)
    numbers.view(3).copy_(x[:3])
    return numbers


def _by_data(x: Tensor) -> Tensor:
    numbers = torch.zeros(9)
    numbers.data = x
    return numbers


def _by_out(x: Tensor) -> Tensor:
    numbers = torch.zeros(9)
    torch.add(x, 1, out=numbers)
    return numbers


def _by_a_large_view(x: Tensor) -> Tensor:
    number = torch.zeros(1)
    number.expand(100_000).as_strided((1,), (1,)).copy_(x[:1])
    return number


UNKNOWN = [
    _by_view,
    _by_data,
    _by_out,
    _by_a_large_view,
    lambda x: torch.zeros(9).add_(x),
    lambda x: torch.rand(3),
    lambda x: torch.zeros(3).uniform_(),
    lambda x: torch.ones(3)[torch.randperm(3)[:1]],
    lambda x: torch.empty(3),
]


@pytest.mark.parametrize("make", UNKNOWN)
def test_what_an_input_or_a_random_number_decides_is_refused(make: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CircuitError, match="depends on data"):
        trace(lambda x: x + 1 if make(x).sum() > 0 else x, torch.randn(9))


@pytest.mark.parametrize(
    ("model", "name", "other"), [(Padded(), "padding", 3), (Split(), "lengths", 6)], ids=["int", "tolist"]
)
def test_numbers_of_buffers_are_compared_at_each_run(model: nn.Module, name: str, other: int) -> None:
    diagram = trace(model, torch.randn(9))
    x = torch.randn(9)
    torch.testing.assert_close(diagram(x), model(x), rtol=0, atol=0)
    getattr(model, name).fill_(other)
    with pytest.raises(CircuitError, match=r"the recorded run read .* by item at .*test_known_data.py:\d+"):
        diagram(x)


def test_a_tensor_outside_the_run_is_compared_too() -> None:
    diagram = trace(lambda x: x + 1 if TABLE[0] > 1 else x, torch.zeros(2))
    assert diagram(torch.zeros(2)).tolist() == [1, 1]
    TABLE[0] = 0
    try:
        with pytest.raises(CircuitError, match="read True from data"):
            diagram(torch.zeros(2))
    finally:
        TABLE[0] = 2


WRITES = [
    lambda level, x: level.copy_(x[0]),
    lambda level, x: level.view(1).fill_(x[0]),
    lambda level, x: level.detach().add_(1),
    lambda level, x: level.uniform_(),
]


@pytest.mark.parametrize("write", WRITES)
def test_a_buffer_that_the_run_overwrites_is_refused(write: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(CircuitError, match="depends on data"):
        trace(Overwritten(write), torch.randn(9))


class Normalized(nn.Module):
    """Reads the running mean after the call that updates it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return y if self.norm.running_mean.sum() > 0 else -y  # type: ignore[union-attr]


def test_running_statistics_are_refused() -> None:
    """Batch normalization writes to its buffers although torch's declaration of the operation does not say so."""
    with pytest.raises(CircuitError, match="depends on data"):
        trace(Normalized(), torch.randn(4, 3))


def test_a_number_that_needs_no_reading_stays_a_step_of_the_diagram() -> None:
    """`item` of a buffer without a condition on it follows the buffer."""
    model = Padded()
    diagram = trace(lambda x: x * model.padding.item(), torch.ones(2))  # type: ignore[operator]
    model.padding.fill_(5)  # type: ignore[operator]
    assert diagram(torch.ones(2)).tolist() == [5, 5]
