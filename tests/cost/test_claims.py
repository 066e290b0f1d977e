"""Hand formulas of small circuits, and errors planted in `circuits.cost`, each of which breaks one of them."""

import pytest
import torch
from torch.utils.flop_counter import flop_registry

from circuits.cost.contractions import FORMULAS, formula_of
from circuits.cost.elementwise import computes
from tests.cost.claims import CLAIMS

QUICK = ("attention", "kernel of equal lengths, causal", "convolution", "shared and frozen weights", "views", "unknown")
"""The claims that are checked with every change."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CLAIMS]
)
def test_cost_is_the_hand_formula(name: str) -> None:
    CLAIMS[name].check()


@pytest.mark.parametrize(
    "name",
    [
        "_fft_c2c",
        "sort",
        "topk",
        "linalg_lu_factor_ex",
        "linalg_solve_triangular",
        "_linalg_eigh",
        "cholesky",
        "grid_sampler_2d",
        "_sparse_addmm",
        "_linalg_svd",
        "histc",
        "unique_dim",
    ],
)
def test_what_is_neither_known_nor_free_is_unknown(name: str) -> None:
    packet = getattr(torch.ops.aten, name)
    func = getattr(packet, packet.overloads()[0])
    assert formula_of(func) is None
    assert computes(func) is None


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_a_formula_is_of_an_operation_that_torch_has_and_counts_not_or_wrong(name: str) -> None:
    packet = getattr(torch.ops.aten, name)
    by_torch = set(flop_registry) & {packet}
    assert not by_torch or name.startswith(("convolution_backward", "_scaled_dot_product"))
