"""What attention has seen: keys and values, kept from one step of decoding to the next.

Both stand in tensors as long as they will ever be, heads before positions as attention wants them; a step writes its
own rows and nothing is moved. Inference only: what is written in place has no gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from circuits import CircuitError, circuit


class KeyValueCache:
    """Keys and values of up to x positions, k wide, in g heads; `length` of them are filled.

    `batch` are the sizes of the leading axes. `MultiHeadAttention.cache` makes one that fits a module. Memory is 2gxk
    numbers an example, all taken at the start. Raises CircuitError for sizes below 1.

    >>> cache = KeyValueCache(x=128, k=16, g=4, batch=(2,))
    >>> keys, values = cache.append(torch.rand(2, 4, 5, 16), torch.rand(2, 4, 5, 16))
    >>> keys.shape, cache.length
    (torch.Size([2, 4, 5, 16]), 5)
    """

    def __init__(
        self,
        x: int,
        k: int,
        g: int,
        batch: Sequence[int] = (),
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, size in {"x": x, "k": k, "g": g}.items():
            if size < 1:
                raise CircuitError(f"KeyValueCache: {name} is {size}; it may be 1 or more")
        self.x, self.k, self.g = x, k, g
        self.keys = torch.empty(*batch, g, x, k, device=device, dtype=dtype)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    @circuit("... g n k, ... g n k -> ... g x' k, ... g x' k", fixed="g k")
    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write n more positions; all that are filled, as views, which later steps only make longer.

        Raises CircuitError where n more have no room, where batch, dtype or device differ from the cache's, and where
        gradients are asked for.
        """
        self._refuse_unlike(key, value)
        n = key.shape[-2]
        if self.length + n > self.x:
            raise CircuitError(
                f"KeyValueCache: {self.length} of {self.x} positions are filled, {n} more have no room; up to"
                f" {self.x - self.length} may come"
            )
        self.keys.narrow(-2, self.length, n).copy_(key)
        self.values.narrow(-2, self.length, n).copy_(value)
        self.length += n
        return self.keys.narrow(-2, 0, self.length), self.values.narrow(-2, 0, self.length)

    def truncate(self, length: int = 0) -> None:
        """Forget all but the first `length` positions; raises CircuitError if fewer are filled."""
        if not 0 <= length <= self.length:
            raise CircuitError(f"KeyValueCache: {length} positions cannot be kept; it may be 0 to {self.length}")
        self.length = length

    def _refuse_unlike(self, key: Tensor, value: Tensor) -> None:
        """Raise CircuitError for keys and values that cannot be written here."""
        for name, new, kept in (("keys", key, self.keys), ("values", value, self.values)):
            if new.shape[:-3] != kept.shape[:-3]:
                raise CircuitError(
                    f"KeyValueCache: batch {list(new.shape[:-3])} of {name}, {list(kept.shape[:-3])} kept"
                )
            if new.dtype != kept.dtype or new.device != kept.device:
                raise CircuitError(
                    f"KeyValueCache: {name} are {new.dtype} on {new.device}, and kept as {kept.dtype} on {kept.device};"
                    " make the cache with their dtype and device"
                )
            if new.requires_grad and torch.is_grad_enabled():
                raise CircuitError(
                    f"KeyValueCache: {name} require a gradient, and what is written in place has none; run under"
                    " torch.no_grad(), or without a cache"
                )
