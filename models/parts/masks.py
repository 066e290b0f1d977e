"""Attention masks: the band implied by positions, the combination of masks, and a softmax over masked scores.

A mask is bool (True means *may attend*) or floating (added to the scores; -inf masks a key out). Scores have the form
of a floating mask, so `combine(score, mask)` applies a mask to scores.

A key is unseen if no query may attend to it. Its weights are zero, and 0 times NaN is NaN, in the output and in the
gradients: unseen keys with their values, and queries that may attend to no key, are therefore replaced by zeros.
What keys and values are computed from is not: NaN in a vector of a source, though masked, makes the gradients of the
maps `Lk` and `Lv` NaN, as in nn.Linear.
"""

from functools import reduce

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


def refuse_other_length(name: str, x: int, **masks: Tensor | None) -> None:
    """Raise ShapeError, with the caller's `name`, unless every mask's last axis has size x, the length of the cache."""
    for argument, mask in masks.items():
        if mask is not None and mask.shape[-1] != x:
            raise ShapeError(
                f"{name}: {argument} is for {mask.shape[-1]} source vectors; with those of this call the cache has {x}"
            )


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
