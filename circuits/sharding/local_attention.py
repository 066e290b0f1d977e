"""torch's attention on distributed tensors that are split along heads or leading axes: each rank attends in its part.

DTensor itself knows the operators of some devices, and gathers before others.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard


def attend(query: Any, key: Any, value: Any, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """Return `F.scaled_dot_product_attention` of tensors that a plan splits alike; the mask may be whole."""
    mesh, placements = query.device_mesh, query.placements
    mask: Any = attn_mask
    if mask is not None:
        whole = mask if isinstance(mask, DTensor) else DTensor.from_local(mask, mesh, [Replicate()] * mesh.ndim)
        dims = [each.dim - query.ndim + mask.ndim if isinstance(each, Shard) else -1 for each in placements]
        mask = whole.redistribute(
            placements=[Shard(dim) if dim >= 0 and mask.shape[dim] > 1 else Replicate() for dim in dims]
        ).to_local()
    local = [each.to_local() for each in (query, key, value)]
    output = F.scaled_dot_product_attention(*local, mask, *args, **kwargs).contiguous()
    shape = (*query.shape[:-1], value.shape[-1])
    stride = tuple([output.new_empty(shape, device="meta").stride(dim) for dim in range(len(shape))])
    return DTensor.from_local(output, mesh, placements, run_check=False, shape=query.shape[:-1] + value.shape[-1:], stride=stride)


__all__ = ["attend"]
