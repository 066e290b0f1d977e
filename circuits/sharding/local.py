"""Functions of torch that each rank calls on its own parts, where DTensor gathers the tensors first or refuses them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard


def attention(query: Any, key: Any, value: Any, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """Return attention of tensors that are split alike along heads or leading axes; the mask may be whole."""
    mesh, placements = query.device_mesh, query.placements
    mask: Any = attn_mask
    if mask is not None:
        whole = mask
        if not isinstance(mask, DTensor):
            whole = DTensor.from_local(mask, mesh, [Replicate()] * mesh.ndim, run_check=False)
        dims = [each.dim - query.ndim + mask.ndim if isinstance(each, Shard) else -1 for each in placements]
        target = [Shard(dim) if dim >= 0 and mask.shape[dim] > 1 else Replicate() for dim in dims]
        mask = whole.redistribute(placements=target).to_local()
    local = [each.to_local() for each in (query, key, value)]
    attend: Any = F.scaled_dot_product_attention
    output = attend(*local, mask, *args, **kwargs)
    return _joined(output, mesh, placements, (*query.shape[:-1], value.shape[-1]))


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

__all__ = ["LOCAL"]
