# This file uses private names of torch.
# pyright: reportPrivateImportUsage=false
"""Code that `trace` cannot run without data is refused with the line and the reason; `track` records it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.nn import quantized

from circuits import trace, track
from circuits.errors import CircuitError
from tests.recorded import Runs

X = torch.tensor([[1.0, -2, 3, 4], [2, 3, 4, 5]])


@torch.library.custom_op("circuits_tests::without_fake_form", mutates_args=())
def without_fake_form(x: Tensor) -> Tensor:
    return x * 2


@torch.jit.script
def scripted_branch(x: Tensor) -> Tensor:
    if bool(x.sum() > 0):
        return x * 2
    return x - 1


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "apply_": (lambda x: x.clone().apply_(lambda value: value + 1), "a value that depends on data: .*apply_"),
    "map_": (lambda x: x.clone().map_(x, lambda a, b: a + b), "a value that depends on data: .*map_"),
    "map2_": (lambda x: x.clone().map2_(x, x, lambda a, b, c: a + b * c), "a value that depends on data: .*map2_"),
    "a format": (lambda x: x * float(f"{x[0, 0]:.1f}"), "a value that depends on data"),
    "numbers in a list": (lambda x: torch.tensor([x[0, 0], 1.0, 2.0, 3.0]) * x, "a value that depends on data"),
    "the size of a sparse tensor": (lambda x: x * len(x.relu().to_sparse().values()), "a value that depends on data"),
    "the elements of a sparse tensor": (lambda x: x * x.to_sparse_csr()._nnz(), "a value that depends on data"),
    "memory": (lambda x: x * x.storage().tolist()[0], "cannot run this without data: .*Not available for 'meta'"),
    "a quantized tensor": (
        lambda x: torch.quantize_per_tensor(x, 0.1, 10, torch.quint8).int_repr(),
        "cannot run this without data: .*int_repr",
    ),
    "a nested tensor": (
        lambda x: torch.nested.as_nested_tensor([x[0, :2], x[1]]).unbind()[0],
        "cannot run this without data: .*nested_tensor_from_tensor_list",
    ),
    "a custom operator": (lambda x: without_fake_form(x), "cannot run this without data: .*no fake impl registered"),
    "TorchScript": (lambda x: scripted_branch(x), "cannot run this without data"),
}


if torch.__version__ < "2.14":  # Since then, torch computes with such tensors without data.
    REFUSED["an MKLDNN tensor"] = (lambda x: x.to_mkldnn().relu().to_dense(), "without data: .*Opaque")


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_trace_names_the_line_and_track_records(name: str) -> None:
    function, message = REFUSED[name]
    model = Runs(function)
    with pytest.raises(CircuitError, match=message) as caught:
        trace(model, X)
    assert f" at {__file__}:" in str(caught.value)
    assert "use track on a real run" in str(caught.value)
    expected = model(X)
    with track(model, to=None) as seen:
        assert torch.equal(model(X), expected)
    if name != "memory":
        assert torch.equal(seen.diagram(X), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "inputs", "line"),
    [
        (nn.GaussianNLLLoss(), (X, X, X.abs()), r"if torch.any\(var < 0\):` at \S+functional.py:\d+"),
        (
            nn.AdaptiveLogSoftmaxWithLoss(4, 9, [3, 6]),
            (X, torch.tensor([0, 4])),
            r"nonzero\(\).*` at \S+adaptive.py:\d+",
        ),
    ],
)
def test_the_line_is_in_torch_where_no_user_code_runs(module: nn.Module, inputs: tuple[Tensor, ...], line: str) -> None:
    with pytest.raises(CircuitError, match=f"depends on data: .*{line}"):
        trace(module, *inputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_quantized_layers_are_tracked() -> None:
    engines = [each for each in torch.backends.quantized.supported_engines if each != "none"]
    if not engines:
        pytest.skip("this torch has no quantized layers")
    torch.backends.quantized.engine = engines[0]
    model = nn.Sequential(quantization.QuantStub(), nn.Linear(4, 2), quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig(engines[0])  # type: ignore[assignment]
    quantization.prepare(model, inplace=True)(X)
    quantization.convert(model, inplace=True)
    assert isinstance(model[1], quantized.Linear)
    with pytest.raises(CircuitError, match=r"^quantized layers cannot be traced \(0: Quantize\): use track"):
        trace(model, X)
    with track(model, to=None) as seen:
        model(X)
    assert torch.equal(seen.diagram(-X), model(-X))
    dynamic = quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), {nn.Linear})
    assert torch.equal(trace(dynamic, X)(-X), dynamic(-X))


def test_sparse_tensors_are_traced() -> None:
    model = Runs(lambda x: (torch.sparse.mm(x.relu().to_sparse(), x.mT), x.to_sparse_csr().values().sum() * x.shape[0]))
    torch.testing.assert_close(trace(model, X)(-X), model(-X))
