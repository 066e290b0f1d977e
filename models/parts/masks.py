"""Attention masks: the band implied by positions, the combination of masks, and a softmax over masked scores.

A mask is bool (True means *may attend*) or floating (added to the scores; -inf masks a key out). Scores have the form
of a floating mask, so `combine(score, mask)` applies a mask to scores. A mask of two axes is `y x`. A key mask,
`... x`, is for padding: True for the keys that any query may attend to.

A key is unseen if no query may attend to it. Its weights are zero, and 0 times NaN is NaN, in the output and in the
gradients: unseen keys with their values, and queries that may attend to no key, are therefore replaced by zeros.
The vectors that they are computed from are cleared before their maps, see `parts.unseen`.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from circuits import CircuitError, ShapeError


def band(
    y: int, x: int, *, causal: bool, window: int | None, start: int, device: torch.device | None = None
) -> Tensor | None:
    """Return the bool mask `y x` that positions imply: True where query i may attend to key j; None if all may.

    Query i is at position start + i, key j at position j.

    Args:
        y: Number of queries.
        x: Number of keys.
        causal: Whether to require j ≤ start + i.
        window: If given, require |start + i - j| < window.
        start: Position of the first query.
        device: Device of the mask.

    Raises:
        CircuitError: if `window` is below 1 or `start` is below 0.

    >>> band(2, 4, causal=True, window=2, start=2)
    tensor([[False,  True,  True, False],
            [False, False,  True,  True]])
    """
    refuse_window_and_start(window, start)
    if not causal and window is None:
        return None
    ahead = torch.arange(start, start + y, device=device)[:, None] - torch.arange(x, device=device)
    return within(ahead, causal, window)


def within(ahead: Tensor, causal: bool, window: int | None) -> Tensor:
    """Return where a query may attend to a key, from the query's position less the key's; either limit is given."""
    if window is None:
        return ahead >= 0
    return (ahead >= 0) & (ahead < window) if causal else ahead.abs() < window


def reach(y: int, *, causal: bool, window: int | None, start: int) -> tuple[int, int | None]:
    """Return the first key that the band lets some query attend to, and the end of these keys, None if it has no end.

    The arguments are those of `band`; the keys before and after these are unseen.

    >>> reach(2, causal=True, window=2, start=2)
    (1, 4)
    """
    first = 0 if window is None else max(0, start - window + 1)
    if causal:
        return first, start + y
    return first, None if window is None else start + y + window - 1


def refuse_window_and_start(window: int | None, start: int) -> None:
    """Raise CircuitError if the window is below 1 or the start is below 0."""
    if window is not None and window < 1:
        raise CircuitError(
            f"a window of {window} lets a query attend to no key; it may be 1 (the query's own position alone) or more"
        )
    if start < 0:
        raise CircuitError(f"start, the first query's position, is {start}; it may be 0, the first key's, or more")


KEY_MASK = {"key_mask": torch.bool}
"""The dtype of a key mask, by its name, as `circuit` takes it."""

KEY_MASK_HINT = {"key_mask": "True is a real vector, False is padding; of ones and zeros: key_mask.bool()"}
"""What the error adds where a key mask does not fit."""

MASK_HINT = "a mask of two axes is `y x`, shared by the batch; for padding, `... x`, there is the argument {}"
"""What the error adds where a mask does not fit, with the name of the argument for padding."""

CALL_HINT = (
    "layer(query, key, value) of nn.MultiheadAttention is layer(target, source) here: keys and values have one source"
)
"""What the error adds where the third argument, a mask here, may be meant as a value."""


LAYER_HINT = "a mask is bool, or floating and added to the scores"
"""What the error adds where a layer's input is passed as its mask."""


def refuse_input_as_mask(layer: Any, inputs: Mapping[str, Tensor], hint: str, **masks: Tensor | None) -> None:
    """Raise CircuitError, with the name of the layer's class, if a mask is one of the inputs itself.

    Args:
        layer: The layer that is called.
        inputs: The inputs by name.
        hint: What the message ends with.
        **masks: The masks.
    """
    for argument, mask in masks.items():
        for name, tensor in inputs.items() if mask is not None else ():
            if mask is tensor:
                raise CircuitError(f"{type(layer).__name__}.forward: {argument} is the {name} itself; {hint}")


def refuse_wrong_masks(layer: Any, target: Tensor, source: Tensor, length: int, **masks: Tensor | None) -> None:
    """Raise an error, with the name of the layer's class, for a mask of another length, or an input passed as a mask.

    Args:
        layer: The layer that is called.
        target: The target vectors of this call, `... y m`.
        source: The source vectors of this call, `... x m`.
        length: The number of vectors that a cache has of earlier calls, otherwise 0.
        **masks: The masks, whose last axis has size `length` + x.

    Raises:
        CircuitError: if a mask is `source` or `target` itself.
        ShapeError: if the last axis of a mask has another size.
    """
    refuse_input_as_mask(layer, {"source": source, "target": target}, CALL_HINT, **masks)
    x, name = length + source.shape[-2], f"{type(layer).__name__}.forward"
    for argument, mask in masks.items():
        if mask is not None and mask.shape[-1] != x:
            has = f"with those of this call the cache has {x}" if length else f"there are {x}"
            raise ShapeError(
                f"{name}: {argument} is for {mask.shape[-1]} source vectors; {has}\n  {MASK_HINT.format('key_mask')}\n"
                f"  {CALL_HINT}"
            )


def with_key_mask(mask: Tensor | None, key_mask: Tensor | None, axes: int) -> Tensor | None:
    """Return the mask combined with a key mask `... x`, the same along `axes` axes before x: queries, or heads too.

    Without a mask the result has size 1 along these axes. None if neither is given.

    >>> with_key_mask(None, torch.tensor([[True, False], [True, True]]), 1).shape
    torch.Size([2, 1, 2])
    """
    if key_mask is None:
        return mask
    keys = key_mask[(..., *(None,) * axes, slice(None))]
    return keys if mask is None else combine(mask, keys)


def refuse_shared_by_heads(key_mask: Tensor | None, key: Tensor) -> None:
    """Raise CircuitError for a key mask `b x` of keys `b h x k`, whose batch would be taken for the heads."""
    if key_mask is None or key_mask.ndim in (1, key.ndim - 1) or key_mask.shape[-2] == 1:
        return
    shapes = " and ".join(" ".join(f"{size}" for size in each.shape) for each in (key_mask, key))
    raise CircuitError(
        f"attention: key_mask and key have the axes {shapes}; a key mask has those of the keys without the last, and 1"
        " where it is the same for all: key_mask[:, None] for keys with heads"
    )


def padding_before(key_mask: Tensor) -> Tensor:
    """Return the number of False before the first True, `...`, as long; 0 where there is no True.

    >>> padding_before(torch.tensor([[False, False, True], [True, False, True]]))
    tensor([2, 0])
    """
    return key_mask.long().argmax(-1)


def combine(mask: Tensor, other: Tensor) -> Tensor:
    """Return two masks combined: a key is masked out if either masks it out; floating masks are added."""
    if is_bool(mask) and is_bool(other):
        return mask & other
    if is_bool(other):
        return mask.masked_fill(~other, -torch.inf)
    if is_bool(mask):
        return other.masked_fill(~mask, -torch.inf)
    return mask + other.to(mask.dtype)


def combine_all(*masks: Tensor | None) -> Tensor | None:
    """Return all masks that are given, combined; None if none is."""
    given = [mask for mask in masks if mask is not None]
    return reduce(combine, given) if given else None


def masked_out(mask: Tensor) -> Tensor:
    """Return a bool tensor, True where a key is masked out: by False in a bool mask, by -inf in a floating one."""
    return ~mask if is_bool(mask) else mask.isneginf()


def is_bool(mask: Tensor) -> bool:
    """Return whether a mask is bool; raise CircuitError unless it is bool or floating."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise CircuitError(f"a mask is bool (True: may attend) or floating (added to the scores), not {mask.dtype}")
    return mask.dtype == torch.bool


def clear_unseen(mask: Tensor, query: Tensor, key: Tensor, value: Tensor, n: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, with zeros for unseen keys and for queries that may attend to no key.

    A key that one query may attend to is kept, and its NaN may reach the other queries: a weight of 0 does not hide it.

    Args:
        mask: The mask, `... y x`, combined from all masks and the band.
        query: The queries, `... y k`.
        key: The keys, `... x k`.
        value: The values, `... x k`.
        n: How many consecutive indices of axis -3 of queries and mask share one index of axis -3 of keys and values.
    """
    out = masked_out(mask if is_bool(mask) else mask.to(query.dtype))
    query = query.where(~out.all(-1, keepdim=True), 0)
    if n > 1 and mask.ndim > 2 and mask.shape[-3] > 1:
        out = out.unflatten(-3, (-1, n)).flatten(-3, -2)
    seen = ~out.all(-2)[..., None]
    return query, key.where(seen, 0), value.where(seen, 0)


def softmax_or_zeros(score: Tensor) -> Tensor:
    """Return the softmax over the last axis; zeros, with zero gradient, in rows where every score is -inf."""
    empty = masked_out(score).all(-1, keepdim=True)
    return score.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)
