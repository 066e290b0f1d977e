# To pyright a submodule or a buffer is a Tensor or a Module; this file also uses private names of torch.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalOperand=false
"""trace: sizes are expressions in the user's axis names, refused code is shown by its line, models do not change."""

import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from circuits import CircuitError, ShapeError, circuit, einsum, rearrange, trace, track


@circuit("b m, m -> b")
def dot(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


class TwoLevelUNet(nn.Module):
    """A U-Net with two levels: h and w must be multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 2, 2) for _ in range(2)])
        self.join = nn.ModuleList([nn.Conv2d(16, 8, 3, padding=1) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for layer in self.down[:2]:
            kept.append(layer(x).relu())
            x = F.max_pool2d(kept[-1], 2)
        x = self.down[2](x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), kept.pop()], 1))
        return x


def output_shapes(diagram: Any, label: str) -> list[str]:
    """Return the shape of the first output of each box whose label starts with a text."""
    return [box.outputs[0].shape for box in diagram.walk() if box.label.startswith(label)]


# Free sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_free_sizes_have_the_names_of_their_axes() -> None:
    diagram = trace(nn.Sequential(nn.Linear(8, 4), nn.Softmax(-1)), axes="b n 8")
    assert [value.shape for value in (*diagram.inputs, *diagram.outputs)] == ["b n 8", "b n 4"]
    assert diagram.fixed == ()


def test_sizes_inside_a_network_are_fractions_of_the_axes() -> None:
    model = TwoLevelUNet()

    @circuit("b 3 h w -> b 8 h w", multiples={"h": 4, "w": 4})
    def network(image: Tensor) -> Tensor:
        return model(image)

    assert output_shapes(trace(network), "max_pool2d") == ["b 8 h/2 w/2", "b 8 h/4 w/4"]
    assert output_shapes(trace(model, axes="b 3 4*h 4*w"), "max_pool2d") == ["b 8 2*h 2*w", "b 8 h w"]


@pytest.mark.smoke
def test_given_sizes_are_numbers_and_the_others_are_symbolic() -> None:
    diagram = trace(dot, sizes={"m": 5})
    assert [value.shape for value in (*diagram.inputs, *diagram.outputs)] == ["b 5", "5", "b"]


def test_axes_names_the_axes_of_given_tensors() -> None:
    diagram = trace(nn.Linear(8, 4), torch.rand(3, 8), axes="b m")
    assert diagram.inputs[0].axes == ("b", "m")
    assert diagram.inputs[0].sizes == (3, 8)


@contextmanager
def raises_without_torch_symbols(caught: list[BaseException]) -> Iterator[None]:
    """Assert that the `with` raises an exception whose message and notes show no symbol that torch generated.

    The exception is appended to `caught`.
    """
    with pytest.raises(Exception) as error:  # noqa: PT011
        yield
    caught.append(error.value)
    text = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert re.search(r"\b(s|u|zuf)\d+\b", text) is None, text


def own_error(x: Tensor) -> Tensor:
    raise ValueError(f"no image has {x.shape[0]} rows")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "axes", "kind", "words"),
    [
        (lambda x, w: x @ w, "b m, n k", RuntimeError, "[b, m] X [n, k]"),
        (lambda x, w: x + w, "a b, c d", RuntimeError, "(b) must match the size of tensor b (d)"),
        (lambda x, w: dot(x, w), "b m, n", ShapeError, "m is n here, but m (from x)"),
        (lambda x, w: einsum(x, w, "y m, x m -> y x"), "y m, x k", ShapeError, "m is k here, but m in tensor 0"),
        (own_error, "rows 3", ValueError, "no image has rows rows"),
    ],
)
def test_errors_show_the_names_of_axes(run: Any, axes: str, kind: type, words: str) -> None:
    caught: list[BaseException] = []
    with raises_without_torch_symbols(caught):
        trace(run, axes=axes)
    assert type(caught[0]) is kind
    assert words in str(caught[0])
    assert any(note.startswith("while tracing") for note in caught[0].__notes__)


@pytest.mark.slow
def test_an_exception_of_the_model_propagates_as_the_same_object() -> None:
    error = LookupError("mine")

    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    with pytest.raises(LookupError) as caught:
        trace(nn.Sequential(nn.ReLU(), nn.Sequential(Raises())), axes="b")
    assert caught.value is error
    assert caught.value.__notes__ == [
        "while tracing Sequential > 1 Sequential > 0 Raises",
        'the free axes had the sizes b = 48, then b = 24, then b = 3; trace(..., sizes={"b": …}) gives others',
    ]


# Code that fixes a size ----------------------------------------------------------------------------------------------


def by_square_root(x: Tensor) -> Tensor:
    return x / math.sqrt(x.shape[-1])


def by_range(x: Tensor) -> Tensor:
    return torch.stack([x[:, place] for place in range(x.shape[1])]).sum(0)


def by_int(x: Tensor) -> Tensor:
    return x * int(x.shape[1])


def by_float(x: Tensor) -> Tensor:
    return x * float(x.shape[1])


@pytest.mark.parametrize(
    ("run", "by"),
    [(by_square_root, "math.sqrt"), (by_range, "range"), (by_int, "int"), (by_float, "float")],
)
def test_code_that_needs_a_number_fixes_a_size_and_is_reported(run: Callable[..., Any], by: str) -> None:
    diagram = trace(run, axes="b k")
    (fixed,) = diagram.fixed
    assert (fixed.axis, fixed.by) == ("k", by)
    assert fixed.where == f"{__file__}:{run.__code__.co_firstlineno + 1}"
    assert str(diagram).splitlines()[-1] == f"k = {fixed.size}, fixed by {by} at {fixed.where}"
    x = torch.rand(3, fixed.size)
    assert torch.equal(diagram(x), run(x))
    with pytest.raises(ShapeError, match="k"):
        diagram(torch.rand(3, int(fixed.size) + 1))


def test_code_that_needs_no_number_leaves_sizes_free() -> None:
    def run(x: Tensor) -> Tensor:
        score = x @ x.mT * x.shape[-1] ** -0.5 + x.shape[0] / x.numel()
        places = torch.arange(x.shape[0]) + torch.zeros(x.shape[0])
        return (score + places).softmax(-1).reshape(-1)[: x.shape[0] * 2]

    diagram = trace(run, axes="b k")
    assert diagram.fixed == ()
    for b, k in ((2, 3), (5, 2), (7, 11)):
        x = torch.rand(b, k)
        assert torch.equal(diagram(x), run(x))


# Code that cannot be traced ------------------------------------------------------------------------------------------


def branches_on_a_value(x: Tensor) -> Tensor:
    return x if x.sum().item() > 0 else -x


def boolean_indexing(x: Tensor) -> Tensor:
    return x[x > 0]


def nonzero(x: Tensor) -> Tensor:
    return x.nonzero()


def arange_of_the_maximum(x: Tensor) -> Tensor:
    return torch.arange(x.max().item())


def zeros_of_a_size_in_a_tensor(x: Tensor) -> Tensor:
    return torch.zeros(x[0].long())


def converts_to_numpy(x: Tensor) -> Any:
    return x.numpy()


def size_as_a_dict_key(x: Tensor) -> Tensor:
    return {3: x}[x.shape[0]]


def masked_select(x: Tensor) -> Tensor:
    return torch.masked_select(x, x > 0).sum()


@pytest.mark.every(8)
@pytest.mark.parametrize(
    "run",
    [
        branches_on_a_value, boolean_indexing, nonzero, arange_of_the_maximum,
        zeros_of_a_size_in_a_tensor, converts_to_numpy, size_as_a_dict_key, masked_select,
    ],
    ids=lambda run: run.__name__,
)  # fmt: skip
def test_code_that_cannot_be_traced_is_refused_with_its_line(run: Any, golden: Any) -> None:
    with pytest.raises(CircuitError) as caught:
        trace(run, axes="b")
    place = f"{__file__}:{run.__code__.co_firstlineno + 1}"
    assert place in str(caught.value)
    golden(f"recording/{run.__name__}.txt", str(caught.value).replace(place, "test_trace.py:LINE") + "\n")


def test_computing_with_item_is_traced() -> None:
    def run(x: Tensor) -> Tensor:
        return x * x.sum().item()

    diagram = trace(run, axes="b")
    for size in (2, 5):
        x = torch.rand(size)
        assert torch.equal(diagram(x), run(x))


class Streaming(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stream = (number for number in [1.0])

    def forward(self, x: Tensor) -> Tensor:
        return x


INVALID_CALLS: dict[str, Callable[[], Any]] = {
    "uncopyable": lambda: trace(nn.Sequential(nn.ReLU(), nn.Sequential(Streaming())), axes="b"),
    "uncopyable_itself": lambda: trace(Streaming(), axes="b"),
    "no_inputs": lambda: trace(nn.Linear(8, 4)),
    "not_callable": lambda: trace("model", torch.rand(3)),
    "sizes_unknown": lambda: trace(dot, sizes={"k": 3}),
    "sizes_of_given_tensors": lambda: trace(nn.Linear(8, 4), torch.rand(3, 8), sizes={"b": 3}),
    "sizes_negative": lambda: trace(dot, sizes={"m": -1}),
    "sizes_text": lambda: trace(dot, sizes={"m": "8"}),
    "axes_too_many_tensors": lambda: trace(nn.Linear(8, 4), torch.rand(3, 8), axes="b 8, c"),
    "axes_too_many_names": lambda: trace(nn.Linear(8, 4), torch.rand(3, 8), axes="b c 8"),
    "axes_wrong_size": lambda: trace(nn.Linear(8, 4), torch.rand(3, 8), axes="b 9"),
    "axes_with_an_arrow": lambda: trace(nn.Linear(8, 4), axes="b 8 ->"),
    "no_tensor": lambda: trace(dot, 3),
}


@pytest.mark.parametrize("name", INVALID_CALLS)
def test_the_message_of_an_invalid_call(name: str, golden: Any) -> None:
    with pytest.raises(CircuitError) as caught:
        INVALID_CALLS[name]()
    golden(f"recording/call_{name}.txt", f"{caught.value}\n")


class Client:
    """An object that holds what cannot be copied."""

    def __init__(self) -> None:
        self.lock, self.file, self.scale = threading.RLock(), sys.stdout, torch.full((1,), 2.0)


class Guarded(nn.Module):
    """A module with locks, files and clients."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.lock, self.client = nn.Linear(4, 4), threading.Lock(), Client()

    def forward(self, x: Tensor, lock: Any = None) -> Tensor:
        with self.lock, self.client.lock, lock or self.client.lock:
            return self.linear(x) * self.client.scale


def test_what_cannot_be_copied_is_shared_and_said() -> None:
    model, x = Guarded(), torch.rand(2, 4)
    for arguments in ((x,), (x, threading.Lock())):
        diagram = trace(model, *arguments)
        assert "shares lock, RLock, " in str(diagram).splitlines()[1]
        assert torch.equal(diagram(x + 1, *arguments[1:]), model(x + 1))
    model.client.scale = torch.full((1,), 3.0)
    assert torch.equal(diagram(x, *arguments[1:]), model(x))
    assert not model.lock.locked()


def test_arguments_that_do_not_fit_the_parameters_raise_type_error() -> None:
    with pytest.raises(TypeError, match=r"Linear.*too many positional arguments"):
        trace(nn.Linear(8, 4), axes="b 8, c")


# The model is unchanged ----------------------------------------------------------------------------------------------


class StoresTensors(nn.Module):
    """A module that stores inputs and outputs in attributes, like a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
        self.cache: Tensor | None = None
        self.seen: list[Tensor] = []
        self.calls = 0
        self.register_buffer("total", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.cache = self.drop(self.layer(x))
        self.seen.append(x)
        self.calls += 1
        self.total = self.total + x.sum(0)
        return self.cache + torch.rand(8)


def test_a_trace_does_not_change_the_attributes_of_a_model() -> None:
    model, x = StoresTensors(), torch.rand(3, 8)
    model.layer.weight.grad = torch.ones(8, 8)
    gradient, state = model.layer.weight.grad, torch.get_rng_state()
    trace(model, x)
    trace(lambda x: model(x), x)
    assert (model.cache, model.seen, model.calls) == (None, [], 0)
    assert torch.equal(model.total, torch.zeros(8))
    assert not [each for each in (*model.parameters(), *model.buffers()) if isinstance(each, FakeTensor)]
    assert model.layer.weight.grad is gradient
    assert torch.equal(torch.get_rng_state(), state)


def test_a_function_with_a_model_in_its_closure() -> None:
    model, weight = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), nn.Parameter(torch.randn(4))

    def run(x: Tensor) -> Tensor:
        return model(x) * weight + model[0].bias

    diagram = trace(run, torch.rand(3, 8))
    assert int(model[1].num_batches_tracked) == 0
    assert diagram.box.parameter_count == 8 * 4 + 4 + 4 + 4
    x = torch.rand(3, 8)
    assert torch.equal(diagram(x), run(x))


def test_a_trace_inside_a_tracked_run_is_not_recorded_by_track() -> None:
    model = nn.Linear(8, 8)

    class Traces(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            trace(model, axes="b 8")
            return x.relu()

    traces = Traces()
    with track(traces, to=None) as seen:
        traces(torch.rand(3, 8))
    assert [box.label for box in seen.diagram.walk()] == ["Traces", "relu"]


@pytest.mark.slow
def test_two_threads_trace_two_models_at_once() -> None:
    found: dict[int, Any] = {}

    def run(width: int) -> None:
        model = nn.Sequential(*[nn.Linear(width, width) for _ in range(10)])
        found[width] = trace(model, axes=f"b{width} {width}")

    threads = [threading.Thread(target=run, args=(width,)) for width in range(3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for width, diagram in found.items():
        assert {value.shape for box in diagram.walk() for value in box.outputs} == {f"b{width} {width}"}
        assert len(list(diagram.walk())) == 21


@pytest.mark.slow
def test_definitions_are_traced_and_kernels_tracked() -> None:
    @circuit("y k -> y k")
    def twice(x: Tensor) -> Tensor:
        return rearrange(x + x, "y k -> y k")

    @twice.kernel
    def _(x: Tensor) -> Tensor:
        return x.mul(2)

    assert next(box.label for box in trace(twice).boxes) == "add"
    with track(twice, to=None) as seen:
        twice(torch.rand(2, 3))
    assert [box.label for box in seen.diagram.boxes] == ["mul"]


@pytest.mark.slow
def test_a_billion_parameters_trace_in_seconds() -> None:
    layer = nn.TransformerEncoderLayer(4096, 32, 16384, batch_first=True, device="meta")
    model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    before = time.perf_counter()
    diagram = trace(model, axes="b n 4096")
    assert time.perf_counter() - before < 60
    assert diagram.box.parameter_count == sum(each.numel() for each in model.parameters()) > 10**9
    assert diagram.outputs[0].shape == "b n 4096"
