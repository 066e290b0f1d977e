"""Learned convolutions, as modules: strided, dilated, grouped, depthwise-separable, transposed, over any axes of space.

Each says in its text what it takes to what: `Convolution("c h w -> k h' w'", ...)`, with any axes before the channels.
Weights are laid out, named and begun as in nn.Conv2d and nn.ConvTranspose2d, whose state dicts they load. With more
than three axes of space the definition runs, since torch has no operator.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3; Dumoulin and Visin 2016, A guide to convolution
arithmetic for deep learning; for separable convolutions, Chollet 2017, Xception.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from circuits import CircuitError, Signature, circuit, rearrange

from .parts.convolve import (
    convolution_over,
    grouped_convolution_over,
    grouped_transposed_convolution_over,
    transposed_convolution_over,
)
from .parts.space import Number, Padding, even, settled, space, windows_over
from .weights.files import savable


@savable
class Convolution(nn.Module):
    """A learned convolution from the first axis of a text to that on its right, over the axes of space behind them.

    Every window of `kernel` places meets the weight, (k, c/groups, kernel). Options are nn.Conv2d's: one number for all
    axes or one for each; an axis may also have (before, after) for its padding. `padding="same"` keeps sizes where the
    stride is 1; a text that says so, "c h w -> k h w", is checked. Weight and bias begin uniform within ±(inputs of one
    output)^-½, as nn.Conv2d's do.

    Parameters: ck·(kernel)/groups, and k with a bias. Raises SignatureError for a text that cannot be read, and
    CircuitError for a text without channels or space, and for numbers that cannot be.

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
        mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **channels: int,
    ) -> None:
        super().__init__()
        c, k, n, signature = _read("Convolution", text, channels, groups)
        border: Padding = _same(n, kernel, dilation) if padding == "same" else settled(padding)
        windows = windows_over(n, kernel, stride, border, dilation, mode)
        self.text, self.sizes, self.groups = text, channels, groups
        self.stride, self.padding, self.dilation, self.mode = settled(stride), border, settled(dilation), mode
        self.kernel = tuple([window.size for window in windows])
        self.weight = nn.Parameter(torch.empty(k, c // groups, *self.kernel, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(k, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()
        self.convolve = convolution_over(n) if groups == 1 else grouped_convolution_over(n)
        circuit(signature, fixed=channels)(self)

    def reset_parameters(self) -> None:
        """Draw the weight and the bias anew."""
        _begin(self)

    def forward(self, image: Tensor) -> Tensor:
        """Every window met with the weight; raises ShapeError where an axis clashes or is shorter than a window."""
        return self.convolve(
            image,
            _in_groups(self.weight, self.groups),
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mode=self.mode,
        )

    @classmethod
    def from_torch(cls, theirs: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Self:
        """A copy of torch's module, which gives equal outputs.

        >>> Convolution.from_torch(nn.Conv1d(4, 6, 3, groups=2))
        Convolution("c w -> k w'", c=4, k=6, kernel=(3,), groups=2)
        """
        n = len(theirs.kernel_size)
        padding: Any = 0 if theirs.padding == "valid" else theirs.padding
        ours = cls(
            _text(n),
            kernel=theirs.kernel_size,
            stride=theirs.stride,
            padding=padding,
            dilation=theirs.dilation,
            groups=theirs.groups,
            mode=theirs.padding_mode,
            **_options(theirs),
        )
        return _copied(ours, theirs)

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`."""
        return _described(self, {"padding": 0})


@savable
class TransposedConvolution(nn.Module):
    """A learned transposed convolution: each place of the image writes a window, and what windows write is added up.

    `TransposedConvolution("k h' w' -> c h w", ...)` is the transpose of `Convolution("c h w -> k h' w'", ...)` with the
    same weight, (k, c/groups, kernel), and options. It makes the shortest image that the convolution would take to the
    size that came, and `output_padding` more; a call may ask for sizes instead. Weight and bias begin uniform within
    ±(c/groups · kernel)^-½, as nn.ConvTranspose2d's do.

    Parameters: ck·(kernel)/groups, and c with a bias. Raises as Convolution does.

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
        mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **channels: int,
    ) -> None:
        super().__init__()
        k, c, n, signature = _read("TransposedConvolution", text, channels, groups)
        padding = settled(padding)
        self.windows = windows_over(n, kernel, stride, padding, dilation, mode)
        self.text, self.sizes, self.groups, self.output_padding = text, channels, groups, settled(output_padding)
        self.stride, self.padding, self.dilation, self.mode = settled(stride), padding, settled(dilation), mode
        self.kernel = tuple([window.size for window in self.windows])
        self.weight = nn.Parameter(torch.empty(k, c // groups, *self.kernel, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(c, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()
        self.convolve = transposed_convolution_over(n) if groups == 1 else grouped_transposed_convolution_over(n)
        circuit(signature, fixed=channels)(self)

    def reset_parameters(self) -> None:
        """Draw the weight and the bias anew."""
        _begin(self)

    def forward(self, image: Tensor, *, size: Sequence[int] | None = None) -> Tensor:
        """What the windows write, added up, on an image of `size` where that is given.

        Raises ShapeError where an axis clashes, and CircuitError for a size the convolution would not take back.
        """
        added: Any = self.output_padding
        if size is not None:
            counts = image.shape[-len(self.windows) :]
            added = tuple(
                [wanted - window.least(count) for window, wanted, count in zip(self.windows, size, counts, strict=True)]
            )
        return self.convolve(
            image,
            _in_groups(self.weight, self.groups),
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=added,
            dilation=self.dilation,
            mode=self.mode,
        )

    @classmethod
    def from_torch(cls, theirs: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> Self:
        """A copy of torch's module, which gives equal outputs, also for `output_size=`, here `size=`.

        Raises CircuitError for an output padding that is not less than the stride (torch lets it reach the dilation).
        """
        n = len(theirs.kernel_size)
        for added, stride in zip(theirs.output_padding, theirs.stride, strict=True):
            if added >= stride:
                what = f"output_padding {added} at stride {stride} adds places that no convolution reads"
                raise CircuitError(f"TransposedConvolution.from_torch: {what}; it has no equal here")
        padding: Any = theirs.padding
        ours = cls(
            _text(n),
            kernel=theirs.kernel_size,
            stride=theirs.stride,
            padding=padding,
            output_padding=theirs.output_padding,
            dilation=theirs.dilation,
            groups=theirs.groups,
            **_options(theirs),
        )
        return _copied(ours, theirs)

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`."""
        return _described(self, {"padding": 0, "output_padding": 0})


@savable
class SeparableConvolution(nn.Module):
    """A convolution of each channel by itself, then a linear map over the channels at each place (Chollet 2017).

    `depthwise` has one kernel for each of c channels, `pointwise` a kernel of one place from c to k channels. Options
    are those of `depthwise`. Both begin as nn.Conv2d does.

    Parameters: c·(kernel) + ck, and c + k with biases; a convolution has ck·(kernel). Raises as Convolution does.

    >>> convolve = SeparableConvolution("c h w -> k h' w'", c=32, k=64, kernel=3, padding=1)
    >>> convolve(torch.rand(5, 32, 8, 8)).shape, sum(each.numel() for each in convolve.parameters())
    (torch.Size([5, 64, 8, 8]), 2432)
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
        mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **channels: int,
    ) -> None:
        super().__init__()
        c, k, n, signature = _read("SeparableConvolution", text, channels, 1)
        axes, windows, _ = space(n)
        self.depthwise = Convolution(
            f"c {axes} -> c {windows}",
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
        circuit(signature, fixed=channels)(self)

    def forward(self, image: Tensor) -> Tensor:
        """Channel by channel, then across channels."""
        return self.pointwise(self.depthwise(image))


def _read(name: str, text: str, channels: dict[str, int], groups: int) -> tuple[int, int, int, str]:
    """The channels in and out, the number of axes of space, and the signature of `c h w -> k h' w'`."""
    signature = Signature.parse(text)
    sides = [[f"{term}" for term in tensor if f"{term}" != "..."] for tensor in (*signature.inputs, *signature.outputs)]
    if len(signature.inputs) != 1 or len(sides) != 2 or len(sides[0]) != len(sides[1]) or len(sides[0]) < 2:
        what = "it goes from channels and axes of space to as many"
        raise CircuitError(f'{name}("{text}"): {what}, as "c h w -> k h\' w\'"')
    first, last = sides[0][0], sides[1][0]
    if {first, last} != channels.keys():
        came = ", ".join([f"{axis}={size}" for axis, size in channels.items()]) or "none"
        wanted = first if first == last else f"{first} and {last}"
        raise CircuitError(f'{name}("{text}"): it takes the sizes of {wanted}; {came} came')
    c, k = channels[first], channels[last]
    if groups < 1 or c % groups or k % groups:
        possible = ", ".join([f"{g}" for g in range(1, math.gcd(c, k) + 1) if c % g == 0 and k % g == 0])
        raise CircuitError(f"{name}: {groups} groups cannot share {c} and {k} channels; groups may be {possible}")
    inside, outside = (" ".join(side) for side in sides)
    return c, k, len(sides[0]) - 1, f"... {inside} -> ... {outside}"


def _same(n: int, kernel: Number, dilation: Number) -> Padding:
    """The padding that keeps sizes at a stride of 1."""
    windows = [window.same() for window in windows_over(n, kernel, 1, 0, dilation, "zeros")]
    if all(window.before == window.after for window in windows):
        return tuple([window.before for window in windows])
    return tuple([(window.before, window.after) for window in windows])


def _in_groups(weight: Tensor, groups: int) -> Tensor:
    """The weight, with an axis for its groups where there are some."""
    return weight if groups == 1 else rearrange(weight, "(g k) ... -> g k ...", g=groups)


def _begin(module: Convolution | TransposedConvolution) -> None:
    """Draw weight and bias uniform within ±(inputs of one output)^-½, as torch counts them."""
    inputs = module.weight[:1].numel()
    bound = inputs**-0.5 if inputs else 0.0
    for parameter in module.parameters(recurse=False):
        nn.init.uniform_(parameter, -bound, bound)


def _text(n: int) -> str:
    """What a module from torch takes to what, by the letters that figures use."""
    axes, windows, _ = space(n)
    return f"c {axes} -> k {windows}"


def _options(theirs: Any) -> dict[str, Any]:
    """What of torch's modules goes by the same meaning to each of ours."""
    weight = theirs.weight
    made = {"bias": theirs.bias is not None, "device": weight.device, "dtype": weight.dtype}
    return {**made, "c": theirs.in_channels, "k": theirs.out_channels}


def _copied(ours: Any, theirs: nn.Module) -> Any:
    """Ours with the weights of theirs, in the same mode."""
    ours.load_state_dict(theirs.state_dict())
    return ours.train(theirs.training)


def _described(module: Any, numbers: dict[str, Any]) -> str:
    """The text, the channels, the kernel, and every option that is not as it would be unsaid."""
    plain = {"stride": 1, **numbers, "dilation": 1, "groups": 1, "mode": "zeros"}
    said = [f"{name}={size}" for name, size in module.sizes.items()] + [f"kernel={module.kernel}"]
    for name, unsaid in plain.items():
        value = getattr(module, name)
        several = isinstance(value, tuple) and even(value)
        if value != unsaid and not (several and {*value} == {unsaid}):
            said.append(f"{name}={value!r}")
    said += [] if module.bias is not None else ["bias=False"]
    return f'"{module.text}", {", ".join(said)}'
