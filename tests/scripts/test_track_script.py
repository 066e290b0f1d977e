"""The command `python -m scripts.track`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from circuits import trace
from models.attention import MultiHeadAttention
from models.mlp import MLP
from scripts.track import main

ROOT = Path(__file__).parents[2]
app = Typer()
app.command()(main)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.smoke
def test_a_zoo_model_is_printed_as_trace_prints_it() -> None:
    answer = run("attention", "y=20", "x=22", "m=64")
    assert answer.exit_code == 0
    assert answer.stdout.rstrip("\n") == trace(MultiHeadAttention(m=64, k=16, h=4), sizes={"y": 20, "x": 22}).table()


def test_without_sizes_the_axes_stay_symbols() -> None:
    assert "y 128, x 128 -> y 128" in run("attention").stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("torch.nn:LSTM", "input_size=8", "hidden_size=4", "axes=t b 8"), "t b 8 -> t b 4"),
        (("torch.nn:Conv2d", "in_channels=3", "out_channels=8", "kernel_size=(3, 3)", "axes=b 3 h w"), "b 3 h w"),
        (("models.attention:attention", "k=16"), "y 16, x 16, x 16 -> y 16"),
    ],
)
def test_any_class_or_circuit_can_be_named(words: tuple[str, ...], expected: str) -> None:
    answer = run(*words)
    assert answer.exit_code == 0, answer.output
    assert expected in answer.stdout


def test_depth_leaves_out_what_lies_deeper() -> None:
    assert len(run("mlp", "--depth", "1").stdout.splitlines()) == 3


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        *[pytest.param(name, marks=pytest.mark.slow) for name in ("resnet", "language_model", "sequence_to_sequence")],
    ],
)
def test_a_figure_that_ends_with_a_softmax_is_printed_whole(name: str) -> None:
    lines = run(name, "--depth", "1").stdout.splitlines()
    assert ".probabilities: " in lines[0]
    assert "softmax over" in lines[-1]


def test_json_is_the_diagram_as_plain_data() -> None:
    data = json.loads(run("mlp", "--json").stdout)
    assert without_places(data) == without_places(json.loads(json.dumps(trace(MLP().probabilities).to_dict())))
    assert data["parameters"] == 669_706


def without_places(box: dict[str, Any]) -> dict[str, Any]:
    """The diagram without the lines of the calls, which differ."""
    boxes = [without_places(inner) for inner in box["boxes"]]
    return {**{name: value for name, value in box.items() if name != "where"}, "boxes": boxes}


def test_markdown_is_a_table() -> None:
    lines = run("mlp", "--markdown").stdout.strip().splitlines()
    assert {line.count(" | ") for line in lines if "---" not in line} == {4}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope",), "no model is called nope: there are mlp"),
        (("torch.nn:Nope",), "torch.nn has no Nope"),
        (("no.such.place:X",), "there is no module no.such.place"),
        (("torch.nn:Linear",), "torch.nn:Linear needs in_features=... out_features=..."),
        (("attention", "q=foo"), "MultiHeadAttention takes no q; it takes"),
        (("attention", "q=3"), "axes: y, m, x"),
        (("attention", "y"), "y is not KEY=VALUE"),
        (("torch.nn:ReLU",), 'axes="b c h w"'),
    ],
)
def test_a_mistake_is_told_in_words_and_ends_with_2(words: tuple[str, ...], said: str) -> None:
    answer = run(*words)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.output


@pytest.mark.slow
def test_it_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "scripts.track", "mlp", "--depth", "0"]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "669,706 params" in answer.stdout
