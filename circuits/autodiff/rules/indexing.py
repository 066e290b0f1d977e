"""Reverse rules of joining, splitting, slicing, windows, gather and scatter.

If an operation reads elements, the cotangent is added at the indices that were read; if it writes elements, their
cotangent is the part of dy at the indices that were written.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.aliases import depends_on_strides, overwritten, strided, viewed
from circuits.autodiff.opaque import Pullback
from circuits.autodiff.rules.registry import numel_along, positive_dim, reverses, unbroadcast, zeros
from circuits.errors import CircuitError

# Joining, splitting, slicing ------------------------------------------------------------------------------------------


@reverses("cat concat concatenate")
def cat(dy: Tensor, tensors: Sequence[Tensor], dim: int) -> Any:
    """The cotangent of each tensor is its part of dy, or empty for an empty vector among tensors of higher rank."""
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
    """The cotangent of each tensor is dy at its index."""
    return {"tensors": [dy.select(dim, index) for index in range(len(tensors))]}


@reverses("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk unsafe_split_with_sizes")
def split(dy: Sequence[Tensor], dim: int) -> Tensor:
    """dx is the concatenation of the cotangents of the parts."""
    return torch.cat(list(dy), dim)


@reverses("unbind")
def unbind(dy: Sequence[Tensor], dim: int) -> Tensor:
    """dx is the stack of the cotangents of the parts."""
    return torch.stack(list(dy), dim)


@reverses("select")
def select(dy: Tensor, x: Tensor, dim: int, index: Any) -> Tensor:
    """dx = dy at the index, 0 elsewhere."""
    return torch.select_scatter(zeros(x), dy, dim, index)


@reverses("select_scatter")
def select_scatter(dy: Tensor, src: Tensor, dim: int, index: Any) -> Any:
    """The cotangent of `src` is dy at the index; dx = dy elsewhere, 0 at the index."""
    return {"x": torch.select_scatter(dy, zeros(src), dim, index), "src": dy.select(dim, index)}


@reverses("slice")
def slice_(dy: Tensor, x: Tensor, dim: int, start: Any, end: Any, step: Any) -> Tensor:
    """dx = dy in the slice, 0 elsewhere."""
    if not isinstance(dy.shape[dim], int) or dy.shape[dim] != x.shape[dim]:
        return torch.slice_scatter(zeros(x), dy, dim, start, end, step)
    return dy


@reverses("slice_scatter")
def slice_scatter(dy: Tensor, src: Tensor, dim: int, start: Any, end: Any, step: Any) -> Any:
    """The cotangent of `src` is the slice of dy; dx = dy elsewhere, 0 in the slice."""
    kept = torch.ops.aten.slice.Tensor(dy, dim, start, end, step)
    return {"x": torch.slice_scatter(dy, zeros(src), dim, start, end, step), "src": kept}


@reverses("narrow")
def narrow(dy: Tensor, x: Tensor, dim: int, start: Any, length: Any) -> Tensor:
    """dx = dy, padded with zeros before and after."""
    where = positive_dim(dim, x.ndim)
    if not isinstance(start, int):
        return torch.slice_scatter(zeros(x), dy, where, start, start + length, 1)
    start = start + x.shape[where] if start < 0 else start
    after = x.shape[where] - start - length
    return F.pad(dy, [0, 0] * (x.ndim - 1 - where) + [start, after])


@reverses("diagonal")
def diagonal(dy: Tensor, x: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    """dx = dy on the diagonal, 0 elsewhere."""
    return torch.diagonal_scatter(zeros(x), dy, offset, dim1, dim2)


@reverses("diagonal_scatter")
def diagonal_scatter(dy: Tensor, src: Tensor, offset: int, dim1: int, dim2: int) -> Any:
    """The cotangent of `src` is the diagonal of dy; dx = dy elsewhere, 0 on the diagonal."""
    kept = dy.diagonal(offset, dim1, dim2)
    return {"x": torch.diagonal_scatter(dy, zeros(src), offset, dim1, dim2), "src": kept}


@reverses("diag_embed")
def diag_embed(dy: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    """dx is the diagonal of dy."""
    return dy.diagonal(offset, dim1, dim2)


@reverses(overwritten)
def overwritten_rule(dy: Tensor, args: Any) -> Any:
    """The cotangent of the new value is the overwritten view of dy; that of the base is dy, with 0 in the view.

    If the path to the view regroups axes, dy gets the strides of the base first: in others the path may be a copy.
    """
    base, new, path = args
    dy = strided(dy, base.stride()) if depends_on_strides(path) else dy
    return {"args": [overwritten(dy, zeros(new), path), viewed(dy, path), None]}


@reverses(strided)
def strided_rule(dy: Tensor) -> Any:
    """dx = dy."""
    return {"args": [dy, None]}


# Windows --------------------------------------------------------------------------------------------------------------


@reverses("unfold")
def unfold(dy: Tensor, x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """dx: the cotangent of each window is added at the indices of the window."""
    if x.ndim == 0:
        return dy.sum()
    dim = positive_dim(dimension, x.ndim)
    starts = torch.arange(dy.shape[dim], device=dy.device).unsqueeze(1) * step
    index = (starts + torch.arange(size, device=dy.device)).flatten()
    return zeros(x).index_add(dim, index, dy.movedim(-1, dim + 1).flatten(dim, dim + 1))


@reverses("im2col")
def im2col(dy: Tensor, x: Tensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    """dx is `col2im` of dy."""
    return torch.ops.aten.col2im.default(dy, [*x.shape[-2:]], kernel_size, dilation, padding, stride)


@reverses("col2im")
def col2im(dy: Tensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    """dx is `im2col` of dy."""
    return torch.ops.aten.im2col.default(dy, kernel_size, dilation, padding, stride)


# Indices --------------------------------------------------------------------------------------------------------------


@reverses("index _unsafe_index")
def index(dy: Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """dx: dy is added at the indices that were read."""
    return torch.ops.aten.index_put.default(zeros(x), list(indices), dy, True)


@reverses("index_put _unsafe_index_put")
def index_put(dy: Tensor, x: Tensor, values: Tensor, indices: Sequence[Tensor | None], accumulate: bool) -> Any:
    """The cotangent of `values` is dy at the indices; dx = dy, 0 at the indices unless the values were added.

    If a single value is written where a mask is True, its cotangent is the sum of dy over those elements.
    """
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype is torch.bool and values.ndim == 0:
        mask = indices[0].reshape([*indices[0].shape, *[1] * (x.ndim - indices[0].ndim)])
        kept = dy if accumulate else dy.masked_fill(mask, 0)
        return {"x": kept, "values": dy.masked_fill(~mask, 0).sum()}
    kept = dy if accumulate else torch.ops.aten.index_put.default(dy, list(indices), values.new_zeros(()))
    return {"x": kept, "values": unbroadcast(torch.ops.aten.index.Tensor(dy, list(indices)), values)}


@reverses("index_select")
def index_select(dy: Tensor, x: Tensor, dim: int, index: Tensor) -> Tensor:
    """dx: dy is added at the indices that were read."""
    return zeros(x).index_add(dim, index, dy) if x.ndim else dy.sum()


@reverses("index_add")
def index_add(dy: Tensor, source: Tensor, dim: int, index: Tensor, alpha: Any) -> Any:
    """dx = dy; the cotangent of `source` is α times dy at the indices."""
    found = dy.index_select(dim, index)
    found = found if alpha == 1 else found * alpha
    return {"x": dy, "source": found.reshape(source.shape)}


@reverses("index_copy")
def index_copy(dy: Tensor, source: Tensor, dim: int, index: Tensor) -> Any:
    """dx = dy, 0 at the indices; the cotangent of `source` is dy at the indices."""
    return {"x": dy.index_fill(dim, index, 0), "source": dy.index_select(dim, index).reshape(source.shape)}


@reverses("index_fill")
def index_fill(dy: Tensor, dim: int, index: Tensor, value: Any) -> Any:
    """dx = dy, 0 at the indices; the cotangent of a value that is a tensor is the sum of dy at the indices."""
    dvalue = dy.index_select(dim, index).sum() if isinstance(value, Tensor) else None
    return {"x": dy.index_fill(dim, index, 0), "value": dvalue}


@reverses("gather")
def gather(dy: Tensor, x: Tensor, dim: int, index: Tensor) -> Tensor:
    """dx: dy is added at the indices that were read."""
    return zeros(x).scatter_add(dim, index, dy)


@reverses("scatter_add")
def scatter_add(dy: Tensor, src: Tensor, dim: int, index: Tensor) -> Any:
    """dx = dy; the cotangent of `src` is dy at the indices, 0 for elements of `src` that were not used."""
    return {"x": dy, "src": _gathered(dy, src, dim, index)}


@reverses("scatter")
def scatter(dy: Tensor, dim: int, index: Tensor, src: Any = None, value: Any = None, reduce: str | None = None) -> Any:
    """dx = dy, 0 at the indices; the cotangent of `src` is dy at the indices, 0 for elements that were not used.

    With `reduce="add"`, dx = dy. With `reduce="multiply"`, dx = dy times the number at the indices, once for each time
    that an index occurs; the product with a tensor is refused, since the cotangent of `src` needs the other factors.

    Raises:
        CircuitError: A tensor is multiplied into the indices.
    """
    if reduce == "multiply" and isinstance(src, Tensor):
        raise CircuitError(
            'scatter with reduce="multiply" has a gradient here if it multiplies by a number, but came with a tensor; '
            "for different indices, x * torch.ones_like(x).scatter(dim, index, src) computes the same"
        )
    if reduce == "multiply":
        return dy.scatter(dim, index, value, reduce="multiply")
    dx = dy if reduce == "add" else dy.scatter(dim, index, 0)
    return {"x": dx, "src": _gathered(dy, src, dim, index)} if isinstance(src, Tensor) else dx


def _gathered(dy: Tensor, src: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return dy at the indices, padded with zeros to the shape of `src`."""
    found = dy.gather(dim, index)
    for d in range(src.ndim):
        if isinstance(src.shape[d], int) and isinstance(found.shape[d], int) and src.shape[d] != found.shape[d]:
            found = F.pad(found, [0, 0] * (src.ndim - 1 - d) + [0, src.shape[d] - found.shape[d]])
    return found


@reverses("take")
def take(dy: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """dx: dy is added at the indices that were read, counted in the flattened tensor."""
    flat = torch.zeros([numel_along(x, list(range(x.ndim)))], dtype=x.dtype, device=x.device)
    return flat.index_add(0, index.flatten(), dy.flatten()).reshape(x.shape)


@reverses("embedding")
def embedding(dy: Tensor, weight: Tensor, indices: Tensor, padding_idx: Any, scale_grad_by_freq: bool) -> Any:
    """The cotangent of the weight: dy is added to the rows that were read, except to the row of the padding index.

    With `scale_grad_by_freq` a row's cotangent is divided by the number of times that the row was read.
    """
    rows = indices.flatten()
    selected = dy.flatten(0, indices.ndim - 1) if indices.ndim else dy.unsqueeze(0)
    if not isinstance(padding_idx, int) or padding_idx >= 0:
        selected = selected.masked_fill((rows == padding_idx).unsqueeze(-1), 0)
    if scale_grad_by_freq:
        frequency = torch.zeros([weight.shape[0]], dtype=dy.dtype, device=dy.device)
        frequency = frequency.index_add(0, rows, torch.ones(rows.shape, dtype=dy.dtype, device=dy.device))
        selected = selected / frequency.index_select(0, rows).unsqueeze(-1)
    return {"weight": zeros(weight).index_add(0, rows, selected)}


@reverses("_embedding_bag _embedding_bag_forward_only")
def embedding_bag(
    dy: Any, y: Any, weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool, mode: int,
    per_sample_weights: Tensor | None, include_last_offset: bool, padding_idx: int,
) -> Any:  # fmt: skip
    """The cotangents of the weight and of `per_sample_weights`.

    The cotangent of a bag is added to the rows that were read: for a sum, to each row, times its sample's weight; for a
    mean, in equal shares; for a maximum, each element to the row of the maximum. The row of the padding index gets
    nothing. torch does not document how it scales by frequency in bags, so that torch's own derivative is called then.
    """
    dy = dy[0]
    if scale_grad_by_freq:
        whole = (weight, indices, offsets, True, mode, False, per_sample_weights, include_last_offset, padding_idx)
        found = Pullback(torch.ops.aten._embedding_bag.default, "_embedding_bag")(whole, {}, (dy,))
        return dict(zip(("weight", "per_sample_weights"), found, strict=False))
    positions = torch.arange(indices.shape[0], dtype=offsets.dtype, device=dy.device)
    bags, counted = torch.searchsorted(offsets, positions, right=True) - 1, indices != padding_idx
    elements = torch.zeros([dy.shape[0]], dtype=dy.dtype, device=dy.device).index_add(0, bags, counted.to(dy.dtype))
    if mode == 2:
        return {"weight": zeros(weight).scatter_add(0, y[3], dy.masked_fill((elements == 0).unsqueeze(-1), 0))}
    scaled_dy = dy / elements.clamp(min=1).unsqueeze(-1) if mode == 1 else dy
    selected = scaled_dy.index_select(0, bags).masked_fill(~counted.unsqueeze(-1), 0)
    if per_sample_weights is None:
        return {"weight": zeros(weight).index_add(0, indices, selected)}
    dweight = zeros(weight).index_add(0, indices, selected * per_sample_weights.unsqueeze(-1))
    return {"weight": dweight, "per_sample_weights": (weight.index_select(0, indices) * selected).sum(-1)}
