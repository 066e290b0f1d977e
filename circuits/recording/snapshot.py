"""What the objects that a run may change hold before the run, and what it changed in them.

These are the attributes of modules and of other objects, and the containers: all that can be reached from the arguments
of the run, from its modules, and from the closures of their hooks. Tensors are compared by identity: what a torch call
changes in a tensor is recorded as that call.
"""

import functools
import io
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from circuits.diagram import (
    NOTHING,
    PLAIN_TYPES,
    Change,
    Place,
    Struct,
    Wire,
    are_same,
    contents,
    copy_of,
    describe,
    has_only_attributes,
    items_of,
    kind_of,
    parts_of,
    replace,
    splitting_objects,
    unopened,
)
from circuits.recording.plain_random import restore_state_of_object, state_of_object
from circuits.recording.user_frames import is_user_file

_PARTS_OF_MODULES = frozenset({"_parameters", "_buffers", "_modules"})
"""The dicts of a module whose entries are attributes of the module."""

_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)

_NO_GENERATORS = PLAIN_TYPES | {type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, dict, list}
"""Types of most of what a Python module holds, left out for speed."""

_SHARED_BY_THREADS = frozenset({"threading", "queue", "multiprocessing", "concurrent", "asyncio", "logging"})
"""Packages whose objects other threads change meanwhile. Were their contents put back, a thread could wait for ever."""

HOOKS = frozenset(vars(nn.Module())) - _PARTS_OF_MODULES
"""The other attributes of every module: mostly its hooks, in dicts that are empty in most modules."""

ITERATOR = (
    "the run may take items of the iterator {}, which are not recorded: take them before the run, and pass them as "
    "arguments"
)


class Snapshot:
    """The contents of objects before a run.

    Attributes:
        before: Each object that a run can change and its contents, by `id`.
        tensors: The `id` of the object that holds a tensor, and the key, by the `id` of the tensor.
        refusal: Why a diagram cannot make a change that the run made; empty if it can make all.
        generators: Each random number generator of torch and its state, by `id`.
        plain_generators: Each generator object of `random` and numpy and its state, by `id`.
    """

    def __init__(self) -> None:
        self.before: dict[int, tuple[Any, Any]] = {}
        self.tensors: dict[int, tuple[int, Any]] = {}
        self.refusal = ""
        self.generators: dict[int, tuple[torch.Generator, Tensor]] = {}
        self.plain_generators: dict[int, tuple[Any, bytes]] = {}
        self._namespaces: set[Any] = set()
        self._roots: dict[int, Place] = {}
        # Each object, the `id` of the object that holds it, and the key.
        self._seen: dict[int, tuple[Any, int, Any]] = {}

    def add(self, value: Any, name: str, argument: Any = None) -> None:
        """Add an object and all that can be reached from it.

        Args:
            value: The object.
            name: Its name in messages.
            argument: The place or keyword of the argument, if the object is an argument of the run.
        """
        seen = self._seen
        if id(value) in seen:
            return
        self._roots[id(value)] = Place(value, (), name) if argument is None else Place(None, (argument,), name)
        waiting = [(value, 0, None)]
        while waiting:
            found = waiting.pop()
            value, number = found[0], id(found[0])
            if number in seen:
                continue
            seen[number] = found
            kind = type(value)
            if issubclass(kind, _FUNCTIONS):
                for key, part in _parts_of_function(value):
                    if id(part) not in seen:
                        self._roots[id(part)] = Place(part, (), f"{self.place(number).name} {key}".strip())
                        waiting.append((part, 0, None))
            elif is_owner(value):
                self._add_contents(value, number, waiting)
            elif is_iterator(value):
                self._add_iterator(number)
            else:
                self._add_generator(value)
            if kind not in self._namespaces:
                self._add_generators_beside(value, kind)

    def _add_iterator(self, number: int) -> None:
        """Refuse a diagram if an argument, or a variable of a hook, is or holds an iterator."""
        place = self.place(number)
        if not isinstance(place.owner, nn.Module):
            self.refusal = self.refusal or ITERATOR.format(place.name)

    def _add_generators_beside(self, value: Any, kind: type) -> None:
        """Add the generators in the globals of a function, or of the code of a module, and in the module's classes."""
        if issubclass(kind, nn.Module):
            self._namespaces.add(kind)
        for namespace in _namespaces(value):
            if id(namespace) not in self._namespaces:
                self._namespaces.add(id(namespace))
                for part in [each for each in list(namespace.values()) if type(each) not in _NO_GENERATORS]:
                    self._add_generator(part)

    def _add_generator(self, value: Any) -> None:
        """Add the state of an object if it is a random number generator."""
        if isinstance(value, torch.Generator):
            self.generators[id(value)] = value, state_of_generator(value)
        elif (state := state_of_object(value)) is not None:
            self.plain_generators[id(value)] = value, state

    def restore_generators(self) -> None:
        """Restore the states of the generators, which a trace must not change."""
        for generator, state in self.generators.values():
            generator.set_state(state)
        for value, plain in self.plain_generators.values():
            restore_state_of_object(value, plain)

    def _add_contents(self, owner: Any, number: int, waiting: list[tuple[Any, int, Any]]) -> None:
        """Add the contents of an object, and the objects in it to `waiting`."""
        held = contents(owner)
        if not isinstance(held, tuple):
            self.before[number] = owner, copy_of(held)
        for key, part in items_of(held) if isinstance(held, dict) else enumerate(parts_of(held)):
            kind = type(part)
            if kind in PLAIN_TYPES or (kind is OrderedDict and not part and key in HOOKS):
                continue
            if key in _PARTS_OF_MODULES and isinstance(owner, nn.Module):
                # Done here, for speed: there are many. Parameters and buffers are found by their modules.
                self._seen[id(part)] = part, number, key
                self.before[id(part)] = part, part.copy()
                if key == "_modules":
                    waiting += [(module, id(part), name) for name, module in part.items()]
            elif isinstance(part, Tensor):
                self.tensors.setdefault(id(part), (number, key))
            elif key not in HOOKS or part:
                waiting.append((part, number, key))

    def renew(self, module: nn.Module, name: str) -> None:
        """Add a module again, whose attributes are others now: a lazy module that was just initialized."""
        for held in (module, *vars(module).values()):
            self._seen.pop(id(held), None)
            self.before.pop(id(held), None)
        self.add(module, name)

    def place(self, number: int) -> Place:
        """Return the place of an object, given by `id`."""
        path: list[tuple[Any, Any]] = []
        while number not in self._roots:
            _, holder, key = self._seen[number]
            path.append((self._seen[holder][0], key))
            number = holder
        place = self._roots[number]
        for owner, key in reversed(path):
            place = Place(place.owner, (*place.path, key), _name(place.name, owner, key))
        return place

    def held(self, tensor: Tensor) -> tuple[Place, Any] | None:
        """Return the place of the object that holds a tensor, and the key; None if no object does."""
        found = self.tensors.get(id(tensor))
        return None if found is None else (self.place(found[0]), found[1])

    def changes(self, wire: Callable[[Tensor], Wire]) -> Iterator[Change]:
        """Yield what was changed since the objects were added; `wire` returns the wire of a tensor."""
        for number, (owner, before) in self.before.items():
            now = contents(owner)
            if are_same(before, now):
                continue
            olds, news = before, now
            if isinstance(before, dict):
                now = copy_of(now)
                keys = [key for key in (before | now) if _differs(before.get(key, NOTHING), now.get(key, NOTHING))]
                olds, news = [{key: each.get(key, NOTHING) for key in keys} for each in (before, now)]
            if not isinstance(before, dict) or olds:
                place = self.place(number)
                yield Change(place, _described(olds), self._after(place.name, news, wire))

    def _after(self, name: str, value: Any, wire: Callable[[Tensor], Wire]) -> Struct:
        """Return the description of the contents of an object after the run; objects from before stay as they are."""
        split = splitting_objects()
        top = value

        def split_new(value: Any, kind: type) -> Any:
            return None if value is not top and id(value) in self._seen else split(value, kind)

        described = describe(value, wire, split_new)
        for where, part in unopened(described, name, self._seen):
            if part is not NOTHING:
                self.refusal: str = (
                    f"the run keeps an object of type {kind_of(part).__name__} in {where} (if it does so only once, "
                    "call the original, and record it then)"
                )
        return described

    def put_back(self, is_copy: Callable[[Any], bool]) -> None:
        """Restore the contents of all objects for which `is_copy` is false."""
        for owner, before in self.before.values():
            held = contents(owner)
            if is_copy(owner) or are_same(before, held):
                continue
            replace(held, before)


def state_of_generator(generator: torch.Generator) -> Tensor:
    """Return the state of a generator; no mode of torch sees this."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        return generator.get_state()


def are_equal_states(state: Tensor, other: Tensor) -> bool:
    """Return whether two states of generators are equal; no mode of torch sees this."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        return torch.equal(state, other)


def is_iterator(value: Any) -> bool:
    """Return whether a value is an iterator; whether the run takes an item of it cannot be seen."""
    return hasattr(type(value), "__next__") and not isinstance(value, io.IOBase)


def is_owner(value: Any) -> bool:
    """Return whether a run may change what an object holds, so that it belongs to a snapshot."""
    kind = type(value)
    if issubclass(kind, nn.Module):  # Not isinstance, for speed: it reads `__class__`.
        return not issubclass(kind, torch.jit.ScriptModule)
    if issubclass(kind, (dict, list, set, deque, tuple)):
        return True
    return has_only_attributes(kind) and f"{kind.__module__}".partition(".")[0] not in _SHARED_BY_THREADS


def _namespaces(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the globals of a function, or those of a module's `forward` and the attributes of its classes.

    Those of torch and of other libraries that are no user code are left out.
    """
    function = getattr(type(value), "forward", None) if isinstance(value, nn.Module) else value
    function = getattr(function, "__func__", function)
    if isinstance(function, types.FunctionType) and is_user_file(function.__code__.co_filename):
        yield function.__globals__
        yield from (vars(kind) for kind in type(value).__mro__ if isinstance(value, nn.Module))


def _parts_of_function(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values that a function, method or partial holds, each with its name."""
    if isinstance(function, types.MethodType):
        yield "", function.__self__
    elif isinstance(function, functools.partial):
        yield from (("", part) for part in (function.func, *function.args, *function.keywords.values()))
    elif is_user_file(function.__code__.co_filename):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:  # The variable is not assigned yet.
                continue


def _name(name: str, owner: Any, key: Any) -> str:
    """Return the name of a part of an object: `Model.cache`, `cache['k']`."""
    if isinstance(owner, (dict, list, deque, tuple, set)):
        return f"{name}.{key}" if isinstance(key, str) else f"{name}[{key!r}]"
    return name if key in _PARTS_OF_MODULES else f"{name}.{key}"


def _differs(before: Any, now: Any) -> bool:
    """Return whether a value was replaced by another one; equal plain values are the same."""
    return before is not now and (type(before) is not type(now) or type(now) not in PLAIN_TYPES or before != now)


def _described(value: Any) -> Any:
    """Return a description of contents before the run, with a wire of its own for each tensor."""
    numbers = iter(range(1 << 30))
    return describe(value, lambda _: Wire(next(numbers)), splitting_objects())
