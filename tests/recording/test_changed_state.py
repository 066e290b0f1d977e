# pyright: reportArgumentType=false, reportCallIssue=false
"""State that a run changes by assignment: a diagram assigns the same, at each run, or refuses by name."""

import collections
import copy
import functools
import pickle
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from circuits import CircuitError, backward, simplify, trace, track


class Stateful(nn.Module):
    """A module that changes its state in one of several ways."""

    mean: Tensor

    def __init__(self, way: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way
        self.inner = nn.Sequential(nn.BatchNorm1d(3, affine=False))
        self.register_buffer("mean", torch.zeros(3))
        self.hidden = torch.zeros(3)
        self.calls, self.kept, self.log = 0, {"x": torch.zeros(3)}, [torch.zeros(3)]
        self.cache = types.SimpleNamespace(key=torch.zeros(3), recent=collections.deque([torch.zeros(3)], maxlen=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)

    def state(self) -> list[Any]:
        """All that a way may change, as text."""
        inner: Any = self.inner[0]
        held = [self.mean, self.hidden, self.calls, self.kept, self.log, self.cache, inner.running_mean, vars(inner)]
        return [f"{each}" for each in held[:-1]] + sorted(key for key in held[-1] if not key.startswith("_"))


def _assigns_a_buffer(model: Stateful, x: Tensor) -> Tensor:
    model.mean = 0.9 * model.mean + 0.1 * x
    return x - model.mean


def _registers_a_buffer(model: Stateful, x: Tensor) -> Tensor:
    model.register_buffer("mean", model.mean + x)
    return model.mean * 2


def _assigns_in_a_submodule(model: Stateful, x: Tensor) -> Tensor:
    model.inner[0].running_mean = x + 1
    return x


def _keeps_a_hidden_state(model: Stateful, x: Tensor) -> Tensor:
    model.hidden = model.hidden * 0.5 + x
    return model.hidden + 1


def _writes_to_a_dict(model: Stateful, x: Tensor) -> Tensor:
    model.kept["x"] = model.kept["x"] + x
    return model.kept["x"].sum()


def _writes_to_a_list(model: Stateful, x: Tensor) -> Tensor:
    model.log[0] = x * 3
    return x


def _writes_to_an_object(model: Stateful, x: Tensor) -> Tensor:
    model.cache.key = x + model.cache.key
    model.cache.recent.append(x)
    return model.cache.key


def _binds_a_new_object(model: Stateful, x: Tensor) -> Tensor:
    model.cache = types.SimpleNamespace(key=x + model.cache.key, recent=model.cache.recent)
    return model.cache.key


def _swaps(model: Stateful, x: Tensor) -> Tensor:
    model.hidden, model.mean = model.mean, model.hidden + x
    return model.hidden + x


WAYS = [
    _assigns_a_buffer,
    _registers_a_buffer,
    _assigns_in_a_submodule,
    _keeps_a_hidden_state,
    _writes_to_a_dict,
    _writes_to_a_list,
    _writes_to_an_object,
    _binds_a_new_object,
    _swaps,
]


def _recorded(kind: str, model: nn.Module, *args: Any) -> Any:
    """Return the diagram of a call, by trace or by track."""
    if kind == "trace":
        return trace(model, *args)
    with track(model, to=None) as seen:
        model(*args)
    return seen.diagram


@pytest.mark.every(11)
@pytest.mark.parametrize("kind", ["trace", "track"])
@pytest.mark.parametrize("way", WAYS)
def test_a_diagram_changes_the_state_that_the_model_changes(way: Any, kind: str) -> None:
    """Over several runs, as interpreter, function, simplified and unpickled diagram."""
    for use in (lambda d: d, lambda d: d.function(), simplify):
        model, twin = Stateful(way), Stateful(way)
        if kind == "track":
            twin(torch.ones(3))
        before = model.state()
        diagram = _recorded(kind, model, torch.ones(3))
        assert (model.state() == before) == (kind == "trace")
        run = use(diagram)
        for _ in range(3):
            x = torch.rand(3)
            assert torch.equal(run(x), twin(x))
            assert model.state() == twin.state()


def test_a_copied_or_unpickled_diagram_changes_its_own_model() -> None:
    model = Stateful(_keeps_a_hidden_state)
    diagram = trace(model, torch.ones(3))
    for other in (copy.deepcopy(diagram), pickle.loads(pickle.dumps(diagram))):
        other(torch.ones(3))
        assert torch.equal(other(torch.ones(3)), torch.full((3,), 2.5))
    assert torch.equal(model.hidden, torch.zeros(3))


def _counts(model: Stateful, x: Tensor) -> Tensor:
    model.calls += 1
    return x * model.calls


def _grows(model: Stateful, x: Tensor) -> Tensor:
    model.log.append(x)
    return x * len(model.log)


def _fills_a_cache(model: Stateful, x: Tensor) -> Tensor:
    if "mask" not in model.kept:
        model.kept["mask"] = torch.ones_like(x)
    return x + model.kept["mask"]


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (_counts, r"Stateful.calls: the diagram was recorded with 0, got 1"),
        (_grows, r"Stateful.log: expected list of length 1, got list of length 2"),
        (_fills_a_cache, r"Stateful.kept.mask: the diagram was recorded with Nothing, got a tensor"),
    ],
)
def test_a_change_of_other_values_is_made_once(way: Any, name: str) -> None:
    """The code may do anything with such a value, so the diagram runs where the recorded run began, and only there."""
    model, twin = Stateful(way), Stateful(way)
    diagram = trace(model, torch.ones(3))
    assert torch.equal(diagram(torch.ones(3)), twin(torch.ones(3)))
    assert model.state() == twin.state()
    for use in (diagram, diagram.function(), lambda x: backward(diagram)(x, x)):
        with pytest.raises(CircuitError, match=name):
            use(torch.ones(3))


class Late(nn.Module):
    """A module that makes a layer when it is first called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Linear(4, 2)
        return self.late(self.first(x))


@pytest.mark.parametrize("kind", ["trace", "track"])
def test_a_layer_that_forward_makes_is_a_part_of_the_model(kind: str) -> None:
    model, x = Late(), torch.rand(3, 4)
    diagram = _recorded(kind, model, x)
    assert diagram.box.parameter_count == 30
    assert [box.name for box in diagram.boxes if box.kind == "module"] == ["first", "late"]
    with pytest.raises(CircuitError, match=r"the run keeps an object of type Linear in Late.late"):
        diagram(x)
    model(x)
    assert torch.equal(trace(model, x)(x + 1), model(x + 1))


class Features(nn.Module):
    """A module with a hook that refers to it, or to a dict outside."""

    def __init__(self, kept: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {} if kept is None else kept
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        self.body[1].register_forward_hook(lambda module, args, out: self.kept.update(relu=out))

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return self.kept["relu"] * 2


def test_a_hook_that_refers_to_its_model() -> None:
    outside: dict[str, Tensor] = {}
    for kept in (None, outside):
        model, x, z = Features(kept), torch.rand(2, 4), torch.rand(2, 4)
        trace(model, x)
        assert model.kept == {}
        model(x)
        held = model.kept["relu"]
        diagram = trace(model, z)
        assert model.kept["relu"] is held
        for y in (x, z):
            assert torch.equal(diagram(y), model(y))
            expected = model.kept["relu"]
            diagram(y)
            assert torch.equal(model.kept["relu"], expected)


@pytest.mark.parametrize("kind", ["trace", "track"])
def test_a_hook_that_writes_to_a_dict_that_nothing_else_holds(kind: str) -> None:
    outside: dict[str, Tensor] = {}
    model, x, y = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.rand(2, 4), torch.rand(2, 4)
    model[0].register_forward_hook(lambda module, args, out: outside.update(linear=out))
    diagram = _recorded(kind, model, x)
    assert (outside == {}) == (kind == "trace")
    outside.clear()
    diagram(y)
    assert torch.equal(outside["linear"], model[0](y))


@pytest.mark.parametrize("kind", ["trace", "track"])
@pytest.mark.parametrize("make", [lambda x: [x], lambda x: {0: x}, lambda x: types.SimpleNamespace(x=x)])
def test_an_object_from_before_is_bound_and_not_copied(make: Callable[[Tensor], Any], kind: str) -> None:
    """And the object that was bound before is changed, although the code does not hold it any more."""

    class Binds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = make(torch.zeros(2)), make(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            before = self.first
            self.first = self.second
            held = vars(before) if isinstance(before, types.SimpleNamespace) else before
            held[next(iter(held)) if isinstance(held, dict) else 0] = x * 3
            return x + 1

    model, x = Binds(), torch.rand(2)
    first, second = model.first, model.second
    diagram = _recorded(kind, model, x)
    model.first = first
    diagram(x + 1)
    assert model.first is model.second is second
    assert (f"{first}", f"{second}") == (f"{make((x + 1) * 3)}", f"{make(torch.ones(2))}")


@pytest.mark.parametrize("make", [lambda: [1], lambda: {1}, lambda: collections.deque([1], maxlen=3)])
def test_a_container_around_a_function_has_its_contents_back(make: Callable[[], Any]) -> None:
    outside = make()

    def function(x: Tensor) -> Tensor:
        (outside.add if isinstance(outside, set) else outside.append)(2)
        return x * len(outside)

    trace(function, torch.ones(2))
    assert outside == make()


def test_the_keywords_of_a_partial_have_their_contents_back() -> None:
    def function(x: Tensor, kept: dict[str, Any]) -> Tensor:
        kept["x"] = x
        return x * 2

    kept = {"x": torch.zeros(2)}
    before = kept["x"]
    trace(functools.partial(function, kept=kept), torch.ones(2))
    assert kept["x"] is before


def test_a_lazy_module_changes_its_state() -> None:
    class Keeps(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            self.last = super().forward(input)
            return self.last

    class LazyKeeps(nn.LazyLinear):
        cls_to_become = Keeps

    model: Any = LazyKeeps(3)
    x = torch.rand(2, 4)
    with track(model, to=None) as seen:
        model(x)
    del model.last
    y = seen.diagram(x)
    assert model.last is y


@pytest.mark.parametrize("way", [_assigns_a_buffer, _keeps_a_hidden_state, _writes_to_a_dict, _writes_to_a_list])
def test_a_backward_circuit_changes_no_state(way: Any) -> None:
    model, x = Stateful(way), torch.rand(3, requires_grad=True)
    y = copy.deepcopy(model)(x)
    (expected,) = torch.autograd.grad(y.sum(), x)
    before = model.state()
    torch.testing.assert_close(backward(model, x.detach())(x.detach(), torch.ones_like(y))["x"], expected)
    assert model.state() == before


def test_a_tensor_that_is_not_there_any_more() -> None:
    model = Stateful(lambda model, x: x + model.log[0])
    diagram = trace(model, torch.ones(3))
    model.log.clear()
    with pytest.raises(CircuitError, match=r"Stateful.log: the recorded run read a tensor at 0, and now there is none"):
        diagram(torch.ones(3))


def test_a_function_that_writes_to_a_dict_around_it() -> None:
    kept: dict[str, Any] = {"x": torch.zeros(2)}

    def function(x: Tensor) -> Tensor:
        kept["x"] = kept["x"] + x
        return kept["x"] * 2

    diagram = trace(function, torch.ones(2))
    assert not isinstance(kept["x"], FakeTensor)
    assert torch.equal(diagram(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(diagram(torch.ones(2)), torch.full((2,), 4.0))
    assert torch.equal(function(torch.ones(2)), torch.full((2,), 6.0))


@pytest.mark.slow
def test_a_function_that_fails_leaves_no_fake_tensor_behind() -> None:
    kept: dict[str, Any] = {}

    def function(x: Tensor) -> Tensor:
        kept["x"] = x
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        trace(function, torch.ones(2))
    assert kept == {}


class Memory:
    """An object among the arguments that a call changes."""

    def __init__(self) -> None:
        self.keys, self.steps, self.history = torch.zeros(1), 3, [torch.zeros(1)]


def _grows_an_object(x: Tensor, memory: Any) -> Tensor:
    memory.keys = torch.cat([memory.keys, x])
    memory.steps += 1
    memory.history.append(x * memory.steps)
    return memory.keys.sum()


def _sets_an_item(x: Tensor, holder: Any) -> Tensor:
    holder["k"] = torch.cat([holder["k"], x])
    holder["new"] = {"inside": [x]}
    return holder["k"].sum()


def _pops(x: Tensor, holder: Any) -> Tensor:
    return holder.pop("k") + x


def _appends(x: Tensor, holder: Any) -> Tensor:
    holder.append(x)
    return x


def _writes_deep(x: Tensor, holder: Any) -> Tensor:
    holder["a"][0]["b"].append(x)
    return x


ARGUMENTS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "object": (_grows_an_object, Memory),
    "dict": (_sets_an_item, lambda: {"k": torch.ones(1)}),
    "OrderedDict": (_sets_an_item, lambda: collections.OrderedDict(k=torch.ones(1))),
    "defaultdict": (_sets_an_item, lambda: collections.defaultdict(list, k=torch.ones(1))),
    "pop": (_pops, lambda: {"k": torch.ones(1), "l": 2}),
    "list": (_appends, list),
    "deque": (_appends, collections.deque),
    "deque with contents": (_appends, lambda: collections.deque([torch.zeros(1)])),
    "list with contents": (_appends, lambda: [torch.zeros(1)]),
    "removal from a set": (lambda x, holder: holder.discard(1) or x, lambda: {1, 2}),
    "set of numbers": (lambda x, holder: holder.add(3) or x, lambda: {1}),
    "inside containers": (_writes_deep, lambda: {"a": [{"b": []}]}),
}


def _text(value: Any) -> str:
    return f"{vars(value) if isinstance(value, Memory) else value}"


@pytest.mark.parametrize("kind", ["trace", "track"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_diagram_changes_the_argument_that_it_is_given(name: str, kind: str) -> None:
    function, make = ARGUMENTS[name]

    class Runs(nn.Module):
        def forward(self, x: Tensor, holder: Any) -> Tensor:
            return function(x, holder)

    first = make()
    before = _text(first)
    diagram = _recorded(kind, Runs(), torch.ones(1), first)
    assert (_text(first) == before) == (kind == "trace")
    for run in (diagram, diagram.function()):
        given, expected, x = make(), make(), torch.rand(1)
        assert torch.equal(run(x, holder=given), function(x, expected))
        assert _text(given) == _text(expected)
