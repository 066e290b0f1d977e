"""Every block of code in README.md is run, in order, and its output is compared with the text below it.

A `python` block may be followed by a `text` block, the output of the code; blank lines are ignored. Code whose output
is not shown must print nothing, and none raises what it does not catch. A `bash` block contains existing commands.
Blocks of any other kind fail, so that none is unchecked.
"""

import ast
import importlib.util
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

import circuits
from circuits import laws, models
from scripts import train

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


class Block(NamedTuple):
    """A fenced block: its kind, its first line in the README, its text, and the `text` block that follows it."""

    kind: str
    line: int
    text: str
    shown: str


def read_blocks(readme: str) -> Iterator[Block]:
    fences = list(re.finditer(r"^```(\w*)\n(.*?)^```\n", readme, re.MULTILINE | re.DOTALL))
    for fence, after in zip(fences, [*fences[1:], None], strict=True):
        follows = after is not None and after[1] == "text" and not readme[fence.end() : after.start()].strip()
        shown = after[2] if after is not None and follows else ""
        yield Block(fence[1], readme[: fence.start()].count("\n") + 1, fence[2], shown)


def play(block: Block, names: dict[str, Any]) -> str:
    """The output of a block; it raises nothing that it does not catch."""
    printed = io.StringIO()
    code = compile("\n" * block.line + block.text, README.name, "exec")
    with redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def words(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def section(readme: str, title: str) -> range:
    """Return the lines of a section of the README."""
    start = readme.index(f"\n## {title}\n") + 1
    end = readme.find("\n## ", start)
    return range(readme[:start].count("\n") + 1, readme[: end if end > 0 else len(readme)].count("\n") + 2)


TEXT = README.read_text(encoding="utf-8")
BLOCKS = list(read_blocks(TEXT))
TOOLS = section(TEXT, "Use with other tools")  # tests/test_tools.py runs its blocks, where the tools are installed
PYTHON = [block for block in BLOCKS if block.kind == "python" and block.line not in TOOLS]
COMMANDS = [line for block in BLOCKS if block.kind == "bash" for line in block.text.splitlines()]


def trained(*options: str) -> None:
    """Run `scripts.train resnet`, whose model is fine-tuned in README, in the present folder."""
    command = Typer()
    command.command()(train.main)
    result = CliRunner().invoke(command, ["resnet", "--device", "cpu", *options])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_every_python_block_does_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what it writes stays there
    trained("--data", "digits", "--epochs", "1", "--batch-size", "256")
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "readme"}
    assert PYTHON
    for block in PYTHON:
        assert words(play(block, names)) == words(block.shown), f"{README}:{block.line}"


(FINE_TUNING,) = [block for block in PYTHON if "runs/resnet" in block.text]


def test_fine_tuning_takes_ten_lines() -> None:
    """Statements of one line each, imports apart, without semicolons."""
    imports, *others = FINE_TUNING.text.strip().split("\n\n")
    lines = "".join(others).splitlines()
    assert len(others) == 1
    assert len(lines) <= 10
    assert all(line.startswith(("import ", "from ")) for line in imports.splitlines())
    assert ";" not in FINE_TUNING.text
    statements = [node for node in ast.walk(ast.parse(FINE_TUNING.text)) if isinstance(node, ast.stmt)]
    assert len(statements) == len(lines) + len(imports.splitlines())


@pytest.mark.slow
def test_a_model_of_other_digits_is_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As README has it: trained on digits of 28 by 28 pixels, here for two epochs."""
    monkeypatch.chdir(tmp_path)
    trained("--epochs", "2")
    for seed in range(3):
        torch.manual_seed(seed)
        assert not play(FINE_TUNING, {"__name__": "readme"})  # it ends by asserting an accuracy above 90%


def test_every_block_is_one_that_is_checked() -> None:
    assert {block.kind for block in BLOCKS} <= {"python", "text", "bash", "bibtex"}
    shown = [block.shown for block in PYTHON if block.shown]
    assert [block.text for block in BLOCKS if block.kind == "text"] == shown, "a text block that no code prints"


def test_code_comes_within_the_first_fifteen_lines() -> None:
    """The first block defines a circuit and prints its table, the second its error."""
    head = PYTHON[0]
    assert head.line + head.text.count("\n") <= 15
    decorated = [node for node in ast.parse(head.text).body if getattr(node, "decorator_list", [])]
    assert decorated
    assert "trace(" in head.text
    assert "except ShapeError" in PYTHON[1].text
    assert " here, but " in PYTHON[1].shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command: str) -> None:
    program, *arguments = shlex.split(command, comments=True)
    if program == "./scripts/env":
        assert (ROOT / "scripts" / "env").exists()
        program, *arguments = arguments
    assert shutil.which(program), f"{program} is not installed"
    if arguments[:1] == ["-m"]:
        assert importlib.util.find_spec(arguments[1]), f"there is no module {arguments[1]}"


@pytest.mark.slow
def test_the_reference_has_every_public_name_once() -> None:
    """Those of models that stand in the table of models are not said again."""
    reference, table = [
        [TEXT.splitlines()[line - 1] for line in section(TEXT, title)[:-1]]
        for title in ("Reference", "Put a module into your training code")
    ]
    cells = [line.split("|")[1] for line in reference if line.startswith("| `")]
    named = [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]
    modules = re.findall(r"`([A-Z]\w+)`", "".join([line.split("|")[1] for line in table if line.startswith("| `")]))
    known = [name for name in circuits.__all__ if name != "laws"]
    known += [f"laws.{name}" for name in laws.__all__]
    known += [f"models.{name}" for name in models.__all__ if name not in modules]
    assert sorted(named) == sorted(known)
