"""The check of what modules of tests leave finds a recorder, or what it made, that is still alive."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from circuits import trace, track
from circuits.recording import Listener
from circuits.recording.aten_calls import RecordedFakeMode
from circuits.recording.fake_forms import FakeMode
from tests.leftovers import Leftovers, no_leftovers

KEPT: list[Any] = []


def fake_tensor() -> Any:
    with FakeMode():
        return torch.ones(2)


def tracked() -> Any:
    layers = nn.Linear(2, 2)
    with track(layers, to=None) as seen:
        layers(torch.ones(2))
    return seen


@functools.cache
def cached() -> Any:
    return tracked()


class Holder:
    """An object outside the tests' globals, with a place for what is left."""

    def __init__(self, left: Any) -> None:
        self.left = left


LEFT: dict[str, Callable[[], Any]] = {
    "1 FakeTensor": fake_tensor,
    "1 Record": tracked,
    "Listener": Listener,
    "RecordedFakeMode": lambda: RecordedFakeMode(Listener(), False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "1 Record")) for name in LEFT])
def test_what_is_left_is_named_with_what_holds_it(name: str) -> None:
    holder = Holder(None)
    with (
        pytest.raises(pytest.fail.Exception, match=f"leave .*{name}.*; the first .* is held by "),
        no_leftovers(),
    ):
        holder.left = LEFT[name]()


@pytest.mark.slow
def test_the_module_that_left_it_is_named() -> None:
    leftovers = Leftovers()
    leftovers.note("first")
    kept = Holder(Listener())
    leftovers.note("second")
    leftovers.note("third")
    with pytest.raises(pytest.fail.Exception, match="the tests of second leave 1 Listener"):
        leftovers.fail()
    kept.left = None
    leftovers.fail()


@pytest.mark.slow
def test_what_globals_and_caches_of_tests_hold_is_not_named() -> None:
    try:
        with no_leftovers():
            cached()
            KEPT.append(fake_tensor())
    finally:
        cached.cache_clear()
        KEPT.clear()


@pytest.mark.slow
def test_garbage_is_not_named() -> None:
    with no_leftovers():
        ring: list[Any] = [Listener()]
        ring.append(ring)
        del ring
        trace(nn.Linear(2, 2), torch.ones(2))
