"""The small circuits of section 2.3: a composed function, indexes, broadcasting, and an elementwise function.

A signature may have numbers in place of names; the sizes are the paper's. What each function computes is an example:
the figures show only its axes.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.3, Figures 8 to 12.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from circuits import broadcast, circuit, einsum, rearrange

# Section 2.3: h is composed of f and g --------------------------------------------------------------------------------


@circuit("4 2, 6 -> 3 3")
def f(first: Tensor, second: Tensor) -> Tensor:
    """Return the products of the three differences between rows of `first` with the three pairs of `second`."""
    return einsum(first[1:] - first[:-1], rearrange(second, "(j p) -> j p", p=2), "i p, j p -> i j")


@circuit("3, 3 3 -> 1 2")
def g(first: Tensor, second: Tensor) -> Tensor:
    """Return the two differences of the product of a matrix, `second`, with a vector, as a row."""
    product = einsum(second, first, "i j, j -> i")
    return rearrange(product[1:] - product[:-1], "i -> 1 i")


@circuit("3, 4 2, 6 -> 1 2")
def h(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Return g of the first tensor and of f of the others."""
    return g(first, f(second, third))


# Figures 8 and 9: indexes ---------------------------------------------------------------------------------------------


@circuit("4 3 -> 3")
def row(table: Tensor, i: int = 2) -> Tensor:
    """Return a row of a table (Figure 8)."""
    return table[i, :]


@circuit("a b ->")
def element(table: Tensor, i: int = 2, j: int = 1) -> Tensor:
    """Return an element of a table (Figure 9)."""
    return table[i, j]


@circuit("a b ->")
def element_of_row(table: Tensor, i: int = 2, j: int = 1) -> Tensor:
    """Return the same, first the row and then the element."""
    return table[i, :][j]


@circuit("a b ->")
def element_of_column(table: Tensor, i: int = 2, j: int = 1) -> Tensor:
    """Return the same, first the column and then the element."""
    return table[:, j][i]


# Figures 10 and 11: broadcasting --------------------------------------------------------------------------------------


@circuit("3 -> 2")
def G(vector: Tensor) -> Tensor:
    """Return the products of neighbouring numbers."""
    return vector[1:] * vector[:-1]


G_of_rows = broadcast(G, "4 3 -> 4 2")
"""G of each of four rows (Figure 10)."""


@circuit("4 3 -> 2")
def apply_then_index(rows: Tensor, i: int = 2) -> Tensor:
    """Return a row of `G_of_rows`."""
    return G_of_rows(rows)[i]


@circuit("4 3 -> 2")
def index_then_apply(rows: Tensor, i: int = 2) -> Tensor:
    """Return the same, as G of one row: this defines broadcasting."""
    return G(rows[i])


@circuit("3, 4 -> 2")
def H(first: Tensor, second: Tensor) -> Tensor:
    """Return the products of neighbouring numbers of one vector, plus the sum of another."""
    return first[1:] * first[:-1] + second.sum()


H_of_rows = broadcast(H, "c 3, 4 -> c 2")
"""H of each of c rows with one other vector: inner broadcasting (Figure 11)."""


@circuit("c 3, 4 -> 2")
def apply_then_index_inner(rows: Tensor, second: Tensor, i: int = 2) -> Tensor:
    """Return a row of `H_of_rows`."""
    return H_of_rows(rows, second)[i]


@circuit("c 3, 4 -> 2")
def index_then_apply_inner(rows: Tensor, second: Tensor, i: int = 2) -> Tensor:
    """Return the same, as H of one row and the other vector."""
    return H(rows[i], second)


# Figure 12: elementwise functions -------------------------------------------------------------------------------------


@circuit("->")
def square(number: Tensor) -> Tensor:
    """Return the square of a number."""
    return number.square()


square_of_elements = broadcast(square, "4 3 -> 4 3")
"""The square of each element (Figure 12)."""


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "h": {"depth": 1, "frame": False},
    "row": {"frame": False},
    "element": {"frame": False},
    "element_of_row": {"frame": False},
    "element_of_column": {"frame": False},
    "G": {"depth": 0},
    "G_of_rows": {"depth": 1, "frame": False},
    "apply_then_index": {"depth": 1, "frame": False},
    "index_then_apply": {"depth": 1, "frame": False},
    "H": {"depth": 0},
    "H_of_rows": {"depth": 1, "frame": False},
    "apply_then_index_inner": {"depth": 1, "frame": False},
    "index_then_apply_inner": {"depth": 1, "frame": False},
    "square": {"depth": 0},
    "square_of_elements": {"depth": 2, "frame": False},
}
"""The options with which `circuits.draw` draws section 2.3 and Figures 8 to 12 as the paper does."""
