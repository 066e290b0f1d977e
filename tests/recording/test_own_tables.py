"""Tables whose class has its own `__getitem__`, `__iter__`, `items` or `copy`: a recording changes and calls none.

The table of activations of transformers is such one: an OrderedDict of classes that returns instances.
"""

from collections import OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, trace
from tests.recording.test_read_state import recorded

X = torch.tensor([0.5, -1.0, 2.0])


class Instances(OrderedDict[str, Any]):
    """Returns an instance of the class that it holds, as the table of transformers does."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key)()


class Refusing(dict[str, Any]):
    """Has only single entries read and written."""

    def fails(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("only the code of the model may do this")

    copy = clear = update = items = values = keys = get = pop = __iter__ = __len__ = __eq__ = __or__ = fails  # type: ignore[assignment]


class Instantiating(list[Any]):
    """A list that returns instances, also where it is iterated."""

    def __getitem__(self, place: Any) -> Any:
        return super().__getitem__(place)()

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    def copy(self, *_: Any) -> Any:
        raise RuntimeError("no copies")

    extend = clear = copy


class UsedUp(deque[Any]):
    """A deque that is empty after it was iterated."""

    def __iter__(self) -> Iterator[Any]:
        while len(self):
            yield self.popleft()


class InstancesBeside(UserDict[str, Any]):
    """Returns an instance of the class in the dict beside it."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key)()


def moved() -> Any:
    table = Instances(tanh=nn.Tanh, relu=nn.ReLU)
    table.move_to_end("tanh")
    return table


TABLES: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Tensor]]] = {
    "instances": (lambda: Instances(relu=nn.ReLU, tanh=nn.Tanh), lambda table, x: table["tanh"](x)),
    "in another order": (moved, lambda table, x: table["tanh"](x)),
    "refusing": (lambda: Refusing(tanh=torch.tanh), lambda table, x: table["tanh"](x)),
    "list": (lambda: Instantiating([nn.Tanh, nn.ReLU]), lambda table, x: table[0](x)),
    "deque": (lambda: UsedUp([torch.tanh, torch.relu]), lambda table, x: table[0](x)),
    "beside": (lambda: InstancesBeside(), lambda table, x: table["tanh"](x)),
    "default": (lambda: defaultdict(lambda: torch.relu, tanh=torch.tanh), lambda table, x: table["tanh"](x)),
    "default by get": (lambda: defaultdict(lambda: torch.relu), lambda table, x: table.get("tanh", torch.tanh)(x)),
}


def held(table: Any) -> list[Any]:
    """What a table holds, by the methods of Python's classes."""
    if isinstance(table, UserDict):
        return list(table.data.items())
    if isinstance(table, OrderedDict):
        return list(OrderedDict.items(table))
    if isinstance(table, dict):
        return list(dict.items(table))
    return list(list.__iter__(table) if isinstance(table, list) else deque.__iter__(table))


TABLE: Any = None
USE: Callable[[Any, Tensor], Tensor] = lambda table, x: x  # noqa: E731


class OfAGlobal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return USE(TABLE, x)


class OfAnAttribute(nn.Module):
    table: Any = None

    def forward(self, x: Tensor) -> Tensor:
        return USE(self.table, x)


@pytest.mark.parametrize("kind", ["trace", "track"])
@pytest.mark.parametrize("place", ["a global", "an attribute", "an attribute of the class"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_left_as_it_is(name: str, place: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded twice, and run: it holds the same objects, in the same order."""
    made, use = TABLES[name]
    table = made()
    if name == "beside":
        table.data["tanh"] = nn.Tanh
    model: Any = OfAGlobal() if place == "a global" else OfAnAttribute()
    monkeypatch.setitem(globals(), "USE", use)
    if place == "a global":
        monkeypatch.setitem(globals(), "TABLE", table)
    elif place == "an attribute":
        if kind == "trace" and name in ("list", "deque"):
            pytest.skip("copy.deepcopy reads such a table by the methods of its class")
        model.table = table
    else:
        monkeypatch.setattr(OfAnAttribute, "table", table)
    before = held(table)
    for _ in range(2):
        diagram = recorded(kind, model, X)
        assert torch.equal(diagram(X), X.tanh())
        after = held(table)
        assert len(after) == len(before)
        assert all(one is other or one == other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ["trace", "track"])
def test_an_entry_that_is_another_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "USE", lambda table, x: table["tanh"](x))
    table = Instances(tanh=nn.Tanh)
    monkeypatch.setitem(globals(), "TABLE", table)
    diagram = recorded(kind, OfAGlobal(), X)
    OrderedDict.__setitem__(table, "tanh", nn.ReLU)
    with pytest.raises(CircuitError, match=r"TABLE\.tanh"):
        diagram(X)


class Grows(dict[str, Any]):
    """Writes its entries by a method of its own, and makes those that are missing."""

    written = 0

    def __setitem__(self, key: str, value: Any) -> None:
        type(self).written += 1
        super().__setitem__(key, value)

    def __missing__(self, key: str) -> Any:
        self[key] = 3.0
        return 3.0


def test_what_a_trace_adds_to_a_table_is_removed_by_no_method_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one write is that of the run."""
    monkeypatch.setitem(globals(), "USE", lambda table, x: x * table["scale"])
    table = Grows(other=1.0)
    monkeypatch.setitem(globals(), "TABLE", table)
    monkeypatch.setattr(Grows, "written", 0)
    diagram = trace(OfAGlobal(), X)
    assert (list(table), Grows.written) == (["other"], 1)
    assert torch.equal(diagram(X), X * 3)
    assert (list(table), Grows.written) == (["other", "scale"], 1)
