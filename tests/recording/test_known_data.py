"""Data that no input has a say in: trace computes it, reads the state of a model, and refuses what is not known."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
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
    lambda x: x + 1 if torch.ones(1 << 16).any() else x,
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


def _in_freed_memory(x: Tensor) -> Tensor:
    """Python and torch give new tensors the addresses of freed ones."""
    for _ in range(20):
        torch.zeros(3)
        if (x[:3] * 1).sum() > 0:
            break
    return x


UNKNOWN = [
    lambda x: x,
    lambda x: x * 2,
    _in_freed_memory,
    lambda x: torch.zeros(3).resize_(9),
    lambda x: torch.zeros(9).set_(x.untyped_storage(), 0, (9,)),  # type: ignore[call-overload]
    lambda x: torch.ones((1 << 16) + 1),
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


@pytest.mark.every(15)
@pytest.mark.parametrize("make", UNKNOWN)
def test_what_an_input_or_a_random_number_decides_is_refused(make: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CircuitError, match="depends on data"):
        trace(lambda x: x + 1 if make(x).sum() > 0 else x, torch.randn(9))


@pytest.mark.every(2)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_running_statistics_are_refused() -> None:
    """Batch normalization writes to its buffers although torch's declaration of the operation does not say so."""
    with pytest.raises(CircuitError, match="depends on data"):
        trace(Normalized(), torch.randn(4, 3))


@pytest.mark.slow
def test_a_statistic_that_an_operation_updates_without_saying_so_is_refused() -> None:
    """The declaration of this operation has no tensor that it writes to."""

    def run(x: Tensor) -> Tensor:
        mean, variance = torch.zeros(3), torch.ones(3)
        y = torch.native_batch_norm(x, None, None, mean, variance, True, 0.1, 1e-5)[0]
        return y if mean.sum() > 0 else -y

    with pytest.raises(CircuitError, match="depends on data"):
        trace(run, torch.randn(4, 3))


@pytest.mark.slow
def test_a_number_that_depends_on_a_free_size_is_refused() -> None:
    with pytest.raises(CircuitError, match="depends on data"):
        trace(lambda x: x + 1 if (torch.ones(3) * x.shape[0]).sum() > 9 else x, axes="n")


ARRAY = np.array([1.0, 2.0])


def test_memory_that_a_tensor_shares_with_an_array_is_not_written_to() -> None:
    def run(x: Tensor) -> Tensor:
        numbers = torch.as_tensor(ARRAY)
        numbers += 1
        return x + 1 if numbers.sum() > 4 else x

    with contextlib.suppress(CircuitError):
        trace(run, torch.ones(2))
    assert ARRAY.tolist() == [1, 2]


CALLS: list[int] = []


@torch.library.custom_op("circuits_tests::counted", mutates_args=())
def counted(x: Tensor) -> Tensor:
    CALLS.append(1)
    return x * 2


@counted.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Calls(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * counted(torch.ones(2))


def test_the_users_operators_do_not_run_in_a_trace() -> None:
    """They may do anything besides returning a result."""
    for function in (lambda x: x * counted(torch.ones(2)), Calls.apply):
        trace(function, torch.ones(2))
    assert not CALLS


def test_a_number_that_needs_no_reading_stays_a_step_of_the_diagram() -> None:
    """`item` of a buffer without a condition on it follows the buffer."""
    model = Padded()
    diagram = trace(lambda x: x * model.padding.item(), torch.ones(2))  # type: ignore[operator]
    model.padding.fill_(5)  # type: ignore[operator]
    assert diagram(torch.ones(2)).tolist() == [5, 5]
