"""What a query may attend to: masks given by hand, joined with those that follow from where queries and keys stand.

A mask is bool, where True means *may attend*, or floating, and then added to the scores. Scores are a mask too.
"""

import torch
from torch import Tensor

from circuits import CircuitError


def band(
    y: int, x: int, *, causal: bool, window: int | None, start: int, device: torch.device | None = None
) -> Tensor | None:
    """Which of x keys stand where each of y queries may see them, `y x`; None where all do.

    Query i stands at position start + i, key j at j. `causal` asks for j ≤ start + i, `window` for |start + i - j| <
    window. Raises CircuitError for a window below 1 and a start below 0.

    >>> band(2, 4, causal=True, window=2, start=2)
    tensor([[False,  True,  True, False],
            [False, False,  True,  True]])
    """
    refuse_reach(window, start)
    if not causal and window is None:
        return None
    ahead = torch.arange(start, start + y, device=device)[:, None] - torch.arange(x, device=device)
    if window is None:
        return ahead >= 0
    return (ahead >= 0) & (ahead < window) if causal else ahead.abs() < window


def refuse_reach(window: int | None, start: int) -> None:
    """Raise CircuitError for a window below 1 and a start below 0."""
    if window is not None and window < 1:
        raise CircuitError(f"a window of {window} lets a query see nothing; it may be 1 (its own place alone) or more")
    if start < 0:
        raise CircuitError(f"the first query stands at position {start}; it may be 0, where the first key is, or more")


def both(mask: Tensor, other: Tensor) -> Tensor:
    """The mask that bars what either bars and adds what either adds."""
    if is_bool(mask) and is_bool(other):
        return mask & other
    if is_bool(other):
        return mask.masked_fill(~other, -torch.inf)
    if is_bool(mask):
        return other.masked_fill(~mask, -torch.inf)
    return mask + other.to(mask.dtype)


def barred(mask: Tensor) -> Tensor:
    """True where a mask lets nothing through."""
    return ~mask if is_bool(mask) else mask.isneginf()


def is_bool(mask: Tensor) -> bool:
    """Whether a mask is bool; raises CircuitError unless it is bool or floating."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise CircuitError(f"a mask is bool (True: may attend) or floating (added to the scores), not {mask.dtype}")
    return mask.dtype == torch.bool


def softmax_or_zeros(score: Tensor) -> Tensor:
    """Softmax over the scores that are left; zeros, and no gradient, where none is."""
    alone = barred(score).all(-1, keepdim=True)
    return score.masked_fill(alone, 0).softmax(-1).masked_fill(alone, 0)
