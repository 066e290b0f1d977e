"""The colours of wires: cotangents in a backward diagram, and the axes at which a run failed."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

from circuits.diagram import Box, Diagram, Value
from circuits.drawing.scene import Group, Node, Scene, Step, Strand, Wire


def cotangents(box: Box) -> set[int]:
    """Return the numbers of the tensors that depend on a cotangent: the gradients of a backward diagram."""
    if not is_reverse(box):
        return set()
    forward = [inner for inner in box.boxes if not is_reverse(inner)]
    read = {value.number for each in forward for inner in each.walk() for value in inner.inputs}
    given = [value.number for value in box.inputs if value.name.startswith("cotangent")]
    found = set(given) - read
    if found:
        _spread(box, found)
    return found


def _spread(box: Box, found: set[int]) -> None:
    if not box.boxes and any(value.number in found for value in box.inputs):
        found |= {value.number for value in box.outputs}
    for inner in box.boxes:
        _spread(inner, found)


def is_reverse(box: Box) -> bool:
    """Return whether a box is the reverse of another: it belongs to the reverse pass."""
    return box.label.startswith("∂") or box.name.startswith("∂")


def saved_names(root: Box) -> dict[int, str]:
    """Return a name for each tensor of the forward pass that the reverse pass of a backward diagram reads.

    Inputs keep their names; the others are C1, C2, ... in the order in which they are made. A diagram of the reverse
    pass alone saves nothing: it has these tensors as inputs.
    """
    gradients = cotangents(root)
    forward = [box for box in root.boxes if not is_reverse(box)]
    if not gradients or not forward:
        return {}
    read: dict[int, Value] = {}
    for box in root.boxes:
        if is_reverse(box):
            _collect(box, read)
    made = [value.number for box in forward for leaf in box.walk() if not leaf.boxes for value in leaf.outputs]
    given = {
        value.number: value.name for value in root.inputs if value.number in read and value.number not in gradients
    }
    kept = [number for number in dict.fromkeys(made) if number in read and number not in given]
    taken = {value.name for value in root.inputs}
    unused = (name for place in count(1) if (name := f"C{place}") not in taken)
    return {**given, **dict(zip(kept, unused, strict=False))}


def reverse_boxes(root: Box) -> set[int]:
    """Return the ids, as Python has them, of the boxes of the reverse pass of a backward diagram."""
    return {id(inner) for box in root.boxes if is_reverse(box) for inner in box.walk()} if is_reverse(root) else set()


def _collect(box: Box, read: dict[int, Value]) -> None:
    """Add the tensors that the operations in a box read."""
    for value in box.inputs if not box.boxes else ():
        if value.role in ("input", "made"):
            read.setdefault(value.number, value)
    for inner in box.boxes:
        _collect(inner, read)


def result_names(diagram: Diagram) -> dict[int, str]:
    """Return the names of the results of a backward diagram: `∂x` for the gradient of x; nothing for other diagrams."""
    result = diagram.result
    if not diagram.name.startswith("∂") or getattr(result, "kind", None) is not dict:
        return {}
    pairs = zip(result.keys, result.parts, strict=True)
    return {part.number: f"∂{key}" for key, part in pairs if hasattr(part, "number")}


def recoloured(scene: Scene, wires: Mapping[tuple[int, int], str]) -> Scene:
    """Return a scene in which some wires, by strand and place, have the colour of an error and show their size."""
    if not wires:
        return scene

    def strand(old: Strand) -> Strand:
        marked = [_marked(wire, wires.get((old.id, place))) for place, wire in enumerate(old.wires)]
        return replace(old, wires=tuple(marked))

    def node(old: Node) -> Node:
        if isinstance(old, Step):
            return old
        return _with(old, tuple(map(strand, old.ins)), tuple(map(strand, old.outs)), tuple(map(node, old.nodes)))

    return replace(scene, strands=tuple(map(strand, scene.strands)), nodes=tuple(map(node, scene.nodes)))


def _with(group: Group, ins: tuple[Strand, ...], outs: tuple[Strand, ...], nodes: tuple[Node, ...]) -> Group:
    return replace(group, ins=ins, outs=outs, nodes=nodes)


def _marked(wire: Wire, size: str | None) -> Wire:
    if size is None:
        return wire
    known = wire.name == size or len(wire.axes) > 1  # the label of a whole tensor stays: it has other axes too
    return replace(wire, name=wire.name if known else f"{wire.name} = {size}", size="", role="error")


__all__ = ["cotangents", "is_reverse", "recoloured", "result_names", "reverse_boxes", "saved_names"]
