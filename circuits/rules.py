"""How axis names pass through an operation: one rule a kind of operation.

A rule reads the cells of an operation's inputs, gives cells to its outputs, and may return a note for its label
(`over x`). Rules are found by the callable itself, never by a resolved name. An operation without a rule gives its
outputs axes without names.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from circuits.naming import Cell, Meeting, Names, derive, group, prime, quotient, same_size, total, unify
from circuits.signature import Axis, parse_axes
from circuits.structure import Scalar, Struct, Wire, wires


@dataclass(frozen=True)
class Operation:
    """One torch call as it was seen: wires stand for tensors."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """An argument, by place or by name, as plain Python data where it holds no tensor."""
        if name in self.kwargs:
            return _plain(self.kwargs[name])
        return _plain(self.args[place]) if place < len(self.args) else default

    def wire(self, place: int, name: str = "") -> int | None:
        """The number of a tensor argument; None if there is none."""
        found = self.kwargs.get(name) if name in self.kwargs else self.args[place] if place < len(self.args) else None
        return found.number if isinstance(found, Wire) else None

    @property
    def inputs(self) -> tuple[int, ...]:
        """Every tensor that goes in."""
        return wires(Struct(tuple, (), (*self.args, *self.kwargs.values())))

    @property
    def outputs(self) -> tuple[int, ...]:
        """Every tensor that comes out."""
        return wires(self.result)


def _plain(value: Any) -> Any:
    if isinstance(value, Struct) and value.kind in (tuple, list, torch.Size):
        return [_plain(part) for part in value.parts]
    return value.expression if isinstance(value, Scalar) else value


Rule = Callable[[Operation, Names], str | None]
RULES: dict[Any, Rule] = {}


def rule(*spellings: str) -> Callable[[Rule], Rule]:
    """Register a rule for every callable of torch that goes by one of these names, in place or not."""

    def register(function: Rule) -> Rule:
        for name in " ".join(spellings).split():
            for owner in (torch, torch.Tensor, F, torch._C._nn, torch._VF, torch.special):
                for spelling in (name, f"{name}_", f"__{name}__", f"__r{name}__", f"__i{name}__"):
                    found = getattr(owner, spelling, None)
                    if callable(found):
                        RULES.setdefault(found, function)
        return function

    return register


def name_outputs(operation: Operation, names: Names) -> str | None:
    """Give every output of an operation its cells; the note its rule has for the label."""
    found = RULES.get(operation.function)
    note = None
    if found is not None:
        try:
            note = found(operation, names)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
            note = None  # arguments in a shape no rule foresaw: a box with sizes is right, a failed recording is not
    for number in operation.outputs:
        if number not in names.scopes[-1]:
            names.put(number, names.fresh(names.shapes[number]))
    return note


def _axis(dim: Any, rank: int) -> int:
    return int(dim) % rank if rank else 0


def _axes(dims: Any, rank: int) -> list[int]:
    if dims is None or dims == []:
        return list(range(rank))
    return [_axis(dim, rank) for dim in (dims if isinstance(dims, (list, tuple)) else [dims])]


def _over(cells: Sequence[Cell], dims: Iterable[int]) -> str:
    """The note that says along which axes an operation works."""
    words = [cells[dim].label() or str(cells[dim].root.size) for dim in dims]
    return "over " + " ".join(words) if words else ""


# Elementwise and broadcasting arithmetic ---------------------------------------------------------------------------


@rule(
    "add sub mul div truediv floordiv floor_divide rsub remainder fmod mod pow float_power maximum minimum fmax fmin",
    "eq ne lt le gt ge and or xor logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor atan2 hypot",
    "where masked_fill lerp addcmul addcdiv clamp clip clamp_min clamp_max copysign heaviside logaddexp logaddexp2",
    "subtract multiply divide true_divide greater greater_equal less less_equal not_equal xlogy isclose nextafter",
    "abs neg negative pos exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos atan",
    "sinh cosh tanh asinh acosh atanh sigmoid logit erf erfc erfinv sign sgn floor ceil round trunc frac relu relu6",
    "gelu silu mish elu selu celu leaky_relu prelu rrelu softplus softsign hardtanh hardsigmoid hardswish logsigmoid",
    "tanhshrink softshrink hardshrink threshold invert logical_not bitwise_not isnan isinf isfinite nan_to_num digamma",
    "lgamma dropout alpha_dropout feature_alpha_dropout dropout1d dropout2d dropout3d feature_dropout bernoulli",
    "clone detach contiguous to type float double half bfloat16 int long short bool byte char cpu cuda alias copy fill zero requires_grad_",
    "zeros_like ones_like full_like empty_like rand_like randn_like randint_like type_as masked_scatter normal uniform",
    "batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm native_layer_norm native_batch_norm",
    "tril triu flip roll renorm scatter scatter_add index_add index_copy",
    "index_fill masked_fill index_put rot90 sinc i0 deg2rad rad2deg positive view_as_real resolve_conj conj",
)  # fmt: skip
def elementwise(operation: Operation, names: Names) -> None:
    """Axes meet from the right; the output has the names of whichever input is not stretched."""
    for output in operation.outputs:
        shape = names.shapes[output]
        cells: list[Cell | None] = [None] * len(shape)
        for number in operation.inputs:
            given = names.of(number)
            for place, cell in zip(range(len(shape) - 1, -1, -1), reversed(given), strict=False):
                here = cells[place]
                if not same_size(cell.root.size, shape[place]):
                    continue
                if here is None:
                    cells[place] = cell
                else:
                    unify(here, cell)
        names.put(output, [cell or Cell(size) for cell, size in zip(cells, shape, strict=True)])


@rule("softmax log_softmax softmin gumbel_softmax normalize glu sort argsort logcumsumexp cumsum cumprod cummax cummin")
def along_an_axis(operation: Operation, names: Names) -> str | None:
    """The same axes; the note says along which one it works. A halved axis (glu) is derived."""
    default = 1 if operation.function is F.normalize else -1
    dim = operation.get(1, "dim", default)
    if operation.function in (F.normalize, F.gumbel_softmax):
        dim = operation.kwargs.get("dim", default)
    source = operation.inputs[0]
    cells = names.of(source)
    for output in operation.outputs:
        shape = names.shapes[output]
        if len(shape) == len(cells):
            names.put(output, [derive(cell, size) for cell, size in zip(cells, shape, strict=True)])
    if dim is None:
        dim = 0 if len(cells) in (0, 1, 3) else 1
    return _over(cells, [_axis(dim, len(cells))]) if cells else None


# Linear maps -------------------------------------------------------------------------------------------------------


@rule("linear")
def linear(operation: Operation, names: Names) -> None:
    """The last axis becomes the weight's first."""
    source, weight = operation.wire(0, "input"), operation.wire(1, "weight")
    cells, (out, into) = names.of(source), names.of(weight)  # type: ignore[arg-type]
    unify(cells[-1], into)
    names.put(operation.outputs[0], [*cells[:-1], _apart(out, cells[:-1])])


def _apart(cell: Cell, others: Sequence[Cell]) -> Cell:
    """`cell`, or another axis of its size where it stands already: a value has no axis twice by chance."""
    return prime(cell) if any([cell.root is other.root for other in others]) else cell


@rule("matmul mm bmm mv dot vdot inner outer ger")
def matmul(operation: Operation, names: Names) -> None:
    """The last axis of the first meets the last but one of the second."""
    left, right = [list(names.of(number)) for number in operation.inputs[:2]]
    if operation.function in (torch.outer, torch.Tensor.outer, torch.ger, torch.Tensor.ger):
        names.put(operation.outputs[0], [left[0], _apart(right[0], left)])
        return
    if operation.function in (torch.inner, torch.Tensor.inner):
        right = [*right[:-2], right[-1], right[-2]] if len(right) > 1 else right
    if operation.function in (torch.Tensor.__rmatmul__,):
        left, right = right, left
    unify(left[-1], right[-2] if len(right) > 1 else right[-1])
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else []
    batch = _meet(left[:-2], right[:-2], names.shapes[operation.outputs[0]])
    kept = [*batch, *rows]
    names.put(operation.outputs[0], kept + [_apart(column, kept) for column in columns])


def _meet(left: Sequence[Cell], right: Sequence[Cell], shape: Sequence[Any]) -> list[Cell]:
    """Leading axes that broadcast against each other."""
    count = max(len(left), len(right))
    found: list[Cell] = []
    for place in range(count):
        both = [side[place - count + len(side)] for side in (left, right) if place - count + len(side) >= 0]
        fitting = [cell for cell in both if same_size(cell.root.size, shape[place])]
        if len(fitting) == 2:
            unify(*fitting)
        found.append(fitting[0] if fitting else Cell(shape[place]))
    return found


@rule("addmm baddbmm addbmm addmv addr")
def added_matmul(operation: Operation, names: Names) -> None:
    """A matmul of the last two, and a sum."""
    inner = torch.bmm if operation.function in (torch.baddbmm, torch.Tensor.baddbmm) else torch.matmul
    matmul(Operation(inner, operation.args[1:3], {}, operation.result), names)


@rule("bilinear")
def bilinear(operation: Operation, names: Names) -> None:
    """The last axes become the weight's first."""
    names.put(operation.outputs[0], [*names.of(operation.inputs[0])[:-1], names.of(operation.inputs[2])[0]])


@rule("einsum")
def torch_einsum(operation: Operation, names: Names) -> str | None:
    """torch.einsum: letters are names of their own only where nobody has named an axis."""
    equation = operation.get(0, "equation")
    if not isinstance(equation, str) or "->" not in equation:
        return None
    spaced = ", ".join(
        [
            " ".join(part.replace("...", "…").replace(" ", "")).replace("…", "...")
            for part in equation.split("->")[0].split(",")
        ]
    )
    result = " ".join(equation.split("->")[1].replace("...", "…").replace(" ", "")).replace("…", "...")
    pattern(f"{spaced} -> {result}", operation.inputs, {}, operation.outputs, names)
    return f"'{equation}'"


@rule("tensordot")
def tensordot(operation: Operation, names: Names) -> None:
    """The listed axes meet, the others stay in order."""
    dims = operation.get(2, "dims", 2)
    left, right = (names.of(number) for number in operation.inputs[:2])
    pairs = (list(range(len(left) - dims, len(left))), list(range(dims))) if isinstance(dims, int) else dims
    first, second = (_axes(side, len(cells)) for side, cells in zip(pairs, (left, right), strict=True))
    for a, b in zip(first, second, strict=True):
        unify(left[a], right[b])
    kept = [cell for place, cell in enumerate(left) if place not in first]
    others = [cell for place, cell in enumerate(right) if place not in second]
    names.put(operation.outputs[0], kept + [_apart(cell, kept) for cell in others])


def pattern(text: str, inputs: Sequence[int], sizes: dict[str, Any], outputs: Sequence[int], names: Names) -> None:
    """An einops pattern: its letters name what nobody has named, and join what the letters join."""
    left, right = text.split("->")
    meeting = Meeting(local=False, sizes=sizes)
    for axes, number in zip(left.split(","), inputs, strict=False):
        parsed = parse_axes(axes.replace("()", "1"))
        for term in parsed:
            if isinstance(term, Axis) and term.name == "_":
                raise ValueError("an anonymous axis")
        meeting.read(parsed, names.of(number))
    for number in outputs:
        names.put(number, meeting.write(parse_axes(right.replace("()", "1")), names.shapes[number]))


# Attention, embedding, recurrent -----------------------------------------------------------------------------------


@rule("scaled_dot_product_attention")
def attention(operation: Operation, names: Names) -> None:
    """The query's axes, the last from the value."""
    query, key, value = (names.of(number) for number in operation.inputs[:3])
    unify(query[-1], key[-1])
    unify(key[-2], value[-2])
    for side in (key, value):
        for a, b in zip(query[:-2], side[:-2], strict=False):
            unify(a, b)
    names.put(operation.outputs[0], [*query[:-1], value[-1]])


@rule("embedding")
def embedding(operation: Operation, names: Names) -> None:
    """One more axis: the width of the table."""
    numbers = operation.inputs
    tokens, table = (numbers[1], numbers[0]) if operation.function is torch.embedding else numbers[:2]
    names.put(operation.outputs[0], [*names.of(tokens), names.of(table)[-1]])


@rule("one_hot")
def one_hot(operation: Operation, names: Names) -> None:
    """One more axis, of the classes."""
    names.put(operation.outputs[0], names.of(operation.inputs[0]))


@rule("lstm gru rnn_tanh rnn_relu")
def recurrent(operation: Operation, names: Names) -> None:
    """The sequence keeps all axes but its last."""
    cells = names.of(operation.inputs[0])
    names.put(operation.outputs[0], cells[:-1])


# Convolution, pooling, resizing ------------------------------------------------------------------------------------


@rule("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution")
def convolution(operation: Operation, names: Names) -> None:
    """Channels become the weight's; space is kept, halved, cut: whatever the sizes say."""
    cells, weight = names.of(operation.inputs[0]), names.of(operation.inputs[1])
    output = operation.outputs[0]
    shape = names.shapes[output]
    transposed = "transpose" in getattr(operation.function, "__name__", "")
    space = len(weight) - 2
    lead = cells[: len(cells) - space - 1]
    stay, into = (weight[1], weight[0]) if transposed else (weight[0], weight[1])
    channel = cells[len(lead)]
    unify(channel, into)
    out = stay if same_size(stay.root.size, shape[len(lead)]) else Cell(shape[len(lead)])
    out = (
        channel
        if out.plain and same_size(channel.root.size, out.root.size) and _depthwise(operation, shape, len(lead))
        else out
    )
    names.put(output, [*lead, out, *_space(operation, cells, shape, space)])


def _depthwise(operation: Operation, shape: Sequence[Any], channel: int) -> bool:
    return operation.get(6, "groups", 1) == shape[channel] != 1


def _space(operation: Operation, cells: Sequence[Cell], shape: Sequence[Any], space: int) -> list[Cell]:
    """The axes an operation slides over; with stride 1 a border is cut off or added."""
    stride = operation.get(3, "stride", 1)
    strides = stride if isinstance(stride, list) else [stride] * space
    strides = strides if len(strides) == space else [*strides] * space
    found = []
    for cell, size, step in zip(cells[-space:], shape[-space:], strides, strict=True):
        found.append(_slid(cell, size, step))
    return found


def _slid(cell: Cell, size: Any, stride: Any) -> Cell:
    if stride == 1 and not same_size(cell.root.size, size):
        difference = size - cell.root.size
        if isinstance(difference, int) or getattr(difference, "is_Integer", False):
            return derive(cell, size, None, int(difference))
    return derive(cell, size)


@rule(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d lp_pool3d",
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d",
    "adaptive_avg_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices interpolate upsample",
    "fractional_max_pool2d max_unpool1d max_unpool2d max_unpool3d pad constant_pad_nd pixel_shuffle pixel_unshuffle",
    "grid_sample _max_pool1d _max_pool2d _max_pool3d",
)
def resized(operation: Operation, names: Names) -> None:
    """Every axis is kept or comes from the one in its place."""
    cells = names.of(operation.inputs[0])
    name = getattr(operation.function, "__name__", "")
    for output in operation.outputs:
        shape = names.shapes[output]
        if len(shape) == len(cells):
            fixed = "adaptive" in name
            slide = [
                _slid(c, s, 1) if "pad" in name else _pooled(c, s, fixed) for c, s in zip(cells, shape, strict=True)
            ]
            names.put(output, slide)


def _pooled(cell: Cell, size: Any, fixed: bool) -> Cell:
    """A pooled axis; an adaptive pool's size is a number of its own, not a part of what came."""
    return Cell(size) if fixed and not same_size(cell.root.size, size) else derive(cell, size)


# Joining and parting -----------------------------------------------------------------------------------------------


@rule("cat concat concatenate hstack vstack")
def cat(operation: Operation, names: Names) -> str | None:
    """All axes meet but one, which is laid end to end."""
    output = operation.outputs[0]
    shape = names.shapes[output]
    sides = [names.of(number) for number in operation.inputs if len(names.shapes[number]) == len(shape)]
    dim = _axis(operation.get(1, "dim", operation.kwargs.get("axis", 0)), len(shape))
    cells = []
    for place, size in enumerate(shape):
        if place == dim:
            cells.append(total([side[place] for side in sides], size))
        else:
            for side in sides[1:]:
                unify(sides[0][place], side[place])
            cells.append(sides[0][place])
    names.put(output, cells)
    return _over(cells, [dim])


@rule("stack")
def stack(operation: Operation, names: Names) -> None:
    """All axes meet; a new one counts the tensors."""
    output = operation.outputs[0]
    shape = names.shapes[output]
    dim = _axis(operation.get(1, "dim", 0), len(shape))
    sides = [names.of(number) for number in operation.inputs]
    for side in sides[1:]:
        for a, b in zip(sides[0], side, strict=True):
            unify(a, b)
    names.put(output, [*sides[0][:dim], Cell(shape[dim]), *sides[0][dim:]])


@rule("split chunk tensor_split split_with_sizes unsafe_split unsafe_chunk hsplit vsplit")
def split(operation: Operation, names: Names) -> str | None:
    """One axis is cut: into what it was laid together from, if the sizes say so, else into parts."""
    cells = names.of(operation.inputs[0])
    dim = _axis(operation.get(2, "dim", 0), len(cells))
    whole = cells[dim].root
    pieces = whole.parts if whole.join == "+" and len(whole.parts) == len(operation.outputs) else ()
    for place, output in enumerate(operation.outputs):
        size = names.shapes[output][dim]
        piece = pieces[place] if pieces else derive(cells[dim], size)
        names.put(output, [*cells[:dim], piece, *cells[dim + 1 :]])
    return _over(cells, [dim])


@rule("unbind")
def unbind(operation: Operation, names: Names) -> str | None:
    """One axis goes; there is an output for each of its indices."""
    cells = names.of(operation.inputs[0])
    dim = _axis(operation.get(1, "dim", 0), len(cells))
    for output in operation.outputs:
        names.put(output, cells[:dim] + cells[dim + 1 :])
    return _over(cells, [dim])


# Shape changes -----------------------------------------------------------------------------------------------------


@rule("reshape view flatten unflatten view_as reshape_as ravel _unsafe_view")
def reshape(operation: Operation, names: Names) -> None:
    """Axes are grouped and ungrouped where the products of sizes agree."""
    cells = names.of(operation.inputs[0])
    names.put(operation.outputs[0], regroup(cells, names.shapes[operation.outputs[0]]))


def regroup(cells: Sequence[Cell], shape: Sequence[Any]) -> list[Cell]:
    """The cells of the same numbers read with another shape, row by row."""
    found: list[Cell] = []
    sources, targets = [c for c in cells if not same_size(c.root.size, 1)], list(shape)
    while targets:
        size = targets.pop(0)
        if same_size(size, 1):
            one = next((c for c in cells if same_size(c.root.size, 1)), None)
            found.append(one if one is not None and len(cells) == len(shape) else Cell(size))
            continue
        if not sources:
            return [*found, Cell(size), *[Cell(rest) for rest in targets]]
        taken, asked = [sources.pop(0)], [size]
        left, right = taken[0].root.size, size
        while not same_size(left, right):
            if sources and _smaller(left, right):
                taken.append(sources.pop(0))
                left = left * taken[-1].root.size
            elif targets and not _smaller(left, right):
                asked.append(targets.pop(0))
                right = right * asked[-1]
            else:
                return [*found, *[Cell(rest) for rest in (*asked, *targets)]]
        found += _regrouped(taken, asked, left)
    return found


def _regrouped(taken: list[Cell], asked: list[Any], size: Any) -> list[Cell]:
    if len(asked) == 1:
        return [group(taken, size)]
    if len(taken) > 1:
        return [Cell(part) for part in asked]
    parts = taken[0].root.parts if taken[0].root.join == " " else ()
    if parts and len(parts) == len(asked) and all(map(same_size, [part.root.size for part in parts], asked)):
        return list(parts)
    made = [Cell(part) for part in asked]
    if taken[0].plain:
        taken[0].root.parts = tuple(made)
    return made


def _smaller(a: Any, b: Any) -> bool:
    """Whether `b` is `a` times something: the side that must take one more axis."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    ratio = quotient(b, a)
    numerator, denominator = getattr(ratio, "as_numer_denom", lambda: (ratio, 1))()
    return bool(denominator == 1 and numerator != 1)


@rule("permute transpose swapaxes swapdims movedim moveaxis t adjoint numpy_T")
def permute(operation: Operation, names: Names) -> None:
    """The same axes in another order."""
    cells = names.of(operation.inputs[0])
    names.put(operation.outputs[0], [cells[place] for place in _order(operation, len(cells))])


def _order(operation: Operation, rank: int) -> list[int]:
    name = getattr(operation.function, "__name__", "")
    if name == "permute":
        dims = operation.get(1, "dims")
        return _axes(dims if isinstance(dims, list) else [_plain(arg) for arg in operation.args[1:]], rank)
    order = list(range(rank))
    if name in ("t", "adjoint"):
        first, second = (0, 1) if name == "t" else (rank - 2, rank - 1)
        if rank < 2:
            return order
    else:
        keys = ("source", "destination") if name.startswith("move") else ("dim0", "dim1")
        first, second = operation.get(1, keys[0]), operation.get(2, keys[1])
    if name.startswith("move"):
        sources, targets = _axes(first, rank), _axes(second, rank)
        rest = iter([place for place in order if place not in sources])
        return [sources[targets.index(place)] if place in targets else next(rest) for place in order]
    first, second = _axis(first, rank), _axis(second, rank)
    order[first], order[second] = order[second], order[first]
    return order


def turned(operation: Operation, names: Names) -> None:
    """`.T`, `.mT`, `.H`, `.mH`: the last two axes, or all of them, in reverse."""
    cells = names.of(operation.inputs[0])
    every = operation.function in (torch.Tensor.T.__get__, torch.Tensor.H.__get__)
    names.put(operation.outputs[0], cells[::-1] if every else [*cells[:-2], *cells[:-3:-1]])


for _property in (torch.Tensor.T, torch.Tensor.mT, torch.Tensor.H, torch.Tensor.mH):
    RULES[_property.__get__] = turned  # type: ignore[union-attr]
for _property in (torch.Tensor.real, torch.Tensor.imag, torch.Tensor.data):
    RULES[_property.__get__] = elementwise  # type: ignore[union-attr]


@rule("squeeze unsqueeze")
def squeeze(operation: Operation, names: Names) -> None:
    """An axis of size 1 comes or goes."""
    cells, output = list(names.of(operation.inputs[0])), operation.outputs[0]
    rank, shape = len(cells), names.shapes[operation.outputs[0]]
    if "unsqueeze" in operation.function.__name__:
        place = _axis(operation.get(1, "dim"), rank + 1)
        names.put(output, [*cells[:place], Cell(1), *cells[place:]])
        return
    dims = _axes(operation.get(1, "dim"), rank)
    kept = [cell for place, cell in enumerate(cells) if place not in dims or not same_size(cell.root.size, 1)]
    names.put(output, kept if len(kept) == len(shape) else [])


@rule("expand expand_as broadcast_to repeat tile repeat_interleave broadcast_tensors")
def expand(operation: Operation, names: Names) -> None:
    """Axes of size 1 grow into axes without a name; the others stay."""
    for output, source in zip(
        operation.outputs, operation.inputs if len(operation.outputs) > 1 else operation.inputs[:1], strict=False
    ):
        shape, cells = names.shapes[output], names.of(source)
        if len(shape) < len(cells):
            continue
        lead = len(shape) - len(cells)
        grown = [
            Cell(size) if same_size(cell.root.size, 1) else derive(cell, size)
            for cell, size in zip(cells, shape[lead:], strict=True)
        ]
        names.put(output, [*[Cell(size) for size in shape[:lead]], *grown])


@rule("getitem")
def index(operation: Operation, names: Names) -> str | None:
    """Basic and advanced indexing as Python writes it; the label shows the index."""
    cells = list(names.of(operation.inputs[0]))
    described = operation.args[1]
    items = list(described.parts) if isinstance(described, Struct) and described.kind is tuple else (
        list(described) if isinstance(described, tuple) and not isinstance(described, (Wire, Scalar, Struct)) else [described]
    )  # fmt: skip
    note = f"[{', '.join([_written(item) for item in items])}]"
    output = operation.outputs[0]
    shape = list(names.shapes[output])
    used = sum([_takes(item, names) for item in items])
    if Ellipsis in [item for item in items if not isinstance(item, (Wire, Scalar, Struct))]:
        place = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[place : place + 1] = [slice(None)] * (len(cells) - used)
    if any([isinstance(item, Struct) and item.kind is list for item in items]):
        return note
    found: list[Cell] = []
    tensors = [place for place, item in enumerate(items) if isinstance(item, Wire)]
    apart = len(tensors) > 1 and tensors[-1] - tensors[0] >= len(tensors)
    if apart:
        return note
    for item in items:
        if item is None:
            found.append(Cell(1))
        elif isinstance(item, Wire):
            taken = _takes(item, names)
            if item.number == operation_index(items):
                found += (
                    names.of(item.number) if taken == 1 and not _boolean(item, names) else [Cell(shape[len(found)])]
                )
            cells = cells[taken:]
        elif isinstance(item, slice) or (isinstance(item, Struct) and item.kind is slice):
            found.append(derive(cells.pop(0), shape[len(found)]))
        else:
            cells.pop(0)
    names.put(output, [*found, *cells])
    return note


def operation_index(items: Sequence[Any]) -> int | None:
    """The first tensor among the items of an index, which the others are read along with."""
    return next((item.number for item in items if isinstance(item, Wire)), None)


def _boolean(item: Wire, names: Names) -> bool:
    return item.number in names.booleans


def _takes(item: Any, names: Names) -> int:
    """How many axes an item of an index uses up."""
    if item is None or item is Ellipsis:
        return 0
    return len(names.shapes[item.number]) if isinstance(item, Wire) and _boolean(item, names) else 1


def _written(item: Any) -> str:
    """An item of an index as Python writes it."""
    if item is Ellipsis:
        return "..."
    parts = (
        (item.start, item.stop, item.step)
        if isinstance(item, slice)
        else item.parts
        if isinstance(item, Struct) and item.kind is slice
        else None
    )
    if parts is not None:
        words = ["" if part is None else str(_plain(part)) for part in parts]
        return f"{words[0]}:{words[1]}" + (f":{words[2]}" if words[2] else "")
    if isinstance(item, Wire):
        return "tensor"
    if isinstance(item, Struct):
        return f"[{', '.join([_written(part) for part in item.parts])}]"
    return str(_plain(item))


@rule("select narrow index_select take_along_dim gather unfold diagonal diag_embed as_strided")
def picked(operation: Operation, names: Names) -> str | None:
    """Some indices of one axis."""
    cells, name = names.of(operation.inputs[0]), operation.function.__name__
    output = operation.outputs[0]
    shape = names.shapes[output]
    if name in ("diagonal", "diag_embed", "as_strided"):
        return None
    dim = _axis(operation.get(1, "dim" if name != "unfold" else "dimension"), len(cells))
    if name == "select":
        names.put(output, cells[:dim] + cells[dim + 1 :])
    elif name == "unfold" and len(shape) == len(cells) + 1:
        names.put(output, [*cells[:dim], _slid(cells[dim], shape[dim], operation.get(3, "step")), *cells[dim + 1 :]])
    elif len(shape) == len(cells):
        names.put(
            output, [derive(c, s) if place == dim else c for place, (c, s) in enumerate(zip(cells, shape, strict=True))]
        )
    return _over(cells, [dim])


# Reductions --------------------------------------------------------------------------------------------------------


@rule(
    "sum mean prod amax amin max min median nanmedian mode std var std_mean var_mean logsumexp norm all any argmax",
    "argmin nansum nanmean count_nonzero topk kthvalue quantile sum_to_size",
)
def reduction(operation: Operation, names: Names) -> str | None:
    """Some axes go; the note says which."""
    if len(operation.inputs) > 1 and operation.function in _PAIRED:
        elementwise(operation, names)
        return None
    cells = names.of(operation.inputs[0])
    place = 2 if operation.function in (torch.norm, torch.Tensor.norm, torch.topk, torch.Tensor.topk) else 1
    dims = operation.get(place, "dim", operation.kwargs.get("axis"))
    sized = operation.function in (torch.topk, torch.Tensor.topk)
    if isinstance(dims, bool):
        dims = None
    gone = _axes(-1 if sized and dims is None else dims, len(cells))
    for output in operation.outputs:
        shape = names.shapes[output]
        if len(shape) == len(cells):
            names.put(
                output, [Cell(size) if p in gone else c for p, (c, size) in enumerate(zip(cells, shape, strict=True))]
            )
        else:
            names.put(output, [cell for p, cell in enumerate(cells) if p not in gone])
    return _over(cells, gone) if len(gone) < len(cells) else None


_PAIRED = {torch.max, torch.min, torch.Tensor.max, torch.Tensor.min}


@rule("cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy kl_div")
@rule("binary_cross_entropy_with_logits")
def loss(operation: Operation, names: Names) -> None:
    """A number, or what is left where nothing was reduced."""
    shape = names.shapes[operation.outputs[0]]
    cells = names.of(operation.inputs[0])
    if len(shape) == len(cells):
        names.put(operation.outputs[0], cells)
    elif len(shape) == len(cells) - 1 and len(cells) > 1:
        names.put(operation.outputs[0], [cells[0], *cells[2:]])
