"""In which column each step and group begins: as soon as what it reads is made, and no box inside two columns at once.

Steps that do not depend on each other share a column. Steps of one kind that feed the same box are aligned with the
last of them, as the three learned maps of attention are (Figure 21).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from circuits.drawing.scene import Group, Node, Scene, Step


@dataclass
class Schedule:
    """The first column of each node, and the column after its last; `columns` is their number in all."""

    starts: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    columns: int = 0

    def of(self, node: Node) -> tuple[int, int]:
        """Return the first column of a node and the column after its last."""
        return self.starts[id(node)], self.ends[id(node)]


def schedule(scene: Scene) -> Schedule:
    """Return the columns of all nodes of a scene."""
    found = Schedule()
    ready = {strand: 0 for strand, _ in scene.inputs}
    found.columns = max(_place(scene.nodes, ready, 0, found), 1)
    return found


def reads(node: Node) -> list[int]:
    """Return the strands that a node reads, without those that begin in it."""
    if isinstance(node, Group):
        return [strand.id for strand in node.ins]
    begun = {strand for strand, _ in node.sources}
    return [strand for strand in node.ins if strand not in begun]


def makes(node: Node) -> list[int]:
    """Return the strands that leave a node."""
    return [strand.id for strand in node.outs] if isinstance(node, Group) else list(node.outs)


def _place(nodes: Sequence[Node], ready: dict[int, int], first: int, found: Schedule) -> int:
    """Set the columns of the nodes of one group; return the column after the last of them.

    Args:
        nodes: The nodes, in the order of the run.
        ready: The column from which each strand that enters can be read.
        first: The first column of the group.
        found: The columns so far; those of the nodes are added.
    """
    lengths = {id(node): _length(node) for node in nodes}
    starts = _starts(nodes, ready, first, lengths)
    last = first
    for node in nodes:
        start = starts[id(node)]
        found.starts[id(node)], found.ends[id(node)] = start, start + lengths[id(node)]
        last = max(last, start + lengths[id(node)])
        if isinstance(node, Group):
            _place(node.nodes, dict.fromkeys([strand.id for strand in node.ins], start), start, found)
    return last


def _length(node: Node) -> int:
    """Return how many columns a node takes."""
    if isinstance(node, Step):
        return 1
    lengths = {id(inner): _length(inner) for inner in node.nodes}
    ready = dict.fromkeys([strand.id for strand in node.ins], 0)
    starts = _starts(node.nodes, ready, 0, lengths)
    return max([starts[id(inner)] + lengths[id(inner)] for inner in node.nodes], default=1)


def _starts(nodes: Sequence[Node], ready: dict[int, int], first: int, lengths: dict[int, int]) -> dict[int, int]:
    """Return the first column of each node: the earliest, then later for those that are aligned or read no data."""
    starts: dict[int, int] = {}
    ready, early, mixed = dict(ready), first, not all(node.late for node in nodes)
    for node in nodes:
        earliest = early if node.late and mixed else first
        starts[id(node)] = max([earliest, *[ready[strand] for strand in reads(node)]])
        early = early if node.late else max(early, starts[id(node)] + lengths[id(node)])
        for strand in makes(node):
            ready[strand] = starts[id(node)] + lengths[id(node)]
    readers = {strand: node for node in nodes for strand in reads(node)}
    _align(nodes, readers, starts, lengths)
    _move_constants(nodes, readers, starts, lengths)
    return starts


def _align(nodes: Sequence[Node], readers: dict[int, Node], starts: dict[int, int], lengths: dict[int, int]) -> None:
    """Begin steps of one title that feed the same node with the last of them."""
    families: dict[tuple[str, int], list[Node]] = {}
    for node in nodes:
        fed = {id(readers[strand]) for strand in makes(node) if strand in readers}
        if isinstance(node, Step) and node.box and len(fed) == 1:
            families.setdefault((node.title, fed.pop()), []).append(node)
    for (_, reader), family in families.items():
        latest = max([starts[id(node)] for node in family])
        if latest < starts[reader]:
            for node in family:
                starts[id(node)] = latest


def _move_constants(
    nodes: Sequence[Node], readers: dict[int, Node], starts: dict[int, int], lengths: dict[int, int]
) -> None:
    """Begin nodes that read no data, and those that read only their results, just before they are read."""
    makers = {strand: node for node in nodes for strand in makes(node)}
    constant: set[int] = set()
    for node in nodes:
        if all(strand in makers and id(makers[strand]) in constant for strand in reads(node)):
            constant.add(id(node))
    for node in reversed(nodes):
        after = [starts[id(readers[strand])] for strand in makes(node) if strand in readers]
        if id(node) in constant and after:
            starts[id(node)] = max(starts[id(node)], min(after) - lengths[id(node)])


def walk(nodes: Iterable[Node]) -> Iterable[Node]:
    """Yield nodes and those inside them, each before those inside it."""
    for node in nodes:
        yield node
        if isinstance(node, Group):
            yield from walk(node.nodes)


__all__ = ["Schedule", "makes", "reads", "schedule", "walk"]
