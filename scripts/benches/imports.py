"""The time of `import circuits`, compared with `import torch`, which it contains; each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scripts.benches.timing import Spread

ROOT = Path(__file__).parents[2]
VARIANTS = {
    "import torch": "import torch",
    "import circuits": "import circuits",
    "import models": "import models",
    "from circuits import trace": "from circuits import trace",
}
"""The statements that are timed, by title; the first is what the others are compared with."""


def seconds(statement: str) -> float:
    """The time that a statement takes in a new process, without the start of Python.

    Bytecode is written, also where PYTHONDONTWRITEBYTECODE is set: otherwise every process would compile the library.
    """
    program = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(console: Console, processes: int) -> None:
    """Print the time of each statement in that many processes, after one that writes bytecode and is not counted."""
    times: dict[str, list[float]] = {title: [] for title in VARIANTS}
    for block in range(processes + 1):
        for title, statement in VARIANTS.items():
            times[title] += [seconds(statement)] * (block > 0)
    base, *_ = times.values()
    table = Table(title=f"{processes} new processes each")
    for column in ("statement", "seconds", "times import torch, process by process", "of the medians"):
        table.add_column(column, justify="left" if column == "statement" else "right")
    for title, mine in times.items():
        ratios = Spread.of([time / torch for time, torch in zip(mine, base, strict=True)])
        of_medians = Spread.of(mine).middle / Spread.of(base).middle
        table.add_row(title, Spread.of(mine).show(), ratios.show("×"), f"{of_medians:.2f}×")
    console.print(table)
