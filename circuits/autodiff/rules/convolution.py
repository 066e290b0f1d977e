"""Reverse rules of convolutions and transposed convolutions.

The cotangent of the image is the transposed convolution of `dy` with the weight (the convolution, if the forward pass
was transposed); that of the weight is a correlation of image and `dy`. Both belong to one trilinear form of image,
weight and cotangent, so that derivatives of any order are convolutions again.

Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv 1603.07285.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.rules.registry import per_axis, reverses


@dataclass(frozen=True)
class Options:
    """The options of `torch.convolution`, as lists with one number for each spatial axis."""

    stride: list[int]
    padding: list[Any]
    dilation: list[int]
    transposed: bool
    output_padding: list[Any]
    groups: int

    @property
    def settings(self) -> tuple[Any, ...]:
        """The options in the order of the arguments of `torch.convolution`."""
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups

    def convolve(self, image: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution of an image with a weight, without bias."""
        return torch.convolution(image, weight, None, *self.settings)

    def image_cotangent(self, dy: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return the cotangent of the image, with the spatial sizes of `like`.

        It is the transposed convolution of `dy`, or the convolution if `transposed` is True.
        """
        if self.transposed:
            found = replace(self, transposed=False, output_padding=[0] * len(self.stride)).convolve(dy, weight)
            for dim in range(2, like.ndim):
                if isinstance(found.shape[dim], int) and found.shape[dim] != like.shape[dim]:
                    found = found.narrow(dim, 0, like.shape[dim])
            return found
        sizes = zip(
            like.shape[2:], dy.shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
        )
        output_padding = [image - ((out - 1) * s - 2 * p + d * (k - 1) + 1) for image, out, k, s, p, d in sizes]
        return replace(self, transposed=True, output_padding=output_padding).convolve(dy, weight)

    def weight_cotangent(self, dy: Tensor, image: Tensor, weight: Tensor) -> Tensor:
        """Return the cotangent of the weight; only the shape of `weight` is read."""
        empty = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
        return torch.ops.aten.convolution_backward(dy, image, empty, None, *self.settings, [False, True, False])[1]


def _cotangents(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, options: Options) -> dict[str, Any]:
    """Return the cotangents of image, weight and bias; the image may lack the batch axis."""
    single = x.ndim == weight.ndim - 1
    if single:
        dy, x = dy.unsqueeze(0), x.unsqueeze(0)
    dimage, dweight = options.image_cotangent(dy, weight, x), options.weight_cotangent(dy, x, weight)
    dbias = None if bias is None else dy.sum([0, *range(2, dy.ndim)])
    return {"x": dimage.squeeze(0) if single else dimage, "weight": dweight, "bias": dbias}


@reverses("conv1d conv2d conv3d")
def conv(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """The cotangents of image, weight and bias of a convolution; `padding` may be "same" or "valid".

    If the total padding of an axis is odd, it is one element longer at the end: the image is first padded there by one.
    """
    space = weight.ndim - 2
    strides, dilations, none = per_axis(stride, space), per_axis(dilation, space), [0] * space
    if not isinstance(padding, str):
        return _cotangents(
            dy, x, weight, bias, Options(strides, per_axis(padding, space), dilations, False, none, groups)
        )
    total = [d * (size - 1) if padding == "same" else 0 for d, size in zip(dilations, weight.shape[2:], strict=True)]
    uneven = [each % 2 for each in total]
    padded = F.pad(x, [side for each in reversed(uneven) for side in (0, each)]) if any(uneven) else x
    found = _cotangents(
        dy, padded, weight, bias, Options(strides, [each // 2 for each in total], dilations, False, none, groups)
    )
    for where, each in enumerate(uneven):
        dim = where - space
        found["x"] = found["x"].narrow(dim, 0, x.shape[dim]) if each else found["x"]
    return found


@reverses("conv_transpose1d conv_transpose2d conv_transpose3d")
def conv_transpose(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Any:  # fmt: skip
    """The cotangents of image, weight and bias of a transposed convolution."""
    return convolution(dy, x, weight, bias, stride, padding, dilation, True, output_padding, groups)


@reverses("convolution _convolution")
def convolution(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    """The cotangents of image, weight and bias of a convolution or transposed convolution over any number of axes."""
    options = _options(weight, stride, padding, dilation, transposed, output_padding, groups)
    return _cotangents(dy, x, weight, bias, options)


@reverses("convolution_backward")
def convolution_backward(
    dy: Any, x: Tensor, grad_output: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    """The cotangents of `grad_output` and of the image, for second derivatives.

    The operation's second output, the cotangent of the weight, is linear in both; their cotangents are convolutions in
    which `dy[1]` takes the place of the weight.
    """
    options = _options(weight, stride, padding, dilation, transposed, output_padding, groups)
    return {"grad_output": options.convolve(x, dy[1]), "x": options.image_cotangent(grad_output, dy[1], x)}


def _options(
    weight: Tensor, stride: Any, padding: Any, dilation: Any, transposed: bool, output_padding: Any, groups: int
) -> Options:  # fmt: skip
    """Return the options, with a single number repeated for each spatial axis."""
    space = weight.ndim - 2
    strides, margins, dilations, extra = [per_axis(each, space) for each in (stride, padding, dilation, output_padding)]
    return Options(strides, margins, dilations, transposed, extra, groups)
