"""What runs again on the way back instead of being saved: what is named, and what costs nothing, as views do.

A softmax of scores that run again is not run again whole. One number a row is saved, s = logsumexp(score), and the
weights are exp(score - s); the row sum that its reverse takes of weights times their cotangents is read off what the
weights were contracted to.
That is how FlashAttention goes back: five contractions, and nothing saved that has an axis for each query and key.

Source: T. Dao et al., FlashAttention, NeurIPS 2022, algorithm 4 and appendix B; T. Chen et al., Training Deep Nets
with Sublinear Memory Cost, 2016.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from circuits.autodiff.backward import Made
from circuits.autodiff.ports import flow, outside
from circuits.autodiff.rewrites.row_sums import exchanged, operation, ran, replaced, row_sums
from circuits.autodiff.rewrites.simplify import MAKING, is_pure, written
from circuits.diagram import Box, Value, Wire, operation_name, wires
from circuits.errors import CircuitError

_VIEWS = frozenset(
    ["permute", "transpose", "swapaxes", "mT", "T", "t", "numpy_T", "unsqueeze", "squeeze", "expand", "view", "alias"]
)
"""Operations that move no number: what they give is had again for nothing."""

_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Again:
    """The way there, what runs of it again on the way back, the way back, and what must be saved for both of these."""

    forward: Box
    boxes: tuple[Box, ...]
    reverse: tuple[Box, ...]
    saved: frozenset[int]
    more: Mapping[int, Sequence[Value]]


def again(made: Made, names: Sequence[str]) -> Again:
    """Choose what runs again.

    A name is that of an operation (`softmax`), of a box and all in it (a module's path, a circuit's name), or the axes
    of tensors (`y x`: every tensor that has both). CircuitError where it is none of these, and where what it names by
    its operation would give another answer the second time.
    """
    here = _Again(made, names)
    wanted = here.read(made.reverse)
    softmaxes = [box for box in here.chosen.values() if here.has_statistic(box) and wanted & set(wires(_result(box)))]
    reverse = here.without_row_sums(softmaxes)
    wanted, boxes = here.read(reverse), list[Box]()
    for box in reversed(here.calls):
        if not wanted & set(wires(_result(box))) or not here.runs_again(box):
            continue
        run = here.from_statistic(box) if here.has_statistic(box) else [box]
        wanted = (wanted - set(wires(_result(box)))) | here.read(run)
        boxes = [*run, *boxes]
    more = dict(made.more)
    forward, _ = _with(made.forward, here.statistics, more)
    return Again(forward, tuple(boxes), reverse, frozenset(wanted), more)


class _Again:
    """A choice while it is made. `statistics` are the boxes that the way there has besides its own, by what they
    follow."""

    def __init__(self, made: Made, names: Sequence[str]) -> None:
        self.made = made
        self.there = {*made.diagram.state, *made.constants, *[value.number for value in made.cotangents]}
        self.calls = list(ran([made.forward]))
        self.statistics: dict[int, list[Box]] = {}
        self.free = len(made.bench.listener.record.values)
        self.values = {number: value for box in (made.forward, *made.reverse) for number, value in _values(box).items()}
        fakes = made.bench.fakes
        self.places = {id(box): place for place, box in enumerate(self.calls)}
        writes = [(number, place) for place, box in enumerate(self.calls) for number in written(box)]
        self.written = {_storage(fakes[number]): place for number, place in writes if number in fakes}
        self.chosen = self._chosen(names)

    def number(self) -> int:
        """A number that no value has."""
        self.free += 1
        return self.free - 1

    def read(self, boxes: Iterable[Box]) -> set[int]:
        """What some boxes read of what is not there anyway."""
        return {number for number in flow(boxes).read if number not in self.there}

    # What is named

    def _chosen(self, names: Sequence[str]) -> dict[int, Box]:
        found: dict[int, Box] = {}
        for name in names:
            by_operation = [box for box in self.calls if name in (box.label, _word(box))]
            around = [box for box in _opened(self.made.forward) if name in (box.path, _word(box))]
            axes = set(name.split())
            by_axes = [box for box in self.calls if any(axes <= set(value.axes) for value in box.outputs)]
            inner = list(ran(around))
            chosen = by_operation or [box for box in inner or by_axes if is_pure(box) and not self._is_written(box)]
            if not by_operation and not inner and not by_axes:
                self._refuse(name)
            for box in by_operation:
                self._vouch(box)
            found |= {id(box): box for box in chosen}
        return found

    def _refuse(self, name: str) -> None:
        words = sorted({_word(box) for box in self.calls})
        boxes = [box.path or _word(box) for box in _opened(self.made.forward)]
        boxes = [each for each in dict.fromkeys(boxes) if each != self.made.diagram.name]
        within = f"; and inside it {', '.join(boxes)}" if boxes else ""
        raise CircuitError(
            f"recompute: {self.made.diagram.name} has no {name}; there are {', '.join(words)}{within}; or name axes "
            "that the tensors have, as 'y x'"
        )

    def _vouch(self, box: Box) -> None:
        """CircuitError unless a box gives the same the second time."""
        if not is_pure(box):
            raise CircuitError(f"recompute: {box.label} may give another answer the second time, so it is to be saved")
        if self._is_written(box):
            raise CircuitError(f"recompute: what {box.label} reads is written over later, so its answer is to be saved")

    def _is_written(self, box: Box) -> bool:
        """Whether what a box reads is written over later, and so is not there when it runs again."""
        fakes = self.made.bench.fakes
        read = [number for part in (box.call.args, box.call.kwargs) for number in wires(part)]  # type: ignore[union-attr]
        last = [self.written.get(_storage(fakes[number]), -1) for number in read if number in fakes]
        return max(last, default=-1) > self.places[id(box)]

    def runs_again(self, box: Box) -> bool:
        """Whether it was named, is a view of all of a tensor, or a tensor of plain numbers, made of no other."""
        if id(box) in self.chosen:
            return True
        name, read = operation_name(box.call.function), len(flow([box]).read)  # type: ignore[union-attr]
        free = (_is_view(box) and read == 1) or (name in MAKING and read == 0)
        return free and is_pure(box) and not self._is_written(box)

    # A softmax

    def has_statistic(self, box: Box) -> bool:
        """Whether a box is a softmax of scores that run again too, from tensors of other sizes than theirs."""
        if not _is_softmax(box) or id(box) not in self.chosen:
            return False
        makes = {number: each for each in self.chosen.values() for number in wires(_result(each))}
        left, seen = [box], set[int]()
        while left:
            fresh = set(flow([left.pop()]).read) - seen
            seen |= fresh
            left += [makes[number] for number in fresh if number in makes]
        return all(self.values[number].sizes != box.outputs[0].sizes for number in seen - makes.keys())

    def without_row_sums(self, softmaxes: Sequence[Box]) -> tuple[Box, ...]:
        """The way back, where no row sum reads the weights of these: it is had of what they were contracted to."""
        weights = {number for box in softmaxes for number in wires(_result(box))}
        reverse = list(ran(self.made.reverse))
        again = {number for box in self.chosen.values() for number in wires(_result(box))}
        sums = row_sums([*self.calls, *reverse], self.values)
        found = {id(each.box): each for each in sums if each.factor in weights and each.answer not in again}
        stands = {key: exchanged(each, self.values, self.number()) for key, each in found.items()}
        return tuple(replaced(self.made.reverse, stands)) if stands else self.made.reverse

    def from_statistic(self, box: Box) -> list[Box]:
        """The weights again, of their scores and one number a row, which the way there finds besides."""
        call: Any = box.call
        score, weight = self.values[call.args.parts[0].number], box.outputs[0]
        dim: Any = _dim(box)
        place = dim % len(score.sizes)
        axes, sizes = [(*each[:place], one, *each[place + 1 :]) for each, one in ((score.axes, None), (score.sizes, 1))]
        high = replace(score, number=self.number(), dtype=torch.float32, role="made", name="")
        halves = score.dtype in _HALVES
        exact = high if halves else score
        up = [operation("to", torch.Tensor.to, (Wire(score.number), torch.float32), [score], high, call)] * halves
        statistic = replace(exact, number=self.number(), axes=axes, sizes=sizes, role="made", name="")
        over = f"logsumexp over {score.axes[place] or '...'}"
        args = (Wire(exact.number), dim, True)
        found = operation(over, torch.logsumexp, args, [exact], statistic, call)
        self.statistics[id(box)] = [*up, found]
        less = replace(exact, number=self.number(), role="made", name="")
        last = replace(less, number=self.number()) if halves else weight
        down = [operation("to", torch.Tensor.to, (Wire(last.number), weight.dtype), [last], weight, call)] * halves
        args = (Wire(exact.number), Wire(statistic.number))
        return [
            *up,
            operation("sub", torch.sub, args, [exact, statistic], less, call),
            operation("exp", torch.exp, (Wire(less.number),), [less], last, call),
            *down,
        ]


def _is_view(box: Box) -> bool:
    """Whether a box gives all numbers of a tensor in another shape, and copies none."""
    call: Any = box.call
    if operation_name(call.function) != "index":
        return operation_name(call.function) in _VIEWS
    places = call.args.parts[1]
    return all(place in (None, ..., slice(None)) for place in (places if isinstance(places, tuple) else (places,)))


def _is_softmax(box: Box) -> bool:
    """Whether a box is a softmax that gives the dtype it takes."""
    call: Any = box.call
    if call is None or operation_name(call.function) not in ("softmax", "_softmax") or call.autocast is not None:
        return False
    return len(box.inputs) == 1 and box.inputs[0].dtype == box.outputs[0].dtype and _dim(box) is not None


def _dim(box: Box) -> int | None:
    """The place of the axis that a softmax is over."""
    call: Any = box.call
    named = dict(zip(call.kwargs.keys, call.kwargs.parts, strict=True))
    dim = call.args.parts[1] if len(call.args.parts) > 1 else named.get("dim")
    return dim if type(dim) is int and box.inputs[0].sizes else None


def _with(box: Box, after: Mapping[int, Sequence[Box]], more: dict[int, Sequence[Value]]) -> tuple[Box, list[Value]]:
    """A box with others inside it, each after the one it follows, and what they make, as it is called around it."""
    boxes: list[Box] = []
    made: list[Value] = []
    for inner in box.boxes:
        if inner.call is None:
            changed, values = _with(inner, after, more)
            boxes.append(changed)
            made += values
        else:
            boxes += [inner, *after.get(id(inner), ())]
            made += [value for each in after.get(id(inner), ()) for value in each.outputs]
    if not made:
        return box, []
    found = replace(box, boxes=tuple(boxes))
    values = list(outside(found, made, {}))
    more[id(found)] = (*more.get(id(box), ()), *values)
    return found, values


def _values(box: Box) -> dict[int, Value]:
    """Every value of a box and those inside it, as it is called where it is made."""
    return {value.number: value for each in box.walk() for value in (*each.inputs, *each.outputs)}


def _opened(box: Box) -> Iterator[Box]:
    """A box and those in it that run by what is in them."""
    if box.call is None:
        yield box
        for inner in box.boxes:
            yield from _opened(inner)


def _word(box: Box) -> str:
    return box.label.split()[0].rstrip(":") if box.label else ""


def _result(box: Box) -> Any:
    return box.call.result if box.call is not None else None


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
