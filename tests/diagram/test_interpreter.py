# For pyright a submodule (`model[1]`) or a buffer is a Tensor or a Module.
# pyright: reportCallIssue=false, reportIndexIssue=false
"""Running diagrams: at other sizes and with other parameters, and the errors for inputs that are refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, backward, circuit, einsum, rearrange, trace, track
from circuits.diagram.formulas import evaluate


@circuit("... y k, ... x k, ... x k -> ... y k")
def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    score = einsum(query, key, "... y k, ... x k -> ... y x") * query.shape[-1] ** -0.5
    return einsum(score.softmax(-1), value, "... y x, ... x k -> ... y k")


def convolutions() -> nn.Module:
    down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    return nn.Sequential(
        down, nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.ConvTranspose2d(8, 4, 2, 2)
    )


class Settings(nn.Module):
    """An optional tensor and a keyword argument."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor, y: Tensor | None = None, *, scale: float = 2.0) -> Tensor:
        return self.layer(x) * scale if y is None else self.layer(x) + y


def equal(diagram: Callable[..., Any], plain: Callable[..., Any], *args: Tensor) -> None:
    """Assert that two functions, run with the same seed, return equal outputs and have close gradients."""
    results = []
    for run in (diagram, plain):
        torch.manual_seed(3)
        inputs = [arg.clone().requires_grad_() if arg.is_floating_point() else arg for arg in args]
        out = run(*inputs)
        out = out[0] if isinstance(out, tuple) else out
        weights = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).cos()
        gradients = torch.autograd.grad((out * weights).sum(), [each for each in inputs if each.requires_grad])
        results.append((out, gradients))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


# Other sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize(("y", "x", "k"), [(2, 3, 4), (7, 2, 16), (5, 5, 5), (20, 22, 3)])
def test_attention_at_new_sizes(y: int, x: int, k: int) -> None:
    equal(trace(attend), attend.circuit.definition, torch.randn(y, k), torch.randn(x, k), torch.randn(x, k))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (5, 3, 16, 6), (3, 3, 2, 4)])
def test_convolutions_at_new_sizes(shape: tuple[int, ...]) -> None:
    model = convolutions()
    diagram = trace(model, axes="b 3 h w", sizes=None)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(shape)
    equal(diagram, model, x)
    assert int(model[1].num_batches_tracked) == int(state["1.num_batches_tracked"]) + 2


@pytest.mark.parametrize("length", [2, pytest.param(5, marks=pytest.mark.slow), 9])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True),
        lambda: nn.GRU(8, 6, 2, batch_first=True, bidirectional=True),
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    ],
    ids=["lstm", "gru", "transformer"],
)
def test_sequences_at_new_lengths(make: Callable[[], nn.Module], length: int) -> None:
    model = make()
    diagram = trace(model, axes="3 n 8")
    assert diagram.fixed == ()
    equal(diagram, model, torch.randn(3, length, 8))


def in_place_and_indices(x: Tensor) -> Tensor:
    y = x.clone()
    y[1:] += x[:-1]
    y[:, 0] = 0
    halves = y.view(-1).chunk(2)
    places = torch.arange(x.shape[0]).flip(0)
    late = torch.arange(x.shape[1]) > x.shape[1] // 2
    mixed = torch.where(late, y[places], y) + torch.full((x.shape[0], 1), math.pi)
    return mixed.masked_fill(~late, 0.5) * halves[0].sum() + torch.rand(x.shape[0], 1)


@pytest.mark.parametrize("shape", [(2, 4), (6, 3), (3, 10)])
def test_in_place_changes_and_indices_at_new_sizes(shape: tuple[int, int]) -> None:
    equal(trace(in_place_and_indices, axes="b k"), in_place_and_indices, torch.randn(shape))


def ceilings(x: Tensor) -> Tensor:
    half = -(-x.shape[0] // 2)
    return x[:half].sum() * (x.shape[0] / x.numel()) + x.shape[0] ** 0.5 + x.new_ones(half, x.shape[1] * 2).sum() / 3


@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (7, 7)])
def test_arithmetic_on_sizes_is_that_of_python(shape: tuple[int, int]) -> None:
    diagram, x = trace(ceilings, axes="b k"), torch.rand(shape)
    assert diagram.fixed == ()
    assert torch.equal(diagram(x), ceilings(x))


# Inputs that are refused ---------------------------------------------------------------------------------------------


def large_or_small(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] > 10 else x.flip(0)


def test_sizes_that_would_take_another_branch_are_refused() -> None:
    diagram = trace(large_or_small, axes="b 8")
    assert torch.equal(diagram(torch.ones(30, 8)), torch.full((30, 8), 2.0))
    for rows in (1, 3, 10):
        with pytest.raises(ShapeError, match=rf"got b = {rows}\."):
            diagram(torch.ones(rows, 8))


REFUSED: dict[str, Callable[[], Any]] = {
    "guard": lambda: trace(large_or_small, axes="b 8")(torch.ones(3, 8)),
    "number": lambda: trace(large_or_small, axes="b 8")(torch.ones(30, 7)),
    "axes": lambda: trace(large_or_small, axes="b 8")(torch.ones(30, 8, 1)),
    "two_sizes": lambda: trace(attend)(torch.ones(2, 4), torch.ones(3, 4), torch.ones(2, 4)),
    "multiple": lambda: trace(nn.MaxPool2d(2), axes="c 2*h 2*w")(torch.ones(1, 5, 4)),
    "no_tensor": lambda: trace(nn.Linear(8, 8), axes="b 8")(3),
    "another_constant": lambda: trace(Settings(), axes="b 8")(torch.ones(3, 8), scale=3.0),
    "a_tensor_for_none": lambda: trace(Settings(), axes="b 8")(torch.ones(3, 8), torch.ones(3, 8)),
    "unknown_parameter": lambda: trace(nn.Linear(8, 8), axes="b 8").run(
        (torch.ones(3, 8),), {}, {"wait": torch.ones(1)}
    ),
    "a_list_for_a_dict": lambda: trace(lambda d: d["x"], {"x": torch.ones(2), "y": torch.ones(2)})([torch.ones(2)]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_for_refused_inputs(name: str, golden: Any) -> None:
    with pytest.raises(CircuitError) as caught:
        REFUSED[name]()
    golden(f"diagram/run_{name}.txt", f"{caught.value}\n")


def test_a_failed_run_cannot_be_run_again() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(4, 4))
    with track(model, to=None) as seen, pytest.raises(RuntimeError):
        model(torch.ones(3, 8))
    with pytest.raises(CircuitError, match="failed"):
        seen.diagram(torch.ones(3, 8))


# How it is called ----------------------------------------------------------------------------------------------------


def test_a_diagram_is_called_like_the_original() -> None:
    model, x = Settings(), torch.randn(3, 8)
    diagram = trace(model, x)
    for output in (diagram(x), diagram(x=x), diagram(x, None), diagram(x, scale=2.0), diagram(y=None, x=x)):
        assert torch.equal(output, model(x))
    with pytest.raises(TypeError, match="missing"):
        diagram()
    with pytest.raises(TypeError, match="unexpected"):
        diagram(x, other=x)


def test_mappings_may_have_any_order() -> None:
    diagram = trace(lambda state, **more: state["a"] - state["b"] * more["c"] + more["d"],
                    {"a": torch.ones(2), "b": torch.ones(2)}, c=torch.ones(2), d=torch.ones(2))  # fmt: skip
    a, b, c, d = torch.randn(4, 2)
    assert torch.equal(diagram({"b": b, "a": a}, d=d, c=c), a - b * c + d)


def test_parameters_can_be_replaced_by_name() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval(), torch.randn(3, 8)
    other = {name: torch.rand_like(value) for name, value in model.named_parameters()}
    other["1.running_mean"] = torch.randn(8)
    diagram = trace(model, x)
    weight = other["0.weight"].requires_grad_()
    output, expected = diagram.run((x,), {}, other), torch.func.functional_call(model, other, (x,))
    assert torch.equal(output, expected)
    torch.testing.assert_close(*[torch.autograd.grad(each.square().sum(), weight)[0] for each in (output, expected)])


def test_a_diagram_reads_the_current_parameters() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8)), torch.randn(3, 8)
    diagram = trace(model, x)
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(diagram(x), model(x))
    model[0] = nn.Linear(8, 8)
    assert torch.equal(diagram(x), model(x))


def test_autocast_and_no_grad_are_recorded_and_applied_again() -> None:
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = x @ x.mT
        with torch.no_grad():
            quiet = x.cos()
        return half, quiet * x

    x = torch.randn(3, 3, requires_grad=True)
    half, mixed = trace(run, torch.ones(3, 3))(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(torch.autograd.grad(mixed.sum(), x)[0], x.detach().cos())


# Sizes and names -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_evaluate_computes_as_python_does(a: int, b: int) -> None:
    h, w = sympy.symbols("h w", integer=True, positive=True)
    given_sizes = {h: a, w: b}
    assert evaluate(h * w + 2 * h - w, given_sizes) == a * b + 2 * a - b
    assert evaluate(sympy.Ge(h, w), given_sizes) is (a >= b)
    assert type(evaluate(h / 2, {h: 2 * a})) is int


def test_modules_of_one_class_in_a_function_have_different_names() -> None:
    """Neither is a submodule of another module, so they are named by class and order."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    x = torch.rand(2, 4)
    diagram = trace(lambda x: second(first(x)), x)
    assert torch.equal(diagram(x), second(first(x)))
    assert diagram.box.parameter_count == 40
    assert [value.name for value in diagram.parameters] == [
        "Linear.weight",
        "Linear.bias",
        "Linear2.weight",
        "Linear2.bias",
    ]
    bias = torch.ones(4)
    expected = torch.nn.functional.linear(first(x), second.weight, bias)
    assert torch.equal(diagram.run((x,), {}, {"Linear2.bias": bias}), expected)


@pytest.mark.parametrize("sizes", [(2, 3, 4), (5, 2, 7)])
def test_an_axis_of_a_group_is_computed_from_the_others(sizes: tuple[int, int, int]) -> None:
    """No input has an axis k of its own: its size is that of (h k) divided by h."""

    @circuit("b (h k), h -> b k")
    def weighed(x: Tensor, weight: Tensor) -> Tensor:
        return einsum(rearrange(x, "b (h k) -> b h k", h=weight.shape[0]), weight, "b h k, h -> b k")

    b, h, k = sizes
    diagram = trace(weighed)
    equal(diagram, weighed, torch.randn(b, h * k), torch.randn(h))
    with pytest.raises(ShapeError, match=r"h\*k is \d+ in x \[b h\*k\], so k is not an integer"):
        diagram(torch.randn(b, h * k + 1), torch.randn(h))


def fit(x: Tensor) -> Tensor:
    """x with its second axis cut or padded to 32."""
    x = x[:, :32]
    return F.pad(x, (0, 32 - x.shape[1])) if x.shape[1] < 32 else x


@pytest.mark.parametrize(
    ("run", "guard"),
    [
        (fit, "n >= 32"),
        (lambda x: x[:, :20].sum(1) / x[:, :20].shape[1], "n >= 20"),
        (lambda x: x[:, -5:].sum(1) / x[:, -5:].shape[1], "n >= 5"),
        (lambda x: x[:, 2:30:4] * x[:, 2:30:4].shape[1], "n >= 30"),
        (lambda x: x[:, x.shape[1] // 2 : 10].sum(1), "n >= 10"),
        (lambda x: x + torch.zeros(20, 4)[: x.shape[1]].sum(), "n > 20"),
        (lambda x: x[:, 1:].squeeze(1), "Ne(n - 1, 1)"),
    ],
    ids=["fit", "first", "last", "step", "from the middle", "of a constant", "squeeze"],
)
def test_a_size_of_a_slice_is_guarded(run: Callable[[Tensor], Tensor], guard: str) -> None:
    """At every size the diagram computes what the function computes, or refuses the size."""
    diagram, refused = trace(run, axes="b n"), 0
    assert guard in [str(each) for each in diagram.guards]
    for n in range(2, 41):
        x = torch.rand(2, n)
        try:
            found = diagram(x)
        except ShapeError:
            refused += 1
            continue
        assert torch.equal(found, run(x))
    assert 0 < refused < 39


def test_the_gradient_of_a_slice_is_guarded() -> None:
    gradient = backward(lambda x: x[:10].std(0), axes="a 3")
    x = torch.rand(12, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(x[:10].std(0).sum(), x)
    found = gradient(x.detach(), torch.ones(3))
    torch.testing.assert_close(found["x"], expected)
    with pytest.raises(ShapeError, match=r"recorded for sizes with a >= 10, got a = 5"):
        gradient(torch.rand(5, 3), torch.ones(3))


def test_convolutions_and_broadcasting_have_no_guards_of_slices() -> None:
    assert [str(guard) for guard in trace(lambda x: x[:, 1:] - x[:, :-1], axes="b n").guards] == ["b >= 2", "n >= 2"]
    assert len(trace(lambda x: F.conv1d(x, torch.ones(3, 3, 4)), axes="b 3 n").guards) == 2
