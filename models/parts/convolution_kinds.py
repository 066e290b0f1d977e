"""Convolutions as data: their keyword arguments, and the name, signature and steps of each kind.

The steps are patterns: unfold the image into windows, then contract them with the weight. The steps of a transposed
convolution are the transposes of these in reverse order. `convolve` makes circuits of the kinds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from circuits import Window, einsum, fold, rearrange, transposed, unfold

from .space import Number, Padding, is_symmetric, output_sizes, space, windows_over

Step = tuple[Callable[..., Tensor], str]
"""An einops operation, or unfold or fold, and its pattern."""

_TRANSPOSES: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    rearrange: rearrange,
    einsum: einsum,
    unfold: fold,
}


@dataclass(frozen=True)
class Options:
    """The keyword arguments of a convolution, under the names of F.conv2d and F.conv_transpose2d.

    `mode` is nn.Conv2d's `padding_mode`. Only a transposed convolution uses `output_padding`.
    """

    stride: Number = 1
    padding: Padding = 0
    dilation: Number = 1
    mode: Any = "zeros"
    output_padding: Number = 0

    @property
    def torch_can_pad(self) -> bool:
        """Whether torch's operators support the padding: with zeros, equal before and after an axis."""
        return self.mode == "zeros" and is_symmetric(self.padding)


@dataclass(frozen=True)
class Kind:
    """A kind of convolution: over n spatial axes, with the channels in groups or not, transposed or not."""

    n: int
    grouped: bool
    transposed: bool

    @property
    def name(self) -> str:
        """The name of the circuit in `convolve`, such as `grouped_convolution2d`."""
        return f"{'grouped_' * self.grouped}{'transposed_' * self.transposed}convolution{self.n}d"

    @property
    def signature(self) -> str:
        """The signature of the circuit: its image, its weight and its output."""
        axes, window_axes, places = space(self.n)
        g, c, k = ("g ", "(g c)", "(g k)") if self.grouped else ("", "c", "k")
        signature = f"... {c} {axes}, {g}k c {places} -> ... {k} {window_axes}"
        return transposed(signature) if self.transposed else signature

    @property
    def bias(self) -> str:
        """The axis of the bias: the channels of the output."""
        channel = "c" if self.transposed else "k"
        return f"(g {channel})" if self.grouped else channel

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the definition, from the image to the output before the bias is added."""
        steps = _steps(self.n, self.grouped)
        return _transposed(steps) if self.transposed else steps

    def windows(self, weight: Tensor, options: Options) -> tuple[Window, ...]:
        """Return the window of each spatial axis; its size is that of the same axis of the weight."""
        sizes = weight.shape[-self.n :]
        return windows_over(self.n, sizes, options.stride, options.padding, options.dilation, options.mode)

    def output_sizes(self, image: Tensor, windows: tuple[Window, ...], options: Options) -> dict[str, int]:
        """Return the size of each axis that `fold` produces, by name; empty if the convolution is not transposed."""
        return output_sizes(windows, image.shape[-self.n :], options.output_padding) if self.transposed else {}

    def refuse_invalid(self, image: Tensor, weight: Tensor, options: Options) -> None:
        """Raise CircuitError for an option out of range, and ShapeError for an image smaller than a window."""
        windows = self.windows(weight, options)
        self.output_sizes(image, windows, options)
        if not self.transposed:
            for window, size in zip(windows, image.shape[-self.n :], strict=True):
                window.count(size)


def _steps(n: int, grouped: bool) -> tuple[Step, ...]:
    """Return the steps of a convolution over n axes: unfold, then contract with the weight (of each group)."""
    axes, window_axes, places = space(n)
    g = "g " if grouped else ""
    steps: tuple[Step, ...] = (
        (unfold, f"... {g}c {axes} -> ... {g}c {window_axes} {places}"),
        (einsum, f"... {g}c {window_axes} {places}, {g}k c {places} -> ... {g}k {window_axes}"),
    )
    if not grouped:
        return steps
    split, join = f"... (g c) {axes} -> ... g c {axes}", f"... g k {window_axes} -> ... (g k) {window_axes}"
    return ((rearrange, split), *steps, (rearrange, join))


def _transposed(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the transpose of a composition: its steps in reverse order, each transposed."""
    return tuple([(_TRANSPOSES[operation], transposed(pattern)) for operation, pattern in reversed(steps)])
