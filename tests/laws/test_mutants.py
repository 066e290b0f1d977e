"""Mutation tests: do the laws detect small changes of the source of `models`, made one at a time?

Each change is tested in a child process, where the modules of `models` are imported again from the changed source; then
the laws check the circuits of `subjects` that execute the changed line, until one law does not hold. A change that no
law detects is a survivor. survivors.txt lists each survivor with the reason why it is not a mistake; a survivor that is
not listed fails the test.

`python -m tests.laws.test_mutants` tests all changes and prints the survivors and how many changes each law detects;
`python -m tests.laws.test_mutants 650` tests a sample of 650, always the same one; names of files limit the changes to
them. `test_laws_detect_changes` tests the sample. None of them is part of the default tests, because each of the
thousands of changes takes seconds.

Measured on the sample of 650 of 2,924 changes: 591 were detected, 90.9 %. After a first run, entries were added to
`subjects`, and the changes that were missed were tested again with them. The other 59 change no value that a circuit
returns, see survivors.txt: most affect memory, speed, or the text of an error.
"""

import ast
import collections
import contextlib
import importlib
import importlib.abc
import importlib.util
import os
import pickle
import re
import signal
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import circuits
from circuits import laws
from tests.laws.mutants import FILES, ROOT, Mutant, mutants

SURVIVORS = Path(__file__).parent / "survivors.txt"
SAMPLE = 650
TIME_LIMIT = 120
"""The CPU time in seconds after which a change counts as detected, because it may never terminate."""

ReachedLines = dict[str, frozenset[tuple[str, int]]]
"""By name of the circuit, the lines of `models` that it executes, as (module, line)."""


class _MutatedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A finder and loader that imports one module of `models` from a changed tree."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self.name, self.tree = f"circuits.models.{file.replace('/', '.')}", tree
        self.origin = str(ROOT / "models" / f"{file}.py")
        self.was_imported = False

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Return the spec of the changed module, None for other modules."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.origin, loader=self)

    def create_module(self, spec: Any) -> None:
        """Create the module by default."""

    def exec_module(self, module: Any) -> None:
        """Execute the changed tree."""
        self.was_imported = True
        exec(compile(self.tree, module.__spec__.origin, "exec"), module.__dict__)


def in_child_process(work: Callable[[], Any], changed: tuple[str, ast.Module] | None = None) -> Any:
    """Return the result of `work` in a child process that imports `models` again; "timeout" if it exceeds the limit.

    `changed` is a module and its changed syntax tree. If `work` raises an exception, its text is returned.

    Raises:
        AssertionError: `work` has not imported the changed module: every change would survive.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT)
        _forget_models()
        finder = None if changed is None else _MutatedModule(*changed)
        if finder is not None:
            sys.meta_path.insert(0, finder)
        try:
            result = work()
            if finder is not None and not finder.was_imported:
                result = f"{NOT_CHANGED}: {finder.name} was not imported from the changed source"
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        sent = pipe.read()
    os.waitpid(child, 0)
    result = pickle.loads(sent) if sent else "timeout"
    if f"{result}".startswith(NOT_CHANGED):
        raise AssertionError(result)
    return result


def _forget_models() -> None:
    """Have `models`, whose modules are those of `circuits.models`, and the tests' tables imported again."""
    for name in [name for name in sys.modules if re.match(r"(circuits\.)?models(\.|$)", name) or name in _RELOADED]:
        del sys.modules[name]
    if hasattr(circuits, "models"):
        delattr(circuits, "models")  # otherwise `from circuits import models` finds it


_RELOADED = ("tests.laws.subjects", "tests.laws.oracles")


def table() -> dict[str, Any]:
    """Return the entries of `subjects`, for the modules of `models` that are imported at present."""
    return importlib.import_module("tests.laws.subjects").CIRCUITS


class _TracedLines:
    """A context manager that collects the lines of `models` that run inside it."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def __enter__(self) -> set[tuple[str, int]]:
        sys.settrace(self.watch)
        return self.seen

    def __exit__(self, *_: Any) -> None:
        sys.settrace(None)

    def watch(self, frame: Any, _: str, __: Any) -> Any:
        """Collect a line of `models`; return None for frames of other files, which are not traced further."""
        if not frame.f_code.co_filename.startswith(f"{ROOT / 'models'}{os.sep}"):
            return None
        file = Path(frame.f_code.co_filename).relative_to(ROOT / "models").with_suffix("")
        self.seen.add((file.as_posix(), frame.f_lineno))
        return self.watch


def lines_of(name: str) -> frozenset[tuple[str, int]]:
    """Return the lines that run when a circuit is made and its claims and its kernel law are checked."""
    entry = table()[name]
    with _TracedLines() as lines:
        for law in (laws.kernel, *entry.also):
            with contextlib.suppress(laws.DoesNotApply):
                law(entry.make(), **entry.arguments)
    return frozenset(lines)


def import_lines() -> frozenset[tuple[str, int]]:
    """Return the lines that run when `models` is imported: decorators, and functions that make circuits."""
    with _TracedLines() as lines:
        table()
    return frozenset(lines)


LAWS = (laws.shapes, laws.kernel, laws.broadcasting, laws.independent, laws.gradcheck)

ORDER = (
    "equals", "linear", "multilinear", "equivariant", "shifting", "causal", "independent", "kernel", "broadcasting",
    "shapes", "gradcheck",
)  # fmt: skip
"""The order of the laws: fast laws that detect many changes come first, after the laws of `claims`."""

NO_IMPORT = "no module"
"""The beginning of the result of a change with which `models` cannot be imported, which is not counted."""


NOT_CHANGED = "unchanged source"
"""The beginning of the result of a child process in which the change had no effect, which is an error of this test."""


def broken_law(names: Sequence[str]) -> str:
    """Return the first law that does not hold and its circuit, as `law of circuit`; an empty string if all laws hold.

    `gradcheck` is not checked for a circuit with a reference, because `equals` compares gradients.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        circuits = table()
    except Exception as error:
        return f"{NO_IMPORT}: {type(error).__name__}"
    cases = [
        (law, name)
        for name in names
        for law in (*LAWS, *circuits[name].also)
        if law_name(law) not in circuits[name].without
        if law is not laws.gradcheck or circuits[name].reference is None
    ]
    for law, name in sorted(cases, key=lambda case: _cost(case[0])):
        entry = circuits[name]
        torch.manual_seed(0)
        try:
            without_minimizing(law)(entry.make(), **entry.arguments)
        except laws.DoesNotApply:
            continue
        except AssertionError:
            return f"{law_name(law)} of {name}"
        except Exception as error:
            return f"{law_name(law)} of {name}: {type(error).__name__}"
    return ""


def law_name(law: Any) -> str:
    """Return the name of a law, which may be a partial."""
    return (law.func if isinstance(law, partial) else law).__name__


def _cost(law: Any) -> int:
    """Return the position of a law in ORDER, -1 for the laws of `claims`."""
    return ORDER.index(law_name(law)) if law_name(law) in ORDER else -1


def without_minimizing(law: Any) -> Any:
    """Return the law without the decorator that searches for a smaller counterexample."""
    if isinstance(law, partial):
        return partial(without_minimizing(law.func), *law.args, **law.keywords)
    return getattr(law, "__wrapped__", law)


def all_changes(files: Iterable[str], reached: ReachedLines) -> list[tuple[Mutant, ast.Module, list[str]]]:
    """Return every change of a line that a circuit executes, its tree, and the circuits, those with fewest lines first.

    Changes are ordered by a checksum of their text, so that the first n are a sample that other changes do not affect.
    """
    found = []
    for file in files:
        for mutant, tree in mutants(file):
            names = [name for name, lines in reached.items() if (file, mutant.line) in lines]
            if names:
                changed = ast.parse(ast.unparse(tree))
                found.append((mutant, changed, sorted(names, key=lambda name: len(reached[name]))))
    return sorted(found, key=lambda each: zlib.crc32(f"{each[0]}".encode()))


def survivors() -> dict[str, str]:
    """Return the listed changes that no law detects, each with the reason why it is not a mistake.

    A line of the file is `change | reason`.
    """
    lines = SURVIVORS.read_text().splitlines() if SURVIVORS.exists() else []
    return dict(line.rsplit(" | ", 1) for line in lines if " | " in line)


def reached_lines() -> ReachedLines:
    """Return the lines that each circuit executes, and the lines that run when their modules are imported.

    Raises:
        AssertionError: A law does not hold for the unchanged source.
    """
    once = in_child_process(import_lines)
    found = {name: in_child_process(partial(lines_of, name)) for name in table()}
    results = [*found.values(), in_child_process(partial(broken_law, list(found)))]
    wrong = [result for result in results if result and isinstance(result, str)]
    if wrong:
        raise AssertionError(f"a law does not hold for unchanged source: {'; '.join(wrong)}")
    modules = {name: {module for module, _ in lines} for name, lines in found.items()}
    return {
        name: lines | {(module, line) for module, line in once if module in modules[name]}
        for name, lines in found.items()
    }


def a_band() -> str:
    """Return a mask of `models`, by the modules of both its names."""
    modules = [importlib.import_module(f"{name}.parts.masks") for name in ("models", "circuits.models")]
    return " ".join(f"{each.band(1, 2, causal=True, window=None, start=0).tolist()}" for each in modules)


@pytest.mark.slow
def test_a_change_is_made() -> None:
    """In a child process, under both names; a change that nothing imports is an error, not a survivor."""
    tree = ast.parse((ROOT / "models" / "parts" / "masks.py").read_text())
    tree.body.append(ast.parse("band = lambda *_, **__: torch.zeros(1)").body[0])
    assert in_child_process(a_band, ("parts/masks", tree)) == "[0.0] [0.0]"
    assert in_child_process(a_band) == a_band() == "[[True, False]] [[True, False]]"
    with pytest.raises(AssertionError, match="was not imported from the changed source"):
        in_child_process(str, ("parts/masks", tree))


@pytest.mark.mutants
def test_laws_detect_changes() -> None:
    """At least nine of ten changes in a sample are detected, and survivors.txt lists the others."""
    known, left, tested = survivors(), [], 0
    for mutant, tree, names in all_changes(FILES, reached_lines())[:SAMPLE]:
        result = in_child_process(partial(broken_law, names), (mutant.file, tree))
        tested += not result.startswith(NO_IMPORT)
        left += [f"{mutant}"] if not result else []
    unknown = [mutant for mutant in left if mutant not in known]
    assert not unknown, "\n".join(["no law detects:", *unknown])
    assert len(left) <= tested / 10


@pytest.mark.slow
def test_survivors_are_changes_of_the_current_source() -> None:
    """A line of survivors.txt whose change is no longer generated must be removed."""
    changes = {f"{mutant}" for file in FILES for mutant, _ in mutants(file)}
    assert len(changes) > 2500
    assert not [mutant for mutant in survivors() if mutant not in changes]
    assert all(reason.startswith(("equal", "a name")) for reason in survivors().values())


def main(words: Sequence[str]) -> None:
    """Test the changes, limited to files and to a number in `words`; print survivors and counts by law."""
    counts: collections.Counter[str] = collections.Counter()
    files = [word for word in words if not word.isdigit()]
    began, known, chosen = time.monotonic(), survivors(), all_changes(files or FILES, reached_lines())
    print(f"{len(chosen)} changes of lines that circuits execute", flush=True)
    for size in [int(word) for word in words if word.isdigit()]:
        chosen = chosen[:size]
    for mutant, tree, names in chosen:
        result = in_child_process(partial(broken_law, names), (mutant.file, tree))
        by = result.partition(" of ")[0].partition(":")[0] or "survived"
        counts[f"{by}, by an error" if " of " in result and ": " in result else by] += 1
        if not result:
            print(f"{mutant} | {known.get(f'{mutant}', '?')}", flush=True)
    total = sum(counts.values()) - counts[NO_IMPORT]
    detected = total - counts["survived"]
    print(
        f"{total} changes, {detected} detected ({detected / total:.1%}), "
        f"{time.monotonic() - began:.0f} s: {dict(counts)}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
