"""What a diagram says of its boxes and tensors, compared with what its drawing says.

Which boxes are open is read from the drawing; all else comes from the boxes of the diagram: which tensors a box reads
and returns, how often, and which axes they have.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from circuits.diagram import Diagram, Value
from tests.drawing.named import returned, saved_and_loaded, wrong_memories, wrong_names
from tests.drawing.rebuild import Axis, Joint, Rebuilt, rebuild
from tests.drawing.repeats import Repeats, repeats
from tests.drawing.shown import LEARNED, Shown, absorbed, axes_of, shown, values, whole


def differences(svg: str, diagram: Diagram) -> list[str]:
    """Return what a drawing says otherwise than its diagram, each as a sentence.

    Args:
        svg: The text of the drawing, in which no axis is hidden.
        diagram: What was drawn.
    """
    drawn, known = rebuild(svg), values(diagram)
    repeated = repeats(diagram.box, drawn.rules, {*drawn.boxes, *drawn.fences}, saved_and_loaded(drawn))
    opened = {*drawn.fences, *[box.rpartition(".")[0] for box in drawn.boxes if "." in box]}
    boxes = shown(diagram, opened, repeated)
    named = [(joint, box_of(joint, drawn)) for joint in drawn.joints]
    found = [
        *repeated.wrong,
        *_without_fence(diagram, opened - set(drawn.fences)),
        *_copies(named, known, repeated),
        *_joins(named, known),
        *_passes(named, known, drawn, repeated),
        *wrong_memories(drawn, repeated),
    ]
    elsewhere = returned(drawn, repeated)
    named = [(_same(joint, repeated), box) for joint, box in named]
    found += _unnamed(named)
    found += _orders(named, drawn)
    found += _ports(named, boxes, drawn)
    found += _boxes(boxes, named, known)
    found += _edges(diagram, named, drawn, known, repeated, elsewhere)
    found += _rows(drawn)
    found += wrong_names(drawn, known, repeated)
    return found


def _same(joint: Joint, repeated: Repeats) -> Joint:
    """Return a joint with the tensors of the last repetition named as those of the first."""
    ins, outs = [tuple([(repeated.same(value), axis) for value, axis in side]) for side in (joint.ins, joint.outs)]
    return replace(joint, ins=ins, outs=outs)


def _without_fence(diagram: Diagram, opened: set[str]) -> Iterator[str]:
    """Yield open boxes that have no fence, but for transforms and circuits that only lift another."""
    for number in sorted(opened):
        box = diagram.box
        for place in number.split("."):
            box = box.boxes[int(place)]
        if "transform" not in {box.kind, *[inner.kind for inner in box.boxes]}:
            yield f"box {number} ({box.label}) is open and has no fence"


def _passes(
    named: list[tuple[Joint, str | None]], known: Mapping[int, list[Value]], drawn: Rebuilt, repeated: Repeats
) -> Iterator[str]:
    """Yield wires that only pass a box and have another size behind it.

    What leaves a bracket has in it the number of the last repetition, and the sizes of the first.
    """
    for joint, box in named:
        if box and len(joint.ins) == len(joint.outs) == 1 and set(joint.kinds) <= {"wire"}:
            inside = [_same(joint, repeated)] if drawn.rules.around(joint.at) else []
            sizes = [_sizes([*each.ins, *each.outs], known) for each in (joint, *inside)]
            if all(len(each) == 2 and each[0] != each[1] for each in sizes):
                yield f"{text(joint.ins)} passes box {box} as {text(joint.outs)}, of sizes {sizes[0]}"


def _rows(drawn: Rebuilt) -> Iterator[str]:
    """Yield where rows end with other wires than those with which the next one begins."""
    arrows = sorted([joint for joint in drawn.joints if "row" in joint.kinds], key=lambda joint: joint.at[1])
    leaving, arriving = (
        [each for joint in arrows for each in joint.ins],
        [each for joint in arrows for each in joint.outs],
    )
    if leaving != arriving:
        yield f"rows end with {text(leaving)}, the next ones begin with {text(arriving)}"


def box_of(joint: Joint, drawn: Rebuilt) -> str | None:
    """Return the id of the box of a joint, "" for a copy; None where a wire goes on, leaves, enters, or has a memory.

    Where a wire only passes, no mark is of the box: it is named by the wire that begins there, or by the marks of a box
    that reads and returns these tensors.
    """
    named = [box for box in joint.made if box]
    if "memory" in joint.kinds:
        return None
    if not joint.ins and [axis for _, axis in joint.outs] == ["scalar"]:
        return named[0] if named else None  # what is left where all axes of a tensor have ended; no mark is there
    ids = [box for box in joint.boxes if box]
    if ids or joint.boxes:
        return ids[0] if ids else ""
    if not (joint.ins and joint.outs) or joint.ins == joint.outs:
        return None
    for box, before, after in drawn.steps:
        if {value for value, _ in joint.ins} <= set(before) and {value for value, _ in joint.outs} <= set(after):
            named.append(box)
    return named[0] if named else None


def _unnamed(named: list[tuple[Joint, str | None]]) -> Iterator[str]:
    """Yield joints that are of several boxes or of none, and copies that change what they copy."""
    for joint, box in named:
        where = f"{text(joint.ins)} -> {text(joint.outs)} at x = {joint.at[0]:.0f}"
        if len({each for each in (*joint.boxes, *joint.made) if each}) > 1:
            yield f"boxes {', '.join([*joint.boxes, *joint.made])} share the joint {where}"
        if box is None and joint.ins and joint.outs and [v for v, _ in joint.ins] != [v for v, _ in joint.outs]:
            yield f"no box connects {where}"


def _sizes(axes: Sequence[Axis], known: Mapping[int, list[Value]]) -> list[Any]:
    """Return the sizes of wires: of a pair, the product."""
    return [prod([known[value][0].sizes[place] for place in axes_of(axis)]) for value, axis in axes if value in known]


def _copies(named: list[tuple[Joint, str | None]], known: Mapping[int, list[Value]], same: Repeats) -> Iterator[str]:
    """Yield copies that are of several wires, or of which a wire goes on as another axis."""
    for joint, box in named:
        for value, axis in joint.outs if box == "" else ():
            for before, place in joint.ins:
                lifted = value != before and same.same(value) == same.same(before)
                sizes = _sizes([(before, place), (value, axis)], known)
                if len(joint.ins) > 1 or not ((value, axis) == (before, place) or (lifted and sizes[0] == sizes[1])):
                    yield f"{text(joint.ins)} is copied as {text(joint.outs)}"


def _orders(named: list[tuple[Joint, str | None]], drawn: Rebuilt) -> Iterator[str]:
    """Yield the edges at which the axes of a tensor are in another order than in the tensor.

    Where each has another name, the names say which is which; sizes do not.
    """
    ends = [joint for joint, box in named if box is None and not {"row", "memory"} & set(joint.kinds)]
    ends.sort(key=lambda joint: joint.at[1])
    entering = [axis for joint in ends if not joint.ins for axis in joint.outs]
    sides = [("left", entering), ("right", [axis for joint in ends if not joint.outs for axis in joint.ins])]
    for where, axes in sides:
        for value in dict.fromkeys([value for value, _ in axes]):
            places = [axes_of(axis) for number, axis in axes if number == value]
            names = [
                drawn.names.get((number, axis), ("",))[0] for number, axis in dict.fromkeys(axes) if number == value
            ]
            told = len(set(names)) == len(names) and all(re.match(r"\(?[^\W\d]", name) for name in names)
            if not told and places != sorted(set(places)) * (len(places) // len(set(places))):
                yield f"at the {where} edge the axes of tensor {value} are in the order {places}"


def _ports(named: list[tuple[Joint, str | None]], boxes: Mapping[str, Shown], drawn: Rebuilt) -> Iterator[str]:
    """Yield boxes and memories at which tensors, or the axes of one, are in another order than in the run."""
    for joint, box in named:
        shapes = set(drawn.shapes.get(box, ())) if box and "glyph" in joint.kinds else {"none"}
        sides = [[axis for _, axis in side] for side in (joint.ins, joint.outs)]
        if shapes <= {"box", "solid"}:
            yield from _in_order(f"box {box} reads", joint.ins)
            yield from _in_order(f"box {box} returns", joint.outs)
        if (
            shapes <= {"star", "window", "transposed", "letter"}
            and sorted(sides[0]) == sorted(sides[1])
            and sides[0] != sides[1]
        ):
            yield f"box {box} reads {text(joint.ins)} and returns {text(joint.outs)}, in another order"
        read = list(boxes[box].ins) if box and box in boxes and "none" not in shapes else []
        given = [value for value in dict.fromkeys([value for value, _ in joint.ins]) if value in read]
        if given != sorted(given, key=read.index):
            yield f"box {box} reads tensors in the order {given}, not {read}"
    memories: dict[Any, list[Joint]] = defaultdict(list)
    for joint, _ in named:
        if "memory" in joint.kinds:
            memories[joint.texts, bool(joint.ins), round(joint.at[0])].append(joint)
    for (texts, _, _), joints in memories.items():
        wires = [axis for joint in sorted(joints, key=lambda each: each.at[1]) for axis in (*joint.ins, *joint.outs)]
        yield from _in_order(" ".join(texts), wires)


def _in_order(where: str, wires: Sequence[Axis]) -> Iterator[str]:
    """Yield the tensors whose axes are in another order than in the tensor."""
    for value in dict.fromkeys([value for value, _ in wires]):
        places = [axes_of(axis) for number, axis in wires if number == value]
        if places != sorted(set(places)) * (len(places) // len(set(places))):
            yield f"{where} the axes of tensor {value} in the order {places}"


def _joins(named: list[tuple[Joint, str | None]], known: Mapping[int, list[Value]]) -> Iterator[str]:
    """Yield dots and cups at which axes of different sizes meet."""
    for joint, box in named:
        sizes = {size for size in _sizes(joint.ins, known) if size != 1}
        single = {len(axes_of(axis)) for _, axis in joint.ins} == {1} and "glyph" not in joint.kinds
        if box and {"dot", "cup"} & set(joint.kinds) and single and len(sizes) > 1:
            yield f"{text(joint.ins)} meet at box {box}, of sizes {sizes}"


def text(axes: Iterable[Axis]) -> str:
    """Return wires as text: `3.0, 3.1` are the first two axes of tensor 3."""
    return ", ".join([f"{value}.{axis}" for value, axis in axes]) or "nothing"


def _boxes(
    boxes: Mapping[str, Shown], named: list[tuple[Joint, str | None]], known: Mapping[int, list[Value]]
) -> Iterator[str]:
    """Yield where a box reads or returns something else than in the diagram."""
    reads: dict[str, Counter[Axis]] = defaultdict(Counter)
    returns: dict[str, Counter[Axis]] = defaultdict(Counter)
    for joint, box in named:
        if box:
            reads[box].update(joint.ins)
            returns[box].update(joint.outs)
    wanted = absorbed(boxes, reads, returns)
    for number in sorted(set(reads) | set(returns) | set(wanted)):
        if number not in wanted:
            yield f"box {number} is drawn and is not in the diagram at this depth"
            continue
        ins, outs = whole(reads[number], known), whole(returns[number], known)
        label = f"box {number} ({wanted[number].box.label})"
        for what, side in (("reads", reads), ("returns", returns)):
            for value in sorted({value for value, _ in side[number]}):
                if whole(side[number], known).get(value) is None:
                    parts = text(axis for axis in side[number].elements() if axis[0] == value)
                    yield f"{label} {what} a part of tensor {value}, or parts of it more often: {parts}"
        expected = wanted[number]
        for value, times in expected.ins.items():
            if ins.get(value, 0) != times:
                yield f"{label} reads tensor {value} {times} times, drawn {ins.get(value, 0)} times"
        for value in ins:
            role = known[value][0].role if value in known else ""
            if value not in expected.ins and role not in LEARNED:
                yield f"{label} does not read tensor {value}, which is drawn"
        for value, times in Counter(expected.outs).items():
            if outs.get(value, 0) != times:
                yield f"{label} returns tensor {value} {times} times, drawn {outs.get(value, 0)} times"
        for value in set(outs) - set(expected.outs):
            yield f"{label} does not return tensor {value}, which is drawn"


def _edges(
    diagram: Diagram,
    named: list[tuple[Joint, str | None]],
    drawn: Rebuilt,
    known: Mapping[int, list[Value]],
    repeated: Repeats,
    elsewhere: set[int],
) -> Iterator[str]:
    """Yield where other tensors enter or leave than the inputs and results of the diagram.

    `elsewhere` has the results that are saved by a name of which the legend says that it is returned.
    """
    entering, leaving = Counter[Axis](), Counter[Axis]()
    for joint, box in named:
        if box is None and "row" not in joint.kinds and "memory" not in joint.kinds:
            entering.update(joint.outs if not joint.ins else ())
            leaving.update(joint.ins if not joint.outs else ())
    inputs = Counter(value.number for value in diagram.inputs if value.role not in LEARNED)
    results = Counter(repeated.same(value.number) for value in diagram.outputs if value.number not in elsewhere)
    if not elsewhere <= {value.number for value in diagram.outputs}:
        yield f"the legend says that {sorted(elsewhere)} are returned, which are not all results"
    begun = {value: times for value, times in whole(entering, known).items() if value not in drawn.sources}
    wanted = {value: times for value, times in inputs.items() if value not in drawn.sources}
    if begun != wanted:
        yield f"tensors {sorted(entering)} enter, the inputs are {dict(inputs)}"
    if whole(leaving, known) != dict(results):
        yield f"tensors {sorted(leaving)} leave, the results are {dict(results)}"
