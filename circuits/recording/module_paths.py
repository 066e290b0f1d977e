"""The dotted path of every module in a recorded run, and the module at a path.

A module that is called and is not part of an earlier root becomes a root. The outermost box of the run, if it is a
module, has the empty path, so that the paths inside are the names of `named_modules()`. The paths of every other root
begin with a unique name.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from torch import nn

from circuits.errors import CircuitError
from circuits.recording.events import Record


def register_paths(record: Record, root: nn.Module, nested: bool) -> None:
    """Add a root and the paths of all its modules to a record; `nested`: a box was open when the root was called."""
    prefix = _unused_name(record, type(root).__name__) if nested or record.roots else ""
    record.roots.append((prefix, root))
    record.add_code(root, type(root).__name__)
    for path, module in _parts(root):
        full = f"{prefix}.{path}" if prefix and path else prefix or path
        known = record.paths.setdefault(id(module), [])
        if full not in known:
            known.append(full)
        if "_orig_mod" in module._modules:
            record.paths.setdefault(id(module._modules["_orig_mod"]), []).append(full)


def register_circuit(record: Record, circuit: Any, module: nn.Module | None, nested: bool) -> None:
    """Add the code of a circuit that is called, or the module that it is a method of; `nested` as for a root."""
    if module is None:
        if record.is_kept():
            record.scopes.add_function(circuit.definition)
    elif id(module) not in record.paths:
        register_paths(record, module, nested)


def register_late(record: Record, module: nn.Module) -> bool:
    """Add the paths of a module that the run itself made a part of a root; return False if it is part of none."""
    for prefix, root in record.roots:
        path = next((path for path, part in _parts(root) if part is module), None)
        if path is not None:
            full = f"{prefix}.{path}" if prefix else path
            for inner, part in _parts(module):
                record.paths.setdefault(id(part), []).append(f"{full}.{inner}" if inner else full)
            return True
    return False


def _parts(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module of a root with each of its paths, in the order of `named_modules`.

    The paths are those of `get_submodule`, also in a module that gives its parts other names in `named_modules`.
    """
    pending = [("", root)]
    while pending:
        path, module = pending.pop()
        yield path, module
        parts = [(f"{path}.{name}" if path else name, part) for name, part in module._modules.items()]
        pending += [(name, part) for name, part in reversed(parts) if part is not None]


def _unused_name(record: Record, name: str) -> str:
    """Return a unique first component for the paths of a root: `Linear`, or `Linear2` if `Linear` is taken."""
    taken = {path.partition(".")[0] for paths in record.paths.values() for path in paths}
    numbered = (f"{name}{count}" for count in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)


def find_root(record: Record, path: str) -> tuple[nn.Module, str]:
    """Return the last registered root that contains a path, and the path relative to this root.

    If the root is a copy, the user's original module is returned.

    Raises:
        CircuitError: No root contains the path.
    """
    for prefix, root in reversed(record.roots):
        if not prefix or path == prefix or path.startswith(f"{prefix}."):
            return record.originals.get(id(root), root), path.removeprefix(prefix).removeprefix(".")
    raise CircuitError(f"no recorded module has the path '{path}'")
