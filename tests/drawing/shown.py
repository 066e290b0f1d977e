"""What a diagram says of the boxes that have to be drawn: which tensors each reads and returns, and how often."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from circuits.diagram import Box, Diagram, Value, wires
from tests.drawing.rebuild import Axis
from tests.drawing.repeats import Repeats

LEARNED = ("parameter", "buffer", "constant")
"""The roles of tensors that may be part of a glyph; if they are drawn, then whole."""

REGROUPING = ("rearrange", "view", "reshape", "flatten", "unflatten", "transpose", "permute", "swapaxes", "movedim")
"""Operations that may be drawn as the wires of a learned map beside them."""


SCALES, CONTRACTIONS = ("mul", "div"), ("einsum", "matmul", "bmm")
"""Products with a number that may be drawn at the contraction before them."""

SIZES = ("expand_as", "view_as", "reshape_as", "broadcast_to")
"""Operations that read only the sizes of their second tensor, which is not drawn."""


@dataclass(frozen=True)
class Shown:
    """A box that has to be drawn as one event.

    Attributes:
        box: The box.
        ins: How often it reads each tensor that is data of the run.
        outs: The tensors that it returns.
    """

    box: Box
    ins: Counter[int]
    outs: tuple[int, ...]


def shown(diagram: Diagram, fences: Iterable[str], repeated: Repeats) -> dict[str, Shown]:
    """Return the boxes that are drawn as one event, by id, if these boxes are open.

    Args:
        diagram: The diagram.
        fences: The ids of the open boxes: `root`, and the numbers of the boxes around a box and its own: `0.3.1`.
        repeated: What is drawn once in brackets.
    """
    opened = set(fences)
    leaves = dict(_leaves(diagram.box, "", opened, repeated.hidden)) if "root" in opened else {"root": diagram.box}
    reads = Counter(repeated.same(value.number) for value in diagram.outputs)
    for box in leaves.values():
        reads.update({repeated.same(value.number) for value in box.inputs})
    drawn = {number: box for number, box in leaves.items() if not (is_bookkeeping(box) and _unread(box, reads))}
    return {number: _shown(box, reads, repeated) for number, box in drawn.items()}


def _unread(box: Box, reads: Counter[int]) -> bool:
    """Return whether no other box reads what a box computes."""
    read = {value.number for value in box.inputs}
    return all(reads[value.number] == 0 for value in box.outputs if value.number not in read)


def _leaves(box: Box, path: str, opened: set[str], hidden: set[str]) -> Iterator[tuple[str, Box]]:
    for place, inner in enumerate(box.boxes):
        number = f"{path}{place}"
        if number in opened:
            yield from _leaves(inner, f"{number}.", opened, hidden)
        elif number not in hidden:
            yield number, inner


def is_bookkeeping(box: Box) -> bool:
    """Return whether a box computes nothing of the run: it returns what it reads, or updates buffers alone."""
    read = {value.number for value in box.inputs}
    if box.boxes:
        return all(is_bookkeeping(inner) for inner in box.boxes)
    if box.call is None:
        return {value.number for value in box.outputs} <= read
    return bool(box.mutates) and all(value.role in ("buffer", "parameter") for value in box.inputs)


def _shown(box: Box, reads: Counter[int], repeated: Repeats) -> Shown:
    """Return what a box reads and returns, also what is made inside it and read outside."""
    data = {value.number for value in box.inputs if value.role not in LEARNED}
    read = Counter([value.number for value in box.inputs if value.number in data])
    if box.call is not None and not box.boxes:
        used = Counter([*wires(box.call.args), *wires(box.call.kwargs)])
        read = Counter({number: max(used[number], 1) for number in dict.fromkeys([*used, *read]) if number in data})
        if box.label.startswith(SIZES):
            read = Counter(wires(box.call.args)[:1])
    results = [value.number for value in box.outputs]
    inside = dict.fromkeys([value.number for inner in box.boxes for each in inner.walk() for value in each.outputs])
    more = [number for number in inside if number not in results and number not in data and reads[number]]
    same = Counter[int]()
    for number, times in read.items():
        same[repeated.same(number)] += times
    return Shown(box, same, tuple([repeated.same(number) for number in (*results, *more)]))


def values(diagram: Diagram) -> dict[int, list[Value]]:
    """Return every tensor by its number, with each of its namings."""
    found: dict[int, list[Value]] = defaultdict(list)
    for box in diagram.walk():
        for value in (*box.inputs, *box.outputs, *box.inside):
            found[value.number].append(value)
    return found


def axes_of(axis: str) -> tuple[int, ...]:
    """Return the places of the axes of one wire: one, two for a pair, none for a tensor without axes."""
    return tuple([int(part) for part in axis.split(",") if part not in ("", "scalar")])


def whole(axes: Counter[Axis], known: Mapping[int, list[Value]]) -> dict[int, int]:
    """Return how often each tensor is there with all its axes; a tensor with some of them only is left out."""
    found: dict[int, int] = {}
    for value in {value for value, _ in axes}:
        count = Counter[int]()
        for (number, axis), times in axes.items():
            if number == value:
                for place in axes_of(axis) or (-1,):
                    count[place] += times
        rank = len(known[value][0].sizes) if value in known else 0
        wanted = set(range(rank)) or {-1}
        if set(count) == wanted and len(set(count.values())) == 1:
            found[value] = next(iter(count.values()))
    return found


def absorbed(
    boxes: Mapping[str, Shown], reads: Mapping[str, Counter[Axis]], returns: Mapping[str, Counter[Axis]]
) -> dict[str, Shown]:
    """Return the boxes, those that regroup axes and are not drawn joined with the box before or after them.

    Args:
        boxes: The boxes that have to be drawn, by id.
        reads: The wires that enter each box that is drawn.
        returns: The wires that leave it.
    """
    found = dict(boxes)
    for number, each in boxes.items():
        scales = each.box.label.startswith(SCALES) and len(each.ins) == len(each.outs) == 1
        if number not in {*reads, *returns} and scales:
            (read,), (made,) = each.ins, each.outs
            before = next((other for other in found if read in found[other].outs and other in reads), None)
            contracts = before is not None and found[before].box.label.startswith(CONTRACTIONS)
            if before is not None and contracts and made in {value for value, _ in returns[before]}:
                found[before] = Shown(found[before].box, found[before].ins, (made,))
                del found[number]
    for number, each in _chains(found, {*reads, *returns}):
        (read,), (made,) = each.ins, each.outs
        before = next((other for other in found if read in found[other].outs and other in returns), None)
        after = next((other for other in found if made in found[other].ins and other in reads), None)
        if before is not None and made in {value for value, _ in returns[before]}:
            outs = tuple([made if value == read else value for value in found[before].outs])
            found[before] = Shown(found[before].box, found[before].ins, outs)
            del found[number]
        elif after is not None and read in {value for value, _ in reads[after]}:
            ins = found[after].ins - Counter([made])
            found[after] = Shown(found[after].box, ins + each.ins, found[after].outs)
            del found[number]
    return {number: each for number, each in found.items() if each.ins or each.outs}


def _chains(found: dict[str, Shown], drawn: set[str]) -> list[tuple[str, Shown]]:
    """Return the boxes that regroup axes and are not drawn; in `found` too, several in a row become one."""
    chains: dict[str, Shown] = {}
    for number, each in list(found.items()):
        if number in drawn or not _regroups(each):
            continue
        (read,) = each.ins
        before = next((other for other in chains if chains[other].outs == (read,)), None)
        readers = [other for other in found.values() if read in other.ins]
        if before is not None and len(readers) == 1:
            found[before] = chains[before] = Shown(each.box, chains[before].ins, each.outs)
            del found[number]
        else:
            chains[number] = each
    return list(chains.items())


def _regroups(each: Shown) -> bool:
    """Return whether a box only moves, splits and merges axes, or takes all of a tensor."""
    operations = [box for box in each.box.walk() if not box.boxes and not is_bookkeeping(box)]
    return len(each.ins) == len(each.outs) == 1 and all(map(_is_regrouping, operations))


def _is_regrouping(box: Box) -> bool:
    whole = len(box.inputs) == 1 and [value.sizes for value in box.inputs] == [value.sizes for value in box.outputs]
    return box.label.startswith(REGROUPING) or (box.label.startswith("index") and whole)
