"""The pass of `simplify` that rewrites contractions, box by box in the order of the run."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from circuits.autodiff.rewrites.contractions import (
    Contraction,
    contraction,
    joined,
    not_dearer,
    numel,
    order_of,
    samples,
    transposed,
    written,
)
from circuits.autodiff.rewrites.row_sums import RowSum, exchanged, ran, replaced, row_sums
from circuits.diagram import Box, Value, Wire, wires


def fused(boxes: Sequence[Box], values: dict[int, Value], asked: Iterable[int]) -> list[Box]:
    """Boxes with fewer contractions, beside those that nobody reads any more; `values` gets those that are new.

    `asked` are the values that are read after the last box. Of the boxes given somebody reads every one.
    """
    calls = list(ran(boxes))
    stands = {}
    for found in row_sums(calls, values):
        if _takes_less(found, values):
            stands[id(found.box)] = exchanged(found, values, max(values) + 1)
            values.update({value.number: value for each in stands[id(found.box)] for value in each.outputs})
    boxes = replaced(boxes, stands) if stands else boxes
    return _Fuser(boxes, values, asked).run(boxes, 0)


def _takes_less(found: RowSum, values: dict[int, Value]) -> bool:
    given, factor = values[found.given], values[found.factor]
    return all(2 * numel(given, at) <= numel(factor, at) for at in samples([given, factor]))


class _Fuser:
    """Remembers what made each value, and in which circuit or module that stands."""

    def __init__(self, boxes: Sequence[Box], values: dict[int, Value], asked: Iterable[int]) -> None:
        self.values = values
        calls = list(ran(boxes))
        self.reads = Counter([*asked, *[number for box in calls for number in _read(box)]])
        self.made: dict[int, tuple[Box, int]] = {}

    def run(self, boxes: Sequence[Box], home: int) -> list[Box]:
        """Boxes that stand in one circuit or module, or in its functions."""
        found = []
        for box in boxes:
            if box.call is None:
                inner = self.run(box.boxes, id(box) if box.kind in ("circuit", "module") else home)
                found.append(replace(box, boxes=tuple(inner)))
                continue
            made = self._transpose(box, home) or self._einsum(box, home)
            self.made |= dict.fromkeys(wires(made.call.result), (made, home))  # type: ignore[union-attr]
            found.append(made)
        return found

    def _before(self, number: int, home: int) -> Box | None:
        """The box that made a value, if it stands in the same circuit."""
        box, where = self.made.get(number, (None, home))
        return box if where == home else None

    def _einsum(self, box: Box, home: int) -> Box:
        """An einsum with what its tensors are made of, as far as that costs no more."""
        read = contraction(box, self.values)
        if read is None:
            return box
        changed = False
        settled: set[int] = set()
        while left := [number for number in read.tensors if number not in settled]:
            settled.add(left[0])
            before = self._before(left[0], home)
            wider = None if before is None else self._wider(read, box, before, left[0])
            if wider is not None:
                read, changed = wider, True
        return written(read, box, self.values) if changed else box

    def _wider(self, read: Contraction, box: Box, before: Box, number: int) -> Contraction | None:
        """A contraction that reads what a tensor was made of."""
        source = _transpose_of(before, self.values)
        if source is not None and before.call.autocast is None and (before.call.gradient or not box.call.gradient):  # type: ignore[union-attr]
            return transposed(read, number, *source)
        inner = contraction(before, self.values)
        if inner is None or self.reads[number] != 1 or before.call.gradient != box.call.gradient:  # type: ignore[union-attr]
            return None
        whole = joined(read, inner, number)
        return whole if not_dearer(whole, [read, inner], self.values) else None

    def _transpose(self, box: Box, home: int) -> Box | None:
        """The transpose of an einsum that nobody else reads, as an einsum."""
        source = _transpose_of(box, self.values)
        before = None if source is None else self._before(source[0], home)
        if source is None or before is None or self.reads[source[0]] != 1:
            return None
        inner = contraction(before, self.values)
        if inner is None or before.call.gradient != box.call.gradient:  # type: ignore[union-attr]
            return None
        return written(replace(inner, out=tuple([inner.out[place] for place in source[1]])), box, self.values)


def _transpose_of(box: Box, values: dict[int, Value]) -> tuple[int, list[int]] | None:
    """The tensor that a box transposes, and the order in which it puts the axes."""
    call = box.call
    if call is None or not call.args.parts or not isinstance(call.args.parts[0], Wire):
        return None
    source = call.args.parts[0].number
    if len(box.outputs) != 1 or source not in values or len(values[source].sizes) != len(box.outputs[0].sizes):
        return None
    order = order_of(call, len(box.outputs[0].sizes))
    return None if order is None else (source, order)


def _read(box: Box) -> tuple[int, ...]:
    call = box.call
    return () if call is None else (*wires(call.args), *wires(call.kwargs))


__all__ = ["fused"]
