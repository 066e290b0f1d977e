"""What treats every number alike, back: the cotangent times the slope, summed along axes that were stretched."""

import math
from typing import Any

import torch
from torch import Tensor

from circuits.reversing.registry import fit, reverses

# Arithmetic -----------------------------------------------------------------------------------------------------------


@reverses("add")
def add(dy: Tensor, x: Tensor, other: Any, alpha: Any) -> Any:
    """A sum hands the cotangent to both."""
    return {"x": fit(dy, x), "other": fit(_times(dy, alpha), other)}


@reverses("sub")
def sub(dy: Tensor, x: Tensor, other: Any, alpha: Any) -> Any:
    """A difference, negated to the second."""
    return {"x": fit(dy, x), "other": fit(-_times(dy, alpha), other) if isinstance(other, Tensor) else None}


@reverses("rsub")
def rsub(dy: Tensor, x: Tensor, other: Any, alpha: Any) -> Any:
    """`other - alpha x`."""
    return {"x": fit(-_times(dy, alpha), x), "other": fit(dy, other)}


def _times(cotangent: Tensor, factor: Any) -> Tensor:
    return cotangent if isinstance(factor, (int, float)) and factor == 1 else cotangent * factor


@reverses("mul")
def mul(dy: Tensor, x: Tensor, other: Any) -> Any:
    """Each is the slope of the other."""
    return {"x": fit(dy * other, x), "other": fit(dy * x, other) if isinstance(other, Tensor) else None}


@reverses("div")
def div(dy: Tensor, y: Tensor, x: Tensor, other: Any, rounding_mode: Any = None) -> Any:
    """1/b and -a/b²; what is rounded is flat."""
    if rounding_mode is not None:
        return None
    scaled = dy / other
    return {"x": fit(scaled, x), "other": fit(-scaled * (x / other), other) if isinstance(other, Tensor) else None}


@reverses("fmod")
def fmod(dy: Tensor, x: Tensor, other: Any) -> Any:
    """What is left of x; b goes into it a/b times, cut towards 0."""
    return {"x": fit(dy, x), "other": fit(-dy * (x / other).trunc(), other) if isinstance(other, Tensor) else None}


@reverses("remainder")
def remainder(dy: Tensor, x: Tensor, other: Any) -> Any:
    """The same, cut downwards."""
    return {"x": fit(dy, x), "other": fit(-dy * (x / other).floor(), other) if isinstance(other, Tensor) else None}


@reverses("reciprocal")
def reciprocal(dy: Tensor, y: Tensor) -> Tensor:
    """-1/x²."""
    return -dy * y * y


@reverses("neg negative")
def neg(dy: Tensor) -> Tensor:
    """-1."""
    return -dy


@reverses("square")
def square(dy: Tensor, x: Tensor) -> Tensor:
    """2x."""
    return dy * x * 2


@reverses("pow")
def pow(dy: Tensor, y: Tensor, x: Any, exponent: Any) -> Any:
    """b a^(b-1), and a^b ln a, which is 0 where both are 0."""
    found: dict[str, Any] = {}
    if isinstance(x, Tensor):
        if isinstance(exponent, Tensor):
            slope = torch.where(exponent == 0, 0.0, exponent * x.pow(exponent - 1))
        else:
            slope = exponent * x.pow(exponent - 1) if exponent != 0 else x * 0
        found["x"] = fit(dy * slope, x)
    if isinstance(exponent, Tensor):
        base = x if isinstance(x, Tensor) else exponent.new_full((), float(x))
        flat = (base == 0) & (exponent >= 0)
        found["exponent"] = fit(dy * torch.where(flat, 0.0, y * torch.where(flat, 1.0, base).log()), exponent)
    return found


@reverses("addcmul")
def addcmul(dy: Tensor, x: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Any:
    """`x + v a b`."""
    scaled = _times(dy, value)
    return {"x": fit(dy, x), "tensor1": fit(scaled * tensor2, tensor1), "tensor2": fit(scaled * tensor1, tensor2)}


@reverses("addcdiv")
def addcdiv(dy: Tensor, x: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Any:
    """`x + v a / b`."""
    scaled = _times(dy, value) / tensor2
    return {"x": fit(dy, x), "tensor1": fit(scaled, tensor1), "tensor2": fit(-scaled * (tensor1 / tensor2), tensor2)}


@reverses("lerp")
def lerp(dy: Tensor, x: Tensor, end: Tensor, weight: Any) -> Any:
    """`x + w (end - x)`."""
    inner = fit(dy * (end - x), weight) if isinstance(weight, Tensor) else None
    return {"x": fit(dy * (1 - weight), x), "end": fit(dy * weight, end), "weight": inner}


@reverses("hypot")
def hypot(dy: Tensor, y: Tensor, x: Tensor, other: Tensor) -> Any:
    """Each by its share of the length; flat at the origin."""
    flat = y == 0
    scaled = (dy / y.masked_fill(flat, 1)).masked_fill(flat, 0)
    return {"x": fit(scaled * x, x), "other": fit(scaled * other, other)}


# Functions of one number ----------------------------------------------------------------------------------------------


@reverses("exp")
def exp(dy: Tensor, y: Tensor) -> Tensor:
    """Itself."""
    return dy * y


@reverses("exp2")
def exp2(dy: Tensor, y: Tensor) -> Tensor:
    """Itself times ln 2."""
    return dy * y * math.log(2)


@reverses("expm1")
def expm1(dy: Tensor, y: Tensor) -> Tensor:
    """e^x."""
    return dy * (y + 1)


@reverses("log")
def log(dy: Tensor, x: Tensor) -> Tensor:
    """1/x."""
    return dy / x


@reverses("log2")
def log2(dy: Tensor, x: Tensor) -> Tensor:
    """1/(x ln 2)."""
    return dy / (x * math.log(2))


@reverses("log10")
def log10(dy: Tensor, x: Tensor) -> Tensor:
    """1/(x ln 10)."""
    return dy / (x * math.log(10))


@reverses("log1p")
def log1p(dy: Tensor, x: Tensor) -> Tensor:
    """1/(1+x)."""
    return dy / (x + 1)


@reverses("sqrt")
def sqrt(dy: Tensor, y: Tensor) -> Tensor:
    """1/(2√x)."""
    return dy / (y * 2)


@reverses("rsqrt")
def rsqrt(dy: Tensor, y: Tensor) -> Tensor:
    """-½ x^-³⁄₂."""
    return dy * y * y * y * -0.5


@reverses("sin")
def sin(dy: Tensor, x: Tensor) -> Tensor:
    """cos."""
    return dy * x.cos()


@reverses("cos")
def cos(dy: Tensor, x: Tensor) -> Tensor:
    """-sin."""
    return -dy * x.sin()


@reverses("tan")
def tan(dy: Tensor, y: Tensor) -> Tensor:
    """1 + tan²."""
    return dy * (y * y + 1)


@reverses("asin")
def asin(dy: Tensor, x: Tensor) -> Tensor:
    """1/√(1-x²)."""
    return dy * (1 - x * x).rsqrt()


@reverses("acos")
def acos(dy: Tensor, x: Tensor) -> Tensor:
    """-1/√(1-x²)."""
    return -dy * (1 - x * x).rsqrt()


@reverses("atan")
def atan(dy: Tensor, x: Tensor) -> Tensor:
    """1/(1+x²)."""
    return dy / (x * x + 1)


@reverses("atan2")
def atan2(dy: Tensor, x: Tensor, other: Tensor) -> Any:
    """Across and along the radius."""
    scaled = dy / (x * x + other * other)
    return {"x": fit(scaled * other, x), "other": fit(-scaled * x, other)}


@reverses("sinh")
def sinh(dy: Tensor, x: Tensor) -> Tensor:
    """cosh."""
    return dy * x.cosh()


@reverses("cosh")
def cosh(dy: Tensor, x: Tensor) -> Tensor:
    """sinh."""
    return dy * x.sinh()


@reverses("tanh")
def tanh(dy: Tensor, y: Tensor) -> Tensor:
    """1 - tanh²."""
    return dy * (1 - y * y)


@reverses("asinh")
def asinh(dy: Tensor, x: Tensor) -> Tensor:
    """1/√(x²+1)."""
    return dy * (x * x + 1).rsqrt()


@reverses("acosh")
def acosh(dy: Tensor, x: Tensor) -> Tensor:
    """1/√(x²-1)."""
    return dy * (x * x - 1).rsqrt()


@reverses("atanh")
def atanh(dy: Tensor, x: Tensor) -> Tensor:
    """1/(1-x²)."""
    return dy / (1 - x * x)


@reverses("sigmoid")
def sigmoid(dy: Tensor, y: Tensor) -> Tensor:
    """y(1-y)."""
    return dy * y * (1 - y)


@reverses("erf")
def erf(dy: Tensor, x: Tensor) -> Tensor:
    """2/√π e^-x²."""
    return dy * (-x * x).exp() * (2 / math.sqrt(math.pi))


@reverses("erfc")
def erfc(dy: Tensor, x: Tensor) -> Tensor:
    """-2/√π e^-x²."""
    return dy * (-x * x).exp() * (-2 / math.sqrt(math.pi))


@reverses("sign sgn floor ceil round trunc")
def flat(dy: Tensor) -> None:
    """Flat wherever there is a slope."""
    return


@reverses("frac")
def frac(dy: Tensor) -> Tensor:
    """1."""
    return dy


# Activations ----------------------------------------------------------------------------------------------------------


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


# Choices and copies ---------------------------------------------------------------------------------------------------


@reverses("where")
def where(dy: Tensor, x: Any, other: Any, condition: Tensor) -> Any:
    """To the one that was taken."""
    return {
        "x": fit(dy.masked_fill(~condition, 0), x) if isinstance(x, Tensor) else None,
        "other": fit(dy.masked_fill(condition, 0), other) if isinstance(other, Tensor) else None,
    }


@reverses("masked_fill")
def masked_fill(dy: Tensor, x: Tensor, mask: Tensor, value: Any) -> Any:
    """Nothing where it was filled; all that to the filling."""
    filling = dy.masked_fill(~mask, 0).sum() if isinstance(value, Tensor) else None
    return {"x": fit(dy.masked_fill(mask, 0), x), "value": filling}


@reverses("copy")
def copy(dy: Tensor, src: Tensor) -> Any:
    """All to what was copied."""
    return {"src": fit(dy, src)}


@reverses("fill")
def fill(dy: Tensor, value: Any) -> Any:
    """All to the filling."""
    return {"value": dy.sum() if isinstance(value, Tensor) else None}


@reverses("zero zeros_like ones_like full_like empty_like rand_like randn_like bernoulli detach detach_copy")
@reverses("new_zeros new_ones new_full new_empty new_empty_strided argmax argmin")
def nothing(dy: Tensor) -> None:
    """Nothing goes back."""
    return


@reverses("clone alias contiguous _to_copy to type_as lift_fresh convert_element_type alias_copy dropout_off view_as")
def same(dy: Tensor) -> Tensor:
    """As it is; another dtype is undone where the cotangent is handed out."""
    return dy
