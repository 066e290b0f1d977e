"""From a diagram to a scene: strands for the uses of tensors, steps for operations, groups for open boxes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from circuits.diagram import Box, Diagram, Value
from circuits.drawing.contents import Item, contents, merged
from circuits.drawing.labels import box_title, colour
from circuits.drawing.operations import LEARNED, Drawn, drawing_of
from circuits.drawing.operations.reading import as_box
from circuits.drawing.options import Options
from circuits.drawing.scene import Group, Link, Node, Port, Scene, Step, Strand, Wire
from circuits.drawing.wires import order_of, place_of, renamed, wires_of
from circuits.errors import CircuitError


def scene_of(diagram: Diagram, options: Options) -> Scene:
    """Return what is drawn of a diagram.

    Args:
        diagram: The diagram.
        options: Depth, order, pairs and what else was chosen.

    Raises:
        CircuitError: If an axis is hidden that an operation does not leave untouched.
    """
    symbols = {expression: axis for axis, expression in diagram.symbols.items()}
    box = diagram.box
    build = _Builder(options)
    title = box_title("", box.label)
    items = contents(box, options, symbols) if options.depth != 0 else ()
    inputs = [value for value in box.inputs if value.role not in LEARNED]
    have: dict[int, list[int]] = {}
    for value in inputs:
        have.setdefault(value.number, []).append(build.strand(value))
    entering = [strand for strands in have.values() for strand in strands]
    names = _shown_names(inputs)
    if items:
        group = build.group(Item(box, "root", None, items, title), have, [value.number for value in box.outputs])
        nodes: tuple[Node, ...] = (*group.before, group.node)
        left = group.outs
    else:
        step, left = build.leaf(
            Item(box, "root", as_box(inputs, box.outputs, title), title=title, closed=True), entering
        )
        nodes = (step,)
    order = [build.strands[strand].value for strand in entering]
    shown = tuple([(strand, names.get(number, "")) for strand, number in zip(entering, order, strict=True)])
    return Scene(title, tuple(build.strands), shown, tuple(left), nodes)


def _shown_names(inputs: Sequence[Value]) -> dict[int, str]:
    """Return the names of the inputs if two have the same axes, or one has none with a name; else nothing."""
    axes = [value.axes for value in inputs]
    ambiguous = len(set(axes)) < len(axes) or (len(inputs) > 1 and any(None in each for each in axes))
    return {value.number: value.name for value in inputs} if ambiguous else {}


@dataclass(frozen=True)
class _Built:
    """An open box: the steps before it (copies), its group, and the strands that leave it, one for each result."""

    before: tuple[Node, ...]
    node: Group
    outs: tuple[int, ...]


@dataclass
class _Scope:
    """The strands of each tensor that can be read in one group, and how often each is still read."""

    have: dict[int, list[int]]
    left: list[int]
    nodes: list[Node] = field(default_factory=list)


class _Builder:
    """Builds steps and groups; `strands` holds every strand so far."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.strands: list[Strand] = []
        self.now: list[Strand] = []  # with the names that their axes have at this place of the run

    def strand(self, value: Value) -> int:
        """Return the id of a new strand of a tensor."""
        role = "cotangent" if value.name.startswith("cotangent") else "wire"
        return self.like(value.number, wires_of(value, self.options, role))

    def like(self, number: int, wires: tuple[Wire, ...]) -> int:
        """Return the id of a new strand with these wires."""
        self.strands.append(Strand(len(self.strands), number, wires, order_of(wires, self.options)))
        self.now.append(self.strands[-1])
        return len(self.strands) - 1

    def group(self, item: Item, have: dict[int, list[int]], results: Sequence[int]) -> _Built:
        """Return an open box.

        Args:
            item: The box, with what is inside.
            have: The strands that enter, by the number of their tensor; they are all used.
            results: The numbers of the tensors that leave, one for each strand.
        """
        inner = item.items if self.options.literal or self.options.wires == "tensors" else merged(item.items)
        ins = self._entering(item, have)
        needed = [number for each in inner for number in each.needs] + list(results)
        scope = _Scope({number: list(strands) for number, strands in have.items()}, needed)
        for place, each in enumerate(inner):
            self._add(each, scope, inner[place + 1 :], results)
        outs = [self._take(number, scope) for number in results]
        self._drop_rest(scope)
        leaving = tuple([self._leaving(strand, item.box) for strand in outs])
        fill = f"fence{colour(item.box.label)}"
        return _Built((), Group(item.id, item.title, ins, leaving, tuple(scope.nodes), fill), tuple(outs))

    def _entering(self, item: Item, have: dict[int, list[int]]) -> tuple[Strand, ...]:
        """Return the strands that enter a box, with the names that their axes have inside."""
        named = {value.number: value for inner in item.items for value in inner.box.inputs}
        found = []
        for number, strands in have.items():
            for strand in strands:
                known = self.now[strand]
                wires = renamed(known.wires, named[number], self.options) if number in named else known.wires
                found.append(self._named(strand, wires))
        return tuple(found)

    def _named(self, strand: int, wires: tuple[Wire, ...]) -> Strand:
        """Set the names of a strand's wires from here on, and return it as it is then."""
        self.now[strand] = replace(self.now[strand], wires=wires, order=order_of(wires, self.options))
        return self.now[strand]

    def _leaving(self, strand: int, box: Box) -> Strand:
        """Return a strand that leaves a box, with the names that its axes have outside."""
        value = next((each for each in box.outputs if each.number == self.strands[strand].value), None)
        wires = self.now[strand].wires
        return self._named(strand, wires if value is None else renamed(wires, value, self.options))

    def _add(self, item: Item, scope: _Scope, later: Sequence[Item], results: Sequence[int]) -> None:
        """Add a box to a scope: copies of what is read again, then the box."""
        if item.drawn is not None:
            taken = [self._take(value.number, scope) if value.role not in LEARNED else None for value in item.drawn.ins]
            step, outs = self.leaf(item, taken)
            scope.nodes.append(step)
            for value, strand in zip(item.drawn.outs, outs, strict=True):
                scope.have.setdefault(value.number, []).append(strand)
            return
        have: dict[int, list[int]] = {}
        for number in item.needs:
            have.setdefault(number, []).append(self._take(number, scope))
        still = [number for each in later for number in each.needs] + list(results)
        made = [number for number in dict.fromkeys(item.makes) if number in still]
        shown = [value.number for value in item.box.outputs if value.number in made]
        leaving = list(dict.fromkeys([*shown, *made]))
        built = self.group(item, have, leaving)
        scope.nodes.append(built.node)
        for number, strand in zip(leaving, built.outs, strict=True):
            scope.have.setdefault(number, []).append(strand)

    def _take(self, number: int, scope: _Scope) -> int:
        """Return the strand of a tensor for one use; if more uses are left than strands, it is copied first."""
        strands = scope.have.get(number)
        if not strands:
            raise CircuitError(f"draw: tensor {number} is read before it is made")
        more = scope.left.count(number) - 1
        scope.left.remove(number)
        if more < len(strands):
            return strands.pop(0)
        old = self.now[strands[0]]
        pair = [self.like(old.value, old.wires) for _ in range(2)]
        places = range(len(old.wires))
        links = tuple([Link("fork", ((0, place),), ((0, place), (1, place))) for place in places])
        scope.nodes.append(Step("", "copy", (old.id,), tuple(pair), links))
        strands[0] = pair[1]
        return pair[0]

    def _drop_rest(self, scope: _Scope) -> None:
        """Add the ends of tensors that nothing reads."""
        for strands in scope.have.values():
            for strand in strands:
                links = tuple([Link("end", ((0, place),)) for place in range(len(self.strands[strand].wires))])
                scope.nodes.append(Step("", "unused", (strand,), (), links))
            strands.clear()

    def leaf(self, item: Item, taken: Sequence[int | None]) -> tuple[Step, list[int]]:
        """Return the step of an operation or a closed box, and the strands that it makes.

        Args:
            item: The operation or box.
            taken: The strand of each tensor that is drawn; None for a parameter or constant, which begins here.
        """
        drawn = item.drawn
        assert_drawn: Drawn = drawn if drawn is not None else drawing_of(item.box)
        ins, sources = [], []
        for value, strand in zip(assert_drawn.ins, taken, strict=True):
            here = self.strand(value) if strand is None else strand
            ins.append(here)
            sources += [(here, value.name or "constant")] if strand is None else []
        outs = [self.strand(value) for value in assert_drawn.outs]
        links = self._links(assert_drawn, ins, outs, item)
        fill = f"box{colour(item.box.label)}" if item.closed else ""
        step = Step(
            item.id,
            item.title,
            tuple(ins),
            tuple(outs),
            links,
            assert_drawn.above,
            assert_drawn.sign,
            tuple(sources),
            fill,
        )
        return step, outs

    def _links(self, drawn: Drawn, ins: Sequence[int], outs: Sequence[int], item: Item) -> tuple[Link, ...]:
        """Return the links of a drawing between wires, from those between axes."""
        if self.options.wires == "tensors":
            return self._tensor_links(drawn, item)
        found: dict[Link, None] = {}
        for link in drawn.links:
            before, after, beside = (
                self._ports(*side) for side in ((link.ins, ins), (link.outs, outs), (link.beside, ins))
            )
            if (link.ins and not before) or (link.outs and not after):
                if bool(before) != bool(after) and link.kind != "glyph":
                    raise CircuitError(f"draw: hide= names an axis that {item.title} reads: it cannot be left out")
                if not before and not after:
                    continue
            found[replace(link, ins=before, outs=after, beside=beside)] = None
        links = _whole(
            tuple(found),
            [len(self.strands[each].wires) for each in ins],
            [len(self.strands[each].wires) for each in outs],
        )
        return links or as_box_links(self.strands, ins, outs, item.title)

    def _ports(self, side: Iterable[Port], strands: Sequence[int]) -> tuple[Port, ...]:
        """Return the wires of some axes, each once, without those of hidden axes."""
        found = [(place, place_of(self.strands[strands[place]].wires, axis)) for place, axis in side]
        return tuple(dict.fromkeys([(place, wire) for place, wire in found if wire is not None]))

    def _tensor_links(self, drawn: Drawn, item: Item) -> tuple[Link, ...]:
        """Return the links of whole tensors: dots where they are added or copied, else a box with a name."""
        ins = tuple([(place, 0) for place in range(len(drawn.ins))])
        outs = tuple([(place, 0) for place in range(len(drawn.outs))])
        if drawn.above and len(ins) == len(outs) == 1:
            return (Link("pass", ins, outs),)
        if drawn.sign and len(outs) == 1:
            return (Link("join", ins, outs),)
        shown = next(
            (link for link in drawn.links if link.kind == "glyph" and link.shape in ("box", "letter", "star")), None
        )
        name = shown.text if shown is not None else ()
        return as_box_links(self.strands, ins, outs, item.title.partition(" '")[0], name)


def _whole(links: tuple[Link, ...], ins: list[int], outs: list[int]) -> tuple[Link, ...]:
    """Return links if they take and make each wire once; nothing if a pair of axes is not treated as one."""
    links = tuple([_simple(link) for link in links])
    for counts, side in ((ins, "ins"), (outs, "outs")):
        wanted = [(place, wire) for place, count in enumerate(counts) for wire in range(count)]
        if sorted([port for link in links for port in getattr(link, side)]) != wanted:
            return ()
    return links


def _simple(link: Link) -> Link:
    """Return a bar from one wire to one wire (a pair of axes that is grouped) as a wire that passes."""
    single = link.kind == "glyph" and link.shape == "bar" and len(link.ins) == len(link.outs) == 1
    return replace(link, kind="pass", shape="") if single else link


def as_box_links(
    strands: Sequence[Strand], ins: Sequence, outs: Sequence, title: str, text: tuple = ()
) -> tuple[Link, ...]:
    """Return one box to which every wire is attached."""
    from circuits.drawing.marks import Span

    if (ins and isinstance(ins[0], tuple)) or (outs and isinstance(outs[0], tuple)):
        before, after = tuple(ins), tuple(outs)
    else:
        before, after = (
            tuple([(place, wire) for place, strand in enumerate(side) for wire in range(len(strands[strand].wires))])
            for side in (ins, outs)
        )
    return (Link("glyph", before, after, "box", text or (Span(title, "sans"),)),)


__all__ = ["scene_of"]
