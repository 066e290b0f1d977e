"""From a diagram to a scene: strands for the uses of tensors, steps for operations, groups for open boxes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from circuits.diagram import Diagram, Value
from circuits.drawing.clashes import clashes
from circuits.drawing.contents import Item, Reader
from circuits.drawing.depths import ALL, chosen
from circuits.drawing.joining import merged
from circuits.drawing.labels import box_title, colour
from circuits.drawing.lifting import inside_axes, outside_axes
from circuits.drawing.linking import links_of
from circuits.drawing.notes import Notes, Spans, repeated_ids
from circuits.drawing.operations import LEARNED, Drawn
from circuits.drawing.operations.closed import closed_box
from circuits.drawing.operations.reading import as_box
from circuits.drawing.options import Options
from circuits.drawing.renaming import relabelled_box
from circuits.drawing.roles import cotangents, is_reverse, recoloured, result_names
from circuits.drawing.scene import Group, Link, Node, Scene, Step, Strand, Wire
from circuits.drawing.wires import axis_names, order_of, place_of, renamed, wires_of
from circuits.errors import CircuitError


def scene_of(diagram: Diagram, options: Options) -> Scene:
    """Return what is drawn of a diagram.

    Args:
        diagram: The diagram.
        options: Depth, order, pairs and what else was chosen.

    Raises:
        CircuitError: If an axis is hidden that an operation does not leave untouched, or a name is that of no input.
    """
    if options.hidden and options.wires == "axes" and options.depth != ALL:
        scene_of(diagram, replace(options, depth=ALL, opened=(), closed=()))  # raises for what is inside closed boxes
    box = diagram.box
    title = box_title("", box.label)
    reader = Reader(box, options, {expression: axis for axis, expression in diagram.symbols.items()})
    items, folding = chosen(reader, options)
    if folding is not None and folding.families.letters:
        box = relabelled_box(box, folding.families.outside)
    inputs = [value for value in box.inputs if value.role not in LEARNED]
    build = _Builder(options, cotangents(box), Notes(options.notes, diagram.box))
    have: dict[int, list[int]] = {}
    for value in inputs:
        have.setdefault(value.number, []).append(build.strand(value))
    entering = [strand for strands in have.values() for strand in strands]
    names = _shown_names(inputs, options, declared=box.kind == "circuit")
    shown = [(strand, names.get(build.strands[strand].value, "")) for strand in entering]
    node: Node
    if items:
        saved = folding.saved if folding else {}
        results = [value.number for value in box.outputs if value.number not in saved]
        node, left = build.group(Item(box, "root", None, items, title), have, results)
    else:
        whole = Item(box, "root", closed_box(box, inputs, box.outputs, title), title=title, closed=True)
        node, left = build.leaf(whole, entering)
    ends_named = result_names(diagram)
    ends = tuple([(strand, ends_named.get(build.now[strand].value, "")) for strand in left])
    lines = folding.legend() if folding else (), build.notes.heading(build.noted_in_brackets)
    scene = Scene(title, tuple(build.strands), tuple(shown), ends, (node,), build.error, *lines)
    return recoloured(scene, build.clashing)


def _shown_names(inputs: Sequence[Value], options: Options, *, declared: bool) -> dict[int, str]:
    """Return the names at the inputs: those that were chosen, and those of the code where they are needed.

    They are if two inputs have the same axes, or one an axis without a name. In the signature of a circuit a number
    names an axis.
    """
    chosen, known = dict(options.names), [value.name for value in inputs]
    missing = [name for name in chosen if name not in known]
    if missing:
        raise CircuitError(f"draw: names has {missing[0]!r}, which is no input: the inputs are {', '.join(known)}")
    axes = [tuple(axis_names(value)) if declared else value.axes for value in inputs]
    ambiguous = len(set(axes)) < len(axes) or (len(inputs) > 1 and any(None in each for each in axes))
    shown = {value.number: value.name for value in inputs} if ambiguous else {}
    return shown | {value.number: chosen[value.name] for value in inputs if value.name in chosen}


@dataclass
class _Scope:
    """The strands of each tensor that can be read in one group, and how often each is still read."""

    have: dict[int, list[int]]
    left: Counter[int]
    nodes: list[Node] = field(default_factory=list)


class _Builder:
    """Builds steps and groups; `strands` holds every strand so far."""

    def __init__(self, options: Options, gradients: set[int], notes: Notes) -> None:
        self.options, self._gradients, self.notes = options, gradients, notes
        self._brackets, self.noted_in_brackets = list[Item](), False
        self.error = ""
        self.clashing: dict[tuple[int, int], str] = {}
        self.strands: list[Strand] = []
        self.now: list[Strand] = []  # with the names that their axes have at this place of the run

    def strand(self, value: Value) -> int:
        """Return the id of a new strand of a tensor."""
        role = "cotangent" if value.number in self._gradients else "wire"
        return self.like(value.number, wires_of(value, self.options, role))

    def like(self, number: int, wires: tuple[Wire, ...]) -> int:
        """Return the id of a new strand with these wires."""
        self.strands.append(Strand(len(self.strands), number, wires, order_of(wires, self.options)))
        self.now.append(self.strands[-1])
        return len(self.strands) - 1

    def group(self, item: Item, have: dict[int, list[int]], results: Sequence[int]) -> tuple[Group, list[int]]:
        """Return an open box or repeated boxes, and the strands that leave, one for each result.

        Args:
            item: The box, with what is inside.
            have: The strands that enter, by the number that their tensor has inside; they are all used.
            results: The numbers of the tensors that leave.
        """
        literal = self.options.literal or self.options.wires == "tensors"
        inner = list(item.items) if literal else merged(item.items)
        ins = self._entering(item, have)
        own = _own_numbers(item, results)
        needed = Counter([number for each in inner for number in each.needs] + own)
        scope = _Scope({number: list(strands) for number, strands in have.items()}, needed)
        self._brackets += [item] if item.times > 1 else []
        for each in inner:
            self._add(each, scope)
        self._brackets = self._brackets[: len(self._brackets) - (item.times > 1)]
        known = [place for place, number in enumerate(own) if scope.have.get(number)]
        outs, results = [self._take(own[place], scope) for place in known], [results[place] for place in known]
        self._drop_rest(scope)
        leaving = tuple([self._leaving(strand, item, number) for strand, number in zip(outs, results, strict=True)])
        open_box = item.times == 1 and not item.plain
        fill, title = (f"fence{colour(item.box.label)}", item.title) if open_box else ("", "")
        error = item.box.error if item.times == 1 else ""
        if error:
            self.error = f"{item.title}: {error}"
        ends = is_reverse(item.box), error, self._note(item) if open_box else ()
        return Group(item.id, title, ins, leaving, tuple(scope.nodes), fill, item.times, item.note, *ends), outs

    def _entering(self, item: Item, have: dict[int, list[int]]) -> tuple[Strand, ...]:
        """Return the strands that enter a box, with the names that their axes have inside."""
        named = {value.number: value for inner in reversed(item.items) for value in _inputs(inner)}
        dims = {inside: dim for inside, _, dim in item.box.lifted} if item.times == 1 else {}
        found = []
        for number, strands in have.items():
            for strand in strands:
                wires = self.now[strand].wires
                if number in named:
                    wires = inside_axes(wires, named[number], dims[number]) if number in dims else wires
                    wires = renamed(wires, named[number], self.options)
                found.append(self._named(strand, number, wires))
        return tuple(found)

    def _named(self, strand: int, number: int, wires: tuple[Wire, ...]) -> Strand:
        """Set the names of a strand's wires from here on, and return it as it is then."""
        self.now[strand] = Strand(strand, number, wires, order_of(wires, self.options))
        return self.now[strand]

    def _leaving(self, strand: int, item: Item, number: int) -> Strand:
        """Return a strand that leaves a box, with the number and the names that it has outside."""
        value = next((each for each in item.box.outputs if each.number == number), None)
        wires = self.now[strand].wires
        inside = next((each for each in item.box.inside if each.number == self.now[strand].value), None)
        if value is not None:
            wires = outside_axes(wires, inside, value) if inside is not None else wires
            wires = renamed(wires, value, self.options)
        return self._named(strand, number, wires)

    def _add(self, item: Item, scope: _Scope) -> None:
        """Add a box to a scope: copies of what is read again, then the box."""
        if item.drawn is not None:
            learned = [value.role in LEARNED for value in item.drawn.ins]
            numbers = [value.number for value in item.drawn.ins]
            taken = [
                self._take(number, scope) if not own and scope.have.get(number) else None
                for number, own in zip(numbers, learned, strict=True)
            ]
            step, outs = self.leaf(item, taken)
            scope.nodes.append(step)
            for value, strand in zip(item.drawn.outs, outs, strict=True):
                scope.have.setdefault(value.number, []).append(strand)
            return
        have: dict[int, list[int]] = {}
        for number, inside in zip(item.needs, item.enters, strict=True):
            if scope.have.get(number):  # else no box makes it, and it begins at the step that reads it
                have.setdefault(inside, []).append(self._take(number, scope))
        made = [number for number in dict.fromkeys(item.makes) if scope.left[number]]
        shown = [value.number for value in item.box.outputs if value.number in made]
        leaving = list(dict.fromkeys([*shown, *made]))
        node, outs = self.group(item, have, leaving)
        scope.nodes.append(node)
        for number, strand in zip(leaving, outs, strict=True):
            scope.have.setdefault(number, []).append(strand)

    def _take(self, number: int, scope: _Scope) -> int:
        """Return the strand of a tensor for one use; if more uses are left than strands, it is copied first."""
        strands = scope.have[number]
        scope.left[number] -= 1
        if scope.left[number] < len(strands):
            return strands.pop(0)
        old = self.now[strands[0]]
        pair = [self.like(old.value, old.wires) for _ in range(2)]
        links = tuple([Link("fork", ((0, place),), ((0, place), (1, place))) for place in range(len(old.wires))])
        scope.nodes.append(Step("", "copy", (old.id,), tuple(pair), links))
        strands[0] = pair[1]
        return pair[0]

    def _drop_rest(self, scope: _Scope) -> None:
        """Add the ends of tensors that nothing reads."""
        for strands in scope.have.values():
            for strand in strands:
                links = tuple([Link("end", ((0, place),)) for place in range(len(self.strands[strand].wires))])
                scope.nodes.append(Step("", "unused", (strand,), (), links))

    def leaf(self, item: Item, taken: Sequence[int | None]) -> tuple[Step, list[int]]:
        """Return the step of an operation or a closed box, and the strands that it makes.

        Args:
            item: The operation or box.
            taken: The strand of each tensor that is drawn; None for a parameter or constant, which begins here.
        """
        drawn = item.drawn or as_box((), (), item.title)
        ins, sources = [], []
        for value, strand in zip(drawn.ins, taken, strict=True):
            ins.append(self.strand(value) if strand is None else strand)
            name = (
                f"{value.name} →"
                if value.role == "saved"
                else value.name or ("constant" if value.role == "constant" else "unrecorded")
            )
            sources += [(ins[-1], name)] if strand is None else []
        outs = [self.strand(value) for value in drawn.outs]
        sides = ([self.now[each].wires for each in ins], [self.now[each].wires for each in outs])
        links = links_of(item, drawn, sides, self.options)
        fill = f"box{colour(item.box.label)}" if item.closed else ""
        error = next((box.error for box in item.box.walk() if box.error), "")
        if error:
            self._fail(item, error, drawn, ins)
        numbers = (tuple(ins), tuple(outs))
        return Step(
            item.id,
            item.title,
            *numbers,
            links,
            drawn.above,
            drawn.sign,
            drawn.scale,
            tuple(sources),
            fill,
            error,
            is_reverse(item.box),
            self._note(item),
        ), outs

    def _note(self, item: Item) -> Spans:
        """Return the note of a box; in brackets, for one repetition of several."""
        repetitions: list[list[str]] = [[item.id, *item.also]]
        for bracket in reversed(self._brackets):
            repetitions = [ids for each in repetitions for ids in repeated_ids(bracket, each)]
        found = self.notes.of(*repetitions)
        self.noted_in_brackets |= bool(found) and bool(self._brackets)
        return found

    def _fail(self, item: Item, error: str, drawn: Drawn, ins: Sequence[int]) -> None:
        """Remember the error of a run, and the wires whose axes clash."""
        self.error = f"{item.title}: {error}"
        failed = next(box for box in item.box.walk() if box.error)
        strands = {value.number: strand for value, strand in zip(drawn.ins, ins, strict=True)}
        for (place, axis), size in clashes(failed).items():
            strand = strands.get(failed.inputs[place].number)
            wire = None if strand is None else place_of(self.now[strand].wires, axis)
            if strand is not None and wire is not None:
                self.clashing[strand, wire] = size


def _own_numbers(item: Item, results: Sequence[int]) -> list[int]:
    """Return the numbers that results have inside a box: others inside a transform, and inside repeated boxes."""
    if item.times > 1:
        return [{after: before for before, after in item.last}[number] for number in results]
    outside = [value.number for value in item.box.outputs]
    if len(item.box.inside) != len(outside):
        return list(results)
    own = dict(zip(outside, [value.number for value in item.box.inside], strict=True))
    return [own.get(number, number) for number in results]


def _inputs(item: Item) -> list[Value]:
    """Return the tensors that an item reads, with the names that they have outside it."""
    if item.times > 1:
        return [value for inner in reversed(item.items) for value in _inputs(inner)]
    return list(item.drawn.ins) if item.drawn is not None else list(item.box.inputs)


__all__ = ["scene_of"]
