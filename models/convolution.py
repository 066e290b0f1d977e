"""Learned convolutions, as modules: strided, dilated, grouped, depthwise-separable, transposed, over any spatial axes.

The first argument is a text with the axes of the input and of the output: `Convolution("c h w -> k h' w'", ...)`. Both
tensors may have any leading axes. Parameters have the names, shapes and initialization of nn.Conv2d and
nn.ConvTranspose2d, whose state dicts can be loaded. Over more than three spatial axes the definition runs, since torch
has no operator for them.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3; Dumoulin and Visin 2016, A guide to convolution
arithmetic for deep learning; for separable convolutions, Chollet 2017, Xception.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, Unpack

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit

from .parts.convolution_base import (
    ConvolutionBase,
    ConvolutionText,
    same_padding,
)
from .parts.convolution_kinds import Options
from .parts.convolve import (
    convolution_over,
    grouped_convolution_over,
    grouped_transposed_convolution_over,
    transposed_convolution_over,
)
from .parts.space import Mode, Number, Padding, as_tuples, space, windows_over
from .parts.torch_convolutions import CONVOLUTIONS, TRANSPOSED, ConvolutionSettings, TransposedSettings, converted
from .weights.files import savable
from .weights.sources import Weights


@savable
class Convolution(ConvolutionBase):
    """A learned convolution over any number of spatial axes, with named axes (section 3.3): nn.Conv1d, nn.Conv2d, ...

    Every window of an image with c channels is contracted with the weight, of shape (k, c/groups, *kernel); the result
    has k channels. Weight and bias are initialized as in nn.Conv2d, uniform within ±(number of inputs of one
    output)^-½. The options are those of nn.Conv2d; each is one number for all spatial axes, or one for each.

    Parameters: ck·(product of the kernel sizes)/groups, and k more with a bias.

    Args:
        text: The axes of input and output, `"c h w -> k h' w'"`: on each side the channels, then the spatial axes. If
            the text states the output sizes, as in `"c h w -> k h w"` (the same) or `"c h w -> k h/2 w/2"` (half), they
            are checked on every call.
        kernel: The size of a window (`kernel_size`).
        stride: The distance from one window to the next.
        padding: The number of positions added at both ends of every axis, or for each axis a number or a pair (before,
            after); or "same", which keeps the sizes at a stride of 1.
        dilation: The distance between neighbouring positions of a window.
        groups: The number of groups of channels that are convolved separately; it divides the channels on both sides.
        mode: The values of the padding: "zeros", or copies of the image by "reflect", "replicate" or "circular", as
            nn.Conv2d's `padding_mode`.
        bias: Whether a learned number is added to each output channel.
        device, dtype: Those of the parameters.
        **channels: The sizes of the channel axes by their names in the text, such as `c=3, k=16`.

    Raises:
        SignatureError: If the text is not a signature.
        CircuitError: If the text lacks channels or spatial axes, `channels` are not the sizes of its channel axes,
            `groups` does not divide them, or an option is out of range.

    >>> convolve = Convolution("c h w -> k h' w'", c=3, k=16, kernel=3, stride=2, padding=1)
    >>> convolve(torch.rand(5, 3, 8, 9)).shape
    torch.Size([5, 16, 4, 5])
    """

    def __init__(
        self,
        text: str,
        /,
        *,
        kernel: Number,
        stride: Number = 1,
        padding: Padding | Literal["same"] = 0,
        dilation: Number = 1,
        groups: int = 1,
        mode: Mode = "zeros",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **channels: int,
    ) -> None:
        super().__init__()
        form = ConvolutionText.read("Convolution", text, channels, groups)
        border: Padding = same_padding(form.n, kernel, dilation) if padding == "same" else padding
        options = Options(stride, border, dilation, mode)
        self._set_up(form, (form.outputs, form.inputs // groups), kernel, groups, options, bias, device, dtype)
        self.convolve: Any = convolution_over(form.n) if groups == 1 else grouped_convolution_over(form.n)
        circuit(form.signature, fixed=channels)(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return the convolution of the image.

        Raises:
            ShapeError: If an axis disagrees with the text, or a spatial axis is smaller than a window.
        """
        return self._convolve(image)

    @classmethod
    def from_torch(cls, weights: Weights, *, prefix: str = "", **options: Unpack[ConvolutionSettings]) -> Self:
        """Return a Convolution that computes the same as torch's module, with copies of its parameters.

        Args:
            weights: The module, its state dict, or the path of a safetensors file.
            prefix: Text with which every name begins, such as "_orig_mod.", and which is removed.
            **options: `stride`, `padding`, `dilation`, `groups` and `mode`, which a state dict does not tell.

        Raises:
            WeightsError: If weights are missing or unexpected, or have other axes.
            CircuitError: If an option is missing, or contradicts the weights or the module.

        >>> Convolution.from_torch(nn.Conv1d(4, 6, 3, groups=2))
        Convolution("c w -> k w'", c=4, k=6, kernel=(3,), groups=2)
        """
        return converted(cls, CONVOLUTIONS, weights, prefix, options)


@savable
class TransposedConvolution(ConvolutionBase):
    """A learned transposed convolution over any number of spatial axes: nn.ConvTranspose1d, nn.ConvTranspose2d, ...

    `TransposedConvolution("k h' w' -> c h w", ...)` is the transpose of `Convolution("c h w -> k h' w'", ...)` with the
    same weight, of shape (k, c/groups, *kernel), and the same options: the vector at each position of the input is
    contracted with the weight and added to a window of the output (section 3.3). Weight and bias are initialized as in
    nn.ConvTranspose2d, uniform within ±(c/groups · product of the kernel sizes)^-½.

    Parameters: ck·(product of the kernel sizes)/groups, and c more with a bias.

    Args:
        text: The axes of input and output, `"k h' w' -> c h w"`: on each side the channels, then the spatial axes.
        kernel: The size of a window (`kernel_size`).
        stride: The distance from one window to the next.
        padding: The number of positions that the convolution adds at both ends of every axis, or for each axis a number
            or a pair (before, after). They are removed from the output; if `mode` is not "zeros", the values there are
            added to the positions that the padding copies.
        output_padding: The number of positions added to the smallest output size at which the convolution would return
            the size of the input; less than the stride. A call may state the output sizes instead, by `size`.
        dilation, groups, mode, bias, device, dtype: As in Convolution.
        **channels: The sizes of the channel axes by their names in the text, such as `k=16, c=3`.

    Raises:
        SignatureError: If the text is not a signature.
        CircuitError: As in Convolution.

    >>> widen = TransposedConvolution("k h' w' -> c h w", k=16, c=3, kernel=3, stride=2, padding=1)
    >>> widen(torch.rand(5, 16, 4, 5)).shape, widen(torch.rand(5, 16, 4, 5), size=(8, 9)).shape
    (torch.Size([5, 3, 7, 9]), torch.Size([5, 3, 8, 9]))
    """

    def __init__(
        self,
        text: str,
        /,
        *,
        kernel: Number,
        stride: Number = 1,
        padding: Padding = 0,
        output_padding: Number = 0,
        dilation: Number = 1,
        groups: int = 1,
        mode: Mode = "zeros",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **channels: int,
    ) -> None:
        super().__init__()
        form = ConvolutionText.read("TransposedConvolution", text, channels, groups)
        options = Options(stride, padding, dilation, mode)
        self._set_up(form, (form.inputs, form.outputs // groups), kernel, groups, options, bias, device, dtype)
        self.output_padding: Any = as_tuples(output_padding)
        self.windows = windows_over(form.n, self.kernel, self.stride, self.padding, self.dilation, self.mode)
        self.convolve = (transposed_convolution_over if groups == 1 else grouped_transposed_convolution_over)(form.n)
        circuit(form.signature, fixed=channels)(self)

    def forward(self, image: Tensor, *, size: Sequence[int] | None = None) -> Tensor:
        """Return the transposed convolution of the image.

        Args:
            image: The input, with the axes on the left of the text.
            size: The sizes of the spatial axes of the output; by default they follow from `output_padding`.

        Raises:
            ShapeError: If an axis disagrees with the text, or an output axis is empty once its padding is removed.
            CircuitError: If the convolution of an image of this `size` would not have the sizes of the input, or `size`
                does not have a number for each spatial axis.
        """
        added: Any = self.output_padding
        if size is not None:
            if len(size) != len(self.windows):
                axes = " ".join([window.axis for window in self.windows])
                raise CircuitError(f"TransposedConvolution: size has {len(size)} numbers, not one for each of {axes}")
            counts = image.shape[-len(self.windows) :]
            each = zip(self.windows, size, counts, strict=True)
            added = tuple([wanted - window.least(count) for window, wanted, count in each])
        return self._convolve(image, output_padding=added)

    @classmethod
    def from_torch(cls, weights: Weights, *, prefix: str = "", **options: Unpack[TransposedSettings]) -> Self:
        """Return a TransposedConvolution that computes the same as torch's module, with copies of its parameters.

        Torch's argument `output_size` of a call is `size` here. Arguments and errors are as in Convolution.from_torch;
        a state dict does not tell `output_padding` either. An output padding that is not less than the stride, as torch
        allows it, raises CircuitError.
        """
        return converted(cls, TRANSPOSED, weights, prefix, options)


@savable
class SeparableConvolution(nn.Module):
    """A depthwise-separable convolution (Chollet 2017): one kernel per channel, then a linear map over the channels.

    The submodules are `depthwise`, a Convolution with as many groups as channels, and `pointwise`, a Convolution with
    windows of one position from c to k channels. Both are initialized as a Convolution is.

    Parameters: c·(product of the kernel sizes) + ck, and c + k more with biases. A Convolution has
    ck·(product of the kernel sizes), and k more with a bias.

    Args:
        text: The axes of input and output, `"c h w -> k h' w'"`, as in Convolution.
        kernel, stride, padding, dilation, mode: Those of `depthwise`, as in Convolution.
        bias: Whether both convolutions have a bias.
        device, dtype: Those of the parameters.
        **channels: The sizes of the channel axes by their names in the text, such as `c=32, k=64`.

    Raises:
        SignatureError: If the text is not a signature.
        CircuitError: As in Convolution.

    >>> convolve = SeparableConvolution("c h w -> k h' w'", c=32, k=64, kernel=3, padding=1)
    >>> convolve(torch.rand(5, 32, 8, 8)).shape, sum(each.numel() for each in convolve.parameters())
    (torch.Size([5, 64, 8, 8]), 2432)
    """

    pointwise: Convolution

    def __init__(
        self,
        text: str,
        /,
        *,
        kernel: Number,
        stride: Number = 1,
        padding: Padding | Literal["same"] = 0,
        dilation: Number = 1,
        mode: Mode = "zeros",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **channels: int,
    ) -> None:
        super().__init__()
        form = ConvolutionText.read("SeparableConvolution", text, channels, 1)
        c, k = form.inputs, form.outputs
        axes, window_axes, _ = space(form.n)
        self.depthwise: Convolution = Convolution(
            f"c {axes} -> c {window_axes}",
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=c,
            mode=mode,
            bias=bias,
            device=device,
            dtype=dtype,
            c=c,
        )
        self.pointwise = Convolution(f"c {axes} -> k {axes}", kernel=1, bias=bias, device=device, dtype=dtype, c=c, k=k)
        circuit(form.signature, fixed=channels)(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return the pointwise convolution of the depthwise convolution of the image.

        Raises:
            ShapeError: If an axis disagrees with the text, or a spatial axis is smaller than a window.
        """
        return self.pointwise(self.depthwise(image))


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "Convolution": {"order": "h w ...", "pairs": "x = h w"},
}
"""The options with which `circuits.draw` orders axes as the paper does."""
