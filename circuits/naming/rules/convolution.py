"""Naming rules of convolutions: the channel axis comes from the weight; the spatial axes become shorter or longer."""

from fractions import Fraction
from typing import Any

from circuits.naming.axes import AxisNode
from circuits.naming.derivation import scaled, shifted, unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Operation, rule
from circuits.naming.sizes import same_size


@rule("conv1d conv2d conv3d")
def convolution(operation: Operation, names: Names) -> None:
    """The channel axis is contracted and replaced by the weight's; a stride divides the spatial axes, `h/2`."""
    axes, weight = (names.of(number) for number in operation.inputs[:2])
    unify(axes[1 - len(weight)], weight[1])
    _convolve(operation, names, weight[0], shorter=True)


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def transposed_convolution(operation: Operation, names: Names) -> None:
    """The channel axis is contracted and replaced by the weight's; a stride multiplies the spatial axes, `2*h`."""
    axes, weight = (names.of(number) for number in operation.inputs[:2])
    unify(axes[1 - len(weight)], weight[0])
    _convolve(operation, names, weight[1], shorter=False)


def _convolve(operation: Operation, names: Names, out: AxisNode, shorter: bool) -> None:
    """Set the axes of the output.

    Args:
        operation: The recorded call.
        names: The axes of all values.
        out: The channel axis of the output; a depthwise convolution has that of the input instead.
        shorter: Whether the stride divides the spatial axes, or multiplies them.
    """
    axes, output = names.of(operation.inputs[0]), operation.outputs[0]
    shape, space = names.shapes[output], len(names.of(operation.inputs[1])) - 2
    position = len(axes) - space - 1
    channel, count = axes[position], shape[position]
    if same_size(channel.root.size, count) and same_size(operation.get(6, "groups", 1), count) and count != 1:
        out = channel  # depthwise: channels are not mixed
    steps = per_axis(operation.get(3, "stride", 1), space)
    slid = [windowed(*each, shorter) for each in zip(axes[position + 1 :], shape[position + 1 :], steps, strict=True)]
    names.put(output, [*axes[:position], out, *slid])


def per_axis(setting: Any, space: int) -> list[Any]:
    """Return a list with a setting, such as the stride, for each spatial axis; a single value is repeated."""
    found = setting if isinstance(setting, list) else [setting]
    return found if len(found) == space else found[:1] * space


def windowed(axis: AxisNode, size: Any, step: Any, shorter: bool = True) -> AxisNode:
    """Return the axis of the window positions: `axis` plus a constant if the stride is 1.

    Else `axis` divided by the stride, or, if not `shorter`, multiplied by it.
    """
    if step == 1:
        return shifted(axis, size)
    return scaled(axis, size, Fraction(1, step) if shorter else Fraction(step))
