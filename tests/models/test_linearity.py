"""The small circuits of section 2.4, compared with plain loops, and with each other as Figure 18 has them."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circuits import as_linear, trace
from models import linearity


def test_figure_17_is_one_einsum() -> None:
    y, x, k, h = 3, 5, 4, 2
    query, key = torch.randn(y, k, h), torch.randn(x, k, h)
    expected = torch.zeros(y, x, h)
    for i, j, n in itertools.product(range(y), range(x), range(h)):
        expected[i, j, n] = sum(query[i, a, n] * key[j, a, n] for a in range(k)) / k**0.5
    torch.testing.assert_close(linearity.scores(query, key), expected)
    torch.testing.assert_close(linearity.scores_in_steps(query, key), expected)


@pytest.mark.slow
def test_figure_17_has_the_steps_of_the_notebook() -> None:
    """The transpose of the key, the outer product with a diagonal, the inner product, and the scaling."""
    assert [box.label for box in trace(linearity.scores_in_steps).boxes] == [
        "rearrange 'x k h -> k x h'",
        "einsum \"y k h, k' x h -> y k k' x h\"",
        "einsum 'y k k x h -> y x h'",
        "mul",
    ]


def matrix(f: Callable[[Tensor], Tensor], *sizes: int) -> Tensor:
    """A linear function as a tensor: its outputs for every vector of the standard basis."""
    columns = []
    for index in itertools.product(*map(range, sizes)):
        basis = torch.zeros(sizes)
        basis[index] = 1
        columns.append(f(basis))
    return torch.stack(columns).unflatten(0, sizes)


F, G, H = (matrix(f, size) for f, size in ((linearity.F, 3), (linearity.G, 3), (linearity.H, 4)))
K = matrix(linearity.K, 4, 5)


def test_the_maps_are_linear_and_different() -> None:
    for f, sizes in ((linearity.F, {"a": 3}), (linearity.G, {"a": 3}), (linearity.H, {"b": 4})):
        as_linear(f, **sizes)  # raises if it is not linear
    as_linear(linearity.K, b=4, c=5)
    assert [each.shape for each in (F, G, H, K)] == [(3, 4, 5), (3, 4), (4, 5), (4, 5, 2)]
    for each in (F, G, H, K):
        assert each.unique().numel() == each.numel()
        assert torch.linalg.matrix_rank(each.flatten(0, -2)) == min(each.flatten(0, -2).shape)


def test_figure_18_row_1_transposes_F() -> None:
    data, expected = torch.randn(4, 3), torch.zeros(5)
    for i, j, n in itertools.product(range(3), range(4), range(5)):
        expected[n] += F[i, j, n] * data[j, i]
    torch.testing.assert_close(linearity.F_transposed(data), expected)
    torch.testing.assert_close(linearity.F_transposed_by_broadcasting(data), expected)


@pytest.mark.parametrize(
    "circuit", [linearity.G_then_H, linearity.G_then_H_bent, linearity.G_then_H_wide, linearity.G_then_H_shifted]
)
def test_figure_18_rows_2_and_3_are_G_then_H(circuit: Callable[[Tensor], Tensor]) -> None:
    data, expected = torch.randn(3), torch.zeros(5)
    for i, j, n in itertools.product(range(3), range(4), range(5)):
        expected[n] += data[i] * G[i, j] * H[j, n]
    torch.testing.assert_close(circuit(data), expected)


def test_the_transpose_of_H_is_H_as_a_tensor() -> None:
    torch.testing.assert_close(linearity.H_transposed(), H)


@pytest.mark.parametrize("circuit", [linearity.product_then_maps, linearity.maps_then_product])
def test_figure_18_row_4_is_K_of_G_and_H(circuit: Callable[[Tensor, Tensor], Tensor]) -> None:
    first, second, expected = torch.randn(3), torch.randn(4), torch.zeros(2)
    for i, j, p, n in itertools.product(range(3), range(4), range(4), range(5)):
        expected += first[i] * G[i, p] * second[j] * H[j, n] * K[p, n]
    torch.testing.assert_close(circuit(first, second), expected)
