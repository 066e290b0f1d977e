"""A reader for each family of operations; see `reads`."""

import re
from collections.abc import Hashable
from typing import Any

from torch import Tensor as TorchTensor

from circuits.cost.io.reads import Letters, Reads, reader, seen_axes, with_hidden
from circuits.cost.io.steps import Step
from circuits.diagram import Struct, operation_name
from circuits.naming import Operation, canonical_dims
from circuits.verbs import einsum as einsum_verb
from circuits.verbs import rearrange, reduce, repeat

_TERM = re.compile(r"\([^)]*\)|[^\s()]+")
_WORD = re.compile(r"[^\W\d]\w*'*")
"""A term of a pattern, and a name in it."""

# Contractions


@reader("einsum", also=[einsum_verb])
def einsum(operation: Operation, step: Step) -> Reads:
    """An einsum maps over the axes of its output and sums over all others."""
    verb = operation.function is einsum_verb
    pattern = operation.args[-1] if verb else operation.args[0]
    left, arrow, right = pattern.partition("->")
    if not arrow:
        raise ValueError("an einsum without output axes")
    texts = [text.split() if verb else [*text.replace(" ", "").replace("...", "…")] for text in left.split(",")]
    output = right.split() if verb else [*right.replace(" ", "").replace("...", "…")]
    inputs = [_expanded(text, seen_axes(tensor)) for text, tensor in zip(texts, step.inputs, strict=True)]
    return _contraction(step, inputs, _expanded(output, seen_axes(step.outputs[0])))


def _expanded(words: list[str], count: int) -> Letters:
    """Return the letters of a tensor with this many axes; `...` stands for those that no other word names."""
    words = ["…" if word == "..." else word for word in words]
    if "…" not in words:
        return tuple(words)
    at, rest = words.index("…"), count - len(words) + 1
    return (*words[:at], *[("…", place) for place in range(rest, 0, -1)], *words[at + 1 :])


def _contraction(step: Step, inputs: list[Letters], output: Letters) -> Reads:
    letters = with_hidden(step, inputs, [output])
    summed = {letter for each in inputs for letter in each} - {*output}
    return Reads(**letters, folded=dict.fromkeys(summed, ("sum of products",)), linear=True)


@reader("linear")
def linear(operation: Operation, step: Step) -> Reads:
    """A linear map sums over the last axis of its input and of the weight."""
    lead: Letters = tuple([("…", place) for place in range(seen_axes(step.inputs[0]) - 1)])
    out: Letters = ("out",) if seen_axes(step.inputs[1]) == 2 else ()
    inputs = [(*lead, "in"), (*out, "in"), out]
    found = _contraction(step, inputs[: len(step.inputs)], (*lead, *out))
    return found if len(step.inputs) == 2 else _affine(found)


def _affine(found: Reads) -> Reads:
    return Reads(found.inputs, found.outputs, found.folded)


@reader("matmul mm bmm mv dot", also=[TorchTensor.__matmul__, TorchTensor.__rmatmul__])
def matmul(operation: Operation, step: Step) -> Reads:
    """A matrix product sums over the last axis of the first and the second-to-last, or only, axis of the second."""
    ranks = [seen_axes(tensor) for tensor in step.inputs]
    turned = operation.function is TorchTensor.__rmatmul__
    first, second = ranks[::-1] if turned else ranks
    lead = [("…", place) for place in range(max(first, second) - 2, 0, -1)]
    left: Letters = ("in",) if first == 1 else (*lead[len(lead) - (first - 2) :], "row", "in")
    right: Letters = ("in",) if second == 1 else (*lead[len(lead) - (second - 2) :], "in", "column")
    output = (*lead, *["row"] * (first > 1), *["column"] * (second > 1))
    return _contraction(step, [right, left] if turned else [left, right], output)


@reader("addmm")
def addmm(operation: Operation, step: Step) -> Reads:
    """A matrix product to which a tensor is added."""
    bias: Letters = tuple(["row", "column"][2 - seen_axes(step.inputs[0]) :])
    return _affine(_contraction(step, [bias, ("row", "in"), ("in", "column")], ("row", "column")))


# Elementwise operations and moves

_LINEAR_NAMES = (
    "mul multiply neg negative div divide true_divide truediv to type type_as float double half bfloat16 clone "
    "contiguous detach alias dropout"
)
_LINEAR = frozenset(_LINEAR_NAMES.split())


@reader("add sub mul div truediv floordiv mod pow eq ne lt le gt ge and or xor", special=True)
@reader("abs neg pos invert round floor ceil trunc", special=True)
@reader(
    "rsub floor_divide true_divide remainder fmod float_power maximum minimum fmax fmin subtract multiply divide",
    "greater greater_equal less less_equal not_equal logical_and logical_or logical_xor bitwise_and bitwise_or",
    "bitwise_xor atan2 hypot where masked_fill lerp addcmul addcdiv clamp clip clamp_min clamp_max copysign",
    "heaviside logaddexp logaddexp2 xlogy isclose negative positive exp exp2 expm1 log log2 log10 log1p sqrt rsqrt",
    "square reciprocal sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid expit logit erf erfc erfinv",
    "sign sgn frac relu relu6 gelu silu mish elu selu celu leaky_relu softplus softsign hardtanh hardsigmoid hardswish",
    "logsigmoid tanhshrink softshrink hardshrink threshold logical_not bitwise_not isnan isinf isneginf isposinf",
    "isfinite nan_to_num digamma lgamma sinc deg2rad rad2deg dropout clone detach contiguous to type type_as float",
    "double half bfloat16 int long short bool alias zeros_like ones_like full_like empty_like tril triu real imag",
)
def pointwise(operation: Operation, step: Step) -> Reads:
    """An elementwise operation maps over all axes; those of its inputs are aligned at the right."""

    def letters(count: int) -> Letters:
        return tuple(range(-count, 0))

    inputs, outputs = [[letters(seen_axes(each)) for each in side] for side in (step.inputs, step.outputs)]
    name = operation_name(operation.function).strip("_")
    divides = name in ("div", "divide", "true_divide", "truediv") and len(step.inputs) > 1
    return Reads(**with_hidden(step, inputs, outputs), linear=name in _LINEAR and not divides, in_place=True)


@reader(
    "permute transpose swapaxes swapdims t adjoint movedim moveaxis squeeze unsqueeze expand expand_as broadcast_to",
    "view reshape flatten unflatten view_as arange zeros ones full",
    also=[rearrange, repeat, *[getattr(TorchTensor, name).__get__ for name in ("T", "mT", "H", "mH", "data")]],
)
def move(operation: Operation, step: Step) -> Reads:
    """Axes are moved, regrouped, inserted or repeated; each is followed by its name."""
    return _by_name(step)


def _by_name(step: Step) -> Reads:
    nothing: tuple[None, ...] = (None,)
    return Reads(nothing * len(step.inputs), nothing * len(step.outputs), linear=True, in_place=True)


@reader(also=[TorchTensor.__getitem__])
def index(operation: Operation, step: Step) -> Reads:
    """An index of numbers, slices, None and `...`: the axes of whole slices are followed by their names."""
    items = operation.args[1]
    parts = items.parts if isinstance(items, Struct) and items.kind is tuple else (items,)
    if any(isinstance(part, Struct) and part.kind is not slice for part in parts) or len(step.inputs) > 1:
        raise ValueError("indexed by a tensor or a list")
    return _by_name(step)


# Reductions

_RUNNING: dict[str, tuple[str, ...]] = {
    "sum": ("running sum",),
    "mean": ("running sum",),
    "prod": ("running product",),
    "amax": ("running maximum",),
    "amin": ("running minimum",),
    "max": ("running maximum",),
    "min": ("running minimum",),
    "logsumexp": ("running maximum", "running sum"),
    "any": ("running any",),
    "all": ("running all",),
    "count_nonzero": ("running count",),
}
"""The accumulators of each reduction."""


@reader("sum mean prod amax amin max min logsumexp any all count_nonzero")
def reduction(operation: Operation, step: Step) -> Reads:
    """A reduction folds the axes it removes and maps over the others."""
    first, *others = step.inputs
    if others:
        return pointwise(operation, step)
    name = operation_name(operation.function).strip("_")
    count = seen_axes(first)
    dims = operation.get(1, "dim", operation.kwargs.get("axis"))
    removed = canonical_dims(None if isinstance(dims, bool) else dims, count)
    kept = tuple([place for place in range(count) if place not in removed])
    full = tuple([("one", place) if place in removed else place for place in range(count)])
    outputs = [kept if seen_axes(tensor) == len(kept) else full for tensor in step.outputs]
    names = _RUNNING[name] if len(step.outputs) == 1 else (*_RUNNING[name], "its index")
    letters = with_hidden(step, [tuple(range(count))], outputs)
    folded: dict[Hashable, tuple[str, ...]] = dict.fromkeys(removed, names)
    return Reads(**letters, folded=folded, extra=len(names) - len(outputs), linear=name in ("sum", "mean"))


@reader(also=[reduce])
def reduce_verb(operation: Operation, step: Step) -> Reads:
    """`reduce` of einops folds the terms that its output lacks; it reads across a group that is reduced in part."""
    kind: Any = operation.get(2, "reduction")
    left, right = [_TERM.findall(side) for side in operation.args[1].split("->")]
    full, kept = _expanded(left, seen_axes(step.inputs[0])), _expanded(right, seen_axes(step.outputs[0]))
    named = {*_WORD.findall(operation.args[1].partition("->")[2])}
    lost = [term for term in full if term not in kept]
    parts = [term for term in lost if named & {*_WORD.findall(str(term))}]
    folded: dict[Hashable, tuple[str, ...]] = dict.fromkeys(lost, _RUNNING[kind])
    across: dict[Hashable, str] = dict.fromkeys(parts, "a reduction of parts")
    linear = kind in ("sum", "mean")
    return Reads(**with_hidden(step, [full], [kept]), folded=folded, across=across, linear=linear)


# Operations that read across an axis


def _across(step: Step, dims: list[int], what: str, softmax: bool = False) -> Reads:
    """Return the reading of an operation that keeps all axes and reads across these dimensions of its first input."""
    count = seen_axes(step.inputs[0])
    own = tuple(range(count))
    others = [own[count - seen_axes(tensor) :] for tensor in step.inputs[1:]]
    outputs = [own[: seen_axes(tensor)] for tensor in step.outputs]
    across: dict[Hashable, str] = dict.fromkeys(dims, what)
    letters = with_hidden(step, [own, *others], outputs)
    return Reads(**letters, across=across, softmax=dims[0] if softmax and dims else None, in_place=True)


@reader("softmax _softmax")
def softmax(operation: Operation, step: Step) -> Reads:
    """A softmax reads across one axis; of attention it can be streamed with the contraction after it."""
    dim = operation.get(1, "dim")
    if dim is None:
        raise ValueError("no dimension is given")
    return _across(step, canonical_dims(dim, seen_axes(step.inputs[0])), "a softmax", softmax=True)


_ACROSS_DIM = {
    "log_softmax": ("a softmax", 1),
    "softmin": ("a softmax", 1),
    "cumsum": ("a cumulative operation", 1),
    "cumprod": ("a cumulative operation", 1),
    "logcumsumexp": ("a cumulative operation", 1),
    "flip": ("a flip", 1),
    "sort": ("a sort", 1),
    "argsort": ("a sort", 1),
}
"""What each operation is that reads across the axis `dim`, and the position of this argument."""


@reader(" ".join(_ACROSS_DIM))
def along_dim(operation: Operation, step: Step) -> Reads:
    """The operation reads across the axis that `dim` names."""
    what, place = _ACROSS_DIM[operation_name(operation.function).strip("_")]
    dims = operation.get(place, "dim", operation.kwargs.get("dims"))
    if dims is None:
        raise ValueError("no dimension is given")
    return _across(step, canonical_dims(dims, seen_axes(step.inputs[0])), what)


@reader("layer_norm rms_norm")
def norm(operation: Operation, step: Step) -> Reads:
    """A norm reads across its last axes."""
    count = seen_axes(step.inputs[0])
    last = len(operation.sequence(1, "normalized_shape"))
    return _across(step, list(range(count - last, count)), "a norm")


@reader("conv1d conv2d conv3d")
def convolution(operation: Operation, step: Step) -> Reads:
    """A convolution maps over examples and output channels, sums over input channels, and reads windows of space."""
    groups = operation.get(6, "groups", 1)
    space = seen_axes(step.inputs[1]) - 2
    batch: Letters = ("batch",) if seen_axes(step.inputs[0]) == space + 2 else ()
    here, there = [tuple([(side, place) for place in range(space)]) for side in ("space", "window")]
    inputs = [(*batch, "in", *here), ("out", "in", *there), ("out",)][: len(step.inputs)]
    across: dict[Hashable, str] = dict.fromkeys((*here, *there), "a convolution, which reads windows")
    if groups != 1:
        across |= dict.fromkeys(("in", "out"), "a grouped convolution")
    letters = with_hidden(step, inputs, [(*batch, "out", *here)])
    folded: dict[Hashable, tuple[str, ...]] = {} if groups != 1 else {"in": ("sum of products",)}
    return Reads(**letters, folded=folded, across=across)
