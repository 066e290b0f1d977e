"""Modes of torch that are active during a call only, whatever exception is raised at whatever moment.

Python may raise KeyboardInterrupt before the first instruction of any function, so also of the `__exit__` of a mode,
which then stays active for good. A `finally` in the calling function is not skipped, and a second `finally` around the
first does its work again if the interrupt is raised in it.

C++ of torch that calls Python code, as it does for fake tensors, may end the process if that code raises an exception
where none is expected. Therefore Ctrl-C waits for the end of the call.
"""

import functools
import inspect
import random
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils import _device, _python_dispatch

from circuits import switch
from circuits.recording.settings import process_settings, restore_process_settings

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
    """Decorator: after each call, the modes of torch, its defaults and all random numbers are as before.

    The defaults are those of dtype and device, the modes also those of `process_settings`, the random numbers those of
    torch on the CPU, of Python and of numpy. Torch's caches of shape environments, which the call may have filled, are
    then empty. Ctrl-C during the call acts at the end of the outermost call (see `_Interrupt`).
    """

    @functools.wraps(function)
    def restoring(*args: P.args, **kwargs: P.kwargs) -> R:
        with _Interrupt():
            before = _State.now()
            try:
                try:
                    with _calls.set(None), _same_dispatch_keys():
                        return _without_frames_of_interrupts(function, *args, **kwargs)
                finally:
                    before.restore()
            finally:
                before.restore()

    return restoring


class _Interrupt:
    """A handler of SIGINT (Ctrl-C) that holds the signal back during a `with`, and passes it on at the end.

    The handler that it replaces is then installed again, unless the code has installed another one meanwhile, and
    called. A second signal acts at once, together with the first, so that code that never ends can be stopped; later
    signals act as without this class.

    A handler that is not a Python callable is left alone, and so is every handler in threads that cannot receive
    signals. Of nested blocks the outermost one holds the signal.
    """

    def __init__(self) -> None:
        self._handler: Any = None
        self._held = 0

    def __enter__(self) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and not isinstance(handler, _Interrupt):
            self._handler = handler
            try:
                signal.signal(signal.SIGINT, self)
            except ValueError:  # This is not the main thread of the main interpreter.
                self._handler = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._held += 1
        if self._held > 1:
            self._pass_on(frame)

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            self._pass_on(inspect.currentframe())

    def _pass_on(self, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) is self:
            signal.signal(signal.SIGINT, self._handler)
        held, self._held = self._held, 0
        for _ in range(held):
            self._handler(signal.SIGINT, frame)


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


class _State(NamedTuple):
    """What a call may change in torch, in Python and in numpy, which is None if it is not loaded."""

    function_modes: list[Any]
    fake_mode: Any
    gradient: bool
    dtype: torch.dtype
    device: torch.device | None
    random: torch.Tensor
    python_random: Any
    numpy_random: Any
    of_process: dict[str, Any]

    @classmethod
    def now(cls) -> Self:
        """Return the state now."""
        return cls(
            _get_current_function_mode_stack(), _fake_mode(), torch.is_grad_enabled(), torch.get_default_dtype(),
            _device.CURRENT_DEVICE, torch.get_rng_state(), random.getstate(), _numpy_random("get_state"),
            process_settings(),
        )  # fmt: skip

    def restore(self) -> None:
        """Make the state this one again."""
        for each in _get_current_function_mode_stack():
            if type(each).__module__.startswith("circuits.") and each not in self.function_modes:
                _remove(each, 0)
        if _fake_mode() is not self.fake_mode:
            torch._C._unset_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
            if self.fake_mode is not None:
                torch._C._set_dispatch_mode(self.fake_mode)
        torch._C._set_grad_enabled(self.gradient)
        torch.set_default_dtype(self.dtype)
        if self.device != _device.CURRENT_DEVICE:
            torch.set_default_device(self.device)
        torch.set_rng_state(self.random)
        random.setstate(self.python_random)
        if self.numpy_random is not None:
            _numpy_random("set_state", self.numpy_random)
        restore_process_settings(self.of_process)


def _numpy_random(method: str, *args: Any) -> Any:
    """Return the result of a method of numpy's global random number generator; None if numpy is not loaded."""
    generators = sys.modules.get("numpy.random")
    return None if generators is None else getattr(generators, method)(*args)


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
