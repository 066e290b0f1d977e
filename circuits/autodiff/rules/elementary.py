"""Reverse rules of elementary functions of one tensor: `dx`, the cotangent of `x`, is `dy` times the derivative.

A rule reads the output `y` instead of the input `x` where the derivative is simpler in `y`.
"""

import math

from torch import Tensor

from circuits.autodiff.rules.registry import reverses


@reverses("reciprocal")
def reciprocal(dy: Tensor, y: Tensor) -> Tensor:
    """y = 1 / x: dx = -dy / x² = -dy y²."""
    return -dy * y * y


@reverses("neg negative")
def neg(dy: Tensor) -> Tensor:
    """dx = -dy."""
    return -dy


@reverses("square")
def square(dy: Tensor, x: Tensor) -> Tensor:
    """dx = 2 dy x."""
    return dy * x * 2


@reverses("exp")
def exp(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy eˣ = dy y."""
    return dy * y


@reverses("exp2")
def exp2(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy 2ˣ ln 2 = dy y ln 2."""
    return dy * y * math.log(2)


@reverses("expm1")
def expm1(dy: Tensor, y: Tensor) -> Tensor:
    """y = eˣ - 1: dx = dy eˣ = dy (y + 1)."""
    return dy * (y + 1)


@reverses("log")
def log(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / x."""
    return dy / x


@reverses("log2")
def log2(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / (x ln 2)."""
    return dy / (x * math.log(2))


@reverses("log10")
def log10(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / (x ln 10)."""
    return dy / (x * math.log(10))


@reverses("log1p")
def log1p(dy: Tensor, x: Tensor) -> Tensor:
    """y = ln(1 + x): dx = dy / (1 + x)."""
    return dy / (x + 1)


@reverses("sqrt")
def sqrt(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy / (2 √x) = dy / (2 y)."""
    return dy / (y * 2)


@reverses("rsqrt")
def rsqrt(dy: Tensor, y: Tensor) -> Tensor:
    """y = x^(-1/2): dx = -dy x^(-3/2) / 2 = -dy y³ / 2."""
    return dy * y * y * y * -0.5


@reverses("sin")
def sin(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy cos x."""
    return dy * x.cos()


@reverses("cos")
def cos(dy: Tensor, x: Tensor) -> Tensor:
    """dx = -dy sin x."""
    return -dy * x.sin()


@reverses("tan")
def tan(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy (1 + tan² x) = dy (1 + y²)."""
    return dy * (y * y + 1)


@reverses("asin")
def asin(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / √(1 - x²)."""
    return dy * (1 - x * x).rsqrt()


@reverses("acos")
def acos(dy: Tensor, x: Tensor) -> Tensor:
    """dx = -dy / √(1 - x²)."""
    return -dy * (1 - x * x).rsqrt()


@reverses("atan")
def atan(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / (1 + x²)."""
    return dy / (x * x + 1)


@reverses("sinh")
def sinh(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy cosh x."""
    return dy * x.cosh()


@reverses("cosh")
def cosh(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy sinh x."""
    return dy * x.sinh()


@reverses("tanh")
def tanh(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy (1 - tanh² x) = dy (1 - y²)."""
    return dy * (1 - y * y)


@reverses("asinh")
def asinh(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / √(x² + 1)."""
    return dy * (x * x + 1).rsqrt()


@reverses("acosh")
def acosh(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / √(x² - 1)."""
    return dy * (x * x - 1).rsqrt()


@reverses("atanh")
def atanh(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy / (1 - x²)."""
    return dy / (1 - x * x)


@reverses("sigmoid")
def sigmoid(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy σ(x) (1 - σ(x)) = dy y (1 - y)."""
    return dy * y * (1 - y)


@reverses("erf")
def erf(dy: Tensor, x: Tensor) -> Tensor:
    """dx = dy 2/√π exp(-x²)."""
    return dy * (-x * x).exp() * (2 / math.sqrt(math.pi))


@reverses("erfc")
def erfc(dy: Tensor, x: Tensor) -> Tensor:
    """dx = -dy 2/√π exp(-x²)."""
    return dy * (-x * x).exp() * (-2 / math.sqrt(math.pi))


@reverses("sinc")
def sinc(dy: Tensor, x: Tensor) -> Tensor:
    """y = sin(πx) / (πx): dx = dy (cos(πx) - y) / x; near 0, -dy x π² / 3, which has the right derivative too."""
    at_zero = x == 0
    angle = x.masked_fill(at_zero, 1) * math.pi
    slope = (angle.cos() - angle.sin() / angle) / angle * math.pi
    return dy * slope.where(~at_zero, x * (-math.pi * math.pi / 3))


@reverses("special_entr")
def entr(dy: Tensor, x: Tensor) -> Tensor:
    """y = -x ln x: dx = -dy (1 + ln x)."""
    return -dy * (x.log() + 1)


@reverses("sign sgn floor ceil round trunc")
def zero_derivative(dy: Tensor) -> None:
    """The derivative is 0 wherever it exists, so that `x` has no cotangent."""
    return


@reverses("frac")
def frac(dy: Tensor) -> Tensor:
    """dx = dy."""
    return dy
