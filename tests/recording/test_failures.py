# This file uses private names of torch.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
"""Recording is without consequences: whatever fails, torch is restored, and no run fails because it is recorded."""

import io
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from circuits import Tracker, circuit, laws, trace, track
from circuits.recording import interception
from circuits.recording.builder import Builder
from circuits.recording.interception import recorded_by
from circuits.recording.listener import Listener

# A failure while a recording begins, runs or ends ---------------------------------------------------------------------


class ListOfModules(nn.Module):
    """A module with an attribute that hides the method `modules` of `nn.Module`."""

    def __init__(self) -> None:
        super().__init__()
        self.modules = [nn.Linear(4, 4)]

    def forward(self, x: Tensor) -> Tensor:
        return self.modules[0](x)  # type: ignore[index]


@pytest.mark.slow
def test_a_model_may_hide_the_methods_of_its_class() -> None:
    x = torch.rand(1, 4)
    assert [box.label for box in trace(ListOfModules(), x).walk()] == ["ListOfModules", "Linear", "linear"]
    whole = ListOfModules()
    with track(whole, to=None) as seen:
        whole(x)
    assert len(seen) == 1


@pytest.mark.parametrize("step", range(1, 9))
def test_a_failure_while_a_recording_begins(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Overrides(nn.Linear):
        def __call__(self, *args: Any) -> Any:
            return super().__call__(*args)

    calls, patch = [], interception._patch

    def fails(*args: Any) -> None:
        calls.append(args)
        if len(calls) == step:
            raise MemoryError
        patch(*args)

    layer, override = Overrides(4, 4), Overrides.__dict__["__call__"]
    monkeypatch.setattr(interception, "_patch", fails)
    with pytest.raises(MemoryError), track(layer, to=None):
        pass
    assert Overrides.__dict__["__call__"] is override
    monkeypatch.setattr(interception, "_patch", patch)
    with track(layer, to=None) as seen:
        layer(torch.rand(2, 4))
    assert len(seen) == 1


def test_a_failure_inside_another_recording() -> None:
    layer = nn.Linear(4, 4)
    with track(layer, to=None) as seen:
        for event in ("begin", "end"):
            with pytest.raises(RuntimeError, match=event), recorded_by(Listener()):
                raise RuntimeError(event)
        layer(torch.rand(2, 4))
    assert [box.label for box in seen.diagram.walk()] == ["Linear", "linear"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("line", [1, 2, 3])
def test_an_interrupt_while_a_line_is_written(line: int, error: type[BaseException]) -> None:
    """The run ends, because the user asked for it, and later runs are recorded as usual."""
    layers, count = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.ReLU())), [0]

    def interrupts(_: str) -> None:
        count[0] += 1
        if count[0] == line:
            raise error

    with track(layers, to=interrupts) as seen:
        with pytest.raises(error):
            layers(torch.ones(2))
        assert len(_get_current_function_mode_stack()) == 0
        layers(torch.ones(2))
    assert len(seen) == 2
    assert not seen[1].failed


# A run never fails because it is printed ------------------------------------------------------------------------------


class Sink(io.StringIO):
    """A stream that raises an exception at the given write."""

    def __init__(self, fails_at: int, error: Exception) -> None:
        super().__init__()
        self.countdown, self.error = fails_at, error

    def write(self, text: str) -> int:
        self.countdown -= 1
        if self.countdown == 0:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file"), RuntimeError("full")])
@pytest.mark.parametrize("line", [1, 3])
def test_a_sink_that_fails_once_loses_one_line(line: int, error: Exception, caplog: Any) -> None:
    layers, x, whole, to = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(2), io.StringIO(), Sink(line, error)
    with track(layers, to=whole):
        expected = [layers(x) for _ in range(3)]
    with track(layers, to=to) as seen, caplog.at_level(logging.WARNING):
        found = [layers(x) for _ in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(seen) == 3
    lines = whole.getvalue().splitlines()
    assert to.getvalue().splitlines() == lines[: line - 1] + lines[line:]
    assert [type(error).__name__ in record.getMessage() for record in caplog.records] == [True]


def test_a_function_that_always_fails_is_reported_once(caplog: Any) -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with track(layers, to=lambda line: 1 / 0) as seen:
        for _ in range(3):
            layers(torch.ones(2))
    assert len(seen) == 3
    assert ["ZeroDivisionError" in record.getMessage() for record in caplog.records] == [True]


def test_a_tracker_does_not_stop_its_model(caplog: Any) -> None:
    to = Sink(1, BrokenPipeError())
    tracker = Tracker(nn.ReLU(), to=to)
    assert torch.equal(tracker(torch.ones(2)), torch.ones(2))
    tracker(torch.ones(2))
    assert to.getvalue() == "ReLU: \t 2 -> 2\n"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1"])
def test_a_terminal_that_is_not_utf_8_gets_ascii(encoding: str, caplog: Any) -> None:
    lstm, x = nn.LSTM(4, 3, 4), torch.rand(5, 2, 4)
    raw, plain = io.BytesIO(), io.StringIO()
    to = io.TextIOWrapper(raw, encoding=encoding)
    with track(lstm, to=plain), track(lstm, to=to) as seen:
        lstm(x)
    to.flush()
    assert len(seen) == 1
    assert not caplog.records
    found, expected = raw.getvalue().decode(encoding), plain.getvalue()
    assert "…" in expected
    assert found.replace("…", "...") == expected.replace("…", "...")


@pytest.mark.parametrize(
    ("encoding", "signs"), [("ascii", "..."), ("cp437", "..."), ("cp1252", "…"), ("latin-1", "..."), ("utf-8", "…")]
)
def test_a_table_can_be_printed_on_any_terminal(encoding: str, signs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    diagram, raw = trace(nn.LSTM(4, 3, 4), torch.rand(5, 2, 4)), io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding=encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        print(diagram, flush=True)
    assert "…" in diagram.table()
    assert raw.getvalue().decode(encoding) == diagram.table().replace("…", signs) + "\n"


def test_lines_that_cannot_be_made_are_left_out(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    layers, lines = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), []
    with track(layers, to=lines.append) as seen:
        with monkeypatch.context() as patch:
            patch.setattr(Builder, "freeze", lambda *_: 1 / 0)
            layers(torch.ones(2))
        assert lines == []
        layers(torch.ones(2))
    assert [len(list(diagram.walk())) for diagram in seen] == [5, 5]
    assert len(lines) == 4
    assert len(caplog.records) == 1


# Other recorders, and entry points as other versions of torch store them ----------------------------------------------


class Doubles(torch.autograd.Function):
    """A function with its own backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return 2 * grad[0]


class _ClassMethod:
    """A class method that has no `__func__`, like those written in C."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return lambda *args, **kwargs: self.function(owner if instance is None else type(instance), *args, **kwargs)


@pytest.mark.parametrize("stored", ["here", "in C", "in a base class"])
def test_autograd_functions_however_torch_stores_apply(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Uses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Doubles.apply(x).cos()

    if stored == "in C":
        apply: Any = torch.autograd.Function.__dict__["apply"]
        original = lambda owner, *args: apply.__get__(None, owner)(*args)  # noqa: E731
        monkeypatch.setattr(torch.autograd.Function, "apply", _ClassMethod(original))
    elif stored == "in a base class":
        monkeypatch.delattr(torch.autograd.Function, "apply")
    uses, x, before = Uses(), torch.rand(3, requires_grad=True), dict(torch.autograd.Function.__dict__)
    with track(uses, to=None) as seen:
        result = uses(x)
    assert torch.equal(result, (2 * x).cos())
    assert torch.equal(torch.autograd.grad(result.sum(), x)[0], -2 * (2 * x).sin())
    assert [box.label for box in seen.diagram.boxes] == ["Doubles", "cos"]
    assert [box.label for box in trace(uses, x).boxes] == ["Doubles", "cos"]
    assert dict(torch.autograd.Function.__dict__) == before


def test_laws_inside_a_recording() -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Linear(4, 4)

        @circuit("... 4 -> ... 4")
        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(torch.sin)(Doubles.apply(self.scale(x.reshape(-1, 4)))).reshape(x.shape)

    norm = Norm()
    Norm.forward.kernel(lambda self, x: (2 * self.scale(x)).sin())  # type: ignore[attr-defined]
    with track(norm, to=None) as seen:
        laws.kernel(norm)
        norm(torch.rand(2, 4))
    assert len(seen) == 1
