"""After a trace no fake tensor is left in globals, classes and caches: it is removed, and what was lost is named."""

import functools
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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


@pytest.mark.parametrize(
    ("run", "where"),
    [
        (_in_table, "TABLE, a global of .*test_leaks"),
        (_in_log, "LOG, a global of .*test_leaks"),
        (_as_global, "a global of .*test_leaks"),
        (InClass(), "a class attribute of InClass"),
        (InTableOfClass(), "a class attribute of InTableOfClass"),
    ],
)
def test_a_tensor_kept_in_a_global_or_a_class_is_removed_and_named(run: Any, where: str) -> None:
    with pytest.raises(CircuitError, match=f"the run keeps a tensor in {where}"):
        trace(run, torch.ones(2))
    assert (TABLE, LOG, InTableOfClass.table) == ({}, [], {})
    assert "LAST" not in globals() or LAST is None
    assert "shared" not in vars(InClass) or InClass.shared is None


def test_a_cache_of_a_function_is_emptied() -> None:
    for function in (lambda x: x * _mask(2), lambda x: _doubled(x) + 1):
        diagram = trace(function, torch.ones(2))
        assert torch.equal(diagram(torch.full((2,), 3.0)), function(torch.full((2,), 3.0)))
    assert type(_mask(2)) is Tensor


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
