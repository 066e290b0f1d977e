"""Attention: each of y queries mixes x values by how well their keys answer it; then the same in h heads, learned.

A definition is written as its figure draws it. Its kernel, which is what a call runs, is torch's fused operator.

Masks are bool, where True means *may attend*, or floating, and then added to the scores. `causal` lets a query attend
to keys that stand where it does or before, and `window=w` to those less than w places away: w of them where it is
causal too, itself included, as Mistral counts; 2w - 1 where not (Longformer's w/2 on either side is our w/2 + 1). Key j
stands at position j, query i at `start` + i: from the first key on unless said otherwise, even where y and x differ.
What is given together holds together. All else is as in F.scaled_dot_product_attention; nn.MultiheadAttention's bool
masks say the opposite. A query that may attend to nothing gets zeros, and sends no gradient anywhere.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 20 and 21; Vaswani et al. 2017; for heads that share keys
and values, Ainslie et al. 2023; for windows, Beltagy et al. 2020 and Jiang et al. 2023.
"""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, circuit, einsum, rearrange, repeat

from .parts.cache import KeyValueCache
from .parts.fused_attention import fused_attention
from .parts.masks import band, both, softmax_or_zeros
from .parts.positions import RotaryPositions
from .weights.files import savable


@circuit("... y k, ... x k, ... x k -> ... y k", optional={"mask": "... y x"})
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    start: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """Each of y queries mixes the x values by how well their keys answer it (Figure 20).

    `dropout` is the probability that a query overlooks a key; it applies whenever it is given. Raises ShapeError where
    axes clash, and CircuitError for a mask of integers, a window below 1 and a start below 0.
    """
    score = einsum(query, key, "... y k, ... x k -> ... y x") * query.shape[-1] ** -0.5
    seen = band(*score.shape[-2:], causal=causal, window=window, start=start, device=score.device)
    for barring in (seen, mask):
        score = score if barring is None else both(score, barring)
    weight = score.softmax(-1) if mask is None and window is None else softmax_or_zeros(score)
    if dropout:
        weight = F.dropout(weight, dropout)
    return einsum(weight, value, "... y x, ... x k -> ... y k")


@attention.kernel
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    start: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """One pass that never stores the scores."""
    return fused_attention(query, key, value, mask, causal=causal, window=window, start=start, dropout=dropout)


@circuit("... (g n) y k, ... g x k, ... g x k -> ... (g n) y k", optional={"mask": "... (g n) y x"})
def grouped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    start: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """Attention in heads, where n heads of queries in a row share one of the g heads of keys and values."""
    n = query.shape[-3] // key.shape[-3]
    key = repeat(key, "... g x k -> ... (g n) x k", n=n)
    value = repeat(value, "... g x k -> ... (g n) x k", n=n)
    return attention(query, key, value, mask, causal=causal, window=window, start=start, dropout=dropout)


@grouped_attention.kernel
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    start: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """The same pass, with no copies of the shared keys and values."""
    return fused_attention(
        query, key, value, mask, causal=causal, window=window, start=start, dropout=dropout, enable_gqa=True
    )


@savable
class MultiHeadAttention(nn.Module):
    """Attention in h heads at once, each with its own learned view, k wide, of target and source (Figure 21).

    The target's y vectors ask, the source's x vectors answer. `Lq`, `Lk`, `Lv` and `Lo` are the figure's learned boxes.
    Heads are stored one after another, `(h k)`, as nn.MultiheadAttention stores them. With `groups=g` there are only g
    heads of keys and values, and h/g heads of queries share each. `rotary` turns queries and keys by their positions,
    `window` is how far a query sees. In training `dropout` is the probability that a query overlooks a key. Weights,
    and biases if any, begin as nn.Linear's do, uniform within ±(inputs of the box)^-½.

    `forward` is the figure. Its two halves are there for what is decoded step by step: `remember` makes keys and values
    of a source, and `recall` is what a target finds in them. A cache puts them together from many steps.

    Parameters: 4mhk, or 2mhk + 2mgk with groups; biases are (h + 2g)k + m more. Raises CircuitError where h heads
    cannot share g groups equally, where `rotary` turns vectors of another width, and for sizes below 1.

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
        rotary: RotaryPositions | None = None,
        window: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.m, self.k, self.h, self.g = m, k, h, h if groups is None else groups
        self.rotary, self.window, self.dropout = rotary, window, dropout
        for name, size in {"m": m, "k": k, "h": h, "window": window}.items():
            if size is not None and size < 1:
                raise CircuitError(f"MultiHeadAttention: {name} is {size}; it may be 1 or more")
        if self.g < 1 or h % self.g:
            possible = ", ".join(f"{g}" for g in range(1, h + 1) if h % g == 0)
            raise CircuitError(f"MultiHeadAttention: {h} heads cannot share {groups} groups; groups may be {possible}")
        if rotary is not None and rotary.k != k:
            raise CircuitError(f"MultiHeadAttention: heads are {k} wide, rotary turns what is {rotary.k} wide")
        self.Lq = nn.Linear(m, h * k, bias, device, dtype)
        self.Lk = nn.Linear(m, self.g * k, bias, device, dtype)
        self.Lv = nn.Linear(m, self.g * k, bias, device, dtype)
        self.Lo = nn.Linear(h * k, m, bias, device, dtype)

    @circuit("... y m, ... x m -> ... y m", fixed="m h", optional={"mask": "... y x'", "head_mask": "... h y x'"})
    def forward(
        self,
        target: Tensor,
        source: Tensor,
        mask: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """What each target vector finds in the source, and in all that the cache has from earlier calls.

        `mask` is for all heads alike, `head_mask` has one for each (a learned bias by distance, say); given both, both
        hold. With a cache target and source go on where it ends, the source joins it, and a mask's x' is all that it
        then has; without, x' is x. Raises ShapeError where axes clash and CircuitError for a mask of integers and for
        what a cache refuses.
        """
        start = 0 if cache is None else cache.length
        query = self._ask(target, start)
        keys, values = self._answer(source, start)
        if cache is not None:
            _refuse_unfit(cache.length + source.shape[-2], mask=mask, head_mask=head_mask)
            keys, values = cache.append(keys, values)
        return self._mix(query, keys, values, mask, head_mask, causal, start)

    @circuit("... x m -> ... g x k, ... g x k", fixed="m g k")
    def remember(self, source: Tensor, *, start: int = 0) -> tuple[Tensor, Tensor]:
        """Keys and values of a source whose first vector stands at `start`: what `recall` and a cache take."""
        return self._answer(source, start)

    @circuit(
        "... y m, ... g x k, ... g x k -> ... y m",
        fixed="m g k h",
        optional={"mask": "... y x", "head_mask": "... h y x"},
    )
    def recall(
        self,
        target: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
        causal: bool = False,
        start: int = 0,
    ) -> Tensor:
        """What each target vector, of which the first stands at `start`, finds in keys and values that are kept.

        >>> attend = MultiHeadAttention(m=128, k=16, h=4)
        >>> target, source = torch.rand(20, 128), torch.rand(22, 128)
        >>> torch.equal(attend.recall(target, *attend.remember(source)), attend(target, source))
        True
        """
        return self._mix(self._ask(target, start), keys, values, mask, head_mask, causal, start)

    def cache(self, x: int, batch: Sequence[int] = ()) -> KeyValueCache:
        """An empty cache for up to x source vectors, on the device and in the dtype that their keys will have."""
        device, dtype = self.Lk.weight.device, self.Lk.weight.dtype
        known = dtype != torch.float64 and torch.amp.is_autocast_available(device.type)  # autocast leaves doubles alone
        if known and torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        return KeyValueCache(x, self.k, self.g, batch, device=device, dtype=dtype)

    def _ask(self, target: Tensor, start: int) -> Tensor:
        """The queries, heads first."""
        query = rearrange(self.Lq(target), "... y (h k) -> ... h y k", k=self.k)
        return query if self.rotary is None else self.rotary(query, start)

    def _answer(self, source: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The keys and values, heads first."""
        split = "... x (g k) -> ... g x k" if self.g < self.h else "... x (h k) -> ... h x k"
        key = rearrange(self.Lk(source), split, k=self.k)
        value = rearrange(self.Lv(source), split, k=self.k)
        return (key if self.rotary is None else self.rotary(key, start)), value

    def _mix(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        head_mask: Tensor | None,
        causal: bool,
        start: int,
    ) -> Tensor:
        """Attention under all masks, and the heads joined."""
        if mask is not None:
            mask = repeat(mask, "... y x -> ... h y x", h=self.h)
        if head_mask is not None:
            mask = head_mask if mask is None else both(mask, head_mask)
        attend = grouped_attention if self.g < self.h else attention
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask, causal=causal, window=self.window, start=start, dropout=dropout)
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


def _refuse_unfit(x: int, **masks: Tensor | None) -> None:
    """Raise ShapeError for a mask that is not for all that a cache will have, before the cache changes."""
    for name, mask in masks.items():
        if mask is not None and mask.shape[-1] != x:
            raise ShapeError(
                f"MultiHeadAttention.forward: {name} is for {mask.shape[-1]} source vectors, and with this call's the"
                f" cache has {x}"
            )
