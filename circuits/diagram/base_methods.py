"""Read and replace what a container holds, by the methods of Python's own class.

A subclass may have an `__iter__`, `__getitem__`, `items`, `copy` or `update` of its own, that makes other objects of
what it holds (the table of activations of transformers instantiates the classes in it), counts its calls, or fails.
"""

import operator
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any

_BASES = (OrderedDict, dict, list, tuple, set, deque)
"""A class comes before its bases: the order of an OrderedDict is not that of the dict in it."""

_HAVE_NO_OTHERS = frozenset({dict, list, set, deque})


def base_of(container: Any) -> Any:
    """Return the class of Python of which a container is an instance."""
    kind = type(container)
    return kind if kind in _BASES else next(base for base in _BASES if isinstance(container, base))


def items_of(held: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Return the keys and values of a dict, in its order."""
    return held.items() if type(held) is dict else base_of(held).items(held)


def parts_of(held: Any) -> Iterator[Any]:
    """Return an iterator of the items of a list, tuple, set or deque, or of the keys of a dict."""
    return base_of(held).__iter__(held)


def size_of(held: Any) -> int:
    """Return the number of entries of a container."""
    return len(held) if type(held) in _HAVE_NO_OTHERS or not isinstance(held, _BASES) else base_of(held).__len__(held)


def copy_of(held: Any) -> Any:
    """Return a dict, list, set or deque with what a container of such a class holds."""
    if type(held) in _HAVE_NO_OTHERS:
        return held.copy()
    base = base_of(held)
    return dict(items_of(held)) if issubclass(base, dict) else base(parts_of(held))


def get(held: Any, key: Any, default: Any) -> Any:
    """Return the value of a key of a dict, which is not added."""
    return dict.get(held, key, default) if isinstance(held, dict) else held.get(key, default)


def replace(held: Any, contents: Any) -> None:
    """Replace all that a dict, list, set or deque holds."""
    base = base_of(held)
    base.clear(held)
    if issubclass(base, dict):
        for key, value in contents.items():
            base.__setitem__(held, key, value)
    elif base is set:
        set.update(held, contents)
    else:
        base.extend(held, contents)


def are_same(before: Any, now: Any) -> bool:
    """Return whether a container holds the same objects, under the same keys and in the same order, as a copy of it."""
    if isinstance(now, set):
        return set.__eq__(before, now)
    if len(before) != size_of(now) or not all(map(operator.is_, before, parts_of(now))):
        return False
    return not isinstance(now, dict) or all(map(operator.is_, before.values(), base_of(now).values(now)))
