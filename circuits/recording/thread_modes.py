"""Modes of torch that are active during a call only, whatever exception is raised at whatever moment.

Python may raise KeyboardInterrupt before the first instruction of any function, so also of the `__exit__` of a mode,
which then stays active for good. A `finally` in the calling function is not skipped, and a second `finally` around the
first does its work again if the interrupt is raised in it.
"""

import functools
import traceback
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils import _python_dispatch

from circuits import switch

P = ParamSpec("P")
R = TypeVar("R")


def in_function_mode(mode: TorchFunctionMode, run: Callable[[], R]) -> R:
    """Return `run()`, during which a function mode is active; modes that the call leaves active stay so."""
    count = _get_current_function_mode_stack().count(mode)
    try:
        try:
            _push_mode(mode)
            return run()
        finally:
            _remove(mode, count)
    finally:
        _remove(mode, count)


def _remove(mode: TorchFunctionMode, count: int) -> None:
    """Remove the innermost occurrence of a mode from the stack of function modes, if there are more than `count`."""
    if _get_current_function_mode_stack().count(mode) > count:
        others = []
        while (top := _pop_mode()) is not mode:
            others.append(top)
        for each in reversed(others):
            _push_mode(each)


def restores_modes(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: after each call, the fake mode, the gradient mode and the random numbers of the CPU are as before.

    Torch's caches of shape environments, which the call may have filled, are then empty.
    """

    @functools.wraps(function)
    def restoring(*args: P.args, **kwargs: P.kwargs) -> R:
        before = _get_current_function_mode_stack()
        mode, gradient, random = _fake_mode(), torch.is_grad_enabled(), torch.get_rng_state()
        try:
            try:
                with _calls.set(None), _same_dispatch_keys():
                    return _without_frames_of_interrupts(function, *args, **kwargs)
            finally:
                _restore(before, mode, gradient, random)
        finally:
            _restore(before, mode, gradient, random)

    return restoring


def _without_frames_of_interrupts(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Return the result of a call; free the frames of an interrupt.

    They may hold context managers of torch that the interrupt has not let end, and that end when they are freed.
    """
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        if not isinstance(error, Exception):
            traceback.clear_frames(error.__traceback__)
        raise


def _same_dispatch_keys() -> Any:
    """Return a context manager, written in C, that restores the dispatch keys of the thread at its end."""
    return torch._C._ForceDispatchKeyGuard(
        torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    )


def _fake_mode() -> Any:
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)


def _restore(before: list[Any], mode: Any, gradient: bool, random: torch.Tensor) -> None:
    for each in _get_current_function_mode_stack():
        if type(each).__module__.startswith("circuits.") and each not in before:
            _remove(each, 0)
    if _fake_mode() is not mode:
        torch._C._unset_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
        if mode is not None:
            torch._C._set_dispatch_mode(mode)
    torch._C._set_grad_enabled(gradient)
    torch.set_rng_state(random)


_flags: dict[str, bool] = {}
"""Variables of torch, for the whole process, that each dispatch mode sets, and sets back to what it has found.

Two traces in two threads would leave them set, so they are saved before the first trace and restored after the last.
"""

_CACHES = tuple([each for each in vars(ShapeEnv).values() if hasattr(each, "cache_clear")])
"""Caches of torch, without a bound, that keep every shape environment."""


def _begin_or_end() -> None:
    """Save the flags before the first call; after the last one restore them, and clear the caches."""
    if _calls.blocks and not _flags:
        _flags.update({name: value for name, value in vars(_python_dispatch).items() if type(value) is bool})
    elif not _calls.blocks and _flags:
        for name, value in _flags.items():
            setattr(_python_dispatch, name, value)
        _flags.clear()
        for cached in _CACHES:
            cached.cache_clear()


_calls = switch.Switch(_begin_or_end)
