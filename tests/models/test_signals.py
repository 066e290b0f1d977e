"""`models.signals` compared with numpy's convolve and correlate, and with the worked example of conv1d."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circuits import CircuitError, ShapeError, definitions, trace
from models.signals import (
    full_convolution,
    full_correlation,
    same_convolution,
    same_correlation,
    slid,
    valid_convolution,
    valid_correlation,
)

CONVOLUTIONS = {"full": full_convolution, "same": same_convolution, "valid": valid_convolution}
CORRELATIONS = {"full": full_correlation, "same": same_correlation, "valid": valid_correlation}

both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])

A, B = (1.1, 2.0, -3.0, 2.5, 7.0), (3.0, 2.0, -2.2)
EXAMPLE: list[tuple[str, str, tuple[float, ...], tuple[float, ...]]] = [
    ("full", "valid", (4.5, 1.0, 5.0, -2.2, -11.0, 3.4, 9.0), (4.5, 17.84, 34.8, -36.08, -46.0)),
    ("same", "same", (4.5, 1.0, 5.0, -2.2, -11.0), (6.8, 4.5, 17.84, 34.8, -28.6)),
    ("valid", "full", (4.5, 1.0, 5.0), (-9.9, 6.8, 4.5, 13.0, 15.0)),
]


@both_ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mode", "back", "c", "expected"), EXAMPLE)
def test_the_gradient_of_a_convolution_is_a_convolution(
    way: Any, dtype: torch.dtype, mode: str, back: str, c: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    """The numbers of the example, from autograd and from the convolution with b reversed."""
    a = torch.tensor(A, dtype=dtype, requires_grad=True)
    b, c_, right = (torch.tensor(each, dtype=dtype) for each in (B, c, expected))
    with way():
        (gradient,) = torch.autograd.grad(CONVOLUTIONS[mode](a, b) @ c_, a)
        torch.testing.assert_close(gradient, right)
        torch.testing.assert_close(CONVOLUTIONS[back](c_, b.flip(0)), right)


@pytest.mark.parametrize("mode", CONVOLUTIONS)
def test_a_convolution_is_linear_in_either(mode: str) -> None:
    """A map that is linear in a satisfies <conv(a, b), c> = <a, gradient by a>."""
    a, b = torch.randn(9, dtype=torch.float64, requires_grad=True), torch.randn(4, dtype=torch.float64)
    value = CONVOLUTIONS[mode](a, b)
    c = torch.randn_like(value)
    (gradient,) = torch.autograd.grad(value @ c, a)
    torch.testing.assert_close(value @ c, a @ gradient)


@pytest.mark.every(2)
@both_ways
@given(n=st.integers(1, 9), k=st.integers(1, 9), seed=st.integers(0, 99))
def test_convolutions_and_correlations_are_numpys(way: Any, n: int, k: int, seed: int) -> None:
    """Whichever signal is longer, and where there are two middles."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(size=k)
    with way():
        for mode in CONVOLUTIONS:
            ours = CONVOLUTIONS[mode](torch.from_numpy(a), torch.from_numpy(b))
            torch.testing.assert_close(ours, torch.from_numpy(np.convolve(a, b, mode)))  # type: ignore[call-overload]
            ours = CORRELATIONS[mode](torch.from_numpy(a), torch.from_numpy(b))
            torch.testing.assert_close(ours, torch.from_numpy(np.correlate(a, b, mode)))  # type: ignore[call-overload]


@both_ways
@pytest.mark.parametrize("f", [*CONVOLUTIONS.values(), *CORRELATIONS.values()])
def test_many_signals_one_by_one(way: Any, f: Any) -> None:
    a, b = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    with way():
        output = f(a, b)
        for i in range(2):
            for j in range(3):
                torch.testing.assert_close(output[i, j], f(a[i, j], b))


@both_ways
@pytest.mark.parametrize("f", [*CONVOLUTIONS.values(), *CORRELATIONS.values()])
def test_derivatives_are_right(way: Any, f: Any) -> None:
    a, b = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (6, 3))
    with way():
        assert torch.autograd.gradcheck(f, (a, b))
        assert torch.autograd.gradgradcheck(f, (a, b))


@both_ways
def test_empty_signals_are_refused(way: Any) -> None:
    none: Tensor = torch.zeros(0)
    with way():
        with pytest.raises(CircuitError, match="signals must not be empty, got lengths 0 and 3"):
            valid_correlation(none, torch.zeros(3))
        with pytest.raises(CircuitError, match="got lengths 3 and 0"):
            full_convolution(torch.zeros(3), none)
        with pytest.raises(ShapeError):
            full_convolution(torch.zeros(3), torch.zeros(3, 3))


@pytest.mark.slow
def test_a_diagram_keeps_both_lengths_free() -> None:
    diagram = trace(full_convolution)
    assert diagram.fixed == ()
    assert "a, b -> a+b-1" in str(diagram)
    a, b = torch.randn(9), torch.randn(5)
    torch.testing.assert_close(diagram(a, b), full_convolution(a, b))


def test_padding_before_and_after_may_differ() -> None:
    found = slid(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 10]), 1, 0)
    assert found.tolist() == [10, 21, 32]
