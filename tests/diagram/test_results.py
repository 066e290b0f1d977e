"""The result of a diagram: numbers read from data are computed again; an object that is not opened is refused."""

import collections
import dataclasses
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import backward, trace, track
from circuits.errors import CircuitError


class Runs(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Holder:
    """An object that holds a tensor."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def doubled(self) -> Any:
        """Twice what it holds."""
        return self.held * 2


OPENED: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "SimpleNamespace": (lambda x: types.SimpleNamespace(y=x * 2), lambda found: found.y),
    "deque": (lambda x: collections.deque([x * 2]), lambda found: found[0]),
    "bounded deque": (
        lambda x: collections.deque([x, x * 2], maxlen=1),
        lambda found: found.append(found[0] * 3) or found[0],
    ),
    "defaultdict": (
        lambda x: collections.defaultdict(list, y=x * 2),
        lambda found: found["y"] + len(found[1]),
    ),
    "Categorical": (
        lambda x: torch.distributions.Categorical(logits=x, validate_args=False),
        lambda found: found.log_prob(torch.tensor(1)) + found.entropy(),
    ),
    "Normal": (
        lambda x: torch.distributions.Normal(x, x.exp(), validate_args=False),
        lambda found: found.cdf(torch.tensor(0.3)),
    ),
    "Holder": (lambda x: (x * 2, {"inside": [Holder(x + 1)]}), lambda found: found[0] + found[1]["inside"][0].held),
    "object with a method": (lambda x: Holder(Holder(x * 3)), lambda found: found.held.doubled()),
}
"""Results in objects that are made again, each with what is read from the object."""


@pytest.mark.parametrize("name", OPENED)
def test_an_object_whose_state_is_in_its_attributes_is_a_result(name: str) -> None:
    (run, read), x, z = OPENED[name], torch.tensor([0.2, 0.5]), torch.tensor([0.7, 0.1])
    model = Runs(run)
    with track(model, to=None) as seen:
        model(x)
    for diagram in (trace(run, x), seen.diagram):
        for again in (diagram(z), diagram.function()(z)):
            assert type(again) is type(run(z))
            assert torch.equal(read(again), read(run(z)))


class Slots:
    """An object that has no attributes of its own."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


OBJECTS: dict[str, Callable[[Tensor], Any]] = {
    "Slots": lambda x: [Slots(x)],
    "function": lambda x: {"later": lambda: x},
    "generator": lambda x: (each for each in [x]),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_result_in_an_object_that_is_not_opened_is_refused(name: str) -> None:
    run, x = OBJECTS[name], torch.ones(2)
    model = Runs(run)
    with track(model, to=None) as seen:
        model(x)
    for diagram in (trace(run, x), seen.diagram):
        assert f"is of type {name}" in str(diagram).splitlines()[0]
        for use in (lambda d: d(x), lambda d: d.function(), lambda d: backward(d)):
            with pytest.raises(
                CircuitError, match=f"the result.* is of type {name}, in which tensors are not recorded"
            ):
                use(diagram)


@dataclasses.dataclass
class Pair:
    """A dataclass, which is opened."""

    tensor: Tensor
    name: str


def test_containers_and_plain_values_are_results() -> None:
    diagram = trace(lambda x: (Pair(x * 2, "twice"), [None, {"n": x.shape[0], "dtype": x.dtype}], {1, 2}), axes="n")
    pair, others, numbers = diagram(torch.arange(3.0))
    assert (pair.name, others, numbers) == ("twice", [None, {"n": 3, "dtype": torch.float32}], {1, 2})
    assert torch.equal(pair.tensor, torch.arange(3.0) * 2)


NUMBERS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "item of an int": lambda x: x.long().sum().item(),
    "list": lambda x: [x.max().item() * 2, (x * 2).sum().item() + x.shape[0]],
    "tolist": lambda x: x.tolist(),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_read_from_data_are_computed_for_the_new_data(name: str) -> None:
    diagram = trace(NUMBERS[name], torch.ones(2))
    for x in (torch.ones(2), torch.tensor([-3.0, 7.5])):
        assert diagram(x) == NUMBERS[name](x)
