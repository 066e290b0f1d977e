"""The generated function of a diagram computes the same as the diagram, and compiles without a graph break."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from circuits import backward, circuit, einsum, forward_backward, rearrange, trace
from circuits.diagram.formulas import evaluate
from models import MLP, MultiHeadAttention, VisualAttention


@pytest.mark.smoke
def test_the_source_has_one_line_for_each_call() -> None:
    function = trace(lambda x, y: (x @ y).relu(), torch.ones(2, 3), torch.ones(3, 4)).function()
    assert function.__doc__ is not None
    assert [line.split(" = ")[0].strip() for line in function.__doc__.splitlines()] == [
        "def function(x, y):", "v0", "v1", "v2", "del v0, v1", "v3", "del v2", "return v3",
    ]  # fmt: skip
    x, y = torch.randn(2, 3), torch.randn(3, 4)
    assert torch.equal(function(x, y), (x @ y).relu())


def test_symbolic_sizes_are_read_from_the_inputs() -> None:
    @circuit("b (h k) -> b k h")
    def apart(x: Tensor) -> Tensor:
        return rearrange(x, "b (h k) -> b k h", h=2) * x.shape[-1]

    function = trace(apart, sizes={"h": 2}).function()
    for size in (3, 5):
        x = torch.randn(4, 2 * size)
        assert torch.equal(function(x), apart(x))


def test_a_symbolic_axis_of_a_group_is_computed_from_the_other_one() -> None:
    """The first input has an axis (h k); h is known only from the second input."""

    @circuit("b (h k), h -> b k")
    def mixed(x: Tensor, weight: Tensor) -> Tensor:
        return einsum(rearrange(x, "b (h k) -> b h k", h=weight.shape[0]), weight, "b h k, h -> b k") * x.shape[-1]

    function = trace(mixed).function()
    for h, k in ((2, 3), (4, 5)):
        x, weight = torch.randn(6, h * k), torch.randn(h)
        assert torch.equal(function(x, weight), mixed(x, weight))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        MultiHeadAttention(m=6, k=4, h=2),
        pytest.param(VisualAttention(c=3, k=5, heads=2, kernel=3, stride=2), marks=pytest.mark.slow),
        MLP(x=5, y=7, m=11, k=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_backward_circuits_of_models_at_any_size(model: nn.Module) -> None:
    joint = backward(model)
    symbols = {name for value in joint.inputs for size in value.sizes for name in getattr(size, "free_symbols", ())}
    sizes = {symbol: 7 + place for place, symbol in enumerate(sorted(symbols, key=str))}
    given = [torch.randn([evaluate(size, sizes) for size in value.sizes]) for value in joint.inputs]
    found, wanted = joint.function()(*given), joint(*given)
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_nested_values_views_running_statistics_autocast_and_no_grad() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.inner = nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3))

        def forward(self, given: dict[str, Tensor], *, scale: float = 2.0) -> dict[str, Any]:
            x = self.norm(given["x"])
            with torch.no_grad():
                x = x * scale
            with torch.autocast("cpu", torch.bfloat16):
                y = self.inner(x)
            y[:, 0].mul_(2)
            first, *rest = y.split(1, -1)
            return {"first": first, "rest": rest, "top": torch.topk(x, 2), "slice": y[1:, ::2]}

    model = Mixed()
    given = {"x": torch.randn(4, 3)}
    function = trace(model, given, scale=3.0).function()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = function(given)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(before)
    wanted = model(given, scale=3.0)
    torch.testing.assert_close(after, model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_forward_and_reverse_circuits_compile_into_one_graph() -> None:
    x = torch.randn(4, 6)
    halves = forward_backward(lambda x: F.gelu(x).softmax(-1), x)
    forward, reverse = halves.forward.function(), halves.reverse.function()

    def both(x: Tensor, dy: Tensor) -> dict[str, Tensor]:
        return reverse(forward(x)[1], dy)

    found = torch.compile(both, fullgraph=True, backend="aot_eager")(x, torch.ones(4, 6))
    torch.testing.assert_close(found, both(x, torch.ones(4, 6)))


@pytest.mark.parametrize(
    "names",
    ["v1, v0", "t0, t1", "global4, v0", "global3, v1", "n0, v0", "_v0, v0", "torch, input_0", "input_1, max", "µ, v0"],
)
def test_arguments_with_the_names_that_the_code_uses_for_its_own_variables(names: str) -> None:
    def difference(first: Any, second: Tensor) -> Tensor:
        return (first[0] - 2 * second) * first[0].shape[0]

    source = f"lambda {names}: difference({names})"
    apart = eval(source, {"difference": difference})
    x, y = torch.rand(3), torch.rand(3)
    function = trace(apart, [x], y).function()
    assert torch.equal(function([x], y), difference([x], y))
    assert torch.equal(function([y], x), difference([y], x))


def test_arguments_named_like_the_sizes_of_the_code() -> None:
    @circuit("b (h k), h -> b k")
    def mixed(n0: Tensor, n1: Tensor) -> Tensor:
        return einsum(rearrange(n0, "b (h k) -> b h k", h=n1.shape[0]), n1, "b h k, h -> b k") * n0.shape[-1]

    x, weight = torch.randn(6, 12), torch.randn(3)
    assert torch.equal(trace(mixed).function()(x, weight), mixed(x, weight))


def test_two_arguments_never_become_one_parameter() -> None:
    x, y = torch.rand(3), torch.rand(3)
    function = trace(lambda **given: given["torch"] - given["input_1"], input_1=x, torch=y).function()
    assert torch.equal(function(x, y), y - x)
