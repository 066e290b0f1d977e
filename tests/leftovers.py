"""What tests must leave to the garbage collector: recorders, records, fake modes and fake tensors."""

import contextlib
import gc
import sys
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from torch._subclasses.fake_tensor import FakeTensor

from circuits.recording import Listener
from circuits.recording.events import Record
from circuits.recording.fake_forms import FakeMode

KINDS = (Listener, Record, FakeMode, FakeTensor)
"""What ends with a run of a recorder, unless its user keeps the result of `track`.

Of fake tensors only those of circuits' modes: after `torch.compile`, torch's PhiloxStateTracker keeps some of its own.
"""


def living() -> list[Any]:
    """Return what is alive of these kinds, garbage that is not collected yet too."""
    kinds = {kind for each in KINDS for kind in _with_subclasses(each)}
    found = [each for each in gc.get_objects() if type(each) in kinds]
    return [each for each in found if not isinstance(each, FakeTensor) or isinstance(each.fake_mode, FakeMode)]


def _with_subclasses(kind: type) -> set[type]:
    return {kind}.union(*[_with_subclasses(each) for each in type.__subclasses__(kind)])


def kept_by_tests() -> set[int]:
    """Return the ids of what the globals of test modules refer to: constants, and caches of functions of the tests.

    Classes and modules, which refer to everything, are not followed; neither are the globals of other modules.
    """
    modules = [vars(each) for name, each in [*sys.modules.items()] if name.partition(".")[0] == "tests"]
    waiting, seen = [value for each in modules for value in each.values()], {id(each) for each in modules}
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and not isinstance(each, (type, types.ModuleType)) and not _is_globals(each):
            seen.add(id(each))
            waiting += gc.get_referents(each)
    return seen


def _is_globals(value: Any) -> bool:
    return type(value) is dict and "__builtins__" in value


class Leftovers:
    """What came to life since this was made, and is alive still; weak references hold it, so that it may end."""

    def __init__(self) -> None:
        self._known = {id(each): weakref.ref(each) for each in living()}
        self._since: list[tuple[str, weakref.ref[Any]]] = []

    def note(self, name: str) -> None:
        """Note what is alive now and was not at the last note, as what the module of tests called `name` made.

        Without a name it may stay alive.
        """
        now = {id(each): weakref.ref(each) for each in living()}
        new = [each for key, each in now.items() if key not in self._known or self._known[key]() is not each()]
        self._since += [(name, each) for each in new if name]
        self._known = now

    def fail(self) -> None:
        """Fail if some of it is alive after garbage has been collected, and no test's global is why."""
        gc.collect()
        gc.collect()  # What the base of a view refers to; the first time ends the view, which holds its base in C++.
        kept = kept_by_tests() if any(each() is not None for _, each in self._since) else set()
        found = [(name, each()) for name, each in self._since if each() is not None and id(each()) not in kept]
        if found:
            left = [each for _, each in found]
            pytest.fail(f"the tests of {found[0][0]} leave {described(left)}", pytrace=False)


@contextlib.contextmanager
def no_leftovers() -> Iterator[None]:
    """Fail if one of these kinds is alive after the `with` that was not so before, and no test's global is why."""
    leftovers = Leftovers()
    yield
    leftovers.note("the block")
    leftovers.fail()


def described(found: list[Any]) -> str:
    """Return how many of each kind are left, and what refers to the first."""
    counts = ", ".join(f"{count} {name}" for name, count in Counter(type(each).__name__ for each in found).items())
    holders = [
        each for each in gc.get_referrers(found[0]) if each is not found and not isinstance(each, types.FrameType)
    ]
    return f"{counts}; the first {type(found[0]).__name__} is held by {', '.join(map(_text, holders)) or 'C++'}"


def _text(holder: Any) -> str:
    return f"{type(holder).__name__} {holder!r}"[:200]
