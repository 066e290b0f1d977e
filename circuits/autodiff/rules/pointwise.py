"""What treats every number alike, back: the cotangent times the slope, summed along axes that were stretched."""

import math
from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import fit, reverses

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


@reverses("clone alias contiguous _to_copy to type_as lift_fresh alias_copy")
def same(dy: Tensor) -> Tensor:
    """As it is; another dtype is undone where the cotangent is handed out."""
    return dy
