"""Interception: while a recording is active, patch the entry points that torch's function modes do not intercept.

These are the calls of an `nn.Module`, of a TorchScript function and of an operator that takes functions (`torch.cond`),
`vmap`, `autograd.Function.apply` and `torch.from_numpy`. They are patched when the first recording of the process
starts, and restored when the last one ends, in any thread. A patched entry point passes the call to the recorder of the
current thread; in a thread without a recorder the original call runs. `has_torch_function` is patched too, so that
recording does not disable torch's fused Transformer layers. So are functions of torch's state (`intercepted_state`),
most of them only for runs of which a diagram may be made.

Whatever fails while a recording begins, runs or ends, every patched attribute and the compiler stance are restored when
no recording is active any more. The calls are passed on only to a `Listener`; another recorder of the thread (one that
only lists circuits) does not record them.

All threads are affected in one way: while a recording is active, compiled code runs eagerly, because torch has one
compiler stance for the whole process.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._dynamo import eval_frame
from torch._functorch import apis
from torch._ops import HigherOrderOperator

from circuits import switch
from circuits.diagram import copied_from_numpy
from circuits.errors import CircuitError
from circuits.recording.intercepted_calls import (
    MODULES_WITH_FUSED_PATHS,
    record_autograd_function,
    record_forward,
    record_function_call,
    record_module,
    record_operator,
    record_vmap,
)
from circuits.recording.intercepted_state import RANDOM_FUNCTIONS, STATE_FUNCTIONS, intercept_has_torch_function
from circuits.recording.listener import Listener
from circuits.recording.recursion import more_frames
from circuits.recording.scopes import classes_of_modules
from circuits.tracebacks import ends_in_library, hide_frames, hide_own_frames


@contextmanager
def recorded_by(listener: Listener, root: Any = None) -> Iterator[None]:
    """Record this thread with `listener` inside the `with`; the previous recorder of the thread records the same calls.

    Args:
        listener: The recorder.
        root: The target. If it is a module, the `__call__` overrides in the classes of its modules are patched too.
    """
    listener.on_start = _patch_state
    with more_frames(), _recordings.set(listener), switch.set_recorder(listener):
        with _lock:
            _patch_entry_points(root)
        if listener.is_kept():
            _patch_state()
        yield


class _Patch:
    """The replacement of an attribute of a class or Python module by `interception(original)`.

    `original` is the attribute as it is stored, in the holder or in a base class: a function or a descriptor.
    """

    def __init__(self, holder: Any, name: str, interception: Callable[[Any], Any]) -> None:
        self.holder, self.name = holder, name
        self.is_own = name in holder.__dict__
        self.original = next(vars(each)[name] for each in (holder, *_bases(holder)) if name in vars(each))
        self.replacement = interception(self.original)

    def undo(self) -> None:
        """Restore the attribute, unless other code has replaced it meanwhile."""
        if self.holder.__dict__.get(self.name) is not self.replacement:
            return
        if self.is_own:
            setattr(self.holder, self.name, self.original)
        else:
            delattr(self.holder, self.name)


def _bases(holder: Any) -> tuple[type, ...]:
    """Return the base classes of a class; a Python module has none."""
    return holder.__mro__[1:] if isinstance(holder, type) else ()


_patches: dict[tuple[Any, str], _Patch] = {}
"""The patches that are not undone, by holder and attribute."""

_lock = threading.RLock()
"""Held while attributes are patched or restored, and during a fork; reentrant, since garbage collection ends blocks."""

os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def _restore_after_the_last() -> None:
    """Undo every patch if no recording is active; begun again, it continues where an interrupt ended it."""
    with _lock:
        while _patches and not _recordings.blocks:
            key = next(reversed(_patches))
            _patches[key].undo()
            _patches.pop(key, None)


_recordings = switch.Switch(_restore_after_the_last)


def _patch_entry_points(root: Any) -> None:
    """Patch the entry points and the `__call__` overrides in the classes of a module, as far as they are not patched.

    Raises:
        RuntimeError: This thread runs a region that is being compiled, whose calls cannot be recorded.
    """
    eval_frame._set_stance(eval_frame._stance)  # raises the RuntimeError
    _patch(eval_frame, "_stance", lambda _: eval_frame.DynamoStance("force_eager"))
    _patch(nn.Module, "_call_impl", _intercept_module_call)  # which is faster than to patch `__call__`
    _patch(nn.Module, "_compiled_call_impl", _intercept_compiled_call)
    _patch(nn.Module, "compile", _intercept_compile)
    _patch(apis, "vmap_impl", _intercept_vmap)
    _patch(torch.autograd.Function, "apply", _intercept_autograd_function)
    _patch(torch, "from_numpy", _intercept_from_numpy)
    _patch(HigherOrderOperator, "__call__", _intercept_operator)
    _patch(torch.jit.ScriptFunction, "__call__", _intercept_script_function)
    _patch(torch._C.ScriptMethod, "__call__", _intercept_script_function)
    _patch(torch.overrides, "has_torch_function", intercept_has_torch_function)
    for kind in MODULES_WITH_FUSED_PATHS:
        _patch(kind, "forward", partial(_intercept_module_call, record=record_forward))
    for holder, name, interception in RANDOM_FUNCTIONS:
        _patch(holder, name, interception)
    for kind in classes_of_modules(root) if isinstance(root, nn.Module) else ():
        owner = next(each for each in kind.__mro__ if "__call__" in each.__dict__)
        if owner is not nn.Module:
            _patch(owner, "__call__", _intercept_module_call)


def _patch_state() -> None:
    """Patch the functions of torch's state that only a diagram needs: not for a run that is only printed, for speed."""
    with _lock:
        for holder, name, interception in STATE_FUNCTIONS:
            _patch(holder, name, interception)


def _patch(holder: Any, name: str, interception: Callable[[Any], Any]) -> None:
    """Replace an attribute until the last recording ends, unless it is replaced already."""
    if (holder, name) not in _patches:
        patch = _patches[holder, name] = _Patch(holder, name, interception)
        setattr(holder, name, patch.replacement)


def _intercept_module_call(original: Any, record: Callable[..., Any] = record_module) -> Any:
    """Return a replacement for a class's `__call__` that passes each module call to the recorder of the thread.

    `dispatch` passes the call to a recorder. To run the call, the recorder calls `dispatch` with the next outer
    recorder. Without a `Listener`, `dispatch` makes the original call. The interceptions below work in the same way.
    """

    def dispatch(recorder: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(recorder, Listener):
            return original(module, *args, **kwargs)
        return record(recorder, module, args, kwargs, partial(dispatch, recorder.outer))

    def __call__(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        recorder: Any = switch.current()
        stack = recorder.stack if isinstance(recorder, Listener) and not recorder.definitions else None
        try:
            return dispatch(recorder, module, *args, **kwargs)
        except CircuitError as error:
            hide_frames(error)
            raise
        except Exception as error:
            if stack is not None and (stack.is_of_operation or not ends_in_library(error)):
                hide_own_frames(error)
            raise

    return __call__


def _intercept_compiled_call(_: None) -> property:
    """Return a replacement for the attribute `_compiled_call_impl`, which `nn.Module.compile` sets and a call reads.

    While a recording is active such a module runs as the code that it compiled, in all threads. As a data descriptor
    it is read in place of the attribute of the instance, which remains there.
    """

    def assign(module: nn.Module, compiled: Any) -> None:
        module.__dict__["_compiled_call_impl"] = compiled

    return property(lambda module: None, assign)


def _intercept_compile(original: Any) -> Any:
    """Return a replacement for `nn.Module.compile` that compiles the call as it is without recordings."""

    def compile(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        patch, attributes = _patches.get((nn.Module, "_call_impl")), vars(module)
        if patch is None:  # the last recording has ended in another thread
            return original(module, *args, **kwargs)
        attributes["_call_impl"] = patch.original.__get__(module)
        try:
            return original(module, *args, **kwargs)
        finally:
            del attributes["_call_impl"]

    return compile


def _intercept_vmap(original: Any) -> Any:
    """Return a replacement for `vmap_impl`, which torch calls for each call of a mapped function."""

    def dispatch(
        recorder: Any, function: Any, in_dims: Any, out_dims: Any, randomness: Any, chunk_size: Any, *args: Any,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        def call(recorded: Any) -> Any:
            return dispatch(recorder.outer, recorded, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)

        if not isinstance(recorder, Listener):
            return original(function, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)
        return record_vmap(recorder, function, out_dims, args, kwargs, call)

    def vmap_impl(*args: Any, **kwargs: Any) -> Any:
        return dispatch(switch.current(), *args, **kwargs)

    return vmap_impl


def _intercept_autograd_function(original: Any) -> Any:
    """Return a replacement for the class method `autograd.Function.apply`.

    The original is called through the descriptor protocol, because torch may store it as a `classmethod` or as a class
    method written in C.
    """

    def dispatch(recorder: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(recorder, Listener):
            return original.__get__(None, function)(*args, **kwargs)
        call = partial(dispatch, recorder.outer, function, *args, **kwargs)
        return record_autograd_function(recorder, function, args, kwargs, call)

    def apply(function: Any, *args: Any, **kwargs: Any) -> Any:
        return dispatch(switch.current(), function, *args, **kwargs)

    return classmethod(apply)


def _intercept_script_function(original: Any) -> Any:
    """Return a replacement for the `__call__` of TorchScript functions and methods, which run outside Python.

    The methods of a copy that `trace` runs are not recorded, since they belong to the copy.
    """

    def __call__(function: Any, *args: Any, **kwargs: Any) -> Any:
        recorder: Any = switch.current()
        if isinstance(function, torch._C.ScriptMethod) and getattr(recorder, "definitions", False):
            return original(function, *args, **kwargs)
        return _record_call(recorder, function, partial(original, function), args, kwargs)

    return __call__


def _intercept_from_numpy(original: Any) -> Any:
    """Return a replacement for `torch.from_numpy`; a diagram makes a new tensor of the array at each run."""

    def from_numpy(array: Any) -> Any:
        return _record_call(switch.current(), copied_from_numpy, original, (array,), {})

    return from_numpy


def _record_call(recorder: Any, function: Any, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return `original(*args, **kwargs)`, recorded as a call of `function` by a recorder and all outer ones."""
    if not isinstance(recorder, Listener):
        return original(*args, **kwargs)
    call = partial(_record_call, recorder.outer, function, original, args, kwargs)
    return record_function_call(recorder, function, args, kwargs, call)


def _intercept_operator(original: Any) -> Any:
    """Return a replacement for the `__call__` of operators that take functions, whose calls are not recorded inside."""

    def dispatch(recorder: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(recorder, Listener):
            return original(operator, *args, **kwargs)
        return record_operator(recorder, operator, args, kwargs, partial(dispatch, recorder.outer, operator))

    def __call__(operator: Any, *args: Any, **kwargs: Any) -> Any:
        return dispatch(switch.current(), operator, *args, **kwargs)

    return __call__
