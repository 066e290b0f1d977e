"""Which elements of two drawings differ: moved, changed, missing or new, matched by their `data-` attributes."""

import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

GEOMETRY = {"d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "points", "transform", "viewBox"}
"""The attributes that say where an element is."""
MOST = 40
"""The most lines of a report."""


@dataclass(frozen=True)
class Element:
    """An element that stands for something: all marks of a drawing, and its root and background.

    Attributes:
        meaning: The `data-` attributes; of an element without any, its tag.
        geometry: The attributes that say where it and the elements in it are.
        look: All other attributes: colours, widths of lines, fonts.
        text: The text in it.
    """

    meaning: tuple[tuple[str, str], ...]
    geometry: tuple[tuple[str, str], ...]
    look: tuple[tuple[str, str], ...]
    text: str

    def __str__(self) -> str:
        kind, *others = sorted(self.meaning, key=lambda pair: pair[0] != "kind")
        name = f" {self.text!r}" if self.text else ""
        return " ".join([kind[1] + name, *[f"{key}={value}" for key, value in others]])


def elements(svg: str) -> list[Element]:
    """The root of a drawing, then every element that stands for something, in the order in which they are drawn."""
    root = ElementTree.fromstring(svg)
    found = [_element(root, [root])]
    pending = list(root)[::-1]
    while pending:
        each = pending.pop()
        if _meaning(each) or not len(each) or each.tag.endswith("}text"):
            found.append(_element(each, list(each.iter())))
        else:
            pending += list(each)[::-1]
    return found


def _meaning(element: ElementTree.Element) -> tuple[tuple[str, str], ...]:
    found = [(name.removeprefix("data-"), value) for name, value in element.items() if name.startswith("data-")]
    return tuple(sorted(found))


def _element(element: ElementTree.Element, parts: list[ElementTree.Element]) -> Element:
    attributes = [
        (f"{part.tag.rpartition('}')[2]} {name}", value)
        for part in parts
        for name, value in part.items()
        if not name.startswith("data-")
    ]
    text = "" if len(parts) == 1 and len(element) else "".join(element.itertext()).strip()
    return Element(
        _meaning(element) or (("kind", element.tag.rpartition("}")[2]),),
        tuple(pair for pair in attributes if pair[0].split()[1] in GEOMETRY),
        tuple(pair for pair in attributes if pair[0].split()[1] not in GEOMETRY),
        text,
    )


def differences(old: str, new: str) -> list[str]:
    """A line for each element that differs between two SVG files; empty if their bytes are the same.

    Elements with the same meaning are matched: first those that are alike, then the others in order. Of those left,
    elements of one kind at one place are matched: what they stand for has changed.
    """
    if old == new:
        return []
    before, after = elements(old), elements(new)
    pairs, missing, added = _matched(before, after)
    lines = [line for one, other in pairs for line in _changes(one, other)]
    lines += [f"missing: {each}" for each in missing]
    lines += [f"new: {each}" for each in added]
    if not lines:
        same = [one == other for one, other in zip(before, after, strict=True)]
        first = same.index(False) if False in same else None
        lines = ["the same elements, written otherwise" if first is None else f"another order, from {after[first]} on"]
    return lines


def report(old: str, new: str, suffix: str = ".svg") -> str:
    """The differences as one text, the first of them if there are many, with how many there are of each kind.

    Of SVG files they are elements; of other files lines.
    """
    lines = differences(old, new) if suffix == ".svg" or old == new else _lines(old, new)
    counts: dict[str, int] = defaultdict(int)
    for line in lines:
        counts[line.partition(":")[0]] += 1
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items()) if len(lines) > 1 else ""
    shown = [*lines[:MOST], *([f"and {len(lines) - MOST} more"] if len(lines) > MOST else [])]
    return "\n".join([*([summary] if summary else []), *shown])


def _lines(old: str, new: str) -> list[str]:
    """The lines that differ between two texts, each as `missing: ...` or `new: ...`."""
    _, _, *found = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), n=0)
    names = {"-": "missing", "+": "new"}
    return [f"{names[line[0]]}: {line[1:].rstrip()}" for line in found if line[0] in names]


Pairs = list[tuple[Element, Element]]


def _matched(before: Sequence[Element], after: Sequence[Element]) -> tuple[Pairs, list[Element], list[Element]]:
    """The pairs of elements that are the same or were, the missing ones, and the new ones."""
    pairs: Pairs = []
    rules = (
        lambda each: each,
        lambda each: (each.meaning, each.text, each.look),
        lambda each: (each.meaning, each.text),
        lambda each: each.meaning,
        lambda each: (dict(each.meaning)["kind"], each.geometry, each.look, each.text),
        lambda each: (dict(each.meaning)["kind"], each.geometry),
    )
    missing, added = list(before), list(after)
    for rule in rules:
        places: dict[object, list[Element]] = defaultdict(list)
        for each in added:
            places[rule(each)].append(each)
        left = []
        for each in missing:
            if places[rule(each)]:
                pairs.append((each, places[rule(each)].pop(0)))
            else:
                left.append(each)
        missing, added = left, [each for found in places.values() for each in found]
    order = {id(each): place for place, each in enumerate(after)}
    return pairs, missing, sorted(added, key=lambda each: order[id(each)])


def _changes(one: Element, other: Element) -> list[str]:
    """One line for two elements that were matched, unless they are alike."""
    found = [f"its text is {other.text!r}"] if one.text != other.text else []
    for was, now in ((one.meaning, other.meaning), (one.geometry, other.geometry), (one.look, other.look)):
        found += [_pairs(was, now)] if was != now else []
    moved = one.meaning == other.meaning and one.look == other.look and one.text == other.text
    return [f"{'moved' if moved else 'changed'}: {one}: {'; '.join(found)}"] if found else []


def _pairs(one: tuple[tuple[str, str], ...], other: tuple[tuple[str, str], ...]) -> str:
    """The attributes that differ, as they were and as they are."""
    if [name for name, _ in one] == [name for name, _ in other]:
        return "; ".join(
            f"{name} was {was}, is {now}" for (name, was), (_, now) in zip(one, other, strict=True) if was != now
        )
    was, now = (
        ", ".join(f"{name} {value}" for name, value in each if (name, value) not in set(rest))
        for each, rest in ((one, other), (other, one))
    )
    return f"was {was or 'without'}, is {now or 'without'}"
