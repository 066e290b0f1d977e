"""Which boxes `recompute=` stands for: names of operations, modules, circuits and axes, or boxes themselves."""

from collections.abc import Iterable, Iterator

from circuits.autodiff.candidates import Candidates
from circuits.autodiff.rewrites.row_sums import leaf_boxes
from circuits.diagram import Box
from circuits.errors import CircuitError


def boxes_named(candidates: Candidates, chosen: Iterable[str | Box]) -> dict[int, Box]:
    """Return the leaf boxes of the forward pass that are named, by id.

    Args:
        candidates: The boxes of the forward pass.
        chosen: Each an operation (`softmax`), a box and all in it (a module's path, a circuit's name), axes of tensors
            (`y x`: every tensor that has both), or a box of the forward pass itself.

    Raises:
        CircuitError: One of them is none of these, or is an operation whose result may differ when it is recomputed.
    """
    found: dict[int, Box] = {}
    for each in chosen:
        if isinstance(each, Box):
            exact, around = _of_box(candidates, each)
        elif isinstance(each, str):
            exact, around = _of_name(candidates, each)
        else:
            raise CircuitError(f"recompute: expected names and boxes of the forward pass, got {each!r}")
        for box in exact:
            _refuse_unrepeatable(candidates, box)
        found |= {id(box): box for box in exact or filter(candidates.is_repeatable, around)}
    return found


def _of_box(candidates: Candidates, box: Box) -> tuple[list[Box], list[Box]]:
    """Return a leaf box as one that is meant exactly, or else the leaf boxes inside a box."""
    inner = list(leaf_boxes([box]))
    if any(candidates.place(each) is None for each in inner):
        raise CircuitError(
            f"recompute: {box.label or box.name} is no box of the forward pass of {candidates.name}: a function is "
            "given the diagram that backward returns, whose first box is the forward pass, and returns boxes inside it"
        )
    return ([box], []) if box.call is not None else ([], inner)


def _of_name(candidates: Candidates, name: str) -> tuple[list[Box], list[Box]]:
    """Return the operations of a name, or else the leaf boxes inside the boxes, or with the axes, of that name."""
    boxes = candidates.boxes
    by_operation = [box for box in boxes if name in (box.label, _first_word(box))]
    around = [box for box in _boxes_with_content(candidates.forward) if name in (box.path, _first_word(box))]
    axes = set(name.split())
    by_axes = [box for box in boxes if axes and any(axes <= set(value.axes) for value in box.outputs)]
    inner = list(leaf_boxes(around))
    if not by_operation and not inner and not by_axes:
        _refuse_unknown(candidates, name)
    return by_operation, inner or by_axes


def _refuse_unknown(candidates: Candidates, name: str) -> None:
    """Raise CircuitError for a name that stands for nothing, with the names that exist."""
    words = sorted({_first_word(box) for box in candidates.boxes})
    boxes = [box.path or _first_word(box) for box in _boxes_with_content(candidates.forward)]
    boxes = [each for each in dict.fromkeys(boxes) if each != candidates.name]
    with_content = f"; its boxes are {', '.join(boxes)}" if boxes else ""
    raise CircuitError(
        f"recompute: {candidates.name} has no {name}; its operations are {', '.join(words)}{with_content}; "
        "axes of tensors are named as in 'y x'"
    )


def _refuse_unrepeatable(candidates: Candidates, box: Box) -> None:
    """Raise CircuitError if a box may return another result when it is run again."""
    if candidates.is_overwritten(box):
        raise CircuitError(
            f"recompute: an input of {box.label} is overwritten later, so the result of {box.label} must be saved"
        )
    if not candidates.is_repeatable(box):
        raise CircuitError(
            f"recompute: {box.label} may return another result when it is run again, so its result must be saved"
        )


def _boxes_with_content(box: Box) -> Iterator[Box]:
    """Yield a box and those inside it, at any depth, that contain boxes instead of a call."""
    if box.call is None:
        yield box
        for inner in box.boxes:
            yield from _boxes_with_content(inner)


def _first_word(box: Box) -> str:
    return box.label.split()[0].rstrip(":") if box.label else ""
