# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalOperand=false
"""trace copies the arguments of any type: the call runs as it was made, and the user's objects do not change."""

import collections
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from circuits import CircuitError, circuit, trace


class Cache:
    """An object that a call changes, like the caches of transformers."""

    def __init__(self) -> None:
        self.keys = torch.zeros(1, 0, 4)
        self.history: list[Tensor] = []

    def update(self, new: Tensor) -> Tensor:
        self.keys = torch.cat([self.keys, new], 1)
        self.history.append(new)
        return self.keys


class Attend(nn.Module):
    """A module that updates a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(4, 4)

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        keys = cache.update(self.key(x))
        return (x @ keys.mT).softmax(-1) @ keys


@dataclass
class Options:
    """A dataclass with a list that a call appends to."""

    scale: float = 2.0
    seen: list[Any] = field(default_factory=list)


def appends(x: Tensor, options: Options) -> Tensor:
    options.seen.append(x)
    options.scale += 1
    return x * options.scale


def counts(x: Tensor, counter: Any) -> Tensor:
    counter["calls"] += 1
    return x * counter["calls"]


def writes(x: Tensor, holder: list[Any]) -> Tensor:
    holder[0]["x"] = x
    holder.append(x)
    return x + 1


def test_an_object_that_the_call_changes_is_copied() -> None:
    model, cache = Attend(), Cache()
    model(torch.rand(1, 6, 4), cache)
    keys, history = cache.keys, list(cache.history)
    for call in ({"cache": cache}, {"cache": cache, "x": torch.rand(1, 1, 4)}):
        diagram = trace(model, *(() if "x" in call else (torch.rand(1, 1, 4),)), **call)
        assert diagram.outputs[0].sizes == (1, 1, 4)
    assert cache.keys is keys
    assert len(cache.history) == 1
    assert cache.history[0] is history[0]
    assert type(model(torch.rand(1, 1, 4), cache)) is Tensor


def test_containers_that_the_call_changes_are_copied() -> None:
    x, options, counter, holder = torch.ones(3), Options(), collections.Counter(calls=1), [{}]
    default: Any = collections.defaultdict(int)
    trace(appends, x, options)
    trace(counts, x, counter)
    trace(counts, x, default)
    trace(writes, x, holder)
    assert (options, counter, default, holder) == (Options(), collections.Counter(calls=1), {}, [{}])


class Graph:
    """An object that holds tensors."""

    def __init__(self) -> None:
        self.x, self.edges = torch.rand(3, 4), torch.tensor([[0, 1], [1, 2]])


class Gnn(nn.Module):
    """A module whose only argument is an object."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, data: Graph) -> Tensor:
        return torch.zeros(len(data.x), 2).index_add(0, data.edges[1], self.linear(data.x)[data.edges[0]])


class FromArray(nn.Module):
    """A module whose only argument is a numpy array."""

    def forward(self, array: Any) -> Tensor:
        return torch.from_numpy(array).cos()


class Prompt(nn.Module):
    """A module without tensor arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.rand(3, 4))

    def forward(self, times: int = 1) -> Tensor:
        return self.prompt.softmax(-1).repeat(times, 1)


@pytest.mark.parametrize(
    ("model", "args", "kwargs"),
    [
        (Gnn(), (Graph(),), {}),
        (Gnn(), (), {"data": Graph()}),
        (Prompt(), (), {}),
        (Prompt(), (2,), {}),
        (Prompt(), (), {"times": 2}),
    ],
)
def test_a_call_without_tensors_runs_as_it_was_made(model: Any, args: Any, kwargs: Any) -> None:
    diagram = trace(model, *args, **kwargs)
    assert torch.equal(diagram(*args, **kwargs), model(*args, **kwargs))
    held = (
        [value for each in (*args, *kwargs.values()) for value in vars(each).values()] if isinstance(model, Gnn) else []
    )
    assert not any(isinstance(value, FakeTensor) for value in held)


def test_a_numpy_array_is_read_again_and_another_one_is_refused() -> None:
    array = np.ones((2, 4), dtype=np.float32)
    diagram = trace(FromArray(), array)
    assert torch.equal(diagram(array.copy()), torch.from_numpy(array).cos())
    array[0] = 3
    with pytest.raises(CircuitError, match=r"array.data: the diagram was recorded with"):
        diagram(array)


def test_tensors_in_an_object_are_inputs() -> None:
    model, other = Gnn(), Graph()
    diagram = trace(model, Graph())
    assert [value.name for value in diagram.inputs] == ["data.x", "data.edges"]
    other.x = other.x + 1
    for run in (diagram, diagram.function()):
        assert torch.equal(run(other), model(other))


class Config:
    """An object without tensors."""

    def __init__(self, scale: float) -> None:
        self.scale, self.names = scale, ["a"]


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        (Config(2.0), lambda each: setattr(each, "scale", 3.0)),
        (Config(2.0), lambda each: each.names.append("b")),
        (Config(2.0), lambda each: setattr(each, "more", 1)),
        (Options(2.0), lambda each: setattr(each, "scale", 3.0)),
        ({"scale": [2.0]}, lambda each: each["scale"].append(3.0)),
        ([], lambda each: each.append(1)),
        (np.ones(2), lambda each: each.fill(3.0)),
        ({1, 2}, lambda each: each.add(3)),
        (bytearray(b"a"), lambda each: each.extend(b"b")),
        (collections.deque([1]), lambda each: each.append(2)),
        (collections.Counter(a=1), lambda each: each.update("a")),
    ],
)
def test_an_argument_that_changed_since_is_refused(argument: Any, change: Any) -> None:
    x = torch.ones(2)
    diagram = trace(lambda x, _: x * 2, x, argument)
    assert torch.equal(diagram(x, argument), x * 2)
    change(argument)
    with pytest.raises(CircuitError, match=r"recorded with|expected"):
        diagram(x, argument)


def test_refusals_of_calls_without_tensors() -> None:
    with pytest.raises(CircuitError, match="pass inputs"):
        trace(nn.Linear(4, 2))
    with pytest.raises(CircuitError, match=r"sizes .* arguments were given"):
        trace(Prompt(), 2, sizes={"b": 3})
    with pytest.raises(CircuitError, match="describe 1 tensors, but the arguments contain 0"):
        trace(Prompt(), 2, axes="b")
    with pytest.raises(CircuitError, match=r"argument 2 of the call, of type generator, cannot be copied"):
        trace(lambda x, _: x, torch.ones(2), (each for each in [1]))
    with pytest.raises(CircuitError, match=r"argument key of the call, of type list, cannot be copied"):
        trace(lambda x, key: x, torch.ones(2), key=[(each for each in [1]), threading.Lock()])


@pytest.mark.slow
def test_modules_parameters_and_generators_among_the_arguments() -> None:
    layer, x, generator = nn.Linear(4, 4), torch.rand(2, 4), torch.Generator().manual_seed(3)
    state = generator.get_state()

    def applies(x: Tensor, module: Any, weight: Tensor, generator: Any) -> Tensor:
        return module(x) @ weight + torch.rand(4, generator=generator)

    diagram = trace(applies, x, layer, layer.weight, generator)
    assert torch.equal(generator.get_state(), state)
    expected = applies(x, layer, layer.weight, torch.Generator().manual_seed(3))
    assert torch.equal(diagram(x, layer, layer.weight, generator), expected)
    assert diagram.boxes[0].label == "Linear"


def test_optional_arguments_of_a_circuit_are_still_given_by_keyword() -> None:
    @circuit("n -> n")
    def scaled(x: Tensor, by: list[float] | None = None) -> Tensor:
        return x * (by.pop() if by else 1.0)

    by = [3.0]
    diagram = trace(scaled, by=by)
    assert by == [3.0]
    assert torch.equal(diagram(torch.ones(2), by=[3.0]), 3 * torch.ones(2))


@pytest.mark.slow
def test_a_part_that_cannot_be_copied_and_is_made_again_at_each_attempt_is_refused() -> None:
    class Part:
        def __reduce__(self) -> Any:
            raise TypeError("no copy")

    class Whole:
        def __reduce__(self) -> Any:
            return Whole, (), {"part": Part()}

    model = nn.Linear(4, 3)
    vars(model)["whole"] = Whole()
    with pytest.raises(CircuitError, match="cannot be copied, so it cannot be traced: no copy"):
        trace(model, torch.ones(2, 4))


def hooked(value: Any) -> nn.Module:
    """Return a module with a hook that refers to a value by a variable around it."""
    model = nn.Linear(4, 3)
    model.register_forward_hook(
        lambda module, args, out: out * next(value) if hasattr(value, "send") else value and out
    )
    return model


def test_a_generator_that_a_hook_refers_to_is_not_used_up() -> None:
    numbers = (n for n in (2.0, 3.0))
    with pytest.raises(CircuitError, match="<lambda> refers to an iterator, which the trace would use up"):
        trace(hooked(numbers), torch.ones(2, 4))
    assert next(numbers) == 2


def test_a_table_says_what_a_hook_shares_because_it_cannot_be_copied() -> None:
    class Part(nn.Module):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copy")

    assert "shares Part" in str(trace(hooked(Part()), torch.ones(2, 4)))
    assert "shares lock" in str(trace(hooked(threading.Lock()), torch.ones(2, 4)))
