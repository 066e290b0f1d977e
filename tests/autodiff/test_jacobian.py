"""Jacobians as linear maps, against torch.func, numbers of the reference documents, and laws of linear maps."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, LinearMap, broadcast, circuit, definitions, einsum, trace
from circuits.autodiff import jacobian
from models import MLP, ConvAttention, MultiHeadAttention
from models.attention import attention
from models.signals import full_convolution

DOUBLE = torch.float64


def rand(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=DOUBLE)


# --- Examples of the reference documents ------------------------------------------------------------------------------


def test_the_jacobian_of_softmax_over_the_first_axis_is_that_of_the_documents() -> None:
    scores = torch.tensor([[4.0, -4.0], [4.0, -4.0]], dtype=DOUBLE)
    found = jacobian(lambda scores: scores.softmax(0), scores, axes="y x")
    assert f"{found.signature}" == "y x -> y' x'"
    expected = [[0.25, 0, -0.25, 0], [0, 0.25, 0, -0.25], [-0.25, 0, 0.25, 0], [0, -0.25, 0, 0.25]]
    torch.testing.assert_close(found.tensor.reshape(4, 4), torch.tensor(expected, dtype=DOUBLE))


def of_weights(weights: Mapping[str, Tensor], e: Tensor) -> Tensor:
    """The attention of one vector to itself, by its dict of weights."""
    query, key, value = (einsum(weights[name], e, "k m, m -> k") for name in ("Wq", "Wk", "Wv"))
    score = einsum(query, key, "k, k ->") * e.shape[-1] ** -0.5
    power = score.exp()
    return einsum(power / power.sum(), value, ", k -> k")


def test_attention_of_one_vector_depends_on_the_weights_of_values_alone() -> None:
    """A softmax of one score is 1 for any score: the derivative by W_q and W_k is 0, by W_v[j, l] it is δ(i, j) e_l."""
    wq = torch.tensor([[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.1, 0.0, 1.0]], dtype=DOUBLE)
    wk = torch.tensor([[1.0, 0.0, 0.1], [0.1, 1.0, 0.0], [0.0, 0.1, 1.0]], dtype=DOUBLE)
    weights, e = {"Wq": wq, "Wk": wk, "Wv": wq}, torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)
    torch.testing.assert_close(of_weights(weights, e), torch.tensor([1.2, 2.3, 3.1], dtype=DOUBLE))
    found = jacobian(of_weights, weights, e)
    assert list(found) == ["Wq", "Wk", "Wv"]
    for name in ("Wq", "Wk"):
        assert found[name].tensor.abs().max() < 1e-12
    expected = einsum(torch.eye(3, dtype=DOUBLE), e, "j i, l -> j l i")
    torch.testing.assert_close(found["Wv"].tensor, expected)
    assert [f"{each.signature}" for each in found.values()] == ["k m -> k'"] * 3


def test_the_hessian_of_cross_entropy_after_softmax() -> None:
    """(diag p - p pᵀ) times the target's sum, also for targets that do not sum to one."""
    scores, target = rand(5), torch.rand(5, dtype=DOUBLE)

    def loss(scores: Tensor) -> Tensor:
        return -(target * scores.log_softmax(-1)).sum()

    p = scores.softmax(-1)
    found = jacobian(torch.func.grad(loss), scores)
    torch.testing.assert_close(found.tensor, (p.diag() - torch.outer(p, p)) * target.sum())
    twice = jacobian(lambda scores: jacobian(loss, scores).tensor, scores)
    torch.testing.assert_close(twice.tensor, found.tensor)


# --- Any circuit ------------------------------------------------------------------------------------------------------


def gated(weights: dict[str, dict[str, Tensor]], x: Tensor, *, bias: Tensor) -> dict[str, Any]:
    hidden = (einsum(x, weights["in"]["w"], "... m, m h -> ... h") + weights["in"]["b"]).tanh()
    return {"out": [einsum(hidden, hidden, "... h, ... h -> ...")], "hidden": hidden * bias}


GATED = ({"in": {"w": rand(3, 4), "b": rand(4)}}, rand(2, 3))
HEADS = MultiHeadAttention(m=6, k=2, h=3, dtype=DOUBLE)

CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = {
    "one number in": (lambda x: x.exp() * torch.ones(3, dtype=DOUBLE), (rand(),), {}, None),
    "one number out": (lambda x: x.square().sum(), (rand(2, 3),), {}, None),
    "wide": (lambda x: einsum(x, x, "a, b -> a b").sin(), (rand(3),), {}, None),
    "narrow": (lambda x: x.sin().mean(0), (rand(4, 3),), {}, None),
    "attention by its keys": (attention, (rand(5, 4), rand(7, 4), rand(7, 4)), {}, "key"),
    "attention in a batch": (attention, (rand(2, 3, 4), rand(2, 5, 4), rand(2, 5, 4)), {}, "query"),
    "convolution": (full_convolution, (rand(4), rand(3)), {}, "b"),
    "a module by an input": (HEADS, (rand(3, 6), rand(4, 6)), {}, "source"),
    "a kernel without forward mode": (lambda x: attention(x, x, x).repeat(9, 1), (rand(3, 2),), {}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_map_applied_is_jvp_and_its_transpose_is_vjp(name: str) -> None:
    f, inputs, kwargs, wrt = CASES[name]
    found = jacobian(f, *inputs, wrt=wrt, **kwargs)
    assert isinstance(found, LinearMap)
    place = {"key": 1, "b": 1, "source": 1}.get(wrt, 0)

    def by(x: Tensor) -> Tensor:
        return f(*inputs[:place], x, *inputs[place + 1 :], **kwargs)

    x = inputs[place]
    tangent = torch.randn_like(x)
    with definitions():
        output, expected, *_ = torch.func.jvp(by, (x,), (tangent,))
        cotangent = torch.randn_like(output)
        (back,) = torch.func.vjp(by, x)[1](cotangent)
    applied = found(tangent) if x.ndim else found.tensor * tangent
    torch.testing.assert_close(applied, expected)
    transposed = found.transpose()
    torch.testing.assert_close(transposed(cotangent) if output.ndim else transposed.tensor * cotangent, back)


@pytest.mark.parametrize("case", range(50))
def test_every_entry_equals_a_difference_quotient(case: int) -> None:
    """A circuit of degree at most 2 in each tensor, on random axes: its central differences are exact."""
    draw = random.Random(case)
    names = draw.sample("abcd", 3)
    size = {name: draw.randint(1, 3) for name in names}
    (left, right), out = (names[:2], names[1:]), draw.sample(names, draw.randint(0, 3))
    text = f"{' '.join(left)}, {' '.join(right)} -> {' '.join(out)}"
    torch.manual_seed(case)
    x, y = rand(*[size[name] for name in left]), rand(*[size[name] for name in right])

    @circuit(text)
    def square(x: Tensor, y: Tensor) -> Tensor:
        return einsum(x, y * y, text)

    found = jacobian(square, x, y, wrt=["x", "y"])
    for name, map in found.items():
        slots = {"x": x, "y": y}
        for index in torch.cartesian_prod(*[torch.arange(each) for each in slots[name].shape]).view(-1, 2).tolist():
            step = torch.zeros_like(slots[name])
            step[tuple(index)] = 0.5
            above, below = ({**slots, name: slots[name] + sign * step} for sign in (1, -1))
            torch.testing.assert_close(map.tensor[tuple(index)], square(**above) - square(**below))


@pytest.mark.smoke
def test_maps_compose_by_the_chain_rule() -> None:
    @circuit("a -> b")
    def inner(x: Tensor) -> Tensor:
        return (x @ W).sin()

    @circuit("b -> c")
    def outer(x: Tensor) -> Tensor:
        return (x @ V).cos()

    x = rand(3)
    both = jacobian(lambda x: outer(inner(x)), x, axes="a")
    chained = jacobian(inner, x) >> jacobian(outer, inner(x))
    assert f"{chained.signature}" == "a -> c"
    assert chained.allclose(both)


W, V = rand(3, 4), rand(4, 2)


def test_maps_by_parameters_are_those_of_functional_call() -> None:
    model, image, right = ConvAttention(4, 3, 2, 2, 3, 2, 2, dtype=DOUBLE), rand(4, 3), rand(2)
    names = [name for name, _ in model.named_parameters()]
    found = jacobian(model.predict, image, wrt=names)
    assert list(found) == names
    assert f"{found['L.weight'].signature}" == "n y_v -> n'"

    twin: Any = ConvAttention(4, 3, 2, 2, 3, 2, 2, dtype=DOUBLE)
    twin.forward = twin.predict

    def predicted(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(twin, weights, (image,))

    expected = torch.func.jacfwd(predicted)(dict(model.named_parameters()))
    for name in names:
        torch.testing.assert_close(found[name].tensor.movedim(-1, 0), expected[name])
    loss = jacobian(model, image, right, wrt="L")
    assert list(loss) == ["weight", "bias"]
    torch.testing.assert_close(loss["bias"].tensor, model.predict(image) - right)


def test_several_outputs_are_nested_as_they_are() -> None:
    weights, x = GATED
    found = jacobian(gated, weights, x, bias=rand(4), wrt=["weights", "bias"])
    assert list(found) == ["out", "hidden"]
    maps = found["out"][0]
    assert {name: f"{each.signature}" for name, each in maps["weights"].items()} == {
        "in.w": "m h -> a",
        "in.b": "h -> a",
    }
    assert f"{found['hidden']['bias'].signature}" == "h -> a h'"
    assert found["hidden"]["bias"].tensor.shape == (4, 2, 4)
    assert maps["bias"].tensor.count_nonzero() == 0


@pytest.mark.parametrize(("axes", "signature"), [("y m", "y m -> y' m'"), (None, "a b -> c d")])
def test_axes_names_the_inputs_of_a_function_without_a_signature(axes: str | None, signature: str) -> None:
    found = jacobian(lambda x: x.sin(), rand(2, 3), axes=axes)
    assert f"{found.signature}" == signature


def test_a_diagram_and_a_lifted_circuit_have_jacobians() -> None:
    query, key, value = rand(5, 4), rand(7, 4), rand(7, 4)
    expected = jacobian(attention, query, key, value)
    assert jacobian(trace(attention), query, key, value) == expected
    lifted = broadcast(circuit("a -> a")(lambda x: x.softmax(-1)), "b a -> b a")
    found = jacobian(lifted, rand(2, 3)).tensor
    assert found[0, :, 1].count_nonzero() == 0
    assert f"{expected.signature}" == "y k -> y' k'"


def test_the_mode_with_fewer_runs_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for name in ("jacrev", "jacfwd"):
        way = getattr(torch.func, name)
        monkeypatch.setattr(
            torch.func, name, lambda *args, name=name, way=way, **kw: taken.append(name) or way(*args, **kw)
        )
    jacobian(lambda x: x.repeat(5), rand(3))
    jacobian(lambda x: x.sum(), rand(3))
    assert taken == ["jacfwd", "jacrev"]


def test_gradients_flow_through_a_jacobian() -> None:
    x = rand(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: jacobian(lambda x: x.softmax(-1), x).tensor, [x])


def test_dropout_is_differentiated_as_one_run() -> None:
    found = jacobian(nn.Dropout(0.5), torch.ones(64), axes="m").tensor
    assert (found - found.diag().diag()).count_nonzero() == 0
    assert set(found.diag().tolist()) == {0.0, 2.0}


# --- Refused ----------------------------------------------------------------------------------------------------------


def test_tensors_without_a_derivative_are_refused() -> None:
    with pytest.raises(CircuitError, match=r"wrt: there is no floating keys; there are query, key, value$"):
        jacobian(attention, rand(2, 3), rand(4, 3), rand(4, 3), wrt="keys")
    with pytest.raises(CircuitError, match=r"there is no floating L; there are image, linear_relu_stack\.0\.weight"):
        jacobian(MLP(x=2, y=2, m=3, k=2), torch.rand(2, 2), wrt="L")
    with pytest.raises(CircuitError, match=r"returns int64; only floating tensors have derivatives"):
        jacobian(lambda x: x.argmax(), rand(3))
    with pytest.raises(CircuitError, match="no input is a floating tensor; wrt may name a parameter"):
        jacobian(nn.Embedding(3, 2), torch.tensor([1]))
    assert (
        f"{jacobian(nn.Embedding(3, 2), torch.tensor([1]), wrt='weight')}"
        == "LinearMap('a b -> c d', a=3, b=2, c=1, d=2)"
    )


def test_the_buffers_of_a_module_do_not_change() -> None:
    """A BatchNorm in training mode writes to its buffers; here it writes to copies of them."""
    norm, x = nn.BatchNorm1d(3).double(), torch.randn(4, 3, dtype=torch.float64)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    found = jacobian(norm, x)
    torch.testing.assert_close(dict(norm.named_buffers()), before)
    wanted = torch.autograd.functional.jacobian(norm, x)
    change = torch.randn_like(x)
    torch.testing.assert_close(found(change), torch.einsum("abcd,cd->ab", wanted, change), rtol=1e-9, atol=1e-12)
