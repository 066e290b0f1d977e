"""Record calls that torch's function modes do not intercept: of modules, `torch.vmap` and `autograd.Function.apply`.

`interception` passes each such call here, with the recorder of the thread and a function `call` that makes the original
call.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.nn.modules.lazy import LazyModuleMixin

from circuits import switch
from circuits.diagram import DATA_DEPENDENT_OPERATORS, TRACED_INTO, Operator, describe, has_backward_hooks, opened
from circuits.recording.events import Enter, Leave
from circuits.recording.listener import Listener, unrecorded
from circuits.recording.module_paths import register_late, register_paths
from circuits.recording.user_frames import user_line


def record_module(
    listener: Listener, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[..., Any]
) -> Any:
    """Record a module call as a box and return its result; `call(module, *args, **kwargs)` makes the original call.

    A compiled module is recorded as the module that it wraps. A module whose class overrides `__call__` is recorded
    once, although both the override and `nn.Module.__call__` are intercepted. A lazy module is initialized first, and
    recorded as the module that it becomes. The operations inside a TorchScript module run outside Python, so its box is
    empty, and a diagram runs it as one call. So is a module with backward hooks, which it registers, and one that
    may take a fused path.
    """
    record = listener.record
    is_script = issubclass(type(module), torch.jit.ScriptModule)
    compiled_from = None if is_script else module._modules.get("_orig_mod")
    if compiled_from is not None:
        record.originals.setdefault(id(compiled_from), record.originals.get(id(module), compiled_from))
        if module is listener.target:
            listener.target = compiled_from
        return compiled_from(*args, **kwargs)
    is_open = bool(listener.stack) and listener.stack[-1].module is module
    if is_open and type(module).__call__ is not nn.Module.__call__:
        return call(module, *args, **kwargs)
    if not listener.stack and listener.target is not None and module is not listener.target:
        return call(module, *args, **kwargs)
    if id(module) not in record.paths and not register_late(record, module):
        if listener.substitute_module is not None and id(module) not in record.originals:
            return listener.substitute_module(module)(*args, **kwargs)
        register_paths(record, module, bool(listener.stack))
    elif not listener.stack:
        record.roots.append((record.paths[id(module)][0], module))
    lazy: Any = module if issubclass(type(module), LazyModuleMixin) else None
    if lazy is not None and lazy.has_uninitialized_params():
        with unrecorded():
            lazy._infer_parameters(lazy, args, kwargs)
        record.snapshot.renew(module, record.paths[id(module)][0] or type(module).__name__)
    path = record.paths[id(module)][0]
    label = getattr(module, "original_name", "") if is_script else type(module).__name__
    box = Enter("module", label, path, module, user_line() if listener.lines else "")
    if not is_script:
        box.whole = has_backward_hooks(module) or _may_be_fused(module, args, kwargs)
        return listener.record_box(box, args, kwargs, lambda: call(module, *args, **kwargs))
    box.whole = True
    return listener.record_box(box, args, kwargs, lambda: _run_unseen(listener, lambda: call(module, *args, **kwargs)))


def _may_be_fused(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a module has a fused path, which computes other values where a query may attend to no key.

    The modules are `nn.TransformerEncoder` (its fused path writes zeros at padded places), its layer, and
    `nn.MultiheadAttention` (theirs give NaN where every key is padded or masked). They choose by the gradient mode, by
    autocast, by hooks and function modes, and not for fake tensors, so the path of the recorded run says nothing about
    another run. In training mode no path is fused. A subclass may make the masks itself.
    """
    if not issubclass(type(module), MODULES_WITH_FUSED_PATHS):  # Not isinstance, for speed: it reads `__class__`.
        return False
    for kind, masks in _MASKS.items():
        if issubclass(type(module), kind):
            first = module.layers[0] if isinstance(module, nn.TransformerEncoder) else module
            given = [args[place] if len(args) > place else kwargs.get(name) for name, place in masks.items()]
            has_mask = any(each is not None for each in given)
            return not first.training and (has_mask or type(module).forward is not kind.forward)
    return False


_MASKS: Mapping[type[nn.Module], Mapping[str, int]] = {
    nn.TransformerEncoder: {"src_key_padding_mask": 2},
    nn.TransformerEncoderLayer: {"src_mask": 1, "src_key_padding_mask": 2},
    nn.MultiheadAttention: {"key_padding_mask": 3, "attn_mask": 5},
}
"""The arguments that say which keys are masked, with their places, of each module that has a fused path for them."""

MODULES_WITH_FUSED_PATHS = tuple(_MASKS)


def record_forward(
    listener: Listener, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[..., Any]
) -> Any:
    """Record the call of `forward` of a module with a fused path as a box that runs as a whole, if it may be fused.

    The method is called either by the module, whose box is open then, or by other code, which leaves out the hooks.
    """
    is_called = any(box.module is module for box in listener.stack)
    if not listener.stack or listener.is_paused or is_called or not _may_be_fused(module, args, kwargs):
        return call(module, *args, **kwargs)
    record = listener.record
    if id(module) not in record.paths and not register_late(record, module):
        register_paths(record, module, True)
    where = user_line() if listener.lines else ""
    box = Enter("module", f"{type(module).__name__}.forward", record.paths[id(module)][0], module, where)
    box.function, box.whole = "forward", True
    return listener.record_box(box, args, kwargs, lambda: call(module, *args, **kwargs))


def _run_unseen(listener: Listener, run: Callable[[], Any]) -> Any:
    """Return `run()`, whose torch calls are not recorded; the tensors in the result are new values of the run."""
    with listener.paused():
        result = run()
    described = describe(result, listener.values.define)
    if not listener.definitions:
        listener.data_sizes.add(described)
    return result


def record_vmap(
    listener: Listener,
    function: Callable[..., Any],
    out_dims: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    call: Callable[..., Any],
) -> Any:
    """Record a call of `torch.vmap(function)` as a box, inside which tensors lack the mapped axis; return its result.

    `call(f)` makes the original call, with `f` in place of `function`. The calls by which torch adds and removes the
    mapped axis are not recorded.
    """
    if not listener.stack:
        return call(function)
    inside: list[Any] = []

    def recorded(*inner_args: Any, **inner_kwargs: Any) -> Any:
        listener.is_paused = False
        result = function(*inner_args, **inner_kwargs)
        listener.is_paused = True
        inside[:] = [describe(result, listener.values.wire)]
        return result

    listener.stack.error_noted = False
    box = Enter("transform", f"vmap {_function_name(function)}", "", None, "")
    box.args, box.kwargs = describe(args, listener.values.wire), describe(kwargs, listener.values.wire)
    listener.stack.append(box)
    try:
        listener.emit(box)
        listener.is_paused = True
        result = call(recorded)
        listener.stack.mark_whole(box.level + 1)
        leave = Leave(describe(result, listener.values.define), inside[0] if inside else None, out_dims)
        listener.data_sizes.leave(box, leave.result)
        listener.emit(leave, result)
    except BaseException as error:
        listener.stack.note_error(box, error)
        listener.emit(Leave(None, failed=True))
        raise
    finally:
        listener.is_paused = False
        listener.stack.pop()
    return result


def _function_name(function: Any) -> str:
    """Return the name of a function, or of a callable object's class; empty for a lambda."""
    name = getattr(function, "__name__", type(function).__name__)
    return "" if name == "<lambda>" else name


def record_autograd_function(
    listener: Listener, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[[], Any]
) -> Any:
    """Record `function.apply` as one call and return its result; the call keeps the custom backward of `function`."""
    if not listener.stack:
        return call()
    if function in TRACED_INTO:
        return TRACED_INTO[function](*args, **kwargs)

    def run_unrecorded() -> Any:
        with torch._C.DisableTorchFunction(), switch.set_recorder(None):
            return call()

    return listener.record_call(function.apply, args, kwargs, function.__name__, run_unrecorded)


def record_function_call(
    listener: Listener, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[[], Any]
) -> Any:
    """Record the call of a function that no function mode intercepts as one call, and return its result."""
    if not listener.stack or listener.is_paused:
        return call()
    with listener.paused():
        return listener.record_call(function, args, kwargs, getattr(function, "name", ""), call)


def record_operator(
    listener: Listener, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[..., Any]
) -> Any:
    """Record the call of an operator that takes functions as one call, and return its result.

    `call(*args, **kwargs)` makes the original call. In a run on data the functions run, so that only operators that
    choose by data are recorded as one call. A diagram calls the code around a `torch.func` transform again, so that
    inside it the calls in the functions are recorded.
    """
    is_one_call = listener.definitions or operator.name() in DATA_DEPENDENT_OPERATORS
    if not listener.stack or listener.is_paused or not is_one_call:
        return call(*args, **kwargs)
    level = functorch.maybe_current_level()
    if level is not None:
        listener.stack.mark_whole(level)
        return _with_tuples(call, *args) if operator.name() == "cond" else call(*args, **kwargs)

    def run_unrecorded() -> Any:
        with torch._C.DisableTorchFunction(), switch.set_recorder(None):
            return call(*args, **kwargs)

    with listener.paused():
        return listener.record_call(Operator(operator), opened(args), opened(kwargs), "", run_unrecorded)


def _with_tuples(
    cond: Callable[..., Any], condition: Any, true: Callable[..., Any], false: Callable[..., Any], operands: Any
) -> Any:
    """Return the result of `cond` with functions that return tuples, as torch's rule for `vmap` requires.

    Unless a recording is active, torch compiles the functions, and then they do.
    """
    results: list[Any] = []

    def as_tuple(function: Callable[..., Any], *args: Any) -> Any:
        results.append(function(*args))
        return (results[-1],) if isinstance(results[-1], Tensor) else results[-1]

    result = cond(condition, partial(as_tuple, true), partial(as_tuple, false), operands)
    return result[0] if isinstance(results[-1], Tensor) else result


def uncompiled(target: Any) -> Any:
    """Return the module or function that a compiled one wraps; return any other target unchanged."""
    if isinstance(target, nn.Module):
        return getattr(target, "_orig_mod", target)
    return getattr(target, "_torchdynamo_orig_callable", target)
