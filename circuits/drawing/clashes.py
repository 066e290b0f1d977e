"""The axes that clash where a run failed, as far as the signature, the operation or torch's words say which."""

import re
from collections.abc import Iterable
from typing import Any

from circuits.diagram import Box, Value, size_text
from circuits.drawing.scene import Port


def clashes(box: Box) -> dict[Port, str]:
    """Return the axes that clash in the box in which a run failed, each with its size.

    Each is the place of a tensor among the inputs of the box and the place of an axis in it. An empty result says that
    the error is of another kind, or its axes are not known.

    Args:
        box: The box with the error.
    """
    if box.signature is not None:
        sides = [[f"{term}" for term in terms] for terms in box.signature.inputs]
        return _of_terms(box, sides)
    name = box.label.partition(" ")[0]
    if name == "einsum":
        return _of_terms(box, [text.split() for text in box.label.partition("'")[2].partition("->")[0].split(",")])
    if name in ("matmul", "mm", "bmm", "linear") and len(box.inputs) > 1:
        return _of_product(box, name)
    if name in ("cat", "concat", "concatenate"):
        along = re.search(r"except in dimension (\d+)", box.error)
        return _unequal(box, _aligned(box.inputs, 0, int(along[1]))) if along else {}
    if name.startswith("conv") and " channels" in box.error and len(box.inputs) > 1:
        window = len(box.inputs[1].sizes) - 2
        return _sizes(box, [(0, len(box.inputs[0].sizes) - window - 1), (1, 0 if "transpose" in name else 1)])
    if name in ("layer_norm", "rms_norm") or "must match the size of tensor" in box.error:
        return _unequal(box, _aligned(box.inputs, 0))
    return {}


def _of_terms(box: Box, terms: Iterable[list[str]]) -> dict[Port, str]:
    """Return the axes that have one name and different sizes; those of `...` have none."""
    ports = []
    for place, (names, value) in enumerate(zip(terms, box.inputs, strict=False)):
        more = max(len(value.sizes) - len(names) + 1, 0)
        rest = names.index("...") if "..." in names else len(names)
        given = [*names[:rest], *([""] * more if "..." in names else []), *names[rest + 1 :]]
        ports += [(place, axis, name) for axis, name in enumerate(given) if name]
    return _unequal(box, ports)


def _of_product(box: Box, name: str) -> dict[Port, str]:
    """Return the axes of two matrices that are contracted, and those of their batches, if they are not equal."""
    first, second = box.inputs[:2]
    place = len(second.sizes) - 1 if name == "linear" else max(len(second.sizes) - 2, 0)
    batches = _aligned((first, second), 2) if name != "linear" else []
    return _unequal(box, [(0, len(first.sizes) - 1, "k"), (1, place, "k"), *batches])


def _aligned(values: Iterable[Value], last: int, along: int | None = None) -> list[tuple[int, int, str]]:
    """Return the axes that torch broadcasts together, counted from the right; those of size 1 fit any.

    Args:
        values: The tensors.
        last: How many axes at the right are left out.
        along: An axis of all tensors that is left out.
    """
    return [
        (place, axis, f"{len(value.sizes) - axis}")
        for place, value in enumerate(values)
        for axis in range(len(value.sizes) - last)
        if value.sizes[axis] != 1 and axis != along
    ]


def _unequal(box: Box, ports: Iterable[tuple[int, int, str]]) -> dict[Port, str]:
    """Return the ports whose name occurs with two sizes."""
    sizes: dict[str, dict[Port, Any]] = {}
    for place, axis, name in ports:
        if axis < len(box.inputs[place].sizes):
            sizes.setdefault(name, {})[place, axis] = box.inputs[place].sizes[axis]
    different = [found for found in sizes.values() if len({f"{size}" for size in found.values()}) > 1]
    return {port: size_text(size) for found in different for port, size in found.items()}


def _sizes(box: Box, ports: Iterable[Port]) -> dict[Port, str]:
    """Return axes with their sizes."""
    return {(place, axis): size_text(box.inputs[place].sizes[axis]) for place, axis in ports}


__all__ = ["clashes"]
