"""A diagram as plain data for JSON: dicts, lists, strings and numbers."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from circuits.diagram.boxes import Box, Fixed, Value
from circuits.diagram.counts import Node, Totals
from circuits.diagram.operation_arguments import plain_arguments


def plain_data(
    root: Node, totals: Totals, frozen: Collection[str], fixed: Sequence[Fixed] = (), guards: Sequence[Any] = ()
) -> dict[str, Any]:
    """Return nested boxes, each with its values, and the totals, fixed sizes and guards of a diagram as plain data.

    `counted` of a box is the number of elements of the parameters that are counted in it or in a box inside it, so
    that the boxes inside a box, with its own, add up to it; `parameters` is the number of all that it has.
    """
    counts = {name: _number(size) for name, size in asdict(totals).items()}
    notes = {"fixed": [str(note) for note in fixed], "guards": [str(guard) for guard in guards]}
    return {**_box_data(root, frozen), "totals": counts, **notes}


def _box_data(node: Node, frozen: Collection[str]) -> dict[str, Any]:
    """Return a box and the boxes inside it as plain data."""
    box: Box = node.box
    data: dict[str, Any] = {"kind": box.kind, "name": box.name, "label": box.label, "path": box.path}
    data["signature"] = None if box.signature is None else str(box.signature)
    data["inputs"] = [_value_data(value, frozen) for value in box.inputs]
    data["outputs"] = [_value_data(value, frozen) for value in box.outputs]
    data["parameters"], data["counted"] = box.parameter_count, node.parameters
    data["memory"] = _number(node.memory)
    data["arguments"] = plain_arguments(box)
    data["boxes"] = [_box_data(inner, frozen) for inner in node.inside]
    names = {"unused": [value.name for value in node.unread], "tied": [value.name for value in node.again]}
    texts = {"error": box.error, "where": box.where, "note": box.note}
    return data | {name: found for name, found in {**names, **texts}.items() if found}


def _value_data(value: Value, frozen: Collection[str]) -> dict[str, Any]:
    """Return a value as plain data, with symbolic sizes as text."""
    is_parameter = value.role == "parameter"
    return {
        "value": value.number,
        "axes": list(value.axes),
        "sizes": [_number(size) for size in value.sizes],
        "dtype": str(value.dtype).removeprefix("torch."),
        "device": None if value.device is None else str(value.device),
        "requires_grad": value.name not in frozen if is_parameter else value.requires_grad,
        "role": value.role,
        "name": value.name,
        "mapped": value.mapped,
    }


def _number(size: Any) -> Any:
    """Return a size or a count as a number, or as text if it is a formula."""
    return size if isinstance(size, int) else int(size) if getattr(size, "is_Integer", False) else str(size)


__all__ = ["plain_data"]
