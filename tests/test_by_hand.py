"""Backward circuits written by hand, on random rectangular inputs: against autograd, and against the rules."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circuits import CircuitError, backward
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
    """The gradient by hand, called and found by `backward`, is autograd's."""
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


@pytest.mark.parametrize("name", CIRCUITS)
@pytest.mark.parametrize("case", range(5))
def test_rectangles(name: str, case: int) -> None:
    torch.manual_seed(case)
    agree(name, [rand(*sizes) for sizes in CIRCUITS[name]])


@pytest.mark.parametrize("name", CIRCUITS)
def test_sizes_of_one(name: str) -> None:
    agree(name, [rand(*[1] * len(sizes)) for sizes in CIRCUITS[name]])


@pytest.mark.parametrize("name", SIGNALS)
@settings(max_examples=12)
@given(a=st.integers(1, 7), b=st.integers(1, 7))
def test_signals_of_every_length(name: str, a: int, b: int) -> None:
    agree(name, [rand(a), rand(b)])


@pytest.mark.parametrize("name", [*CIRCUITS, *SIGNALS])
def test_they_can_be_differentiated_again(name: str) -> None:
    circuit: Any = getattr(by_hand, name)
    inputs = [rand(*sizes) for sizes in CIRCUITS.get(name, [(5,), (2,)])]
    first = backward(circuit, *inputs)
    inputs.append(torch.randn_like(circuit(*inputs)))
    outputs = first(*inputs)
    cotangents = [torch.randn_like(each) for each in outputs.values()]
    expected = torch.func.vjp(lambda *given: tuple(first(*given).values()), *inputs)[1](tuple(cotangents))
    found = backward(first)(*inputs, *cotangents)
    for mine, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("matmul", lambda x, y, dz: (dz @ y.T, (dz.T @ x).T * 2)),
        ("shared", lambda q, k, v, dout: (*by_hand.shared_gradient(q, k, v, dout)[:2], by_hand._shares(q, k) @ dout)),
        ("same", lambda a, b, dc: (by_hand.same_convolution(dc, b.flip(-1)), by_hand.same_gradient(a, b, dc)[1])),
    ],
)
def test_what_the_documents_do_holds_for_their_numbers_alone(
    name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P dO for PᵀdO, the same convolution for a kernel of even length, a factor: each is seen."""
    body = getattr(by_hand, name).circuit.body
    monkeypatch.setattr(body, "backward", wrong)
    sizes = {"matmul": [(2, 3), (3, 5)], "shared": [(4, 2), (4, 2), (4, 3)], "same": [(5,), (2,)]}[name]
    with pytest.raises(AssertionError):
        agree(name, [rand(*each) for each in sizes])


def test_a_gradient_of_too_few_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand.matmul.circuit.body, "backward", lambda x, y, dz: dz)
    with pytest.raises(CircuitError, match="the backward circuit of matmul gives 1"):
        backward(by_hand.matmul, rand(2, 3), rand(3, 2))


def test_the_network_is_the_module() -> None:
    model = ConvAttention(6, 5, 3, 2, 3, 2, 2, dtype=torch.float64)
    image, right = rand(6, 5), rand(2)
    state = {name: value.detach() for name, value in model.named_parameters()}
    looked = [state[f"{name}.weight"].T for name in ("Lq", "Lk", "Lv")]
    inputs: Any = (image, state["C.weight"][0, 0], *looked, state["L.weight"], state["L.bias"], right)
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
