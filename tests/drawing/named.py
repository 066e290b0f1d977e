"""What a drawing names: axes, also by λ in brackets, and tensors that are saved and loaded; compared with the diagram.

What is in brackets is compared with each repetition in turn: a label by λ is read with the sizes that the legend gives
at this λ, and has to be the size of the axis there; another label has to be the name or the size in all of them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from circuits.diagram import Value, size_text
from tests.drawing.rebuild import Axis, Rebuilt
from tests.drawing.repeats import Repeats
from tests.drawing.rules import number_at, plain
from tests.drawing.shown import axes_of

Known = Mapping[int, Sequence[Value]]


def wrong_names(drawn: Rebuilt, known: Known, repeated: Repeats) -> Iterator[str]:
    """Yield labels and names of wires that no part of the diagram gives to their axes, and rules that no label says."""
    yield from [f"the legend says {line!r}" for line in drawn.rules.strange]
    rules: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for axis, label, at in drawn.labels:
        text = label.partition("=")[0]
        yield from _label(axis, text, drawn.rules.around(at), drawn, known, repeated)
        for start in drawn.rules.around(at):
            rules[start].update(_rules_of(axis, start, known, repeated))
    for axis, names in drawn.names.items():
        for name in names:
            around = [start for start in drawn.rules.brackets if "λ" in name and repeated.all_of(start, axis[0])]
            yield from _label(axis, plain(name), around[-1:], drawn, known, repeated)
    for start, table in repeated.each.items():
        for number in table:
            parts = {axis for axis in drawn.names if axis[0] == number}
            for sizes in {each for axis in parts for each in _rules_of(axis, start, known, repeated)} - rules[start]:
                yield f"no label in the bracket of box {start} says that sizes of tensor {number} are {sizes}"
            if not parts:
                yield from _unlisted(number, start, drawn, known, repeated)


def _rules_of(axis: Axis, start: str, known: Known, repeated: Repeats) -> Iterator[tuple[str, ...]]:
    """Yield the sizes that an axis has in the repetitions, if they are different."""
    numbers = [number for number in repeated.all_of(start, axis[0]) if number in known]
    for place in axes_of(axis[1]):
        sizes = tuple([size_text(known[number][0].sizes[place]) for number in numbers])
        if len(set(sizes)) > 1:
            yield sizes


def _unlisted(number: int, start: str, drawn: Rebuilt, known: Known, repeated: Repeats) -> Iterator[str]:
    """Yield sizes of a tensor inside closed boxes that differ and that no letter of the legend lists."""
    rank = len(known[number][0].sizes) if number in known else 0
    for sizes in {each for place in range(rank) for each in _rules_of((number, f"{place}"), start, known, repeated)}:
        listed = [list(members.values()) for members in drawn.rules.sizes.values()]
        windows = [part[n : n + len(sizes)] for each in listed for part in (each, each[::-1]) for n in range(len(part))]
        if list(sizes) not in windows:
            yield f"the legend does not say that sizes of tensor {number} in box {start} are {sizes}"


def _label(
    axis: Axis, text: str, around: Sequence[str], drawn: Rebuilt, known: Known, repeated: Repeats
) -> Iterator[str]:
    """Yield what is wrong with a label: in brackets for each repetition, else for its tensor alone."""
    starts = [start for start in around if repeated.all_of(start, axis[0])]
    for start in starts:
        varies = bool(list(_rules_of(axis, start, known, repeated)))
        if "λ" in text and not varies and len(starts) > 1:
            continue  # λ counts in another bracket around
        for step, number in enumerate(repeated.all_of(start, axis[0]), start=1):
            said, given = drawn.rules.at(text, step), _given(number, axis[1], varies, known)
            if _bare(said) not in given:
                here = f"axis {axis[1]} of tensor {axis[0]} is named {text!r}"
                yield f"{here}, at λ = {step} {said!r}; there, as tensor {number}, it is {sorted(given)}"
    if not starts:
        given = _given(axis[0], axis[1], False, known)
        said = drawn.rules.at(text, 0)
        if _bare(said) not in given | (_given(axis[0], axis[1], True, known) if said != text else set()):
            yield f"axis {axis[1]} of tensor {axis[0]} is named {text!r}, in the diagram {sorted(given)}"


def _given(number: int, axis: str, varies: bool, known: Known) -> set[str]:
    """Return how the axes of a wire may be named: by names or, without a name or where these vary, by sizes."""
    found = set()
    for value in known.get(number, ()):
        options = []
        for place in axes_of(axis):
            name, size = value.axes[place], size_text(value.sizes[place])
            options.append([size] if varies and len(axes_of(axis)) == 1 else [name or size, *([size] * varies)])
        found |= {_bare("".join(each)) for each in product(*options)}
    return found


def _bare(name: str) -> str:
    """Return a name as it is compared: indices below the line are digits after a letter in the code."""
    return plain(name).replace("[", "").replace("]", "")


def wrong_memories(drawn: Rebuilt, repeated: Repeats) -> Iterator[str]:
    """Yield tensors that are loaded by the name of another one or by one that none has, or saved for nothing."""
    saved, loaded = _memories(drawn, repeated, "ins"), _memories(drawn, repeated, "outs")
    for (name, axis), numbers in loaded.items():
        if saved.get((name, axis)) != numbers:
            yield f"loaded as {name} is axis {axis} of {numbers}, saved as {name} is that of {saved.get((name, axis))}"
    for name in drawn.rules.returned - {name for name, _ in saved}:
        yield f"the legend says that {name} is returned, which is not saved"
    for (name, axis), numbers in saved.items():
        if len(numbers) > 1:
            yield f"{name} is the name of axis {axis} of several tensors: {numbers}"
        read = {*[each for each, _ in loaded], *drawn.rules.returned}
        if name.partition("[")[0] not in {each.partition("[")[0] for each in read if ("[" in each) == ("[" in name)}:
            yield f"{name} is saved and never read"


def _memories(drawn: Rebuilt, repeated: Repeats, side: str) -> dict[tuple[str, str], set[int]]:
    """Return the tensors that are saved (`ins`) or loaded (`outs`), by name and axis; by λ in each repetition."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    scopes = {name: around[-1:] for name, _, around in _named(drawn, repeated, "ins")}
    for name, (number, axis), around in _named(drawn, repeated, side):
        family, _, formula = name.rstrip("]").partition("[")
        if not around:
            found[f"{name} outside of brackets" if "λ" in formula else name, axis].add(number)
        for step, tensor in enumerate(repeated.all_of(around[-1], number) if around else (), start=1):
            own = f"{name} at λ = {step}" if scopes.get(name) == around[-1:] else name  # saved and loaded in each
            found[f"{family}[{number_at(formula, step)}]" if "λ" in formula else own, axis].add(tensor)
    return found


def _named(drawn: Rebuilt, repeated: Repeats, side: str) -> Iterator[tuple[str, Axis, list[str]]]:
    """Yield the name and the wire of each memory, and the brackets around it in which the tensor is repeated."""
    for joint in drawn.joints:
        for text in joint.texts if "memory" in joint.kinds else ():
            for axis in getattr(joint, side):
                around = drawn.rules.around(joint.at)
                yield text.strip("→"), axis, [start for start in around if repeated.all_of(start, axis[0])]


def saved_and_loaded(drawn: Rebuilt) -> tuple[set[int], set[int]]:
    """Return the tensors that are saved by a name with λ, and those that are loaded."""
    by_place = [joint for joint in drawn.joints if "memory" in joint.kinds and any("λ" in text for text in joint.texts)]
    saved, loaded = ([number for joint in by_place for number, _ in getattr(joint, side)] for side in ("ins", "outs"))
    return set(saved), set(loaded)


def returned(drawn: Rebuilt, repeated: Repeats) -> set[int]:
    """Return the tensors that the legend says are returned."""
    saved = _memories(drawn, repeated, "ins")
    return {number for (name, _), numbers in saved.items() if name in drawn.rules.returned for number in numbers}
