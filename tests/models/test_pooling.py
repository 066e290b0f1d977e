"""`models.parts.pooling` compared with plain loops and torch's pooling."""

import importlib
import itertools
import pickle
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circuits import CircuitError, ShapeError, definitions, trace
from models.parts.pooling import max_pool1d, max_pool2d, max_pool_over, mean_pool1d, mean_pool2d, mean_pool_over

LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])


def gradients(output: Tensor, wanted: Tensor) -> Tensor:
    return torch.autograd.grad((output * torch.arange(1, output.numel() + 1).view_as(output).cos()).sum(), wanted)[0]


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    n = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(n))  # noqa: E731
    size, stride = each(1, 3), each(1, 3)
    padding = tuple(draw(st.integers(0, k // 2)) for k in size)
    space = tuple(k + draw(st.integers(0, 4)) for k in size)
    return space, {"size": size, "stride": stride, "padding": padding}


@pytest.mark.every(2)
@both_ways
@given(case=cases(), lead=st.sampled_from([(2,), (2, 3), (2, 1, 2)]))
def test_pools_are_torchs(way: Any, case: tuple[tuple[int, ...], dict[str, Any]], lead: tuple[int, ...]) -> None:
    """Values and gradients, also of images with equal numbers, of which the first gets the gradient."""
    space, options = case
    n = len(space)
    for pool, theirs in ((max_pool_over(n), LARGEST[n]), (mean_pool_over(n), MEAN[n])):
        image = torch.randint(-3, 3, (*lead, *space)).double().requires_grad_()
        with way():
            output = pool(image, options["size"], stride=options["stride"], padding=options["padding"])
        flat = theirs(image.reshape(1, -1, *space), options["size"], options["stride"], options["padding"])
        expected = flat.reshape(output.shape)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(gradients(output, image), gradients(expected, image))


@both_ways
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, ((0, 3),), ((4, 1),)])
@pytest.mark.parametrize("stride", [None, 1, 2])
def test_pools_are_the_loop(way: Any, stride: int | None, padding: Any, dilation: int) -> None:
    """Also for padding that is asymmetric, or larger than torch's pooling allows."""
    before, after = padding[0] if isinstance(padding, tuple) else (padding, padding)
    values, size = torch.randn(7, dtype=torch.float64), 3
    starts = range(-before, 7 + after - dilation * (size - 1), stride or size)
    places = [[start + dilation * i for i in range(size)] for start in starts]
    seen = [[values[at] if 0 <= at < 7 else None for at in row] for row in places]
    largest = [max((value for value in row if value is not None), default=torch.tensor(-torch.inf)) for row in seen]
    with way():
        output = max_pool1d(values, size, stride=stride, padding=padding, dilation=dilation)
        torch.testing.assert_close(output, torch.stack(largest).double())
        if dilation == 1:
            means = torch.stack(
                [torch.stack([x for x in row if x is not None] or [values[0] * 0]).sum() for row in seen]
            )
            torch.testing.assert_close(mean_pool1d(values, size, stride=stride, padding=padding), means / size)


def test_over_four_axes_the_definition_runs() -> None:
    x = torch.randn(4, 2, 4, 2)
    largest, mean = max_pool_over(4)(x, 2), mean_pool_over(4)(x, 2)
    for a, c in itertools.product(range(2), repeat=2):
        block = x[2 * a : 2 * a + 2, :, 2 * c : 2 * c + 2]
        torch.testing.assert_close(largest[a, 0, c, 0], block.max())
        torch.testing.assert_close(mean[a, 0, c, 0], block.mean())


@both_ways
def test_derivatives_are_right(way: Any) -> None:
    x = torch.randperm(30).reshape(5, 6).double().requires_grad_()
    with way():
        assert torch.autograd.gradcheck(lambda x: max_pool2d(x, (2, 3), stride=1, padding=1), x)
        assert torch.autograd.gradcheck(lambda x: mean_pool2d(x, (2, 3), stride=2, padding=1), x)
        assert torch.autograd.gradgradcheck(lambda x: mean_pool2d(x.square(), (2, 3), stride=2, padding=1), x)


@pytest.mark.every(4)
@both_ways
@pytest.mark.parametrize("pool", [max_pool2d, mean_pool2d])
def test_pools_under_vmap_and_compile(way: Any, pool: Any) -> None:
    x = torch.randn(3, 2, 6, 7)
    torch._dynamo.reset()
    with way():
        expected = pool(x, 3, stride=2, padding=1)
        torch.testing.assert_close(torch.vmap(lambda x: pool(x, 3, stride=2, padding=1))(x), expected)
        run = lambda x: pool(x, 3, stride=2, padding=1)  # noqa: E731
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected)


@both_ways
@pytest.mark.parametrize("pool", [max_pool2d, mean_pool2d])
def test_invalid_calls_are_refused(way: Any, pool: Any) -> None:
    with way():
        with pytest.raises(ShapeError, match="spans 5 positions: w may be 5 or more"):
            pool(torch.randn(2, 6, 4), 5)
        with pytest.raises(CircuitError, match="the stride is 0"):
            pool(torch.randn(2, 6, 4), 2, stride=0)


def test_a_table_shows_the_window_and_the_reduction() -> None:
    text = trace(lambda image: max_pool2d(image, 2), axes="c h w", sizes={"h": 8, "w": 6}).table(width=200)
    assert "unfold \"... h w -> ... h' w' i j: 2*h' + i, 2*w' + j\"" in text
    assert "8 6 -> c 4 3 2 2" in text


@pytest.mark.parametrize("n", [1, 3, 4, 5])
@pytest.mark.parametrize("over", [max_pool_over, mean_pool_over])
def test_circuits_over_any_number_of_axes_are_pickled_by_name(over: Any, n: int) -> None:
    assert pickle.loads(pickle.dumps(over(n))) is over(n)
    module = torch.nn.Sequential()
    module.pool = over(n)
    assert pickle.loads(pickle.dumps(module)).pool is over(n)
    with pytest.raises(AttributeError, match="has no max_pool0d"):
        importlib.import_module("models.parts.pooling").max_pool0d  # noqa: B018
