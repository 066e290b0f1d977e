"""simplify: the same diagram with less in it. What nobody reads goes, what is reckoned twice is reckoned once.

Only operations that do nothing but give an answer are touched: what draws random numbers, writes, or keeps statistics
stays where it is. The meaning does not change. The numbers change by rounding where contractions are joined.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch._ops import OpOverload

from circuits.autodiff.ports import flow, inside
from circuits.autodiff.rewrites.contractions import order_of
from circuits.autodiff.rewrites.fusion import fused
from circuits.autodiff.rules.registry import RULES
from circuits.autodiff.workspace import renumbered
from circuits.diagram import Box, Call, Diagram, Scalar, Struct, Value, Wire, change, mutates, operation_name, wires


def simplify(diagram: Diagram) -> Diagram:
    """The diagram without boxes that nobody reads, equal boxes as one, and without what changes nothing.

    What goes: boxes whose results nobody reads; the second of two boxes that do the same with the same values; views
    and copies that leave a tensor as it is, a product with 1, a transpose that undoes another. An einsum of an einsum
    becomes one where nobody else reads what is in between, both stand in one circuit or module, and that costs no more
    (free axes are tried small and large); it reads tensors themselves and not their transposes. A sum of a product is
    had from a contraction that is there before it, where that takes less: in attention's backward, the sum of P∘dP
    from O. What runs whole stays as it is. A view is taken by `reshape`, for what goes may have laid a tensor out anew.

    >>> from circuits import backward
    >>> twice = backward(lambda x: x.exp() * x.exp(), torch.ones(2))
    >>> [len([box for box in each.walk() if box.call]) for each in (twice, simplify(twice))]
    [8, 4]
    """
    if diagram.box.call is not None:
        return diagram
    found = _Simplifier(diagram)
    boxes = found.merged(diagram.box.boxes)
    result = change(diagram.result, found.wire, _same, make=False)
    boxes, _ = _needed(boxes, set(wires(result)))
    if found.quiet:
        boxes, _ = _needed(fused(boxes, found.values, wires(result)), set(wires(result)))
    values = found.values | inside([diagram.box])
    outputs = [values[found.now(value.number)] for value in diagram.outputs]
    box = replace(
        diagram.box,
        boxes=tuple(_ported(boxes, set(wires(result)), found.values)),
        outputs=tuple([replace(new, axes=old.axes) for old, new in zip(diagram.outputs, outputs, strict=True)]),
    )
    return replace(diagram, box=box, result=result)


class _Simplifier:
    """Goes through boxes in order; `numbers` says which earlier value stands for one that went."""

    def __init__(self, diagram: Diagram) -> None:
        self.numbers: dict[int, int] = {}
        self.seen: dict[Any, Any] = {}
        self.made_by: dict[int, Call] = {}
        self.values: dict[int, Value] = {value.number: value for value in diagram.inputs}
        self.quiet = not any(written(box) for box in diagram.walk())
        self.laid_out = any(_reads_layout(box) for box in diagram.walk())

    def now(self, number: int) -> int:
        """The value that stands for this one."""
        return self.numbers.get(number, number)

    def wire(self, wire: Wire) -> Wire:
        """The same for a wire."""
        return Wire(self.now(wire.number))

    def merged(self, boxes: Sequence[Box]) -> list[Box]:
        """The boxes without those whose answer is there already."""
        found = []
        for box in boxes:
            if box.call is None:
                inner = self.merged(box.boxes)
                if inner:
                    found.append(replace(renumbered(replace(box, boxes=()), self.numbers), boxes=tuple(inner)))
                continue
            made = renumbered(_reshaped(box) if self.quiet else box, self.numbers)
            for value in (*made.inputs, *made.outputs):
                self.values.setdefault(value.number, value)
            if not (self.quiet and is_pure(made) and self._known(made)):
                found.append(made)
        return found

    def _known(self, box: Box) -> bool:
        """Whether what a box gives is there already; then that stands for it."""
        call: Any = box.call
        same = self._unchanged(box)
        if same is not None:
            self.numbers[box.outputs[0].number] = same
            return True
        key = (call.function, _key(call.args), _key(call.kwargs), call.autocast, call.gradient)
        before = self.seen.setdefault(key, call.result)
        if before is call.result:
            for number in wires(call.result):
                self.made_by[number] = call
            return False
        self.numbers |= dict(zip(wires(call.result), wires(before), strict=True))
        return True

    def _unchanged(self, box: Box) -> int | None:
        """The value that a box gives as it took it."""
        call: Any = box.call
        if len(box.outputs) != 1 or not call.args.parts or not isinstance(call.args.parts[0], Wire):
            return None
        source = call.args.parts[0].number
        value, out = self.values[source], box.outputs[0]
        alike = (value.sizes, value.dtype) == (out.sizes, out.dtype)
        name, rest = operation_name(call.function), call.args.parts[1:]
        same = name in _SAME_SHAPE or (name in _SAME_NUMBERS and not self.laid_out) or _casts(call)
        by_one = name in ("mul", "div") and rest in ((1,), (1.0,)) and not _named(call.kwargs)
        if alike and (same or by_one) and self._passes(call):
            return source
        before = self.made_by.get(source)
        first = before.args.parts[0] if before is not None and before.args.parts else None
        if before is None or not isinstance(first, Wire) or not (self._passes(call) and self._passes(before)):
            return None
        return first.number if _undoes(call, before, len(value.sizes)) else None

    def _passes(self, call: Call) -> bool:
        """Whether a gradient passes a call, or none comes to it: the call does not hold it back."""
        before = self.made_by.get(call.args.parts[0].number)
        return call.gradient or (before is not None and not before.gradient)


_SAME_SHAPE = frozenset({"alias", "reshape", "view", "flatten", "expand", "broadcast_to"})
"""What leaves a tensor as it is if its shape and dtype stay."""

_SAME_NUMBERS = frozenset({"clone", "contiguous"})
"""What leaves the numbers as they are, but may lay them out otherwise."""


def _casts(call: Call) -> bool:
    """Whether all that a call says is a dtype: no device, say."""
    said = (*call.args.parts[1:], *_named(call.kwargs).values())
    return operation_name(call.function) == "to" and all(isinstance(each, (torch.dtype, bool)) for each in said)


def _reads_layout(box: Box) -> bool:
    """Whether what a call gives depends on how its tensors lie in memory, or may: code that torch does not know."""
    function: Any = box.call.function if box.call is not None else None
    name = operation_name(function) if function is not None else ""
    dtype = name == "view" and any(isinstance(part, torch.dtype) for part in box.call.args.parts)  # type: ignore[union-attr]
    owner = getattr(function, "__self__", None)
    own = isinstance(function, str) or (isinstance(owner, type) and issubclass(owner, torch.autograd.Function))
    return own or dtype or name in ("as_strided", "view_as_complex") or getattr(function, "opaque", False)


def _reshaped(box: Box) -> Box:
    """A view as a reshape, which is one too wherever a view can be, and asks for no layout."""
    call: Any = box.call
    if operation_name(call.function) != "view" or _reads_layout(box):
        return box
    return replace(box, call=replace(call, function=torch.Tensor.reshape))


_NOT_PURE = frozenset(
    [
        "native_dropout",
        "bernoulli",
        "rand_like",
        "randn_like",
        "batch_norm",
        "native_batch_norm",
        "instance_norm",
        "copy",
        "fill",
        "zero",
    ]
)
MAKING = frozenset(["zeros", "ones", "full", "empty", "arange", "scalar_tensor", "new_zeros", "new_ones"])
"""Operations that make a tensor of plain numbers."""


def written(box: Box) -> tuple[int, ...]:
    """The tensors that a box writes to: in place, by a flag that asks for it, or where `out` says."""
    call = box.call
    if call is None or box.mutates:
        return box.mutates
    named = _named(call.kwargs)
    flagged = operation_name(call.function) in _BY_FLAG and any(part is True for part in call.args.parts)
    first = wires(call.args)[:1] if flagged or named.get("inplace") is True else ()
    return (*first, *wires(named.get("out")))


def is_pure(box: Box) -> bool:
    """Whether a box does nothing but give an answer, the same each time."""
    call: Any = box.call
    if written(box) or isinstance(call.function, str) or box.boxes:
        return False
    function, name = call.function, operation_name(call.function)
    if name in _NOT_PURE or mutates(function):
        return False
    if isinstance(function, OpOverload):
        return not function._schema.is_mutable and torch.Tag.nondeterministic_seeded not in function.tags
    return function in RULES or name in RULES or name in MAKING or name in _NAMES


_BY_FLAG = frozenset(
    [
        "relu",
        "relu6",
        "elu",
        "selu",
        "celu",
        "leaky_relu",
        "silu",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "threshold",
        "mish",
        "rrelu",
        "dropout",
        "alpha_dropout",
        "feature_dropout",
    ]
)
"""Functions that write in place if a flag among their arguments says so."""
_NAMES = frozenset(
    [
        "index",
        "or",
        "and",
        "invert",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "mT",
        "T",
        "truediv",
        "pow",
        "logical_not",
        "argmax",
    ]
)
"""Operations without a rule of their own, or by another name than ATen's."""


def _named(kwargs: Any) -> dict[str, Any]:
    return dict(zip(kwargs.keys, kwargs.parts, strict=True) if isinstance(kwargs, Struct) else kwargs)


def _key(description: Any) -> Any:
    """A description that can be looked up; 1, 1.0 and True are three, 0.0 and -0.0 are two."""
    if isinstance(description, Struct):
        return (description.kind, description.keys, tuple([_key(part) for part in description.parts]))
    if isinstance(description, (tuple, list)) and not isinstance(description, (Wire, Scalar)):
        return (type(description), tuple([_key(part) for part in description]))
    if isinstance(description, dict):
        return (dict, tuple([(name, _key(part)) for name, part in description.items()]))
    if isinstance(description, slice):
        return (slice, _key((description.start, description.stop, description.step)))
    if isinstance(description, (float, complex)):
        return (type(description), repr(description))
    try:
        hash(description)
    except TypeError:
        return id(description)
    return (type(description), description)


def _undoes(call: Call, before: Call, rank: int) -> bool:
    """Whether a transpose undoes the one before it."""
    first, second = order_of(before, rank), order_of(call, rank)
    return first is not None and second is not None and [first[place] for place in second] == list(range(rank))


def _needed(boxes: Sequence[Box], wanted: set[int]) -> tuple[list[Box], set[int]]:
    """The boxes that somebody reads, and those that do more than give an answer."""
    alive, kept = set(wanted), []
    for box in reversed(boxes):
        if box.call is None:
            inner, alive = _needed(box.boxes, alive)
            if inner:
                kept.append(replace(box, boxes=tuple(inner)))
        elif not is_pure(box) or alive & set(wires(box.call.result)):
            alive |= {*wires(box.call.args), *wires(box.call.kwargs)}
            kept.append(box)
    return kept[::-1], alive


def _ported(boxes: Sequence[Box], asked: set[int], values: Mapping[int, Value]) -> list[Box]:
    """Boxes with just what goes in and out of each now."""
    later, found = set(asked), []
    for box in reversed(boxes):
        here = flow([box])
        if box.call is None:
            known = {**values, **inside(box.boxes), **inside([box])}
            into = [number for number in here.read if number in known]
            out = [number for number in here.made if number in later and number in known]
            ports = [tuple([known[number] for number in numbers]) for numbers in (into, out)]
            box = replace(box, inputs=ports[0], outputs=ports[1], boxes=tuple(_ported(box.boxes, set(out), values)))
        later |= set(here.read)
        found.append(box)
    return found[::-1]


def _same(scalar: Scalar) -> Scalar:
    return scalar
