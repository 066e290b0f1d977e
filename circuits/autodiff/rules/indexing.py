"""What picks and puts numbers, back: what was read is added there, what was put is read where it was put."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.aliases import overwritten, viewed
from circuits.autodiff.opaque import Pullback
from circuits.autodiff.rules.registry import numel_along, positive_dim, reverses, unbroadcast, zeros

# Pieces ---------------------------------------------------------------------------------------------------------------


@reverses("cat concat concatenate")
def cat(dy: Tensor, tensors: Sequence[Tensor], dim: int) -> Any:
    """Cut where it was joined; an empty vector may have been among them."""
    found, start = [], 0
    for tensor in tensors:
        if tensor.ndim != dy.ndim:
            found.append(zeros(tensor))
            continue
        found.append(dy.narrow(dim, start, tensor.shape[dim]))
        start = start + tensor.shape[dim]
    return {"tensors": found}


@reverses("stack")
def stack(dy: Tensor, tensors: Sequence[Tensor], dim: int) -> Any:
    """One index for each."""
    return {"tensors": [dy.select(dim, place) for place in range(len(tensors))]}


@reverses("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk unsafe_split_with_sizes")
def split(dy: Sequence[Tensor], dim: int) -> Tensor:
    """Joined where it was cut."""
    return torch.cat(list(dy), dim)


@reverses("unbind")
def unbind(dy: Sequence[Tensor], dim: int) -> Tensor:
    """One index for each."""
    return torch.stack(list(dy), dim)


@reverses("select")
def select(dy: Tensor, x: Tensor, dim: int, index: Any) -> Tensor:
    """Zeros but at the index."""
    return torch.select_scatter(zeros(x), dy, dim, index)


@reverses("select_scatter")
def select_scatter(dy: Tensor, src: Tensor, dim: int, index: Any) -> Any:
    """What was put there, and all but that."""
    return {"x": torch.select_scatter(dy, zeros(src), dim, index), "src": dy.select(dim, index)}


@reverses("slice")
def slice_(dy: Tensor, x: Tensor, dim: int, start: Any, end: Any, step: Any) -> Tensor:
    """Zeros but in the slice."""
    if not isinstance(dy.shape[dim], int) or dy.shape[dim] != x.shape[dim]:
        return torch.slice_scatter(zeros(x), dy, dim, start, end, step)
    return dy


@reverses("slice_scatter")
def slice_scatter(dy: Tensor, src: Tensor, dim: int, start: Any, end: Any, step: Any) -> Any:
    """What was put there, and all but that."""
    kept = torch.ops.aten.slice.Tensor(dy, dim, start, end, step)
    return {"x": torch.slice_scatter(dy, zeros(src), dim, start, end, step), "src": kept}


@reverses("narrow")
def narrow(dy: Tensor, x: Tensor, dim: int, start: Any, length: Any) -> Tensor:
    """Zeros before and after."""
    where = positive_dim(dim, x.ndim)
    if not isinstance(start, int):
        return torch.slice_scatter(zeros(x), dy, where, start, start + length, 1)
    start = start + x.shape[where] if start < 0 else start
    after = x.shape[where] - start - length
    return F.pad(dy, [0, 0] * (x.ndim - 1 - where) + [start, after])


@reverses("diagonal")
def diagonal(dy: Tensor, x: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    """Zeros but on the diagonal."""
    return torch.diagonal_scatter(zeros(x), dy, offset, dim1, dim2)


@reverses("diagonal_scatter")
def diagonal_scatter(dy: Tensor, src: Tensor, offset: int, dim1: int, dim2: int) -> Any:
    """What was put there, and all but that."""
    kept = dy.diagonal(offset, dim1, dim2)
    return {"x": torch.diagonal_scatter(dy, zeros(src), offset, dim1, dim2), "src": kept}


@reverses("diag_embed")
def diag_embed(dy: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    """The diagonal."""
    return dy.diagonal(offset, dim1, dim2)


@reverses(overwritten)
def overwritten_(dy: Tensor, args: Any) -> Any:
    """What was put there, and all but that."""
    _, new, path = args
    return {"args": [overwritten(dy, zeros(new), path), viewed(dy, path), None]}


# Windows --------------------------------------------------------------------------------------------------------------


@reverses("unfold")
def unfold(dy: Tensor, x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Each window added where it was read."""
    if x.ndim == 0:
        return dy.sum()
    dim = positive_dim(dimension, x.ndim)
    starts = torch.arange(dy.shape[dim], device=dy.device).unsqueeze(1) * step
    index = (starts + torch.arange(size, device=dy.device)).flatten()
    return zeros(x).index_add(dim, index, dy.movedim(-1, dim + 1).flatten(dim, dim + 1))


@reverses("im2col")
def im2col(dy: Tensor, x: Tensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    """Folded up again."""
    return torch.ops.aten.col2im.default(dy, [*x.shape[-2:]], kernel_size, dilation, padding, stride)


@reverses("col2im")
def col2im(dy: Tensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    """Unfolded again."""
    return torch.ops.aten.im2col.default(dy, kernel_size, dilation, padding, stride)


# Indices --------------------------------------------------------------------------------------------------------------


@reverses("index _unsafe_index")
def index(dy: Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Added where it was read."""
    return torch.ops.aten.index_put.default(zeros(x), list(indices), dy, True)


@reverses("index_put _unsafe_index_put")
def index_put(dy: Tensor, x: Tensor, values: Tensor, indices: Sequence[Tensor | None], accumulate: bool) -> Any:
    """What was put there, and what was there before unless it was added."""
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype is torch.bool and values.ndim == 0:
        mask = indices[0].reshape([*indices[0].shape, *[1] * (x.ndim - indices[0].ndim)])
        kept = dy if accumulate else dy.masked_fill(mask, 0)
        return {"x": kept, "values": dy.masked_fill(~mask, 0).sum()}
    kept = dy if accumulate else torch.ops.aten.index_put.default(dy, list(indices), values.new_zeros(()))
    return {"x": kept, "values": unbroadcast(torch.ops.aten.index.Tensor(dy, list(indices)), values)}


@reverses("index_select")
def index_select(dy: Tensor, x: Tensor, dim: int, index: Tensor) -> Tensor:
    """Added where it was read."""
    return zeros(x).index_add(dim, index, dy) if x.ndim else dy.sum()


@reverses("index_add")
def index_add(dy: Tensor, source: Tensor, dim: int, index: Tensor, alpha: Any) -> Any:
    """Read where it was added."""
    found = dy.index_select(dim, index)
    found = found if alpha == 1 else found * alpha
    return {"x": dy, "source": found.reshape(source.shape)}


@reverses("index_copy")
def index_copy(dy: Tensor, source: Tensor, dim: int, index: Tensor) -> Any:
    """Read where it was put."""
    return {"x": dy.index_fill(dim, index, 0), "source": dy.index_select(dim, index).reshape(source.shape)}


@reverses("index_fill")
def index_fill(dy: Tensor, dim: int, index: Tensor, value: Any) -> Any:
    """Nothing where it was filled."""
    filling = dy.index_select(dim, index).sum() if isinstance(value, Tensor) else None
    return {"x": dy.index_fill(dim, index, 0), "value": filling}


@reverses("gather")
def gather(dy: Tensor, x: Tensor, dim: int, index: Tensor) -> Tensor:
    """Added where it was read."""
    return zeros(x).scatter_add(dim, index, dy)


@reverses("scatter_add")
def scatter_add(dy: Tensor, src: Tensor, dim: int, index: Tensor) -> Any:
    """Read where it was added; what was not used gets nothing."""
    return {"x": dy, "src": _read(dy, src, dim, index)}


@reverses("scatter")
def scatter(dy: Tensor, dim: int, index: Tensor, src: Any = None, value: Any = None) -> Any:
    """Read where it was put."""
    back = None if not isinstance(src, Tensor) else _read(dy, src, dim, index)
    return {"x": dy.scatter(dim, index, 0), **({} if back is None else {"src": back})}


def _read(dy: Tensor, src: Tensor, dim: int, index: Tensor) -> Tensor:
    found = dy.gather(dim, index)
    for d in range(src.ndim):
        if isinstance(src.shape[d], int) and isinstance(found.shape[d], int) and src.shape[d] != found.shape[d]:
            found = F.pad(found, [0, 0] * (src.ndim - 1 - d) + [0, src.shape[d] - found.shape[d]])
    return found


@reverses("take")
def take(dy: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """Added where it was read, all numbers in a row."""
    flat = torch.zeros([numel_along(x, list(range(x.ndim)))], dtype=x.dtype, device=x.device)
    return flat.index_add(0, index.flatten(), dy.flatten()).reshape(x.shape)


@reverses("embedding")
def embedding(dy: Tensor, weight: Tensor, indices: Tensor, padding_idx: Any, scale_grad_by_freq: bool) -> Any:
    """Each row gets what was read of it, the padding nothing."""
    rows = indices.flatten()
    back = dy.flatten(0, indices.ndim - 1) if indices.ndim else dy.unsqueeze(0)
    if not isinstance(padding_idx, int) or padding_idx >= 0:
        back = back.masked_fill((rows == padding_idx).unsqueeze(-1), 0)
    if scale_grad_by_freq:
        often = torch.zeros([weight.shape[0]], dtype=dy.dtype, device=dy.device)
        often = often.index_add(0, rows, torch.ones(rows.shape, dtype=dy.dtype, device=dy.device))
        back = back / often.index_select(0, rows).unsqueeze(-1)
    return {"weight": zeros(weight).index_add(0, rows, back)}


@reverses("_embedding_bag _embedding_bag_forward_only")
def embedding_bag(
    dy: Any, y: Any, weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool, mode: int,
    per_sample_weights: Tensor | None, include_last_offset: bool, padding_idx: int,
) -> Any:  # fmt: skip
    """Each row gets what was read of it: weighed in a sum, shared out in a mean, for a maximum where it was found.

    How torch scales by frequency in a bag is its own secret, so there it is asked.
    """
    dy = dy[0]
    if scale_grad_by_freq:
        whole = (weight, indices, offsets, True, mode, False, per_sample_weights, include_last_offset, padding_idx)
        found = Pullback(torch.ops.aten._embedding_bag.default, "_embedding_bag")(whole, {}, (dy,))
        return dict(zip(("weight", "per_sample_weights"), found, strict=False))
    places = torch.arange(indices.shape[0], dtype=offsets.dtype, device=dy.device)
    bags, used = torch.searchsorted(offsets, places, right=True) - 1, indices != padding_idx
    held = torch.zeros([dy.shape[0]], dtype=dy.dtype, device=dy.device).index_add(0, bags, used.to(dy.dtype))
    if mode == 2:
        return {"weight": zeros(weight).scatter_add(0, y[3], dy.masked_fill((held == 0).unsqueeze(-1), 0))}
    shares = dy / held.clamp(min=1).unsqueeze(-1) if mode == 1 else dy
    back = shares.index_select(0, bags).masked_fill(~used.unsqueeze(-1), 0)
    if per_sample_weights is None:
        return {"weight": zeros(weight).index_add(0, indices, back)}
    weighed = zeros(weight).index_add(0, indices, back * per_sample_weights.unsqueeze(-1))
    return {"weight": weighed, "per_sample_weights": (weight.index_select(0, indices) * back).sum(-1)}
