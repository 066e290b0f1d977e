"""What the objects and variables that the code of a run read held before the run, as guards of its diagram.

A config object, a dict or a list that the code reads from an attribute is compared as a whole, because nothing records
what the code reads of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from circuits.diagram import NOTHING, PLAIN_TYPES, Call, Held, contents, items_of, parts_of, state_guard
from circuits.recording.events import Record
from circuits.recording.module_paths import find_root
from circuits.recording.snapshot import Snapshot, is_owner

_HOOKS_OF_CALLS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""The hooks that change what a call of a module computes, or its gradient."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

_MOST = 20_000
"""The largest number of objects that a diagram compares at each run, which takes some microseconds for each."""


def state_guards(record: Record, is_trace: bool, whole: Iterable[str]) -> tuple[Call, ...]:
    """Return the guards of what the code of a recorded run read of objects and variables, and did not change.

    Args:
        record: The record of the run, which is complete.
        is_trace: Whether the run was one of copies, so that the user's objects hold what they held before.
        whole: The paths of the modules and methods that the diagram runs as a whole.
    """
    changed: dict[int, set[Any] | None] = {}
    for change in record.changes:
        if change.place.owner is not None:
            owner = change.place.find()
            keys = set(change.before.keys) if isinstance(contents(owner), (dict, Mapping)) else None
            changed[id(owner)] = keys
    holders = Holders(record.snapshot, changed, record.originals, is_trace)
    for module, read in record.attribute_reads.read.values():
        holders.add_module(module, read)
    for path in whole:
        holders.add_whole_module(*find_root(record, path.partition(":")[0]))
    for holder, values in record.scopes.values():
        holders.add_variables(holder, values)
    record.refusal = record.refusal or holders.refusal
    return state_guard(holders.found, holders.hooks)


class Holders:
    """What objects hold before a run, of which a diagram compares what the run has not changed.

    Args:
        snapshot: What they held before the run, if it could change them.
        changed: The keys that the run changed in each object, by the `id` of the object; None: all.
        originals: The user's module for each copy that ran in place of it, by the `id` of the copy.
        is_trace: Whether the run was one of copies, so that the user's objects hold what they held before.
    """

    def __init__(
        self, snapshot: Snapshot, changed: Mapping[int, set[Any] | None], originals: Mapping[int, Any], is_trace: bool
    ) -> None:
        self.snapshot: Snapshot = snapshot
        self.changed: Mapping[int, set[Any] | None] = changed
        self.originals: Mapping[int, Any] = originals
        self.is_trace: bool = is_trace
        self.seen: set[int] = set()
        self.found: list[Held] = []
        self.hooks: dict[str, Any] = {}
        self.refusal = ""

    def add_module(self, module: nn.Module, read: Mapping[str, str]) -> None:
        """Add the attributes of a module that the code read, and the hooks of its calls."""
        original = self.originals.get(id(module), None if self.is_trace else module)
        if original is None or id(module) not in self.snapshot.before:
            return
        name, before = self.snapshot.place(id(module)).name, self._before(original)
        parts = {part: self._before(vars(original)[part]) for part in ("_parameters", "_buffers", "_modules")}
        own, inner = dict[str, str](), dict[str, dict[str, str]]()
        for key, where in read.items():
            part = next((part for part, held in parts.items() if key in held), "")
            if part:
                inner.setdefault(part, {})[key] = where
            elif key in before or not hasattr(type(original), key) or callable(getattr(type(original), key)):
                own[key] = where
            else:
                self._add_class_attribute(type(original), key, where)
            if part == "_modules" and isinstance(parts[part][key], _CONTAINERS):
                self._add_container(parts[part][key], f"{name}.{key}")
        if isinstance(original, _CONTAINERS):
            self._add_container(original, name)
        self._add(name, original, before, own)
        for part, keys in inner.items():
            self._add(name, vars(original)[part], parts[part], keys)
        for hooks in _HOOKS_OF_CALLS:
            if before.get(hooks):
                self._add_whole(f"{name}.{hooks}", before[hooks])
            elif hooks in before:
                self.hooks[f"{name} ({hooks})"] = before[hooks]

    def _add_class_attribute(self, kind: type, key: str, where: str) -> None:
        """Add an attribute of a class that is a plain value or an object; others, such as properties, are code."""
        owner = next((each for each in kind.__mro__ if key in vars(each)), None)
        if owner is not None and (type(vars(owner)[key]) in PLAIN_TYPES or is_owner(vars(owner)[key])):
            self._add(owner.__qualname__, owner, vars(owner), {key: where})

    def add_whole_module(self, root: nn.Module, path: str) -> None:
        """Add a module, and those around it, which a run of the diagram calls."""
        module: Any = root
        for name in path.split(".") if path else ():
            held = vars(module)["_modules"]
            module = held[name]
            self.found.append(Held(type(root).__name__, held, (name,), (module,), {}, by_identity=True))

    def add_variables(self, holder: Any, values: Mapping[str, Any]) -> None:
        """Add variables, and the objects in them."""
        self._add("", holder, values, dict.fromkeys(values, ""))

    def _add_container(self, module: nn.Module, name: str) -> None:
        """Add the modules in a container of modules."""
        held = vars(module)["_modules"]
        if id(held) in self.seen:
            return
        self._add_whole(name, held)
        for key, part in self._before(held).items():
            if isinstance(part, _CONTAINERS):
                self._add_container(part, f"{name}.{key}")

    def _before(self, owner: Any) -> Any:
        """Return what an object held before the run."""
        known = self.snapshot.before.get(id(owner))
        return contents(owner) if self.is_trace or known is None or known[0] is not owner else known[1]

    def _add(self, name: str, holder: Any, before: Mapping[Any, Any], read: Mapping[Any, str]) -> None:
        """Add some keys of an object, and the objects in them."""
        changed = self.changed.get(id(holder), ())
        keys = () if changed is None else tuple([key for key in read if key not in changed])
        values = tuple([before.get(key, NOTHING) for key in keys])
        keep = [place for place, value in enumerate(values) if not isinstance(value, Tensor)]
        keys, values = tuple([keys[place] for place in keep]), tuple([values[place] for place in keep])
        if keys:
            self.found.append(Held(name, holder, keys, values, {key: read[key] for key in keys if read[key]}))
        for key, value in zip(keys, values, strict=True):
            self.add_inside(f"{name}.{key}" if name else f"{key}", value)

    def add_inside(self, name: str, value: Any) -> None:
        """Add what an object holds, and all objects in it; nothing for a module and for what holds no values."""
        waiting = [(name, value)]
        while waiting:
            if len(self.found) >= _MOST:
                self.refusal: str = (
                    f"the run may read {name} and more than {_MOST:,} other objects; a diagram compares no more: keep "
                    "the numbers in a tensor or a tuple of numbers"
                )
                return
            name, value = waiting.pop()
            if type(value) in PLAIN_TYPES or isinstance(value, (Tensor, nn.Module)) or not is_owner(value):
                continue
            waiting += self._add_whole(name, value)

    def _add_whole(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Add all that an object holds; return the objects in it, with their names."""
        if id(value) in self.seen or self.changed.get(id(value), ()) is None:
            return iter(())
        self.seen.add(id(value))
        before, changed = self._before(value), self.changed.get(id(value)) or ()
        if isinstance(before, (dict, Mapping)):
            held = items_of(before) if isinstance(before, dict) else before.items()
            pairs = [(key, part) for key, part in held if key not in changed]
            keys: Any = tuple([key for key, _ in pairs])
            parts = [part for _, part in pairs]
        else:
            keys, parts = None, [*parts_of(before)]
        if not isinstance(value, tuple):
            values = tuple([Tensor if isinstance(part, Tensor) else part for part in parts])
            self.found.append(Held(name, value, keys, values, {}, isinstance(value, dict) and not changed))
        names = keys if keys is not None else range(len(parts))
        inner = [(key, part) for key, part in zip(names, parts, strict=True) if type(part) not in PLAIN_TYPES]
        return iter([(f"{name}.{key}" if isinstance(key, str) else f"{name}[{key!r}]", part) for key, part in inner])
