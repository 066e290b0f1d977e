"""A key-value cache: the keys and values of earlier decoding steps, so that no position is computed twice.

Both tensors are allocated once, at their final length, with the axis of heads before that of positions, as attention
needs them. A step writes its positions in place, without copying earlier ones. For inference only: the writes are not
differentiable.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit

from .sizes import refuse_sizes_below_one

Cache = TypeVar("Cache")
"""What a layer keeps between decoding steps."""


class KeyValueCache:
    """Preallocated keys and values of up to x positions, of which the first `length` are filled.

    `MultiHeadAttention.cache` returns one with the sizes, device and dtype of a module. Memory: 2gxk numbers for each
    example of the batch, allocated by the constructor.

    Args:
        x: Number of positions that the cache has room for.
        k: Width of keys and values.
        g: Number of heads of keys and values.
        batch: Sizes of the leading axes.
        device: Device of the tensors. With "meta" they are allocated by the first `append`, and have the device and
            dtype of its keys.
        dtype: Dtype of the tensors.

    Raises:
        CircuitError: if a size is below 1.

    >>> cache = KeyValueCache(x=128, k=16, g=4, batch=(2,))
    >>> keys, values = cache.append(torch.rand(2, 4, 5, 16), torch.rand(2, 4, 5, 16))
    >>> keys.shape, cache.length
    (torch.Size([2, 4, 5, 16]), 5)
    """

    x: int
    k: int
    g: int

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
        refuse_sizes_below_one("KeyValueCache", x=x, k=k, g=g)
        self.x, self.k, self.g = x, k, g
        self.keys = torch.empty(*batch, g, x, k, device=device, dtype=dtype)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    @circuit("... g n k, ... g n k -> ... g x' k, ... g x' k", fixed="g k")
    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write n more positions; return the keys and values of all filled positions, as views of the cache.

        Args:
            key: Keys of the next n positions, `... g n k`.
            value: Values of the next n positions, `... g n k`.

        Returns:
            The keys and the values of all x' filled positions, each `... g x' k`.

        Raises:
            ShapeError: if g, n or k differ.
            CircuitError: if there is no room for n more positions, if batch sizes, dtype or device differ from the
                cache's, or if keys or values require a gradient while gradients are enabled.
        """
        self._refuse_unlike(key, value)
        n = key.shape[-2]
        if self.length + n > self.x:
            raise CircuitError(
                f"KeyValueCache: {self.length} of {self.x} positions are filled, {n} more have no room; up to"
                f" {self.x - self.length} may be appended"
            )
        if self.keys.is_meta and not self.length:
            self.keys: Tensor = torch.empty_like(self.keys, device=key.device, dtype=key.dtype)
            self.values: Tensor = torch.empty_like(self.keys)
        self.keys.narrow(-2, self.length, n).copy_(key)
        self.values.narrow(-2, self.length, n).copy_(value)
        self.length += n
        return self.keys.narrow(-2, 0, self.length), self.values.narrow(-2, 0, self.length)

    def truncate(self, length: int = 0) -> None:
        """Keep only the first `length` positions; raise CircuitError if fewer are filled or `length` is below 0."""
        if not 0 <= length <= self.length:
            raise CircuitError(f"KeyValueCache: {length} positions cannot be kept; it may be 0 to {self.length}")
        self.length: int = length

    def _refuse_unlike(self, key: Tensor, value: Tensor) -> None:
        """Raise CircuitError for keys and values that cannot be written into the cache's tensors."""
        batch, kept = self.keys.shape[:-3], key if self.keys.is_meta and not self.length else self.keys
        for name, new in (("keys", key), ("values", value)):
            if new.shape[:-3] != batch:
                raise CircuitError(f"KeyValueCache: batch {list(new.shape[:-3])} of {name}, {list(batch)} in the cache")
            if new.dtype != kept.dtype or new.device != kept.device:
                raise CircuitError(
                    f"KeyValueCache: {name} are {new.dtype} on {new.device}, the cache's {kept.dtype} on {kept.device};"
                    " make the cache with the dtype and device of the keys and values"
                )
            if new.requires_grad and torch.is_grad_enabled():
                raise CircuitError(
                    f"KeyValueCache: {name} require a gradient, and the cache is written in place, without one; run"
                    " under torch.no_grad(), or without a cache"
                )


@dataclass
class DecoderCache:
    """Keys and values that a DecoderLayer keeps between decoding steps: those of the target, and those of `memory`.

    `remembered` is None if the attention to the memory is wrapped: what the wrapper adds is not in keys and values, and
    every step computes them again.
    """

    own: KeyValueCache
    memory: Tensor
    remembered: tuple[Tensor, Tensor] | None


def caching(module: nn.Module, where: str) -> Any:
    """Return the module with the method `cache`: the one given, or the only one inside, if that is wrapped.

    Raises CircuitError, which begins with `where`, if there is none or more than one.
    """
    found: dict[str, nn.Module] = {}
    for name, each in module.named_modules():
        inside = any(not outer or name.startswith(f"{outer}.") for outer in found)
        if not inside and hasattr(type(each), "cache"):
            found[name] = each
    if len(found) != 1:
        raise CircuitError(
            f"{where} is a {type(module).__name__} with {len(found) or 'no'} modules inside that have a cache, as"
            " MultiHeadAttention has; wrap one MultiHeadAttention and pass all arguments on to it, or wrap its linear"
            " maps Lq, Lk, Lv and Lo"
        )
    return next(iter(found.values()))


def caches_of(name: str, layers: Iterable[nn.Module], *args: Any) -> list[Any]:
    """Return the caches that the layers of a model with this name return for these arguments."""
    return [caching(layer, f"layers.{number} of this {name}").cache(*args) for number, layer in enumerate(layers)]


def refuse_not_appended(module: nn.Module, cache: KeyValueCache | None, length: int) -> None:
    """Raise CircuitError if a call of a module has not brought its cache to this length; a wrapper may prevent it."""
    if cache is not None and cache.length != length:
        raise CircuitError(
            f"the cache given to a {type(module).__name__} has {cache.length} positions after the call, not {length}; a"
            " wrapper of attention passes all arguments on, `cache` too, and calls what is inside once"
        )


def device_and_dtype(linear: nn.Module) -> tuple[torch.device, torch.dtype | None]:
    """Return the device and the dtype of a linear map's output, also under autocast.

    Of a map that is not an nn.Linear with floating weights (it is quantized, or wrapped by an adapter) only the output
    tells them: the device is "meta", with which KeyValueCache waits for the first keys.
    """
    weight = linear.weight if isinstance(linear, nn.Linear) else None
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return torch.device("meta"), None
    device, dtype = weight.device, weight.dtype
    casts = dtype != torch.float64 and torch.amp.is_autocast_available(device.type)  # float64 is never autocast
    if casts and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    return device, dtype


def for_each_layer(name: str, caches: Sequence[Cache], depth: int) -> Sequence[Cache | None]:
    """Return the cache of each of `depth` layers, None if there are no caches.

    Raises CircuitError, with the caller's `name`, if there are more or fewer caches than layers.
    """
    if caches and len(caches) != depth:
        raise CircuitError(f"{name}: got {len(caches)} caches for {depth} layers; pass one for each layer, or none")
    return caches or [None] * depth
