"""Which axes may be grouped and streamed.

*Grouping* an axis divides it into groups that are computed apart from each other, so every operation has to map over
it. *Streaming* an axis loads it block by block while accumulators stay in fast memory, so every operation has to map
over it or fold it, and nothing made from an accumulator may be needed before the last block. A softmax over a streamed
axis is allowed where its output is contracted over this axis, with a running maximum and a running sum (online
softmax).

Source: arXiv 2412.03317; online softmax is that of M. Milakov and N. Gimelshein, arXiv
1805.02867.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from circuits.cost.io.reads import Reads, reads_of
from circuits.cost.io.steps import Program, Step, Tensor, names_within
from circuits.errors import CircuitError

Letters = Sequence[tuple[object, ...] | None]

ONLINE = ("running maximum", "running sum")
"""The accumulators of an online softmax; the third is the weighted sum of the contraction after it."""


@dataclass(frozen=True)
class Accumulator:
    """What is kept in fast memory while blocks of an axis are streamed.

    Attributes:
        axis: The streamed axis.
        box: The operation that folds it, with its line.
        names: What is kept: "running maximum".
    """

    axis: str
    box: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.box}: {', '.join(self.names)}"


@dataclass(frozen=True)
class Use:
    """What one operation does with one axis: nothing, map over it, fold it, or read across it."""

    kind: Literal["nothing", "maps", "folds", "across", "unknown"]
    accumulators: tuple[str, ...] = ()
    extra: int = 0
    why: str = ""


def use_of(step: Step, reads: Reads | None, axis: str) -> Use:
    """Return what an operation does with an axis."""
    derived = sorted([word for word in step.names if axis in names_within(word)])
    if axis not in step.names and not derived:
        return Use("nothing")
    if reads is None:
        return Use("unknown", why="no rule says how it reads its axes")
    uses = [_input_use(step, reads, axis, letter) for letter in _letters(step.inputs, reads.inputs, axis)]
    uses += [_output_use(step, reads, axis, letter) for letter in _letters(step.outputs, reads.outputs, axis)]
    across, folds = [[use for use in uses if use.kind == kind] for kind in ("across", "folds")]
    if across:
        return across[0]
    if derived:
        return Use("across", why=f"its axis {derived[0]} is computed from {axis}")
    if folds and len(folds) < len(uses):
        return Use("across", why=f"it sums over {axis} and maps over it")
    return folds[0] if folds else Use("maps")


def _letters(tensors: Sequence[Tensor], letters: Letters, axis: str) -> list[object]:
    """Return the letter of each place where tensors have the axis; the name itself where axes are followed by name."""
    found: list[object] = []
    for tensor, own in zip(tensors, letters, strict=True):
        found += [axis if own is None else own[at] for at, names in enumerate(tensor.axes) if axis in names]
    return found


def _names_at(tensors: Sequence[Tensor], letters: Letters, letter: object) -> list[set[str]]:
    """Return the names of each axis that has the letter, without axes of size 1, of which all is read everywhere."""
    found = []
    for tensor, own in zip(tensors, letters, strict=True):
        if own is None:
            found.append({*tensor.names})
        else:
            pairs = zip(own, tensor.axes, tensor.sizes, strict=True)
            found += [{*names} for each, names, size in pairs if each == letter and size != 1]
    return found


def _input_use(step: Step, reads: Reads, axis: str, letter: object) -> Use:
    if letter in reads.across:
        return Use("across", why=f"it is {reads.across[letter]} over {axis}")
    if letter in reads.folded:
        return Use("folds", reads.folded[letter], reads.extra)
    if all(axis in names for names in _names_at(step.outputs, reads.outputs, letter)) and step.outputs:
        return Use("maps")
    return Use("across", why=f"it reads {axis} for an output axis that is not {axis}, or that has no name")


def _output_use(step: Step, reads: Reads, axis: str, letter: object) -> Use:
    makes = any(own is None for own in reads.inputs) or not reads.inputs
    if makes or all(axis in names for names in _names_at(step.inputs, reads.inputs, letter)):
        return Use("maps")
    return Use("across", why=f"it makes {axis} of an axis that is not {axis}, or that has no name")


def check_grouped(program: Program, axis: str) -> None:
    """Raise CircuitError unless every operation maps over the axis."""
    for step in program.steps:
        use = use_of(step, reads_of(step), axis)
        if use.kind in ("across", "unknown"):
            refuse("group", axis, step, use.why, _HINTS["group"])
        if use.kind == "folds":
            why = f"it sums over {axis}, so that each group would have a part of the {use.accumulators[0]}"
            hint = f"stream={axis!r}, which keeps it as an accumulator, or grouping an axis of its output"
            refuse("group", axis, step, why, hint)


_HINTS = {
    "group": "grouping an axis over which every operation maps",
    "softmax": "a softmax whose output is contracted over the axis, as in attention (online softmax)",
    "passes": "one circuit for each pass over the axis; for a softmax in steps, softmax() contracted over the axis",
    "stream": "an axis over which every operation maps, or which it sums, or of which it takes the maximum",
}


def refuse(what: str, axis: str, step: Step, why: str, hint: str) -> NoReturn:
    """Raise the CircuitError that an axis cannot be grouped or streamed."""
    raise CircuitError(f"transfers: {axis} cannot be {what}ed: {step}: {why}\n  what would work: {hint}")


def check_streamed(program: Program, axis: str) -> dict[int, Accumulator]:
    """Return the accumulators of each step, by its place, that folds the axis.

    Raises:
        CircuitError: An operation reads across the axis, or needs the result of all blocks for each block.
    """
    found: dict[int, Accumulator] = {}
    after: dict[int, Step] = {}  # the tensors that are complete after the last block only, with the step that folds
    for place, step in enumerate(program.steps):
        reads = reads_of(step)
        use = use_of(step, reads, axis)
        early = next((after[each.number] for each in step.inputs if each.number in after), None)
        if use.kind == "unknown":
            refuse("stream", axis, step, use.why, _HINTS["stream"])
        if use.kind == "across":
            if reads is None or reads.softmax is None or reads.softmax not in _letters(step.inputs, reads.inputs, axis):
                refuse("stream", axis, step, use.why, _HINTS["stream"])
            _check_online(program, place, axis)
            found[place] = Accumulator(axis, str(step), ONLINE)
        if use.kind != "nothing" and early is not None:
            why = f"each block of {axis} needs the result of {early}, which is complete after the last block only"
            refuse("stream", axis, step, why, _HINTS["passes"])
        if use.kind == "folds":
            names = ("weighted sum",) if _rescaled(program, found, place, axis) else use.accumulators
            found[place] = Accumulator(axis, str(step), names)
        if use.kind == "folds" or early is not None:
            after |= {each.number: early or step for each in step.outputs}
    return found


def _rescaled(program: Program, found: Mapping[int, Accumulator], place: int, axis: str) -> bool:
    """Return whether a step contracts the output of an online softmax."""
    online = [each for each, accumulator in found.items() if accumulator.names == ONLINE and accumulator.axis == axis]
    return any(place in _contractions(program, each, axis) for each in online)


def _check_online(program: Program, place: int, axis: str) -> None:
    """Raise CircuitError unless the output of the softmax at a place is only contracted over the axis."""
    step = program.steps[place]
    why = f"it is a softmax over {axis}, which needs all of {axis} before its first output"
    if not _contractions(program, place, axis):
        refuse("stream", axis, step, why, _HINTS["softmax"])


def _contractions(program: Program, place: int, axis: str) -> set[int]:
    """Return the places of the steps that contract the output of a softmax; none if anything else reads it.

    Between the softmax and the contraction there may be linear maps that keep the axis: a block can be rescaled after
    them too.
    """
    pending = [each.number for each in program.steps[place].outputs]
    found: set[int] = set()
    scaled: set[int] = set()
    while pending:
        number = pending.pop()
        if number in program.results:
            return set()
        scaled.add(number)
        for at, step in enumerate(program.steps[place + 1 :], place + 1):
            count = [each.number for each in step.inputs].count(number)
            if not count:
                continue
            reads = reads_of(step)
            use = use_of(step, reads, axis)
            others = {each.number for each in step.inputs} & scaled - {number}
            if reads is None or not reads.linear or count > 1 or others or use.kind not in ("maps", "folds"):
                return set()
            if use.kind == "folds":
                found.add(at)
            else:
                pending += [each.number for each in step.outputs]
    return found
