"""Ctrl-C at any moment, while a tracked run begins, runs or ends, leaves the process as it was."""

import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import checks, circuit, definitions, track
from tests.process_state import attributes, differences, patched, process_state


class Doubles(torch.autograd.Function):
    """A function with its own backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return 2 * grad[0]


class Layers(nn.Module):
    """A model without torch's own transforms, which an interrupt may leave active, recorded or not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    @circuit("... m -> ... m")
    def forward(self, x: Tensor) -> Tensor:
        return Doubles.apply(self.linear(x)).sin()


LAYERS, X = Layers(), torch.rand(2, 3)


def opened() -> None:
    with track(LAYERS, to=None):
        pass


def tracked() -> None:
    with track(LAYERS, to=None), track(LAYERS.linear, to=lambda line: None):
        LAYERS(X)


def switched() -> None:
    with checks(False), definitions(), checks(True):
        LAYERS(X)


RUNS: dict[str, Callable[[], Any]] = {
    "opened": opened,
    "tracked": tracked,
    "switched": switched,
}
STATES = ("switch.py", "interception.py", "thread_modes.py", "contextlib.py")
"""The files whose lines enter and leave contexts."""


def interrupted_at(line: int, run: Callable[[], Any], files: tuple[str, ...]) -> bool:
    """Call `run` and raise KeyboardInterrupt at the given line, counted from 1, of those that it runs in the files."""
    count, thrown = 0, False

    def each_line(frame: Any, event: str, _: Any) -> Any:
        nonlocal count, thrown
        if event == "line" and not thrown:
            count += 1
            if count == line:
                thrown = True
                raise KeyboardInterrupt
        return each_line

    def each_call(frame: Any, event: str, _: Any) -> Any:
        return each_line if Path(frame.f_code.co_filename).name in files else None

    before = sys.gettrace()
    sys.settrace(each_call)
    try:
        run()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return thrown


def assert_clean(state: dict[str, Any], known: dict[str, Any], where: str) -> None:
    """Assert that the process is as it was when `state` and `known` were made."""
    found = [*differences(state, process_state()), *patched(known, attributes())]
    assert not found, f"{where}: {found}"


def at_every_line(name: str, step: int, files: tuple[str, ...] = STATES) -> int:
    """Interrupt a run at every `step`-th line, and assert that the process is clean; return the number of lines."""
    RUNS[name]()
    state, known = process_state(), attributes()
    line = 1
    while interrupted_at(line, RUNS[name], files):
        assert_clean(state, known, f"{name}, line {line}")
        line += step
    RUNS[name]()
    return line


@pytest.mark.parametrize(("name", "step"), [("opened", 1), ("switched", 1), ("tracked", 7)])
def test_an_interrupt_at_any_line(name: str, step: int) -> None:
    assert at_every_line(name, step) > 100


@pytest.mark.slow
def test_an_interrupt_at_every_line_of_a_tracked_run() -> None:
    assert at_every_line("tracked", 1, (*STATES, "listener.py", "track.py", "_python_dispatch.py")) > 100


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signal.setitimer")
@pytest.mark.parametrize(("name", "count"), [("tracked", 500), ("switched", 500)])
def test_an_interrupt_at_a_random_moment(name: str, count: int) -> None:
    def raises(*_: Any) -> None:
        raise KeyboardInterrupt

    RUNS[name]()
    start = time.perf_counter()
    RUNS[name]()
    duration = time.perf_counter() - start
    before = signal.signal(signal.SIGALRM, raises)
    state, known = process_state(), attributes()
    try:
        for turn in range(count):
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, random.uniform(0, 1.1 * duration)))
                RUNS[name]()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            assert_clean(state, known, f"{name}, {turn}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
