"""Drawing rules of einops patterns and of reshapes: axes that regroup meet in a bar (Figure 19), the others pass."""

from collections.abc import Sequence
from typing import Any

from circuits.diagram import Value
from circuits.drawing.marks import Span
from circuits.drawing.operations.reading import SCALAR, Drawn, Reading, rule
from circuits.drawing.scene import Link
from circuits.naming import read_axes
from circuits.signature import Axes, Group, Number, Rest

Parts = list[tuple[str, ...]]
"""The elementary axes of which each axis of a tensor consists: one, or several for a group."""


@rule("rearrange reduce repeat")
def by_pattern(reading: Reading) -> Drawn | None:
    """Axes cross, split and merge as the pattern says; a reduced axis ends, and a repeated one begins."""
    pattern = next((arg for arg in reading.operation.args if isinstance(arg, str)), "")
    if len(reading.tensors) != 1 or pattern.count("->") != 1:
        return None
    value, out = reading.tensors[0], reading.box.outputs[0]
    left, right = (_parts(text, len(each.sizes)) for text, each in zip(pattern.split("->"), (value, out), strict=True))
    if left is None or right is None:
        return None
    words = [arg for arg in reading.operation.args if isinstance(arg, str)][1:]
    return Drawn((value,), (out,), tuple(regrouping(left, right, _ending(words))))


def _parts(text: str, rank: int) -> Parts | None:
    """Return the elementary axes of one side of a pattern, for a tensor of this rank; None if they do not fit."""
    found = _terms(read_axes(text), rank)
    return found if len(found) == rank else None


def _terms(terms: Axes, rank: int) -> Parts:
    found: Parts = []
    for place, term in enumerate(terms):
        if isinstance(term, Rest):
            found += [(f"...{number}",) for number in range(rank - len(terms) + 1)]
        elif isinstance(term, Group):
            found.append(tuple([f"{part}" for part in term.terms if f"{part}" != "1"]))
        elif isinstance(term, Number):
            found.append((f"1:{place}",) if f"{term}" != "1" else ())
        else:
            found.append((f"{term}",))
    return found


ENDINGS = {"sum": "Σ", "mean": "𝔼", "max": "Max", "min": "Min", "prod": "Π", "amax": "Max", "amin": "Min", "any": "∨",
           "all": "∧", "logsumexp": "log Σ exp", "std": "σ", "var": "σ²", "norm": "‖·‖"}  # fmt: skip
"""What stands at the end of an axis that an operation reduces."""


def _ending(words: Sequence[str]) -> tuple[Span, ...]:
    return (Span(ENDINGS.get(words[0], words[0]) if words else "Σ", "upright"),)


def regrouping(left: Parts, right: Parts, ending: tuple[Span, ...] = ()) -> list[Link]:
    """Return the links between the axes of a tensor and those of its rearrangement.

    Axes that share elementary axes are connected: one with one pass, others meet in a bar. An axis without any on the
    other side ends or begins.

    Args:
        left: The elementary axes of each axis of the input.
        right: Those of the output.
        ending: The text at the end of an axis that the output has not.
    """
    owner = {part: axis for axis, parts in enumerate(right) for part in parts}
    links: list[Link] = []
    done: set[int] = set()
    for first, parts in enumerate(left):
        if first in done:
            continue
        ins, outs = _component(first, left, right, owner)
        done |= ins
        names_in = {part for axis in ins for part in left[axis]}
        names_out = {part for axis in outs for part in right[axis]}
        before, after = (tuple([(0, axis) for axis in sorted(side)]) for side in (ins, outs))
        if not outs:
            links += [Link("end", (port,), text=ending if left[port[1]] else ()) for port in before]
        elif len(ins) == 1 and len(outs) == 1 and names_in == names_out and parts == right[min(outs)]:
            links.append(Link("pass", before, after))
        else:
            links.append(Link("glyph", before, after, "bar"))
    reached = {axis for link in links for _, axis in link.outs}
    links += [Link("start", (), ((0, axis),)) for axis in range(len(right)) if axis not in reached]
    if not left:
        links.append(Link("end", ((0, SCALAR),)))
    if not right:
        links.append(Link("start", (), ((0, SCALAR),)))
    return links


def _component(first: int, left: Parts, right: Parts, owner: dict[str, int]) -> tuple[set[int], set[int]]:
    """Return the axes of the two sides that are connected with one axis of the left."""
    ins, outs = {first}, set[int]()
    while True:
        more_outs = {owner[part] for axis in ins for part in left[axis] if part in owner}
        parts = {part for axis in more_outs for part in right[axis]}
        more_ins = {axis for axis, names in enumerate(left) if parts & set(names)} | ins
        if more_ins == ins and more_outs == outs:
            return ins, outs
        ins, outs = more_ins, more_outs


@rule("view reshape flatten unflatten view_as reshape_as ravel squeeze unsqueeze")
def reshape(reading: Reading) -> Drawn | None:
    """Axes whose sizes agree pass; the others meet in bars where the products of their sizes agree."""
    if len(reading.tensors) < 1 or len(reading.box.outputs) != 1:
        return None
    value, out = reading.tensors[0], reading.box.outputs[0]
    blocks = _blocks(value, out)
    return None if blocks is None else Drawn((value,), (out,), tuple(blocks))


def _blocks(value: Value, out: Value) -> list[Link] | None:
    """Return the links of a reshape, block by block in row-major order; None if symbolic sizes leave it open."""
    before, after = list(range(len(value.sizes))), list(range(len(out.sizes)))
    links: list[Link] = []
    while before or after:
        ins, outs = [before.pop(0)] if before else [], [after.pop(0)] if after else []
        left, right = _size(value, ins), _size(out, outs)
        if ins and left == 1 and right != 1:
            links.append(Link("end", ((0, ins[0]),)))
            after[:0] = outs
            continue
        if outs and right == 1 and (left != 1 or not ins):
            links.append(Link("start", (), ((0, outs[0]),)))
            before[:0] = ins
            continue
        while left != right:
            if before and (not after or _divides(left, right)):
                ins.append(before.pop(0))
                left = _size(value, ins)
            elif after:
                outs.append(after.pop(0))
                right = _size(out, outs)
            else:
                return None
        ports_in, ports_out = tuple([(0, axis) for axis in ins]), tuple([(0, axis) for axis in outs])
        same = len(ins) == len(outs) == 1
        links.append(Link("pass", ports_in, ports_out) if same else Link("glyph", ports_in, ports_out, "bar"))
    if not value.sizes:
        links.append(Link("end", ((0, SCALAR),)))
    if not out.sizes:
        links.append(Link("start", (), ((0, SCALAR),)))
    return links


def _size(value: Value, axes: Sequence[int]) -> Any:
    total: Any = 1
    for axis in axes:
        total = total * value.sizes[axis]
    return total


def _divides(small: Any, large: Any) -> bool:
    """Return whether `large` is a multiple of `small` other than itself, as far as the symbols tell."""
    if isinstance(small, int) and isinstance(large, int):
        return small < large
    ratio = large / small if not isinstance(small, int) or not isinstance(large, int) else 1
    return bool(getattr(ratio, "as_numer_denom", lambda: (ratio, 1))()[1] == 1 and ratio != 1)


__all__ = ["ENDINGS", "Parts", "regrouping"]
