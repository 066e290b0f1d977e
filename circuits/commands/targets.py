"""What a TARGET names: `package.module:Name`, `package.module.Name` or `path/to/file.py:name`.

Attributes of the name may follow, with dots. A class makes the model whose attributes they are: of
`models.mlp:MLP.probabilities` the class `MLP` is called, and `probabilities` is a method of the model.
"""

import importlib
import inspect
import sys
import traceback
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Self, get_type_hints

from torch import nn

from circuits.checking import find_circuit
from circuits.commands.reports import UsageError

FORMS = "package.module:Name, package.module.Name or path/to/file.py:name"
SUGGESTED = 8
"""The most names that a message lists."""


class Target(NamedTuple):
    """The object that a TARGET names, and the names of attributes that follow.

    Attributes:
        text: The TARGET.
        found: A circuit, module or function; or a class or function that makes the model.
        attributes: The attributes of the model that lead to what is meant, mostly none.
    """

    text: str
    found: Any
    attributes: tuple[str, ...] = ()


def find_target(text: str) -> Target:
    """Return what a TARGET names; the file or module is imported, so its code runs.

    Raises:
        UsageError: The text has none of the forms, or there is no such module, file or name in it.
    """
    place, colon, name = text.rpartition(":")
    if colon:
        module, names = _file(Path(place)) if place.endswith(".py") else _module(place), name.split(".")
    elif text.endswith(".py"):
        raise UsageError(f"{text} is a file: TARGET names something in it, {text}:name")
    else:
        module, names = _longest_module(text)
    if not all(names):
        raise UsageError(f"{text} names nothing in the module: TARGET is {FORMS}{_suggestion(module, '')}")
    target = _walk(text, module, names)
    if isinstance(target.found, ModuleType):
        raise UsageError(f"{text} is a Python module, and TARGET names something in it{_suggestion(target.found, '')}")
    return target


def makes_model(found: Any) -> bool:
    """Return whether an object is to be called for the model: a class, or a function annotated to return a module.

    >>> makes_model(nn.Linear), makes_model(nn.Linear(1, 1)), makes_model(nn.functional.relu)
    (True, False, False)
    """
    if inspect.isclass(found):
        return True
    if isinstance(found, nn.Module) or find_circuit(found) is not None or not callable(found):
        return False
    try:
        made = get_type_hints(found).get("return")
    except Exception:  # an annotation may be any text
        return False
    if made is Self and inspect.isclass(getattr(found, "__self__", None)):
        return True
    return inspect.isclass(made) and issubclass(made, nn.Module)


def attribute(found: Any, name: str, text: str) -> Any:
    """Return an attribute; raise UsageError, with names that are there, if there is none."""
    try:
        return getattr(found, name)
    except AttributeError:
        owner = found.__name__ if isinstance(found, ModuleType) or inspect.isclass(found) else type(found).__name__
        raise UsageError(f"{text}: {owner} has no {name}{_suggestion(found, name)}") from None


def _walk(text: str, found: Any, names: list[str]) -> Target:
    """Follow attributes up to the first class or function that makes a model."""
    for place, name in enumerate(names):
        if makes_model(found) and not _belongs_to_class(found, name):
            return Target(text, found, tuple(names[place:]))
        found = attribute(found, name, text)
    return Target(text, found)


def _belongs_to_class(found: Any, name: str) -> bool:
    """Return whether an attribute is one of the class itself: a class method or static method, or a class inside it."""
    static = inspect.getattr_static(found, name, None) if inspect.isclass(found) else None
    return isinstance(static, (classmethod, staticmethod)) or inspect.isclass(static)


def _suggestion(found: Any, name: str) -> str:
    """Return the end of a message: names like this one, or else the circuits and modules that a Python module has."""
    close = get_close_matches(name, [each for each in dir(found) if not each.startswith("_")], SUGGESTED, 0.7)
    if not close and isinstance(found, ModuleType):
        close = [each for each, value in vars(found).items() if not each.startswith("_") and _is_model(value)]
    if not close:
        return ""
    return f"; it has {', '.join(close[:SUGGESTED])}{', ...' if len(close) > SUGGESTED else ''}"


def _is_model(value: Any) -> bool:
    if inspect.isclass(value):
        return issubclass(value, nn.Module) and value is not nn.Module
    return isinstance(value, nn.Module) or (callable(value) and find_circuit(value) is not None)


def _longest_module(text: str) -> tuple[ModuleType, list[str]]:
    """Return the module of `package.module.Name`, and the names after it."""
    names = text.split(".")
    if len(names) < 2:
        raise UsageError(f"{text or 'an empty text'} names no module: TARGET is {FORMS}")
    for count in range(len(names) - 1, 0, -1):
        place = ".".join(names[:count])
        try:
            return _module(place), names[count:]
        except _MissingModule:
            continue
    raise UsageError(f"there is no module {names[0]}: TARGET is {FORMS}")


class _MissingModule(UsageError):
    """There is no module of this name."""


def _module(name: str) -> ModuleType:
    """Import a module by name."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name or 'nothing'} is not the name of a module: TARGET is {FORMS}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise _MissingModule(f"there is no module {name}") from None
        raise _not_imported(name, error) from error
    except (Exception, SystemExit) as error:
        raise _not_imported(name, error) from error


def _file(path: Path) -> ModuleType:
    """Import a file; one in a package by its name there, so that its relative imports work."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    path = path.resolve()
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        folder, names = folder.parent, [folder.name, *names]
    if f"{folder}" not in sys.path:
        sys.path.insert(0, f"{folder}")
    if len(names) == 1:
        return _single_file(path)
    name = ".".join(names).removesuffix(".__init__")
    module = _module(name)
    if Path(module.__file__ or "").resolve() != path:
        raise UsageError(f"{path} would be imported as {name}, but that is {module.__file__}")
    return module


def _single_file(path: Path) -> ModuleType:
    """Import a file that is in no package, by its name, or a longer one if there is another module of that name."""
    name, loaded = path.stem, sys.modules.get(path.stem)
    if loaded is not None:
        if Path(getattr(loaded, "__file__", None) or "").resolve() == path:
            return loaded
        name = f"{path.stem}_of_{path.parent.name}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported")
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _not_imported(f"{path}", error) from error
    return module


def _not_imported(name: str, error: BaseException) -> UsageError:
    """Return the error of a module or file whose code raises, with the line."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "importlib" not in each.filename]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames and frames[-1].filename != __file__ else ""
    return UsageError(f"{name} cannot be imported: {type(error).__name__}: {error}{where}")


__all__ = ["FORMS", "Target", "attribute", "find_target", "makes_model"]
