"""Naming rules of pooling, padding, resizing and sliding windows: spatial axes become shorter or longer."""

from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F

from circuits.naming.axes import AxisNode, Grouped
from circuits.naming.derivation import group, parts, resized, scaled, shifted
from circuits.naming.names import Names
from circuits.naming.rules.convolution import per_axis, windowed
from circuits.naming.rules.registry import Note, Operation, Rule, canonical_dim, over, rule


def _pool(space: int, position: int) -> Rule:
    """Return the rule of pooling over the last `space` axes, with the kernel size as argument number `position`."""

    def pool(operation: Operation, names: Names) -> None:
        """The stride, by default the kernel size, divides the spatial axes."""
        axes = names.of(operation.inputs[0])
        window, step = operation.get(position, "kernel_size"), operation.get(position + 1, "stride")
        steps = per_axis(window if step is None or step == [] else step, space)
        for output in operation.outputs:
            slid = [windowed(*each) for each in zip(axes[-space:], names.shapes[output][-space:], steps, strict=True)]
            names.put(output, [*axes[:-space], *slid])

    return pool


for _count in (1, 2, 3):
    rule(f"max_pool{_count}d max_pool{_count}d_with_indices avg_pool{_count}d")(_pool(_count, 1))
    rule(f"lp_pool{_count}d")(_pool(_count, 2))


_ADAPTIVE = " ".join(f"adaptive_{kind}_pool{count}d" for kind in ("avg", "max") for count in (1, 2, 3))


@rule(
    _ADAPTIVE,
    "adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices",
    "max_unpool1d max_unpool2d max_unpool3d",
)
def adaptive(operation: Operation, names: Names) -> None:
    """The spatial axes have the requested sizes; an axis that is back at an earlier size has its earlier name."""
    axes = names.of(operation.inputs[0])
    for output in operation.outputs:
        names.put(output, map(resized, axes, names.shapes[output]))


@rule("interpolate upsample")
def interpolate(operation: Operation, names: Names) -> None:
    """The spatial axes are multiplied by the scale factor, `2*h`, or have the requested sizes."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    shape, factors = names.shapes[output], operation.get(2, "scale_factor")
    if factors is None:
        names.put(output, map(resized, axes, shape))
        return
    given = factors if isinstance(factors, list) else [factors] * (len(axes) - 2)
    ratios = [Fraction(factor).limit_denominator(64) for factor in given]
    names.put(output, [*axes[:2], *map(scaled, axes[2:], shape[2:], ratios)])


@rule("pad constant_pad_nd")
def pad(operation: Operation, names: Names) -> None:
    """The padded axes are extended by the padding, `h+2`, or shortened if it is negative, `h-2`."""
    output = operation.outputs[0]
    names.put(output, map(shifted, names.of(operation.inputs[0]), names.shapes[output]))


@rule("pixel_shuffle")
def pixel_shuffle(operation: Operation, names: Names) -> None:
    """The channel axis is divided by the square of the factor, the spatial axes are multiplied by it."""
    _shuffle(operation, names, Fraction(operation.get(1, "upscale_factor")))


@rule("pixel_unshuffle")
def pixel_unshuffle(operation: Operation, names: Names) -> None:
    """The channel axis is multiplied by the square of the factor, the spatial axes are divided by it."""
    _shuffle(operation, names, Fraction(1, operation.get(1, "downscale_factor")))


def _shuffle(operation: Operation, names: Names, factor: Fraction) -> None:
    """Divide the channel axis by the square of a factor, and multiply the two spatial axes by it."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    ratios = [1 / factor**2, factor, factor]
    names.put(output, [*axes[:-3], *map(scaled, axes[-3:], names.shapes[output][-3:], ratios)])


@rule("grid_sample")
def grid_sample(operation: Operation, names: Names) -> None:
    """The spatial axes of the output are those of the grid."""
    axes, grid = (names.of(number) for number in operation.inputs[:2])
    names.put(operation.outputs[0], [*axes[:2], *grid[1:-1]])


@rule(also=[torch.Tensor.unfold])
def unfold(operation: Operation, names: Names) -> Note:
    """The unfolded axis is replaced by the axis of windows; a new last axis indexes positions in a window."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    shape, dim = names.shapes[output], canonical_dim(operation.get(1, "dimension"), len(axes))
    windows = windowed(axes[dim], shape[dim], operation.get(3, "step"))
    names.put(output, [*axes[:dim], windows, *axes[dim + 1 :], AxisNode(shape[-1])])
    return over(axes, [dim])


@rule("im2col", also=[F.unfold])
def image_to_columns(operation: Operation, names: Names) -> None:
    """The channel axis is multiplied by the size of the window, `4*c`; the last axis groups the axes of windows."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    window, dilation, padding, step = _sliding(operation, 1)
    counts = [
        (axis.root.size + 2 * around - spacing * (length - 1) - 1) // stride + 1
        for axis, length, spacing, around, stride in zip(axes[-2:], window, dilation, padding, step, strict=True)
    ]
    windows = group([windowed(*each) for each in zip(axes[-2:], counts, step, strict=True)], names.shapes[output][-1])
    channels = scaled(axes[-3], names.shapes[output][-2], Fraction(window[0] * window[1]))
    names.put(output, [*axes[:-3], channels, windows])


@rule("col2im", also=[F.fold])
def columns_to_image(operation: Operation, names: Names) -> None:
    """The inverse of `image_to_columns`: the channel axis is divided, and the axes of windows are multiplied."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    window, _, _, step = _sliding(operation, 2)
    shape, windows = names.shapes[output], parts(axes[-1], Grouped)
    channels = scaled(axes[-2], shape[-3], Fraction(1, window[0] * window[1]))
    image = [AxisNode(size) for size in shape[-2:]]
    if len(windows) == 2:
        image = [windowed(*each, shorter=False) for each in zip(windows, shape[-2:], step, strict=True)]
    names.put(output, [*axes[:-2], channels, *image])


def _sliding(operation: Operation, position: int) -> list[list[Any]]:
    """Return kernel size, dilation, padding and stride for two axes; the kernel size is argument number `position`."""
    settings = [("kernel_size", 1), ("dilation", 1), ("padding", 0), ("stride", 1)]
    return [
        per_axis(operation.get(position + place, name, default), 2) for place, (name, default) in enumerate(settings)
    ]
