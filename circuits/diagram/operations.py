"""What kinds of callables torch has, to one who records: those to note, to let pass, to open, and those that write.

Callables are told apart by themselves; only the questions one can ask a tensor (its size, its device) go by name.
"""

import types
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.checkpoint import CheckpointFunction

RECORD, SKIP, OPEN, ITERATE = range(4)

_VIEWS = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})
_WRITTEN = frozenset({"data", "requires_grad", "real", "imag"})
_ASKED = (
    "size dim ndimension numel nelement stride storage_offset is_floating_point is_complex is_contiguous "
    "is_signed element_size data_ptr __len__ __repr__ __format__ __hash__ __bool__ __float__ __int__ __index__ "
    "__complex__ __array__ __dlpack__ __dlpack_device__ __reduce_ex__ __reduce__ __setstate__ __deepcopy__ tolist "
    "numpy get_device is_same_size is_nonzero register_hook retain_grad backward is_tensor is_inference is_set_to "
    "__dir__ storage untyped_storage _typed_storage _set_grad_enabled set_grad_enabled is_storage has_names "
    "sym_float sym_int sym_max sym_min sym_not sym_ite is_shared share_memory_ is_pinned manual_seed _is_view "
    "__contains__ register_post_accumulate_grad_hook _lazy_init is_coalesced dense_dim sparse_dim result_type "
    "can_cast _assert _is_functional_tensor is_neg is_conj _has_compatible_shallow_copy_type __torch_dispatch__"
)
_QUESTIONS = frozenset(_ASKED.split())
OPENED: dict[Any, Callable[..., Any]] = {}
"""Functions of torch whose bodies are recorded, not they themselves."""


def _closed(*_: Any) -> bool:
    return False


def _open(function: types.FunctionType) -> Callable[..., Any]:
    """A Python function of torch that runs its body under a mode, instead of asking the mode first."""
    asks = {name: _closed for name in function.__globals__ if name.startswith("has_torch_function")}
    seen = {**function.__globals__, **asks}
    opened = types.FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


def _uncheckpointed(run: Callable[..., Any], preserve: bool, *args: Any) -> Any:
    """What a checkpoint gives; its gradient too, but for the memory it saves."""
    return run(*args)


OPENED[F.multi_head_attention_forward] = _open(F.multi_head_attention_forward)
OPENED[CheckpointFunction] = _uncheckpointed
KINDS: dict[Any, int] = dict.fromkeys(OPENED, OPEN)
KINDS[Tensor.__iter__] = ITERATE


def kind(function: Any) -> int:
    """What to do with a torch callable; remembered."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        found = RECORD if _attribute(function) in _VIEWS else SKIP
    elif name == "__set__":
        found = RECORD if mutates(function) else SKIP
    else:
        found = SKIP if name in _QUESTIONS else RECORD
    return KINDS.setdefault(function, found)


def _attribute(function: Any) -> str:
    """The attribute of a tensor that a callable reads or writes."""
    return getattr(getattr(function, "__self__", None), "__name__", "")


def mutates(function: Any) -> bool:
    """Whether a callable of torch writes to its first argument, going by its name."""
    name = getattr(function, "__name__", "")
    if name == "__set__":
        return _attribute(function) in _WRITTEN
    if name.startswith("__"):
        return name == "__setitem__" or (
            name.startswith("__i") and name not in ("__iter__", "__invert__", "__index__", "__int__")
        )
    return name.endswith("_") and not name.startswith("_")


_RETURNING: dict[Any, Any] = {}


def returning(function: Any) -> Any:
    """A function that does the same and returns its first argument."""

    def run(first: Any, *args: Any, **kwargs: Any) -> Any:
        function(first, *args, **kwargs)
        return first

    run.__name__ = getattr(function, "__name__", "run")
    return _RETURNING.setdefault(function, run)


def operation_name(function: Any) -> str:
    """What to call a torch callable: `add`, `index`, `T`."""
    name = getattr(function, "__name__", type(function).__name__)
    if isinstance(function, OpOverload):
        name = name.partition(".")[0]
    if name in ("__get__", "__set__"):
        return ("set " if name == "__set__" else "") + (_attribute(function) or name)
    if name in ("__getitem__", "__setitem__"):
        return "index" if name == "__getitem__" else "set index"
    bare = name.strip("_")
    if name.startswith("__i") and mutates(function):
        return f"{bare[1:]}_"
    return bare + "_" * (mutates(function) and name.endswith("_") and not name.startswith("__"))
