"""Reverse rules of pointwise operations of two or more tensors, of selections and of copies.

A cotangent is `dy` times the partial derivative, summed over the axes along which the tensor was broadcast. Functions
of one tensor are in `elementary` and `activations`.
"""

from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import reverses, times, unbroadcast

# Arithmetic -----------------------------------------------------------------------------------------------------------


@reverses("add")
def add(dy: Tensor, x: Tensor, other: Any, alpha: Any) -> Any:
    """y = x + α other: dx = dy, dother = α dy."""
    return {"x": unbroadcast(dy, x), "other": unbroadcast(times(dy, alpha), other)}


@reverses("sub")
def sub(dy: Tensor, x: Tensor, other: Any, alpha: Any) -> Any:
    """y = x - α other: dx = dy, dother = -α dy."""
    dother = unbroadcast(-times(dy, alpha), other) if isinstance(other, Tensor) else None
    return {"x": unbroadcast(dy, x), "other": dother}


@reverses("rsub")
def rsub(dy: Tensor, x: Tensor, other: Any, alpha: Any) -> Any:
    """y = other - α x: dx = -α dy, dother = dy."""
    return {"x": unbroadcast(-times(dy, alpha), x), "other": unbroadcast(dy, other)}


@reverses("mul")
def mul(dy: Tensor, x: Tensor, other: Any) -> Any:
    """y = x other: dx = dy other, dother = dy x."""
    dother = unbroadcast(dy * x, other) if isinstance(other, Tensor) else None
    return {"x": unbroadcast(dy * other, x), "other": dother}


@reverses("div")
def div(dy: Tensor, y: Tensor, x: Tensor, other: Any, rounding_mode: Any = None) -> Any:
    """y = x / other: dx = dy / other, dother = -dy x / other²; no cotangents if the quotient is rounded."""
    if rounding_mode is not None:
        return None
    scaled = dy / other
    dother = unbroadcast(-scaled * (x / other), other) if isinstance(other, Tensor) else None
    return {"x": unbroadcast(scaled, x), "other": dother}


@reverses("fmod")
def fmod(dy: Tensor, x: Tensor, other: Any) -> Any:
    """y = x - other trunc(x / other): dx = dy, dother = -dy trunc(x / other)."""
    dother = unbroadcast(-dy * (x / other).trunc(), other) if isinstance(other, Tensor) else None
    return {"x": unbroadcast(dy, x), "other": dother}


@reverses("remainder")
def remainder(dy: Tensor, x: Tensor, other: Any) -> Any:
    """y = x - other floor(x / other): dx = dy, dother = -dy floor(x / other)."""
    dother = unbroadcast(-dy * (x / other).floor(), other) if isinstance(other, Tensor) else None
    return {"x": unbroadcast(dy, x), "other": dother}


@reverses("pow")
def pow(dy: Tensor, y: Tensor, x: Any, exponent: Any) -> Any:
    """y = x^p: dx = dy p x^(p-1), 0 where p = 0; dp = dy y ln x, 0 where x = 0 and p ≥ 0."""
    found: dict[str, Any] = {}
    if isinstance(x, Tensor):
        if isinstance(exponent, Tensor):
            slope = torch.where(exponent == 0, 0.0, exponent * x.pow(exponent - 1))
        else:
            slope = exponent * x.pow(exponent - 1) if exponent != 0 else x * 0
        found["x"] = unbroadcast(dy * slope, x)
    if isinstance(exponent, Tensor):
        base = x if isinstance(x, Tensor) else exponent.new_full((), float(x))
        at_zero = (base == 0) & (exponent >= 0)
        found["exponent"] = unbroadcast(
            dy * torch.where(at_zero, 0.0, y * torch.where(at_zero, 1.0, base).log()), exponent
        )
    return found


@reverses("addcmul")
def addcmul(dy: Tensor, x: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Any:
    """y = x + v a b for `tensor1` a and `tensor2` b: dx = dy, da = v dy b, db = v dy a."""
    scaled = times(dy, value)
    dtensor1, dtensor2 = unbroadcast(scaled * tensor2, tensor1), unbroadcast(scaled * tensor1, tensor2)
    return {"x": unbroadcast(dy, x), "tensor1": dtensor1, "tensor2": dtensor2}


@reverses("addcdiv")
def addcdiv(dy: Tensor, x: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Any:
    """y = x + v a / b for `tensor1` a and `tensor2` b: dx = dy, da = v dy / b, db = -v dy a / b²."""
    scaled = times(dy, value) / tensor2
    dtensor1, dtensor2 = unbroadcast(scaled, tensor1), unbroadcast(-scaled * (tensor1 / tensor2), tensor2)
    return {"x": unbroadcast(dy, x), "tensor1": dtensor1, "tensor2": dtensor2}


@reverses("lerp")
def lerp(dy: Tensor, x: Tensor, end: Tensor, weight: Any) -> Any:
    """y = x + w (end - x): dx = dy (1 - w), dend = dy w, dw = dy (end - x)."""
    dweight = unbroadcast(dy * (end - x), weight) if isinstance(weight, Tensor) else None
    return {"x": unbroadcast(dy * (1 - weight), x), "end": unbroadcast(dy * weight, end), "weight": dweight}


@reverses("xlogy")
def xlogy(dy: Tensor, x: Any, other: Any) -> Any:
    """y = x ln other, 0 where x = 0: dx = dy ln other, 0 where x = 0 and other = 0; dother = dy x / other."""
    found: dict[str, Any] = {}
    if isinstance(x, Tensor):
        found["x"] = unbroadcast(dy * torch.xlogy((x != 0).to(dy.dtype), other), x)
    if isinstance(other, Tensor):
        found["other"] = unbroadcast(dy * (x / other), other)
    return found


@reverses("hypot")
def hypot(dy: Tensor, y: Tensor, x: Tensor, other: Tensor) -> Any:
    """y = √(x² + other²): dx = dy x / y, dother = dy other / y; both are 0 where y = 0."""
    at_zero = y == 0
    scaled = (dy / y.masked_fill(at_zero, 1)).masked_fill(at_zero, 0)
    return {"x": unbroadcast(scaled * x, x), "other": unbroadcast(scaled * other, other)}


@reverses("atan2")
def atan2(dy: Tensor, x: Tensor, other: Tensor) -> Any:
    """y = atan2(x, other): dx = dy other / (x² + other²), dother = -dy x / (x² + other²); both are 0 at (0, 0)."""
    at_zero = (x == 0) & (other == 0)
    scaled = (dy / (x * x + other * other).masked_fill(at_zero, 1)).masked_fill(at_zero, 0)
    return {"x": unbroadcast(scaled * other, x), "other": unbroadcast(-scaled * x, other)}


# Selection and copies -------------------------------------------------------------------------------------------------


@reverses("where")
def where(dy: Tensor, x: Any, other: Any, condition: Tensor) -> Any:
    """dx = dy where the condition is True, 0 elsewhere; dother = dy where it is False, 0 elsewhere."""
    return {
        "x": unbroadcast(dy.masked_fill(~condition, 0), x) if isinstance(x, Tensor) else None,
        "other": unbroadcast(dy.masked_fill(condition, 0), other) if isinstance(other, Tensor) else None,
    }


@reverses("masked_fill")
def masked_fill(dy: Tensor, x: Tensor, mask: Tensor, value: Any) -> Any:
    """dx = dy where the mask is False, 0 elsewhere; dvalue, for a tensor, is the sum of dy where the mask is True."""
    filling = dy.masked_fill(~mask, 0).sum() if isinstance(value, Tensor) else None
    return {"x": unbroadcast(dy.masked_fill(mask, 0), x), "value": filling}


@reverses("copy")
def copy(dy: Tensor, src: Tensor) -> Any:
    """The cotangent of `src` is `dy`, its real part if `src` is real; the tensor that is overwritten has none."""
    return {"src": unbroadcast(dy.real if dy.dtype.is_complex and not src.dtype.is_complex else dy, src)}


@reverses("fill")
def fill(dy: Tensor, value: Any) -> Any:
    """dvalue, for a tensor, is the sum of dy; the tensor that is overwritten has no cotangent."""
    return {"value": dy.sum() if isinstance(value, Tensor) else None}


@reverses("zero zeros_like ones_like full_like empty_like rand_like randn_like bernoulli detach detach_copy")
@reverses("new_zeros new_ones new_full new_empty new_empty_strided argmax argmin")
def no_gradient(dy: Tensor) -> None:
    """No input has a cotangent: gradients do not flow through these operations."""
    return


@reverses("clone alias contiguous _to_copy to type_as lift_fresh alias_copy")
def identity(dy: Tensor) -> Tensor:
    """dx = dy; the reverse pass converts it to the dtype of x."""
    return dy
