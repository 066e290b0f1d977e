"""`python -m circuits draw`: the options are those of `draw`, and mistakes are messages."""

import inspect
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sympy
from typer.testing import CliRunner, Result

from circuits import draw, trace
from circuits.commands import app
from circuits.commands import draw as command
from circuits.diagram import terminal_width
from models.attention import MultiHeadAttention, attention
from models.linearity import F_map_transposed

ROOT = Path(__file__).parents[2]
ATTENTION = "models.attention:attention"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["draw", *words])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `draw` is called with by the next command; it is called."""
    found: dict[str, Any] = {}

    def recorded(target: Any, **options: Any) -> Any:
        found.update(options)
        return draw(target, **options)

    monkeypatch.setattr(command, "drawing_of", recorded)
    return found


# --- What is written --------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_file_is_what_draw_gives(tmp_path: Path) -> None:
    path = tmp_path / "attention.svg"
    words = ("models.attention:MultiHeadAttention", "m=128", "k=16", "h=4", "y=20", "--order", "y x m k h")
    answer = run(*words, "-o", f"{path}")
    assert answer.exit_code == 0, answer.output
    assert answer.output == f"wrote {path}\n"
    diagram = trace(MultiHeadAttention(m=128, k=16, h=4), sizes={"y": 20})
    assert path.read_bytes() == draw(diagram, order="y x m k h").svg.encode()


@pytest.mark.every(3)
@pytest.mark.parametrize("suffix", [".svg", ".tex", ".pdf", ".png"])
def test_the_suffix_says_what_is_written(suffix: str, tmp_path: Path) -> None:
    if suffix in (".pdf", ".png"):
        pytest.importorskip("typst")
    for scale in (1.0, 2.0):
        answer = run(ATTENTION, "-o", f"{tmp_path / 'drawn'}{suffix}", "--scale", f"{scale}")
        assert answer.exit_code == 0, answer.output
        draw(attention).save(tmp_path / f"expected{suffix}", scale)
        assert (tmp_path / f"drawn{suffix}").read_bytes() == (tmp_path / f"expected{suffix}").read_bytes()


def test_without_a_file_it_is_printed_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """120 columns where there is none."""
    drawing = draw(trace(attention, sizes={"y": 20}))
    answer = run(ATTENTION, "y=20")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.rstrip("\n") == drawing.text(120).rstrip("\n")
    for columns in (60, 90):
        monkeypatch.setattr(command, "terminal_width", lambda columns=columns: columns)
        assert run(ATTENTION, "y=20").stdout.rstrip("\n") == drawing.text(columns).rstrip("\n")


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    assert terminal_width() == 120  # the standard output of a test is no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert terminal_width() == 77


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_stream_that_cannot_take_the_letters_gets_ascii(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    letters = "unicode" if encoding == "utf-8" else "ascii"
    assert command.printable(draw(attention)) == draw(attention).text(120, letters)


# --- Options ----------------------------------------------------------------------------------------------------------

_FLOPS = sympy.Mul(2, *sympy.symbols("k x y", integer=True, positive=True))

OPTIONS: dict[str, tuple[str | None, str, Any]] = {
    "--depth": ("0", "depth", 0),
    "--open": ("attention", "open", "attention"),
    "--close": ("attention", "close", "attention"),
    "--wires": ("tensors", "wires", "tensors"),
    "--order": ("k x y", "order", "k x y"),
    "--pairs": ("y x", "pairs", "y x"),
    "--hide": ("y", "hide", "y"),
    "--names": ("query = Q", "names", "query = Q"),
    "--notes": ("flops", "notes", {(): 2 * _FLOPS, (0,): 0, (1,): _FLOPS, (2,): 0, (3,): _FLOPS}),
    "--show-sizes": (None, "show_sizes", True),
    "--literal": (None, "literal", True),
    "--width": ("400", "width", 400),
    "--theme": ("dark", "theme", "dark"),
    "--equation": (None, "equation", True),
    "--no-frame": (None, "frame", False),
}
"""For each option of the command a value, and the option of `draw` with its value."""


@pytest.mark.every(3)
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_that_of_draw(option: str, asked: dict[str, Any]) -> None:
    word, name, value = OPTIONS[option]
    answer = run(ATTENTION, option, *([] if word is None else [word]))
    assert answer.exit_code == 0, answer.output
    known = inspect.signature(draw).parameters
    assert asked.pop(name) == value
    assert value != known[name].default
    assert all(value == (known[name].default or "") or value == known[name].default for name, value in asked.items())


def test_every_option_of_draw_has_one_of_the_command() -> None:
    known = {each.name for each in inspect.signature(draw).parameters.values() if each.kind is each.KEYWORD_ONLY}
    assert {name for _, name, _ in OPTIONS.values()} == known - {"sizes", "axes"}  # these are KEY=VALUE


@pytest.mark.parametrize("width", ["column", "page"])
def test_the_width_of_a_paper(width: str, asked: dict[str, Any]) -> None:
    assert run(ATTENTION, "--width", width).exit_code == 0
    assert asked["width"] == width


# --- Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nope",), 2, "nope names no module"),
        (("torch.nn:Liner",), 2, "torch.nn has no Liner; it has Linear"),
        ((ATTENTION, "q=3"), 2, "takes no q; it takes\n  axes: y, k, x"),
        (("models.attention:MultiHeadAttention",), 2, "needs m=... k=... h=..."),
        (("torch.nn:ReLU",), 2, 'axes="b c h w"'),
        (("torch.nn:Linear", "in_features=3", "out_features=4", "axes=b 5"), 1, "cannot be traced: RuntimeError"),
        ((ATTENTION, "--width", "wide"), 1, "not 'wide'"),
        ((ATTENTION, "--pairs", "y"), 1, "pairs has to name two axes"),
        ((ATTENTION, "--notes", "time"), 1, "a cost has no column 'time'"),
        ((ATTENTION, "--hide", "k"), 1, "axis k cannot be hidden"),
        ((ATTENTION, "--wires", "ropes"), 2, "ropes"),
        ((ATTENTION, "--theme", "blue"), 2, "blue"),
        ((ATTENTION, "-o", "no/such/folder/x.svg"), 1, "no/such/folder/x.svg: there is no folder"),
        ((ATTENTION, "-o", "x.gif"), 1, "x.gif has none of the suffixes of a drawing"),
        ((ATTENTION, "-o", "x.svg", "--scale", "0"), 1, "scale"),
        ((), 2, "TARGET"),
    ],
)
def test_a_mistake_is_a_message_on_the_standard_error(words: tuple[str, ...], code: int, said: str) -> None:
    answer = run(*words)
    assert answer.exit_code == code, answer.output
    assert said in answer.stderr
    assert not answer.stdout
    assert "Traceback" not in answer.output
    assert isinstance(answer.exception, SystemExit)


def test_a_mistake_in_the_library_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a CircuitError is a message: any other exception is not hidden."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command, "drawing_of", broken)
    assert isinstance(run(ATTENTION).exception, ZeroDivisionError)


# --- The command line -------------------------------------------------------------------------------------------------


def test_typer_is_imported_by_the_commands_alone() -> None:
    importing = [
        path for path in (ROOT / "circuits").rglob("*.py") if "import typer" in path.read_text(encoding="utf-8")
    ]
    assert {path.parent.name for path in importing} == {"commands"}


@pytest.mark.slow
def test_the_library_is_imported_without_typer() -> None:
    code = "import sys, circuits, circuits.models; assert 'typer' not in sys.modules and 'click' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.every(1, 2)
@pytest.mark.parametrize(
    "words",
    [
        ("models.mine:model", "axes=b 4"),
        ("models/mine.py:model", "axes=b 4"),
        ("circuits.models.mlp:MLP",),
        ("{folder}/models/mine.py:model.0", "axes=b 4"),
    ],
)
def test_it_runs_in_a_folder_with_files_of_its_own(words: tuple[str, ...], tmp_path: Path) -> None:
    """As `python -m circuits`, where the present folder is searched first; the models are `circuits.models` there."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text(
        "from torch import nn\nfrom . import size\nmodel = nn.Sequential(nn.Linear(size, 2), nn.ReLU())\n"
    )
    (tmp_path / "models" / "__init__.py").write_text("size = 4")
    target, *settings = words
    command = [sys.executable, "-m", "circuits", "draw", target.format(folder=tmp_path), *settings, "-o", "x.svg"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "x.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_linear_map_is_drawn_as_letters(tmp_path: Path) -> None:
    assert run("models.linearity:F_map_transposed", "-o", f"{tmp_path / 'x.svg'}").exit_code == 0
    drawn = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert drawn == draw(F_map_transposed).svg
    assert drawn != draw(trace(F_map_transposed)).svg
