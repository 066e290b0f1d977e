"""Torch callables: what the recorder does when one is called, which ones write in place, and their names in diagrams.

The recorder is a `TorchFunctionMode`: torch calls it in place of every function. `action_for(function)` is one of:

- `RECORD`: the call is one box of the diagram. This is the default.
- `MEASURE`: the function reads sizes of a tensor. It is recorded only where they depend on data (`data_sizes`).
- `SKIP`: the function runs and nothing is recorded. These are not tensor operations: copying, pickling, and settings.
  Reading an attribute is skipped unless it is a view of the tensor (`x.T`, `x.real`), a size or a property of it;
  setting one is skipped unless it changes the tensor (`x.data = y`).
- `PROPERTY`: the call reads a property of a tensor other than its sizes (`x.dtype`, `x.is_contiguous()`), and becomes a
  `PropertyGuard`. If it returns a tensor (`x.grad`, `x.type(dtype)`), it is recorded as a call.
- `TRACE_INTO`: no box for the call itself; the operations in its body are recorded. `TRACED_INTO` has the function to
  run in its place.
- `READ`: the call reads numbers of the data (`tolist`, `__bool__`). In a run on data it is recorded as a `Reading`,
  under `trace`, where there is no data, only if it returns symbolic numbers.
- `ITERATE`: iteration over a tensor, recorded as one `unbind`.
- `SET_GRADIENTS`: the code turns gradients on or off; the calls after it have this setting (`settings`).

The functions to trace into or iterate over are compared by identity, the functions to skip or that read by name.
"""

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.checkpoint import CheckpointFunction

RECORD, SKIP, TRACE_INTO, ITERATE, READ, MEASURE, PROPERTY, SET_GRADIENTS = range(8)

_RECORDED_GETTERS = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})
_RECORDED_SETTERS = frozenset({"data", "grad", "requires_grad", "real", "imag"})
_SKIPPED = (
    "__hash__ __dlpack_device__ __reduce_ex__ __reduce__ __setstate__ "
    "is_same_size is_tensor is_set_to __dir__ _typed_storage is_storage has_names "
    "sym_float sym_int sym_max sym_min sym_not sym_ite share_memory_ _is_view "
    "register_post_accumulate_grad_hook _lazy_init dense_dim sparse_dim "
    "can_cast _assert _is_functional_tensor _has_compatible_shallow_copy_type __torch_dispatch__"
)
_SKIPPED_NAMES = frozenset(_SKIPPED.split())
_MEASURING = "size shape numel nelement __len__ dim ndim ndimension"
_MEASURING_NAMES = frozenset(_MEASURING.split())
_READING = (
    "__bool__ __float__ __int__ __index__ __complex__ __array__ __dlpack__ __contains__ __format__ __repr__ "
    "tolist numpy is_nonzero"
)
_READING_NAMES = frozenset(_READING.split())
_PROPERTY_METHODS = (
    "stride storage_offset is_floating_point is_complex is_contiguous is_signed element_size data_ptr get_device "
    "is_inference is_shared is_pinned is_coalesced result_type is_neg is_conj type storage untyped_storage"
)
_PROPERTY_NAMES = frozenset(_PROPERTY_METHODS.split())
_PROPERTY_GETTER_NAMES = (
    "dtype device layout requires_grad is_leaf grad grad_fn retains_grad is_cuda is_cpu is_xpu is_mps is_meta "
    "is_sparse is_sparse_csr is_mkldnn is_quantized is_nested itemsize nbytes"
)
_PROPERTY_GETTERS = frozenset(_PROPERTY_GETTER_NAMES.split())
_BY_NAME = (
    (SKIP, _SKIPPED_NAMES),
    (READ, _READING_NAMES),
    (MEASURE, _MEASURING_NAMES),
    (PROPERTY, _PROPERTY_NAMES),
)
_BY_ATTRIBUTE = ((RECORD, _RECORDED_GETTERS), (MEASURE, _MEASURING_NAMES), (PROPERTY, _PROPERTY_GETTERS))


def _never_overridden(*_: Any) -> bool:
    """Return False: a replacement for torch's `has_torch_function`, which is True under a `TorchFunctionMode`."""
    return False


def _without_override(function: types.FunctionType) -> Callable[..., Any]:
    """Return a copy of a Python function of torch that runs its body without calling the `TorchFunctionMode` first."""
    replaced = {name: _never_overridden for name in function.__globals__ if name.startswith("has_torch_function")}
    namespace = {**function.__globals__, **replaced}
    copy = types.FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _without_checkpoint(run: Callable[..., Any], preserve: bool, *args: Any) -> Any:
    """Run a function without its activation checkpoint: same outputs and gradients, but no memory is saved."""
    return run(*args)


def _deepcopy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """Return what `copy.deepcopy` returns for a tensor; torch refuses a tensor that an operation with gradient made."""
    with torch._C.DisableTorchFunction():  # Whether it is a leaf decides what is raised, not what is computed.
        requires_grad = tensor.requires_grad
        if id(tensor) in memo or not tensor.is_leaf:
            return Tensor.__deepcopy__(tensor, memo)
    copied = tensor.detach().clone()
    return memo.setdefault(id(tensor), copied.requires_grad_() if requires_grad else copied)


def alias(source: Tensor, size: Any, stride: Any, offset: Any) -> Tensor:
    """Return a tensor without gradient that shares the memory of `source`; `Variable(x)` makes such a tensor of x."""
    return source.detach().as_strided(size, stride, offset)


def copied_from_numpy(array: Any) -> Tensor:
    """Return a new tensor with the numbers of a numpy array; changes of the tensor do not change the array."""
    return torch.from_numpy(array.copy())


TRACED_INTO: dict[Any, Callable[..., Any]] = {
    Tensor.__deepcopy__: _deepcopy,
    F.multi_head_attention_forward: _without_override(F.multi_head_attention_forward),
    CheckpointFunction: _without_checkpoint,
}
"""For each callable to trace into, the function to run in its place so that its body is recorded."""

ACTIONS: dict[Any, int] = {
    **dict.fromkeys(TRACED_INTO, TRACE_INTO),
    Tensor.__iter__: ITERATE,
    torch._C._set_grad_enabled: SET_GRADIENTS,
}
"""The action for each callable; `action_for` adds those that are not listed here."""


def action_for(function: Any) -> int:
    """Return what the recorder does when a torch callable is called, and cache it in `ACTIONS`."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        attribute = attribute_name(function)
        action = next((each for each, names in _BY_ATTRIBUTE if attribute in names), SKIP)
    elif name == "__set__":
        action = RECORD if mutates(function) else SKIP
    else:
        action = next((each for each, names in _BY_NAME if name in names), RECORD)
    return ACTIONS.setdefault(function, action)


def attribute_name(function: Any) -> str:
    """Return the name of the attribute that a getter or setter of Tensor reads or writes."""
    return getattr(getattr(function, "__self__", None), "__name__", "")


def mutates(function: Any) -> bool:
    """Return whether a torch callable writes to its first argument, by its name: `add_`, `__iadd__`, `__setitem__`."""
    name = getattr(function, "__name__", "")
    if name == "__set__":
        return attribute_name(function) in _RECORDED_SETTERS
    if name.startswith("__"):
        return name == "__setitem__" or (
            name.startswith("__i") and name not in ("__iter__", "__invert__", "__index__", "__int__")
        )
    return name.endswith("_") and not name.startswith("_")


copied_from_numpy.__name__ = "from_numpy"

_RETURNING_FIRST: dict[Any, Any] = {}


def returning_first(function: Any) -> Any:
    """Return a wrapper of `function` that returns its first argument; there is one wrapper for each function.

    It replaces an in-place function that returns None: `x[i] = y` is recorded as if the call returned `x`.
    """

    def run(first: Any, *args: Any, **kwargs: Any) -> Any:
        function(first, *args, **kwargs)
        return first

    run.__name__ = getattr(function, "__name__", "run")
    return _RETURNING_FIRST.setdefault(function, run)


def operation_name(function: Any) -> str:
    """Return the name of a torch callable as diagrams show it: `add`, `add_`, `index`, `T`, `set data`.

    That of `apply` of a `torch.autograd.Function` is the name of the class.
    """
    name = getattr(function, "__name__", type(function).__name__)
    owner = getattr(function, "__self__", None)
    if name == "apply" and isinstance(owner, type):
        return owner.__name__
    if isinstance(function, OpOverload):
        name = name.partition(".")[0]
    if name in ("__get__", "__set__"):
        return ("set " if name == "__set__" else "") + (attribute_name(function) or name)
    if name in ("__getitem__", "__setitem__"):
        return "index" if name == "__getitem__" else "set index"
    bare = name.strip("_")
    if name.startswith("__i") and mutates(function):
        return f"{bare[1:]}_"
    return bare + "_" * (mutates(function) and name.endswith("_") and not name.startswith("__"))
