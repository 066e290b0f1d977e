# pyright: reportArgumentType=false, reportCallIssue=false
"""A diagram returns containers of the same type and content as the run, also dataclasses that are mappings."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits import trace, track


class Output(OrderedDict[str, Any]):
    """A mapping whose items are its fields that are not None, like `ModelOutput` of transformers."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __delitem__(self, key: str) -> None:
        raise TypeError("fields cannot be deleted")


@dataclass
class MaskedOutput(Output):
    """Two results, the first of which may be left out."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden: tuple[Tensor, ...] | None = None


@dataclass
class Bag(dict[Any, Any]):
    """A dict with a field that is one of its items, and an item whose key is no name."""

    x: Any = None

    def __post_init__(self) -> None:
        self.update({"x": self.x, 3: self.x})


@dataclass(frozen=True, slots=True)
class Frozen:
    """A dataclass without a `__dict__`."""

    x: Tensor
    y: int = 2


@dataclass
class Strict:
    """A dataclass that can only be made with an argument for `__new__`."""

    x: Tensor

    def __new__(cls, x: Tensor) -> Any:
        return super().__new__(cls)


RESULTS: dict[str, Callable[[Tensor], Any]] = {
    "ordered dict": lambda x: OrderedDict(b=x.cos(), a=x),
    "output": lambda x: MaskedOutput(logits=x.cos(), hidden=(x.sin(), x)),
    "whole output": lambda x: MaskedOutput(loss=x.sum(), logits=x.cos()),
    "dict": lambda x: Bag(x.cos()),
    "frozen": lambda x: Frozen(x.cos()),
    "strict": lambda x: Strict(x.cos()),
    "nested": lambda x: {"all": [MaskedOutput(logits=x.cos()), MaskedOutput(loss=x)]},
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_diagram_returns_what_the_function_returns(name: str) -> None:
    function = RESULTS[name]
    x, other = torch.rand(2, 3), torch.rand(2, 3)

    class Returns(torch.nn.Module):
        def forward(self, x: Tensor) -> Any:
            return function(x)

    returns = Returns()
    with track(returns, to=None) as seen:
        returns(x)
    for diagram in (trace(returns, x), seen.diagram):
        found, expected = diagram(other), function(other)
        assert type(found) is type(expected)
        assert repr(found) == repr(expected)
        if isinstance(expected, dict):
            assert list(found) == list(expected)
            assert list(reversed(found)) == list(reversed(expected))
        if isinstance(expected, MaskedOutput):
            assert found.loss is None or torch.equal(found.loss, expected.loss)
            found["extra"] = other
            assert list(found)[-1] == "extra"
