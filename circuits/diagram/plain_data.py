"""A diagram as plain data for JSON: dicts, lists, strings and numbers."""

from collections.abc import Sequence
from typing import Any

from circuits.diagram.boxes import Box, Fixed, Value


def plain_data(box: Box, fixed: Sequence[Fixed] = (), guards: Sequence[Any] = ()) -> dict[str, Any]:
    """Return nested boxes, each with its values, and the fixed sizes and guards of a diagram as plain data."""
    return {**_box_data(box), "fixed": [str(note) for note in fixed], "guards": [str(guard) for guard in guards]}


def _box_data(box: Box) -> dict[str, Any]:
    """Return a box and the boxes inside it as plain data."""
    data: dict[str, Any] = {"kind": box.kind, "name": box.name, "label": box.label, "path": box.path}
    data["signature"] = None if box.signature is None else str(box.signature)
    data["inputs"] = [_value_data(value) for value in box.inputs]
    data["outputs"] = [_value_data(value) for value in box.outputs]
    data["parameters"] = box.parameter_count
    data["boxes"] = [_box_data(inner) for inner in box.boxes]
    texts = {"error": box.error, "where": box.where, "note": box.note}
    return data | {name: text for name, text in texts.items() if text}


def _value_data(value: Value) -> dict[str, Any]:
    """Return a value as plain data, with symbolic sizes as text."""
    return {
        "value": value.number,
        "axes": list(value.axes),
        "sizes": [size if isinstance(size, int) else str(size) for size in value.sizes],
        "dtype": str(value.dtype).removeprefix("torch."),
        "role": value.role,
        "name": value.name,
        "mapped": value.mapped,
    }


__all__ = ["plain_data"]
