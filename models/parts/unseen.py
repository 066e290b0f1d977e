"""Vectors that masks hide are cleared before the learned maps of attention are applied to them.

Attention itself gives a hidden key or value no effect, whatever it holds (`masks.clear_unseen`). But the gradient of a
map is a sum over all vectors, and 0 times NaN is NaN in it. So a vector that no target vector may attend to is replaced
by zeros before `Lk` and `Lv`, and a target vector that may attend to none before `Lq`. Without masks it costs nothing,
and on a CPU, where the vectors are finite, a sum of each.
"""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import circuit

from .conditions import is_known
from .eager import all_finite, can_read
from .masks import KEY_MASK, band, masked_out


def may_spoil_gradients(*vectors: Tensor) -> bool:
    """Return whether gradients are recorded, and the vectors may hold NaN or inf: numbers are read on a CPU."""
    return torch.is_grad_enabled() and not (can_read(*vectors) and all_finite(*vectors))


def clear_hidden(
    target: Tensor, source: Tensor, masks: Sequence[Tensor | None], *, causal: bool, window: int | None
) -> tuple[Tensor, Tensor]:
    """Return target and source with zeros for source vectors that are hidden from all, and for targets that see none.

    A vector that is hidden in some heads only is kept. Where it has no effect the tensors are returned as they came:
    without masks, without gradients, and where all numbers can be read and are finite.

    Args:
        target: The vectors of the queries, `... y m`; the first one and the first of `source` are at position 0.
        source: The vectors of keys and values, `... x m`.
        masks: The mask `... y x`, the head mask `... h y x` and the key mask `... x`, or None for each.
        causal: As in `masks.band`.
        window: As in `masks.band`.
    """
    y, x = target.shape[-2], source.shape[-2]
    mask, head_mask, key_mask = masks
    everywhere = window is None and (not causal or is_known(x <= y))
    if everywhere and mask is None and head_mask is None and key_mask is None:
        return target, source
    if not may_spoil_gradients(*((target,) if source is target else (target, source))):
        return target, source
    reached = None if everywhere else band(y, x, causal=causal, window=window, start=0, device=target.device)
    return without_hidden(target, source, mask, head_mask=head_mask, key_mask=key_mask, reached=reached)


@circuit(
    "... y m, ... x m -> ... y m, ... x m",
    optional={"mask": "... y x", "head_mask": "... h y x", "key_mask": "... x", "reached": "y x"},
)
def without_hidden(
    target: Tensor,
    source: Tensor,
    mask: Tensor | None = None,
    *,
    head_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    reached: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return target and source with zeros where no mask lets a target vector see, or a source vector be seen."""
    with_heads = (
        None if mask is None else mask[..., None, :, :],
        head_mask,
        None if key_mask is None else key_mask[..., None, None, :],
        None if reached is None else reached[None],
    )
    given = [masked_out(each) for each in with_heads if each is not None]
    if not given:
        return target, source
    hidden = reduce(torch.logical_or, given)
    blind, unseen = (hidden.all(axis).all(-2)[..., None] for axis in (-1, -2))  # the size of h, or of y, may be 1
    return target.masked_fill(blind, 0), source.masked_fill(unseen, 0)


def clear_padding(vectors: Tensor, key_mask: Tensor | None) -> Tensor:
    """Return the vectors, `... x m`, where NaN and inf in padding, where the key mask `... x` is False, become 0.

    For vectors that are queries too: the output of padding is unused, but its gradient, zero, would be multiplied by
    NaN in every map. Finite numbers are kept.
    """
    if key_mask is None or key_mask.shape[-1] != vectors.shape[-2]:  # the attention refuses another length
        return vectors
    return vectors if can_read(vectors) and all_finite(vectors) else finite_padding(vectors, key_mask=key_mask)


@circuit("... x m -> ... x m", optional={"key_mask": "... x"}, dtypes=KEY_MASK)
def finite_padding(vectors: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
    """Return the vectors with 0 for NaN and inf in padding; without a mask none is padding."""
    if key_mask is None:
        return vectors
    return vectors.masked_fill(~(key_mask[..., None] | vectors.isfinite()), 0)


@circuit("b c i j, b i' j' -> b c i j")
def in_windows(image: Tensor, kept: Tensor, w: int, s: int) -> Tensor:
    """Return the image with zeros where no window is kept that covers a pixel.

    Args:
        image: The image, `b c i j`, whose windows reach to its last row and column.
        kept: Bool, one number for each window, `b i' j'`.
        w: Rows and columns of a window.
        s: Distance between neighbouring windows.
    """
    counts = F.conv_transpose2d(kept[:, None].to(image.dtype), image.new_ones(1, 1, w, w), stride=s)
    return image.masked_fill(counts == 0, 0)
