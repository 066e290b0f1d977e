"""Reverse rules of activations and of bounds (clamp, maximum, minimum).

Where a function has no derivative, such as relu at 0, the rule returns torch's value.

`dx` is the cotangent of the input `x`, `dy` that of the output `y`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import reverses, unbroadcast


@reverses("relu")
def relu(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy where x > 0, 0 elsewhere (also at x = 0)."""
    return dy.masked_fill(y <= 0, 0)


@reverses("leaky_relu")
def leaky_relu(dy: Tensor, x: Tensor, negative_slope: Any) -> Tensor:
    """dx = dy where x > 0, elsewhere dy times the negative slope."""
    return torch.where(x > 0, dy, dy * negative_slope)


@reverses("_prelu_kernel")
def prelu(dy: Tensor, x: Tensor, weight: Tensor) -> Any:
    """dx = dy where x > 0, elsewhere dy w for the learned slope w; dw = dy x where x ≤ 0, 0 elsewhere."""
    return {"x": torch.where(x > 0, dy, dy * weight), "weight": unbroadcast(torch.where(x > 0, 0.0, dy * x), weight)}


@reverses("gelu")
def gelu(dy: Tensor, x: Tensor, approximate: str) -> Tensor:
    """dx = dy (Φ(x) + x φ(x)) for the normal distribution Φ and density φ; or that of the tanh approximation."""
    if approximate == "tanh":
        scale, cubic = math.sqrt(2 / math.pi), 0.044715
        inner = torch.tanh((x + x * x * x * cubic) * scale)
        slope = (1 - inner * inner) * (1 + x * x * (3 * cubic)) * scale
        return dy * ((inner + 1) * 0.5 + x * slope * 0.5)
    density = (-x * x * 0.5).exp() * (1 / math.sqrt(2 * math.pi))
    return dy * ((torch.erf(x * math.sqrt(0.5)) + 1) * 0.5 + x * density)


@reverses("silu")
def silu(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy σ(x) (1 + x (1 - σ(x)))."""
    gate = x.sigmoid()
    return dy * gate * (x * (1 - gate) + 1)


@reverses("elu")
def elu(dy: Tensor, x: Tensor, alpha: Any, scale: Any, input_scale: Any) -> Tensor:
    """dx = dy scale where x > 0, elsewhere dy α scale c exp(c x) for c = `input_scale`."""
    slope = (x * input_scale).clamp(max=0.0).exp() * (alpha * scale * input_scale)
    return torch.where(x > 0, dy * scale, dy * slope)


@reverses("softplus")
def softplus(dy: Tensor, x: Tensor, beta: Any, threshold: Any) -> Tensor:
    """dx = dy σ(β x), and dy where β x is above the threshold."""
    return torch.where(x * beta > threshold, dy, dy * (x * beta).sigmoid())


@reverses("hardtanh")
def hardtanh(dy: Tensor, x: Tensor, min_val: Any, max_val: Any) -> Tensor:
    """dx = dy where x is between the bounds, 0 elsewhere (also on the bounds)."""
    return dy.masked_fill((x <= min_val) | (x >= max_val), 0)


@reverses("hardsigmoid")
def hardsigmoid(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / 6 where -3 < x < 3, 0 elsewhere."""
    return dy.masked_fill((x <= -3) | (x >= 3), 0) / 6


@reverses("hardswish")
def hardswish(dy: Tensor, x: Tensor) -> Tensor:
    """dx = 0 where x ≤ -3, dy (x / 3 + 1/2) where -3 < x < 3, dy elsewhere."""
    return torch.where(x <= -3, 0.0, torch.where(x < 3, dy * (x / 3 + 0.5), dy))


@reverses("threshold")
def threshold_(dy: Tensor, x: Tensor, threshold: Any) -> Tensor:
    """dx = dy where x is above the threshold, 0 elsewhere."""
    return dy.masked_fill(x <= threshold, 0)


@reverses("abs")
def abs(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy sign(x)."""
    return dy * x.sign()


@reverses("clamp clip")
def clamp(dy: Tensor, x: Tensor, min: Any, max: Any) -> Any:
    """dx = dy where min ≤ x ≤ max, 0 elsewhere.

    The cotangent of a bound that is a tensor is dy where x is beyond the bound, 0 elsewhere. Where min > max, y is max:
    the cotangent of max is dy there, that of min 0.
    """
    below = None if min is None else x < min
    above = None if max is None else x > max
    beyond = [each for each in (below, above) if each is not None]
    found: dict[str, Any] = {"x": unbroadcast(dy.masked_fill(beyond[0] | beyond[-1], 0), x)}
    if isinstance(max, Tensor):
        crossed = beyond[-1] if min is None else beyond[-1] | (min > max)
        found["max"] = unbroadcast(dy.masked_fill(~crossed, 0), max)
    if isinstance(min, Tensor):
        lower = beyond[0] if max is None else beyond[0] & ~(min > max)
        found["min"] = unbroadcast(dy.masked_fill(~lower, 0), min)
    return found


@reverses("clamp_min")
def clamp_min(dy: Tensor, x: Tensor, min: Any) -> Any:
    """dx = dy where x ≥ min, 0 elsewhere; dmin = dy where x < min, 0 elsewhere, if min is a tensor."""
    return clamp(dy, x, min, None)


@reverses("clamp_max")
def clamp_max(dy: Tensor, x: Tensor, max: Any) -> Any:
    """dx = dy where x ≤ max, 0 elsewhere; dmax = dy where x > max, 0 elsewhere, if max is a tensor."""
    return clamp(dy, x, None, max)


@reverses("maximum")
def maximum(dy: Tensor, x: Tensor, other: Tensor) -> Any:
    """The cotangent of the larger tensor is dy, of the smaller 0; where they are equal, dy / 2 for both."""
    return _to_chosen(dy, x, other, x > other)


@reverses("minimum")
def minimum(dy: Tensor, x: Tensor, other: Tensor) -> Any:
    """The cotangent of the smaller tensor is dy, of the larger 0; where they are equal, dy / 2 for both."""
    return _to_chosen(dy, x, other, x < other)


def _to_chosen(dy: Tensor, x: Tensor, other: Tensor, chosen: Tensor) -> Any:
    """Return the cotangents of two tensors: dy for `x` where `chosen`, else for `other`; dy / 2 for equal elements."""
    half = torch.where(x == other, dy * 0.5, 0.0)
    return {
        "x": unbroadcast(torch.where(chosen, dy, half), x),
        "other": unbroadcast(torch.where(chosen | (x == other), half, dy), other),
    }
