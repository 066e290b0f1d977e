"""Naming rules of elementwise operations: arithmetic, whose inputs are broadcast, and operations that keep all axes."""

import torch

from circuits.diagram import returning_first
from circuits.naming.axes import AxisNode
from circuits.naming.derivation import unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Operation, rule
from circuits.naming.sizes import same_size


@rule("add sub mul div truediv floordiv mod pow eq ne lt le gt ge and or xor", special=True)
@rule(
    "rsub floor_divide true_divide remainder fmod float_power maximum minimum fmax fmin subtract multiply divide",
    "greater greater_equal less less_equal not_equal logical_and logical_or logical_xor bitwise_and bitwise_or",
    "bitwise_xor atan2 arctan2 hypot where masked_fill lerp addcmul addcdiv clamp clip clamp_min clamp_max copysign",
    "heaviside logaddexp logaddexp2 xlogy isclose nextafter polar complex copy",
    "mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy binary_cross_entropy_with_logits",
)
def broadcasting(operation: Operation, names: Names) -> None:
    """The axes of the inputs are broadcast, aligned at the right; axes of equal size are unified."""
    for output in operation.outputs:
        broadcast(operation.inputs, output, names)


def broadcast(inputs: tuple[int, ...], output: int, names: Names) -> None:
    """Set the axes of an output to the broadcast axes of the inputs; named axes are preferred to unnamed ones."""
    shape = names.shapes[output]
    axes: list[AxisNode | None] = [None] * len(shape)
    for number in inputs:
        given = names.of(number)
        for position, axis in zip(range(len(shape) - 1, -1, -1), reversed(given), strict=False):
            here = axes[position]
            if not same_size(axis.root.size, shape[position]):
                continue
            if here is None:
                axes[position] = axis
            else:
                unify(here, axis)
                axes[position] = axis if here.label() is None and axis.label() is not None else here
    names.put(output, [axis or AxisNode(size) for axis, size in zip(axes, shape, strict=True)])


@rule("abs neg pos invert round floor ceil trunc", special=True)
@rule(
    "negative positive exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos atan",
    "sinh cosh tanh asinh acosh atanh sigmoid expit logit erf erfc erfinv sign sgn frac relu relu6 gelu silu mish elu",
    "selu celu leaky_relu softplus softsign hardtanh hardsigmoid hardswish logsigmoid tanhshrink softshrink",
    "hardshrink threshold logical_not bitwise_not isnan isinf isfinite isneginf isposinf nan_to_num digamma lgamma",
    "sinc i0 deg2rad rad2deg",
    "clone detach contiguous to type type_as float double half bfloat16 int long short bool byte char cpu cuda alias",
    "fill zero zeros_like ones_like full_like empty_like conj resolve_conj resolve_neg real imag angle",
    also=[
        torch.Tensor.real.__get__,  # pyright: ignore[reportAttributeAccessIssue]
        torch.Tensor.imag.__get__,  # pyright: ignore[reportAttributeAccessIssue]
        torch.Tensor.data.__get__,  # pyright: ignore[reportAttributeAccessIssue]
    ],
)
def elementwise(operation: Operation, names: Names) -> None:
    """Each element of the output depends on one element of the input, so all axes are kept."""
    _keep_axes(operation, names)


@rule(
    "dropout alpha_dropout feature_alpha_dropout dropout1d dropout2d dropout3d feature_dropout native_dropout",
    "bernoulli rrelu rand_like randn_like randint_like normal uniform",
)
def random(operation: Operation, names: Names) -> None:
    """The output is drawn at random, and has the axes of the first tensor."""
    _keep_axes(operation, names)


@rule(
    "masked_scatter tril triu flip fliplr flipud roll renorm scatter scatter_add scatter_reduce index_add index_copy",
    "index_fill index_put put cumsum cumprod cummax cummin logcumsumexp",
    also=[returning_first(torch.Tensor.__setitem__)],
)
def by_position(operation: Operation, names: Names) -> None:
    """What the output is depends on positions or other elements along an axis, but all axes are kept."""
    _keep_axes(operation, names)


def _keep_axes(operation: Operation, names: Names) -> None:
    """Give the outputs the axes of the first tensor; an output of another rank is left unnamed."""
    axes = names.of(operation.inputs[0])
    for output in operation.outputs:
        if len(names.shapes[output]) == len(axes):
            names.put(output, axes)


@rule("prelu")
def prelu(operation: Operation, names: Names) -> None:
    """All axes are kept; the axis of the slopes is the channel axis, the second."""
    axes, slopes = (names.of(number) for number in operation.inputs[:2])
    if len(axes) > 1 and slopes:
        unify(axes[1], slopes[0])
    names.put(operation.outputs[0], axes)


@rule("broadcast_tensors meshgrid")
def broadcasting_together(operation: Operation, names: Names) -> None:
    """Each output of broadcast_tensors has the broadcast axes of all inputs; of meshgrid, the axis of every vector."""
    if operation.function is torch.broadcast_tensors:
        for output in operation.outputs:
            broadcast(operation.inputs, output, names)
        return
    every = [axis for number in operation.inputs for axis in names.of(number) or [AxisNode(1)]]
    if operation.kwargs.get("indexing") == "xy":
        every[:2] = every[1::-1]
    for output in operation.outputs:
        names.put(output, every)


@rule("view_as_real")
def real_pairs(operation: Operation, names: Names) -> None:
    """The output has one more axis, of size 2: the real and the imaginary part."""
    names.put(operation.outputs[0], [*names.of(operation.inputs[0]), AxisNode(2)])


@rule("view_as_complex")
def complex_from_pairs(operation: Operation, names: Names) -> None:
    """The last axis, of size 2, is removed."""
    names.put(operation.outputs[0], names.of(operation.inputs[0])[:-1])
