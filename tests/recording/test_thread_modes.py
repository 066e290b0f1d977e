"""Function modes that are active during a call only, whatever the call does to the stack of modes."""

from collections.abc import Iterator

import pytest
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode

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
