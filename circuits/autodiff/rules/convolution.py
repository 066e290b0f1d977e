"""Convolutions back: by the image the transposed convolution, by the weight a correlation of image and cotangent.

Both belong to one bilinear map of image, weight and cotangent, so the reverses of the reverses are convolutions again.

Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv 1603.07285.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.rules.registry import per_axis, reverses


@dataclass(frozen=True)
class Way:
    """How a kernel moves over an image; `extra` is what the sizes of a transposed convolution gain at the end."""

    stride: list[int]
    padding: list[Any]
    dilation: list[int]
    transposed: bool
    extra: list[Any]
    groups: int

    @property
    def settings(self) -> tuple[Any, ...]:
        """As torch takes them."""
        return self.stride, self.padding, self.dilation, self.transposed, self.extra, self.groups

    def over(self, image: Tensor, weight: Tensor) -> Tensor:
        """The convolution."""
        return torch.convolution(image, weight, None, *self.settings)

    def back(self, dy: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """The cotangent of the image: the other convolution, of the image's size."""
        if self.transposed:
            found = replace(self, transposed=False, extra=[0] * len(self.stride)).over(dy, weight)
            for dim in range(2, like.ndim):
                if isinstance(found.shape[dim], int) and found.shape[dim] != like.shape[dim]:
                    found = found.narrow(dim, 0, like.shape[dim])
            return found
        sizes = zip(
            like.shape[2:], dy.shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
        )
        extra = [image - ((out - 1) * s - 2 * p + d * (k - 1) + 1) for image, out, k, s, p, d in sizes]
        return replace(self, transposed=True, extra=extra).over(dy, weight)

    def weigh(self, dy: Tensor, image: Tensor, weight: Tensor) -> Tensor:
        """The cotangent of the weight, of which only the shape is read."""
        empty = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
        return torch.ops.aten.convolution_backward(dy, image, empty, None, *self.settings, [False, True, False])[1]


def _reversed(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, way: Way) -> dict[str, Any]:
    single = x.ndim == weight.ndim - 1
    if single:
        dy, x = dy.unsqueeze(0), x.unsqueeze(0)
    image, kernel = way.back(dy, weight, x), way.weigh(dy, x, weight)
    summed = None if bias is None else dy.sum([0, *range(2, dy.ndim)])
    return {"x": image.squeeze(0) if single else image, "weight": kernel, "bias": summed}


@reverses("conv1d conv2d conv3d")
def convolved(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """A convolution; padding may be told by a word."""
    space = weight.ndim - 2
    steps, gaps, none = per_axis(stride, space), per_axis(dilation, space), [0] * space
    if not isinstance(padding, str):
        return _reversed(dy, x, weight, bias, Way(steps, per_axis(padding, space), gaps, False, none, groups))
    total = [gap * (size - 1) if padding == "same" else 0 for gap, size in zip(gaps, weight.shape[2:], strict=True)]
    odd = [each % 2 for each in total]
    wide = F.pad(x, [side for each in reversed(odd) for side in (0, each)]) if any(odd) else x
    found = _reversed(dy, wide, weight, bias, Way(steps, [each // 2 for each in total], gaps, False, none, groups))
    for where, each in enumerate(odd):
        dim = where - space
        found["x"] = found["x"].narrow(dim, 0, x.shape[dim]) if each else found["x"]
    return found


@reverses("conv_transpose1d conv_transpose2d conv_transpose3d")
def transposed(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Any:  # fmt: skip
    """A transposed convolution."""
    return convolution(dy, x, weight, bias, stride, padding, dilation, True, output_padding, groups)


@reverses("convolution _convolution")
def convolution(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    """Either, of any number of axes."""
    way = _way(weight, stride, padding, dilation, transposed, output_padding, groups)
    return _reversed(dy, x, weight, bias, way)


@reverses("convolution_backward")
def weighed(
    dy: Any, x: Tensor, grad_output: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    """The weight's cotangent again: `dy` stands where the weight stood."""
    way = _way(weight, stride, padding, dilation, transposed, output_padding, groups)
    return {"grad_output": way.over(x, dy[1]), "x": way.back(grad_output, dy[1], x)}


def _way(
    weight: Tensor, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int
) -> Way:  # fmt: skip
    space = weight.ndim - 2
    steps, margin, gaps, more = [per_axis(each, space) for each in (stride, padding, dilation, extra)]
    return Way(steps, margin, gaps, transposed, more, groups)
