"""Numbers that the code of a run keeps between its calls, in a global container or an iterator."""

from collections.abc import Callable, Iterator
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
    with pytest.raises(CircuitError, match=r"may take items of the iterator .*numbers"):
        diagram(X)


class Takes(nn.Module):
    """Multiplies by the next number of an iterator in an attribute of the class."""

    numbers: Iterator[float] = iter(())

    def forward(self, x: Any, numbers: Any = None) -> Any:
        given = numbers["numbers"] if isinstance(numbers, dict) else numbers
        return x * next(given or self.numbers)


IN_A_DICT: dict[str, Iterator[float]] = {}


class TakesFromAGlobal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * next(IN_A_DICT["numbers"])


def _with_a_hook(numbers: Iterator[float]) -> nn.Module:
    def hook(_module: nn.Module, _args: Any, result: Tensor) -> Tensor:
        return result * next(numbers)

    model = nn.Identity()
    model.register_forward_hook(hook)
    return model


HOLDERS: dict[str, Callable[[Iterator[float]], tuple[nn.Module, tuple[Any, ...]]]] = {
    "an attribute of the class": lambda _: (Takes(), ()),
    "an argument": lambda numbers: (Takes(), (numbers,)),
    "in an argument": lambda numbers: (Takes(), ({"numbers": numbers},)),
    "a variable of a hook": lambda numbers: (_with_a_hook(numbers), ()),
    "in a global": lambda _: (TakesFromAGlobal(), ()),
}


@pytest.mark.parametrize("kind", ["trace", "track"])
@pytest.mark.parametrize("name", HOLDERS)
def test_an_iterator_anywhere_is_refused(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next number would be the recorded one for ever."""
    numbers = iter([2.0, 3.0, 4.0])
    monkeypatch.setattr(Takes, "numbers", numbers)
    monkeypatch.setitem(IN_A_DICT, "numbers", numbers)
    model, args = HOLDERS[name](numbers)
    if kind == "trace":
        diagram = trace(model, X, *args)
    else:
        with track(model, to=None) as seen:
            model(X, *args)
        diagram = seen.diagram
    with pytest.raises(CircuitError, match=r"may take items of the iterator .*(numbers|argument 1)"):
        diagram(X, *args)
