"""Functions of torch that each rank calls on its own parts, where DTensor gathers the tensors first or refuses them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard


def attention(query: Any, key: Any, value: Any, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """Return attention of tensors that are split alike along heads or leading axes; the mask may be whole.

    So may keys and values: each rank takes its heads of them.
    """
    mesh, placements = query.device_mesh, query.placements
    mask: Any = attn_mask
    if mask is not None:
        whole = mask
        if not isinstance(mask, DTensor):
            whole = DTensor.from_local(mask, mesh, [Replicate()] * mesh.ndim, run_check=False)
        dims = [each.dim - query.ndim + mask.ndim if isinstance(each, Shard) else -1 for each in placements]
        target = [Shard(dim) if dim >= 0 and mask.shape[dim] > 1 else Replicate() for dim in dims]
        mask = whole.redistribute(placements=target).to_local()
    local = [query.to_local(), *[_own_heads(each, query) for each in (key, value)]]
    attend: Any = F.scaled_dot_product_attention
    output = attend(*local, mask, *args, **kwargs)
    return _joined(output, mesh, placements, (*query.shape[:-1], value.shape[-1]))


def _own_heads(tensor: Any, query: Any) -> Tensor:
    """Return this rank's part of keys or values, which are split as the queries are, or whole."""
    for place, (mine, other) in enumerate(zip(tensor.placements, query.placements, strict=True)):
        if mine.is_replicate() and type(other) is Shard:  # heads inside a group are split alike in all three
            tensor = taken(tensor, place, other.dim)
    return tensor.to_local()


def taken(tensor: Any, place: int, dim: int) -> Any:
    """Return a tensor of which each rank of one axis of the mesh takes its part, whose gradient is gathered.

    Args:
        tensor: The tensor, which is whole over this axis of the mesh.
        place: The number of the axis of the mesh.
        dim: The dimension of the tensor.
    """
    whole: Any = _ContiguousGradient.apply(tensor)
    return whole.redistribute(placements=[*tensor.placements[:place], Shard(dim), *tensor.placements[place + 1 :]])


class _ContiguousGradient(torch.autograd.Function):
    """The identity, whose gradient is contiguous: views of a gradient that was gathered could not be made."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Return the gradient in order."""
        return gradient.contiguous()


def einsum(equation: str, *tensors: Any) -> Tensor:
    """Return an einsum in which a whole tensor has an axis that is split in another, and needs a gradient."""
    terms = equation.partition("->")[0].replace(" ", "").split(",")
    split: dict[tuple[int, str], None] = {}
    axes = [_einsum_axes(term, getattr(tensor, "ndim", 0)) for term, tensor in zip(terms, tensors, strict=True)]
    for names, tensor in zip(axes, tensors, strict=True):
        for place, each in enumerate(getattr(tensor, "placements", ())):
            if isinstance(each, Shard):
                split[place, names[each.dim]] = None
    found = list(tensors)
    for number, (names, tensor) in enumerate(zip(axes, tensors, strict=True)):
        for place, name in split:
            is_whole = isinstance(tensor, DTensor) and tensor.requires_grad and tensor.placements[place].is_replicate()
            if is_whole and name in names and tensor.shape[names.index(name)] > 1:
                found[number] = taken(found[number], place, names.index(name))
    return torch.einsum(equation, *found)


def _einsum_axes(term: str, ndim: int) -> list[str]:
    """Return the name of each axis of a tensor in an equation; those of `...` are numbered from the right."""
    before, _, after = term.partition("...")
    count = ndim - len(before) - len(after)
    return [*before, *[f"...{number}" for number in range(count, 0, -1)], *after]


def linear(source: Any, weight: Any, bias: Any = None) -> Tensor:
    """Return a linear map whose outputs are a group, `(3 h k)`, of which each rank has a part of each block."""
    places = [isinstance(each, _StridedShard) and each.dim == 0 for each in getattr(weight, "placements", ())]
    if not any(places):
        return F.linear(source, weight, bias)
    placements = [
        _StridedShard(source.ndim - 1, split_factor=here.split_factor) if isinstance(here, _StridedShard) else there
        for here, there in zip(weight.placements, source.placements, strict=True)
    ]
    sums = [Partial() if is_here else each for is_here, each in zip(places, source.placements, strict=True)]
    given = source.to_local(grad_placements=sums), weight.to_local(), None if bias is None else bias.to_local()
    return _joined(F.linear(*given), source.device_mesh, placements, (*source.shape[:-1], weight.shape[0]))


def _joined(part: Tensor, mesh: Any, placements: Any, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor of which each rank has computed a part."""
    stride = torch.empty(shape, device="meta").stride()
    size = torch.Size(shape)
    return DTensor.from_local(part.contiguous(), mesh, placements, run_check=False, shape=size, stride=stride)


LOCAL: Mapping[Any, Callable[..., Tensor]] = {F.scaled_dot_product_attention: attention, F.linear: linear}
"""The functions that are called in place of torch's."""

__all__ = ["LOCAL", "einsum"]
