"""The custom backward circuits of `models.by_hand` on random inputs, compared with autograd and the rules."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, SignatureError, backward, circuit, einsum, laws, reduce
from circuits.printing import listing
from models import ConvAttention, by_hand

CIRCUITS: dict[str, list[tuple[int, ...]]] = {
    "matmul": [(2, 3), (3, 5)],
    "add_bias": [(4, 6, 3), (6,)],
    "linear": [(7, 5), (3, 5), (3,)],
    "total": [(2, 3, 4)],
    "correlated": [(5, 6), (2, 3)],
    "shared": [(5, 2), (4, 2), (4, 3)],
    "network": [(6, 5), (3, 2), (4, 3), (4, 3), (4, 2), (2, 8), (2,), (2,)],
}
SIGNALS = ("full", "valid", "same")


def rand(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=torch.float64)


def agree(name: str, inputs: list[Tensor]) -> None:
    """Assert that the custom gradient, called directly and by `backward`, equals that of autograd."""
    circuit, gradient = getattr(by_hand, name), getattr(by_hand, f"{name}_gradient")
    cotangent = torch.randn_like(circuit(*inputs))
    expected = torch.func.vjp(circuit, *inputs)[1](cotangent)
    found = gradient(*inputs, cotangent)
    found = found if isinstance(found, tuple) else (found,)
    diagram = backward(circuit, *inputs)
    (reverse,) = diagram.boxes[1:]
    assert reverse.label == f"∂{name}"
    for mine, its, other in zip(found, diagram(*inputs, cotangent).values(), expected, strict=True):
        torch.testing.assert_close(mine, other)
        torch.testing.assert_close(its, other)


@pytest.mark.every(4)
@pytest.mark.parametrize("name", CIRCUITS)
@pytest.mark.parametrize("case", range(3))
def test_rectangles(name: str, case: int) -> None:
    torch.manual_seed(case)
    agree(name, [rand(*sizes) for sizes in CIRCUITS[name]])


@pytest.mark.parametrize("name", CIRCUITS)
def test_sizes_of_one(name: str) -> None:
    agree(name, [rand(*[1] * len(sizes)) for sizes in CIRCUITS[name]])


@pytest.mark.every(3)
@pytest.mark.parametrize("name", SIGNALS)
@settings(max_examples=12)
@given(a=st.integers(1, 7), b=st.integers(1, 7))
def test_signals_of_every_length(name: str, a: int, b: int) -> None:
    agree(name, [rand(a), rand(b)])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("matmul", lambda x, y, dz: (dz @ y.T, (dz.T @ x).T * 2)),
        ("shared", lambda q, k, v, dout: (*by_hand.shared_gradient(q, k, v, dout)[:2], by_hand._shares(q, k) @ dout)),
        ("same", lambda a, b, dc: (by_hand.same_convolution(dc, b.flip(-1)), by_hand.same_gradient(a, b, dc)[1])),
    ],
)
def test_formulas_of_the_examples_are_wrong_in_general(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong factor, P dO instead of PᵀdO, and the same convolution for a kernel of even length: each is detected."""
    body = getattr(by_hand, name).circuit.body
    monkeypatch.setattr(body, "backward", wrong)
    sizes = {"matmul": [(2, 3), (3, 5)], "shared": [(4, 2), (4, 2), (4, 3)], "same": [(5,), (2,)]}[name]
    with pytest.raises(AssertionError):
        agree(name, [rand(*each) for each in sizes])


def test_too_few_cotangents_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand.matmul.circuit.body, "backward", lambda x, y, dz: dz)
    with pytest.raises(CircuitError, match=r"the backward circuit of matmul must return .* expected 2, got 1"):
        backward(by_hand.matmul, rand(2, 3), rand(3, 2))


def test_the_network_is_the_module() -> None:
    model = ConvAttention(6, 5, 3, 2, 3, 2, 2, dtype=torch.float64)
    image, right = rand(6, 5), rand(2)
    state = {name: value.detach() for name, value in model.named_parameters()}
    projections = [state[f"{name}.weight"].T for name in ("Lq", "Lk", "Lv")]
    inputs: Any = (image, state["C.weight"][0, 0], *projections, state["L.weight"], state["L.bias"], right)
    torch.testing.assert_close(by_hand.network(*inputs), model(image, right))
    one: Any = torch.ones((), dtype=torch.float64)
    gradient: Any = by_hand.network_gradient
    found = gradient(*inputs, one)
    rules = backward(model, image, right)(image, right, one)
    torch.testing.assert_close(found[0], rules["image"])
    torch.testing.assert_close(found[1], rules["C.weight"][0, 0])
    for mine, name in zip(found[2:5], ("Lq", "Lk", "Lv"), strict=True):
        torch.testing.assert_close(mine.T, rules[f"{name}.weight"])
    for mine, name in zip(found[5:], ("L.weight", "L.bias", "right"), strict=True):
        torch.testing.assert_close(mine, rules[name])


SIZES: dict[str, dict[str, int]] = {
    "correlated": {"i": 7, "j": 5, "p": 3, "q": 2},
    "network": {"i": 7, "j": 5, "p": 3, "q": 2, "m": 4, "y": 5},
}


@pytest.mark.every(5)
@pytest.mark.parametrize("name", [*CIRCUITS, *SIGNALS])
def test_the_law_holds_of_each(name: str) -> None:
    """First and second derivatives, on inputs made from the signatures."""
    options: Any = {"sizes": SIZES[name]} if name in SIZES else {}
    laws.backward_rule(getattr(by_hand, name), **options)


# Methods of modules ---------------------------------------------------------------------------------------------------


class Affine(nn.Module):
    """A linear map with a bias; its backward circuit gives the cotangents of both."""

    def __init__(self, m: int, n: int) -> None:
        super().__init__()
        self.m, self.n = m, n
        self.weight = nn.Parameter(torch.randn(n, m, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(n, dtype=torch.float64))

    @circuit("... m -> ... n", fixed="m n")
    def forward(self, x: Tensor) -> Tensor:
        return einsum(x, self.weight, "... m, n m -> ... n") + self.bias

    @forward.backward  # type: ignore[attr-defined]
    @circuit("... m, ... n -> ... m, n m, n")
    def gradient(self, x: Tensor, dy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        dweight, dbias = einsum(dy, x, "... n, ... m -> n m"), reduce(dy, "... n -> n", "sum")
        return einsum(dy, self.weight, "... n, n m -> ... m"), {"weight": dweight, "bias": dbias}


class Gated(nn.Module):
    """Two linear maps, a buffer that only the reverse pass reads, an optional tensor, a factor, another method."""

    scale: Tensor
    inverse: Tensor

    def __init__(self, m: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(m, m, bias=False).double(), nn.Linear(m, m, bias=False).double()
        self.register_buffer("scale", torch.tensor(0.5, dtype=torch.float64))
        self.register_buffer("inverse", torch.tensor(2.0, dtype=torch.float64))

    @circuit("... m -> ... m", optional={"more": "... m"})
    def forward(self, x: Tensor, factor: float = 3.0, *, more: Tensor | None = None) -> Tensor:
        found = self.second(self.first(x)) * self.scale * factor
        return found if more is None else found + more

    @forward.backward  # type: ignore[attr-defined]
    def _(self, x: Tensor, factor: float, dy: Tensor, *, more: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        dsecond = dy * factor / self.inverse
        dfirst = dsecond @ self.second.weight
        given = {
            "second.weight": einsum(dsecond, self.first(x), "... n, ... m -> n m"),
            "first.weight": einsum(dfirst, x, "... n, ... m -> n m"),
            "more": dy,
        }
        return dfirst @ self.first.weight, given

    @circuit("... m -> ... m")
    def one(self, x: Tensor) -> Tensor:
        return self.first(x)

    @one.backward  # type: ignore[attr-defined]
    def _(self, x: Tensor, dy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return dy @ self.first.weight, {"first.weight": einsum(dy, x, "... n, ... m -> n m")}


class Twice(nn.Module):
    """One method used twice, and the whole module once."""

    def __init__(self, m: int) -> None:
        super().__init__()
        self.gated = Gated(m)

    def forward(self, x: Tensor) -> Tensor:
        return self.gated(self.gated.one(self.gated.one(x)).tanh())


def affine_twice() -> nn.Module:
    affine = Affine(3, 3)
    return nn.Sequential(affine, nn.Tanh(), Affine(3, 3), affine)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "one": lambda: Affine(3, 5),
    "nested": lambda: nn.Sequential(Affine(3, 4), nn.Tanh(), nn.Sequential(nn.ReLU(), Affine(4, 2))),
    "used twice": affine_twice,
    "modules inside": lambda: Gated(3),
    "two in a row": lambda: nn.Sequential(Gated(3), nn.Sigmoid(), Gated(3)),
    "another method": lambda: Twice(3),
}


def by_autograd(f: Any, inputs: dict[str, Tensor], parameters: dict[str, Any], back: Tensor) -> dict[str, Tensor]:
    """Return the cotangents of inputs and parameters by name, from autograd."""
    leaves = {name: each.clone().requires_grad_() for name, each in inputs.items()}
    x, *_ = leaves.values()
    found = f(x, **{name: each for name, each in leaves.items() if each is not x})
    return dict(
        zip(
            [*leaves, *parameters],
            torch.autograd.grad(found, [*leaves.values(), *parameters.values()], back),
            strict=True,
        )
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_method_returns_the_cotangents_of_its_modules_parameters(name: str) -> None:
    model = MODULES[name]()
    x = rand(2, 4, 3)
    back = torch.randn_like(model(x))
    diagram = backward(model, x)
    (first, *_) = diagram.inputs
    found, expected = diagram(x, back), by_autograd(model, {first.name: x}, dict(model.named_parameters()), back)
    torch.testing.assert_close(found, expected)
    assert not diagram.opaque
    reverses = {box.label for box in diagram.walk()}
    assert reverses & {"∂Affine", "∂Gated"}


@pytest.mark.every(6)
@pytest.mark.parametrize(
    ("f", "options"),
    [
        (Affine(3, 5), {}),
        (circuit("... 3 -> ... 3")(affine_twice()), {}),
        (circuit("... 3 -> ... 3")(nn.Sequential(Gated(3), nn.Sigmoid(), Gated(3))), {}),
        (circuit("... 3 -> ... 3")(Twice(3)), {}),
        (Gated(3), {"factor": 2.0, "sizes": {"m": 3}}),
        (Gated(3).one, {"sizes": {"m": 3}}),
    ],
    ids=["one", "used twice", "two in a row", "another method", "optional", "a method alone"],
)
def test_the_law_holds_of_modules(f: Any, options: Any) -> None:
    laws.backward_rule(f, **options)


def test_optional_tensors_and_numbers_are_passed_to_the_backward_circuit() -> None:
    model, x, more, back = Gated(3), rand(4, 3), rand(4, 3), rand(4, 3)
    expected = by_autograd(
        lambda x, more: model(x, 2.0, more=more), {"x": x, "more": more}, dict(model.named_parameters()), back
    )
    found = backward(model, x, factor=2.0, more=more)(x, more, back)
    torch.testing.assert_close(found, expected)


def test_a_backward_circuit_uses_parameters_by_qualified_name() -> None:
    text = listing(backward(nn.Sequential(Affine(3, 2), nn.Tanh()), rand(4, 3)), inside="inline")
    lines = [line.strip().partition(" = ")[2] for line in text.splitlines()]
    assert "einsum f 0.weight '... n, n m -> ... m'" in lines
    assert "einsum f input '... n, ... m -> n m'" in lines
    assert "reduce f '... n -> n' 'sum'" in lines


def forgetful(model: Any, x: Tensor, dy: Tensor) -> Any:
    return dy @ model.weight, {"weight": einsum(dy, x, "... n, ... m -> n m")}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (forgetful, "the backward circuit of Affine returns no cotangent of 1.bias, which the definition reads"),
        (lambda model, x, dy: dy @ model.weight, "returns no cotangent of 1.weight, 1.bias, which"),
        (
            lambda model, x, dy: (dy @ model.weight, {"wait": dy}),
            "a cotangent of wait; tensors that may have one by name: weight, bias",
        ),
        (lambda model, x, dy: (dy, dy, {}), "one cotangent for each tensor of the signature: expected 1, got 2"),
        (lambda model, x, dy: {"bias": dy}, "one cotangent for each tensor of the signature: expected 1, got 0"),
        (
            lambda model, x, dy: (dy @ model.weight, {"weight": None, "bias": dy}),
            r"a cotangent of shape (4, 2) for a tensor",
        ),
    ],
)
def test_wrong_results_of_the_backward_circuit_of_a_module_are_refused(
    wrong: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Affine.forward.circuit.body, "backward", wrong)  # type: ignore[attr-defined]
    with pytest.raises(CircuitError, match=re.escape(message)):
        backward(nn.Sequential(nn.Tanh(), Affine(3, 2)), rand(4, 3))


def test_none_says_that_a_parameter_has_no_cotangent(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(model: Any, x: Tensor, dy: Tensor) -> Any:
        return None, {"weight": None, "bias": dy.sum(0)}

    monkeypatch.setattr(Affine.forward.circuit.body, "backward", given)  # type: ignore[attr-defined]
    found = backward(Affine(3, 2), rand(4, 3))(rand(4, 3), torch.ones(4, 2).double())
    assert [each.abs().sum() for each in found.values()] == [0, 0, 8]


@pytest.mark.slow
def test_a_tensor_from_a_closure_is_refused() -> None:
    """A tensor that a function reads from its closure would silently get no gradient."""

    def f(x: Tensor, weight: Tensor) -> Tensor:
        @circuit("k -> k")
        def scaled(x: Tensor) -> Tensor:
            return x * weight

        @scaled.backward
        def _(x: Tensor, dy: Tensor) -> Tensor:
            return dy * weight

        return scaled(x)

    with pytest.raises(CircuitError, match="the backward circuit of scaled returns no cotangent of weight"):
        backward(f, rand(3), rand(3))


# How it is called -----------------------------------------------------------------------------------------------------


@circuit("k, k -> k")
def weighed(x: Tensor, weight: Tensor) -> Tensor:
    """A circuit whose custom cotangents are twice those of autograd, so that a test can tell which were used."""
    return x * weight


@weighed.backward
def _(x: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * dy * weight, 2 * dy * x


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: weighed(x, w),
        lambda x, w: weighed(weight=w, x=x),
        lambda x, w: weighed(x, weight=w),
    ],
)
def test_arguments_by_name_and_by_position_are_the_same(f: Any) -> None:
    x, w, back = rand(3), rand(3), rand(3)
    found = backward(f, x, w)(x, w, back)
    torch.testing.assert_close(found, {"x": 2 * back * w, "w": 2 * back * x})


def test_without_gradients_it_has_no_cotangent() -> None:
    def f(x: Tensor) -> Tensor:
        with torch.no_grad():
            weight = weighed(x, x)
        return x * weight

    x, back = rand(3), rand(3)
    torch.testing.assert_close(backward(f, x)(x, back)["x"], back * x * x)


def test_an_input_modified_in_place_later_has_its_earlier_value() -> None:
    def f(x: Tensor) -> Tensor:
        mine = x + 0
        found = weighed(mine, x)
        mine.mul_(3)
        return found

    x, back = rand(3), rand(3)
    torch.testing.assert_close(backward(f, x)(x, back)["x"], 4 * back * x)


def test_a_circuit_that_maps_over_an_axis_has_its_reverse_too() -> None:
    @circuit("b k, k -> b")
    def dots(x: Tensor, y: Tensor) -> Tensor:
        return torch.vmap(lambda row: row @ y)(x)

    @dots.backward
    def _(x: Tensor, y: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * einsum(dz, y, "b, k -> b k"), 2 * einsum(dz, x, "b, b k -> k")

    x, y, dz = rand(4, 3), rand(3), rand(4)
    diagram = backward(lambda x, y: dots(x, y) * 1.0, x, y)
    assert not diagram.opaque
    torch.testing.assert_close(diagram(x, y, dz), {"x": 2 * torch.outer(dz, y), "y": 2 * dz @ x})


class Plain:
    """A class that is not a module, with a number as attribute."""

    factor = 3.0

    @circuit("k -> k")
    def times(self, x: Tensor) -> Tensor:
        return x * self.factor

    @times.backward
    def _(self, x: Tensor, dy: Tensor) -> Tensor:
        return 2 * dy * self.factor


def test_a_method_of_another_class_is_called_with_self() -> None:
    x, back = rand(3), rand(3)
    torch.testing.assert_close(backward(Plain().times, x)(x, back)["x"], 6 * back)


def test_a_backward_circuit_with_other_arguments_is_refused_at_once() -> None:
    with pytest.raises(SignatureError, match=r"a backward circuit of weighed takes \(x, weight\) and the cotangents"):
        weighed.backward(lambda x, dy: dy)
