"""After a trace no fake tensor is left in globals, classes and caches: it is removed, and what was lost is named."""

import functools
import gc
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from circuits import CircuitError, trace
from circuits.recording import leaks

TABLE: dict[str, Any] = {}
LOG: list[Tensor] = []


@functools.lru_cache
def _mask(n: int) -> Tensor:
    return torch.ones(n)


@functools.lru_cache
def _doubled(x: Tensor) -> Tensor:
    return x * 2


class InClass(nn.Module):
    """A module that keeps a tensor in its class."""

    shared: Any = None

    def forward(self, x: Tensor) -> Tensor:
        InClass.shared = x
        return x + 1


class InTableOfClass(nn.Module):
    """A module that keeps a tensor in a table of its class."""

    table: dict[str, Any] = {}  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        self.table["x"] = x
        return x + 1


def _in_table(x: Tensor) -> Tensor:
    TABLE["x"] = x + 1
    return x


def _in_log(x: Tensor) -> Tensor:
    LOG.append(x)
    return x


def _as_global(x: Tensor) -> Tensor:
    global LAST
    LAST = x
    return x


LAST: Any = None


elsewhere: Any = types.ModuleType("elsewhere")
elsewhere.__file__, elsewhere.TABLE = "elsewhere.py", {}
sys.modules["elsewhere"] = elsewhere


def _in_table_of_another_module(x: Tensor) -> Tensor:
    elsewhere.TABLE["x"] = x
    return x


def _as_global_of_another_module(x: Tensor) -> Tensor:
    elsewhere.LAST = x
    return x


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "where"),
    [
        (_in_table_of_another_module, "TABLE, a global of elsewhere"),
        (_as_global_of_another_module, "a global of elsewhere"),
    ],
)
def test_a_tensor_kept_where_the_code_is_not_seen_to_write_is_removed_and_named(run: Any, where: str) -> None:
    with pytest.raises(CircuitError, match=f"the run keeps a tensor in {where}"):
        trace(run, torch.ones(2))
    assert elsewhere.TABLE == {}
    assert not hasattr(elsewhere, "LAST")


@pytest.mark.parametrize(
    ("run", "table"), [(_in_table, TABLE), (InTableOfClass(), InTableOfClass.table), (_in_log, LOG)]
)
def test_a_diagram_writes_to_the_table_to_which_the_run_writes(run: Any, table: Any) -> None:
    diagram = trace(run, torch.ones(2))
    assert not table
    found = diagram(torch.full((2,), 3.0))
    written = [*(table.values() if isinstance(table, dict) else table)]
    table.clear()
    assert torch.equal(found, run(torch.full((2,), 3.0)))
    expected = table.values() if isinstance(table, dict) else table
    assert all(map(torch.equal, written, expected))
    table.clear()


@pytest.mark.parametrize("run", [_as_global, InClass()])
def test_a_tensor_that_is_assigned_to_a_global_or_class_is_not_left_there(run: Any) -> None:
    diagram = trace(run, torch.ones(2))
    assert LAST is None
    assert InClass.shared is None
    with pytest.raises(CircuitError, match=r"the run assigns (the global LAST at .*test_leaks.py:\d+|InClass.shared),"):
        diagram(torch.ones(2))


@pytest.mark.slow
def test_a_cache_of_a_function_is_emptied() -> None:
    for function in (lambda x: x * _mask(2), lambda x: _doubled(x) + 1):
        diagram = trace(function, torch.ones(2))
        assert torch.equal(diagram(torch.full((2,), 3.0)), function(torch.full((2,), 3.0)))
    assert type(_mask(2)) is Tensor


@pytest.mark.slow
def test_a_cache_that_a_failed_run_has_filled_is_emptied() -> None:
    def fails(x: Tensor) -> Tensor:
        raise ValueError(f"{x.shape} {_mask(5).shape}")

    with pytest.raises(ValueError, match=r"torch\.Size"):
        trace(fails, torch.ones(2))
    assert type(_mask(5)) is Tensor


class Cyclic(nn.Module):
    """A module that refers to itself by a hook and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.itself = nn.Linear(4, 4), [self]
        self.register_forward_hook(lambda module, args, result: self.linear(result))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


@pytest.mark.parametrize("model", [nn.Linear(4, 4), nn.LSTM(4, 4), nn.TransformerEncoderLayer(4, 2), Cyclic()])
def test_an_ordinary_trace_leaves_nothing_and_collects_no_garbage(model: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(leaks.gc, "collect", lambda: pytest.fail("the garbage collector ran"))
    gc.disable()
    try:
        trace(model, torch.rand(3, 4))
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("run", [_in_table_of_another_module, _as_global_of_another_module])
def test_what_is_frozen_is_searched_too(run: Any) -> None:
    """Training scripts and servers call `gc.freeze()` to shorten collections; it hides their tables from `gc`."""
    if not gc.get_freeze_count():
        gc.freeze()
    frozen = gc.get_freeze_count()
    with pytest.raises(CircuitError, match="a global of elsewhere"):
        trace(run, torch.ones(2, 4))
    assert "x" not in elsewhere.TABLE
    assert not isinstance(vars(elsewhere).get("LAST"), FakeTensor)
    assert abs(gc.get_freeze_count() - frozen) < 100  # what has ended is no longer counted


@pytest.mark.slow
def test_a_cache_that_is_frozen_is_emptied() -> None:
    _mask.cache_clear()
    if not gc.get_freeze_count():
        gc.freeze()
    trace(lambda x: x * _mask(5), torch.ones(5))
    assert type(_mask(5)) is Tensor


def test_globals_are_searched_only_for_what_garbage_does_not_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_a_circle(x: Tensor) -> Tensor:
        circle: list[Any] = [x + 1]
        circle.append(circle)
        return circle[0] * 2

    def refuse(*_: Any) -> None:
        raise AssertionError("globals are searched")

    monkeypatch.setattr(leaks, "_Globals", refuse)
    assert trace(in_a_circle, torch.ones(2))
