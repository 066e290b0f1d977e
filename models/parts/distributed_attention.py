"""Attention of distributed tensors (DTensor): each rank runs the kernel on its part of the leading axes and heads.

If queries and keys are both split along the sequence over one axis of the mesh, its ranks run `ring_attention`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from circuits import CircuitError, repeat

from .masks import refuse_shared_by_heads, refuse_window_and_start, with_key_mask


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
    """Return the attention of DTensors that are split alike, along leading axes, heads, or queries and keys.

    Keys and values may have all heads where the queries have a part of theirs: each rank takes those of its queries.

    Args:
        kernel: Attention of plain tensors.
        heads_apart: Whether a key mask has no axis for the heads, axis -3 of the queries.
        query, key, value: The queries `... y k`, and the keys and values `... x k`.
        mask, key_mask: Those of the kernel; each rank takes its part of them.
        **options: The other arguments of the kernel.

    Raises:
        CircuitError: The tensors are split along channels, along queries or keys over several axes of the mesh, or not
            alike; or with queries and keys split, a size is not divisible, there is dropout, or a mask is split or
            needs a gradient.
    """
    from torch.distributed.tensor import DTensor

    mesh, placements = query.device_mesh, query.placements
    shared = _shared(query, key, value)
    key, value = (_own_heads(each, query, shared) for each in (key, value))
    split = _split(query, key, value)
    if -2 in split:
        dim = split.index(-2)
        _refuse_in_ring(query, key, mask, key_mask, dim, options["dropout"])
        kernel = partial(_ring_kernel, heads_apart, mesh, dim)
        split[dim] = None  # each rank takes the rows and columns of whole masks that it needs

    def part(tensor: Tensor | None, missing: int) -> Tensor | None:
        """Return this rank's part of a mask that lacks some of the axes at the right of the queries."""
        if tensor is None:
            return None
        from torch.distributed.tensor import Replicate, Shard

        whole = tensor if is_distributed(tensor) else DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim)
        dims = [None if each is None or each >= -1 - missing else tensor.ndim + each + missing for each in split]
        target = [Shard(d) if d is not None and d >= 0 and tensor.shape[d] != 1 else Replicate() for d in dims]
        return whole.redistribute(placements=target).to_local()  # pyright: ignore[reportAttributeAccessIssue]

    shape = torch.Size((*query.shape[:-1], value.shape[-1]))
    query, key, value = (each.to_local() for each in (query, key, value))
    mask, key_mask = part(mask, 0), part(key_mask, 2 if heads_apart else 1)
    with torch._C.DisableTorchFunction():  # what the kernel makes, such as positions, is each rank's own
        output = kernel(query, key, value, mask, key_mask=key_mask, **options)
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(output.contiguous(), mesh, placements, run_check=False, shape=shape, stride=stride)


def _shared(query: Any, key: Any, value: Any) -> list[int]:
    """Return the axes of the mesh that split the heads of the queries, while keys and values have all of theirs."""
    if not (is_distributed(key) and is_distributed(value)) or key.ndim != query.ndim or query.ndim < 3:
        return []
    pairs = zip(query.placements, key.placements, value.placements, strict=True)
    return [
        place
        for place, (mine, *others) in enumerate(pairs)
        if mine.is_shard(query.ndim - 3) and all(each.is_replicate() for each in others)
    ]


def _own_heads(tensor: Any, query: Any, shared: Sequence[int]) -> Any:
    """Return keys or values split as the queries are; if they have all heads, each rank takes those of its queries."""
    if not shared:
        return tensor
    heads = repeat(tensor, "... g x k -> ... (g n) x k", n=query.shape[-3] // tensor.shape[-3])
    own = [query.placements[place] if place in shared else each for place, each in enumerate(tensor.placements)]
    return heads.redistribute(placements=own)  # pyright: ignore[reportAttributeAccessIssue]


def _split(query: Any, key: Any, value: Any) -> list[int | None]:
    """Return the axis, counted from the right, along which each axis of the mesh splits all three; refuse others."""
    placements = query.placements
    split = [each.dim - query.ndim if each.is_shard() else None for each in placements]
    given = [getattr(each, "placements", None) for each in (key, value)]
    is_whole = all(each.is_shard() or each.is_replicate() for each in placements)
    if given != [placements, placements] or not is_whole or -1 in split or split.count(-2) > 1:
        words = ", ".join([f"{name} {getattr(each, 'placements', 'whole')}" for name, each in
                           (("query", query), ("key", key), ("value", value))])  # fmt: skip
        raise CircuitError(
            "the kernel of attention takes tensors that are split alike along leading axes or heads, or along queries "
            f"and keys over one axis of the mesh, not {words}; run the definition: with definitions(): ..."
        )
    return split


def _refuse_in_ring(query: Any, key: Any, mask: Any, key_mask: Any, dim: int, dropout: float) -> None:
    """Raise CircuitError for what attention with queries and keys split over axis `dim` of the mesh cannot do."""
    mesh = query.device_mesh
    ranks, name = mesh.size(dim), (mesh.mesh_dim_names or ["axis of the mesh"] * mesh.ndim)[dim]
    what = f"attention with queries and keys split over {name}"
    for axis, tensor in (("queries", query), ("keys", key)):
        if tensor.shape[-2] % ranks:
            raise CircuitError(f"{what}: {tensor.shape[-2]} {axis} are not divided by its {ranks} ranks")
    if dropout:
        raise CircuitError(f"{what}: dropout draws random numbers, alike or not on all ranks; set it to 0")
    for argument, each in (("mask", mask), ("key_mask", key_mask)):
        if each is not None and is_distributed(each) and not each.placements[dim].is_replicate():
            raise CircuitError(f"{what}: {argument} has to be whole over {name}, not {each.placements}")
    if mask is not None and mask.requires_grad and torch.is_grad_enabled():
        raise CircuitError(f"{what}: mask needs a gradient, which is computed for queries, keys and values only")


def _ring_kernel(
    heads_apart: bool,
    mesh: Any,
    dim: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    key_mask: Tensor | None,
    causal: bool,
    window: int | None,
    start: int,
    dropout: float,
) -> Tensor:
    """Return the attention of this rank's queries; the arguments after `dim` are those of the kernel of attention."""
    from .ring import Ring
    from .ring_attention import ring_attention
    from .ring_blocks import Sight

    refuse_window_and_start(window, start)
    if not heads_apart:
        refuse_shared_by_heads(key_mask, key)
    lead = query.shape[:-2]
    masks = mask, with_key_mask(None, key_mask, 2 if heads_apart else 1)
    four = [None if each is None else _four_axes(each, lead) for each in masks]
    sight = Sight(causal, window, start, four[0], four[1], query.device)
    ring = Ring(mesh.get_group(dim), mesh.get_local_rank(dim), mesh.size(dim), by_halves=causal)
    query, key, value = (each[(None,) * (4 - each.ndim)].flatten(0, -4) for each in (query, key, value))
    return ring_attention(query, key, value, ring, sight).reshape(*lead, *query.shape[-2:])


def _four_axes(mask: Tensor, lead: torch.Size) -> Tensor:
    """Return a mask with four axes `b h y x`, of which some may have size 1; those of queries before y are `lead`."""
    if len(lead) > 2 and mask.ndim > 3:
        mask = mask.expand(*lead[:-1], *mask.shape[-3:]).flatten(0, -4)
    return mask[(None,) * (4 - mask.ndim)]


__all__ = ["attend_to_parts", "is_distributed"]
