"""Properties that code reads besides sizes: a diagram runs on tensors that have the same ones, and refuses others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, backward, simplify, trace, track
from circuits.diagram import PropertyGuard

X = torch.rand(2, 3)
IMAGE = torch.rand(2, 3, 4, 5)


class Doubles(nn.Module):
    """x times 2 if a property holds, else x times 3."""

    def __init__(self, holds: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.holds = holds

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.holds(x) else x * 3


PROPERTIES: dict[str, tuple[Callable[[Tensor], Any], Tensor, Tensor, str]] = {
    "dtype": (lambda x: x.dtype == torch.float32, X, X.double(), "dtype"),
    "limits of a dtype": (lambda x: torch.finfo(x.dtype).bits < 64, X, X.double(), "dtype"),
    "whether it is floating": (lambda x: x.is_floating_point(), X, X.long(), "is_floating_point"),
    "whether it is floating, of torch": (torch.is_floating_point, X, X.long(), "is_floating_point"),
    "whether it is complex": (torch.is_complex, X, X + 1j, "is_complex"),
    "type": (lambda x: x.type() == "torch.FloatTensor", X, X.double(), "type"),
    "promotion": (lambda x: torch.result_type(x, 1.0) == torch.float32, X, X.double(), "result_type"),
    "bytes": (lambda x: x.itemsize == 4, X, X.double(), "itemsize"),
    "contiguous": (lambda x: x.is_contiguous(), X, X.mT.contiguous().mT, "is_contiguous"),
    "contiguous inside": (lambda x: (x.mT * 2).is_contiguous(), X, X.mT.contiguous().mT, "is_contiguous"),
    "strides": (lambda x: x.stride() == (3, 1), X, X.mT.contiguous().mT, "stride"),
    "stride of one axis": (lambda x: x.stride(0) == 3, X, X.mT.contiguous().mT, "stride"),
    "strides by keyword": (
        lambda x: x.stride(dim=1) == 1 and x.stride(dim=0) == 3, X, torch.rand(2, 5)[:, :3], "stride",
    ),
    "offset": (lambda x: x.storage_offset() == 0, X, torch.rand(3, 3)[1:], "storage_offset"),
    "channels last": (
        lambda x: x.is_contiguous(memory_format=torch.channels_last), IMAGE,
        IMAGE.to(memory_format=torch.channels_last), "is_contiguous",
    ),
    "device": (lambda x: x.device.type == "cpu", X, X.to("meta"), "device"),
    "meta": (lambda x: x.is_meta, X, X.to("meta"), "is_meta"),
    "layout": (lambda x: x.layout is torch.strided, X, X.to_sparse(), "layout"),
    "gradient": (lambda x: x.requires_grad, X, X.clone().requires_grad_(), "requires_grad"),
    "leaf": (lambda x: (x * 1).is_leaf, X, X.clone().requires_grad_(), "is_leaf"),
    "node": (lambda x: (x * 1).grad_fn is None, X, X.clone().requires_grad_(), "grad_fn"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_that_the_code_read_is_compared(name: str) -> None:
    holds, same, other, read = PROPERTIES[name]
    model = Doubles(holds)
    with track(model, to=None) as seen:
        model(same)
    for diagram in (trace(model, same), seen.diagram):
        for run in (diagram, diagram.function()):
            assert torch.equal(run(same.clone(memory_format=torch.preserve_format)), model(same))
            with pytest.raises(CircuitError, match=rf"read {read} at .*test_property_guards.py:\d+ as"):
                run(other)


def test_the_message_says_what_was_read_and_what_it_is_now() -> None:
    diagram = trace(lambda x: x.double().to(x.dtype), torch.ones(2))
    with pytest.raises(CircuitError) as caught:
        diagram(torch.ones(2, dtype=torch.float64))
    text = str(caught.value)
    assert "as torch.float32, and now it is torch.float64" in text
    assert "Record it again" in text


def test_a_property_is_compared_where_the_run_makes_no_call() -> None:
    diagram = trace(lambda x: x if x.dtype == torch.float32 else -x, X)
    assert diagram(X) is X
    with pytest.raises(CircuitError, match="read dtype"):
        diagram(X.double())


def test_an_object_is_compared_by_the_name_of_its_type() -> None:
    model, leaf = Doubles(lambda x: "Mul" in type(x.grad_fn).__name__), X.clone().requires_grad_()
    with track(model, to=None) as seen:
        model(leaf * 2)
    assert torch.equal(seen.diagram(leaf * 3), model(leaf * 3))
    with pytest.raises(CircuitError, match="as an object of type MulBackward0, and now it is an object of type Add"):
        seen.diagram(leaf + 2)


def test_an_address_is_never_the_same() -> None:
    model = Doubles(lambda x: x.data_ptr() % 2)
    with track(model, to=None) as seen:
        model(X)
    with pytest.raises(CircuitError, match="read data_ptr"):
        seen.diagram(X)


STORAGES: dict[str, Callable[[Tensor], Any]] = {
    "a byte": lambda x: x.untyped_storage()[3],
    "a number": lambda x: x.storage()[1],
    "an address": lambda x: x.untyped_storage().data_ptr() % 2,
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("name", STORAGES)
def test_a_storage_is_never_the_same(name: str) -> None:
    model = Doubles(STORAGES[name])
    with track(model, to=None) as seen:
        model(X)
    with pytest.raises(CircuitError, match=r"read (untyped_)?storage"):
        seen.diagram(X)


def layers() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4), nn.GELU(), nn.Flatten(), nn.Linear(20, 8), nn.LayerNorm(8),
        nn.Unflatten(1, (2, 4)), nn.Softmax(-1),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_that_reads_no_dtype_runs_in_another(dtype: torch.dtype) -> None:
    model = layers().eval()
    x = torch.rand(2, 3, 5)
    diagram = trace(model, x)
    assert not any(isinstance(call.function, PropertyGuard) for call in diagram.property_guards)
    model.to(dtype)
    assert torch.equal(diagram(x.to(dtype)), model(x.to(dtype)))


def test_what_is_read_inside_a_transform_is_read_again() -> None:
    """The diagram calls the code around a transform."""

    def run(x: Tensor) -> Tensor:
        return torch.vmap(lambda row: row * 2 if row.dtype == torch.float32 else row * 3)(x)

    diagram = trace(run, X)
    assert diagram.property_guards == ()
    assert torch.equal(diagram(X.double()), run(X.double()))


def test_a_property_of_a_tensor_outside_the_run_is_not_compared() -> None:
    assert trace(lambda x: x.to(IMAGE.dtype), X).property_guards == ()


class ReadsParameter(nn.Module):
    """The input in the dtype of the weight, as language models do it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(next(self.parameters()).dtype))


def test_a_property_of_a_parameter_is_compared() -> None:
    model = ReadsParameter()
    diagram = trace(model, X.double())
    assert torch.equal(diagram(X.half()), model(X.half()))
    model.double()
    with pytest.raises(CircuitError, match=r"read dtype at .* as torch.float32, and now it is torch.float64"):
        diagram(X)


def test_strides_of_a_free_axis_are_compared_at_its_size() -> None:
    diagram = trace(lambda x: x * x.stride()[0], axes="b n")
    assert torch.equal(diagram(torch.ones(3, 5)), torch.full((3, 5), 5.0))
    with pytest.raises(CircuitError, match=r"read stride at .* as \(5, 1\), and now it is \(1, 3\)"):
        diagram(torch.ones(3, 5).mT.contiguous().mT)


def test_a_tensor_changed_in_place_is_read_again() -> None:
    def run(x: Tensor) -> Tensor:
        y = x.clone()
        first = y.is_contiguous()
        y.t_()
        return y * 2 if first and not y.is_contiguous() else y

    diagram = trace(run, X)
    assert torch.equal(diagram(X), run(X))
    with pytest.raises(CircuitError, match="read is_contiguous"):
        diagram(X.mT.contiguous().mT)


def test_a_backward_circuit_has_the_guards() -> None:
    def run(x: Tensor) -> Tensor:
        return x.square() if x.dtype == torch.float32 else x

    gradient = backward(run, X)
    for found in (gradient, simplify(gradient)):
        torch.testing.assert_close(found(X, torch.ones(2, 3))["x"], 2 * X)
        with pytest.raises(CircuitError, match="read dtype"):
            found(X.double(), torch.ones(2, 3, dtype=torch.float64))


def test_a_mapped_parameter_with_a_guard_is_one_value() -> None:
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(lambda weight: x.to(self.weight.dtype) @ weight)(self.weight)

    model, cotangent = Ensemble(), torch.randn(5, 2, 3)
    (expected,) = torch.autograd.grad(model(X), model.weight, cotangent)
    torch.testing.assert_close(backward(model, X)(X, cotangent)["weight"], expected)


def test_a_compiled_function_has_the_guards() -> None:
    run: Any = torch.compile(
        trace(Doubles(lambda x: x.dtype == torch.float32), X).function(), fullgraph=True, backend="eager"
    )
    assert torch.equal(run(X), X * 2)
    with pytest.raises(Exception, match="read dtype"):
        run(X.double())
