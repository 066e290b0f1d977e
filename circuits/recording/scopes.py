"""The globals and the variables of enclosing functions that the code of a run names, and what it assigns to them.

Nothing records an assignment to a variable (`global n; n += 1`), so it is found by comparing. A diagram does not make
it, and refuses to run. The code is that of the target and of the modules that are called, with the functions that it
names, as far as it is the user's. Attributes of the classes of these modules are compared too.
"""

import dis
import functools
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from circuits.diagram import NOTHING, PLAIN_TYPES, Globals, Variables
from circuits.recording.snapshot import ITERATOR, is_iterator, is_owner
from circuits.recording.user_frames import is_user_file

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, nn.Module)


class Scopes:
    """The variables that the code of one run names, with their values before the run.

    Attributes:
        seeding: A line of the code that seeds a random number generator, as `model.py:12`; empty if none.
    """

    def __init__(self) -> None:
        self._globals: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
        self._cells: dict[int, tuple[types.CellType, str, Any]] = {}
        self._attributes: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._codes: set[int] = set()
        self.seeding = ""
        self._assigned: dict[str, str] = {}
        self._new: list[tuple[str, Any]] = []

    def add_module(self, root: nn.Module) -> None:
        """Add the code of the classes of a module and of the modules in it."""
        for kind in classes_of_modules(root):
            self._add_class(kind)

    def _add_class(self, kind: type) -> None:
        for each in kind.__mro__:
            if id(each) not in self._attributes and _is_users(each):
                self._attributes[id(each)] = each, dict(vars(each))
                self._new += [
                    (f"{each.__qualname__}.{key}", value) for key, value in vars(each).items() if key[:2] != "__"
                ]
                for function in _functions(each):
                    self.add_function(function)

    def add_function(self, function: Any) -> None:
        """Add the code of a function, method or partial, and of the functions that it names."""
        waiting = [function]
        while waiting:
            found = waiting.pop()
            while isinstance(found, (functools.partial, types.MethodType)):
                found = found.func if isinstance(found, functools.partial) else found.__func__
            found = getattr(found, "__wrapped__", found) if not isinstance(found, types.FunctionType) else found
            if not isinstance(found, types.FunctionType) or not is_user_file(found.__code__.co_filename):
                continue
            if id(found) in self._codes:
                continue
            self._codes.add(id(found))
            waiting += [value for value in self._add_variables(found) if callable(value)]

    def _add_variables(self, function: types.FunctionType) -> Iterator[Any]:
        """Add the variables that a function names, and yield their values."""
        names, assigned, seeding = _names(function.__code__)
        if seeding:
            self.seeding: str = self.seeding or f"{function.__code__.co_filename}:{seeding}"
        self._attributes[id(function)] = function, dict(vars(function))
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        self._new += [(f"a default of {function.__qualname__}", value) for value in defaults]
        for name, line in assigned.items():
            self._assigned.setdefault(name, f"{function.__code__.co_filename}:{line}")
        held = function.__globals__
        for name in names:
            value = held.get(name, NOTHING)
            if value is not NOTHING or name in assigned:
                self._globals.setdefault((id(held), name), (held, name, value))
                self._new.append((name, value))
                yield value
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            value = _value(cell)
            if name != "__class__":
                self._cells.setdefault(id(cell), (cell, name, value))
                yield value

    def refusal(self) -> str:
        """Return which variable the run has assigned; empty if none."""
        globals_ = [(name, value, held.get(name, NOTHING)) for held, name, value in self._globals.values()]
        cells = [(name, value, _value(cell)) for cell, name, value in self._cells.values()]
        for kind, found in (("the global", globals_), ("the variable", cells)):
            for name, before, now in found:
                if now is not before and not (type(now) in PLAIN_TYPES and type(now) is type(before) and now == before):
                    at = f" at {self._assigned[name]}" if name in self._assigned else ""
                    return _REFUSAL.format(f"assigns {kind} {name}{at}")
            iterator = next((name for name, before, _ in found if is_iterator(before)), None)
            if iterator is not None:
                return ITERATOR.format(iterator)
        for owner, before in self._attributes.values():
            changed = _changed(before, vars(owner))
            if changed:
                return _REFUSAL.format(f"assigns {owner.__qualname__}.{changed[0]}")
        return ""

    def put_back(self) -> None:
        """Give the variables and class attributes the values that they had before the run."""
        for held, name, value in self._globals.values():
            if value is NOTHING:
                held.pop(name, None)
            elif held.get(name) is not value:
                held[name] = value
        for cell, _, value in self._cells.values():
            if value is NOTHING and _value(cell) is not NOTHING:
                del cell.cell_contents
            elif _value(cell) is not value:
                cell.cell_contents = value
        for owner, before in self._attributes.values():
            for key in _changed(before, vars(owner)):
                if key in before:
                    setattr(owner, key, before[key])
                else:
                    delattr(owner, key)

    def new_containers(self) -> Iterator[tuple[str, Any]]:
        """Yield the containers and objects in the variables that were added since the last call, with their names."""
        while self._new:
            name, value = self._new.pop()
            if is_owner(value) and not isinstance(value, nn.Module):
                yield name, value

    def values(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield holders and the values of their variables before the run, as far as a diagram can compare them."""
        by_holder: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        for held, name, value in self._globals.values():
            if _is_compared(value):
                by_holder.setdefault(id(held), (held, {}))[1][name] = value
        for held, values in by_holder.values():
            module = sys.modules.get(held.get("__name__", ""))
            if module is not None and vars(module) is held:
                yield Globals(held["__name__"]), values
        cells = [(name, cell, value) for cell, name, value in self._cells.values() if _is_compared(value)]
        for name, cell, value in cells:
            yield Variables(((name, cell),)), {name: value}


_REFUSAL = (
    "the run {}, which a diagram does not do: keep the value in an attribute of the model, in a dict or in an argument "
    "(if the code assigns it only once, call the original, and record it then)"
)


def classes_of_modules(root: nn.Module) -> Iterable[type]:
    """Return the classes of a module and of the modules in it."""
    return dict.fromkeys(map(type, modules_of(root)))


def modules_of(root: nn.Module) -> Iterable[nn.Module]:
    """Return a module and the modules in it, each once."""
    seen, found = {id(root)}, [root]
    for module in found:
        for part in module._modules.values() if module._modules else ():
            if part is not None and id(part) not in seen:
                seen.add(id(part))
                found.append(part)
    return found


def _is_users(kind: type) -> bool:
    """Return whether a class is the user's, by the file of its Python module; a notebook has none."""
    module = sys.modules.get(kind.__module__)
    return kind.__module__ != "builtins" and is_user_file(getattr(module, "__file__", None) or "")


def _changed(before: dict[str, Any], now: Any) -> list[str]:
    """Return the attributes that were assigned or deleted."""
    return [
        key for key in {**before, **now} if key[:2] != "__" and before.get(key, NOTHING) is not now.get(key, NOTHING)
    ]


def _is_compared(value: Any) -> bool:
    return type(value) in PLAIN_TYPES or isinstance(value, _FUNCTIONS) or (is_owner(value) and value is not NOTHING)


def _value(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return NOTHING


def _functions(kind: type) -> Iterator[types.FunctionType]:
    """Yield the functions of a class that may run in a call: its methods and properties."""
    for name, value in list(vars(kind).items()):
        if name.startswith("__") and name != "__call__":
            continue
        found = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if isinstance(found, types.FunctionType):
            yield found


@functools.lru_cache(2048)
def _names(code: types.CodeType) -> tuple[tuple[str, ...], dict[str, int], int]:
    """Return the globals that a code names, the variables that it assigns, each with the line, and where it seeds."""
    names, assigned, seeding, before = dict[str, None](), dict[str, int](), 0, ""
    for part in _codes(code):
        line = part.co_firstlineno
        for each in dis.get_instructions(part):
            line = each.starts_line or line
            if each.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"):
                names[each.argval] = None
            if each.opname == "STORE_GLOBAL" or (each.opname == "STORE_DEREF" and each.argval in part.co_freevars):
                assigned[each.argval] = line
            if each.opname in ("LOAD_METHOD", "LOAD_ATTR") and each.argval in _SEEDING and before not in _MODULES:
                seeding = line
            before = each.argval
    return tuple(names), assigned, seeding


_SEEDING = ("manual_seed", "seed", "set_state")
"""The methods of `torch.Generator` that set its state."""

_MODULES = ("torch", "random", "cuda", "np", "numpy")
"""The modules with functions of these names, which set the states of other generators."""


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code and those of the functions in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


__all__ = ["Scopes", "classes_of_modules", "modules_of"]
