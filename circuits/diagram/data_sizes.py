"""Operations whose results have sizes that depend on data: `x[x > 0]`, `nonzero`, `torch.zeros(n)` of a tensor n.

All other sizes of a run on data follow from the sizes of its inputs. `size_rule(function)` is a rule, which says of the
arguments of a call whether the sizes of its results depend on data.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from circuits.diagram.opaque_calls import OPERATORS, is_opaque
from circuits.diagram.operations import operation_name
from circuits.diagram.structure import tensors, tensors_in

SizeRule = Callable[[tuple[Any, ...], dict[str, Any]], bool]


def _always(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return True


def _with_one_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return len(args) + len(kwargs) == 1


def _with_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a tensor is given where a function that makes tensors takes numbers: `torch.zeros(n)`."""
    return bool(tensors_in((*args, *kwargs.values())))


def _with_further_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a tensor is given after the first argument, where numbers are taken: `x.narrow(0, start, n)`."""
    return _with_tensors(args[1:], kwargs)


def _with_repeats(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return _with_one_argument(args, kwargs) or _with_further_tensors(args, kwargs)


def _with_mask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether an index has a mask, or a slice that starts or ends at a tensor."""
    parts = args[1] if isinstance(args[1], tuple) else (args[1],)
    masks = [part for part in parts if not isinstance(part, slice)]
    return any(part.dtype in (torch.bool, torch.uint8) for part in tensors(masks)) or any(
        isinstance(part, slice) and tensors(part) for part in parts
    )


_BY_DATA = (
    "nonzero argwhere masked_select unique unique_consecutive unique_dim bincount linalg_lstsq pack_padded_sequence "
    "pad_packed_sequence to_padded_tensor nested_tensor_from_jagged "
    "coalesce to_sparse to_sparse_coo to_sparse_csr to_sparse_csc to_sparse_bsr to_sparse_bsc"
)
_MAKING_TENSORS = (
    "zeros ones empty full rand randn randint arange range linspace logspace eye tril_indices triu_indices"
)
_WITH_NUMBERS = (
    "narrow expand broadcast_to view reshape repeat tile pad topk tensor_split unflatten resize_ as_strided "
    "interpolate new_zeros new_ones new_empty new_full"
)
_BY_NAME: dict[str, SizeRule] = {
    **dict.fromkeys(_BY_DATA.split(), _always),
    **dict.fromkeys(_MAKING_TENSORS.split(), _with_tensors),
    **dict.fromkeys(_WITH_NUMBERS.split(), _with_further_tensors),
    **dict.fromkeys(("one_hot", "where"), _with_one_argument),
    "repeat_interleave": _with_repeats,
    "index": _with_mask,
}
_RULES: dict[Any, SizeRule | None] = {}


def size_rule(function: Any) -> SizeRule | None:
    """Return the rule of a function; None if the sizes of its results do not depend on data.

    A function that is not torch's may compute sizes from data: a custom operator, an `autograd.Function`, TorchScript.
    """
    if function in _RULES:
        return _RULES[function]
    is_operator = type(function) in OPERATORS
    if is_opaque(function) and not is_operator:
        return _always  # It is not stored, since that would keep the user's function alive.
    name = operation_name(function).lstrip("_").rstrip("0123456789")
    return _RULES.setdefault(function, _always if is_opaque(function) else _BY_NAME.get(name))


_PARTING = "unbind split chunk hsplit vsplit dsplit split_with_sizes unsafe_split unsafe_chunk"
_PARTING_NAMES = frozenset(_PARTING.split())


def makes_sparse(function: Any) -> bool:
    """Return whether a function makes a sparse tensor, of as many elements as are not zero."""
    name = operation_name(function)
    return name.startswith("to_sparse") or name == "coalesce"


def returns_parts(function: Any) -> bool:
    """Return whether the number of results of a function depends on the size of its argument."""
    return operation_name(function) in _PARTING_NAMES


def shape_of(tensor: Tensor, dim: int | None = None) -> Any:
    """Return the sizes of a tensor as ints, or that of one axis; of a nested tensor, the sizes of each of its parts."""
    if tensor.is_nested:
        return [tuple(part.shape) for part in tensor.unbind()]
    return tuple(tensor.shape) if dim is None else tensor.size(dim)


shape_of.__name__ = "shape"

__all__ = ["makes_sparse", "returns_parts", "shape_of", "size_rule"]
