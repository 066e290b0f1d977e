"""The partition of a joint graph: which values are saved for backward, and which the reverse pass recomputes.

The reverse pass recomputes the boxes that the caller names, and boxes that cost nothing, such as views.

A softmax whose scores are recomputed is not recomputed as a whole. One number per row is saved, s = logsumexp(score),
and the weights are exp(score - s); the row sum of weights times their cotangents, which the softmax's reverse rule
needs, is computed from the result of the contraction that reads the weights. This is the backward of FlashAttention:
five contractions, and no saved tensor that has an axis for queries and one for keys.

Source: T. Dao et al., FlashAttention, NeurIPS 2022, algorithm 4 and appendix B; T. Chen et al., Training Deep Nets
with Sublinear Memory Cost, 2016.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuits.autodiff.joint import Joint
from circuits.autodiff.ports import axes_outside, flow
from circuits.autodiff.rewrites.purity import CONSTANT_TENSORS, is_pure, written_values
from circuits.autodiff.rewrites.row_sums import leaf_boxes, replacement_boxes, row_sums, with_replacements
from circuits.autodiff.softmax_statistic import from_statistic, is_softmax
from circuits.autodiff.tensors import storage_of
from circuits.diagram import Box, Value, operation_name, wires
from circuits.errors import CircuitError

_VIEWS = frozenset(
    ["permute", "transpose", "swapaxes", "mT", "T", "t", "numpy_T", "unsqueeze", "squeeze", "expand", "view", "alias"]
)
"""Operations that return a view, which costs nothing to recompute."""


@dataclass(frozen=True)
class Partition:
    """The forward pass, the boxes of it that the reverse pass recomputes, and the reverse pass.

    `saved` are the numbers of the values that the recomputed boxes and the reverse pass read from memory;
    `extra_values` are those of `ForwardPass`, with the values that boxes inserted into the forward pass make.
    """

    forward: Box
    recomputed: tuple[Box, ...]
    reverse: tuple[Box, ...]
    saved: frozenset[int]
    extra_values: Mapping[int, Sequence[Value]]


def partition(joint: Joint, names: Sequence[str]) -> Partition:
    """Choose what is recomputed, and return the parts of the joint graph.

    Args:
        joint: The boxes of the forward and the reverse pass.
        names: What to recompute: each an operation (`softmax`), a box and all in it (a module's path, a circuit's
            name), or axes of tensors (`y x`: every tensor that has both).

    Raises:
        CircuitError: A name is none of these, or names an operation whose result may differ when it is recomputed.
    """
    choice = _Choice(joint, names)
    wanted = choice.reads(joint.reverse)
    softmaxes = [
        box for box in choice.named.values() if choice.is_from_statistic(box) and wanted & set(wires(_result(box)))
    ]
    reverse = choice.without_row_sums(softmaxes)
    wanted, boxes = choice.reads(reverse), list[Box]()
    statistics: dict[int, list[Box]] = {}
    for box in reversed(choice.boxes):
        if not wanted & set(wires(_result(box))) or not choice.is_recomputed(box):
            continue
        recomputed = [box]
        if choice.is_from_statistic(box):
            score: Any = box.call.args.parts[0]  # type: ignore[union-attr]
            parts = from_statistic(box, choice.values[score.number], choice.new_number)
            statistics[id(box)], recomputed = parts.forward, parts.recomputed
        wanted = (wanted - set(wires(_result(box)))) | choice.reads(recomputed)
        boxes = [*recomputed, *boxes]
    extra_values = dict(joint.extra_values)
    forward, _ = _with_boxes_after(joint.forward, statistics, extra_values)
    return Partition(forward, tuple(boxes), reverse, frozenset(wanted), extra_values)


class _Choice:
    """Which boxes of the forward pass are recomputed.

    `boxes` are its leaf boxes in order, `named` those that the caller names, by id. `available` are the values that
    exist in the reverse pass without being saved: parameters, buffers, constants, cotangents.
    """

    def __init__(self, joint: Joint, names: Sequence[str]) -> None:
        self.joint = joint
        self.available = {*joint.diagram.state, *joint.constants, *[value.number for value in joint.cotangents]}
        self.boxes = list(leaf_boxes([joint.forward]))
        self.next_number = len(joint.workspace.listener.record.values)
        self.values = {
            number: value for box in (joint.forward, *joint.reverse) for number, value in _values(box).items()
        }
        fakes = joint.workspace.fakes
        self.places = {id(box): place for place, box in enumerate(self.boxes)}
        writes = [(number, place) for place, box in enumerate(self.boxes) for number in written_values(box)]
        self.last_write = {storage_of(fakes[number]): place for number, place in writes if number in fakes}
        self.named = self._named(names)

    def new_number(self) -> int:
        """Return a value number that is not used yet."""
        self.next_number += 1
        return self.next_number - 1

    def reads(self, boxes: Iterable[Box]) -> set[int]:
        """Return the values that some boxes read and that have to be saved or recomputed."""
        return {number for number in flow(boxes).read if number not in self.available}

    def is_recomputed(self, box: Box) -> bool:
        """Return whether a box is named, is a view of a whole tensor, or makes a constant tensor and reads none."""
        if id(box) in self.named:
            return True
        name, read = operation_name(box.call.function), len(flow([box]).read)  # type: ignore[union-attr]
        is_free = (_is_view(box) and read == 1) or (name in CONSTANT_TENSORS and read == 0)
        return is_free and is_pure(box) and not self._is_overwritten(box)

    # Names

    def _named(self, names: Sequence[str]) -> dict[int, Box]:
        """Return the boxes that names stand for, by id."""
        found: dict[int, Box] = {}
        for name in names:
            by_operation = [box for box in self.boxes if name in (box.label, _first_word(box))]
            around = [box for box in _boxes_with_content(self.joint.forward) if name in (box.path, _first_word(box))]
            axes = set(name.split())
            by_axes = [box for box in self.boxes if any(axes <= set(value.axes) for value in box.outputs)]
            inner = list(leaf_boxes(around))
            repeatable = [box for box in inner or by_axes if is_pure(box) and not self._is_overwritten(box)]
            if not by_operation and not inner and not by_axes:
                self._refuse_unknown(name)
            for box in by_operation:
                self._refuse_unrepeatable(box)
            found |= {id(box): box for box in by_operation or repeatable}
        return found

    def _refuse_unknown(self, name: str) -> None:
        """Raise CircuitError for a name that stands for nothing, with the names that exist."""
        words = sorted({_first_word(box) for box in self.boxes})
        boxes = [box.path or _first_word(box) for box in _boxes_with_content(self.joint.forward)]
        boxes = [each for each in dict.fromkeys(boxes) if each != self.joint.diagram.name]
        with_content = f"; its boxes are {', '.join(boxes)}" if boxes else ""
        raise CircuitError(
            f"recompute: {self.joint.diagram.name} has no {name}; its operations are {', '.join(words)}{with_content}; "
            "axes of tensors are named as in 'y x'"
        )

    def _refuse_unrepeatable(self, box: Box) -> None:
        """Raise CircuitError if a box may return another result when it is run again."""
        if not is_pure(box):
            raise CircuitError(
                f"recompute: {box.label} may return another result when it is run again, so its result must be saved"
            )
        if self._is_overwritten(box):
            raise CircuitError(
                f"recompute: an input of {box.label} is overwritten later, so the result of {box.label} must be saved"
            )

    def _is_overwritten(self, box: Box) -> bool:
        """Return whether an input of a box is overwritten after it, so that the box cannot be run again."""
        fakes = self.joint.workspace.fakes
        read = [number for part in (box.call.args, box.call.kwargs) for number in wires(part)]  # type: ignore[union-attr]
        last = [self.last_write.get(storage_of(fakes[number]), -1) for number in read if number in fakes]
        return max(last, default=-1) > self.places[id(box)]

    # Softmax

    def is_from_statistic(self, box: Box) -> bool:
        """Return whether a box is a named softmax whose scores are recomputed from tensors of other sizes."""
        if not is_softmax(box) or id(box) not in self.named:
            return False
        makes = {number: each for each in self.named.values() for number in wires(_result(each))}
        left, seen = [box], set[int]()
        while left:
            fresh = set(flow([left.pop()]).read) - seen
            seen |= fresh
            left += [makes[number] for number in fresh if number in makes]
        return all(self.values[number].sizes != box.outputs[0].sizes for number in seen - makes.keys())

    def without_row_sums(self, softmaxes: Sequence[Box]) -> tuple[Box, ...]:
        """Return the reverse pass without the row sums of products that read the outputs of these softmaxes.

        Such a sum is computed from the result of a contraction of the output instead, unless that is recomputed itself.
        """
        weights = {number for box in softmaxes for number in wires(_result(box))}
        reverse = list(leaf_boxes(self.joint.reverse))
        recomputed = {number for box in self.named.values() for number in wires(_result(box))}
        sums = row_sums([*self.boxes, *reverse], self.values)
        found = {id(each.box): each for each in sums if each.factor in weights and each.contracted not in recomputed}
        replacements = {key: replacement_boxes(each, self.values, self.new_number()) for key, each in found.items()}
        return tuple(with_replacements(self.joint.reverse, replacements)) if replacements else self.joint.reverse


def _is_view(box: Box) -> bool:
    """Return whether the output of a box is a view that has all elements of its input."""
    call: Any = box.call
    if operation_name(call.function) != "index":
        return operation_name(call.function) in _VIEWS
    places = call.args.parts[1]
    return all(place in (None, ..., slice(None)) for place in (places if isinstance(places, tuple) else (places,)))


def _with_boxes_after(
    box: Box, after: Mapping[int, Sequence[Box]], extra_values: dict[int, Sequence[Value]]
) -> tuple[Box, list[Value]]:
    """Return a box with others inserted inside it, and the values that these make, with the axis names outside it.

    Args:
        box: The box to insert into.
        after: The boxes to insert, by the id of the box that they follow.
        extra_values: Updated with the new values.
    """
    boxes: list[Box] = []
    made: list[Value] = []
    for inner in box.boxes:
        if inner.call is None:
            changed, values = _with_boxes_after(inner, after, extra_values)
            boxes.append(changed)
            made += values
        else:
            boxes += [inner, *after.get(id(inner), ())]
            made += [value for each in after.get(id(inner), ()) for value in each.outputs]
    if not made:
        return box, []
    found = replace(box, boxes=tuple(boxes))
    values = list(axes_outside(found, made, {}))
    extra_values[id(found)] = (*extra_values.get(id(box), ()), *values)
    return found, values


def _values(box: Box) -> dict[int, Value]:
    """Return every value of a box and of those inside it, with the axis names of the innermost box that has it."""
    return {value.number: value for each in box.walk() for value in (*each.inputs, *each.outputs)}


def _boxes_with_content(box: Box) -> Iterator[Box]:
    """Yield a box and those inside it, at any depth, that contain boxes instead of a call."""
    if box.call is None:
        yield box
        for inner in box.boxes:
            yield from _boxes_with_content(inner)


def _first_word(box: Box) -> str:
    return box.label.split()[0].rstrip(":") if box.label else ""


def _result(box: Box) -> Any:
    return box.call.result if box.call is not None else None
