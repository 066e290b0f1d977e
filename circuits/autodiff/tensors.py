"""Helpers for tensors that several files of this folder use: `is_floating`, `storage_of`, `append_as_wire`."""

from typing import Any

from torch import Tensor

from circuits.diagram import Value, Wire


def is_floating(value: Any) -> bool:
    """Return whether an object is a tensor, or a value of a diagram, with a floating or complex dtype."""
    return isinstance(value, (Tensor, Value)) and (value.dtype.is_floating_point or value.dtype.is_complex)


def storage_of(tensor: Tensor) -> int:
    """Return a number that identifies the storage of a strided tensor, which a tensor and its views share."""
    return tensor.untyped_storage()._cdata


def append_as_wire(found: list[Tensor], tensor: Tensor) -> Wire:
    """Append a tensor to a list; return its position there as a wire, for `describe`."""
    found.append(tensor)
    return Wire(len(found) - 1)
