"""Placement rules: over which of its axes the outputs of an operation are split, from how its inputs are.

A rule is about one axis of the mesh. It takes the dimension along which each input is split, and returns that of each
output: a number, None for a tensor that is whole on every rank, or `PARTIAL` where each rank has a summand of it. An
operation is recognised by the rule that names its axes (`circuits.naming.rules`). What has no rule may read tensors
that are whole, and nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from circuits.diagram import Box, Struct, Value, operation_name
from circuits.naming import Operation, naming_rule
from circuits.sharding.following import NoPlacementError, blocks_of, inside, moved

PARTIAL = "partial"
Dim = int | None | Literal["partial"]


@dataclass(frozen=True)
class Step:
    """One operation, and the dimension along which a mesh axis splits each of its inputs.

    Attributes:
        box: The box of the operation.
        operation: Its call.
        dims: The dimension along which each input is split, by the number of its value; whole tensors are left out.
        ranks: The size of the mesh axis.
        split_too: Called with an input that is whole, and the dimension along which the others are split. A parameter
            without names is then split there as well; of a tensor that needs no gradient each rank takes its part; and
            anything else is refused.
    """

    box: Box
    operation: Operation
    dims: Mapping[int, int]
    ranks: int
    split_too: Callable[[Value, int], None]

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The input tensors, in the order of the arguments."""
        known = {value.number: value for value in self.box.inputs}
        return tuple([known[number] for number in self.operation.inputs if number in known])

    def dim(self, place: int) -> int | None:
        """The dimension along which an input is split."""
        return self.dims.get(self.inputs[place].number)

    def all(self, dim: Dim) -> list[Dim]:
        """The same for every output."""
        return [dim for _ in self.box.outputs]


Rule = Callable[[Step], list[Dim]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Return a decorator that registers the rule of the operations whose axes these naming rules name."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(" ".join(names).split(), function))
        return function

    return register


def operation_of(box: Box) -> Operation:
    """Return the call of a box, as naming rules take it."""
    call: Any = box.call
    args = call.args.parts if isinstance(call.args, Struct) else call.args
    kwargs = dict(zip(call.kwargs.keys, call.kwargs.parts, strict=True)) if call.kwargs else {}
    return Operation(call.function, tuple(args), kwargs, call.result)


def outputs_of(step: Step) -> list[Dim]:
    """Return how each output of an operation is split.

    Raises:
        NoPlacementError: The operation has no rule for inputs that are split in this way.
    """
    if not step.dims:
        return step.all(None)
    name = rule_of(step.operation)
    if name not in RULES:
        raise NoPlacementError(f"{operation_name(step.operation.function)} has no placement rule")
    blocks = {blocks_of(dim) for dim in step.dims.values()}
    if len(blocks) > 1 or (blocks != {1} and name in AS_A_WHOLE):
        raise NoPlacementError("an input is split inside a group of axes, of which each rank has a part of each block")
    found = RULES[name](step)
    if RULES[name] is moving:
        return found
    return [inside(dim, *blocks) if isinstance(dim, int) else dim for dim in found]


def rule_of(operation: Operation) -> str:
    """Return the name of the rule that an operation has, or would have."""
    return naming_rule(operation.function) or operation_name(operation.function)


def moves_elements(box: Box) -> bool:
    """Return whether an operation only moves the elements of one tensor, as a view does."""
    return RULES.get(rule_of(operation_of(box))) is moving and len(box.inputs) == 1


AS_A_WHOLE = frozenset(["rearrange", "repeat", "embedding", "attention"])
"""The rules that are not about an axis that is split inside a group."""


@rule("broadcasting elementwise random")
def elementwise(step: Step) -> list[Dim]:
    """Each element depends on those at its own place, with the inputs broadcast, aligned at the right."""
    if "reduction" in step.operation.kwargs or "loss" in operation_name(step.operation.function):
        raise NoPlacementError("a loss is a mean over all elements")
    from_right = {len(value.axes) - step.dims[value.number] for value in step.inputs if value.number in step.dims}
    if len(from_right) > 1:
        raise NoPlacementError("its inputs are split along different axes")
    (place,) = from_right
    for value in step.inputs:
        if value.number not in step.dims and len(value.axes) >= place and value.sizes[-place] != 1:
            step.split_too(value, len(value.axes) - place)
    return [len(value.axes) - place for value in step.box.outputs]


@rule("linear")
def linear(step: Step) -> list[Dim]:
    """x[..., i] W[o, i] + b[o]: columns of W give columns of the output, rows of W a sum over ranks."""
    source, weight = step.dim(0), step.dim(1)
    last = len(step.inputs[0].axes) - 1
    if weight is None:
        if source != last:
            return [source]
        step.split_too(step.inputs[1], 1)
        return [PARTIAL]
    if weight == 0:
        if source is not None:
            raise NoPlacementError("its input and its weight are both split over this mesh axis")
        if len(step.inputs) > 2 and step.dim(2) is None:
            step.split_too(step.inputs[2], 0)
        return [last]
    if source != last:
        raise NoPlacementError("its weight is split along the axis that it contracts, and its input is whole there")
    return [PARTIAL]


@rule("matmul")
def matmul(step: Step) -> list[Dim]:
    """a[..., i, j] b[..., j, k]: leading axes are broadcast, and j is summed."""
    left, right = (len(value.axes) for value in step.inputs[:2])
    result = len(step.box.outputs[0].axes)
    a, b = step.dim(0), step.dim(1)
    contracted = (a is not None and a == left - 1, b is not None and b == max(right - 2, 0))
    if any(contracted):
        if not contracted[0]:
            step.split_too(step.inputs[0], left - 1)
        if not contracted[1]:
            step.split_too(step.inputs[1], max(right - 2, 0))
        return [PARTIAL]
    rows, columns = (a is not None and a == left - 2), (right > 1 and b is not None and b == right - 1)
    if rows or columns:
        if a is not None and b is not None:
            raise NoPlacementError("its inputs are split along different axes")
        return [result - 1 if columns else result - (2 if right > 1 else 1)]
    leading = {size - dim for size, dim in ((left, a), (right, b)) if dim is not None}
    if len(leading) > 1:
        raise NoPlacementError("its inputs are split along different axes")
    (place,) = leading
    for value, dim in zip(step.inputs[:2], (a, b), strict=True):
        if dim is None and len(value.axes) >= place and value.sizes[-place] != 1:
            step.split_too(value, len(value.axes) - place)
    return [result - place]


@rule("einsum torch_einsum")
def einsum(step: Step) -> list[Dim]:
    """Axes that the output lacks are summed; the others are kept."""
    labels = {step.inputs[place].axes[dim] for place in range(len(step.inputs)) if (dim := step.dim(place)) is not None}
    if None in labels or len(labels) > 1:
        raise NoPlacementError(f"its inputs are split along different axes, {' and '.join(sorted(map(str, labels)))}")
    (label,) = labels
    kept = _places(step.box.outputs[0], label)
    for value in step.inputs:
        for dim in _places(value, label):
            if value.number not in step.dims:
                step.split_too(value, dim)
    if len(kept) > 1:
        raise NoPlacementError(f"its output has {label} twice")
    return [kept[0] if kept else PARTIAL]


def _places(value: Value, label: str | None) -> list[int]:
    return [place for place, each in enumerate(value.axes) if each == label]


@rule(
    "rearrange repeat reshape permute transpose transposed_matrix adjoint reverse_axes movedim squeeze unsqueeze",
    "expand index select narrow stack cat split unbind hstack vstack expand_as diagonal index_select",
)
def moving(step: Step) -> list[Dim]:
    """The axis that is split has to be in each output, whole or as first of a group: by its name, else by identity."""
    dims, *others = [moved(step, value) for value in step.inputs if value.number in step.dims]
    if any(list(map(repr, each)) != list(map(repr, dims)) for each in others):
        raise NoPlacementError("its inputs are split along different axes")
    for value in step.inputs:
        if value.number not in step.dims and value.role != "constant" and value.dtype.is_floating_point:
            raise NoPlacementError("one of its inputs is split and one is whole")
    return [*dims]


@rule("softmax sort gumbel_softmax normalize glu")
def along_one_axis(step: Step) -> list[Dim]:
    """Elements along one axis are compared or normalized, so that it has to be whole."""
    dim = step.dim(0)
    axes = step.inputs[0].axes
    note = step.box.label.partition(" over ")[2].split()
    if dim is None or not note:
        raise NoPlacementError("it reads along an axis that is not known")
    if axes[dim] in note or axes[dim] is None:
        raise NoPlacementError(f"it reads across {axes[dim] or 'that axis'}")
    return step.all(dim)


@rule("layer_norm")
def layer_norm(step: Step) -> list[Dim]:
    """The last axes are normalized, so that they have to be whole."""
    dim, rank = step.dim(0), len(step.inputs[0].axes)
    shape = step.operation.get(1, "normalized_shape")
    count = len(shape) if isinstance(shape, list) else 1
    if dim is None or dim >= rank - count:
        raise NoPlacementError("it reads across the axes that it normalizes")
    return step.all(dim)


@rule("reduction reduce")
def reduction(step: Step) -> list[Dim]:
    """Sums may be split; what else reads across an axis needs it whole."""
    dim = step.dim(0)
    value, output = step.inputs[0], step.box.outputs[0]
    if dim is None:
        raise NoPlacementError("it reads a tensor that is split beside the one that it reduces")
    kept = [place for place, label in enumerate(output.axes) if label is not None and label == value.axes[dim]]
    if value.axes[dim] is None and len(output.axes) != len(value.axes):
        raise NoPlacementError("the axis along which its input is split has no name")
    if len(kept) == 1 and value.sizes[dim] == output.sizes[kept[0]]:
        return step.all(kept[0])
    if operation_name(step.operation.function) == "sum":
        return step.all(PARTIAL)
    raise NoPlacementError(f"it reads across {value.axes[dim] or 'that axis'}")


@rule("embedding")
def embedding(step: Step) -> list[Dim]:
    """Columns of the table give columns of the output; rows of it a sum over ranks, each row on one."""
    tokens, table = step.dim(0), step.dim(1)
    if tokens is not None and table is not None:
        raise NoPlacementError("its indices and its table are both split over this mesh axis")
    if table is None:
        return [tokens]
    return [len(step.box.outputs[0].axes) - 1 if table == 1 else PARTIAL]


@rule("attention")
def attention(step: Step) -> list[Dim]:
    """Heads and leading axes are independent; queries, keys and channels have to be whole."""
    dims = [step.dim(place) for place in range(3)]
    if dims[0] is not None and dims[1:] == [None, None]:
        for each in step.inputs[1:3]:
            step.split_too(each, dims[0])
        dims = dims[:1] * 3
    if len(set(dims)) != 1 or dims[0] is None or dims[0] >= len(step.inputs[0].axes) - 2:
        raise NoPlacementError("it is split along queries, keys or channels, or in only one of them")
    place = len(step.inputs[0].axes) - dims[0]
    for mask in step.inputs[3:]:
        if mask.number not in step.dims and len(mask.axes) >= place and mask.sizes[-place] != 1:
            step.split_too(mask, len(mask.axes) - place)
    return [dims[0]]


@rule("convolution transposed_convolution pool adaptive batch_norm group_norm interpolate")
def images(step: Step) -> list[Dim]:
    """The first axis, the batch, is independent, but for batch normalisation in train mode; windows read the others."""
    if step.dims.keys() - {step.inputs[0].number}:
        raise NoPlacementError("its parameters are split")
    rank, dim = len(step.inputs[0].axes), step.dim(0)
    if dim != 0 or rank < 2:
        raise NoPlacementError(f"it reads across {step.inputs[0].axes[dim or 0] or 'the axis that is split'}")
    return step.all(0)


__all__ = ["PARTIAL", "Dim", "NoPlacementError", "Step", "moves_elements", "operation_of", "outputs_of", "rule_of"]
