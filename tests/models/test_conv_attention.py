import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from circuits import CircuitError, ShapeError, trace
from models.conv_attention import ConvAttention, shared_out, squared_error

# --- The example, as in its document ----------------------------------------------------------------------------------

X = [[1.0, 2.0, 1.0], [0.0, 3.0, 2.0], [1.0, 0.0, 1.0]]
K = [[1.0, 0.0], [0.0, -1.0]]
W_Q = [[1.0, 0.0], [-1.0, 0.0]]
W_K = [[1.0, 1.0], [1.0, 1.0]]
W_V = [[1.0, 0.0], [0.0, 1.0]]
W = [-1.0, 1.0, 0.0, 1.0]
B, Y = 2.0, 4.0

VALUES = {
    "convolution": [[-2.0, 0.0], [0.0, 2.0]],
    "query": [[-2.0, 0.0], [-2.0, 0.0]],
    "key": [[-2.0, -2.0], [2.0, 2.0]],
    "value": [[-2.0, 0.0], [0.0, 2.0]],
    "scores": [[4.0, -4.0], [4.0, -4.0]],
    "weights": [[0.5, 0.5], [0.5, 0.5]],
    "attention": [[-1.0, 1.0], [-1.0, 1.0]],
    "flat": [-1.0, 1.0, -1.0, 1.0],
    "linear": [5.0],
    "loss": 0.5,
}
GRADIENTS = {
    "kernel": [[2.5, 0.5], [6.5, -0.5]],
    "W_Q": [[2.0, 2.0], [2.0, 2.0]],
    "W_K": [[0.0, 0.0], [0.0, 0.0]],
    "W_V": [[1.0, -2.0], [-1.0, 2.0]],
    "W": [[-1.0, 1.0, -1.0, 1.0]],
    "b": [1.0],
    "scores": [[0.5, 0.0], [-0.5, 0.0]],
    "convolution": [[-1.5, 2.0], [0.5, 0.0]],
}
JACOBIAN = [[0.25, 0.0, -0.25, 0.0], [0.0, 0.25, 0.0, -0.25], [-0.25, 0.0, 0.25, 0.0], [0.0, -0.25, 0.0, 0.25]]


def exact(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def example() -> ConvAttention:
    """The model with the weights of the document."""
    model = ConvAttention(dtype=torch.float64)
    weights = {
        "C.weight": exact(K)[None, None],
        "Lq.weight": exact(W_Q).T,
        "Lk.weight": exact(W_K).T,
        "Lv.weight": exact(W_V).T,
        "L.weight": exact(W)[None],
        "L.bias": exact([B]),
    }
    model.load_state_dict(weights)
    return model


class Softmaxes(TorchFunctionMode):
    """Records the input and the output of every softmax, with their gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func is Tensor.softmax:
            args[0].retain_grad()
            self.seen.append((args[0], answer))
        return answer


def watched() -> tuple[ConvAttention, dict[str, Tensor]]:
    """The example after a forward and a reverse pass, and all intermediate values; scores `y x` as in the document."""
    model, seen = example(), {}
    boxes = {"convolution": model.C, "query": model.Lq, "key": model.Lk, "value": model.Lv, "linear": model.L}

    def note(name: str, given: Tensor, made: Tensor) -> None:
        seen[name] = made.view(2, 2) if name == "convolution" else made
        made.retain_grad()
        if name == "linear":
            seen["flat"], seen["attention"] = given, given.view(2, 2)
        if name == "convolution":
            seen["made"] = made

    for name, box in boxes.items():
        box.register_forward_hook(lambda _, given, made, name=name: note(name, given[0], made))
    with Softmaxes() as softmaxes:
        seen["loss"] = model(exact(X), exact([Y]))
    seen["loss"].backward()
    ((scores, weights),) = softmaxes.seen
    assert scores.grad is not None
    return model, {**seen, "scores": scores.T, "weights": weights.T, "dscores": scores.grad.T}


@pytest.mark.parametrize("name", VALUES)
def test_every_number_of_the_forward_pass_is_the_documents(name: str) -> None:
    torch.testing.assert_close(watched()[1][name].detach(), exact(VALUES[name]))


def test_every_gradient_is_the_documents() -> None:
    model, seen = watched()
    found = {
        "kernel": model.C.weight.grad,
        "W_Q": model.Lq.weight.grad,
        "W_K": model.Lk.weight.grad,
        "W_V": model.Lv.weight.grad,
        "W": model.L.weight.grad,
        "b": model.L.bias.grad,
        "scores": seen["dscores"],
        "convolution": seen["made"].grad,
    }
    for name, gradient in found.items():
        assert gradient is not None
        gradient = gradient.squeeze() if name in ("kernel", "convolution") else gradient
        gradient = gradient.T if name in ("W_Q", "W_K", "W_V") else gradient
        torch.testing.assert_close(gradient, exact(GRADIENTS[name]))


def test_the_jacobian_of_softmax_at_the_scores_is_the_documents() -> None:
    """The document's scores are `y x`, with softmax over axis 0; those of the module are `x y`."""
    scores = exact(VALUES["scores"])
    found: Any = torch.autograd.functional.jacobian(lambda score: score.T.softmax(-1).T, scores)
    torch.testing.assert_close(found.reshape(4, 4), exact(JACOBIAN))


# --- Any numbers and sizes, against code without torch's tensor operators ---------------------------------------------


def by_loops(weights: dict[str, list[Any]], image: list[list[float]], right: list[float]) -> tuple[list[float], float]:
    """The document's program, number by number: prediction and loss."""
    (((kernel,),), query, key, value, last, bias) = (
        weights[name] for name in ("C.weight", "Lq.weight", "Lk.weight", "Lv.weight", "L.weight", "L.bias")
    )
    p, q = len(kernel), len(kernel[0])
    y, m = len(image) - p + 1, len(image[0]) - q + 1
    seen = [
        [sum(image[a + c][b + d] * kernel[c][d] for c in range(p) for d in range(q)) for b in range(m)]
        for a in range(y)
    ]

    def projected(weight: list[list[float]]) -> list[list[float]]:
        return [[sum(row[b] * unit[b] for b in range(m)) for unit in weight] for row in seen]

    asks, keys, values = projected(query), projected(key), projected(value)
    scores = [[sum(s * t for s, t in zip(ask, one, strict=True)) for one in keys] for ask in asks]  # y x
    totals = [sum(math.exp(row[x]) for row in scores) for x in range(y)]  # softmax over axis 0
    shares = [[math.exp(row[x]) / totals[x] for x in range(y)] for row in scores]
    found = [sum(share[x] * values[x][v] for x in range(y)) for share in shares for v in range(len(value))]
    answer = [sum(w * f for w, f in zip(unit, found, strict=True)) + b for unit, b in zip(last, bias, strict=True)]
    return answer, sum((one - other) ** 2 for one, other in zip(answer, right, strict=True)) / 2


def by_hand(model: ConvAttention, image: Tensor, right: Tensor) -> dict[str, Tensor]:
    """The document's backward circuits for one example, corrected where they rely on the symmetry of its numbers."""
    kernel, (wq, wk, wv) = model.C.weight[0, 0], (each.weight.T for each in (model.Lq, model.Lk, model.Lv))
    patches = image.unfold(0, model.p, 1).unfold(1, model.q, 1)  # y m p q
    seen = (patches * kernel).sum((-1, -2))
    query, key, value = seen @ wq, seen @ wk, seen @ wv
    power = (query @ key.T).exp()
    shares = power / power.sum(0)
    found = (shares @ value).reshape(-1)
    dlinear = model.L.weight @ found + model.L.bias - right
    dfound = (model.L.weight.T @ dlinear).view(-1, model.v)
    dshares = dfound @ value.T
    dscores = shares * (dshares - (shares * dshares).sum(0))
    dquery, dkey, dvalue = dscores @ key, dscores.T @ query, shares.T @ dfound
    dseen = dquery @ wq.T + dkey @ wk.T + dvalue @ wv.T
    return {
        "C.weight": (patches * dseen[:, :, None, None]).sum((0, 1))[None, None],
        "Lq.weight": (seen.T @ dquery).T,
        "Lk.weight": (seen.T @ dkey).T,
        "Lv.weight": (seen.T @ dvalue).T,
        "L.weight": torch.outer(dlinear, found),
        "L.bias": dlinear,
    }


SIZES = [
    (3, 3, 2, 2, 2, 2, 1),
    (5, 4, 2, 3, 3, 2, 1),
    (4, 7, 3, 2, 1, 5, 3),
    (6, 5, 1, 1, 4, 3, 2),
    (3, 4, 3, 4, 2, 3, 2),
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("case", range(5))
def test_random_rectangles_number_by_number(sizes: tuple[int, ...], case: int) -> None:
    torch.manual_seed(case)
    model = ConvAttention(*sizes, dtype=torch.float64)
    image, right = exact(torch.randn(model.i, model.j).tolist()), exact(torch.randn(model.n).tolist())
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    answer, loss = by_loops(weights, image.tolist(), right.tolist())
    torch.testing.assert_close(model.predict(image), exact(answer))
    torch.testing.assert_close(model(image, right), exact(loss))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_the_backward_circuits_by_hand(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    model = ConvAttention(*sizes, dtype=dtype)
    images, rights = torch.randn(3, model.i, model.j, dtype=dtype), torch.randn(3, model.n, dtype=dtype)
    model(images, rights).sum().backward()
    with torch.no_grad():
        single = [by_hand(model, *each) for each in zip(images, rights, strict=True)]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, sum((each[name] for each in single), torch.zeros_like(parameter)))


def test_gradients_are_right() -> None:
    model = ConvAttention(4, 5, 2, 3, 2, 3, 2, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]

    def run(image: Tensor, right: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (image, right))

    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 4, 5), (2, 2))]
    assert torch.autograd.gradcheck(run, (*inputs, *model.parameters()))


def test_the_shares_of_a_value_sum_to_the_value() -> None:
    """The softmax is over the queries: the sum of their outputs is the sum of the values."""
    query, key, value = torch.randn(2, 5, 4), torch.randn(2, 7, 4), torch.randn(2, 7, 3)
    torch.testing.assert_close(shared_out(query, key, value).sum(-2), value.sum(-2))


def test_it_is_torchs_operators_with_the_softmax_along_the_other_axis() -> None:
    query, key, value = torch.randn(2, 5, 4), torch.randn(2, 7, 4), torch.randn(2, 7, 3)
    torch.testing.assert_close(shared_out(query, key, value), (query @ key.mT).softmax(-2) @ value)
    answer, right = torch.randn(2, 3), torch.randn(2, 3)
    expected = nn.functional.mse_loss(answer, right, reduction="none").sum(-1) / 2
    torch.testing.assert_close(squared_error(answer, right), expected)


# --- A module among modules -------------------------------------------------------------------------------------------


def test_the_convolution_has_the_axes_of_its_signature() -> None:
    """Every axis has a prime size of its own, on meta, where nothing is computed."""
    model = ConvAttention(13, 17, 3, 5, 7, 11, 19, device="meta")
    image = torch.empty(2, 23, 13, 17, device="meta")
    assert model.convolved(image).shape == (2, 23, 11, 13)


@pytest.mark.slow
@given(lead=st.lists(st.integers(0, 3), max_size=3))
def test_index_then_apply_is_apply_then_index(lead: list[int]) -> None:
    model = ConvAttention(4, 5, 2, 3, 2, 3, 2)
    images, rights = torch.randn(*lead, 4, 5), torch.randn(*lead, 2)
    losses = model(images, rights)
    assert losses.shape == tuple(lead)
    for image, right, loss in zip(images.reshape(-1, 4, 5), rights.reshape(-1, 2), losses.reshape(-1), strict=True):
        torch.testing.assert_close(model(image, right), loss)


def test_it_maps_over_images() -> None:
    model, images, rights = ConvAttention(4, 5, n=2), torch.randn(3, 4, 5), torch.randn(3, 2)
    torch.testing.assert_close(torch.vmap(model)(images, rights), model(images, rights))


@pytest.mark.slow
@given(sizes=st.tuples(*[st.integers(1, 5)] * 5), more=st.tuples(*[st.integers(0, 4)] * 2))
def test_parameters_are_as_many_as_the_formula_says(sizes: tuple[int, ...], more: tuple[int, int]) -> None:
    (p, q, k, v, n), (y, m) = sizes, (more[0] + 1, more[1] + 1)
    model = ConvAttention(p + more[0], q + more[1], p, q, k, v, n)
    assert sum(each.numel() for each in model.parameters()) == p * q + m * (2 * k + v) + (y * v + 1) * n


def test_the_example_has_21_parameters() -> None:
    assert sum(each.numel() for each in ConvAttention().parameters()) == 21


def test_names_and_axes_of_weights_stay() -> None:
    shapes = {name: tuple(value.shape) for name, value in ConvAttention(8, 9, 2, 3, 4, 5, 6).state_dict().items()}
    assert shapes == {
        "C.weight": (1, 1, 2, 3),
        "Lq.weight": (4, 7),
        "Lk.weight": (4, 7),
        "Lv.weight": (5, 7),
        "L.weight": (6, 35),
        "L.bias": (6,),
    }


def test_weights_are_initialized_as_the_docstring_says() -> None:
    model = ConvAttention(28, 28, 5, 5, 16, 24, 10)
    inputs = {model.C: 25, model.Lq: 24, model.Lk: 24, model.Lv: 24, model.L: 576}
    for box, count in inputs.items():
        for parameter in box.parameters():
            assert 0.5 * count**-0.5 < parameter.abs().max() <= count**-0.5


def test_a_classifier_of_ten_learns() -> None:
    model = ConvAttention(8, 8, 2, 2, 4, 8, 10).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    images, right = torch.rand(32, 8, 8), nn.functional.one_hot(torch.arange(32) % 10).float()
    losses = []
    for _ in range(30):
        loss = model(images, right).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["i", "j", "p", "q", "k", "v", "n"])
@pytest.mark.parametrize("size", [0, -1])
def test_numbers_that_must_be_at_least_one_are_refused_by_name(name: str, size: int) -> None:
    sizes: dict[str, Any] = {name: size}
    with pytest.raises(CircuitError, match=f"ConvAttention: {name} is {size}; it may be 1 or more"):
        ConvAttention(**sizes)


@pytest.mark.parametrize(("p", "q"), [(4, 2), (2, 5)])
def test_a_kernel_larger_than_the_image_is_refused(p: int, q: int) -> None:
    with pytest.raises(CircuitError, match=f"a kernel of {p} by {q} does not fit in 3 by 4"):
        ConvAttention(3, 4, p, q)


def test_axes_that_clash_are_named() -> None:
    model = ConvAttention(3, 4)
    with pytest.raises(ShapeError, match=r"ConvAttention\.forward"):
        model(torch.rand(4, 3), torch.rand(1))
    with pytest.raises(ShapeError, match="n is 2 here, but 1"):
        model(torch.rand(3, 4), torch.rand(2))
    with pytest.raises(ShapeError, match=r"ConvAttention\.predict"):
        model.predict(torch.rand(2, 3, 3))


@pytest.mark.slow
def test_it_is_one_graph() -> None:
    torch.compiler.reset()
    model, images, rights = ConvAttention(4, 5, n=2), torch.randn(3, 4, 5), torch.randn(3, 2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images, rights), model(images, rights))


@pytest.mark.slow
def test_compiled_code_gives_the_same_values_and_gradients() -> None:
    torch.compiler.reset()
    model = ConvAttention(8, 9, 2, 2, 4, 4, 3)
    compiled = torch.compile(model, fullgraph=True)
    wanted = list(model.parameters())
    for count in (4, 7):
        images, rights = torch.randn(count, 8, 9), torch.randn(count, 3)
        with torch.no_grad():
            torch.testing.assert_close(compiled(images, rights), model(images, rights))
        ours = torch.autograd.grad(compiled(images, rights).sum(), wanted)
        torch.testing.assert_close(ours, torch.autograd.grad(model(images, rights).sum(), wanted))


@pytest.mark.slow
def test_it_exports_with_any_number_of_images() -> None:
    model, free = ConvAttention(4, 5, n=2), {0: torch.export.Dim.DYNAMIC}
    inputs = (torch.randn(4, 4, 5), torch.randn(4, 2))
    program = torch.export.export(model, inputs, dynamic_shapes={"image": free, "right": free})
    images, rights = torch.randn(7, 4, 5), torch.randn(7, 2)
    torch.testing.assert_close(program.module()(images, rights), model(images, rights))


@pytest.mark.slow
def test_the_table_names_the_axis_of_the_softmax() -> None:
    table = trace(ConvAttention()).table(width=300)
    for part in ("3 3, 1 -> ()", " 21 ", "y k, x k -> x y", "softmax over y", "x y, x v -> y v", "(y v) -> n"):
        assert part in table
