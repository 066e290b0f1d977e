"""Switches, recorders and recordings are entered and left in any order: by generators, tasks, threads and after a fork.

That the process is afterwards as before is asserted after every test, by the fixture `process`.
"""

import asyncio
import gc
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _python_dispatch

from circuits import ShapeError, checks, circuit, definitions, switch, trace, track


@circuit("y -> y")
def double(x: Tensor) -> Tensor:
    return x + x


@double.kernel
def _(x: Tensor) -> Tensor:
    return 3 * x  # wrong on purpose, so that results show what has run


def is_checked() -> bool:
    try:
        double(torch.ones(1, 1))
    except ShapeError:
        return True
    return False


def runs_definitions() -> bool:
    return double(torch.ones(1)).item() == 2


def held(*managers: AbstractContextManager[Any]) -> Iterator[Any]:
    """A generator that holds context managers open until it is closed."""
    with ExitStack() as stack:
        yield [stack.enter_context(manager) for manager in managers]


def start(*managers: AbstractContextManager[Any]) -> Iterator[Any]:
    generator = held(*managers)
    next(generator)
    return generator


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_the_last_entered_of_the_open_checks_decides(order: tuple[int, ...]) -> None:
    values = [False, True, False]
    blocks = [start(checks(on)) for on in values]
    for place in order:
        blocks[place].close()  # type: ignore[attr-defined]
        values[place] = None  # type: ignore[call-overload]
        assert is_checked() == [True, *(on for on in values if on is not None)][-1]


@pytest.mark.slow
def test_definitions_run_until_the_last_block_has_ended() -> None:
    first, second = start(definitions()), start(definitions())
    del first
    gc.collect()
    assert runs_definitions()
    del second
    gc.collect()
    assert not runs_definitions()


@pytest.mark.parametrize("block", [lambda: checks(False), definitions])
def test_a_thread_that_enters_first_and_leaves_first(block: Callable[[], AbstractContextManager[None]]) -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with block():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with block():
        leave.set()
        thread.join()
        assert not is_checked() or runs_definitions()


def test_switches_change_in_compiled_code() -> None:
    def run(x: Tensor) -> Tensor:
        with checks(False):
            x = double(x)
        with definitions():
            return double(x)

    assert torch.equal(torch.compile(run, backend="eager", fullgraph=True)(torch.ones(2)), 6 * torch.ones(2))


# Recordings ----------------------------------------------------------------------------------------------------------


def labels(seen: Any) -> list[list[str]]:
    return [[box.label for box in diagram.boxes] for diagram in seen]


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_tracks_that_end_in_any_order_record_until_they_end(order: tuple[int, ...]) -> None:
    layer, x = nn.Sequential(nn.ReLU(), nn.Sigmoid()), torch.ones(2)
    generators = [held(track(layer, to=None)) for _ in range(3)]
    seen = [next(generator)[0] for generator in generators]
    layer(x)
    for ended, place in enumerate(order):
        generators[place].close()  # type: ignore[attr-defined]
        layer(x)
        assert [len(seen[each]) for each in order] == [1 + min(each, ended) + (each > ended) for each in range(3)]
    assert {tuple(each) for runs in seen for each in labels(runs)} == {("ReLU", "Sigmoid")}


def test_a_track_that_ends_while_its_model_runs() -> None:
    class Ends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inner.close()  # type: ignore[attr-defined]
            return x.sin()

    ends = Ends()
    with track(ends, to=None) as outer:
        inner = held(track(ends, to=None))
        [seen] = next(inner)
        ends(torch.ones(2))
    assert labels(outer) == labels(seen) == [["sin"]]


def test_a_track_that_begins_while_another_runs_and_ends_later() -> None:
    relu, inner = nn.ReLU(), held(track(nn.ReLU(), to=None))

    class Begins(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            next(inner)
            return relu(x)

    begins = Begins()
    with track(begins, to=None) as outer:
        begins(torch.ones(2))
    assert switch.current() is not None
    inner.close()  # type: ignore[attr-defined]
    assert [box.label for box in outer.diagram.walk()] == ["Begins", "ReLU", "relu"]


def test_tasks_that_track_by_turns() -> None:
    async def run(layer: nn.Module, results: list[Any]) -> None:
        with track(layer, to=None) as seen, definitions(), checks(False):
            for _ in range(3):
                await asyncio.sleep(0)
                layer(torch.ones(2))
                assert runs_definitions()
        results.extend(labels(seen))

    async def both(one: list[Any], other: list[Any]) -> None:
        first = asyncio.create_task(run(nn.Sequential(nn.ReLU()), one))
        await asyncio.sleep(0)
        second = asyncio.create_task(run(nn.Sequential(nn.Sigmoid()), other))
        await asyncio.gather(first, second)

    one: list[Any] = []
    other: list[Any] = []
    asyncio.run(both(one, other))
    assert (one, other) == ([["ReLU"]] * 3, [["Sigmoid"]] * 3)
    assert is_checked()
    assert not runs_definitions()


def test_a_generator_that_another_thread_closes() -> None:
    layer = nn.ReLU()
    generator = held(track(layer, to=None))
    [seen] = next(generator)
    layer(torch.ones(2))
    thread = threading.Thread(target=generator.close)  # type: ignore[attr-defined]
    thread.start()
    thread.join()
    layer(torch.ones(2))
    assert len(seen) == 1
    assert switch.current() is None


def test_many_threads_that_enter_and_leave() -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            layer = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
            for turn in range(20):
                with ExitStack() as stack:
                    seen = stack.enter_context(track(layer, to=None))
                    stack.enter_context([definitions(), checks(False), checks(True)][(number + turn) % 3])
                    layer(torch.ones(2))
                assert len(seen) == 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert is_checked()


def test_traces_in_threads_that_end_in_the_order_in_which_they_began() -> None:
    """Torch's dispatch modes restore what they found, for all threads: the last to end would keep it set."""
    inside, may_end = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

    def work(number: int) -> None:
        def waits(x: Tensor) -> Tensor:
            inside[number].set()
            may_end[number].wait(10)
            return x.sin()

        trace(waits, torch.ones(2))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for number, thread in enumerate(threads):
        thread.start()
        inside[number].wait(10)
    for number, thread in enumerate(threads):
        may_end[number].set()
        thread.join(5)
        assert not thread.is_alive()
    assert not _python_dispatch._is_in_torch_dispatch_mode


def _wakes_one_that_waits(condition: threading.Condition) -> None:
    with condition:
        condition.notify()


def _waits_for(condition: threading.Condition) -> bool:
    with condition:
        return condition.wait(5)


WAITS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "event": (threading.Event, lambda event: event.wait(5), lambda event: event.set()),
    "condition": (threading.Condition, _waits_for, _wakes_one_that_waits),
    "semaphore": (
        lambda: threading.Semaphore(0),
        lambda semaphore: semaphore.acquire(timeout=5),
        lambda semaphore: semaphore.release(),
    ),
    "queue": (queue.Queue, lambda items: items.get(timeout=5), lambda items: items.put(1)),
    "future": (Future, lambda future: future.result(5), lambda future: future.set_result(1)),
}
"""What a thread waits for: how it is made, how a thread waits, and how another wakes it."""


@pytest.mark.parametrize("name", WAITS)
def test_what_other_threads_wait_for_is_left_as_it_is(name: str) -> None:
    """A trace puts back what it finds changed; if it removed a thread that waits, nothing would wake that thread."""
    make, waits, wakes = WAITS[name]
    shared, results = make(), list[Any]()

    def function(x: Tensor) -> Tensor:
        thread.start()
        time.sleep(0.05)  # The thread waits now.
        return x.sin() if shared else x

    thread = threading.Thread(target=lambda: results.append(waits(shared)))
    trace(function, torch.ones(2))
    wakes(shared)
    thread.join(10)
    assert results == [True]


def test_the_stance_that_the_user_sets_meanwhile_stays() -> None:
    """Torch's stances restore what they found, so a recording leaves a stance that is not its own."""
    stance = torch.compiler.set_stance("eager_on_recompile")
    recording = start(track(nn.ReLU(), to=None))
    with stance:
        pass
    recording.close()  # type: ignore[attr-defined]


# Fork -----------------------------------------------------------------------------------------------------------------


def in_child(run: Callable[[], bool]) -> bool:
    """Return what `run` returns in the child of a fork; False if it raises an exception."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if run() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
may_warn = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@forks
@may_warn
def test_the_child_of_a_fork_goes_on_to_record() -> None:
    layer, lines = nn.Sequential(nn.ReLU(), nn.Sigmoid()), []
    with track(layer, to=lines.append) as seen:
        layer(torch.ones(2))
        printed = len(lines)

        def child() -> bool:
            layer(torch.ones(2))
            return len(seen) == 2 and lines[printed:] == lines[1:printed]  # without the heading

        assert in_child(child)
        assert len(seen) == 1


@forks
@may_warn
def test_the_child_of_a_fork_has_no_recordings_of_other_threads() -> None:
    original, entered, leave = nn.Module._call_impl, threading.Event(), threading.Event()

    def other() -> None:
        with track(nn.ReLU(), to=None), checks(False), definitions():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)

    def child() -> bool:
        clean = nn.Module._call_impl is original and switch.active == 0
        with track(nn.ReLU(), to=None):
            pass
        return clean and nn.Module._call_impl is original and is_checked() and not runs_definitions()

    try:
        assert in_child(child)
        assert nn.Module._call_impl is not original
    finally:
        leave.set()
        thread.join()
