"""Properties of tensors that several files of this folder need."""

from typing import Any

from torch import Tensor

from circuits.diagram import Value


def is_floating(value: Any) -> bool:
    """Return whether an object is a tensor, or a value of a diagram, with a floating or complex dtype."""
    return isinstance(value, (Tensor, Value)) and (value.dtype.is_floating_point or value.dtype.is_complex)


def storage_of(tensor: Tensor) -> int:
    """Return a number that identifies the storage of a strided tensor, which a tensor and its views share."""
    return tensor.untyped_storage()._cdata
