"""The scene: what a picture shows, as frozen data, before anything has a place.

A scene is linear: each strand (one use of one tensor) is made once and read once; a tensor that is read twice is copied
by a step of its own. Steps are the columns' events: each says how its wires go on, by links. Groups are open circuits
and modules.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 8 to 28.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from circuits.drawing.marks import Span

Port = tuple[int, int]
"""One wire of a step: the place of its strand among the inputs or outputs of the step, and its place in the strand."""

LinkKind = Literal["pass", "join", "fork", "cup", "unit", "end", "start", "glyph"]


@dataclass(frozen=True)
class Wire:
    """One axis of a tensor (or a pair of axes, or a whole tensor), drawn as a line.

    Attributes:
        axes: The places of its axes in the tensor: one, or two for a pair; none for a scalar.
        name: The name of the axis as text, or its size if it has no name.
        size: Its size as text.
        double: Whether it stands for a pair of axes and is drawn as two lines.
        scalar: Whether it stands for a tensor without axes.
        role: The role of its colour.
    """

    axes: tuple[int, ...]
    name: str
    size: str = ""
    double: bool = False
    scalar: bool = False
    role: str = "wire"


@dataclass(frozen=True)
class Strand:
    """One use of one tensor: the wires between the step that makes it and the step that reads it.

    Attributes:
        id: Its number in the scene.
        value: The number of the tensor in the diagram.
        wires: Its wires, in the order of the axes of the data.
        order: The places of the wires from top to bottom.
    """

    id: int
    value: int
    wires: tuple[Wire, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Link:
    """How wires go on through a step.

    Attributes:
        kind: "pass" (one wire goes on as another), "join" (wires join in a dot and go on as one),
            "fork" (a wire is copied at a dot), "cup" (two wires are
            contracted), "unit" (two wires begin as one), "end" (a wire ends, at a text if there is one), "start" (a
            wire begins), or "glyph" (wires enter a shape on its left and leave on its right).
        ins: The wires that it takes.
        outs: The wires that it makes.
        shape: The shape of a glyph: "box", "letter", "triangle", "circle", "bar", "star", "window", "transposed" or
            "pentagon".
        text: The text in the glyph or at the end.
        inner: For a window: the label of the wire from the window to its end, such as 3².
        closing: For a window: the text that ends that wire: a learned map, which takes the channels too, Max or 𝔼.
        channels: For a window that ends in a learned map: the wires that this map takes, and those that it makes.
        beside: Wires that a normalization averages over without changing them: joined to its circle by arcs.
    """

    kind: LinkKind
    ins: tuple[Port, ...] = ()
    outs: tuple[Port, ...] = ()
    shape: str = ""
    text: tuple[Span, ...] = ()
    inner: tuple[Span, ...] = ()
    closing: tuple[Span, ...] = ()
    channels: tuple[tuple[Port, ...], tuple[Port, ...]] = ((), ())
    beside: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Step:
    """One event: an operation, a closed box, a copy, or the end of an unused tensor.

    Attributes:
        box: The id of the box of the diagram that it draws; empty for a copy.
        title: The name of the operation, for readers of the file.
        ins: The strands that it reads, from top to bottom.
        outs: The strands that it makes, from top to bottom.
        links: How the wires go on.
        above: The text of an elementwise operation, which stands above the wires.
        sign: The sign above the dots where tensors are added: "+".
        scale: The number by which a contraction is scaled, at the arrow from its cup.
        sources: The strands among `ins` that begin here, each with its name: parameters and constants.
        fill: The role of the fill of a closed box.
        error: The words of the error with which the run failed here.
        late: Whether it begins after all nodes before it that are not late: it belongs to the reverse pass.
        noted: The note above it.
    """

    box: str
    title: str
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    links: tuple[Link, ...]
    above: tuple[Span, ...] = ()
    sign: str = ""
    scale: tuple[Span, ...] = ()
    sources: tuple[tuple[int, str], ...] = ()
    fill: str = ""
    error: str = ""
    late: bool = False
    noted: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Group:
    """An open circuit, module or function: a fence around the nodes inside it, or a bracket around repeated ones.

    Attributes:
        box: The id of the box; empty for brackets without one.
        title: The title of the fence; empty for none.
        ins: The strands that enter, each with its wires as they are named inside.
        outs: The strands that leave, each with its wires as they are named outside.
        nodes: What is inside, in the order of the run.
        fill: The role of the background; empty for a bracket without a fence.
        times: How often the nodes inside are repeated; 1 for an ordinary group.
        note: The words beside the bracket: "own weights" or "the same weights".
        late: As for a step.
        error: The words of the error with which the run failed here, outside the nodes inside.
        noted: The note beside the title.
    """

    box: str
    title: str
    ins: tuple[Strand, ...]
    outs: tuple[Strand, ...]
    nodes: tuple["Node", ...]
    fill: str = ""
    times: int = 1
    note: str = ""
    late: bool = False
    error: str = ""
    noted: tuple[Span, ...] = ()


Node = Step | Group


@dataclass(frozen=True)
class Scene:
    """All that a picture shows.

    Attributes:
        title: The name of the circuit.
        strands: Every strand, by its id.
        inputs: The strands at the left edge, each with the name that is written there (empty for none).
        outputs: The strands at the right edge, each with the name that is written there (empty for none).
        nodes: The steps and groups, in the order of the run.
        error: The words of the error with which the run failed; empty if it did not.
        legend: What the letters of sizes that follow a rule stand for, one line each.
        notes: What the notes beside boxes are; empty if there are none.
    """

    title: str
    strands: tuple[Strand, ...]
    inputs: tuple[tuple[int, str], ...]
    outputs: tuple[tuple[int, str], ...]
    nodes: tuple[Node, ...]
    error: str = ""
    legend: tuple[str, ...] = ()
    notes: tuple[Span, ...] = ()

    def steps(self) -> Iterator[Step]:
        """Yield every step, in the order of the run."""
        return _steps(self.nodes)


def without_fence(scene: Scene) -> Scene:
    """Return a scene whose outermost group has neither background nor title; its note is where all are explained."""
    nodes = [replace(node, title="", fill="", noted=()) if isinstance(node, Group) else node for node in scene.nodes]
    whole = [span for node in scene.nodes if isinstance(node, Group) and node.title for span in node.noted]
    notes = (*scene.notes, Span("; the whole: ", "sans"), *whole) if scene.notes and whole else scene.notes
    return replace(scene, nodes=tuple(nodes), notes=notes)


def _steps(nodes: tuple[Node, ...]) -> Iterator[Step]:
    for node in nodes:
        if isinstance(node, Step):
            yield node
        else:
            yield from _steps(node.nodes)


__all__ = ["Group", "Link", "Node", "Port", "Scene", "Step", "Strand", "Wire", "without_fence"]
