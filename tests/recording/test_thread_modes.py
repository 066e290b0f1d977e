# This file uses private names of torch.
# pyright: reportAttributeAccessIssue=false
"""Modes of torch that are active during a call only, whatever the call does."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from circuits import CircuitError, trace
from circuits.recording import restores_modes
from circuits.recording.thread_modes import in_function_mode


@pytest.fixture
def stack() -> Iterator[list[TorchFunctionMode]]:
    """Return the modes that are active before a test; remove what it leaves."""
    before = _get_current_function_mode_stack()
    yield before
    while len(_get_current_function_mode_stack()) > len(before):
        _pop_mode()


def test_a_mode_ends_with_the_call_and_modes_that_the_call_leaves_stay(stack: list[TorchFunctionMode]) -> None:
    mode, left = TorchFunctionMode(), [TorchFunctionMode(), TorchFunctionMode()]

    def run() -> list[TorchFunctionMode]:
        for each in left:
            each.__enter__()
        return _get_current_function_mode_stack()

    assert in_function_mode(mode, run) == [*stack, mode, *left]
    assert _get_current_function_mode_stack() == [*stack, *left]


def test_a_mode_that_was_active_before_stays(stack: list[TorchFunctionMode]) -> None:
    mode = TorchFunctionMode()

    def outer() -> list[TorchFunctionMode]:
        assert in_function_mode(mode, _get_current_function_mode_stack) == [*stack, mode, mode]
        return _get_current_function_mode_stack()

    assert in_function_mode(mode, outer) == [*stack, mode]
    assert _get_current_function_mode_stack() == stack


def test_a_mode_ends_with_a_call_that_fails_or_has_ended_it(stack: list[TorchFunctionMode]) -> None:
    mode = TorchFunctionMode()

    def fails() -> None:
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        in_function_mode(mode, fails)
    in_function_mode(mode, _pop_mode)
    assert _get_current_function_mode_stack() == stack


# Whole calls ----------------------------------------------------------------------------------------------------------

KEYS = (torch._C.DispatchKey.AutogradCPU, torch._C.DispatchKey.Negative)


def keys() -> list[bool]:
    return [torch._C._dispatch_tls_is_dispatch_key_excluded(key) for key in KEYS]


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_call_leaves_active_ends_with_it(fails: bool) -> None:
    """A mode of fake tensors, and dispatch keys: as an interrupt may leave them."""
    before = keys()

    @restores_modes
    def leaves() -> None:
        torch._C._unset_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
        torch._C._set_dispatch_mode(FakeTensorMode())
        for key, excluded in zip(KEYS, before, strict=True):
            torch._C._dispatch_tls_set_dispatch_key_excluded(key, not excluded)
        assert keys() != before
        if fails:
            raise ValueError("stop")

    for around in (nullcontext(), FakeTensorMode()):
        with around:
            modes = _get_current_dispatch_mode_stack()
            with pytest.raises(ValueError, match="stop") if fails else nullcontext():
                leaves()
            assert keys() == before
            assert _get_current_dispatch_mode_stack() == modes


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_the_frames_of_an_interrupt_are_freed_and_those_of_an_exception_kept(kind: type[BaseException]) -> None:
    """What the frames of an interrupt hold ends when they are freed; a debugger looks into those of an exception."""
    held: list[weakref.ref[nn.Module]] = []

    @restores_modes
    def ends() -> None:
        module = nn.Module()
        held.append(weakref.ref(module))
        raise kind

    with pytest.raises(kind) as caught:
        ends()
    assert caught.tb is not None
    assert (held[0]() is None) == (kind is KeyboardInterrupt)


SETTERS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
    ),
    "the precision of float32 matrix products": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "anomaly detection": (
        lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
    ),
}


@pytest.mark.parametrize("name", SETTERS)
def test_a_trace_restores_a_setting_of_the_process_and_its_diagram_is_refused(name: str) -> None:
    """The diagram would not set it, so what the code computes after it may differ."""
    change, read = SETTERS[name]

    def run(x: torch.Tensor) -> torch.Tensor:
        change()
        return x + 1

    before, x = read(), torch.ones(2)
    diagram = trace(run, x)
    assert read() == before
    with pytest.raises(CircuitError, match=f"the run changes {name} for the code after it"):
        diagram(x)

    @restores_modes
    def changes() -> object:
        change()
        return read()

    assert changes() != before
    assert read() == before
