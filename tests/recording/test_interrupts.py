"""Ctrl-C at any moment leaves the process as it was: a tracked run ends at once, a trace ends first."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import Diagram, backward, checks, circuit, definitions, trace, track
from circuits.recording import interception, recursion
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


MAY_LEAVE = "an exception at an arbitrary line can keep the frames of a run alive, and with them its recorder"

ROOT = Path(__file__).parents[2]
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
STATES = ("switch.py", "recursion.py", "interception.py", "thread_modes.py", "contextlib.py")
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
    release()
    return thrown


def release() -> None:
    """Release the locks of the entry points and of the recursion limit, if this thread holds them.

    A trace function can raise between the last line of `with _lock:` and the release; a signal is received at calls and
    jumps only, not there. Other threads would wait for ever.
    """
    for lock in (interception._lock, recursion._lock):
        with contextlib.suppress(RuntimeError):  # This thread does not hold it.
            while True:
                lock.release()


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step"), [pytest.param("opened", 1, marks=pytest.mark.slow), ("switched", 1), ("tracked", 7)]
)
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

    at_random_moments(RUNS[name], count, raises)


def at_random_moments(run: Callable[[], Any], count: int, on_alarm: Callable[..., Any]) -> int:
    """Call `run` `count` times, with `on_alarm` at a random moment, and return how many were interrupted.

    After each the process is clean.
    """
    run()
    start = time.perf_counter()
    run()
    duration = time.perf_counter() - start
    before = signal.signal(signal.SIGALRM, on_alarm)
    state, known = process_state(), attributes()
    interrupts = 0
    try:
        for turn in range(count):
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, random.uniform(0, 1.1 * duration)))
                run()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            assert_clean(state, known, f"{run}, {turn}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return interrupts


# Ctrl-C during a trace ------------------------------------------------------------------------------------------------


def send_interrupt(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Seen:
    """What a traced function has noted: whether it ran to its end, and the handler of SIGINT meanwhile."""

    ended = False
    handler: Any = None


def interrupted(signals: int = 1) -> tuple[Callable[[Tensor], Tensor], type[Seen]]:
    """Return a function that sends this process SIGINT a number of times, and the class in which it notes its run."""

    class seen(Seen):
        pass

    def function(x: Tensor) -> Tensor:
        seen.handler = signal.getsignal(signal.SIGINT)
        y = x.sin()
        for _ in range(signals):
            send_interrupt()
        seen.ended = True
        return y.sum()

    return function, seen


TRACES: dict[str, Callable[[Any], Diagram]] = {
    "trace": lambda function: trace(function, X),
    "trace with a free axis": lambda function: trace(function, axes="a 3"),
    "backward": lambda function: backward(function, X),
}


@pytest.fixture
def handler() -> Iterator[Any]:
    """Install Python's own handler of SIGINT for a test, whatever the one of the test run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", TRACES)
def test_ctrl_c_is_raised_after_a_trace(name: str, handler: Any) -> None:
    TRACES[name](lambda x: x.sin().sum())
    state, known, (function, seen) = process_state(), attributes(), interrupted()
    with pytest.raises(KeyboardInterrupt):
        TRACES[name](function)
    assert seen.ended
    assert signal.getsignal(signal.SIGINT) is handler
    assert_clean(state, known, name)


def test_ctrl_c_is_raised_after_the_outermost_trace(handler: Any) -> None:
    (inner, _), (after, seen) = interrupted(), interrupted(0)

    def outer(x: Tensor) -> Tensor:
        trace(inner, X)
        return after(x)

    with pytest.raises(KeyboardInterrupt):
        trace(outer, X)
    assert seen.ended
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.slow
def test_ctrl_c_is_raised_after_a_trace_that_fails(handler: Any) -> None:
    def failing(x: Tensor) -> Tensor:
        send_interrupt()
        raise ValueError("the model's own error")

    with pytest.raises(KeyboardInterrupt) as caught:
        trace(failing, axes="a b")
    assert isinstance(caught.value.__context__, ValueError)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.every(3)
@pytest.mark.parametrize("name", TRACES)
def test_the_second_ctrl_c_is_raised_at_once(name: str, handler: Any) -> None:
    state, known, (function, seen) = process_state(), attributes(), interrupted(2)
    with pytest.raises(KeyboardInterrupt):
        TRACES[name](function)
    assert not seen.ended
    assert signal.getsignal(signal.SIGINT) is handler
    assert_clean(state, known, name)


@pytest.mark.slow
def test_the_second_ctrl_c_is_raised_at_once_in_a_nested_trace(handler: Any) -> None:
    inner, seen = interrupted()

    def outer(x: Tensor) -> Tensor:
        send_interrupt()
        trace(inner, X)
        return x.sin()

    with pytest.raises(KeyboardInterrupt):
        trace(outer, X)
    assert not seen.ended
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_of_the_user_gets_every_signal(handler: Any) -> None:
    received = []

    def counting(number: int, frame: Any) -> None:
        assert signal.getsignal(signal.SIGINT) is counting
        received.append(number)

    signal.signal(signal.SIGINT, counting)
    for count in range(4):
        function, seen = interrupted(count)
        assert trace(function, X).box.boxes
        assert seen.ended
        assert received == [signal.SIGINT] * count
        received.clear()


def test_a_handler_that_the_model_installs_stays(handler: Any) -> None:
    def other(*_: Any) -> None:
        raise AssertionError("no signal is sent while it is installed")

    def installs(x: Tensor) -> Tensor:
        signal.signal(signal.SIGINT, other)
        return x.sin()

    trace(installs, X)
    assert signal.getsignal(signal.SIGINT) is other


def test_a_trace_in_another_thread_leaves_signals_alone(handler: Any) -> None:
    function, seen = interrupted(0)
    thread = threading.Thread(target=trace, args=(function, X))
    thread.start()
    thread.join()
    assert seen.ended
    assert seen.handler is handler


@pytest.mark.parametrize("ignored", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_handler_not_of_python_is_left_alone(ignored: Any, handler: Any) -> None:
    signal.signal(signal.SIGINT, ignored)
    function, seen = interrupted(int(ignored is signal.SIG_IGN))
    trace(function, X)
    assert seen.ended
    assert seen.handler is ignored


def test_a_handler_written_in_c_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reports it as None, and could not install it again."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: pytest.fail("a handler was installed"))
    trace(torch.sin, X)


@pytest.mark.slow
def test_ctrl_c_stops_a_tracked_run_at_once(handler: Any) -> None:
    function, seen = interrupted()
    with pytest.raises(KeyboardInterrupt), track(LAYERS, to=None):
        function(X)
    assert not seen.ended


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signal.setitimer")
@pytest.mark.parametrize("name", TRACES)
def test_ctrl_c_at_a_random_moment_of_a_trace(name: str) -> None:
    code = f"""
from tests.recording.test_interrupts import LAYERS, TRACES, at_random_moments, send_interrupt
print(at_random_moments(lambda: TRACES[{name!r}](LAYERS), 150, send_interrupt))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 30  # how many of the alarms come before the end depends on the machine
