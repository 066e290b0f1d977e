"""`track(model, finite=True)`: a run stops at the first box that makes a NaN or an infinity."""

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit, track


class Divides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    @circuit("b y 3 -> b y 3")
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x / x.sum(-1, keepdim=True)) + 1


@pytest.fixture
def x() -> Tensor:
    """Of all divisors one, that of b=1 and y=2, is 0, at which 0/0 is NaN."""
    x = torch.ones(2, 4, 3)
    x[1, 2] = 0
    return x


def test_a_run_stops_at_the_first_nan(x: Tensor) -> None:
    model = Divides()
    with track(model, to=None, finite=True) as seen, pytest.raises(CircuitError) as caught:
        model(x)
    text = str(caught.value)
    assert "div" in text
    assert "makes nan at index (1, 2, 0), b=1 y=2" in text
    assert "3 of 24 numbers are not finite" in text
    assert "test_finite.py:" in text
    assert seen.diagram.failed
    assert [box.label for box in seen.diagram.walk()][-1] == "div"  # what would have followed did not run


def test_infinities_may_be_allowed(x: Tensor) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    model.get_parameter("0.weight").data[1, 0] = float("inf")
    with (
        track(model, to=None, finite=True),
        pytest.raises(CircuitError, match=r"linear in 0 makes inf at index \(0, 1\)"),
    ):
        model(torch.ones(2, 3))
    with track(model, to=None, finite="nan") as seen:
        assert model(torch.ones(2, 3)).isinf().any()
    assert not seen.diagram.failed


def test_the_line_of_the_box_that_failed_is_printed(x: Tensor) -> None:
    lines: list[str] = []
    model = Divides()
    with track(model, to=lines.append, finite=True), pytest.raises(CircuitError):
        model(x)
    assert any(line.startswith("  div ") for line in lines)
    with track(model, to=lines.append, finite=True) as seen:
        model(torch.ones(2, 4, 3))
    assert not seen.diagram.failed


class Maps(nn.Module):
    """Divides inside a transform, where no result is read, and gives the quotients or where they are largest."""

    def __init__(self, gives_quotients: bool) -> None:
        super().__init__()
        self.gives_quotients = gives_quotients

    def forward(self, x: Tensor) -> Tensor:
        quotients = torch.vmap(lambda row: row / row.sum())
        return quotients(x) if self.gives_quotients else torch.vmap(lambda row: (row / row.sum()).argmax(-1))(x)


def test_inside_a_transform_results_are_not_read_but_what_it_gives_is() -> None:
    largest, quotients = Maps(False), Maps(True)
    with track(largest, to=None, finite=True):
        largest(torch.zeros(2, 3))
    with track(quotients, to=None, finite=True), pytest.raises(CircuitError, match=r"vmap .*in Maps makes nan"):
        quotients(torch.zeros(2, 3))


def test_a_parameter_that_is_not_finite_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model.get_parameter("1.bias").data[2] = float("nan")
    with track(model, to=None, finite=True), pytest.raises(CircuitError, match=r"reads 1\.bias, which is not finite"):
        model(torch.ones(2, 3))
