"""Multi-head attention, with learned projections to queries, keys and values.

Masks, and the attention of each head, are those of `models.scaled_dot_product`. In a bool mask True means *may attend*,
the opposite of nn.MultiheadAttention's. A source vector that no target vector may attend to has no effect on the output
of `forward` and on any gradient, whatever it holds, NaN and inf too; `remember` sees no mask, and there NaN reaches the
gradients of `Lk` and `Lv`.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 21; Vaswani et al. 2017; for heads that share keys and
values, Ainslie et al. 2023.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit, rearrange, repeat

from .parts.cache import KeyValueCache, device_and_dtype
from .parts.masks import CALL_HINT, KEY_MASK, KEY_MASK_HINT, MASK_HINT, combine_all, refuse_wrong_masks
from .parts.positions import RotaryPositions
from .parts.sizes import refuse_no_divisor, refuse_no_probability, refuse_sizes_below_one
from .parts.unseen import clear_hidden
from .scaled_dot_product import attention, grouped_attention
from .weights.files import savable
from .weights.sources import Weights
from .weights.torch_conversions import ATTENTION, AttentionSettings, converted

__all__ = ["MultiHeadAttention", "attention", "grouped_attention"]

_MASKS: Any = {
    "dtypes": KEY_MASK,
    "hints": {"mask": f"{MASK_HINT.format('key_mask')}\n  {CALL_HINT}", **KEY_MASK_HINT},
}


@savable
class MultiHeadAttention(nn.Module):
    """Multi-head attention: h heads attend in parallel, each with learned projections of width k (Figure 21).

    Queries come from `target` (length y), keys and values from `source` (length x). `Lq`, `Lk`, `Lv` and `Lo` are the
    figure's learned linear maps, initialized as in nn.Linear: uniform within ±(number of inputs of the map)^-½.
    Heads are stored one after another, as the axis `(h k)`, in the layout of nn.MultiheadAttention.

    `forward` computes the whole figure. For incremental decoding its two halves can be called separately: `remember`
    returns the keys and values of a source, `recall` attends to given keys and values. With a cache, made by `cache`,
    `forward` appends the source's keys and values to those of earlier calls and attends to all of them.

    Parameters: 4mhk, or 2mhk + 2mgk with g groups; biases add (h + 2g)k + m, those of `qkv_bias` alone (h + 2g)k.

    Args:
        m: Width of the vectors of target, source and output (`d_model`, `embed_dim`, `hidden_size`).
        k: Width of a head (`head_dim`).
        h: Number of heads (of queries; `nhead`, `num_heads`).
        groups: Number g of heads of keys and values (`num_key_value_heads`), each for h/g of queries; h by default.
        rotary: If given, the rotary position embeddings (RoPE) that are applied to queries and keys.
        window: If given, a query attends only to keys fewer than `window` positions away.
        bias: Whether the four linear maps have a bias.
        qkv_bias: Whether `Lq`, `Lk` and `Lv` have a bias; as `bias` unless given.
        dropout: Attention dropout: the probability that an attention weight is set to 0 in training.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: if `groups` does not divide h, `rotary` is not k wide, or a size or probability is out of range.

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
        qkv_bias: bool | None = None,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.m, self.k, self.h, self.g = m, k, h, h if groups is None else groups
        self.rotary, self.window, self.dropout = rotary, window, dropout
        refuse_sizes_below_one("MultiHeadAttention", m=m, k=k, h=h, window=window)
        refuse_no_probability("MultiHeadAttention", dropout=dropout)
        refuse_no_divisor("MultiHeadAttention", h, self.g)
        if rotary is not None and rotary.k != k:
            raise CircuitError(f"MultiHeadAttention: heads are {k} wide, rotary is for vectors {rotary.k} wide")
        qkv_bias = bias if qkv_bias is None else qkv_bias
        self.Lq: nn.Linear = nn.Linear(m, h * k, qkv_bias, device, dtype)
        self.Lk, self.Lv = (nn.Linear(m, self.g * k, qkv_bias, device, dtype) for _ in range(2))
        self.Lo: nn.Linear = nn.Linear(h * k, m, bias, device, dtype)

    @circuit(
        "... y m, ... x m -> ... y m",
        fixed="m h",
        optional={"mask": "... y x'", "head_mask": "... h y x'", "key_mask": "... x'"},
        **_MASKS,
    )
    def forward(
        self,
        target: Tensor,
        source: Tensor,
        mask: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the attention output `... y m`, for each target vector; in a bool mask True means *may attend*.

        nn.MultiheadAttention's `layer(query, key, value)` is `layer(target, source)` here, and its bool masks mean the
        opposite. All masks, `causal` and the window are combined.

        Args:
            target: The vectors from which the queries are computed, `... y m`.
            source: The vectors from which the keys and values are computed, `... x m`.
            mask: Bool or floating (added to the scores), `... y x'`, for all heads; of two axes always `y x'`.
            head_mask: One such mask for each head, `... h y x'`, for example a learned bias by distance.
            key_mask: Bool, `... x'`: False for padding in the source, to which no target vector attends.
            causal: Whether a target vector may attend only to source vectors at its own position and before.
            cache: Keys and values of earlier calls. Those of `source` are appended, and the target attends to all of
                them. Target and source start at position `cache.length`. The size of a mask's axis x' is the length of
                the cache after the call; without a cache, x' is x.

        Raises:
            ShapeError: if axes have different sizes.
            CircuitError: if a mask has another dtype or is an input, or if the cache cannot append to itself.
        """
        start = 0 if cache is None else cache.length
        refuse_wrong_masks(self, target, source, start, mask=mask, head_mask=head_mask, key_mask=key_mask)
        masks = (mask, head_mask, key_mask)
        if cache is None:  # a later call may see what is hidden now, and a cache has no gradients
            target, source = clear_hidden(target, source, masks, causal=causal, window=self.window)
        query = self._queries(target, start)
        keys, values = self._keys_and_values(source, start)
        if cache is not None:
            keys, values = cache.append(keys, values)
        return self._attend(query, keys, values, masks, causal, start)

    @circuit("... x m -> ... g x k, ... g x k", fixed="m g k")
    def remember(self, source: Tensor, *, start: int = 0) -> tuple[Tensor, Tensor]:
        """Return the keys and the values of a source, both `... g x k`, for `recall` or `KeyValueCache.append`.

        `start` is the position of the first source vector, on which rotary embeddings depend.
        """
        return self._keys_and_values(source, start)

    @circuit(
        "... y m, ... g x k, ... g x k -> ... y m",
        fixed="m g k h",
        optional={"mask": "... y x", "head_mask": "... h y x", "key_mask": "... x"},
        **_MASKS,
    )
    def recall(
        self,
        target: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        causal: bool = False,
        start: int = 0,
    ) -> Tensor:
        """Return the attention output `... y m` for given keys and values; in a bool mask True means *may attend*.

        Keys and values, `... g x k`, are as returned by `remember`; the first key is at position 0, the first target
        vector at `start`. Masks and errors are as in `forward`.

        >>> attend = MultiHeadAttention(m=128, k=16, h=4)
        >>> target, source = torch.rand(20, 128), torch.rand(22, 128)
        >>> torch.equal(attend.recall(target, *attend.remember(source)), attend(target, source))
        True
        """
        return self._attend(self._queries(target, start), keys, values, (mask, head_mask, key_mask), causal, start)

    def cache(self, x: int, batch: Sequence[int] = ()) -> KeyValueCache:
        """Return an empty cache for up to x source vectors, whose leading axes have the sizes `batch`.

        Device and dtype are those of the keys that `forward` computes, also under autocast. If `Lk` was quantized or
        wrapped, only the first keys tell them, and the cache is allocated when these are appended.
        """
        device, dtype = device_and_dtype(self.Lk)
        return KeyValueCache(x, self.k, self.g, batch, device=device, dtype=dtype)

    def _queries(self, target: Tensor, start: int) -> Tensor:
        """Return the queries, `... h y k`."""
        query = rearrange(self.Lq(target), "... y (h k) -> ... h y k", k=self.k)
        return query if self.rotary is None else self.rotary(query, start)

    def _keys_and_values(self, source: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return the keys and the values, each `... g x k`."""
        split = "... x (g k) -> ... g x k" if self.g < self.h else "... x (h k) -> ... h x k"
        key = rearrange(self.Lk(source), split, k=self.k)
        value = rearrange(self.Lv(source), split, k=self.k)
        return (key if self.rotary is None else self.rotary(key, start)), value

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, masks: Sequence[Tensor | None], causal: bool, start: int
    ) -> Tensor:
        """Return the attention output for mask, head mask and key mask: attend, concatenate the heads, apply `Lo`."""
        mask, head_mask, key_mask = masks
        mask = combine_all(None if mask is None else repeat(mask, "... y x -> ... h y x", h=self.h), head_mask)
        attend = grouped_attention if self.g < self.h else attention
        if key_mask is not None and key_mask.ndim > 1 and attend is attention:
            key_mask = key_mask[..., None, :]
        dropout = self.dropout if self.training else 0.0
        options: Any = {"causal": causal, "window": self.window, "start": start, "dropout": dropout}
        mixed = attend(query, key, value, mask, key_mask=key_mask, **options)
        return self.Lo(rearrange(mixed, "... h y k -> ... y (h k)"))

    @classmethod
    def from_torch(cls, weights: Weights, *, prefix: str = "", **settings: Unpack[AttentionSettings]) -> Self:
        """Return a copy of torch's module, with outputs equal to those of `module(target, source, source)`.

        The copy takes `... y m`, whatever `batch_first` is there, and in its bool masks True means *may attend*.

        Args:
            weights: The nn.MultiheadAttention to copy, with its dropout, device, dtypes and mode; or its state dict, or
                the path of a safetensors file, which do not tell whether it has `add_zero_attn`.
            prefix: Text with which every name begins, such as "_orig_mod.", and which is removed.
            **settings: `h`, the number of heads (`num_heads`), and `dropout`, which a state dict does not tell either.

        Raises:
            WeightsError: if weights are missing or unexpected, or have other axes.
            CircuitError: if `h` or `dropout` is missing or contradicts the weights or the module, or the module has an
                option that Figure 21 does not have.
        """
        return converted(cls, ATTENTION, weights, prefix, settings)


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "MultiHeadAttention": {"order": "y x ... h"},
}
"""The options with which `circuits.draw` draws Figure 21 as the paper does."""
