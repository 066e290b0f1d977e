"""Fake tensors that outlive a trace: in a global table, a class attribute or an `lru_cache` that the run filled.

The model's next real call would find them there, and compute with tensors without data.
"""

import functools
import gc
import inspect
import sys
import types
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor, nn

from circuits.errors import CircuitError
from circuits.recording.user_frames import is_user_file

_Cache: Any = type(functools.lru_cache(len))


class _Globals:
    """What refers to an object, found by the garbage collector, and by a search of globals if `gc.freeze()` hides them.

    A server or a training script freezes its modules to shorten collections; their tables are searched like others.

    Args:
        wanted: The ids of the tensors of which the holders are wanted, besides those of containers and classes.

    Attributes:
        frozen: The containers, classes and caches in globals of user code, if any object is frozen.
    """

    def __init__(self, wanted: Collection[int] = ()) -> None:
        self.frozen: list[Any] = []
        self._holders: dict[int, list[Any]] = defaultdict(list)
        found = [*sys.modules.values()] if gc.get_freeze_count() else []
        modules = [vars(each) for each in found if issubclass(type(each), types.ModuleType)]
        waiting: list[Any] = [each for each in modules if is_user_file(each.get("__file__") or "")]
        seen = set[int]()
        while waiting:
            each = waiting.pop()
            if id(each) not in seen:
                seen.add(id(each))
                self.frozen.append(each)
                for held in gc.get_referents(each):
                    if issubclass(type(held), (dict, list, tuple, set, type, _Cache)):  # not asked for __class__
                        self._holders[id(held)].append(each)
                        waiting.append(held)
                    elif id(held) in wanted:
                        self._holders[id(held)].append(each)

    def referrers(self, value: Any) -> list[Any]:
        """Return the objects that refer to a tensor or to one of these objects, each once."""
        return [*{id(each): each for each in (*gc.get_referrers(value), *self._holders.get(id(value), ()))}.values()]


def remove_leaks(fakes: Iterable[weakref.ref[Tensor]], copies: Iterable[nn.Module]) -> None:
    """Remove the fake tensors of a trace that are still alive from where the run put them.

    In most traces none is: they end with the copies of the model. The garbage collector runs only if some are alive.

    Args:
        fakes: The tensors of the trace.
        copies: The copied modules, which nothing needs any more; those that refer to themselves are emptied.

    Raises:
        CircuitError: The run kept tensors in a global or class attribute; what it overwrote there is not restored.
    """
    fakes = list(fakes)
    for copied in copies if fakes else ():
        vars(copied).clear()
    for generation in (1, 2):  # the young objects first, which are few
        if _alive(fakes):
            gc.collect(generation)
    clear_caches(fakes)
    if not _alive(fakes):
        return
    globals_ = _Globals(_alive(fakes))
    found = [where for each in fakes for where in _remove(each, globals_)]
    if found:
        raise CircuitError(
            f"the run keeps a tensor in {found[0]}, which trace does not copy; it was removed from there. Keep it in "
            "an attribute of the model, or in an argument"
        )


def _alive(fakes: Iterable[weakref.ref[Tensor]]) -> set[int]:
    """Return the ids of the tensors that are still alive."""
    return {id(tensor) for fake in fakes if (tensor := fake()) is not None}


def clear_caches(fakes: Iterable[weakref.ref[Tensor]]) -> None:
    """Clear each `lru_cache` of the user that holds one of these tensors; also after a run that failed."""
    alive = _alive(fakes)
    for each in _caches() if alive else ():
        if _holds(each, alive):
            each.cache_clear()


def _caches() -> list[Any]:
    """Return each `lru_cache` that may be cleared."""
    found = gc.get_objects() + _frozen_caches()  # not [*gc.get_objects()], which would hold itself, and all else
    return [*{id(each): each for each in found if type(each) is _Cache and _may_be_cleared(each)}.values()]


def _frozen_caches() -> list[Any]:
    """Return each `lru_cache` that is frozen; they are searched for only after a further `gc.freeze()`, for speed."""
    global _frozen
    count = gc.get_freeze_count()
    known = (
        _frozen[1] if count <= _frozen[0] else [weakref.ref(each) for each in _Globals().frozen if type(each) is _Cache]
    )
    _frozen = count, known
    return [cache for each in known if (cache := each()) is not None]


_frozen: tuple[int, list[weakref.ref[Any]]] = (0, [])
"""How many objects were frozen at the last search, and the caches among them."""


def _may_be_cleared(cache: Any) -> bool:
    """Return whether a cache has entries, and is not torch's: some of its caches are tables, which must stay."""
    return cache.cache_info().currsize > 0 and getattr(cache, "__module__", "").partition(".")[0] != "torch"


def _holds(cache: Any, fakes: set[int]) -> bool:
    """Return whether a cache has one of these tensors among its arguments and results."""
    waiting, seen = [*gc.get_referents(cache)], set()
    while waiting and len(seen) < 10_000:
        each = waiting.pop()
        if id(each) in fakes:
            return True
        if id(each) not in seen and not isinstance(each, (types.FunctionType, types.ModuleType, type)):
            seen.add(id(each))
            waiting += gc.get_referents(each)
    return False


def _remove(fake: weakref.ref[Tensor], globals_: _Globals) -> list[str]:
    """Remove a tensor from the containers and attributes that globals and classes refer to; return their names."""
    found = []
    tensor = fake()
    for holder in globals_.referrers(tensor) if tensor is not None else ():
        where = _name(holder, 3, globals_) if isinstance(holder, (dict, list, set)) else ""
        if not where:
            continue
        found.append(where)
        if isinstance(holder, dict):
            for key in [key for key, value in holder.items() if value is tensor]:
                _delete(holder, key, globals_)
        elif isinstance(holder, list):
            holder[:] = [each for each in holder if each is not tensor]
        else:
            holder.discard(tensor)
    return found


def _delete(holder: dict[Any, Any], key: Any, globals_: _Globals) -> None:
    """Delete an entry of a dict, which may be that of the attributes of a class."""
    classes = [each for each in globals_.referrers(holder) if isinstance(each, type)]
    owner = next((each for each in classes if _dict_of(each) is holder), None)
    if owner is None:
        del holder[key]
    else:
        delattr(owner, key)


def _dict_of(kind: type) -> Any:
    return next((each for each in gc.get_referents(kind) if type(each) is dict and "__module__" in each), None)


def _name(holder: Any, depth: int, globals_: _Globals) -> str:
    """Return the name by which a global or a class refers to a container; empty if none does."""
    if (
        isinstance(holder, dict)
        and vars(sys.modules.get(holder.get("__name__", ""), types.SimpleNamespace())) is holder
    ):
        return f"a global of {holder['__name__']}" if is_user_file(holder.get("__file__") or "") else ""
    for each in globals_.referrers(holder) if depth else ():
        if inspect.isframe(each):
            continue
        if isinstance(each, type) and isinstance(holder, dict):
            return f"a class attribute of {each.__qualname__}"
        if isinstance(each, (dict, list, tuple)) and each is not holder:
            where = _name(each, depth - 1, globals_)
            if where:
                keys = [key for key, value in each.items() if value is holder] if isinstance(each, dict) else []
                return where.replace("a global of ", f"{keys[0]}, a global of ") if keys else where
    return ""
