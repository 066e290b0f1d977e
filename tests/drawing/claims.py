"""What a drawing says of its operations, by the wires that pass, join and end; measured on random numbers."""

from collections import defaultdict

from circuits.diagram import Box, Diagram
from tests.drawing.expected import box_of
from tests.drawing.meaning import LEFT_OUT, Claim, untrue, uses_of
from tests.drawing.rebuild import Joint, rebuild
from tests.drawing.shown import axes_of, is_bookkeeping


def lies(svg: str, diagram: Diagram) -> list[str]:
    """Return where the wires of a drawing say of an operation what does not hold on random numbers.

    Args:
        svg: The text of the drawing, in which no axis is hidden.
        diagram: What was drawn.
    """
    drawn = rebuild(svg)
    found: dict[str, list[Claim]] = defaultdict(list)
    boxes: dict[str, Box] = {}
    for joint in drawn.joints:
        number = box_of(joint, drawn)
        box = _operation(diagram, number) if number and joint.ins and "glyph" not in joint.kinds else None
        if number and box is not None:
            boxes[number] = box
            found[number] += _claims(joint, box)
    return [
        f"{boxes[number].label} (box {number}): {claim}"
        for number, claims in found.items()
        for claim in untrue(boxes[number], claims)
    ]


def _operation(diagram: Diagram, number: str) -> Box | None:
    """Return the operation that a box is or consists of; None if it has several, or one that says a place."""
    box = diagram.box
    for place in number.split(".") if number != "root" else ():
        box = box.boxes[int(place)]
    inner = [each for each in box.walk() if each.call is not None and not is_bookkeeping(each)]
    return inner[0] if len(inner) == 1 and not inner[0].label.startswith(LEFT_OUT) else None


def _claims(joint: Joint, box: Box) -> list[Claim]:
    """Return what a joint says of each of the axes that meet there; nothing if a tensor is read more than once."""
    uses, results = [value.number for value in uses_of(box)], [value.number for value in box.outputs]
    ins = [(uses.index(value), axes_of(axis)) for value, axis in joint.ins if uses.count(value) == 1]
    outs = [(results.index(value), axes_of(axis)) for value, axis in joint.outs if results.count(value) == 1]
    counts = {len(axes) for _, axes in (*ins, *outs)}
    if len(ins) < len(joint.ins) or len(outs) < len(joint.outs) or len(counts) != 1:
        return []
    return [
        Claim(tuple([(use, axes[n]) for use, axes in ins]), tuple([(place, axes[n]) for place, axes in outs]))
        for n in range(counts.pop())
    ]
