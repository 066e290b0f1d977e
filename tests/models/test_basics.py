"""The small circuits of section 2.3, compared with plain loops over lists of numbers."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circuits import trace
from models import basics


def numbers(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=torch.float64)


def neighbours(vector: list[float]) -> list[float]:
    """The products of neighbouring numbers."""
    return [vector[i + 1] * vector[i] for i in range(len(vector) - 1)]


def test_h_is_g_of_f() -> None:
    first, second, third = numbers(3), numbers(4, 2), numbers(6)
    inner = [
        [sum((second[i + 1, p] - second[i, p]) * third[2 * j + p] for p in range(2)) for j in range(3)]
        for i in range(3)
    ]
    torch.testing.assert_close(basics.f(second, third), torch.tensor(inner, dtype=torch.float64))
    product = [sum(inner[i][j] * first[j] for j in range(3)) for i in range(3)]
    expected = torch.tensor([[product[i + 1] - product[i] for i in range(2)]], dtype=torch.float64)
    torch.testing.assert_close(basics.g(first, torch.tensor(inner, dtype=torch.float64)), expected)
    torch.testing.assert_close(basics.h(first, second, third), expected)


def test_figure_8_is_a_row() -> None:
    table = torch.arange(12).view(4, 3)
    assert basics.row(table).tolist() == [6, 7, 8]
    assert [basics.row(table, i).tolist() for i in range(4)] == table.tolist()


def test_figure_9_is_one_element_in_three_ways() -> None:
    table = numbers(5, 7)
    for i, j in itertools.product(range(5), range(7)):
        for read in (basics.element, basics.element_of_row, basics.element_of_column):
            assert read(table, i, j).item() == table.tolist()[i][j]


def test_figure_10_is_G_of_each_row() -> None:
    rows = numbers(4, 3)
    expected = torch.tensor([neighbours(row) for row in rows.tolist()], dtype=torch.float64)
    torch.testing.assert_close(basics.G_of_rows(rows), expected)
    for i in range(4):
        torch.testing.assert_close(basics.apply_then_index(rows, i), expected[i])
        torch.testing.assert_close(basics.index_then_apply(rows, i), expected[i])


def test_figure_11_is_H_of_each_row_with_one_other_vector() -> None:
    rows, second = numbers(4, 3), numbers(4)
    total = sum(second.tolist())
    expected = torch.tensor([[x + total for x in neighbours(row)] for row in rows.tolist()], dtype=torch.float64)
    torch.testing.assert_close(basics.H_of_rows(rows, second), expected)
    for i in range(4):
        torch.testing.assert_close(basics.apply_then_index_inner(rows, second, i), expected[i])
        torch.testing.assert_close(basics.index_then_apply_inner(rows, second, i), expected[i])


def test_figure_12_is_the_square_of_each_element() -> None:
    table = numbers(4, 3)
    assert basics.square_of_elements(table).tolist() == [[x * x for x in row] for row in table.tolist()]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (basics.element_of_row, basics.element_of_column),
        (basics.apply_then_index, basics.index_then_apply),
        (basics.apply_then_index_inner, basics.index_then_apply_inner),
    ],
)
def test_the_sides_of_an_equation_are_different_diagrams(
    one: Callable[..., Tensor], other: Callable[..., Tensor]
) -> None:
    """Their boxes are in another order, or index other axes."""
    first, second = (str(trace(each)).splitlines()[1] for each in (one, other))
    assert first != second
