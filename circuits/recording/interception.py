"""Where a run passes what torch's modes do not see: module calls, `vmap`, and `autograd.Function.apply`.

These doors are replaced while anybody records and put back when nobody does any more, whichever thread ends last.
They tell who records in their own thread, and let other threads pass as before, but for one thing: meanwhile compiled
code runs as the code it wraps, in every thread, since torch has one stance for the whole process.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import apis
from torch.overrides import _get_current_function_mode_stack

from circuits import switch

_lock = threading.Lock()
_listeners = 0
_undo = contextlib.ExitStack()


@contextmanager
def watched(recorder: Any, root: Any = None) -> Iterator[None]:
    """Let `recorder` hear this thread; who recorded before hears on. `root` is the module that it is there for."""
    global _listeners
    with _lock:
        if _listeners == 0:
            _undo.enter_context(torch.compiler.set_stance("force_eager"))
            _replace(nn.Module, "__call__", _module_door)
            _replace(apis, "vmap_impl", _vmap_door)
            _replace(torch.autograd.Function, "apply", _apply_door)
            _replace(torch.overrides, "has_torch_function", _mode_door)
        for module in root.modules() if isinstance(root, nn.Module) else ():
            owner = next(each for each in type(module).__mro__ if "__call__" in each.__dict__)
            if not hasattr(owner.__dict__["__call__"], "is_door"):
                _replace(owner, "__call__", _module_door)
        _listeners += 1
    recorder.outer = switch.current()
    try:
        with switch.set_recorder(recorder):
            yield
    finally:
        with _lock:
            _listeners -= 1
            if _listeners == 0:
                _undo.close()


def _replace(holder: Any, name: str, door: Callable[[Any], Any]) -> None:
    before = holder.__dict__[name]
    setattr(holder, name, door(before))
    _undo.callback(setattr, holder, name, before)


def _module_door(before: Any) -> Any:
    def heard(recorder: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if recorder is None:
            return before(module, *args, **kwargs)
        return recorder.module(module, args, kwargs, partial(heard, recorder.outer))

    def __call__(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return heard(switch.current(), module, *args, **kwargs)

    __call__.is_door = True  # type: ignore[attr-defined]
    return __call__


def _vmap_door(before: Any) -> Any:
    def heard(
        recorder: Any, function: Any, in_dims: Any, out_dims: Any, randomness: Any, chunk_size: Any, *args: Any,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        def call(watched: Any) -> Any:
            return heard(recorder.outer, watched, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)

        if recorder is None:
            return before(function, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)
        return recorder.vmap(function, in_dims, out_dims, args, kwargs, call)

    def vmap_impl(*args: Any, **kwargs: Any) -> Any:
        return heard(switch.current(), *args, **kwargs)

    return vmap_impl


def _apply_door(before: Any) -> Any:
    def heard(recorder: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        if recorder is None:
            return before.__func__(function, *args, **kwargs)
        return recorder.function(function, args, kwargs, partial(heard, recorder.outer, function, *args, **kwargs))

    def apply(function: Any, *args: Any, **kwargs: Any) -> Any:
        return heard(switch.current(), function, *args, **kwargs)

    return classmethod(apply)


def _mode_door(before: Any) -> Any:
    """torch's Transformer layers leave their fused path when any mode is on; a recorder of what really runs is none."""

    def has_torch_function(tensors: Any) -> bool:
        recorder: Any = switch.current()
        if recorder is None or recorder.definitions or not _listens_alone(type(recorder)):
            return before(tensors)
        return any(_overrides(tensor) for tensor in tensors)

    return has_torch_function


def _listens_alone(kind: type) -> bool:
    return all(isinstance(mode, kind) for mode in _get_current_function_mode_stack())


def _overrides(value: Any) -> bool:
    kind: Any = type(value)
    if kind is Tensor or kind is nn.Parameter or not hasattr(kind, "__torch_function__"):
        return False
    return kind.__torch_function__ is not torch._C._disabled_torch_function_impl
