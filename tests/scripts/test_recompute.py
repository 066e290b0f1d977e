import copy

import pytest
import torch
from torch import Tensor, nn

from scripts.recompute import recompute


class Counting(nn.Module):
    """A block with everything that a second run could change: running statistics, dropout, an in-place operation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.linear = nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4)
        self.runs = 0

    def forward(self, input: Tensor, *, scale: float = 1.0) -> Tensor:
        self.runs += 1
        return self.linear(self.drop(self.norm(input)).relu_()) * scale


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(Counting()) for _ in range(3))

    def forward(self, input: Tensor) -> Tensor:
        for block in self.blocks:
            input = block(input)
        return input


def steps(model: nn.Module, count: int = 3) -> list[Tensor]:
    """Gradients of every parameter after each of a few backward passes, and the buffers."""
    torch.manual_seed(5)
    dtype = next(model.parameters()).dtype
    seen = []
    for _ in range(count):
        model.zero_grad()
        model(torch.randn(8, 4, dtype=dtype)).square().sum().backward()
        seen += [parameter.grad.clone() for parameter in model.parameters()]  # pyright: ignore[reportOptionalMemberAccess]
    return seen + [buffer.clone() for buffer in model.buffers()]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("kind", [Counting, nn.Sequential])
def test_gradients_draws_and_statistics_are_those_of_one_run(kind: type[nn.Module], momentum: float | None) -> None:
    plain = Deep()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = momentum
    twice = copy.deepcopy(plain)
    assert recompute(twice, (kind,)) == 3
    assert list(twice.state_dict()) == list(plain.state_dict())
    for ours, theirs in zip(steps(twice), steps(plain), strict=True):
        assert torch.equal(ours, theirs)
    runs = [[module.runs for module in model.modules() if isinstance(module, Counting)] for model in (plain, twice)]
    assert runs == [[3] * 3, [6] * 3]


def test_only_the_outermost_runs_twice() -> None:
    model = Deep()
    assert recompute(model, (nn.Sequential, Counting)) == 3
    steps(model, 1)
    assert [module.runs for module in model.modules() if isinstance(module, Counting)] == [2, 2, 2]


def test_options_pass_and_nothing_runs_twice_without_a_gradient() -> None:
    model = nn.Sequential(Counting()).eval()
    plain = copy.deepcopy(model)
    recompute(model, (Counting,))
    input = torch.randn(8, 4)
    with torch.no_grad():
        assert torch.equal(model[0](input, scale=3.0), plain[0](input, scale=3.0))
    assert model[0].runs == 1


@pytest.mark.slow
def test_buffers_are_their_own_again_after_an_error() -> None:
    class Fails(Counting):
        def forward(self, input: Tensor, *, scale: float = 1.0) -> Tensor:
            if self.runs:
                raise RuntimeError("the second time")
            return super().forward(input)

    model = nn.Sequential(Fails())
    recompute(model, (Fails,))
    before = list(model.buffers())
    loss = model(torch.randn(8, 4)).sum()
    with pytest.raises(RuntimeError, match="the second time"):
        loss.backward()
    assert all(ours is theirs for ours, theirs in zip(model.buffers(), before, strict=True))


@pytest.mark.slow
def test_a_compiled_step_updates_statistics_once() -> None:
    blocks = (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.ReLU()) for _ in range(2))
    plain = nn.Sequential(*blocks).double()
    twice = copy.deepcopy(plain)
    assert recompute(twice, (nn.Sequential,)) == 2
    compiled = torch.compile(twice, fullgraph=True)
    for ours, theirs in zip(steps(compiled), steps(plain), strict=True):  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(ours, theirs)
