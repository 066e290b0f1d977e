"""Attention: each of y queries mixes x values by how well their keys answer it; then the same in h heads, learned.

A definition is written as its figure draws it. Its kernel, which is what a call runs, is torch's fused operator.

Masks are bool, where True means *may attend*, or floating, and then added to the scores. `causal` lets query i attend
to keys 0 to i, counted from the first key even where y and x differ. Both may be given, and then both hold. All this is
as in F.scaled_dot_product_attention; nn.MultiheadAttention's bool masks say the opposite. A query that may attend to
nothing gets zeros, and sends no gradient anywhere.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 20 and 21; Vaswani et al. 2017; for heads that share keys
and values, Ainslie et al. 2023.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit, einsum, rearrange, repeat


@circuit("... y k, ... x k, ... x k -> ... y k", optional={"mask": "... y x"})
def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Each of y queries mixes the x values by how well their keys answer it (Figure 20).

    `dropout` is the probability that a query overlooks a key; it applies whenever it is given. Raises ShapeError where
    axes clash and CircuitError for a mask of integers.
    """
    score = einsum(query, key, "... y k, ... x k -> ... y x") * query.shape[-1] ** -0.5
    if causal:
        score = score.masked_fill(_future(score), -torch.inf)
    weight = score.softmax(-1) if mask is None else _masked_softmax(score, mask)
    if dropout:
        weight = F.dropout(weight, dropout)
    return einsum(weight, value, "... y x, ... x k -> ... y k")


@attention.kernel
def _(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """One pass that never stores the scores."""
    return _fused(query, key, value, mask, causal=causal, dropout=dropout)


@circuit("... (g n) y k, ... g x k, ... g x k -> ... (g n) y k", optional={"mask": "... (g n) y x"})
def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Attention in heads, where n heads of queries in a row share one of the g heads of keys and values."""
    n = query.shape[-3] // key.shape[-3]
    key = repeat(key, "... g x k -> ... (g n) x k", n=n)
    value = repeat(value, "... g x k -> ... (g n) x k", n=n)
    return attention(query, key, value, mask, causal=causal, dropout=dropout)


@grouped_attention.kernel
def _(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """The same pass, with no copies of the shared keys and values."""
    return _fused(query, key, value, mask, causal=causal, dropout=dropout, enable_gqa=True)


class MultiHeadAttention(nn.Module):
    """Attention in h heads at once, each with its own learned view, k wide, of target and source (Figure 21).

    The target's y vectors ask, the source's x vectors answer. `Lq`, `Lk`, `Lv` and `Lo` are the figure's learned boxes.
    Heads are stored one after another, `(h k)`, as nn.MultiheadAttention stores them. With `groups=g` there are only g
    heads of keys and values, and h/g heads of queries share each. In training `dropout` is the probability that a query
    overlooks a key. Weights, and biases if any, begin as nn.Linear's do, uniform within ±(inputs of the box)^-½.

    Parameters: 4mhk, or 2mhk + 2mgk with groups; biases are (h + 2g)k + m more. Raises CircuitError where h heads
    cannot share g groups equally.

    >>> attend = MultiHeadAttention(m=128, k=16, h=4)
    >>> attend(torch.rand(20, 128), torch.rand(22, 128)).shape
    torch.Size([20, 128])
    """

    def __init__(
        self,
        m: int,
        k: int,
        h: int,
        *,
        groups: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.m, self.k, self.h, self.g = m, k, h, h if groups is None else groups
        self.dropout = dropout
        if self.g < 1 or h % self.g:
            possible = ", ".join(f"{g}" for g in range(1, h + 1) if h % g == 0)
            raise CircuitError(f"MultiHeadAttention: {h} heads cannot share {groups} groups; groups may be {possible}")
        self.Lq = nn.Linear(m, h * k, bias, device, dtype)
        self.Lk = nn.Linear(m, self.g * k, bias, device, dtype)
        self.Lv = nn.Linear(m, self.g * k, bias, device, dtype)
        self.Lo = nn.Linear(h * k, m, bias, device, dtype)

    @circuit("... y m, ... x m -> ... y m", fixed="m h", optional={"mask": "... y x", "head_mask": "... h y x"})
    def forward(
        self,
        target: Tensor,
        source: Tensor,
        mask: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """What each target vector finds in the source.

        `mask` is for all heads alike, `head_mask` has one for each (a learned bias by distance, say); given both, both
        hold. Raises ShapeError where axes clash and CircuitError for a mask of integers.
        """
        shared = self.g < self.h
        split = "... x (g k) -> ... g x k" if shared else "... x (h k) -> ... h x k"
        query = rearrange(self.Lq(target), "... y (h k) -> ... h y k", k=self.k)
        key = rearrange(self.Lk(source), split, k=self.k)
        value = rearrange(self.Lv(source), split, k=self.k)
        if mask is not None:
            mask = repeat(mask, "... y x -> ... h y x", h=self.h)
        if head_mask is not None:
            mask = head_mask if mask is None else _both(mask, head_mask)
        attend = grouped_attention if shared else attention
        mixed = attend(query, key, value, mask, causal=causal, dropout=self.dropout if self.training else 0.0)
        return self.Lo(rearrange(mixed, "... h y k -> ... y (h k)"))

    @classmethod
    def from_torch(cls, theirs: nn.MultiheadAttention) -> Self:
        """A copy of torch's module, which gives equal outputs for `theirs(target, source, source)`.

        Ours always takes `... y m`, whatever `batch_first` says of theirs, and a bool mask with the opposite meaning.
        Raises CircuitError if theirs has kdim, vdim, add_bias_kv or add_zero_attn, which Figure 21 has not.
        """
        refused = {
            "kdim": theirs.kdim != theirs.embed_dim,
            "vdim": theirs.vdim != theirs.embed_dim,
            "add_bias_kv": theirs.bias_k is not None,
            "add_zero_attn": theirs.add_zero_attn,
        }
        if any(refused.values()):
            names = ", ".join(name for name, present in refused.items() if present)
            raise CircuitError(f"MultiHeadAttention.from_torch: nn.MultiheadAttention with {names} has no equal here")
        ours = cls(
            theirs.embed_dim,
            theirs.head_dim,
            theirs.num_heads,
            bias=theirs.in_proj_bias is not None,
            dropout=theirs.dropout,
            device=theirs.out_proj.weight.device,
            dtype=theirs.out_proj.weight.dtype,
        )
        boxes = (ours.Lq, ours.Lk, ours.Lv)
        with torch.no_grad():
            for box, weight in zip(boxes, theirs.in_proj_weight.chunk(3), strict=True):
                box.weight.copy_(weight)
            if theirs.in_proj_bias is not None:
                for box, bias in zip(boxes, theirs.in_proj_bias.chunk(3), strict=True):
                    box.bias.copy_(bias)
        ours.Lo.load_state_dict(theirs.out_proj.state_dict())
        return ours.train(theirs.training)


def _future(score: Tensor) -> Tensor:
    """True where the key's index is greater than the query's."""
    return torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).triu(1)


def _masked_softmax(score: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the scores that a mask lets through; zeros where it lets none."""
    score = _both(score, mask)
    alone = _barred(score).all(-1, keepdim=True)
    return score.masked_fill(alone, 0).softmax(-1).masked_fill(alone, 0)


def _both(mask: Tensor, other: Tensor) -> Tensor:
    """The mask that bars what either bars and adds what either adds; scores are a mask too."""
    if _is_bool(mask) and _is_bool(other):
        return mask & other
    if _is_bool(other):
        return mask.masked_fill(~other, -torch.inf)
    if _is_bool(mask):
        return other.masked_fill(~mask, -torch.inf)
    return mask + other.to(mask.dtype)


def _barred(mask: Tensor) -> Tensor:
    """True where a mask lets nothing through."""
    return ~mask if _is_bool(mask) else mask.isneginf()


def _is_bool(mask: Tensor) -> bool:
    """Whether a mask is bool; raises CircuitError unless it is bool or floating."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise CircuitError(f"a mask is bool (True: may attend) or floating (added to the scores), not {mask.dtype}")
    return mask.dtype == torch.bool


def _fused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool, dropout: float, **heads: bool
) -> Tensor:
    """F.scaled_dot_product_attention, with the care that it needs to be fast and free of NaN.

    Its fused forms want four axes, the last of each tensor contiguous, and no mask where `is_causal` says as much. With
    fewer axes (one example, as under torch.vmap) it takes its plain form, which has every derivative. The fused forms
    have first derivatives in reverse only, and torch.vmap runs them in a loop: for other derivatives of a batch, and
    for many models at once, run the definition (`with definitions():`).
    """
    if query.ndim > 4:
        lead = query.shape[:-3]
        query, key, value = (each.flatten(0, -4) for each in (query, key, value))
        if mask is not None and mask.ndim > 2:
            mask = mask.expand(*lead, *mask.shape[-3:]).flatten(0, -4)
        return _fused(query, key, value, mask, causal=causal, dropout=dropout, **heads).unflatten(0, lead)
    query, key, value = (each if each.stride(-1) == 1 else each.contiguous() for each in (query, key, value))
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, None, dropout, causal, **heads)
    mask = mask if _is_bool(mask) else mask.to(query.dtype)
    if mask.ndim > 2 and mask.stride(-3) == 0 and _is_bool(mask):
        mask = mask[..., :1, :, :]  # repeated over heads, and without gradients: one is enough
    if causal:
        mask = _both(mask, ~_future(mask))
    alone = _barred(mask).all(-1, keepdim=True)
    mask = mask.masked_fill(alone, 1)  # 1 lets a row through, as True or as a number; its answer is replaced below
    if mask.ndim == 3 < query.ndim:
        mask = mask[None]
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, **heads).masked_fill(alone, 0)
