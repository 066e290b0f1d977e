"""Do the laws see it when a circuit is changed? Small changes of every circuit in `models`, one at a time.

Each change runs in a process of its own, where the modules of `models` are made anew from the changed source; then
the laws look at the circuits of `subjects` that reach the changed line, until one does not hold. What no law sees is
a survivor: it is listed in survivors.txt, with the reason why it is no fault, or the number of the killed falls.

`python -m tests.laws.test_mutants` runs all of them and prints the table, `python -m tests.laws.test_mutants 650` a
sample, which is always the same; files may be named too. The sample is what the test here runs. Neither is part of
what a change must pass: a change takes seconds to judge, and there are thousands.

Measured of the sample of 650, of 2,924 changes: 591 seen, 90.9 %; between two runs of the sample the table grew, and
what the first had missed was judged again by what was new. The 59 others change no value that a circuit gives,
by survivors.txt: most are about memory, speed, or the words of a refusal.
"""

import ast
import collections
import contextlib
import importlib
import importlib.abc
import importlib.util
import os
import pickle
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

from circuits import laws
from tests.laws.mutants import FILES, ROOT, Mutant, mutants

SURVIVORS = Path(__file__).parent / "survivors.txt"
SAMPLE = 650
PATIENCE = 120
"""Seconds of work after which a change counts as seen: it does not end."""

Reached = dict[str, frozenset[tuple[str, int]]]
"""The lines of `models` that each circuit of the table reaches, as (module, line)."""


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module of `models`, and makes it of another tree."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self.name, self.tree = f"models.{file.replace('/', '.')}", tree
        self.origin = str(ROOT / "models" / f"{file}.py")

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Its spec, and nobody else's."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.origin, loader=self)

    def create_module(self, spec: Any) -> None:
        """As usual."""

    def exec_module(self, module: Any) -> None:
        """Run the changed tree."""
        exec(compile(self.tree, module.__spec__.origin, "exec"), module.__dict__)


def apart(work: Callable[[], Any], changed: tuple[str, ast.Module] | None = None) -> Any:
    """What some work gives in a process of its own, with `models` made anew; "timeout" where it does not end."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        for name in [name for name in sys.modules if name.partition(".")[0] == "models" or name in _OURS]:
            del sys.modules[name]
        if changed is not None:
            sys.meta_path.insert(0, _Changed(*changed))
        try:
            answer = work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(said) if said else "timeout"


_OURS = ("tests.laws.subjects", "tests.laws.oracles")


def table() -> dict[str, Any]:
    """The circuits, of `models` as it now is."""
    return importlib.import_module("tests.laws.subjects").CIRCUITS


class _Lines:
    """The lines of `models` that run inside a `with`."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def __enter__(self) -> set[tuple[str, int]]:
        sys.settrace(self.watch)
        return self.seen

    def __exit__(self, *_: Any) -> None:
        sys.settrace(None)

    def watch(self, frame: Any, _: str, __: Any) -> Any:
        """Note a line, if it is one of `models`."""
        if not frame.f_code.co_filename.startswith(f"{ROOT / 'models'}{os.sep}"):
            return None
        file = Path(frame.f_code.co_filename).relative_to(ROOT / "models").with_suffix("")
        self.seen.add((file.as_posix(), frame.f_lineno))
        return self.watch


def reach(name: str) -> frozenset[tuple[str, int]]:
    """The lines that run when a circuit is made and held to its claims, with and without its kernels."""
    entry = table()[name]
    with _Lines() as lines:
        for law in (laws.kernel, *entry.also):
            with contextlib.suppress(laws.DoesNotApply):
                law(entry.make(), **entry.told)
    return frozenset(lines)


def imported() -> frozenset[tuple[str, int]]:
    """The lines that run when `models` is imported: decorators, and what makes circuits by functions."""
    with _Lines() as lines:
        table()
    return frozenset(lines)


LAWS = (laws.shapes, laws.kernel, laws.broadcasting, laws.independent, laws.gradcheck)

ORDER = (
    "equals", "linear", "multilinear", "equivariant", "shifting", "causal", "independent", "kernel", "broadcasting",
    "shapes", "gradcheck",
)  # fmt: skip
"""The laws, the cheap ones that see most before the others; claims of our own come before them all."""

STILLBORN = "no module"
"""What is said of a change with which `models` cannot even be imported: it counts neither as seen nor as missed."""


def judged(names: Sequence[str]) -> str:
    """The first law that does not hold of one of these circuits, and how; nothing where all hold.

    Where a circuit equals its reference, its gradients do: they are not held against small differences again.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        circuits = table()
    except Exception as error:
        return f"{STILLBORN}: {type(error).__name__}"
    cases = [
        (law, name)
        for name in names
        for law in (*LAWS, *circuits[name].also)
        if called(law) not in circuits[name].without
        if law is not laws.gradcheck or circuits[name].reference is None
    ]
    for law, name in sorted(cases, key=lambda case: _cost(case[0])):
        entry = circuits[name]
        torch.manual_seed(0)
        try:
            quick(law)(entry.make(), **entry.told)
        except laws.DoesNotApply:
            continue
        except AssertionError:
            return f"{called(law)} of {name}"
        except Exception as error:
            return f"{called(law)} of {name}: {type(error).__name__}"
    return ""


def called(law: Any) -> str:
    """The name of a law, with or without arguments."""
    return (law.func if isinstance(law, partial) else law).__name__


def _cost(law: Any) -> int:
    return ORDER.index(called(law)) if called(law) in ORDER else -1


def quick(law: Any) -> Any:
    """The law itself, which does not look for a smaller counterexample."""
    if isinstance(law, partial):
        return partial(quick(law.func), *law.args, **law.keywords)
    return getattr(law, "__wrapped__", law)


def every(files: Iterable[str], reached: Reached) -> list[tuple[Mutant, ast.Module, list[str]]]:
    """Every change of a line that some circuit reaches, with those circuits, the simplest first.

    They stand in an order of no meaning that no other change alters, so that the first so many are a sample.
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
    """Those that no law sees, with the reason why that is no fault: `change | reason`, one a line."""
    lines = SURVIVORS.read_text().splitlines() if SURVIVORS.exists() else []
    return dict(line.rsplit(" | ", 1) for line in lines if " | " in line)


def reaches() -> Reached:
    """The lines that each circuit reaches; those that run on import, if it reaches others of their module."""
    once = apart(imported)
    found = {name: apart(partial(reach, name)) for name in table()}
    wrong = [said for said in (*found.values(), apart(partial(judged, list(found)))) if said and isinstance(said, str)]
    if wrong:
        raise AssertionError(f"what is not changed breaks a law: {'; '.join(wrong)}")
    modules = {name: {module for module, _ in lines} for name, lines in found.items()}
    return {
        name: lines | {(module, line) for module, line in once if module in modules[name]}
        for name, lines in found.items()
    }


@pytest.mark.mutants
def test_laws_see_what_is_changed() -> None:
    """Of a sample nine in ten, and the rest are known."""
    known, left, judged_at_all = survivors(), [], 0
    for mutant, tree, names in every(FILES, reaches())[:SAMPLE]:
        said = apart(partial(judged, names), (mutant.file, tree))
        judged_at_all += not said.startswith(STILLBORN)
        left += [f"{mutant}"] if not said else []
    unknown = [mutant for mutant in left if mutant not in known]
    assert not unknown, "\n".join(["no law sees:", *unknown])
    assert len(left) <= judged_at_all / 10


@pytest.mark.slow
def test_survivors_are_changes_of_what_stands_there() -> None:
    """A line of survivors.txt that is no change any more has nothing to say."""
    changes = {f"{mutant}" for file in FILES for mutant, _ in mutants(file)}
    assert len(changes) > 2500
    assert not [mutant for mutant in survivors() if mutant not in changes]
    assert all(reason.startswith(("equal", "a name")) for reason in survivors().values())


def main(words: Sequence[str]) -> None:
    """Every change of these files, or a sample of so many, and what saw it."""
    counts: collections.Counter[str] = collections.Counter()
    files = [word for word in words if not word.isdigit()]
    began, known, chosen = time.monotonic(), survivors(), every(files or FILES, reaches())
    print(f"{len(chosen)} changes of lines that circuits reach", flush=True)
    for size in [int(word) for word in words if word.isdigit()]:
        chosen = chosen[:size]
    for mutant, tree, names in chosen:
        said = apart(partial(judged, names), (mutant.file, tree))
        by = said.partition(" of ")[0].partition(":")[0] or "survived"
        counts[f"{by}, by an error" if " of " in said and ": " in said else by] += 1
        if not said:
            print(f"{mutant} | {known.get(f'{mutant}', '?')}", flush=True)
    total = sum(counts.values()) - counts[STILLBORN]
    seen = total - counts["survived"]
    print(f"{total} changes, {seen} seen ({seen / total:.1%}), {time.monotonic() - began:.0f} s: {dict(counts)}")


if __name__ == "__main__":
    main(sys.argv[1:])
