"""Functions of torch that read or change its state and take no tensor, so that function modes do not see their calls.

Those of the default random number generator become boxes, so that a diagram seeds and restores it as the code does.
A mode that the code reads (`torch.is_grad_enabled()`) becomes a `PropertyGuard`. Hooks on the tensors that autograd
saves, and an inference mode that the code enters, become settings of the calls made under them. A free size of which
the code makes a text becomes a number.
"""

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.grad_mode import inference_mode
from torch.autograd.graph import saved_tensors_hooks
from torch.fx.experimental.sym_node import SymNode
from torch.overrides import _get_current_function_mode_stack
from torch.utils._sympy.functions import Identity

from circuits import switch
from circuits.recording.attribute_reads import UNREAD
from circuits.recording.listener import Listener
from circuits.recording.property_reads import is_inner_frame
from circuits.recording.symbols import TracingShapeEnv
from circuits.recording.user_frames import is_for_readers, is_user_file

_RANDOM_STATE = {
    each.__name__: each
    for each in (torch.random.manual_seed, torch.random.seed, torch.random.get_rng_state, torch.random.set_rng_state)
}
"""The functions of the default generator; torch replaces `torch.manual_seed` by another when it loads its compiler."""
_MODES = {
    "is_grad_enabled": ("gradients", "inference"),
    "is_inference_mode_enabled": ("inference",),
    "get_default_dtype": ("default_dtype",),
    "get_default_device": ("default_device",),
    "is_autocast_enabled": ("autocast",),
    "get_autocast_dtype": ("autocast",),
}
"""The functions that return a mode, each with the settings that determine it if the code has changed them."""


def _record_random_state(listener: Listener, frame: FrameType, function: Any, args: Any, kwargs: Any, call: Any) -> Any:
    """Record a call that reads or sets the state of the generator; a checkpoint sets it only when it recomputes."""
    is_recorded = _is_code_of_run(listener) and not is_inner_frame(frame)
    result = listener.record_call(_RANDOM_STATE[function.__name__], args, kwargs, "", call) if is_recorded else call()
    if listener.stack:
        listener.generators.note_seeds()
    return result


def _record_mode(listener: Listener, frame: FrameType, function: Any, args: Any, kwargs: Any, call: Any) -> Any:
    """Record a mode that user code reads, unless the code of the run has set the mode itself."""
    found = call()
    is_read = _is_code_of_run(listener) and is_user_file(frame.f_code.co_filename)
    if is_read and not listener.settings.has_set(_MODES[function.__name__]):
        listener.property_reads.note(function, args, kwargs, found)
    return found


def _record_inference_mode(listener: Listener, _: FrameType, function: Any, args: Any, kwargs: Any, call: Any) -> Any:
    """Note that the code enters or exits inference mode."""
    if function.__name__ == "__exit__" and listener.stack:
        listener.settings.exit_inference_mode(args[0])
    elif _is_code_of_run(listener):
        listener.settings.enter_inference_mode(args[0])
    return call()


def _record_hooks(listener: Listener, _: FrameType, function: Any, args: Any, kwargs: Any, call: Any) -> Any:
    """Note that hooks on saved tensors begin or end; those of torch's own subclasses change no value."""
    context = args[0]
    if listener.stack and type(context) is saved_tensors_hooks:
        if function.__name__ == "__enter__":
            listener.settings.begin_hooks((context.pack_hook, context.unpack_hook))
        else:
            listener.settings.end_hooks()
    return call()


def _record_text(listener: Listener, frame: FrameType, _: Any, args: Any, kwargs: Any, call: Any) -> Any:
    """Return the text of a free size: that of its number, which the code then needs, unless it prints or logs it."""
    user: FrameType | None = frame
    while user is not None and user.f_code.co_filename in _TEXT_FILES:
        user = user.f_back
    if user is None or not is_user_file(user.f_code.co_filename) or not _is_code_of_run(listener):
        return call()
    if is_for_readers(user):
        return call()
    (node,) = args
    guard = node.guard_bool if node.pytype is bool else node.guard_float if node.pytype is float else node.guard_int
    return f"{guard(user.f_code.co_filename, user.f_lineno)}"


_TEXT_FILES = (f"{torch.__file__}", SymNode.str.__code__.co_filename)


def _intercept_property(original: property) -> property:
    """Return a replacement for a Python property of `FakeTensor`: function modes do not see what the code reads."""
    name = f"{original.fget.__name__}" if original.fget is not None else ""
    getter: Any = getattr(torch.Tensor, name).__get__

    def read(tensor: FakeTensor) -> Any:
        found, frame, recorder = original.__get__(tensor), sys._getframe(1), switch.current()
        if isinstance(recorder, Listener) and not is_inner_frame(frame) and _is_code_of_run(recorder):
            recorder.property_reads.note(getter, (tensor,), {}, found, frame)
        return found

    return property(read)


# Since torch 2.14 all of them are Python's properties; before, only the device.
_PROPERTIES = [each for each in ("device", "layout", "is_mkldnn") if isinstance(vars(FakeTensor).get(each), property)]


def _intercept_arithmetic(original: Any) -> Any:
    """Return a replacement for an operation of sizes: no float result is combined with the next operation.

    sympy makes `n * 0.3` of `n * 0.1 * 3`, which differs from it in the last bit.
    """

    def operation(node: SymNode, *others: Any) -> Any:
        made = original(node, *others)
        is_traced = isinstance(made, SymNode) and made.pytype is float and isinstance(made.shape_env, TracingShapeEnv)
        if not is_traced or not isinstance(made._expr, (sympy.Add, sympy.Mul)):
            return made
        return SymNode(Identity(made._expr), made.shape_env, float, made._hint, made.constant, made.fx_node)

    return operation


def _intercept_attribute(original: Any) -> Any:
    """Return a replacement for the `__getattribute__` of modules, which notes what the code reads.

    It finds parameters, buffers and modules itself, for speed: torch finds them after an exception, by six more reads.
    """

    def __getattribute__(module: nn.Module, name: str) -> Any:
        if name in UNREAD:  # Done here, for speed: a call of a module reads some twenty.
            return original(module, name)
        for recorder in switch.recorders():
            if not isinstance(recorder, Listener):
                break
            if recorder.stack and (not recorder.is_paused or recorder.current_operation is not None):
                recorder.record.attribute_reads.note(module, name, recorder.lines)
        kind = type(module)
        is_plain = kind.__getattr__ is _GETATTR and kind.__getattribute__ is __getattribute__
        if is_plain and not hasattr(kind, name):
            held = original(module, "__dict__")
            for part in () if name in held else _PARTS:
                if part in held and name in held[part]:
                    return held[part][name]
        return original(module, name)

    return __getattribute__


_GETATTR: Any = nn.Module.__getattr__
_PARTS = ("_parameters", "_buffers", "_modules")


def _is_code_of_run(listener: Listener) -> bool:
    """Return whether the running code belongs to the run and is not inside a recorded call."""
    return bool(listener.stack) and not listener.is_paused and listener.current_operation is None


Interception = tuple[Any, str, Callable[[Any], Any]]
"""A function to intercept: the module or class that holds it, its name, and what makes its replacement."""


def _interception(record: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return a function that returns a replacement for a function of torch, which passes its calls to `record`."""

    @functools.lru_cache(2)  # for speed: `functools.wraps` is slow, and every recording begins with this
    def intercept(original: Any) -> Any:
        def dispatch(recorder: Any, frame: FrameType, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(recorder, Listener):
                return original(*args, **kwargs)
            call = functools.partial(dispatch, recorder.outer, frame, *args, **kwargs)
            return record(recorder, frame, original, args, kwargs, call)

        @functools.wraps(original)
        def function(*args: Any, **kwargs: Any) -> Any:
            return dispatch(switch.current(), sys._getframe(1), *args, **kwargs)

        return function

    return intercept


def intercept_has_torch_function(original: Any) -> Any:
    """Return a replacement for `has_torch_function` that ignores the function modes of recorders.

    torch's Transformer layers do not use their fused path while any function mode is active; with this replacement a
    tracked run takes the same path as an untracked one. The original is called if the recorder runs definitions (under
    `trace`), and if a function mode that is not a recorder is active.
    """

    def has_torch_function(tensors: Any) -> bool:
        recorder: Any = switch.current()
        if not isinstance(recorder, Listener) or recorder.definitions or not _all_modes_are(type(recorder)):
            return original(tensors)
        return any(_overrides_torch_function(tensor) for tensor in tensors)

    return has_torch_function


def _all_modes_are(kind: type) -> bool:
    """Return whether every active function mode is an instance of a class."""
    return all(isinstance(mode, kind) for mode in _get_current_function_mode_stack())


def _overrides_torch_function(value: Any) -> bool:
    """Return whether the class of a value overrides `__torch_function__`; it need not be a subclass of Tensor."""
    kind: Any = type(value)
    if kind is Tensor or kind is nn.Parameter or not hasattr(kind, "__torch_function__"):
        return False
    return kind.__torch_function__ is not torch._C._disabled_torch_function_impl


RANDOM_FUNCTIONS: tuple[Interception, ...] = tuple(
    [(holder, name, _interception(_record_random_state)) for name in _RANDOM_STATE for holder in (torch, torch.random)]
)
"""The functions of the default generator, whose calls become boxes."""

STATE_FUNCTIONS: tuple[Interception, ...] = (
    *[(torch, name, _interception(_record_mode)) for name in _MODES],
    *[(inference_mode, name, _interception(_record_inference_mode)) for name in ("__enter__", "__exit__")],
    *[(FakeTensor, name, _intercept_property) for name in _PROPERTIES],
    (SymNode, "str", _interception(_record_text)),
    *[(SymNode, name, _intercept_arithmetic) for name in ("_add", "_sub", "_mul")],
    (nn.Module, "__getattribute__", _intercept_attribute),
    *[(saved_tensors_hooks, name, _interception(_record_hooks)) for name in ("__enter__", "__exit__")],
)
"""The functions to intercept for a diagram."""
