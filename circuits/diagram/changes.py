"""Changes: what a recorded run assigned in objects that existed before it, and what it read from them.

Such an object is a dict, a list, a set, a deque, or any object by its attributes: a module with its buffers, a cache, a
dict in the closure of a hook. An assignment in it (`self.mean = x`, `cache["k"] = x`, `outputs.append(x)`) is no torch
call, so a diagram has it as a `Change`, and makes it at the end of each run. A tensor that the run read from such an
object is read again at each run.

The code may do anything with what the object held before, and a diagram contains only what it did in the recorded run.
So where a run changed anything but a tensor, the diagram runs only if the object holds what it held before that run.
"""

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from circuits.diagram.base_methods import base_of, get, replace
from circuits.diagram.structure import Struct, bind
from circuits.errors import CircuitError

WHOLE = (list, deque, set)
"""The containers whose contents a change replaces as a whole; of all others it replaces single entries."""


_CONTAINERS = (dict, *WHOLE, tuple, MappingProxyType)


class Nothing(enum.Enum):
    """Stands for the value of a key that an object does not have."""

    NOTHING = 0


NOTHING = Nothing.NOTHING

_NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})


class Place(NamedTuple):
    """Where an object is that existed before the run.

    Attributes:
        owner: A module or container that the code refers to; None if the object is an argument or a part of one.
        path: The keys from there to the object, the first of which is the name of the argument if `owner` is None.
        name: The name of the object in messages: `Model.cache`.
    """

    owner: Any
    path: tuple[Any, ...]
    name: str

    def find(self, arguments: Mapping[str, Any] = _NO_ARGUMENTS) -> Any:
        """Return the object that is there now; `arguments` are those of the call by name.

        Raises:
            CircuitError: There is none.
        """
        found: Any = arguments if self.owner is None else self.owner
        try:
            for key in self.path:
                found = contents(found)[key]
        except (LookupError, TypeError):
            raise CircuitError(f"{self.name} is not there any more; record it again") from None
        return found

    def tensor(self, key: Any) -> Tensor:
        """Return the tensor that the object, which is no part of an argument, now holds at a key.

        Raises:
            CircuitError: It holds no tensor there now.
        """
        now = contents(self.find())
        found = now.get(key, NOTHING) if isinstance(now, dict) else now[key] if key < len(now) else NOTHING
        if not isinstance(found, Tensor):
            raise CircuitError(
                f"{self.name}: the recorded run read a tensor at {key!r}, and now there is none; record it again"
            )
        return found


@dataclass(frozen=True, eq=False)
class Change:
    """What a run changed in one object.

    Attributes:
        place: The object.
        before: The description of the changed entries before the run, by key (`NOTHING` for a new key), or of the
            whole contents of a list, deque or set.
        after: The description of the same entries after the run; None if the diagram does not make the change, as a
            backward circuit, but rests on what the object holds.
    """

    place: Place
    before: Struct
    after: Struct | None

    def check(self) -> None:
        """Raise CircuitError unless the object holds what it held before the recorded run, apart from tensors."""
        if self.place.owner is None:
            return  # The arguments are compared with the recorded ones.
        now = contents(self.place.find())
        keyed = not isinstance(now, WHOLE)
        for key, before in zip(self.before.keys, self.before.parts, strict=True) if keyed else ():
            _check(before, get(now, key, NOTHING), f"{self.place.name}.{key}")
        if not keyed:
            _check(self.before, now, self.place.name)

    def apply(self, owner: Any, after: Any) -> None:
        """Assign the values after the run, `after`, to the entries of the object; do nothing if `after` is None."""
        if after is None:
            return
        now = contents(owner)
        if not isinstance(now, dict):
            replace(now, after)
            return
        base = base_of(now)
        for key, value in after.items():
            if value is NOTHING:
                base.pop(now, key, None)
            else:
                base.__setitem__(now, key, value)


def apply_changes(changes: Sequence[Change], arguments: Mapping[str, Any], after: Sequence[Any]) -> None:
    """Make changes, with the values in `after`; all objects are found before the first of them changes."""
    owners = [change.place.find(arguments) for change in changes]
    for change, owner, values in zip(changes, owners, after, strict=True):
        change.apply(owner, values)


def _check(before: Any, now: Any, name: str) -> None:
    try:
        bind(before, now, {}, name)
    except CircuitError as error:
        raise CircuitError(f"{error}, because the run changes this value") from None


def contents(owner: Any) -> Any:
    """Return what holds the values of an object: a container itself, or the dict of an object's attributes."""
    return owner if issubclass(type(owner), _CONTAINERS) else vars(owner)


__all__ = ["NOTHING", "Change", "Place", "apply_changes", "contents"]
