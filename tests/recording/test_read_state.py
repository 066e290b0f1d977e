# pyright: reportArgumentType=false, reportCallIssue=false
"""Attributes, globals and other variables that the code read, and that are others when the diagram runs."""

import copy
import itertools
import pickle
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, Diagram, backward, simplify, trace, track

X = torch.tensor([0.5, -1.0, 2.0])


class Config:
    def __init__(self) -> None:
        self.scale, self.layers, self.inner = 2.0, [1, 2], types.SimpleNamespace(z=3)


class Model(nn.Module):
    """A module with plain attributes."""

    factor = 4.0

    def __init__(self, way: Callable[[Any, Tensor], Tensor] = lambda _, x: x) -> None:
        super().__init__()
        self.way = way
        self.scale, self.pair, self.kind, self.unread = 2.0, (1, 2), "relu", 1
        self.flags, self.table, self.config = [1, 2], {"k": 3.0}, Config()
        self.function = torch.sin
        self.leaky, self.drop = nn.LeakyReLU(0.1), nn.Dropout(0.5)
        self.maybe: Any = None
        self.listed = nn.ModuleList([nn.Tanh(), nn.ReLU()])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def _listed(model: Model, x: Tensor) -> Tensor:
    for part in model.listed:
        x = part(x)
    return x


def _maybe(model: Model, x: Tensor) -> Tensor:
    return x if model.maybe is None else model.maybe(x)


def _hook(module: nn.Module, args: Any, result: Tensor) -> Tensor:
    return result * 3


CASES: dict[str, tuple[Callable[[Model, Tensor], Tensor], Callable[[Model], Any], str]] = {
    "number": (lambda m, x: x * m.scale, lambda m: setattr(m, "scale", 3.0), "Model.scale.* as 2.0, and now it is 3.0"),
    "type of a number": (lambda m, x: x * m.scale, lambda m: setattr(m, "scale", 2), "Model.scale"),
    "text": (lambda m, x: getattr(torch, m.kind)(x), lambda m: setattr(m, "kind", "sin"), "kind.* as 'relu'"),
    "tuple": (lambda m, x: x * m.pair[0], lambda m: setattr(m, "pair", (5, 2)), "pair"),
    "list": (lambda m, x: x * m.flags[0], lambda m: m.flags.__setitem__(0, 7), r"flags\[0\] as 1, and now it is 7"),
    "other list": (lambda m, x: x * m.flags[0], lambda m: setattr(m, "flags", [7]), "flags"),
    "longer list": (lambda m, x: x * len(m.flags), lambda m: m.flags.append(7), "flags"),
    "dict": (lambda m, x: x * m.table["k"], lambda m: m.table.update(k=5.0), "Model.table.k as 3.0"),
    "new key": (lambda m, x: x * len(m.table), lambda m: m.table.update(j=5.0), "Model.table.j as nothing"),
    "config": (lambda m, x: x * m.config.scale, lambda m: setattr(m.config, "scale", 5.0), "Model.config.scale as 2.0"),
    "inner config": (lambda m, x: x * m.config.inner.z, lambda m: setattr(m.config.inner, "z", 5), "inner.z as 3"),
    "list in a config": (lambda m, x: x * m.config.layers[1], lambda m: m.config.layers.insert(0, 5), "config.layers"),
    "function": (lambda m, x: m.function(x), lambda m: setattr(m, "function", torch.cos), "function.*sin, .*cos"),
    "slope of a layer": (lambda m, x: m.leaky(x), lambda m: setattr(m.leaky, "negative_slope", 0.5), "negative_slope"),
    "training": (lambda m, x: m.drop(x), lambda m: m.train(), "drop.training.* as False, and now it is True"),
    "other layer": (lambda m, x: m.leaky(x), lambda m: setattr(m, "leaky", nn.ReLU()), "leaky.*a LeakyReLU.*a ReLU"),
    "other layer of a class": (lambda m, x: m.leaky(x), lambda m: setattr(m, "leaky", nn.LeakyReLU(0.7)), "leaky"),
    "layer that was None": (_maybe, lambda m: setattr(m, "maybe", nn.Tanh()), "maybe"),
    "layer in a list": (_listed, lambda m: m.listed.append(nn.Tanh()), "listed"),
    "hook": (lambda m, x: m.leaky(x), lambda m: m.leaky.register_forward_hook(_hook), "a hook was added to .*leaky"),
    "other forward": (lambda m, x: m.leaky(x), lambda m: setattr(m.leaky, "forward", torch.sin), "leaky.forward"),
    "class attribute": (lambda m, x: x * m.factor, lambda _: setattr(Model, "factor", 5.0), "Model.factor.* as 4.0"),
}  # fmt: skip


def recorded(kind: str, target: Any, *args: Any) -> Diagram:
    if kind == "trace":
        return trace(target, *args)
    with track(target, to=None) as seen:
        target(*args)
    return seen.diagram


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", ["trace", "track"])
@pytest.mark.parametrize("name", CASES)
def test_a_diagram_refuses_to_run_with_another_value_than_the_code_read(name: str, kind: str) -> None:
    way, change, message = CASES[name]
    model = Model(way)
    diagram = recorded(kind, model, X)
    others = [diagram.function(), simplify(diagram), copy.deepcopy(diagram)]
    assert all(torch.equal(each(X), model(X)) for each in (diagram, *others))
    model.unread, model.other = 2, 3
    assert torch.equal(diagram(X), model(X))
    before = Model.factor
    change(model)
    try:
        for each in (diagram, *others[:2], lambda x: backward(diagram)(x, x)):
            with pytest.raises(CircuitError, match=message):
                each(X)
        if name != "class attribute":
            others[2](X)  # which has its own copy of the model
        assert torch.equal(recorded(kind, model.eval(), X)(X), model(X))
    finally:
        Model.factor = before


def test_a_refusal_names_the_line_that_read_the_value() -> None:
    model = Model(lambda m, x: x * m.scale)
    diagram = trace(model, X)
    model.scale = 5.0
    with pytest.raises(CircuitError, match=rf"Model.scale at {__file__}:\d+ as 2.0"):
        diagram(X)


def test_a_pickled_diagram_compares_the_state_of_its_own_model() -> None:
    model = nn.Sequential(nn.LeakyReLU(0.1), nn.Linear(3, 2))
    other: Any = pickle.loads(pickle.dumps(trace(model, X)))
    model[0].negative_slope = 0.5
    model[0].negative_slope = 0.1
    assert torch.equal(other(X), model(X))


def test_equal_values_are_the_same() -> None:
    model = Model(lambda m, x: x * m.scale * m.flags[0] * m.pair[0])
    diagram = trace(model, X)
    model.scale, model.flags, model.pair = float("2"), [1, 2], (*model.pair,)
    assert torch.equal(diagram(X), model(X))


@pytest.mark.parametrize("kind", ["trace", "track"])
def test_tensors_in_a_list_or_tuple_of_the_model_are_those_of_each_run(kind: str) -> None:
    model: Any = Model(lambda m, x: x * m.flags[0] + m.pair[0] * m.pair[1])
    model.flags, model.pair = [torch.ones(3)], (torch.ones(3), 2)
    diagram = recorded(kind, model, X)
    model.flags, model.pair = [torch.zeros(3)], (torch.full((3,), 5.0), 2)
    assert torch.equal(diagram(X), model(X))
    model.pair = (torch.ones(3), 3)
    with pytest.raises(CircuitError, match=r"Model.pair"):
        diagram(X)


def test_a_layer_that_is_replaced_by_an_equal_one_is_used() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU()))
    diagram = trace(model, X)
    model[0], model[1] = nn.Linear(3, 2), nn.Sequential(nn.ReLU())
    assert torch.equal(diagram(X), model(X))
    model[0] = nn.Linear(3, 2, bias=False)
    with pytest.raises(CircuitError, match=r"Sequential.0"):
        diagram(X)


SCALE, PAIR, SETTINGS = 2.0, [1.0], {"k": 2.0}
COUNT = 0


def _helper(x: Tensor) -> Tensor:
    return x * SCALE


def _uses_globals(x: Tensor) -> Tensor:
    return _helper(x) * PAIR[0] * SETTINGS["k"]


class UsesGlobals(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def inner(self, x: Tensor) -> Tensor:
        return _uses_globals(x)


@pytest.mark.parametrize("kind", ["trace", "track"])
def test_globals_that_the_code_names(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for target in (UsesGlobals(), _uses_globals) if kind == "trace" else (UsesGlobals(),):
        diagram = recorded(kind, target, X)
        for name, value in (("SCALE", 3.0), ("PAIR", [5.0]), ("_helper", torch.sin)):
            with monkeypatch.context() as patch:
                patch.setitem(globals(), name, value)
                with pytest.raises(CircuitError, match=f"read {name}"):
                    diagram(X)
        with monkeypatch.context() as patch:
            patch.setitem(SETTINGS, "k", 7.0)
            with pytest.raises(CircuitError, match=r"SETTINGS.k as 2.0, and now it is 7.0"):
                diagram(X)
        for each in (diagram, copy.deepcopy(diagram), pickle.loads(pickle.dumps(diagram))):
            assert torch.equal(each(X), target(X))


def _counts_a_global(x: Tensor) -> Tensor:
    global COUNT
    COUNT += 1
    return x * COUNT


class CountsInItsClass(nn.Module):
    count = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).count += 1
        return x * self.count


class CountsAGlobal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _counts_a_global(x)


def _counts_a_variable() -> Any:
    n = 0

    def run(x: Tensor) -> Tensor:
        nonlocal n
        n += 1
        return x * n

    return run


def _keeps_a_tensor_in_a_variable() -> Any:
    state = torch.zeros(3)

    def run(x: Tensor) -> Tensor:
        nonlocal state
        state = state + x
        return state * 2

    return run


def _counts_an_attribute() -> Any:
    def run(x: Tensor) -> Tensor:
        itself.n = getattr(itself, "n", 0) + 1
        return x * itself.n

    itself: Any = run
    return run


def _takes_from_an_iterator() -> Any:
    numbers = itertools.count(1)
    return lambda x: x * next(numbers)


REBINDING: dict[str, tuple[Callable[[], Any], str]] = {
    "global": (lambda: _counts_a_global, rf"assigns the global COUNT at {__file__}:\d+"),
    "global of a function": (CountsAGlobal, rf"assigns the global COUNT at {__file__}:\d+"),
    "class attribute": (CountsInItsClass, "assigns CountsInItsClass.count"),
    "variable": (_counts_a_variable, rf"assigns the variable n at {__file__}:\d+"),
    "tensor in a variable": (_keeps_a_tensor_in_a_variable, "assigns the variable state"),
    "attribute of a function": (_counts_an_attribute, "assigns .*run.n"),
    "iterator": (_takes_from_an_iterator, "the iterator .*numbers"),
    "random": (lambda: lambda x: x * random.random(), "Python's random"),
    "numpy.random": (lambda: lambda x: x * float(np.random.rand()), "numpy.random"),
}


@pytest.mark.parametrize("name", REBINDING)
def test_a_run_that_assigns_a_variable_is_refused_and_a_trace_leaves_it(name: str) -> None:
    """The trace has no effect: the next call computes what it would have computed without."""
    make, message = REBINDING[name]
    target = make()
    states = random.getstate(), np.random.get_state()[1].tolist()
    diagram = trace(target, X)
    assert states == (random.getstate(), np.random.get_state()[1].tolist())
    with pytest.raises(CircuitError, match=message):
        diagram(X)
    with pytest.raises(CircuitError, match=message):
        diagram.function()
    if name in ("global", "global of a function"):
        assert COUNT == 0
    elif name not in ("iterator", "random", "numpy.random"):
        assert torch.equal(target(X), X * (2 if "tensor" in name else 1))
        CountsInItsClass.count = 0


def test_a_mutable_default_is_changed_by_the_diagram_as_by_the_code() -> None:
    def run(x: Tensor, counts: list[int] = [0]) -> Tensor:  # noqa: B006
        counts[0] += 1
        return x * counts[0]

    diagram = trace(run, X)
    assert torch.equal(diagram(X), X)
    with pytest.raises(CircuitError, match=r"a default of .*run\[0\]|expected|recorded with 0, got 1"):
        diagram(X)
    assert torch.equal(run(X), X * 2)
