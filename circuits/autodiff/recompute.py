"""The partition of a joint graph: which values are saved for backward, and which the reverse pass recomputes.

The reverse pass recomputes the boxes that the caller names, and boxes that cost nothing, such as views.

A softmax whose scores are recomputed is not recomputed as a whole. One number per row is saved, s = logsumexp(score),
and the weights are exp(score - s); the row sum of weights times their cotangents, which the softmax's reverse rule
needs, is computed from the result of the contraction that reads the weights. This is the backward of FlashAttention:
five contractions, and no saved tensor that has an axis for queries and one for keys.

Source: T. Dao et al., FlashAttention, NeurIPS 2022, algorithm 4 and appendix B; T. Chen et al., Training Deep Nets
with Sublinear Memory Cost, 2016.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuits.autodiff.candidates import Candidates, results
from circuits.autodiff.joint import Joint
from circuits.autodiff.ports import axes_outside
from circuits.autodiff.recompute_names import boxes_named
from circuits.autodiff.rewrites.row_sums import replacement_boxes, with_replacements
from circuits.autodiff.softmax_statistic import from_statistic
from circuits.autodiff.tensors import storage_of
from circuits.diagram import Box, Value


@dataclass(frozen=True)
class Schedule:
    """What is recomputed, and what that takes.

    Attributes:
        saved: The numbers of the values that the recomputed boxes and the reverse pass read from memory.
        recomputed: The boxes of the forward pass that are recomputed, in order.
        boxes: The boxes by which they are: for a softmax, those that compute it from its statistic.
        reverse: The reverse pass.
        statistics: The boxes that compute the statistic of a softmax, by the id of its box.
    """

    saved: frozenset[int]
    recomputed: tuple[Box, ...]
    boxes: tuple[Box, ...]
    reverse: tuple[Box, ...]
    statistics: Mapping[int, Sequence[Box]]


@dataclass(frozen=True)
class Partition:
    """The forward pass, and the schedule of the reverse pass.

    `extra_values` are those of `ForwardPass`, with the values that boxes inserted into the forward pass make.
    """

    forward: Box
    schedule: Schedule
    extra_values: Mapping[int, Sequence[Value]]


def partition(joint: Joint, chosen: Iterable[str | Box]) -> Partition:
    """Choose what is recomputed, and return the parts of the joint graph.

    Args:
        joint: The boxes of the forward and the reverse pass.
        chosen: What to recompute, as for `boxes_named`.

    Raises:
        CircuitError: As `boxes_named` raises.
    """
    available = [*joint.constants, *[value.number for value in joint.cotangents]]
    fakes = joint.workspace.fakes
    candidates = Candidates(
        joint.diagram, joint.forward, joint.reverse, available,
        lambda number: storage_of(fakes[number]) if number in fakes else None,
        len(joint.workspace.listener.record.values),
    )  # fmt: skip
    found = schedule(candidates, boxes_named(candidates, chosen))
    extra_values = dict(joint.extra_values)
    forward, _ = _with_boxes_after(joint.forward, found.statistics, extra_values)
    return Partition(forward, found, extra_values)


def schedule(candidates: Candidates, named: Mapping[int, Box]) -> Schedule:
    """Return what is recomputed if some boxes are named, which are repeatable; only those are whose results are read.

    Args:
        candidates: The boxes of the forward pass.
        named: The named boxes, by id.
    """
    wanted = candidates.reads(candidates.reverse)
    softmaxes = [box for box in candidates.boxes if is_from_statistic(candidates, box, named)]
    reverse = _without_row_sums(candidates, named, [box for box in softmaxes if wanted & set(results(box))])
    wanted, boxes, recomputed = candidates.reads(reverse), list[Box](), list[Box]()
    from_statistics = {id(box) for box in softmaxes}
    statistics: dict[int, Sequence[Box]] = {}
    for box in reversed(candidates.boxes):
        if not wanted & set(results(box)) or not (id(box) in named or candidates.is_free(box)):
            continue
        again = [box]
        if id(box) in from_statistics:
            score: Any = box.call.args.parts[0]  # type: ignore[union-attr]
            parts = from_statistic(box, candidates.values[score.number], candidates.new_number)
            statistics[id(box)], again = parts.forward, parts.recomputed
        wanted = (wanted - set(results(box))) | candidates.reads(again)
        boxes = [*again, *boxes]
        recomputed.append(box)
    return Schedule(frozenset(wanted), tuple(recomputed[::-1]), tuple(boxes), reverse, statistics)


def is_from_statistic(candidates: Candidates, box: Box, named: Mapping[int, Box]) -> bool:
    """Return whether a box is a named softmax whose scores are recomputed from tensors of other sizes."""
    scores = candidates.scores(box) if id(box) in named else None
    makers = [candidates.boxes[candidates.maker[number]] for number in scores or ()]
    return scores is not None and all(id(each) in named or candidates.is_free(each) for each in makers)


def _without_row_sums(candidates: Candidates, named: Mapping[int, Box], softmaxes: Sequence[Box]) -> tuple[Box, ...]:
    """Return the reverse pass without the row sums of products that read the outputs of these softmaxes.

    Such a sum is computed from the result of a contraction of the output instead, unless that is named itself.
    """
    weights = {number for box in softmaxes for number in results(box)}
    if not weights:
        return tuple(candidates.reverse)
    unsaved = {number for box in named.values() for number in results(box)}
    found = [each for each in candidates.row_sums if each.factor in weights and each.contracted not in unsaved]
    replacements = {id(each.box): replacement_boxes(each, candidates.values, candidates.new_number()) for each in found}
    return tuple(with_replacements(candidates.reverse, replacements)) if replacements else tuple(candidates.reverse)


def _with_boxes_after(
    box: Box, after: Mapping[int, Sequence[Box]], extra_values: dict[int, Sequence[Value]]
) -> tuple[Box, list[Value]]:
    """Return a box with others inserted inside it, and the values that these make, with the axis names outside it.

    Args:
        box: The box to insert into.
        after: The boxes to insert, by the id of the box that they follow.
        extra_values: Updated with the new values.
    """
    boxes: list[Box] = []
    made: list[Value] = []
    for inner in box.boxes:
        if inner.call is None:
            changed, values = _with_boxes_after(inner, after, extra_values)
            boxes.append(changed)
            made += values
        else:
            boxes += [inner, *after.get(id(inner), ())]
            made += [value for each in after.get(id(inner), ()) for value in each.outputs]
    if not made:
        return box, []
    found = replace(box, boxes=tuple(boxes))
    values = list(axes_outside(found, made, {}))
    extra_values[id(found)] = (*extra_values.get(id(box), ()), *values)
    return found, values
