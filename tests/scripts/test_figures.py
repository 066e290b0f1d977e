"""The figures of the paper: each is drawn, its options are options of `draw`, and its files are golden."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

import models
from circuits import Drawing, draw
from circuits.commands.targets import find_target
from scripts import figures
from scripts.figures import FIGURES, Part, figure, file_name
from tests.zoo import ZOO

GOLDEN = Path(__file__).parents[1] / "golden" / "drawings"
app = Typer()
app.command()(figures.main)

SLOW = {"26", "26 block", "27"}
each_figure = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FIGURES]
)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


# --- Drawings ---------------------------------------------------------------------------------------------------------


@pytest.mark.every(12)
@each_figure
def test_a_figure_is_its_golden_file(name: str, golden_drawing: Callable[[str, Drawing], None]) -> None:
    golden_drawing(file_name(name), figure(name))


@pytest.mark.every(12)
@each_figure
def test_a_figure_is_the_same_each_time(name: str) -> None:
    assert figure(name).svg == figure(name).svg


def test_the_figures_are_those_of_the_paper() -> None:
    wanted = ["2.3", "8", "9", "10", "11", "12", "17", "18", "19", "20", "21", "26", "26 block", "27", "28"]
    assert [*FIGURES] == wanted


def test_a_sign_stands_between_the_sides_of_an_equation() -> None:
    drawing = figure("9")
    assert drawing.svg.count('data-kind="sign"') == 2
    assert {*re.findall(r'data-kind="wire"[^>]* data-part="([\d.]+)"', drawing.svg)} == {"0.0", "0.1", "0.2"}


# --- Options ----------------------------------------------------------------------------------------------------------

MODULES = {
    module.name: importlib.import_module(f"models.{module.name}")
    for module in pkgutil.iter_modules(models.__path__)
    if not module.ispkg
}
OPTIONS = [
    (f"models.{name}:{target}", options)
    for name, module in MODULES.items()
    for target, options in getattr(module, "FIGURES", {}).items()
]
"""The options of `draw` in the files of models, each with its TARGET."""


@pytest.mark.parametrize(("target", "options"), OPTIONS, ids=[target for target, _ in OPTIONS])
def test_the_options_beside_a_model_are_options_of_draw(target: str, options: dict[str, Any]) -> None:
    """They are options and no arguments of the model, and what they belong to exists."""
    known = inspect.signature(draw).parameters
    assert {*options} <= {name for name, each in known.items() if each.kind is each.KEYWORD_ONLY}
    assert all(options[name] != known[name].default for name in options), "an option has its default"
    found = find_target(target)
    assert callable(found.found)
    for name in found.attributes:
        assert hasattr(found.found, name)


def test_every_option_beside_a_model_is_drawn() -> None:
    """By a figure, or as a model of the zoo: golden files show it."""
    parts = [each for rows in FIGURES.values() for row in rows for each in row if isinstance(each, Part)]
    assert {target for target, _ in OPTIONS} <= {
        *[f"models.{each.target}" for each in parts],
        *[each for each, *_ in ZOO.values()],
    }


@pytest.mark.slow
def test_the_options_change_the_drawing() -> None:
    ((part,),) = FIGURES["21"]
    assert isinstance(part, Part)
    assert part.drawing().svg != draw(part.subject()).svg


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_figure_is_written_and_checked(tmp_path: Path) -> None:
    out = ["--out", f"{tmp_path / 'new'}", "--only", "8", "--only", "9"]
    first = run(*out)
    assert first.exit_code == 0, first.output
    assert "2 figures in" in first.output
    assert "4 files changed" in first.output
    names = {f"figure_{number}.{suffix}" for number in (8, 9) for suffix in ("svg", "tex")}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert (tmp_path / "new" / "figure_8.svg").read_bytes() == figure("8").svg.encode()
    assert (tmp_path / "new" / "figure_8.tex").read_bytes() == figure("8").tikz.encode()
    assert "0 files changed" in run(*out).output
    assert run(*out, "--check").exit_code == 0


@pytest.mark.slow
def test_a_file_that_would_change_fails_the_check(tmp_path: Path) -> None:
    run("--out", f"{tmp_path}", "--only", "8")
    path = tmp_path / "figure_8.svg"
    path.write_bytes(path.read_bytes() + b"\n")
    before = path.read_bytes()
    for words in (("--only", "8"), ("--only", "8", "--only", "9")):
        result = run("--out", f"{tmp_path}", *words, "--check")
        assert result.exit_code == 1
        assert "figure_8.svg" in result.output
        assert ("figure_9.svg" in result.output) == ("9" in words)
    assert path.read_bytes() == before
    assert not (tmp_path / "figure_9.svg").exists()


def test_both_parts_of_a_figure_are_named_by_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawing = figure("8")
    monkeypatch.setattr(figures, "figure", lambda name: drawing)
    assert run("--out", f"{tmp_path}", "--only", "26").exit_code == 0
    assert {path.stem for path in tmp_path.iterdir()} == {"figure_26", "figure_26_block"}


def test_another_kind_of_file(tmp_path: Path) -> None:
    assert run("--out", f"{tmp_path}", "--only", "8", "--suffix", "tex").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["figure_8.tex"]
    refused = run("--out", f"{tmp_path}", "--only", "8", "--suffix", "gif")
    assert refused.exit_code == 1
    assert "gif" in refused.output


def test_an_unknown_figure_is_refused(tmp_path: Path) -> None:
    result = run("--out", f"{tmp_path}", "--only", "7")
    assert result.exit_code == 2
    assert "there is no figure 7" in result.output


# --- What differs from the paper --------------------------------------------------------------------------------------

ROWS = {
    "Section 2.3": 9, "Figure 8": 5, "Figure 9": 6, "Figure 10": 7, "Figure 11": 7, "Figure 12": 6, "Figure 17": 11,
    "Figure 18": 9, "Figure 19": 10, "Figure 20": 13, "Figure 21": 18, "Figure 26: identity residual network": 11,
    "Figure 26: block": 17, "Figure 27": 18, "Figure 28": 13,
}  # fmt: skip
"""The number of elements of each figure of the paper."""


def rows_of(section: str) -> list[list[str]]:
    """The cells of each row of a table in FIGURES.md."""
    text = (GOLDEN / "FIGURES.md").read_text(encoding="utf-8")
    (part,) = [part for part in text.split("\n## ") if part.startswith(section)]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    assert lines[:2] == ["| in the paper | here |", "|---|---|"]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("section", ROWS)
def test_every_element_of_a_figure_has_a_row(section: str) -> None:
    rows = rows_of(section)
    assert len(rows) == ROWS[section]
    assert all(len(row) == 2 and row[0] for row in rows)


@pytest.mark.parametrize("section", ROWS)
def test_every_row_says_how_it_is_drawn(section: str) -> None:
    assert all(row[1] for row in rows_of(section))
