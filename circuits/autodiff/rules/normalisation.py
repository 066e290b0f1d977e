"""Normalisations back: what goes back is freed of its mean and of its part along what was normalised.

With x̂ = (x - mean) r and r = (var + ε)^-½, and g the cotangent of x̂: dx = r (g - mean g - x̂ mean(g x̂)). Mean and
variance are computed again, so nothing but the input is saved, and derivatives of every order are right.

Source: S. Ioffe, C. Szegedy, Batch Normalization, 2015, arXiv 1502.03167, section 3.
"""

from typing import Any

import torch
from torch import Tensor

from circuits.autodiff.rules.registry import reverses


def _scaled(x: Tensor, dims: list[int], eps: Any) -> tuple[Tensor, Tensor]:
    """x̂ and r."""
    off = x - x.mean(dims, keepdim=True)
    scale = (off.square().mean(dims, keepdim=True) + eps).rsqrt()
    return off * scale, scale


def _freed(g: Tensor, normal: Tensor, scale: Tensor, dims: list[int]) -> Tensor:
    return scale * (g - g.mean(dims, keepdim=True) - normal * (g * normal).mean(dims, keepdim=True))


def _channels(vector: Tensor, x: Tensor) -> Tensor:
    """A number for each channel, beside an image."""
    return vector.reshape([1, -1, *[1] * (x.ndim - 2)])


def _over_all_but(x: Tensor, dim: int) -> list[int]:
    return [d for d in range(x.ndim) if d != dim]


@reverses("layer_norm")
def layer_norm(
    dy: Tensor, x: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None, eps: Any
) -> Any:
    """Over the last axes."""
    dims = list(range(x.ndim - len(normalized_shape), x.ndim))
    lead = list(range(dims[0]))
    normal, scale = _scaled(x, dims, eps)
    g = dy if weight is None else dy * weight
    return {
        "x": _freed(g, normal, scale, dims),
        "weight": None if weight is None else _summed(dy * normal, lead),
        "bias": None if bias is None else _summed(dy, lead),
    }


def _summed(x: Tensor, dims: list[int]) -> Tensor:
    return x.sum(dims) if dims else x


@reverses("native_layer_norm")
def native_layer_norm(dy: Any, x: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: Any) -> Any:
    """The same, where mean and scale are handed on that nobody reads."""
    return layer_norm(dy[0], x, normalized_shape, weight, bias, eps)


@reverses("rms_norm")
def rms_norm(dy: Tensor, x: Tensor, normalized_shape: Any, weight: Tensor | None, eps: Any) -> Any:
    """Over the last axes, the mean left where it is."""
    dims = list(range(x.ndim - len(normalized_shape), x.ndim))
    scale = (x.square().mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    normal = x * scale
    g = dy if weight is None else dy * weight
    return {
        "x": scale * (g - normal * (g * normal).mean(dims, keepdim=True)),
        "weight": None if weight is None else _summed(dy * normal, list(range(dims[0]))),
    }


@reverses("batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional")
def batch_norm(
    dy: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, eps: Any,
    running_mean: Tensor | None = None, running_var: Tensor | None = None,
) -> Any:  # fmt: skip
    """Over all but the channels; by what is remembered, where it is not training."""
    dy = dy[0] if isinstance(dy, (tuple, list)) else dy
    dims = _over_all_but(x, 1)
    learned = {"bias": None if bias is None else dy.sum(dims)}
    g = dy if weight is None else dy * _channels(weight, x)
    if training or running_mean is None or running_var is None:
        normal, scale = _scaled(x, dims, eps)
        return {
            **learned,
            "x": _freed(g, normal, scale, dims),
            "weight": None if weight is None else (dy * normal).sum(dims),
        }
    root = (running_var + eps).rsqrt()
    scale = _channels(root, x)
    normal = (x - _channels(running_mean, x)) * scale
    return {
        **learned,
        "x": g * scale,
        "weight": None if weight is None else (dy * normal).sum(dims),
        "running_mean": -(g * scale).sum(dims),
        "running_var": (g * normal).sum(dims) * root * root * -0.5,
    }


@reverses("instance_norm")
def instance_norm(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, use_input_stats: bool, eps: Any,
) -> Any:  # fmt: skip
    """Over the space of each channel of each image."""
    if not use_input_stats:
        return batch_norm(dy, x, weight, bias, False, eps, running_mean, running_var)
    dims = list(range(2, x.ndim))
    normal, scale = _scaled(x, dims, eps)
    g = dy if weight is None else dy * _channels(weight, x)
    over = _over_all_but(x, 1)
    return {
        "x": _freed(g, normal, scale, dims),
        "weight": None if weight is None else (dy * normal).sum(over),
        "bias": None if bias is None else dy.sum(over),
    }


@reverses("group_norm")
def group_norm(dy: Tensor, x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: Any) -> Any:
    """Over the channels of each group and space."""
    each = x.shape[1] // num_groups
    apart = [x.shape[0], num_groups, each, *x.shape[2:]]
    dims = list(range(2, x.ndim + 1))
    normal, scale = _scaled(x.reshape(apart), dims, eps)
    g = (dy if weight is None else dy * _channels(weight, x)).reshape(apart)
    over = _over_all_but(x, 1)
    return {
        "x": _freed(g, normal, scale, dims).reshape(x.shape),
        "weight": None if weight is None else (dy * normal.reshape(x.shape)).sum(over),
        "bias": None if bias is None else dy.sum(over),
    }


@reverses("native_group_norm")
def native_group_norm(dy: Any, x: Tensor, weight: Any, bias: Any, group: int, eps: Any) -> Any:
    """The same, where mean and scale are handed on that nobody reads."""
    return group_norm(dy[0], x, group, weight, bias, eps)
