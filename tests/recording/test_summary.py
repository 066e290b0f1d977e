"""summary: what `trace` returns, from inputs, `input_size=` or axes."""

import pytest
import torch
from torch import nn

from circuits import CircuitError, Diagram, summary, trace
from models.attention import MultiHeadAttention


def test_it_is_what_trace_returns_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    layer, x = nn.Linear(4, 3), torch.rand(2, 4)
    for diagram in (summary(layer, x), summary(layer, input_size=(2, 4)), summary(layer, axes="b 4", sizes={"b": 2})):
        assert isinstance(diagram, Diagram)
        assert diagram.outputs[0].sizes == (2, 3)
        assert diagram.totals == trace(layer, x).totals
    assert torch.equal(summary(layer, x)(x), layer(x))
    assert capsys.readouterr() == ("", "")


def test_sizes_of_several_tensors_and_of_letters() -> None:
    attention = MultiHeadAttention(m=8, k=4, h=2)
    assert summary(attention, input_size=[(5, 8), (6, 8)]).outputs[0].sizes == (5, 8)
    assert summary(attention, sizes={"y": 5, "x": 6}).outputs[0].sizes == (5, 8)
    assert summary(attention).outputs[0].shape == "y 8"


def test_tensors_of_input_size_have_the_dtypes_that_are_given() -> None:
    diagram = summary(nn.Embedding(10, 3), input_size=(2, 4), dtypes=[torch.long])
    assert (diagram.inputs[0].dtype, diagram.outputs[0].sizes) == (torch.int64, (2, 4, 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input_size": (2, 4), "axes": "b 4"}, "input_size= or axes=, not both"),
        ({"input_size": "big"}, "input_size is 'big', but it must be the sizes of a tensor"),
        ({"input_size": (2, -4)}, "must be the sizes of a tensor"),
        ({"dtypes": [torch.long]}, "input_size=, which is not given"),
        ({"input_size": (2, 4), "dtypes": [torch.long] * 2}, "2 dtypes for 1 tensors"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        summary(nn.Linear(4, 3), **options)  # type: ignore[arg-type]
