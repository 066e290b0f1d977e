"""Operations that torch can compute, but not without data: here they have fake forms."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import backward, trace
from tests.conftest import Agreement

ENDS = torch.tensor([3, 8], dtype=torch.int32)
MATRICES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "rows in groups": lambda: (torch.randn(8, 16), torch.randn(2, 16, 24)),
    "rows in groups, weights transposed": lambda: (torch.randn(8, 16), torch.randn(2, 24, 16).mT),
    "columns in groups": lambda: (torch.randn(2, 4, 16), torch.randn(16, 8)),
    "sums in groups": lambda: (torch.randn(16, 8), torch.randn(8, 24)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MATRICES)
def test_a_grouped_product_is_traced_and_run(name: str, dtype: torch.dtype) -> None:
    one, other = MATRICES[name]()
    one, other = one.to(dtype), other.to(dtype)
    wanted = F.grouped_mm(one, other, offs=ENDS)
    diagram = trace(lambda x, y, ends: F.grouped_mm(x, y, offs=ends), one, other, ENDS)
    assert diagram.outputs[0].sizes == tuple(wanted.shape)
    assert diagram.outputs[0].dtype is wanted.dtype
    torch.testing.assert_close(diagram(one, other, ENDS), wanted)
    ends = torch.tensor([5, 8], dtype=torch.int32)
    torch.testing.assert_close(diagram(one, other, ends), F.grouped_mm(one, other, offs=ends))


def test_a_product_of_as_many_matrices() -> None:
    one, other = torch.randn(2, 4, 16), torch.randn(2, 16, 24)
    diagram = trace(F.grouped_mm, one, other)
    assert diagram.outputs[0].sizes == (2, 4, 24)
    torch.testing.assert_close(diagram(one, other), one @ other)


@pytest.mark.parametrize("name", MATRICES)
def test_a_grouped_product_is_differentiated(name: str) -> None:
    one, other = MATRICES[name]()
    call: Callable[..., Any] = lambda x, y: F.grouped_mm(x, y, offs=ENDS)  # noqa: E731
    wanted, pull, *_ = torch.func.vjp(call, one, other)
    back = torch.randn_like(wanted)
    found = backward(call, one, other)(one, other, back)
    torch.testing.assert_close(tuple(found.values()), pull(back))


@pytest.mark.parametrize(
    ("one", "other", "ends"),
    [((8, 16), (2, 12, 24), ENDS), ((8, 16), (2, 16, 24), None), ((2, 4, 16), (2, 16, 24), ENDS)],
)
def test_a_grouped_product_that_the_kernel_refuses_is_refused(one: Any, other: Any, ends: Tensor | None) -> None:
    given = torch.randn(one), torch.randn(other)
    with pytest.raises((RuntimeError, ValueError)):
        F.grouped_mm(*given, offs=ends)
    with pytest.raises(RuntimeError, match=r"contraction dimension|if and only if"):
        trace(lambda x, y: F.grouped_mm(x, y, offs=ends), *given)


class Experts(nn.Module):
    """A mixture of experts: the rows of each expert lie together, so that one grouped product computes all."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.weight = nn.Parameter(torch.randn(4, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        """Send each row to two experts."""
        weights, chosen = self.gate(x).softmax(-1).topk(2, dim=-1)
        sorted_experts, order = chosen.flatten().sort()
        counts = torch.histc(sorted_experts.float(), bins=4, min=0, max=3)
        ends = counts.cumsum(0, dtype=torch.int32)
        mixed = F.grouped_mm(x[order // 2], self.weight, offs=ends)
        mixed = mixed * weights.flatten()[order].unsqueeze(-1)
        return torch.zeros_like(x).index_add(0, order // 2, mixed)


def test_a_mixture_of_experts(agree: Agreement) -> None:
    agree(Experts().eval(), torch.randn(6, 8))


@pytest.mark.slow
def test_a_mixture_of_experts_for_any_number_of_rows() -> None:
    model = Experts()
    diagram = trace(model, axes="n 8")
    for rows in (2, 5, 40):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(diagram(x), model(x))
