"""Attention of distributed tensors (DTensor): each rank runs the kernel on its part of the leading axes and heads."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from circuits import CircuitError


def is_distributed(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, whose class is not loaded before someone makes one."""
    return type(tensor) is not Tensor and hasattr(tensor, "placements")


def attend_to_parts(
    kernel: Callable[..., Tensor],
    heads_apart: bool,
    query: Any,
    key: Any,
    value: Any,
    mask: Tensor | None,
    key_mask: Tensor | None,
    **options: Any,
) -> Tensor:
    """Return the attention of DTensors that are split alike along leading axes: that of the parts, put together.

    Args:
        kernel: Attention of plain tensors.
        heads_apart: Whether a key mask has no axis for the heads, axis -3 of the queries.
        query, key, value: The queries `... y k`, and the keys and values `... x k`.
        mask, key_mask: Those of the kernel; each rank takes its part of them.
        **options: The other arguments of the kernel.

    Raises:
        CircuitError: The tensors are split along queries, keys or channels, or not alike.
    """
    from torch.distributed.tensor import DTensor

    mesh, placements = query.device_mesh, query.placements
    split = [each.dim - query.ndim if each.is_shard() else None for each in placements]  # counted from the right
    given = [getattr(each, "placements", None) for each in (key, value)]
    is_whole = all(each.is_shard() or each.is_replicate() for each in placements)
    if given != [placements, placements] or not is_whole or any(each is not None and each > -3 for each in split):
        words = ", ".join([f"{name} {getattr(each, 'placements', 'whole')}" for name, each in
                           (("query", query), ("key", key), ("value", value))])  # fmt: skip
        raise CircuitError(
            f"the kernel of attention takes tensors that are split alike along leading axes or heads, not {words}; "
            "run the definition: with definitions(): ..."
        )

    def part(tensor: Tensor | None, missing: int) -> Tensor | None:
        """Return this rank's part of a mask that lacks some of the axes at the right of the queries."""
        if tensor is None:
            return None
        from torch.distributed.tensor import Replicate, Shard

        whole = tensor if is_distributed(tensor) else DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim)
        dims = [None if each is None or each >= -1 - missing else tensor.ndim + each + missing for each in split]
        target = [Shard(d) if d is not None and d >= 0 and tensor.shape[d] != 1 else Replicate() for d in dims]
        return whole.redistribute(placements=target).to_local()  # pyright: ignore[reportAttributeAccessIssue]

    local = [each.to_local() for each in (query, key, value)]
    mask, key_mask = part(mask, 0), part(key_mask, 2 if heads_apart else 1)
    with torch._C.DisableTorchFunction():  # what the kernel makes, such as positions, is each rank's own
        output = kernel(*local, mask, key_mask=key_mask, **options)
    shape = torch.Size((*query.shape[:-1], value.shape[-1]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(output.contiguous(), mesh, placements, run_check=False, shape=shape, stride=stride)


__all__ = ["attend_to_parts", "is_distributed"]
