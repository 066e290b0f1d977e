"""Numbers that the code of a run keeps between its calls, in a global container or an iterator."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, trace, track

X = torch.tensor([1.0, 2.0])

STATE = {"n": 0}


class CountsInAGlobalDict(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        STATE["n"] += 1
        return x * STATE["n"]


@pytest.mark.parametrize("record", ["trace", "track"])
def test_a_number_in_a_global_dict_is_changed_once_and_then_refused(
    record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STATE, "n", 0)
    model = CountsInAGlobalDict()
    if record == "trace":
        diagram = trace(model, X)
        assert STATE["n"] == 0
    else:
        with track(model, to=None) as seen:
            assert torch.equal(model(X), X)
        diagram = seen.diagram
        assert STATE["n"] == 1
        STATE["n"] = 0
    assert torch.equal(diagram(X), X)
    assert STATE["n"] == 1
    with pytest.raises(CircuitError, match="recorded with 0, got 1"):
        diagram(X)
    assert torch.equal(model(X), X * 2)


def _names_an_iterator_in_a_closure() -> Any:
    numbers = iter([2.0, 3.0, 4.0])
    return lambda x: x * next(numbers)


def test_a_plain_function_that_takes_items_of_an_iterator_is_refused() -> None:
    diagram = trace(_names_an_iterator_in_a_closure(), X)
    with pytest.raises(CircuitError, match="may take items of the iterator numbers"):
        diagram(X)
