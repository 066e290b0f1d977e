"""Activations and bounds back: the slope on each side of where they bend, as torch has it at the bend itself."""

import math
from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import fit, reverses


@reverses("relu")
def relu(dy: Tensor, y: Tensor) -> Tensor:
    """1 where it lets through, 0 at 0."""
    return dy.masked_fill(y <= 0, 0)


@reverses("leaky_relu")
def leaky_relu(dy: Tensor, x: Tensor, negative_slope: Any) -> Tensor:
    """1 above 0, the slope below."""
    return torch.where(x > 0, dy, dy * negative_slope)


@reverses("_prelu_kernel")
def prelu(dy: Tensor, x: Tensor, weight: Tensor) -> Any:
    """The same with a learned slope."""
    return {"x": torch.where(x > 0, dy, dy * weight), "weight": fit(torch.where(x > 0, 0.0, dy * x), weight)}


@reverses("gelu")
def gelu(dy: Tensor, x: Tensor, approximate: str) -> Tensor:
    """Φ(x) + x φ(x), or the slope of its approximation by tanh."""
    if approximate == "tanh":
        scale, cubic = math.sqrt(2 / math.pi), 0.044715
        inner = torch.tanh((x + x * x * x * cubic) * scale)
        steep = (1 - inner * inner) * (1 + x * x * (3 * cubic)) * scale
        return dy * ((inner + 1) * 0.5 + x * steep * 0.5)
    normal = (-x * x * 0.5).exp() * (1 / math.sqrt(2 * math.pi))
    return dy * ((torch.erf(x * math.sqrt(0.5)) + 1) * 0.5 + x * normal)


@reverses("silu")
def silu(dy: Tensor, x: Tensor) -> Tensor:
    """σ(1 + x(1-σ))."""
    gate = x.sigmoid()
    return dy * gate * (x * (1 - gate) + 1)


@reverses("elu")
def elu(dy: Tensor, x: Tensor, alpha: Any, scale: Any, input_scale: Any) -> Tensor:
    """The scale above 0, α e^x below."""
    below = (x * input_scale).clamp(max=0.0).exp() * (alpha * scale * input_scale)
    return torch.where(x > 0, dy * scale, dy * below)


@reverses("softplus")
def softplus(dy: Tensor, x: Tensor, beta: Any, threshold: Any) -> Tensor:
    """The sigmoid, 1 beyond the threshold."""
    return torch.where(x * beta > threshold, dy, dy * (x * beta).sigmoid())


@reverses("hardtanh")
def hardtanh(dy: Tensor, x: Tensor, min_val: Any, max_val: Any) -> Tensor:
    """1 between the bounds, 0 at and beyond them."""
    return dy.masked_fill((x <= min_val) | (x >= max_val), 0)


@reverses("hardsigmoid")
def hardsigmoid(dy: Tensor, x: Tensor) -> Tensor:
    """1/6 between -3 and 3."""
    return dy.masked_fill((x <= -3) | (x >= 3), 0) / 6


@reverses("hardswish")
def hardswish(dy: Tensor, x: Tensor) -> Tensor:
    """x/3 + ½ between -3 and 3, then 1."""
    return torch.where(x <= -3, 0.0, torch.where(x < 3, dy * (x / 3 + 0.5), dy))


@reverses("threshold")
def threshold_(dy: Tensor, x: Tensor, threshold: Any) -> Tensor:
    """1 above the threshold."""
    return dy.masked_fill(x <= threshold, 0)


@reverses("abs")
def abs(dy: Tensor, x: Tensor) -> Tensor:
    """The sign."""
    return dy * x.sign()


@reverses("clamp clip")
def clamp(dy: Tensor, x: Tensor, min: Any, max: Any) -> Any:
    """1 between the bounds and on them; what is beyond goes to a bound that is a tensor."""
    below = None if min is None else x < min
    above = None if max is None else x > max
    beyond = [each for each in (below, above) if each is not None]
    found: dict[str, Any] = {"x": fit(dy.masked_fill(beyond[0] | beyond[-1], 0), x)}
    if isinstance(max, Tensor):
        crossed = beyond[-1] if min is None else beyond[-1] | (min > max)
        found["max"] = fit(dy.masked_fill(~crossed, 0), max)
    if isinstance(min, Tensor):
        lower = beyond[0] if max is None else beyond[0] & ~(min > max)
        found["min"] = fit(dy.masked_fill(~lower, 0), min)
    return found


@reverses("clamp_min")
def clamp_min(dy: Tensor, x: Tensor, min: Any) -> Any:
    """1 from the bound on."""
    return clamp(dy, x, min, None)


@reverses("clamp_max")
def clamp_max(dy: Tensor, x: Tensor, max: Any) -> Any:
    """1 up to the bound."""
    return clamp(dy, x, None, max)


@reverses("maximum")
def maximum(dy: Tensor, x: Tensor, other: Tensor) -> Any:
    """To the greater; of equals each takes half."""
    return _shared(dy, x, other, x > other)


@reverses("minimum")
def minimum(dy: Tensor, x: Tensor, other: Tensor) -> Any:
    """To the smaller; of equals each takes half."""
    return _shared(dy, x, other, x < other)


def _shared(dy: Tensor, x: Tensor, other: Tensor, mine: Tensor) -> Any:
    half = torch.where(x == other, dy * 0.5, 0.0)
    return {
        "x": fit(torch.where(mine, dy, half), x),
        "other": fit(torch.where(mine | (x == other), half, dy), other),
    }
