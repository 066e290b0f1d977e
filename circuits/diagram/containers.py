"""Take containers and objects apart, and make them again from their parts.

A container is a tuple, list, deque, mapping, dataclass or slice. An object of any other class is taken apart only where
all of its state is in its attributes; it is made again without calling its class, as `copy.copy` does.
"""

import dataclasses
import enum
import functools
import types
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from circuits.diagram.base_methods import items_of, parts_of

Parts = tuple[tuple[Any, ...], tuple[Any, ...]]
"""The keys and the parts of a container; no keys if it is a sequence."""

_MADE_BY_CLASS_STATEMENT = 1 << 9
"""The flag of types that are not written in C (`Py_TPFLAGS_HEAPTYPE` of CPython)."""


class Other(enum.Enum):
    """The keys of what a container has beside its entries: `default_factory` of a defaultdict, `maxlen` of a deque."""

    DEFAULT_FACTORY = 0
    MAXLEN = 1


def split(value: Any, kind: type) -> Parts | None:
    """Return the keys and the parts of a container, or None for any other value."""
    if isinstance(value, (tuple, list)):
        return getattr(value, "_fields", ()), tuple(parts_of(value))
    if kind is defaultdict:
        return (*value, Other.DEFAULT_FACTORY), (*value.values(), value.default_factory)
    if isinstance(value, Mapping):
        pairs = [*(items_of(value) if isinstance(value, dict) else value.items())]
        return tuple([key for key, _ in pairs]), tuple([part for _, part in pairs])
    if kind is slice:
        return (), (value.start, value.stop, value.step)
    if kind is deque:
        return (
            ((), tuple(value)) if value.maxlen is None else ((*range(len(value)), Other.MAXLEN), (*value, value.maxlen))
        )
    if kind is set or kind is bytearray:
        return ("contents",), (frozenset(value) if kind is set else bytes(value),)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        keys = tuple(field.name for field in dataclasses.fields(value))
        return keys, tuple(getattr(value, key, None) for key in keys)
    return None


def splitting_objects() -> Callable[[Any, type], Parts | None]:
    """Return a `split` that takes apart numpy arrays, and objects of any class, each at its first occurrence."""
    seen: dict[int, Any] = {}

    def split_object(value: Any, kind: type) -> Parts | None:
        found = split(value, kind)
        if found is None and is_array(kind) and not value.dtype.hasobject:
            return ("dtype", "shape", "data"), (str(value.dtype), value.shape, value.tobytes())
        if found is not None or not has_only_attributes(kind) or id(value) in seen:
            return found
        seen[id(value)] = value
        attributes = vars(value)
        return tuple(attributes), tuple(attributes.values())

    return split_object


def is_array(kind: type) -> bool:
    """Return whether a class is that of numpy arrays, without importing numpy."""
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


def is_rebuilt(kind: type) -> bool:
    """Return whether `rebuild` makes a container of this type that equals the one that was taken apart."""
    return not is_array(kind)


_OWN_COPIES = ("__slots__", "__deepcopy__", "__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
"""Attributes of classes whose instances have more state than their attributes."""


@functools.lru_cache(1024)
def has_only_attributes(kind: type) -> bool:
    """Return whether all state of the instances of a class is in their attributes, and none refers to a module."""
    if kind is types.SimpleNamespace:
        return True
    if kind.__new__ is not object.__new__ or issubclass(kind, (type, nn.Module)) or not kind.__dictoffset__:
        return False
    written = [each for each in kind.__mro__ if each is not object]
    return all(each.__flags__ & _MADE_BY_CLASS_STATEMENT for each in written) and not any(
        each.__dict__.get(name) for each in written for name in _OWN_COPIES
    )


def rebuild(kind: Any, keys: tuple[Any, ...], parts: tuple[Any, ...]) -> Any:
    """Return a container or object of type `kind` with these keys and parts."""
    if kind is slice:
        return slice(*parts)
    if issubclass(kind, (tuple, list)):
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    if kind is deque:
        return deque(parts[:-1], parts[-1]) if keys else deque(parts)
    if kind is set or kind is bytearray:
        return kind(*parts)
    if hasattr(kind, "__dataclass_fields__"):
        # The base that is written in C makes the instance and sets its items: object, dict or OrderedDict.
        base: Any = next(each for each in kind.__mro__ if not each.__flags__ & _MADE_BY_CLASS_STATEMENT)
        instance = base.__new__(kind)
        for key, part in zip(keys, parts, strict=True):
            if isinstance(key, str):
                object.__setattr__(instance, key, part)
            if issubclass(base, dict):
                base.__setitem__(instance, key, part)
        return instance
    if kind is defaultdict:
        return defaultdict(parts[-1], zip(keys[:-1], parts[:-1], strict=True))
    if issubclass(kind, dict):
        mapping = kind()
        mapping.update(zip(keys, parts, strict=True))
        return mapping
    if not issubclass(kind, Mapping):
        instance = kind.__new__(kind)
        vars(instance).update(zip(keys, parts, strict=True))
        return instance
    mapping_of: Any = kind
    return mapping_of(dict(zip(keys, parts, strict=True)))
