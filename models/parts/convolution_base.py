"""The base class of Convolution and TransposedConvolution, and the text of their axes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from circuits import CircuitError, Signature, rearrange

from .convolution_kinds import Options
from .sizes import is_whole
from .space import Number, Padding, as_tuples, is_symmetric, windows_over

DEFAULTS: dict[str, Any] = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1, "mode": "zeros"}
"""The options that the `repr` of a module shows where they differ from their defaults."""


@dataclass(frozen=True)
class ConvolutionText:
    """The text of a convolution module, such as `c h w -> k h' w'`, with the sizes of its channels.

    `inputs` and `outputs` are the numbers of channels, `n` is the number of spatial axes, and `signature` is that of
    the module: the text with any leading axes on both sides.
    """

    text: str
    channels: dict[str, int]
    inputs: int
    outputs: int
    n: int
    signature: str

    @classmethod
    def read(cls, module: str, text: str, channels: dict[str, int], groups: int) -> Self:
        """Parse the text and check its channels; `module` is the name in messages.

        Raises:
            SignatureError: If the text is not a signature.
            CircuitError: If a side is not a channel axis and then spatial axes, if the sides have different lengths,
                if `channels` are not the sizes of the channel axes, or if `groups` does not divide both.
        """
        signature = Signature.parse(text)
        tensors = *signature.inputs, *signature.outputs
        sides = [[f"{term}" for term in tensor if f"{term}" != "..."] for tensor in tensors]
        if len(signature.inputs) != 1 or len(sides) != 2 or len(sides[0]) != len(sides[1]) or len(sides[0]) < 2:
            form = "expected a channel axis and then spatial axes on each side, equally many on both"
            raise CircuitError(f'{module}("{text}"): {form}, as in "c h w -> k h\' w\'"')
        first, last = sides[0][0], sides[1][0]
        if {first, last} != channels.keys():
            given = ", ".join([f"{axis}={size}" for axis, size in channels.items()]) or "none"
            expected = f"the size of {first}" if first == last else f"the sizes of {first} and {last}"
            raise CircuitError(f'{module}("{text}"): expected {expected}, got {given}')
        c, k = channels[first], channels[last]
        if not (is_whole(c, 0) and is_whole(k, 0) and is_whole(groups, groups)):
            given = f"{first}={c!r}, {last}={k!r}, groups={groups!r}"
            raise CircuitError(f"{module}: expected whole numbers that are not negative, got {given}")
        if groups < 1 or c % groups or k % groups:
            possible = ", ".join([f"{g}" for g in range(1, math.gcd(c, k) + 1) if c % g == 0 and k % g == 0])
            raise CircuitError(
                f"{module}: {groups} groups do not divide {c} and {k} channels; groups may be {possible}"
            )
        left, right = (" ".join(side) for side in sides)
        return cls(text, channels, c, k, len(sides[0]) - 1, f"... {left} -> ... {right}")


class ConvolutionBase(nn.Module):
    """The attributes and methods that Convolution and TransposedConvolution share.

    The constructor of a subclass calls `_set_up`, then sets `convolve`, the circuit that `forward` runs.
    """

    text: str
    sizes: dict[str, int]
    groups: int
    stride: Any
    padding: Any
    dilation: Any
    mode: Any

    convolve: Callable[..., Tensor]
    weight: nn.Parameter
    bias: nn.Parameter | None

    def _set_up(
        self,
        text: ConvolutionText,
        weight_channels: tuple[int, int],
        kernel: Number,
        groups: int,
        options: Options,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Set the attributes that both modules have, and initialize the weight and the bias.

        `weight_channels` are the sizes of the first two axes of the weight; those of the kernel follow.
        """
        self.text, self.sizes, self.groups = text.text, text.channels, groups
        self.stride, self.padding = as_tuples(options.stride), as_tuples(options.padding)
        self.dilation, self.mode = as_tuples(options.dilation), options.mode
        windows = windows_over(text.n, as_tuples(kernel), self.stride, self.padding, self.dilation, self.mode)
        self.kernel: tuple[int, ...] = tuple([window.size for window in windows])
        self.weight = nn.Parameter(torch.empty(*weight_channels, *self.kernel, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(text.outputs, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialize the weight and the bias: uniform within ±(number of inputs of one output)^-½, as torch does.

        As in torch, the number of inputs is the product of all axes of the weight but the first.
        """
        inputs = self.weight[:1].numel()
        bound = inputs**-0.5 if inputs else 0.0
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound)

    def _convolve(self, image: Tensor, **output_padding: Any) -> Tensor:
        """Run the circuit with the module's weight, bias and options."""
        weight = self.weight if self.groups == 1 else rearrange(self.weight, "(g k) ... -> g k ...", g=self.groups)
        return self.convolve(
            image,
            weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mode=self.mode,
            **output_padding,
        )

    def extra_repr(self) -> str:
        """Return the text, the sizes of the channels and the kernel, and every option that is not the default."""
        shown = [f"{name}={size}" for name, size in self.sizes.items()] + [f"kernel={self.kernel}"]
        for name, default in DEFAULTS.items():
            value = getattr(self, name, default)
            per_axis = isinstance(value, tuple) and is_symmetric(value)
            if value != default and not (per_axis and {*value} == {default}):
                shown.append(f"{name}={value!r}")
        shown += [] if self.bias is not None else ["bias=False"]
        return f'"{self.text}", {", ".join(shown)}'


def same_padding(n: int, kernel: Number, dilation: Number) -> Padding:
    """Return the padding that keeps the sizes of n spatial axes at a stride of 1; see Window.same."""
    windows = [window.same() for window in windows_over(n, kernel, 1, 0, dilation, "zeros")]
    if all(window.before == window.after for window in windows):
        return tuple([window.before for window in windows])
    return tuple([(window.before, window.after) for window in windows])
