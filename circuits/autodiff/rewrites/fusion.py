"""Fusion of contractions, a part of `simplify`: einsums of einsums, transposes and row sums, box by box."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from circuits.autodiff.rewrites.contractions import (
    Contraction,
    as_einsum_box,
    contraction,
    costs_no_more,
    merged,
    numel,
    permutation_of,
    reading_source,
    samples,
)
from circuits.autodiff.rewrites.row_sums import RowSum, leaf_boxes, replacement_boxes, row_sums, with_replacements
from circuits.diagram import Box, Value, Wire, wires


def fused(boxes: Sequence[Box], values: dict[int, Value], wanted: Iterable[int]) -> list[Box]:
    """Return boxes with fewer contractions; boxes whose results became unused are still among them.

    Args:
        boxes: Boxes in the order of the run, none of which is unused.
        values: All values by number; new ones are added.
        wanted: The numbers of the values that are read after the last box.
    """
    calls = list(leaf_boxes(boxes))
    replacements = {}
    for found in row_sums(calls, values):
        if _is_cheaper(found, values):
            replacements[id(found.box)] = replacement_boxes(found, values, max(values) + 1)
            values.update({value.number: value for each in replacements[id(found.box)] for value in each.outputs})
    boxes = with_replacements(boxes, replacements) if replacements else boxes
    return _Fuser(boxes, values, wanted).run(boxes, 0)


def _is_cheaper(found: RowSum, values: dict[int, Value]) -> bool:
    """Return whether G has at most half as many elements as P, at each of the sizes that are tried."""
    given, factor = values[found.given], values[found.factor]
    return all(2 * numel(given, at) <= numel(factor, at) for at in samples([given, factor]))


class _Fuser:
    """Fuses the contractions of one diagram.

    `made` has for each value the box that made it and the id of the circuit or module that this box belongs to; `reads`
    counts how often each value is read.
    """

    def __init__(self, boxes: Sequence[Box], values: dict[int, Value], wanted: Iterable[int]) -> None:
        self.values = values
        calls = list(leaf_boxes(boxes))
        self.reads = Counter([*wanted, *[number for box in calls for number in _read(box)]])
        self.made: dict[int, tuple[Box, int]] = {}

    def run(self, boxes: Sequence[Box], owner: int) -> list[Box]:
        """Return the boxes, fused; `owner` is the id of the innermost circuit or module around them, or 0."""
        found = []
        for box in boxes:
            if box.call is None:
                inner = self.run(box.boxes, id(box) if box.kind in ("circuit", "module") else owner)
                found.append(replace(box, boxes=tuple(inner)))
                continue
            made = self._transpose(box, owner) or self._einsum(box, owner)
            self.made |= dict.fromkeys(wires(made.call.result), (made, owner))  # type: ignore[union-attr]
            found.append(made)
        return found

    def _maker(self, number: int, owner: int) -> Box | None:
        """Return the box that made a value, if it belongs to the same circuit or module."""
        box, where = self.made.get(number, (None, owner))
        return box if where == owner else None

    def _einsum(self, box: Box, owner: int) -> Box:
        """Return an einsum merged with the boxes that made its tensors, as far as that costs no more."""
        read = contraction(box, self.values)
        if read is None:
            return box
        changed = False
        seen: set[int] = set()
        while left := [number for number in read.tensors if number not in seen]:
            seen.add(left[0])
            before = self._maker(left[0], owner)
            wider = None if before is None else self._merged(read, box, before, left[0])
            if wider is not None:
                read, changed = wider, True
        return as_einsum_box(read, box, self.values) if changed else box

    def _merged(self, read: Contraction, box: Box, before: Box, number: int) -> Contraction | None:
        """Return a contraction that reads the inputs of `before` instead of tensor `number`, its output."""
        source = _transpose_of(before, self.values)
        if source is not None and before.call.autocast is None and (before.call.gradient or not box.call.gradient):  # type: ignore[union-attr]
            return reading_source(read, number, *source)
        inner = contraction(before, self.values)
        if inner is None or self.reads[number] != 1 or before.call.gradient != box.call.gradient:  # type: ignore[union-attr]
            return None
        whole = merged(read, inner, number)
        return whole if costs_no_more(whole, [read, inner], self.values) else None

    def _transpose(self, box: Box, owner: int) -> Box | None:
        """Return one einsum for the transpose of an einsum that is not read elsewhere; None for another box."""
        source = _transpose_of(box, self.values)
        before = None if source is None else self._maker(source[0], owner)
        if source is None or before is None or self.reads[source[0]] != 1:
            return None
        inner = contraction(before, self.values)
        if inner is None or before.call.gradient != box.call.gradient:  # type: ignore[union-attr]
            return None
        return as_einsum_box(replace(inner, out=tuple([inner.out[place] for place in source[1]])), box, self.values)


def _transpose_of(box: Box, values: dict[int, Value]) -> tuple[int, list[int]] | None:
    """Return the number of the tensor that a box transposes, and the order of the axes; None for another box."""
    call = box.call
    if call is None or not call.args.parts or not isinstance(call.args.parts[0], Wire):
        return None
    source = call.args.parts[0].number
    if len(box.outputs) != 1 or source not in values or len(values[source].sizes) != len(box.outputs[0].sizes):
        return None
    order = permutation_of(call, len(box.outputs[0].sizes))
    return None if order is None else (source, order)


def _read(box: Box) -> tuple[int, ...]:
    call = box.call
    return () if call is None else (*wires(call.args), *wires(call.kwargs))
