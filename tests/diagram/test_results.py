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
    "MappingProxyType": (lambda x: types.MappingProxyType({"y": x * 2}), lambda found: found["y"]),
    "ChainMap": (lambda x: collections.ChainMap({"y": x * 2}, {"z": x}), lambda found: found["y"] + found["z"]),
    "UserDict": (lambda x: collections.UserDict(y=x * 2), lambda found: found["y"]),
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


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTS)
def test_a_result_in_an_object_that_is_not_opened_is_refused(name: str) -> None:
    run, x = OBJECTS[name], torch.ones(2)
    model = Runs(run)
    with track(model, to=None) as seen:
        model(x)
    for diagram in (trace(run, x), seen.diagram):
        assert f"is of type {name}" in str(diagram).splitlines()[1]
        for use in (lambda d: d(x), lambda d: d.function(), lambda d: backward(d)):
            with pytest.raises(
                CircuitError, match=f"the result.* is of type {name}, in which tensors are not recorded"
            ):
                use(diagram)


MADE_UNSEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "parameter": lambda x: nn.Parameter((x * 2).detach()),
    "parameter that is read": lambda x: nn.Parameter((x * 2).detach()) + 1,
    "parameter of a part": lambda x: nn.Parameter((x * 2).detach()[1:]),
    "buffer": lambda x: nn.Buffer((x * 2).detach()),
}
"""Functions that return a tensor made unseen of a result to which nothing refers any more."""


@pytest.mark.parametrize("name", MADE_UNSEEN)
def test_a_tensor_made_of_a_result_is_never_the_recorded_one(name: str) -> None:
    run, x, z = MADE_UNSEEN[name], torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 5.0])
    with track(model := Runs(run), to=None) as seen:
        model(x)
    if name == "buffer":
        assert torch.equal(seen.diagram(z), run(z))
    else:
        with pytest.raises(CircuitError, match="made during the run which is not recorded"):
            seen.diagram(z)
    assert torch.equal(trace(run, x)(z), run(z))


def test_a_constant_that_shares_memory_with_a_result_is_not_taken_for_one() -> None:
    constant = torch.tensor([1.0, 2.0])
    part = constant[1:]
    run = lambda x: (constant.view(2, 1) * x, part)  # noqa: E731
    with track(model := Runs(run), to=None) as seen:
        model(torch.ones(2))
    for diagram in (trace(run, torch.ones(2)), seen.diagram):
        assert all(map(torch.equal, diagram(torch.arange(2.0)), run(torch.arange(2.0))))


TEXTS: dict[str, Callable[[Tensor], Any]] = {
    "f-string": lambda x: f"{x.tolist()}",
    "key": lambda x: {repr(x.sum().item()): x},
    "whole number": lambda x: [str(x.long()[0].item()), x],
    "inside": lambda x: {"a": [("at %s" % x.max().item(), x)]},  # noqa: UP031
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_a_number_of_data_is_refused_without_data(name: str) -> None:
    """torch's name for an unknown number is no text of it; a tracked run has the number."""
    run, x = TEXTS[name], torch.tensor([1.0, 2.0])
    with pytest.raises(CircuitError, match="the run needs a value that depends on data"):
        trace(run, x)(x)
    with track(model := Runs(run), to=None) as seen:
        model(x)
    assert repr(seen.diagram(x)) == repr(run(x))
    with pytest.raises(CircuitError, match="and now it is"):
        seen.diagram(x + 1)


def test_a_text_that_looks_like_a_name_of_torch_is_a_result() -> None:
    diagram = trace(lambda x: {"u0": x * x.sum().item(), "s1": "zuf7"}, torch.ones(2))
    assert torch.equal(diagram(torch.tensor([1.0, 2.0]))["u0"], torch.tensor([3.0, 6.0]))


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
