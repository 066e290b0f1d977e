"""Code that makes a text of a tensor, or of a number of the data: what a diagram would not make again is refused."""

import logging
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, trace
from tests.recording.test_read_state import recorded

TEXTS: dict[str, Callable[[Tensor], str]] = {
    "str": lambda x: str(x),
    "repr": lambda x: repr(x),
    "an f-string": lambda x: f"{x}",
    "format": lambda x: "{}".format(x),  # noqa: UP032
    "the percent sign": lambda x: "%s" % x,  # noqa: UP031
    "a text of a list": lambda x: str([x]),
    "of an index": lambda x: f"{x[0]}",
}
NUMBERS: dict[str, Callable[[Tensor], str]] = {
    "a digit": lambda x: f"{x[0]:.1f}",
    "item": lambda x: str(x[0].item()),
    "item in an f-string": lambda x: f"{x[0].item()}",
    "item with a format": lambda x: f"{x[0].item():.2f}",
    "int": lambda x: str(int(x[0])),
    "tolist": lambda x: str(x.tolist()),
    "bool": lambda x: str((x > 1).any().item()),
}


class Longer(nn.Module):
    """Multiplies by the length of a text."""

    def __init__(self, text: Callable[[Tensor], str]) -> None:
        super().__init__()
        self.text = text

    def forward(self, x: Tensor) -> Tensor:
        return x * len(self.text(x))


X, OTHER = torch.tensor([1.5, -2.0]), torch.tensor([-1234.5, 3.25])


@pytest.mark.parametrize("name", TEXTS)
def test_a_trace_has_no_text_of_a_tensor(name: str) -> None:
    """Without data there is none; the diagram can be read."""
    diagram = trace(Longer(TEXTS[name]), X)
    assert "mul" in f"{diagram}"
    with pytest.raises(CircuitError, match=r"test_texts_of_tensors\.py:\d+ makes a text of a tensor.*record it with"):
        diagram(X)


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_trace_has_no_text_of_a_number_of_the_data(name: str) -> None:
    with pytest.raises(CircuitError, match=r"depends on data|symbolic numbers do not support"):
        trace(Longer(NUMBERS[name]), X)


@pytest.mark.parametrize("name", TEXTS | NUMBERS)
def test_a_tracked_run_makes_the_text_again(name: str) -> None:
    """And refuses another one."""
    model = Longer((TEXTS | NUMBERS)[name])
    diagram = recorded("track", model, X)
    assert torch.equal(diagram(X), model(X))
    if model.text(OTHER) == model.text(X):
        assert torch.equal(diagram(OTHER), model(OTHER))
    else:
        with pytest.raises(CircuitError, match="test_texts_of_tensors"):
            diagram(OTHER)


class ForReaders(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print(x, f"{x}")
        logging.getLogger("test").info(f"{x}")
        warnings.warn(f"{x}", stacklevel=2)
        if x.shape[0] > 5:
            raise ValueError(f"{x}")
        return x * 2


@pytest.mark.parametrize("kind", ["trace", "track"])
def test_texts_for_readers_do_not_matter(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = ForReaders()
    with pytest.warns(UserWarning, match=r"ensor\("):
        diagram = recorded(kind, model, X)
    assert capsys.readouterr().out
    assert torch.equal(diagram(OTHER), OTHER * 2)
