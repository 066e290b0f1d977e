"""The same diagram gives the same bytes: in another process, with another hash seed, and after other drawings."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawing.digests import SUBJECTS, digests

ROOT = Path(__file__).parents[2]
NAMES = list(SUBJECTS)
QUICK = ["layers", "mlp", "program"]


def in_another_process(names: list[str], seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}"}
    command = [sys.executable, "-m", "tests.drawing.digests", ",".join(names)]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.slow
def test_another_process_with_another_hash_seed_writes_the_same_bytes() -> None:
    assert in_another_process(QUICK[::-1], "12345") == digests(QUICK)


@pytest.mark.every(1, 3)
@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1", "77"])
def test_other_processes_write_the_same_bytes(seed: str) -> None:
    assert in_another_process(NAMES[::-1], seed) == digests(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("known", [QUICK, pytest.param(NAMES, marks=pytest.mark.slow)], ids=["quick", "all"])
def test_a_drawing_does_not_depend_on_those_before_it(known: list[str]) -> None:
    names = [*known, *known[:2]]
    random.Random(1).shuffle(names)
    assert digests(names) == digests(known)


@pytest.mark.slow
def test_other_drawings_have_other_numbers() -> None:
    numbers = [word.partition("=")[2] for word in digests(NAMES[:3]).split()]
    assert len(set(numbers)) == 3
