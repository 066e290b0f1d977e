"""Convolutions over any number of spatial axes, as circuits: plain, in groups, transposed.

The definition unfolds the image into windows and contracts them with the weight; the transposed convolution does the
same in reverse order (see `convolution_kinds`). Over one, two or three spatial axes the kernels are torch's own
operators; over more axes the definition runs. As in torch, the weight is not flipped, which signal processing calls a
correlation. The modules that hold a weight are in `models.convolution`.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3; Dumoulin and Visin 2016, A guide to convolution
arithmetic for deep learning.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import circuit, einsum, fold, rearrange, unfold

from .convolution_kinds import Kind, Options
from .space import Number, Padding, pad_argument, per_channel, transposed_pad, with_one_batch_axis, within

_TORCH: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TORCH_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}

Function = Callable[[Tensor, Tensor, Tensor | None, Options], Tensor]
"""A convolution of image, weight and bias, with its keyword arguments as one object."""


def _definition(kind: Kind) -> Function:
    """Return the definition of a kind: its steps in order, then the sum with the bias.

    A transposed convolution in float16 is computed in float32: the windows of one pixel may overflow though their sum
    does not, and torch's operator, which is its kernel, adds them in float32 on some processors.
    """
    n, steps = kind.n, kind.steps

    def define(image: Tensor, weight: Tensor, bias: Tensor | None, options: Options) -> Tensor:
        windows = kind.windows(weight, options)
        sizes = kind.output_sizes(image, windows, options)
        wide = kind.transposed and image.dtype == weight.dtype == torch.float16
        image, weight = (image.float(), weight.float()) if wide else (image, weight)
        for operation, pattern in steps:
            if operation is einsum:
                image = einsum(image, weight, pattern)
            elif operation is rearrange:
                image = rearrange(image, pattern, g=weight.shape[0])
            elif operation is unfold:
                image = unfold(image, pattern, *windows)
            else:
                image = fold(image, pattern, *windows, **sizes)
        image = image.half() if wide else image
        return image if bias is None else image + per_channel(bias, n)

    return define


def _kernel(kind: Kind) -> Function:
    """Return the kernel of a kind: torch's operator, whose weight has its groups and channels flattened into one axis.

    If torch raises RuntimeError because of an option or a size, the kernel raises the error of the definition.
    """
    run = _run_torch_transposed if kind.transposed else _run_torch

    def kernel(image: Tensor, weight: Tensor, bias: Tensor | None, options: Options) -> Tensor:
        groups = weight.shape[0] if kind.grouped else 1
        if kind.transposed and not within(options.output_padding, options.stride):
            kind.refuse_invalid(image, weight, options)
        try:
            return run(kind.n, image, weight.flatten(0, 1) if kind.grouped else weight, bias, options, groups)
        except RuntimeError:
            kind.refuse_invalid(image, weight, options)
            raise

    return kernel


def _run_torch(n: int, image: Tensor, weight: Tensor, bias: Tensor | None, options: Options, groups: int) -> Tensor:
    """Call F.conv1d, F.conv2d or F.conv3d; padding that it does not support is applied to the image first."""
    padding: Any = options.padding
    if not options.torch_can_pad:
        mode = "constant" if options.mode == "zeros" else options.mode
        image, padding = with_one_batch_axis(n + 1, F.pad, image, pad_argument(n, padding), mode), 0
    return with_one_batch_axis(n + 1, _TORCH[n], image, weight, bias, options.stride, padding, options.dilation, groups)


def _run_torch_transposed(
    n: int, image: Tensor, weight: Tensor, bias: Tensor | None, options: Options, groups: int
) -> Tensor:
    """Call F.conv_transpose1d, 2d or 3d; the transpose of padding that it does not support is applied afterwards."""
    rest = options.output_padding, groups, options.dilation
    if options.torch_can_pad:
        return with_one_batch_axis(
            n + 1, _TORCH_TRANSPOSED[n], image, weight, bias, options.stride, options.padding, *rest
        )
    padded = with_one_batch_axis(n + 1, _TORCH_TRANSPOSED[n], image, weight, None, options.stride, 0, *rest)
    output = transposed_pad(n, padded, options.padding, options.mode)
    return output if bias is None else output + per_channel(bias, n)


def _by_keyword(function: Function) -> Callable[..., Tensor]:
    """Return a convolution that takes its options as keyword arguments."""

    def convolution(
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Number = 1,
        padding: Padding = 0,
        dilation: Number = 1,
        mode: Any = "zeros",
    ) -> Tensor:
        """Return the convolution of an image with a weight, as F.conv2d does; see `convolution_over`."""
        return function(image, weight, bias, Options(stride, padding, dilation, mode))

    return convolution


def _transposed_by_keyword(function: Function) -> Callable[..., Tensor]:
    """Return a transposed convolution that takes its options as keyword arguments."""

    def convolution(
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Number = 1,
        padding: Padding = 0,
        output_padding: Number = 0,
        dilation: Number = 1,
        mode: Any = "zeros",
    ) -> Tensor:
        """Return the transposed convolution of an image with a weight; see `transposed_convolution_over`."""
        return function(image, weight, bias, Options(stride, padding, dilation, mode, output_padding))

    return convolution


@cache
def _circuit(kind: Kind) -> Callable[..., Tensor]:
    """Return the circuit of a kind, named so that pickle finds it in this module; see `__getattr__`."""
    by_keyword = _transposed_by_keyword if kind.transposed else _by_keyword
    define = by_keyword(_definition(kind))
    define.__name__ = define.__qualname__ = kind.name
    made: Any = circuit(kind.signature, optional={"bias": kind.bias})(define)
    if kind.n in _TORCH:
        made.kernel(by_keyword(_kernel(kind)))
    return made


def convolution_over(n: int) -> Callable[..., Tensor]:
    """Return the circuit for convolution over n spatial axes: for two, `... c h w, k c i j -> ... k h' w'`.

    The circuit is called as `convolve(image, weight, bias=None, *, stride=1, padding=0, dilation=1, mode="zeros")`. The
    options are those of F.conv2d; the padding of an axis may also be a pair (before, after), and `mode` is nn.Conv2d's
    `padding_mode`.

    Args:
        n: The number of spatial axes, at least 1. From 4 on the definition runs, since torch has no operator.

    Returns:
        The circuit. It raises ShapeError if axes disagree or the image is smaller than a window, and CircuitError if an
        option is out of range, or is a sequence with another length than the number of spatial axes.

    >>> import torch
    >>> convolve = convolution_over(2)
    >>> convolve(torch.rand(5, 3, 8, 9), torch.rand(16, 3, 3, 3), stride=(1, 2), padding=1).shape
    torch.Size([5, 16, 8, 5])
    """
    return _circuit(Kind(n, grouped=False, transposed=False))


def grouped_convolution_over(n: int) -> Callable[..., Tensor]:
    """Return the circuit for convolution in groups: for two axes, `... (g c) h w, g k c i j -> ... (g k) h' w'`.

    Each of g groups of channels is convolved with its own weight. Arguments and exceptions are those of
    `convolution_over`.

    >>> import torch
    >>> grouped_convolution_over(1)(torch.rand(6, 9), torch.rand(3, 4, 2, 5)).shape
    torch.Size([12, 5])
    """
    return _circuit(Kind(n, grouped=True, transposed=False))


def transposed_convolution_over(n: int) -> Callable[..., Tensor]:
    """Return the circuit for transposed convolution over n axes: for two, `... k h' w', k c i j -> ... c h w`.

    The weight and the options are those of the convolution of which this is the transpose. Each output axis has the
    smallest size at which that convolution would return the size of the image, plus `output_padding` (default 0), which
    must be less than the stride; `Window.output_padding` returns the value for a given size. Arguments and exceptions
    are otherwise those of `convolution_over`.

    >>> import torch
    >>> convolve_back = transposed_convolution_over(2)
    >>> convolve_back(torch.rand(5, 16, 8, 5), torch.rand(16, 3, 3, 3), stride=(1, 2), padding=1).shape
    torch.Size([5, 3, 8, 9])
    """
    return _circuit(Kind(n, grouped=False, transposed=True))


def grouped_transposed_convolution_over(n: int) -> Callable[..., Tensor]:
    """Return the circuit for transposed convolution in groups: for two, `... (g k) h' w', g k c i j -> ... (g c) h w`.

    Each of g groups of channels has its own weight. Arguments and exceptions are those of
    `transposed_convolution_over`.

    >>> import torch
    >>> grouped_transposed_convolution_over(1)(torch.rand(12, 5), torch.rand(3, 4, 2, 5)).shape
    torch.Size([6, 9])
    """
    return _circuit(Kind(n, grouped=True, transposed=True))


convolution1d: Callable[..., Tensor]
convolution2d: Callable[..., Tensor]
convolution3d: Callable[..., Tensor]
grouped_convolution1d: Callable[..., Tensor]
grouped_convolution2d: Callable[..., Tensor]
grouped_convolution3d: Callable[..., Tensor]
transposed_convolution1d: Callable[..., Tensor]
transposed_convolution2d: Callable[..., Tensor]
transposed_convolution3d: Callable[..., Tensor]
grouped_transposed_convolution1d: Callable[..., Tensor]
grouped_transposed_convolution2d: Callable[..., Tensor]
grouped_transposed_convolution3d: Callable[..., Tensor]
convolution1d, convolution2d, convolution3d = (convolution_over(n) for n in (1, 2, 3))
grouped_convolution1d, grouped_convolution2d, grouped_convolution3d = (grouped_convolution_over(n) for n in (1, 2, 3))
transposed_convolution1d, transposed_convolution2d, transposed_convolution3d = (
    transposed_convolution_over(n) for n in (1, 2, 3)
)
grouped_transposed_convolution1d, grouped_transposed_convolution2d, grouped_transposed_convolution3d = (
    grouped_transposed_convolution_over(n) for n in (1, 2, 3)
)


def __getattr__(name: str) -> Callable[..., Tensor]:
    """Return a circuit over any number of axes by its name, such as `convolution4d`, so that pickle finds it."""
    found = re.fullmatch(r"(grouped_)?(transposed_)?convolution([1-9]\d*)d", name)
    if found is None:
        raise AttributeError(f"{__name__} has no {name}")
    return _circuit(Kind(int(found[3]), grouped=bool(found[1]), transposed=bool(found[2])))
