"""What slides over space: convolutions, pools, padding, resizing. An axis is kept, halved, cut: as the sizes say."""

from fractions import Fraction
from typing import Any

import torch

from circuits.naming.axes import AxisNode, same_size
from circuits.naming.derivation import resized, scaled, shifted, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Note, Operation, Rule, canonical_dim, over, rule


@rule("conv1d conv2d conv3d")
def convolution(operation: Operation, names: Names) -> None:
    """Channels become the weight's; a step makes space that many times shorter."""
    axes, weight = (names.of(number) for number in operation.inputs[:2])
    unify(axes[1 - len(weight)], weight[1])
    _convolved(operation, names, weight[0], fewer=True)


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def transposed_convolution(operation: Operation, names: Names) -> None:
    """Channels become the weight's; a step makes space that many times longer."""
    axes, weight = (names.of(number) for number in operation.inputs[:2])
    unify(axes[1 - len(weight)], weight[0])
    _convolved(operation, names, weight[1], fewer=False)


def _convolved(operation: Operation, names: Names, out: AxisNode, fewer: bool) -> None:
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    shape, space = names.shapes[output], len(names.of(operation.inputs[1])) - 2
    place = len(axes) - space - 1
    channel, count = axes[place], shape[place]
    if same_size(channel.root.size, count) and same_size(operation.get(6, "groups", 1), count) and count != 1:
        out = channel  # each channel by itself
    steps = _each(operation.get(3, "stride", 1), space)
    slid = [_slid(*each, fewer) for each in zip(axes[place + 1 :], shape[place + 1 :], steps, strict=True)]
    names.put(output, [*axes[:place], out, *slid])


def _each(setting: Any, space: int) -> list[Any]:
    """A setting for each axis of space, given for all at once or one by one."""
    found = setting if isinstance(setting, list) else [setting]
    return found if len(found) == space else found[:1] * space


def _slid(axis: AxisNode, size: Any, step: Any, fewer: bool = True) -> AxisNode:
    if step == 1:
        return shifted(axis, size)
    return scaled(axis, size, Fraction(1, step) if fewer else Fraction(step))


def _pool(space: int, place: int) -> Rule:
    """The rule of pools over so many axes, whose window is the argument at this place."""

    def pool(operation: Operation, names: Names) -> None:
        """A step makes space that many times shorter; it is as long as the window where nothing else is said."""
        axes = names.of(operation.inputs[0])
        window, step = operation.get(place, "kernel_size"), operation.get(place + 1, "stride")
        steps = _each(window if step is None or step == [] else step, space)
        for output in operation.outputs:
            slid = [_slid(*each) for each in zip(axes[-space:], names.shapes[output][-space:], steps, strict=True)]
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
def fitted(operation: Operation, names: Names) -> None:
    """Space is made as long as is asked, whatever it was."""
    axes = names.of(operation.inputs[0])
    for output in operation.outputs:
        names.put(output, map(resized, axes, names.shapes[output]))


@rule("interpolate upsample")
def interpolate(operation: Operation, names: Names) -> None:
    """Space is made so many times as long, or as long as is asked."""
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
    """A border is added or cut off."""
    output = operation.outputs[0]
    names.put(output, map(shifted, names.of(operation.inputs[0]), names.shapes[output]))


@rule("pixel_shuffle")
def pixel_shuffle(operation: Operation, names: Names) -> None:
    """Channels are laid out in space."""
    _shuffled(operation, names, Fraction(operation.get(1, "upscale_factor")))


@rule("pixel_unshuffle")
def pixel_unshuffle(operation: Operation, names: Names) -> None:
    """Space is gathered in channels."""
    _shuffled(operation, names, Fraction(1, operation.get(1, "downscale_factor")))


def _shuffled(operation: Operation, names: Names, factor: Fraction) -> None:
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    ratios = [1 / factor**2, factor, factor]
    names.put(output, [*axes[:-3], *map(scaled, axes[-3:], names.shapes[output][-3:], ratios)])


@rule("grid_sample")
def grid_sample(operation: Operation, names: Names) -> None:
    """Space is the grid's."""
    axes, grid = (names.of(number) for number in operation.inputs[:2])
    names.put(operation.outputs[0], [*axes[:2], *grid[1:-1]])


@rule(also=[torch.Tensor.unfold])
def unfold(operation: Operation, names: Names) -> Note:
    """Windows of one axis: how many there are, and last how long each is."""
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    shape, dim = names.shapes[output], canonical_dim(operation.get(1, "dimension"), len(axes))
    windows = _slid(axes[dim], shape[dim], operation.get(3, "step"))
    names.put(output, [*axes[:dim], windows, *axes[dim + 1 :], AxisNode(shape[-1])])
    return over(axes, [dim])
