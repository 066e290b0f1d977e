"""No trace, tracked run or backward circuit keeps a model, a recorder or a fake mode alive, and nothing grows."""

import contextlib
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from circuits import CircuitError, backward, check, circuit, trace, track
from circuits.recording import Listener
from circuits.recording.events import Record

ROOT = Path(__file__).parents[2]


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4))


def tracked(layers: nn.Module) -> None:
    with track(layers, to=None) as seen:
        layers(torch.ones(2, 4))
    str(seen)


def failing(layers: nn.Module) -> None:
    try:
        trace(lambda x: layers(x[:, :3]), axes="b 4")
    except (CircuitError, RuntimeError):
        return
    raise AssertionError("the trace does not fail")


class WithView(nn.Module):
    """A module with a buffer that is a view, of which it reads more than there is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.arange(4)[None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.get_buffer("places")[:, :3]


def failing_with_a_view(_: nn.Module) -> None:
    with contextlib.suppress(RuntimeError):
        trace(WithView(), torch.ones(2, 4))
        raise AssertionError("the trace does not fail")


RUNS: dict[str, Callable[[nn.Module], Any]] = {
    "trace": lambda layers: trace(layers, torch.ones(2, 4)),
    "trace with a free axis": lambda layers: str(trace(layers, axes="b 4")),
    "a trace that fails": failing,
    "track": tracked,
    "a trace that fails with a view": failing_with_a_view,
    "backward": lambda layers: backward(layers, torch.ones(2, 4)),
    "backward with a free axis": lambda layers: str(backward(layers, axes="b 4")),
    "a signed module": lambda layers: circuit("b m -> b m")(layers)(torch.ones(2, 4)),
}


def alive(*kinds: type) -> list[Any]:
    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), kinds)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (" with a " in name)) for name in RUNS])
def test_nothing_keeps_a_model_a_recorder_or_a_fake_tensor_alive(name: str) -> None:
    kinds = (Listener, Record, FakeTensor)
    before = len(alive(*kinds))
    layers = model()
    dead = weakref.ref(layers)
    RUNS[name](layers)
    del layers
    assert len(alive(*kinds)) <= before
    assert dead() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trace with a free axis", "a trace that fails", "backward with a free axis"])
def test_shape_environments_do_not_accumulate(name: str) -> None:
    """torch's own caches keep those of the last call."""
    RUNS[name](model())
    before = len(alive(ShapeEnv))
    for _ in range(2):
        RUNS[name](model())
    assert len(alive(ShapeEnv)) <= before


@pytest.mark.slow
def test_runs_are_kept_only_for_the_user_of_the_sequence() -> None:
    layers, before = model(), len(alive(Record))
    with track(layers, to=None):
        for _ in range(5):
            layers(torch.ones(2, 4))
        assert len(alive(Record)) == before + 1
    with track(layers, to=None) as seen:
        for _ in range(5):
            layers(torch.ones(2, 4))
    assert len(seen) == 5
    assert len(alive(Record)) == before + 5


def signed_text(number: int) -> None:
    circuit(f"a{number} b -> a{number} b")(lambda x: x)(torch.ones(2, 3))


def checked_text(number: int) -> None:
    check(torch.ones(2, 3), f"a{number} b")


MANY = {
    **dict.fromkeys(["a signed module", "signed texts", "checked texts", "calls in one track"], 2000),
    **dict.fromkeys(["track", "trace"], 1000),
    "backward": 200,
    "a trace that fails with a view": 20,
}
"""How many runs of each kind the slow tests make; a trace that fails collects garbage, which is slow."""

VARIES = 20
"""By fewer objects than this, the number of all may vary; what each of the runs left would be at least a hundred."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), MANY.items())
def test_nothing_grows(name: str, count: int) -> None:
    """After half of the runs the bounded caches are full: the other half leaves as many objects as there were."""
    assert grown(name, count // 2) < VARIES


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["trace with a free axis", "backward with a free axis"])
def test_nothing_grows_with_free_axes(name: str) -> None:
    """In a process of its own: the caches of sympy, full of what other tests left there, would vary by more.

    Pytest keeps a record of torch's log for each free axis, too, until a test ends.
    """
    code = f"from tests.recording.test_memory import grown; print(grown({name!r}, 120))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(result.stdout) < VARIES


@pytest.mark.survey
@pytest.mark.parametrize("name", [name for name, count in MANY.items() if 100 < count < 2000])
def test_nothing_grows_in_two_thousand_runs(name: str) -> None:
    assert grown(name, 1000) < VARIES


def grown(name: str, count: int) -> int:
    """Return by how many objects there are more after twice as many runs as after `count`."""
    layers = model()
    runs: dict[str, Callable[[int], Any]] = {
        "signed texts": signed_text,
        "checked texts": checked_text,
        "calls in one track": lambda number: layers(torch.ones(2, 4)),
    }
    run = runs.get(name, lambda number: RUNS[name](model()))
    with track(layers, to=None):
        for number in range(count):
            run(number)
        before = len(alive(object))
        for number in range(count, 2 * count):
            run(number)
        return len(alive(object)) - before
