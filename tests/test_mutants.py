"""Do the laws see it when a circuit is changed? Small changes of every circuit in `models`, one at a time.

Each change runs in a process of its own, where the modules of `models` are made anew from the changed source; then
the laws look at the circuits of `subjects` that reach the changed line, until one does not hold. What no law sees is
a survivor: it is listed in survivors.txt, with the reason why it is no fault, or the number of the killed falls.

`python -m tests.test_mutants` runs all of them and prints the table; the test here runs a sample. Neither is part of
what a change must pass: a change takes seconds to judge, and there are thousands.
"""

import ast
import collections
import importlib
import importlib.abc
import importlib.util
import os
import pickle
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits import definitions, laws
from circuits.laws.subject import Subject
from tests.mutants import FILES, ROOT, Mutant, mutants

SURVIVORS = Path(__file__).parent / "survivors.txt"
PATIENCE = 60
"""Seconds after which a change counts as seen: it does not end."""

Reached = dict[str, frozenset[tuple[str, int]]]
"""The lines of `models` that each circuit of the table reaches, as (module, line)."""


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module of `models`, and makes it of another tree."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self.name, self.tree = f"models.{file}", tree

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Its spec, and nobody else's."""
        origin = str(ROOT / "models" / f"{fullname.partition('.')[2]}.py")
        return importlib.util.spec_from_file_location(fullname, origin, loader=self) if fullname == self.name else None

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
        signal.alarm(PATIENCE)
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


_OURS = ("tests.subjects", "tests.oracles")


def table() -> dict[str, Any]:
    """The circuits, of `models` as it now is."""
    return importlib.import_module("tests.subjects").CIRCUITS


def reach(name: str) -> frozenset[tuple[str, int]]:
    """The lines of `models` that run when a circuit is made and called, with and without its kernels."""
    lines: set[tuple[str, int]] = set()
    folder = f"{ROOT / 'models'}{os.sep}"

    def watch(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        lines.add((Path(frame.f_code.co_filename).stem, frame.f_lineno))
        return watch

    entry = table()[name]
    sys.settrace(watch)
    try:
        told = dict(entry.told)
        subject = Subject("reach", entry.make(), told.pop("sizes"), told.pop("inputs"), 0, told)
        for optional in subject.patterns():
            subject(subject.tensors(optional))
            with definitions():
                subject(subject.tensors(optional))
    finally:
        sys.settrace(None)
    return frozenset(lines)


LAWS = (laws.shapes, laws.kernel, laws.broadcasting, laws.independent, laws.gradcheck)


def judged(names: Sequence[str]) -> str:
    """The first law that does not hold of these circuits, and how; nothing where all hold."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    circuits = table()
    for name in names:
        entry = circuits[name]
        for law in sorted((*LAWS, *entry.also), key=_cost):
            try:
                law(entry.make(), **entry.told)
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
    """The cheap laws that see most come first."""
    order = ("equals", "kernel", "independent", "causal", "linear", "multilinear", "equivariant", "shifting", "shapes")
    return order.index(called(law)) if called(law) in order else len(order)


def every(files: Iterable[str], reached: Reached) -> list[tuple[Mutant, ast.Module, list[str]]]:
    """Every change of a line that some circuit reaches, with those circuits, the simplest first."""
    found = []
    for file in files:
        for mutant, tree in mutants(file):
            names = [name for name, lines in reached.items() if (file, mutant.line) in lines]
            if names:
                changed = ast.parse(ast.unparse(tree))
                found.append((mutant, changed, sorted(names, key=lambda name: len(reached[name]))))
    return found


def survivors() -> dict[str, str]:
    """Those that no law sees, with the reason why that is no fault: `change | reason`, one a line."""
    lines = SURVIVORS.read_text().splitlines() if SURVIVORS.exists() else []
    return dict(line.rsplit(" | ", 1) for line in lines if " | " in line)


def reaches() -> Reached:
    """The lines that each circuit reaches."""
    found = {name: apart(partial(reach, name)) for name in table()}
    assert not {name: said for name, said in found.items() if isinstance(said, str)}
    return found


@pytest.mark.mutants
def test_laws_see_what_is_changed() -> None:
    """Of a sample, drawn anew with every change of the sources, nine in ten; and the rest are known."""
    sample = random.Random(0).sample(every(FILES, reaches()), 150)
    known = survivors()
    left = [f"{mutant}" for mutant, tree, names in sample if not apart(partial(judged, names), (mutant.file, tree))]
    unknown = [mutant for mutant in left if mutant not in known]
    assert not unknown, "\n".join(["no law sees:", *unknown])
    assert len(left) <= len(sample) / 10


def main(words: Sequence[str]) -> None:
    """Every change of these files, or a sample of so many, and what saw it."""
    counts: collections.Counter[str] = collections.Counter()
    files = [word for word in words if not word.isdigit()]
    began, known, chosen = time.monotonic(), survivors(), every(files or FILES, reaches())
    print(f"{len(chosen)} changes of lines that circuits reach", flush=True)
    for size in [int(word) for word in words if word.isdigit()]:
        chosen = random.Random(0).sample(chosen, min(size, len(chosen)))
    for mutant, tree, names in chosen:
        said = apart(partial(judged, names), (mutant.file, tree))
        by = said.partition(" of ")[0] or "survived"
        counts["error" if ": " in said else by if " of " in said or not said else "cannot be made"] += 1
        if not said:
            print(f"{mutant} | {known.get(f'{mutant}', '?')}", flush=True)
    total = sum(counts.values())
    print(f"{total} changes, {total - counts['survived']} seen, {time.monotonic() - began:.0f} s: {dict(counts)}")


if __name__ == "__main__":
    main(sys.argv[1:])
