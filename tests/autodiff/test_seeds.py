"""The numbers of the source documents, computed by custom backward circuits, by the reverse rules, and by autograd.

The functions of each document are copied here in plain torch. The results are compared with the numbers printed in the
documents, in float32 and float64.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import backward, broadcast, circuit, einsum
from circuits.autodiff import jacobian
from models import by_hand
from models.signals import full_convolution, same_convolution, valid_convolution

DTYPES = [torch.float32, torch.float64]
COLUMNS = ["custom", "by the rules", "by autograd"]
every = pytest.mark.parametrize("dtype", DTYPES)
three = pytest.mark.parametrize("column", COLUMNS)


def numbers(value: Any, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def gradients(
    column: str, custom: Callable[..., Any], plain: Callable[..., Any], inputs: Sequence[Tensor], cotangent: Tensor
) -> list[Tensor]:
    """Return the cotangents of the inputs, by the method that `column` names.

    They are computed from `custom` by its custom backward circuits, from `plain` by the reverse rules, or from `plain`
    by autograd.
    """
    if column == "by autograd":
        return list(torch.func.vjp(plain, *inputs)[1](cotangent))
    diagram = backward(custom if column == "custom" else plain, *inputs)
    assert not diagram.opaque
    assert any(box.label.endswith("_gradient") for box in diagram.walk()) == (column == "custom")
    return list(diagram(*inputs, cotangent).values())


# --- 000: a convolution, attention, a linear map, a loss --------------------------------------------------------------

X = [[1.0, 2.0, 1.0], [0.0, 3.0, 2.0], [1.0, 0.0, 1.0]]
K = [[1.0, 0.0], [0.0, -1.0]]
W_Q, W_K, W_V = [[1.0, 0.0], [-1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
W, B, Y = [[-1.0, 1.0, 0.0, 1.0]], [2.0], [4.0]
NETWORK = {"X": X, "K": K, "W_Q": W_Q, "W_K": W_K, "W_V": W_V, "W": W, "b": B, "y": Y}


def correlate2d(image: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(image[None, None], kernel[None, None])[0, 0]


def after_scores(scores: Tensor, value: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    error = w @ (scores.softmax(0) @ value).reshape(-1) + b - y
    return 0.5 * (error**2).sum()


def after_convolution(seen: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return after_scores((seen @ wq) @ (seen @ wk).T, seen @ wv, w, b, y)


def forward_pass(image: Tensor, kernel: Tensor, *rest: Tensor) -> Tensor:
    return after_convolution(correlate2d(image, kernel), *rest)


def after_scores_custom(scores: Tensor, value: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """The scores are passed as queries with the identity matrix as keys, because `shared` takes queries and keys."""
    mixed = by_hand.shared(scores, torch.eye(2, dtype=scores.dtype), value)
    error = by_hand.linear(mixed.reshape(1, -1), w, b)[0] - y
    return 0.5 * einsum(error, error, "n, n ->")


def after_convolution_custom(
    seen: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, w: Tensor, b: Tensor, y: Tensor
) -> Tensor:
    mixed = by_hand.shared(*[by_hand.matmul(seen, weight) for weight in (wq, wk, wv)])
    error = by_hand.linear(mixed.reshape(1, -1), w, b)[0] - y
    return 0.5 * einsum(error, error, "n, n ->")


@every
def test_000_every_number_of_the_forward_pass(dtype: torch.dtype) -> None:
    x, kernel, wq, wk, wv, w, b, y = (numbers(each, dtype) for each in NETWORK.values())
    seen = by_hand.correlated(x, kernel)
    torch.testing.assert_close(seen, numbers([[-2, 0], [0, 2]], dtype))
    query, key, value = (by_hand.matmul(seen, weight) for weight in (wq, wk, wv))
    torch.testing.assert_close(query, numbers([[-2, 0], [-2, 0]], dtype))
    torch.testing.assert_close(key, numbers([[-2, -2], [2, 2]], dtype))
    torch.testing.assert_close(value, numbers([[-2, 0], [0, 2]], dtype))
    scores = by_hand.matmul(query, key.T)
    torch.testing.assert_close(scores, numbers([[4, -4], [4, -4]], dtype))
    torch.testing.assert_close(scores.softmax(0), numbers([[0.5, 0.5], [0.5, 0.5]], dtype))
    mixed = by_hand.shared(query, key, value)
    torch.testing.assert_close(mixed, numbers([[-1, 1], [-1, 1]], dtype))
    torch.testing.assert_close(by_hand.linear(mixed.reshape(1, -1), w, b), numbers([[5]], dtype))
    for loss in (by_hand.network, forward_pass):
        torch.testing.assert_close(loss(x, kernel, wq, wk, wv, w, b, y), numbers(0.5, dtype))


GRADIENTS_000 = {
    "K": [[2.5, 0.5], [6.5, -0.5]],
    "W_Q": [[2, 2], [2, 2]],
    "W_K": [[0, 0], [0, 0]],
    "W_V": [[1, -2], [-1, 2]],
    "W": [[-1, 1, -1, 1]],
    "b": [1],
}


@pytest.mark.every(3)
@every
@three
def test_000_every_gradient(column: str, dtype: torch.dtype) -> None:
    inputs = [numbers(each, dtype) for each in NETWORK.values()]
    found = gradients(column, by_hand.network, forward_pass, inputs, numbers(1, dtype))
    for name, gradient in zip(NETWORK, found, strict=True):
        if name in GRADIENTS_000:
            torch.testing.assert_close(gradient, numbers(GRADIENTS_000[name], dtype))


@pytest.mark.every(3)
@every
@three
def test_000_the_gradients_of_the_convolution_and_of_the_scores(column: str, dtype: torch.dtype) -> None:
    *weights, w, b, y = (numbers(each, dtype) for each in (W_Q, W_K, W_V, W, B, Y))
    seen, one = numbers([[-2, 0], [0, 2]], dtype), numbers(1, dtype)
    found, *_ = gradients(column, after_convolution_custom, after_convolution, [seen, *weights, w, b, y], one)
    torch.testing.assert_close(found, numbers([[-1.5, 2], [0.5, 0]], dtype))
    torch.testing.assert_close(by_hand.correlated(numbers(X, dtype), found), numbers(GRADIENTS_000["K"], dtype))
    scores = numbers([[4, -4], [4, -4]], dtype)
    found, *_ = gradients(column, after_scores_custom, after_scores, [scores, seen, w, b, y], one)
    torch.testing.assert_close(found, numbers([[0.5, 0], [-0.5, 0]], dtype))


@pytest.mark.every(3)
@every
@three
def test_000_the_jacobian_of_softmax(column: str, dtype: torch.dtype) -> None:
    scores = numbers([[4, -4], [4, -4]], dtype)
    expected = numbers([[0.25, 0, -0.25, 0], [0, 0.25, 0, -0.25], [-0.25, 0, 0.25, 0], [0, -0.25, 0, 0.25]], dtype)
    if column == "by autograd":
        found = jacobian(lambda scores: scores.softmax(0), scores).tensor.reshape(4, 4)
    else:
        unit = torch.eye(2, dtype=dtype)
        rows = [
            gradients(column, lambda s: by_hand.shared(s, unit, unit), lambda s: s.softmax(0), [scores], row.view(2, 2))
            for row in torch.eye(4, dtype=dtype)
        ]
        found = torch.stack([row[0].reshape(4) for row in rows])
    torch.testing.assert_close(found, expected)


# --- 001: a tour of autodiff ------------------------------------------------------------------------------------------


def log2(x: Tensor) -> Tensor:
    return torch.log(x) / torch.log(torch.tensor(2.0, dtype=x.dtype))


@circuit("->")
def log2_custom(x: Tensor) -> Tensor:
    return log2(x)


@log2_custom.backward
@circuit(", ->")
def log2_gradient(x: Tensor, dy: Tensor) -> Tensor:
    return dy / (x * math.log(2))


@every
@three
def test_001_the_gradient_of_log2_and_its_gradient(column: str, dtype: torch.dtype) -> None:
    x, one = numbers(2.0, dtype), numbers(1.0, dtype)
    (first,) = gradients(column, log2_custom, log2, [x], one)
    assert f"{first.item():.7f}" == "0.7213475"
    if column == "by autograd":
        second = torch.func.grad(torch.func.grad(log2))(x)
    else:
        once = backward(log2_custom if column == "custom" else log2, x)
        second = backward(once)(x, one, one)["x"]
    torch.testing.assert_close(second, -1 / (x**2 * math.log(2)))


@every
@three
def test_001_the_gradient_of_a_layer_by_its_weight_is_the_input(column: str, dtype: torch.dtype) -> None:
    x, w, b = numbers([[9.0]], dtype), numbers([[3.0]], dtype), numbers([1.0], dtype)
    assert by_hand.linear(x, w, b).item() == 28
    _, dw, _ = gradients(column, by_hand.linear, lambda x, w, b: x @ w.T + b, [x, w, b], torch.ones_like(x))
    assert dw.item() == 9


def attention_001(wq: Tensor, wk: Tensor, wv: Tensor, e: Tensor) -> Tensor:
    """The document's attention: one query, one key, one value, and the softmax of one number."""
    query, key, value = wq @ e, wk @ e, wv @ e
    power = torch.exp(query @ key / e.shape[-1] ** 0.5)
    return power / power.sum() * value


def attention_custom(wq: Tensor, wk: Tensor, wv: Tensor, e: Tensor) -> Tensor:
    query, key, value = (by_hand.matmul(e[None], weight.T) for weight in (wq, wk, wv))
    return by_hand.shared(query * e.shape[-1] ** -0.5, key, value)[0]


WEIGHTS_001 = (
    [[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.1, 0.0, 1.0]],
    [[1.0, 0.0, 0.1], [0.1, 1.0, 0.0], [0.0, 0.1, 1.0]],
    [[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.1, 0.0, 1.0]],
)


@pytest.mark.every(6)
@every
@three
def test_001_attention_and_its_jacobian_by_the_weights(column: str, dtype: torch.dtype) -> None:
    """The rows of the Jacobian: for W_q and W_k 0 up to rounding, for W_v[j, l] delta(i, j) e_l."""
    weights, e = [numbers(each, dtype) for each in WEIGHTS_001], numbers([1.0, 2.0, 3.0], dtype)
    both: list[Any] = [attention_001, attention_custom]
    for attention in both:
        torch.testing.assert_close(attention(*weights, e), numbers([1.2, 2.3, 3.1], dtype))
    noise = 1e-4 if dtype == torch.float32 else 1e-12  # the document has 1e-6; rounding errors of scores near 8
    for place, row in enumerate(torch.eye(3, dtype=dtype)):
        by_q, by_k, by_v, _ = gradients(column, attention_custom, attention_001, [*weights, e], row)
        assert max(by_q.abs().max(), by_k.abs().max()) < noise
        expected = torch.zeros(3, 3, dtype=dtype)
        expected[place] = e
        torch.testing.assert_close(by_v, expected)


@circuit("a b, b, a -> b")
def predict(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    return einsum(inputs, weight, "a, a b -> b") + bias


@every
def test_001_batching_is_a_broadcast(dtype: torch.dtype) -> None:
    weight, bias = numbers([[1, 2], [3, 4]], dtype), numbers([1, 1], dtype)
    many = numbers([[1, 2], [3, 4], [5, 6]], dtype)
    batched = broadcast(predict, "a b, b, n a -> n b")
    torch.testing.assert_close(batched(weight, bias, many), numbers([[8, 11], [16, 23], [24, 35]], dtype))
    torch.testing.assert_close(predict(weight, bias, many[0]), numbers([8, 11], dtype))


@every
def test_001_broadcasts_in_broadcasts_go_over_pairs(dtype: torch.dtype) -> None:
    @circuit("a, a ->")
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return ((x - y) ** 2).sum().neg().exp()

    along = broadcast(kernel, "a, m a -> m")
    pairs = broadcast(along, "n a, m a -> n m")
    xs, ys = torch.randn(4, 3, dtype=dtype), torch.randn(5, 3, dtype=dtype)
    expected = torch.stack([torch.stack([kernel(x, y) for y in ys]) for x in xs])
    torch.testing.assert_close(pairs(xs, ys), expected)


# --- 002: backpropagation of a convolution of signals -----------------------------------------------------------------

A, SLIDING = [1.1, 2.0, -3.0, 2.5, 7.0], [3.0, 2.0, -2.2]
MODES = {
    "full": ([4.5, 1, 5, -2.2, -11, 3.4, 9], [4.5, 17.84, 34.8, -36.08, -46], valid_convolution),
    "same": ([4.5, 1, 5, -2.2, -11], [6.8, 4.5, 17.84, 34.8, -28.6], same_convolution),
    "valid": ([4.5, 1, 5], [-9.9, 6.8, 4.5, 13, 15], full_convolution),
}


def convolve(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """numpy.convolve for an `a` that is not shorter than `b`."""
    ends = b.shape[0] - 1
    before, after = {"full": (ends, ends), "same": (ends - ends // 2, ends // 2), "valid": (0, 0)}[mode]
    return F.conv1d(F.pad(a, (before, after))[None, None], b.flip(0)[None, None])[0, 0]


@pytest.mark.every(4)
@every
@three
@pytest.mark.parametrize("mode", MODES)
def test_002_the_gradient_of_a_convolution_is_a_convolution(mode: Any, column: str, dtype: torch.dtype) -> None:
    c, expected, another = MODES[mode]
    a, b, c, expected = (numbers(each, dtype) for each in (A, SLIDING, c, expected))
    made = numpy.convolve(a.numpy(), b.numpy(), mode)
    custom = getattr(by_hand, mode)
    for result in (convolve(a, b, mode), custom(a, b)):
        torch.testing.assert_close(result, torch.from_numpy(made))
    da, db = gradients(column, custom, lambda a, b: convolve(a, b, mode), [a, b], c)
    torch.testing.assert_close(da, expected)
    torch.testing.assert_close(another(c, b.flip(0)), expected)
    assert torch.dot(torch.from_numpy(made), c).item() == pytest.approx((db @ b).item(), rel=1e-5)


@every
@three
def test_002_the_gradient_of_an_inner_product_is_the_other_vector(column: str, dtype: torch.dtype) -> None:
    b, c = numbers([SLIDING], dtype), numbers([4.5, 1.0, 5.0], dtype)
    found, _ = gradients(column, by_hand.matmul, torch.matmul, [b, c[:, None]], numbers([[1.0]], dtype))
    torch.testing.assert_close(found[0], c)


# --- 003: layer by layer ----------------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[list[tuple[int, ...]], Callable[..., Tensor]]] = {
    "matmul": ([(4, 6), (6, 9)], lambda x, y: x @ y),
    "add_bias": ([(4, 6, 3), (6,)], lambda x, y: x + y.view(1, -1, 1)),
    "linear": ([(18, 14), (5, 14), (5,)], F.linear),
    "total": ([(4, 6, 3)], torch.sum),
}


@pytest.mark.every(4)
@every
@pytest.mark.parametrize("column", COLUMNS[:2])
@pytest.mark.parametrize("name", LAYERS)
def test_003_distances_from_autograd_are_those_of_the_document(name: str, column: str, dtype: torch.dtype) -> None:
    """With the document's random numbers and loss Σz², distances are at most those of the document: 2e-5 in float32."""
    sizes, plain = LAYERS[name]
    generator, custom = numpy.random.RandomState(12), getattr(by_hand, name)
    inputs = [torch.from_numpy(generator.randn(*each)).to(torch.float32).to(dtype) for each in sizes]
    leaves = [each.clone().requires_grad_() for each in inputs]
    expected = plain(*leaves)
    (expected**2).sum().backward()
    made = custom(*inputs)
    found = gradients(column, custom, plain, inputs, 2 * made)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-12
    assert (made - expected).norm() < tolerance
    for gradient, leaf in zip(found, leaves, strict=True):
        assert leaf.grad is not None
        assert (gradient - leaf.grad).norm() < tolerance
