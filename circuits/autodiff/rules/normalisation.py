"""Reverse rules of normalisations.

With x̂ = (x - mean) r, r = (var + ε)^(-1/2) and g the cotangent of x̂: dx = r (g - mean g - x̂ mean(g x̂)). Mean and
variance are recomputed in the reverse pass, so that only the input is saved for backward and derivatives of every
order are correct. The cotangent of a learned weight w is dy x̂ and that of a learned bias is dy, each summed over the
axes that the parameter lacks; with a weight, g = dy w.

Source: S. Ioffe, C. Szegedy, Batch Normalization, 2015, arXiv 1502.03167, section 3.
"""

from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import reverses


def _normalised(x: Tensor, dims: list[int], eps: Any) -> tuple[Tensor, Tensor]:
    """Return x̂ and r, with mean and variance over `dims`."""
    centred = x - x.mean(dims, keepdim=True)
    scale = (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    return centred * scale, scale


def _input_cotangent(g: Tensor, normalised: Tensor, scale: Tensor, dims: list[int]) -> Tensor:
    """Return dx = r (g - mean g - x̂ mean(g x̂)), where `scale` is r."""
    return scale * (g - g.mean(dims, keepdim=True) - normalised * (g * normalised).mean(dims, keepdim=True))


def _per_channel(vector: Tensor, x: Tensor) -> Tensor:
    """Return a vector with one number for each channel, reshaped to broadcast with `x`."""
    return vector.reshape([1, -1, *[1] * (x.ndim - 2)])


def _all_dims_but(x: Tensor, dim: int) -> list[int]:
    """Return all dimensions of `x` except one."""
    return [d for d in range(x.ndim) if d != dim]


@reverses("layer_norm")
def layer_norm(
    dy: Tensor, x: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None, eps: Any
) -> Any:
    """The cotangents of input, weight and bias; mean and variance are over the last axes."""
    dims = list(range(x.ndim - len(normalized_shape), x.ndim))
    leading = list(range(dims[0]))
    normalised, scale = _normalised(x, dims, eps)
    g = dy if weight is None else dy * weight
    return {
        "x": _input_cotangent(g, normalised, scale, dims),
        "weight": None if weight is None else _summed(dy * normalised, leading),
        "bias": None if bias is None else _summed(dy, leading),
    }


def _summed(x: Tensor, dims: list[int]) -> Tensor:
    """Return the sum over `dims`; the tensor itself if there are none."""
    return x.sum(dims) if dims else x


@reverses("native_layer_norm")
def native_layer_norm(dy: Any, x: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: Any) -> Any:
    """The cotangents of `layer_norm`; those of the other two outputs, mean and r, are ignored."""
    return layer_norm(dy[0], x, normalized_shape, weight, bias, eps)


@reverses("rms_norm")
def rms_norm(dy: Tensor, x: Tensor, normalized_shape: Any, weight: Tensor | None, eps: Any) -> Any:
    """The cotangents of input and weight, with x̂ = x r and r = (mean x² + ε)^(-1/2): dx = r (g - x̂ mean(g x̂))."""
    dims = list(range(x.ndim - len(normalized_shape), x.ndim))
    scale = (x.square().mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    normalised = x * scale
    g = dy if weight is None else dy * weight
    return {
        "x": scale * (g - normalised * (g * normalised).mean(dims, keepdim=True)),
        "weight": None if weight is None else _summed(dy * normalised, list(range(dims[0]))),
    }


@reverses("batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional")
def batch_norm(
    dy: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, eps: Any,
    running_mean: Tensor | None = None, running_var: Tensor | None = None,
) -> Any:  # fmt: skip
    """The cotangents of input, weight and bias; mean and variance are over all axes except the channels.

    Outside training, mean and variance are `running_mean` and `running_var`, which do not depend on the input: dx is
    r g, and both have cotangents.
    """
    dy = dy[0] if isinstance(dy, (tuple, list)) else dy
    dims = _all_dims_but(x, 1)
    dlearned = {"bias": None if bias is None else dy.sum(dims)}
    g = dy if weight is None else dy * _per_channel(weight, x)
    if training or running_mean is None or running_var is None:
        normalised, scale = _normalised(x, dims, eps)
        return {
            **dlearned,
            "x": _input_cotangent(g, normalised, scale, dims),
            "weight": None if weight is None else (dy * normalised).sum(dims),
        }
    reciprocal = (running_var + eps).rsqrt()
    scale = _per_channel(reciprocal, x)
    normalised = (x - _per_channel(running_mean, x)) * scale
    return {
        **dlearned,
        "x": g * scale,
        "weight": None if weight is None else (dy * normalised).sum(dims),
        "running_mean": -(g * scale).sum(dims),
        "running_var": (g * normalised).sum(dims) * reciprocal * reciprocal * -0.5,
    }


@reverses("instance_norm")
def instance_norm(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, use_input_stats: bool, eps: Any,
) -> Any:  # fmt: skip
    """The cotangents of input, weight and bias; mean and variance are over the spatial axes."""
    if not use_input_stats:
        return batch_norm(dy, x, weight, bias, False, eps, running_mean, running_var)
    dims = list(range(2, x.ndim))
    normalised, scale = _normalised(x, dims, eps)
    g = dy if weight is None else dy * _per_channel(weight, x)
    dims_of_sum = _all_dims_but(x, 1)
    return {
        "x": _input_cotangent(g, normalised, scale, dims),
        "weight": None if weight is None else (dy * normalised).sum(dims_of_sum),
        "bias": None if bias is None else dy.sum(dims_of_sum),
    }


@reverses("group_norm")
def group_norm(dy: Tensor, x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: Any) -> Any:
    """The cotangents of input, weight and bias; mean and variance are over a group's channels and the spatial axes."""
    width = x.shape[1] // num_groups
    grouped = [x.shape[0], num_groups, width, *x.shape[2:]]
    dims = list(range(2, x.ndim + 1))
    normalised, scale = _normalised(x.reshape(grouped), dims, eps)
    g = (dy if weight is None else dy * _per_channel(weight, x)).reshape(grouped)
    dims_of_sum = _all_dims_but(x, 1)
    return {
        "x": _input_cotangent(g, normalised, scale, dims).reshape(x.shape),
        "weight": None if weight is None else (dy * normalised.reshape(x.shape)).sum(dims_of_sum),
        "bias": None if bias is None else dy.sum(dims_of_sum),
    }


@reverses("native_group_norm")
def native_group_norm(dy: Any, x: Tensor, weight: Any, bias: Any, group: int, eps: Any) -> Any:
    """The cotangents of `group_norm`; those of the other two outputs, mean and r, are ignored."""
    return group_norm(dy[0], x, group, weight, bias, eps)
